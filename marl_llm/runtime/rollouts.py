"""Where a step's games are played: behind one interface, in this process or in many."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from marl_llm.config import Config
from marl_llm.errors import MarlError
from marl_llm.evaluation.measure import Evaluation, evaluate
from marl_llm.opponents import Opponents
from marl_llm.play import Rewards, tolerated
from marl_llm.runtime.store import Store
from marl_llm.runtime.watchdog import watched
from marl_llm.runtime.worker import Played, Worker
from marl_llm.team import HERE, Makers, Team, found
from marl_llm.types import Episode, Match

Stop = Callable[[], bool]
"""Asked again and again while games are played: whether to leave off."""
Tell = Callable[[str], None]
"""Is told, in words, what a person should know while games are played."""
Updates = Mapping[str, Callable[[], Mapping[str, float]]]
"""Policy to what updates it, which returns metrics."""


class Stopped(MarlError):
    """Somebody wanted to leave off in the middle of a step, of which nothing stays."""


class Lost(MarlError):
    """A process is gone, and with it something that the last checkpoint has: the run goes on from there."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step's games."""

    episodes: list[Episode]
    """In the order of their ids, forks included."""
    policy_s: Mapping[str, float]
    """Seconds in each policy and its engine, over all workers."""
    metrics: dict[str, float] = field(default_factory=dict)
    """What else was played, and how the workers fared."""


class Rollouts(Protocol):
    """Plays steps, each to its end, and measures."""

    def publish(self, team: Team) -> None:
        """Let everybody play with the learners' weights as they are now."""

    def begin(self, step: int, matches: Sequence[Match]) -> None:
        """Begin a step's matches, or let them wait for their turn; more of them may come when these are finished, if
        no other step has begun."""

    def finish(self, step: int, stop: Stop) -> Step:
        """All that was begun for the step since it was last finished, once it is over.

        Raises:
            RunError: too many ended at fault, or too many workers were lost.
            GameError, ConfigError: see `play`.
            Stopped: `stop` said so; nothing of the step is of any use.
        """

    def evaluate(self, config: Config, team: Team, start: Path, *, anew: bool) -> Evaluation:
        """Measure the team with the learners' weights as they are now; `anew`: with those of the checkpoint `start`.

        See `evaluation.measure.evaluate`.
        """


class Runtime(Protocol):
    """Where the parts of a run are."""

    makers: Makers
    """How the parts of a team are made there."""
    elsewhere: bool
    """Whether these are in other processes, which make them from a checkpoint."""
    beginners: Makers
    """How they are made for a run's beginning, its warm-up, which is always in this process."""
    ahead: int
    """Steps that may be in play beyond the one that is learned from next."""
    in_flight: bool
    """Whether new weights reach games in progress; else games end before."""

    def beginning(self, config: Config) -> Config:
        """The settings with which a run begins in this process."""

    def rollouts(self, config: Config, team: Team, path: Path, rewards: Rewards | None, tell: Tell) -> "Opened":
        """Who plays, for as long as the context lasts; `path`: the run directory."""

    def store(self, make: Callable[[], Store]) -> Store:
        """A store that `make` makes, wherever that is done; for any number of threads where updates run in several."""

    def learn(self, updates: Updates) -> list[Mapping[str, float]]:
        """Do all updates; their metrics, in the same order."""


Opened = AbstractContextManager[Rollouts]


def checked(matches: int, played: Sequence[Played], new: Sequence[Played], config: Config, *, over: bool) -> None:
    """Refuse a step, of which so much has been played so far, if more of its episodes ended at fault than may.

    `new`: groups that ended since the last time; only where one of them has a fault, or all are `over`, is there
    anything to see.

    Raises:
        RunError: see above.
    """
    if not over and all(episode.status != "fault" for group in new for episode in (*group.episodes, *group.replayed)):
        return
    episodes = [episode for group in played for episode in group.episodes]
    begun = [episode for episode in episodes if episode.match.branch is None]
    list(tolerated(begun, config.play, total=matches))
    every = episodes + [episode for group in played for episode in group.replayed]
    if len(begun) == matches and len(every) > matches:  # forks fail too
        list(tolerated(every, config.play, total=len(every)))


