"""Teams answer benchmarks by protocols: every answer is an episode of a pipeline."""

import gc
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

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
    PolicyConfig,
    ProtocolConfig,
    load_benchmark,
    require_same_questions,
    to_yaml,
)
from marl_llm.errors import ConfigError
from marl_llm.evaluation.accuracy import SINGLE, votes
from marl_llm.evaluation.answers import Answer, AnswerFile, Key
from marl_llm.evaluation.protocols import protocol, seated, seats_for, with_tasks
from marl_llm.files import replace as replace_file
from marl_llm.files import writing
from marl_llm.matchmaking import Seats
from marl_llm.metrics import tokens_of
from marl_llm.play import play
from marl_llm.policies.base import Policy
from marl_llm.run import checkpoint_of
from marl_llm.seeds import derive
from marl_llm.team import found, policies_of, set_temperature
from marl_llm.types import Episode, Match

T = TypeVar("T")
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
    sizes(config)
    questions = {name: list(games.pipelines.tasks_of(name, tasks)) for name, tasks in config.benchmarks.items()}
    ways = pipelines(config)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with AnswerFile(folder / ANSWERS) as file:
        _begin(config, folder, file.answers.values())
        for team, settings in config.teams.items():
            crew = [
                Asked(config=config, team=team, run=run, file=file, retry=retry, watch=watch)
                for run in range(max(1, len(settings.runs)))
            ]
            for asked in crew:
                for benchmark, items in questions.items():
                    for way, game in ways.items():
                        asked.ask(benchmark, way, game, items, config.samples)
                if len(crew) > 1:
                    asked.leave()
            for benchmark, items in questions.items() if config.matched and len(ways) > 1 else ():
                _ask_for_votes(config, crew, benchmark, ways, items, file)
            for asked in crew:
                asked.leave()
        return [answer for key, answer in file.answers.items() if _wanted(config, questions, ways, key)]


def _ask_for_votes(
    config: BenchmarkConfig,
    crew: Sequence["Asked"],
    benchmark: str,
    ways: Mapping[str, GameConfig],
    items: Sequence[Task],
    file: AnswerFile,
) -> None:
    """Single answers until a majority of them has as many tokens as the longest protocol; their own may be shorter."""
    team = crew[0].team
    more = True
    while more:
        most = max(votes(file.answers.values(), team, benchmark, way) for way in ways if way != SINGLE)
        asked = [one.ask(benchmark, SINGLE, ways[SINGLE], items, most * config.samples) for one in crew]
        more = any(asked)


def _begin(config: BenchmarkConfig, folder: Path, answers: Iterable[Answer]) -> None:
    """Write the settings down, beside those of what else has answers; refuse if a name now means something else."""
    path = folder / CONFIG
    known = [answer.key for answer in answers]
    config = replace(config, protocols={SINGLE: ProtocolConfig(), **config.protocols})
    if path.is_file() and known:
        begun = load_benchmark(path)
        begun = replace(
            begun,
            teams=_only(begun.teams, {key.team for key in known}),
            benchmarks=_only(begun.benchmarks, {key.benchmark for key in known}),
            protocols=_only(begun.protocols, {key.protocol for key in known}),
        )
        require_same_questions(config, begun)
        config = replace(
            config,
            teams={**begun.teams, **config.teams},
            benchmarks={**begun.benchmarks, **config.benchmarks},
            protocols={**begun.protocols, **config.protocols},
        )
    with writing(path):
        replace_file(path, to_yaml(config).encode())


def _only(settings: dict[str, T], names: Collection[str]) -> dict[str, T]:
    return {name: value for name, value in settings.items() if name in names}


def _wanted(
    config: BenchmarkConfig, questions: Mapping[str, Sequence[Task]], ways: Mapping[str, GameConfig], key: Key
) -> bool:
    """Whether the settings ask for an answer; others may be there from before."""
    return (
        key.team in config.teams
        and key.run < max(1, len(config.teams[key.team].runs))
        and key.item < len(questions.get(key.benchmark, ()))
        and key.protocol in ways
    )


