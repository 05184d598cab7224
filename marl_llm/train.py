"""The loop: matches, episodes, credit, samples, a better policy; again."""

import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
import torch

from games import conformance
from marl_llm import curriculum
from marl_llm.alarms import Alarm, Watch
from marl_llm.budget.spend import Remembered, Round, Spent
from marl_llm.checkpoints import list_checkpoints
from marl_llm.config import Config, GameConfig
from marl_llm.config.require import require
from marl_llm.credit.needs import needs
from marl_llm.credit.recipe import Recipe, credit, load_recipe
from marl_llm.errors import ConfigError, GameError, TrainingError
from marl_llm.evaluation.measure import Evaluation, logged
from marl_llm.league import League
from marl_llm.learning.base import Trainer
from marl_llm.learning.quantities import MEASURED
from marl_llm.learning.samples import Advantages, Weights, to_samples
from marl_llm.measures import judged, measured
from marl_llm.metrics import cost_metrics, play_metrics, returns_by_role
from marl_llm.offers import check_recipe
from marl_llm.opponents import enlist, observed
from marl_llm.play import Rewards, agents_of, make_game
from marl_llm.run import Run, checkpoint_path, checkpoint_values, read_metrics
from marl_llm.runtime.connect import connected
from marl_llm.runtime.replay import Replays, keep, replayed, replays_from, replays_values, write_replays
from marl_llm.runtime.rollouts import LOCAL, Lost, Rollouts, Runtime, Step, Stopped, joined
from marl_llm.runtime.store import STORED, Store, read_entries, write_entries
from marl_llm.runtime.updates import Pupil, pupils, storing
from marl_llm.team import HERE, Makers, Team, begin_critics, check_players, check_prompts, check_seats, found, restore
from marl_llm.types import Episode, Sample
from marl_llm.warmup import warm_up

CHECKED_GAMES = 3
"""Random games that a game must survive before it is trained on."""


class Observer(Protocol):
    """Is told what happens; what it does has no influence on the run."""

    def started(self, run: Path, config: Config, step: int) -> None:
        """The run directory exists; `step` steps are already done."""

    def warming_up(self, policy: str, step: int, steps: int, loss: float) -> None:
        """One step of imitation is done."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """The policy was measured before or after training."""

    def alarmed(self, step: int, alarm: Alarm) -> None:
        """An alarm begins with this step, whose metrics are about to be told."""

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        """One training step is done."""

    def noted(self, text: str) -> None:
        """Something happened to a process, or does not happen: what, and where."""


@dataclass
class Progress:
    """What a training step hands to the next, besides the team."""

    step: int
    """Steps done."""
    credit: Mapping[str, Any]
    """State of the credit recipe."""
    league: League = field(default_factory=League)
    """Who can be met, and how everybody fares; empty without a league."""
    averages: curriculum.Averages = field(default_factory=dict)
    """What the curriculum goes by."""
    store: Store | None = None
    """What waits for the learners; None: they learn from every step at once."""
    deals: Remembered = field(default_factory=dict)
    """How deals went that may come again; empty without a budget."""
    replays: Replays = field(default_factory=Replays)
    """What policies learn from again; empty unless their settings say so."""
    begun: int = 0
    """The latest step that is in play, if that is a later one than `step`; of this session alone."""
    rounds: dict[int, Round] = field(default_factory=dict)
    """Steps that are in play, and what they may still begin; of this session alone."""


def train(
    config: Config,
    observer: Observer,
    *,
    path: Path | None = None,
    resume: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train as configured and return the run directory; `stop` is asked again and again, and soon obeyed.

    Stopped during the warm-up nothing is saved, and resuming begins anew; later on there is a checkpoint to go on from,
    that of the last whole step.

    `path`: the run directory, by default a new one under `run.dir`. `resume`: it exists, and its latest checkpoint
    is continued, bit-identically on one CPU process.

    Raises:
        MarlError: whatever the user can mend; checkpoints up to then stay.
    """
    recipe, rewards = prepare(config)
    with connected(config) as runtime:
        team = None if resume else assemble(runtime.beginning(config), makers=runtime.beginners)
        with _open(config, path, resume) as run, rare_collections():
            session = _Session(config, run, recipe, rewards, observer, stop, runtime)
            for replaced in range(config.cluster.restarts + 1):
                try:
                    session.go(team)
                    break
                except Lost as error:
                    if replaced == config.cluster.restarts:
                        raise
                    observer.noted(f"{error}; the run goes on from its last checkpoint")
                    team = None
            return run.path


