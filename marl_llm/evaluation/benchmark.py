"""Teams answer benchmarks by protocols: every answer is an episode of a pipeline."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import games.pipelines
from games.pipelines.workflow import SILENCE
from games.tasks import Task
from games.tasks.answers import alike
from marl_llm.config import (
    BenchmarkConfig,
    Config,
    EntrantConfig,
    GameConfig,
    MatchmakingConfig,
    PlayConfig,
    load_benchmark,
    require_same_questions,
    to_yaml,
)
from marl_llm.errors import ConfigError
from marl_llm.evaluation.answers import Answer, AnswerFile, Key
from marl_llm.evaluation.protocols import protocol, seats_for, with_tasks
from marl_llm.files import replace as replace_file
from marl_llm.files import writing
from marl_llm.matchmaking import Seats, seat_policy
from marl_llm.play import agents_of, play
from marl_llm.policies.base import Policy
from marl_llm.seeds import derive
from marl_llm.team import found, policies_of, set_temperature
from marl_llm.types import Episode, Match

SINGLE = "single"
"""The protocol that all others are compared with, at equal tokens."""
ANSWERS = "answers.jsonl"

CONFIG = "benchmark.yaml"

Watch = Callable[[Iterable[Answer], int, str], Iterable[Answer]]
"""Gets answers as they come, how many there will be, and what they are about; passes them on."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A team that is ready to answer."""

    config: Config
    """Its settings."""
    policies: Mapping[str, Policy]
    """Who it is."""
    seats: Callable[[GameConfig], Seats]
    """Who sits where in a pipeline."""


def pipelines(config: BenchmarkConfig) -> dict[str, GameConfig]:
    """Protocol to the pipeline, without tasks; `single` comes first.

    Raises:
        ConfigError: there is no such protocol or pipeline, or it refuses its settings.
    """
    wanted = {name: (settings.game, settings.settings) for name, settings in config.protocols.items()}
    wanted.setdefault(SINGLE, ("", {}))
    made = {}
    for name in sorted(wanted, key=lambda name: name != SINGLE):
        game, settings = wanted[name]
        known = GameConfig(name=game) if game else protocol(name)
        made[name] = replace(known, settings={**known.settings, **settings})
    return made


def sizes(config: BenchmarkConfig) -> dict[str, int]:
    """Benchmark to its number of items, each of which every protocol is ready to ask.

    Raises:
        ConfigError: tasks or protocols cannot be made as the settings say.
    """
    found_sizes = {}
    for name, tasks in config.benchmarks.items():
        try:
            found_sizes[name] = len(games.pipelines.tasks_of(name, tasks))
        except (ValueError, TypeError) as error:
            raise ConfigError(f"benchmarks.{name}: {error}") from error
        for way, game in pipelines(config).items():
            try:
                with_tasks(game, {**tasks, "item": 0})
            except ConfigError as error:
                raise ConfigError(f"protocols.{way} on benchmarks.{name}: {error}") from error
    return found_sizes


def answer_all(
    config: BenchmarkConfig,
    folder: Path,
    *,
    retry: bool = False,
    watch: Watch = lambda answers, total, about: answers,
) -> list[Answer]:
    """Ask every team every item by every protocol, so far as `folder/answers.jsonl` does not have it yet.

    Each answer is in that file as soon as it is there, so that whatever stops this, nothing is asked twice. `retry`:
    whether those that failed are asked again.

    Raises:
        ConfigError, ModelError, RunError: a setting is wrong, or answers are there that were given to other ones, or a
            team cannot be loaded, or the file written.
    """
    number = sizes(config)
    _begin(config, folder)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    ways = pipelines(config)
    with AnswerFile(folder / ANSWERS) as file:
        for team, settings in config.teams.items():
            for run in range(max(1, len(settings.runs))):
                asked = Asked(config=config, team=team, run=run, file=file, retry=retry, watch=watch)
                for benchmark, items in number.items():
                    for way, game in ways.items():
                        asked.ask(benchmark, way, game, items, config.samples)
                    if config.matched and len(ways) > 1:
                        most = max(votes(file.answers.values(), team, benchmark, way) for way in ways if way != SINGLE)
                        asked.ask(benchmark, SINGLE, ways[SINGLE], items, most * config.samples)
        return list(file.answers.values())


def _begin(config: BenchmarkConfig, folder: Path) -> None:
    """Make the folder with the settings, or go on in it."""
    path = folder / CONFIG
    if path.is_file():
        require_same_questions(config, load_benchmark(path))
    with writing(path):
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(path, to_yaml(config).encode())