def gathered(played: Sequence[Played], policy_s: Mapping[str, float], metrics: Mapping[str, float]) -> Step:
    """The groups of a step as one."""
    episodes = [episode for group in played for episode in group.episodes]
    replayed = [episode for group in played for episode in group.replayed]
    told = dict(metrics)
    if replayed:
        anew = [turn.num_sampled for episode in replayed for turn in episode.turns if turn.weight]
        told["play/replays"] = float(len(replayed))
        told["play/replay_tokens"] = float(sum(anew))
    return Step(episodes=sorted(episodes, key=lambda e: e.match.id), policy_s=policy_s, metrics=told)


def joined(parts: Sequence[Step]) -> Step:
    """What was played of a step one after the other, as one: counts of play are added up, how the workers fared is that
    of the last part."""
    if len(parts) == 1:
        return parts[0]
    metrics: dict[str, float] = {}
    policy_s: dict[str, float] = {}
    for part in parts:
        for key, value in part.metrics.items():
            metrics[key] = value + (metrics.get(key, 0.0) if key.startswith("play/") else 0.0)
        for policy, seconds in part.policy_s.items():
            policy_s[policy] = policy_s.get(policy, 0.0) + seconds
    episodes = [episode for part in parts for episode in part.episodes]
    return Step(episodes=sorted(episodes, key=lambda e: e.match.id), policy_s=policy_s, metrics=metrics)


class LocalRollouts:
    """One worker, in this process and thread."""

    def __init__(self, config: Config, team: Team, path: Path = Path(), rewards: Rewards | None = None) -> None:
        """`path`: the run directory, in which the snapshots of a league are."""
        self._config = config
        self._opponents = Opponents(config, path)
        self.worker = Worker(config, team.policies, self._opponents, rewards)
        self._step = 0
        self._matches = 0
        self._played: list[Played] = []
        """Of this step, what was finished before."""

    def publish(self, team: Team) -> None:
        """See `Rollouts.publish`."""
        team.publish()
        self._opponents.forget()

    def begin(self, step: int, matches: Sequence[Match]) -> None:
        """See `Rollouts.begin`."""
        if step != self._step:
            self._step, self._matches, self._played = step, 0, []
        self._matches += len(matches)
        self.worker.begin(matches)

    def finish(self, step: int, stop: Stop) -> Step:
        """See `Rollouts.finish`."""
        played, before = self._played, len(self._played)
        while self.worker.num_matches:
            self.worker.poll()
            if stop():
                raise Stopped(f"stopped in step {step}")
            new = self.worker.over[len(played) - before :]
            played += new
            checked(self._matches, played, new, self._config, over=not self.worker.num_matches)
        return gathered(self.worker.take(), self.worker.effort().policy_s, {})

    def evaluate(self, config: Config, team: Team, start: Path, *, anew: bool) -> Evaluation:
        """See `Rollouts.evaluate`."""
        team = found(config, start, learn=False) if anew else team
        team.publish()
        return evaluate(config, team.policies, start)


class LocalRuntime:
    """All in this process."""

    makers = beginners = HERE
    elsewhere = False
    ahead = 0
    in_flight = False

    def beginning(self, config: Config) -> Config:
        """See `Runtime.beginning`."""
        return config

    @contextmanager
    def rollouts(
        self, config: Config, team: Team, path: Path, rewards: Rewards | None, tell: Tell
    ) -> Iterator[Rollouts]:
        """See `Runtime.rollouts`."""
        rollouts = LocalRollouts(config, team, path, rewards)
        with watched("this process", rollouts.worker.signs, config.cluster.hung_s, tell):
            yield rollouts

    def store(self, make: Callable[[], Store]) -> Store:
        """See `Runtime.store`."""
        return make()

    def learn(self, updates: Updates) -> list[Mapping[str, float]]:
        """See `Runtime.learn`."""
        return [update() for update in updates.values()]


LOCAL = LocalRuntime()
"""All in this process."""