class Asked:
    """One team, which is loaded when something is left to ask."""

    def __init__(
        self, *, config: BenchmarkConfig, team: str, run: int, file: AnswerFile, retry: bool, watch: Watch
    ) -> None:
        self._config, self.team, self._run = config, team, run
        self._file, self._retry, self._watch = file, retry, watch
        self._entrant: Entrant | None = None
        runs, step = config.teams[team].runs, config.teams[team].step
        self._step = checkpoint_of(runs[run], step)[0] if runs and not Path(runs[run]).is_file() else None

    def ask(self, benchmark: str, way: str, game: GameConfig, questions: Sequence[Task], samples: int) -> bool:
        """Have `samples` answers to every question by a protocol in the file; tells whether anything was missing.

        Raises:
            ConfigError: what is there answers another question, or is of another checkpoint.
        """
        keys = [
            Key(team=self.team, run=self._run, benchmark=benchmark, protocol=way, item=item, sample=sample)
            for sample in range(samples)
            for item in range(len(questions))
        ]
        missing = [key for key in keys if self._missing(key, questions[key.item])]
        if not missing:
            return False
        settings = self._config.teams[self.team]
        if self._entrant is None:
            self._entrant = entrant(self._config, settings, self._run)
        about = f"{benchmark}, {way}, {self.team}"
        answers = answered(self._config, self._entrant, game, questions, missing, self._step)
        for answer in self._watch(answers, len(missing), about):
            self._file.add(answer)
        return True

    def leave(self) -> None:
        """Let go of the team, so that another one has the memory."""
        self._entrant = None
        gc.collect()

    def _missing(self, key: Key, question: Task) -> bool:
        known = self._file.answers.get(key)
        if known is None:
            return True
        if known.asked != _digest(question):
            raise ConfigError(
                f"benchmarks.{key.benchmark}: item {key.item} was another question when it was answered; choose "
                "another name, or another folder with --into"
            )
        if known.step != self._step:
            raise ConfigError(
                f"teams.{key.team}: the answers that are there are of step {known.step}, and its latest checkpoint is "
                f"of step {self._step}; set step, or choose another name, or another folder with --into"
            )
        return self._retry and known.failed


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
    play = config.play or PlayConfig()
    theirs = Config(
        policies={name: _remotely(policy, play, settings.temperature) for name, policy in settings.policies.items()},
        play=play,
        matchmaking=MatchmakingConfig(seats=seats),
    )
    policies = found(theirs, learn=False).policies
    if settings.temperature is not None:
        set_temperature(policies, settings.temperature)
    return Entrant(config=theirs, policies=policies, seats=lambda _: seats)


def _remotely(policy: PolicyConfig, play: PlayConfig, temperature: float | None) -> PolicyConfig:
    """What holds for all who play is told an endpoint too, unless its own options say otherwise."""
    if policy.kind != "remote":
        return policy
    told = {"answers": play.answers, "temperature": temperature}
    return replace(policy, options={**told, **policy.options})


def answered(
    config: BenchmarkConfig,
    team: Entrant,
    game: GameConfig,
    questions: Sequence[Task],
    keys: Sequence[Key],
    step: int | None = None,
) -> Iterator[Answer]:
    """An answer for each key, as they come; the same key gets the same one, whatever else is asked.

    Raises:
        ConfigError: somebody has no seat, or the pipeline tells no answer.
    """
    tasks = config.benchmarks[keys[0].benchmark]
    seats = team.seats(game)
    seated(with_tasks(game, {**tasks, "item": 0}), seats)
    asked = {f"{key.protocol}/{key.item}/{key.sample}": key for key in keys}
    matches = (_match(config, game, tasks, key, name, seats) for name, key in asked.items())
    before = perf_counter()
    for episode in play(matches, team.policies, max_turns=team.config.play.max_turns):
        now = perf_counter()
        key = asked[episode.match.id]
        yield _answer(key, questions[key.item], episode, now - before, step)
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


def _answer(key: Key, task: Task, episode: Episode, seconds: float, step: int | None) -> Answer:
    given = episode.hidden.get("answer") if episode.status == "done" else None
    if episode.status == "done" and given is None and all(turn.legal for turn in episode.turns):
        raise ConfigError(f"protocols.{key.protocol}: the game {episode.match.game} tells no answer of the team")
    read, sampled = tokens_of(episode.turns)
    return Answer(
        key=key,
        task=task.id,
        asked=_digest(task),
        step=step,
        answer=given,
        vote=None if given is None or given == SILENCE else alike(task, given),
        correct=0.0 if given is None else float(episode.hidden["correct"]),
        tokens=sampled,
        prompt_tokens=read,
        turns=len(episode.turns),
        seconds=seconds,
        status=episode.status,
        note=episode.note,
    )


def _digest(task: Task) -> str:
    return blake2b(f"{task.prompt}\0{task.answer}".encode(), digest_size=8).hexdigest()