def votes(answers: Iterable[Answer], team: str, benchmark: str, way: str) -> int:
    """How many single answers have as many tokens as one of this protocol, to the nearest whole number, at least 1."""
    spent: dict[str, list[int]] = {SINGLE: [], way: []}
    for answer in answers:
        key = answer.key
        if key.team == team and key.benchmark == benchmark and key.protocol in spent:
            spent[key.protocol].append(answer.tokens)
    alone, together = (sum(tokens) / max(1, len(tokens)) for tokens in (spent[SINGLE], spent[way]))
    return max(1, round(together / alone)) if alone else 1


class Asked:
    """One team, which is loaded when something is left to ask."""

    def __init__(
        self, *, config: BenchmarkConfig, team: str, run: int, file: AnswerFile, retry: bool, watch: Watch
    ) -> None:
        self._config, self._team, self._run = config, team, run
        self._file, self._retry, self._watch = file, retry, watch
        self._entrant: Entrant | None = None

    def ask(self, benchmark: str, way: str, game: GameConfig, items: int, samples: int) -> None:
        """Have `samples` answers to every item by a protocol in the file."""
        tasks = self._config.benchmarks[benchmark]
        keys = [
            Key(team=self._team, run=self._run, benchmark=benchmark, protocol=way, item=item, sample=sample)
            for sample in range(samples)
            for item in range(items)
        ]
        missing = [key for key in keys if self._missing(key)]
        if not missing:
            return
        if self._entrant is None:
            self._entrant = entrant(self._config, self._config.teams[self._team], self._run)
        about = f"{benchmark}, {way}, {self._team}"
        answers = answered(self._config, self._entrant, game, tasks, missing)
        for answer in self._watch(answers, len(missing), about):
            self._file.add(answer)

    def _missing(self, key: Key) -> bool:
        known = self._file.answers.get(key)
        return known is None or (self._retry and known.failed)


def entrant(config: BenchmarkConfig, settings: EntrantConfig, run: int) -> Entrant:
    """Load a team.

    Raises:
        ConfigError, ModelError, RunError: it cannot be loaded as the settings say.
    """
    if settings.runs:
        theirs, policies = policies_of(
            settings.runs[run], step=settings.step, temperature=settings.temperature, play=config.play
        )
        for policy in settings.seats.values():
            if policy not in policies:
                raise ConfigError(f"seats: {policy!r} is not allowed; it must be one of {sorted(policies)}")
        return Entrant(config=theirs, policies=policies, seats=lambda game: settings.seats or seats_for(theirs, game))
    first = next(iter(settings.policies))
    seats = settings.seats or {"*": first}
    theirs = Config(
        policies=settings.policies,
        play=config.play or PlayConfig(),
        matchmaking=MatchmakingConfig(seats=seats),
    )
    policies = found(theirs, learn=False).policies
    if settings.temperature is not None:
        set_temperature(policies, settings.temperature)
    return Entrant(config=theirs, policies=policies, seats=lambda _: seats)


def answered(
    config: BenchmarkConfig, team: Entrant, game: GameConfig, tasks: Mapping[str, Any], keys: Sequence[Key]
) -> Iterator[Answer]:
    """An answer for each key, as they come; the same key gets the same one, whatever else is asked."""
    seats = team.seats(game)
    for agent in agents_of(with_tasks(game, {**tasks, "item": 0})):
        seat_policy(seats, agent)
    questions = games.pipelines.tasks_of(game.name, tasks)
    asked = {f"{key.protocol}/{key.item}/{key.sample}": key for key in keys}
    matches = (_match(config, game, tasks, key, name, seats) for name, key in asked.items())
    before = perf_counter()
    for episode in play(matches, team.policies, max_turns=team.config.play.max_turns):
        now = perf_counter()
        key = asked[episode.match.id]
        yield _answer(key, questions[key.item], episode, now - before)
        before = now


def _match(
    config: BenchmarkConfig, game: GameConfig, tasks: Mapping[str, Any], key: Key, name: str, seats: Seats
) -> Match:
    return Match(
        id=name,
        game=game.name,
        settings={**game.settings, "tasks": {**tasks, "item": key.item}},
        seed=derive(config.seed, "benchmark", key.benchmark, key.item),
        group=f"{key.protocol}/{key.item}",
        member=key.sample,
        seats=seats,
    )


def _answer(key: Key, task: Task, episode: Episode, seconds: float) -> Answer:
    done = episode.status == "done"
    answer = str(episode.hidden["answer"]) if done else SILENCE
    sampled = [turn.completion.tokens for turn in episode.turns if turn.completion is not None]
    return Answer(
        key=key,
        task=task.id,
        answer=answer if done else None,
        vote=None if answer == SILENCE else alike(task, answer),
        correct=float(episode.hidden["correct"]) if done else 0.0,
        tokens=sum(map(len, sampled)),
        prompt_tokens=sum(len(turn.prompt or ()) for turn in episode.turns),
        turns=len(episode.turns),
        seconds=seconds,
        status=episode.status,
        note=episode.note,
    )