@dataclass(frozen=True)
class _Session:
    """A run, from its beginning or its latest checkpoint on."""

    config: Config
    run: Run
    recipe: Recipe
    rewards: Rewards | None
    observer: Observer
    stop: Callable[[], bool]
    runtime: Runtime

    def go(self, team: Team | None) -> None:
        """Train to the end, or until `stop`. `team`: new, to begin with; None: the latest checkpoint is continued.

        Raises:
            Lost: a part of the team is gone.
        """
        with storing(self.config, self.run, self.runtime) as store:
            begun = self._begin(team, store)
            if begun is None or self.stop():
                return
            team, progress = begun
            with self.runtime.rollouts(self.config, team, self.run.path, self.rewards, self.observer.noted) as rollouts:
                self._assess(team, rollouts, step=0)
                if self.stop():
                    return
                try:
                    stopped = self._train(team, progress, rollouts)
                except Stopped:
                    stopped = True
                    if progress.step not in dict(list_checkpoints(self.run.path / "checkpoints")):
                        save(self.run, team, progress)
                if not stopped:
                    self._assess(team, rollouts, step=progress.step)

    def _begin(self, team: Team | None, store: Store | None) -> tuple[Team, Progress] | None:
        """None: stopped during the warm-up."""
        if team is None and self.run.latest_checkpoint() is not None:
            team, progress = self._continue(store)
            self.observer.started(self.run.path, self.config, progress.step)
            return team, progress
        beginning = self.runtime.beginning(self.config)
        if team is None:
            self.run.rewind(None)
            team = assemble(beginning, makers=self.runtime.beginners)
        self.observer.started(self.run.path, self.config, 0)
        if not warm_up(beginning, team, self.observer.warming_up, stop=self.stop):
            return None
        begin_critics(team)
        league = enlist(self.config, self.run, team, League(), 0)
        progress = Progress(step=0, credit={}, league=league, store=store)
        save(self.run, team, progress)
        return self._continue(store) if self.runtime.elsewhere else (team, progress)

    def _continue(self, store: Store | None) -> tuple[Team, Progress]:
        latest = self.run.latest_checkpoint()
        assert latest is not None
        step, checkpoint = latest
        team = assemble(self.config, checkpoint, self.runtime.makers)
        self.run.rewind(step)
        values = checkpoint_values(checkpoint)
        restore(team, checkpoint)
        averages = {key: (fast, slow) for key, (fast, slow) in values["curriculum"].items()}
        league = League.from_json(values["league"])
        if store is not None:
            read_entries(store, checkpoint / STORED)
        replays = replays_from(values["replays"], checkpoint) if "replays" in values else Replays()
        remembered = {"credit": values["credit"], "deals": values["deals"], "replays": replays}
        return team, Progress(step=step, averages=averages, league=league, store=store, **remembered)

    def _train(self, team: Team, progress: Progress, rollouts: Rollouts) -> bool:
        """Whether it was stopped after a step, which is saved then."""
        config, run = self.config, self.run
        watch = Watch(config.alarms)
        for row in read_metrics(run.path):  # of an interrupted session
            watch.see(row)
        while progress.step < config.run.steps:
            metrics, episodes = advance(config, team, self.recipe, rollouts, progress, self.runtime, self.stop)
            metrics |= look(config, team, run.path, progress.step, rollouts)
            alarms = watch.see(metrics)
            metrics |= watch.metrics()
            run.episodes(progress.step, episodes, tokens=config.run.tokens)
            run.step(progress.step, metrics)
            for alarm in alarms:
                self.observer.alarmed(progress.step, alarm)
            self.observer.stepped(progress.step, metrics)
            progress.league = enlist(config, run, team, progress.league, progress.step)
            stopping = self.stop()
            if progress.step % config.run.checkpoint_every == 0 or progress.step == config.run.steps or stopping:
                save(run, team, progress)
            if stopping:
                return True
        return False

    def _assess(self, team: Team, rollouts: Rollouts, *, step: int) -> None:
        """Evaluate as configured, unless the run directory already has the result."""
        evaluation = logged(self.run.path, step)
        if evaluation is None:
            start = checkpoint_path(self.run.path, 0)
            evaluation = rollouts.evaluate(self.config, team, start, anew=not step)
            self.run.evaluation(step, evaluation.to_json())
        self.observer.evaluated(step, evaluation)


def _open(config: Config, path: Path | None, resume: bool) -> Run:
    if not resume:
        return Run.create(config, path)
    assert path is not None
    return Run.open(path)


def assemble(config: Config, checkpoint: Path | None = None, makers: Makers = HERE) -> Team:
    """All policies, new or from a checkpoint, checked against the game.

    Raises:
        ModelError, ConfigError: a model cannot be used, or its context is too small for the rules.
    """
    team = found(config, checkpoint, makers=makers)
    check_prompts(config, team)
    return team


def prepare(config: Config) -> tuple[Recipe, Rewards | None]:
    """Everything that can be refused before a run directory is made.

    Raises:
        ConfigError: a recipe, reward function or seat is wrong, or a policy cannot play the game.
        GameError: the game breaks its contract.
    """
    check_seats(config)
    for game in config.games.values():
        _check_game(game.trained)
    check_players(config)
    _check_probes(config)
    _check_forks(config)
    recipe = load_recipe(config.credit)
    rewards = _load_function(config.play.rewards) if config.play.rewards else None
    check_recipe(config, recipe, rewards)
    if config.run.threads is not None:
        torch.set_num_threads(config.run.threads)
    return recipe, rewards


def _check_game(game: GameConfig) -> None:
    problems = conformance.check(lambda: make_game(game.name, game.settings), games=CHECKED_GAMES)
    if problems:
        more = f" (and {len(problems) - 1} more: marl-llm games check {game.name})" if len(problems) > 1 else ""
        raise GameError(f"game {game.name} breaks its contract: {problems[0]}{more}")


def _check_probes(config: Config) -> None:
    if not config.play.probe:
        return
    games = [make_game(game.name, game.trained.settings) for game in config.trained_games.values()]
    known = sorted({role for env in games for role in env.unwrapped.metadata["roles"]})
    for role in config.play.probe:
        require(role in known, "play.probe", role, f"one of the roles of the games: {known}")


def _check_forks(config: Config) -> None:
    """Forks are played again from seed and actions, so that the game must follow from these; and where somebody is left
    out by a reply that cannot be read, it must go on after one."""
    play = config.play
    coalitions = play.branches.coalitions
    forking = {"tree": play.tree, "replays": play.replays, "branches": play.branches.any}
    unread = coalitions is not None and coalitions.muted is None
    for label, game in config.trained_games.items() if any(forking.values()) else ():
        metadata = make_game(game.name, game.trained.settings).unwrapped.metadata
        if not metadata["seeded"]:
            key = next(key for key, wanted in forking.items() if wanted)
            raise ConfigError(
                f"play.{key}: not with game {label} ({game.name}), which cannot be forked, as it does not follow from "
                "its seed (its metadata has seeded: false); all games that marl-llm brings can be"
            )
        if metadata.get("on_illegal") == "forfeit":
            rule = f"while game {label} has on_illegal: forfeit"
            require(not play.replays, "play.replays", play.replays, f"0 {rule}")
            require(not unread, "play.branches.coalitions.muted", None, f"a legal action {rule}")


def _load_function(name: str) -> Rewards:
    module, _, attribute = name.partition(":")
    try:
        function: Any = getattr(import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything when it is imported
        raise ConfigError(f"play.rewards: {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    if not callable(function):
        raise ConfigError(f"play.rewards: {name!r} is {function!r}; it must be a function of an episode")
    rewards: Rewards = function
    return rewards


def advance(
    config: Config,
    team: Team,
    recipe: Recipe,
    rollouts: Rollouts,
    progress: Progress,
    runtime: Runtime = LOCAL,
    stop: Callable[[], bool] = lambda: False,
) -> tuple[dict[str, float], list[Episode]]:
    """One training step; mutates the team's weights and `progress`.

    Returns metrics of all that was played, and the episodes that were learned from.

    Raises:
        RunError: too many episodes ended at fault; nothing was learned in this step then.
        Stopped: `stop` said so; nothing has changed.
    """
    step = progress.step + 1
    clock = Clock()
    with clock("play"):
        progress.begun = max(progress.begun, progress.step)
        if runtime.in_flight or progress.begun == progress.step:
            rollouts.publish(team)
        _let_play(config, rollouts, progress, step + (runtime.ahead if runtime.in_flight else 0))
        played, spent = _finish(rollouts, progress.rounds.pop(step), step, stop)
    if not runtime.in_flight and runtime.ahead:
        rollouts.publish(team)
        _let_play(config, rollouts, progress, step + runtime.ahead)
    episodes, metrics = spent.episodes, played.metrics | spent.metrics
    with clock("measure"):
        trainers, critics = team.learners, team.critics
        episodes = measured(episodes, trainers, set(needs(recipe)) & set(MEASURED))
        episodes = judged(episodes, critics.values(), needs(recipe))
    with clock("credit"):
        credited = credit(episodes, recipe, progress.credit)
    metrics |= credited.metrics()
    metrics |= play_metrics(played.episodes)
    metrics |= cost_metrics(played.episodes, played.policy_s)
    metrics |= staleness(episodes, team) if runtime.ahead else {}
    shares = curriculum.parts(config, progress.averages)
    if len(shares) > 1:
        metrics |= {f"play/part/{game}": share for game, share in shares.items()}
    with clock("learn"):
        advantages, weights = credited.by_turn(credited.advantages), credited.by_turn(credited.weights)
        paced = pupils(config, team, progress.store)
        for name, critic in critics.items():
            metrics |= {f"learn/{name}/critic/{key}": value for key, value in critic.update(episodes).items()}
        again = replayed(config, progress.replays, trainers, episodes)
        if episodes:  # a budget may have kept none
            metrics |= learn(team, episodes, advantages, weights, paced, credited.unknown, runtime, again)
        metrics |= keep(config, progress.replays, trainers, episodes, advantages, weights, again)
    progress.step, progress.credit, progress.deals = step, credited.state, spent.remembered
    returns = returns_by_role(episode for episode in played.episodes if episode.status != "fault")
    progress.averages = curriculum.after(config, progress.averages, returns, _widths(config))
    progress.league, told = observed(config, progress.league, played.episodes)
    metrics |= told
    metrics |= clock.metrics()
    metrics["play/tokens_per_s"] = metrics["play/sampled_tokens"] / metrics["time/play_s"]
    return metrics, episodes


def _let_play(config: Config, rollouts: Rollouts, progress: Progress, last: int) -> None:
    """Begin all steps up to `last` that have not begun, as far as the run goes."""
    while progress.begun < min(last, config.run.steps):
        progress.begun += 1
        parts = curriculum.parts(config, progress.averages)
        ranges = _ranges(config) if config.matchmaking.budget else {}
        begun = Round(config, progress.begun, parts, _agents(config), progress.league, progress.deals, ranges)
        progress.rounds[progress.begun] = begun
        rollouts.begin(progress.begun, begun.matches)


def _finish(rollouts: Rollouts, begun: Round, step: int, stop: Callable[[], bool]) -> tuple[Step, Spent]:
    """All that was played of the step in the end, and what is made of it."""
    parts = [rollouts.finish(step, stop)]
    while further := begun.further(episode for part in parts for episode in part.episodes):
        rollouts.begin(step, further)
        parts.append(rollouts.finish(step, stop))
    played = joined(parts)
    return played, begun.over(played.episodes)


def staleness(episodes: Sequence[Episode], team: Team) -> dict[str, float]:
    """`play/staleness_mean` and `play/staleness_max`: updates that learners had since their tokens were sampled."""
    versions = {name: learner.version for name, learner in team.learners.items()}
    ages = [
        versions[turn.policy] - version
        for episode in episodes
        for turn in episode.turns
        if turn.policy in versions and turn.completion is not None
        for version in turn.completion.versions
    ]
    return {"play/staleness_mean": sum(ages) / len(ages), "play/staleness_max": float(max(ages))} if ages else {}


def _agents(config: Config) -> dict[str, list[str]]:
    """Game -> its agents."""
    return {label: agents_of(game.trained) for label, game in config.trained_games.items()}


def _widths(config: Config) -> dict[str, float]:
    """Game -> width of its utility range, for a curriculum."""
    if config.matchmaking.curriculum is None:
        return {}
    return {label: high - low for label, (low, high) in _ranges(config).items()}


def _ranges(config: Config) -> dict[str, tuple[float, float]]:
    """Game -> its utility range."""
    games = {label: make_game(game.name, game.trained.settings) for label, game in config.trained_games.items()}
    return {label: env.unwrapped.metadata["utility_range"] for label, env in games.items()}


def learn(
    team: Team,
    episodes: Sequence[Episode],
    advantages: Advantages,
    weights: Weights,
    paced: Mapping[str, Pupil] = MappingProxyType({}),
    unknown: Collection[tuple[str, int]] = (),
    runtime: Runtime = LOCAL,
    again: Mapping[str, Sequence[Sample]] = MappingProxyType({}),
) -> dict[str, float]:
    """Update every policy from its own turns; one that had none stays as it is, its `version` included.

    `paced`: those that learn from a store, at their own pace. `unknown`: turns whose value is; their advantage
    is 0, and who learns from pairs leaves them out. `again`: samples of earlier steps, by policy.

    Raises:
        TrainingError: no policy that learns had a turn, or see `Learner.update`. Where a budget kept nothing, or credit
            gave no turn a weight, nothing is learned, and that is no error.
    """
    learners = team.learners
    known = {turn: value for turn, value in advantages.items() if turn not in unknown}
    samples = {
        name: to_samples(episodes, known if learner.by_pairs else advantages, name, weights)
        for name, learner in learners.items()
    }
    if not any(samples.values()) and not unknown and (not weights or any(map(np.any, weights.values()))):
        raise TrainingError(f"no policy that learns had a turn in {len(episodes)} episodes")
    updates: dict[str, Callable[[], Mapping[str, float]]] = {}
    for name, learner in learners.items():
        if name in paced:
            updates[name] = partial(paced[name].learn, episodes, samples[name])
        elif samples[name]:
            updates[name] = partial(_update, name, learner, samples[name], again.get(name, ()))
    return {key: value for metrics in runtime.learn(updates) for key, value in metrics.items()}


def _update(name: str, learner: Trainer, samples: Sequence[Sample], again: Sequence[Sample]) -> dict[str, float]:
    return {f"learn/{name}/{key}": value for key, value in learner.update(samples, again).items()}


def look(config: Config, team: Team, path: Path, step: int, rollouts: Rollouts) -> dict[str, float]:
    """How the policies play after a step in which that is wanted, held-out games included, by `eval/NAME`.

    `path`: the run directory, whose checkpoint of step 0 is the opponent `start`. Empty after the other steps.
    """
    every = config.evaluation.every
    if not every or (step % every and step != config.run.steps):
        return {}
    clock = Clock()
    with clock("evaluate"):
        wanted = replace(config.evaluation, games=config.evaluation.games_during, best_response=0)
        start = checkpoint_path(path, 0)
        measured = rollouts.evaluate(replace(config, evaluation=wanted), team, start, anew=False)
    return measured.metrics() | clock.spent()


def save(run: Run, team: Team, progress: Progress) -> None:
    """Write a checkpoint."""
    values = {
        "credit": progress.credit,
        "curriculum": progress.averages,
        "deals": progress.deals,
        "league": progress.league.to_json(),
    }
    if progress.replays.kept:
        values["replays"] = replays_values(progress.replays)

    def write(folder: Path) -> None:
        team.save(folder)
        if progress.store is not None:
            write_entries(progress.store, folder / STORED)
        write_replays(progress.replays, folder)

    run.checkpoint(progress.step, write, values)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Within the block the garbage collector leaves alone what lives already, and looks at the rest less often.

    What is imported lives as long as the process, and looking through it takes a third of a second; episodes are no
    garbage until their step is over, and hold no cycles.
    """
    often = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(often[0] * 10, *often[1:])
    try:
        yield
    finally:
        gc.set_threshold(*often)
        gc.unfreeze()


class Clock:
    """Seconds spent in named parts of a step."""

    def __init__(self) -> None:
        self._start = perf_counter()
        self._spent: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Add the duration of the block to `part`."""
        start = perf_counter()
        yield
        self._spent[part] = self._spent.get(part, 0.0) + perf_counter() - start

    def spent(self) -> dict[str, float]:
        """`time/PART_s` for each part."""
        return {f"time/{part}_s": seconds for part, seconds in self._spent.items()}

    def metrics(self) -> dict[str, float]:
        """`time/PART_s` for each part, and `time/step_s` since the clock was made."""
        return self.spent() | {"time/step_s": perf_counter() - self._start}
