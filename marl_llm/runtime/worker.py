"""Who plays a run's games and measures its policies, in one process: the local runtime has one, a cluster many."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter

from marl_llm.branches.rollout import rollout
from marl_llm.config import Config
from marl_llm.credit.load import load_recipe
from marl_llm.credit.needs import needs
from marl_llm.opponents import Opponents
from marl_llm.play import Hall, Rewards, rewarded
from marl_llm.policies.base import Policy
from marl_llm.policies.timed import Timed
from marl_llm.probes import probed, with_gold
from marl_llm.runtime.watchdog import Signs
from marl_llm.types import Episode, Match


@dataclass(frozen=True, kw_only=True)
class Played:
    """A group that was played to its end, forks and replays included."""

    group: str
    """Its name."""
    episodes: tuple[Episode, ...]
    """All that is learned from."""
    replayed: tuple[Episode, ...] = ()
    """What was played to find out what turns and agents were worth, and is not learned from."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What a worker did since it was last asked."""

    policy_s: Mapping[str, float] = field(default_factory=dict)
    """Seconds in each policy and its engine."""
    busy_s: float = 0.0
    """Seconds in polls."""


def by_group(matches: Iterable[Match]) -> dict[str, list[Match]]:
    """The matches of each group, in their order."""
    groups: dict[str, list[Match]] = {}
    for match in matches:
        groups.setdefault(match.group, []).append(match)
    return groups


class _Going:
    """A group that is being played: what it waits for, and what came of it so far."""

    def __init__(self, matches: Sequence[Match], config: Config) -> None:
        learning = {name for name, policy in config.policies.items() if policy.learns}
        self.group = matches[0].group
        self.playing = rollout(matches, config.play, learning)
        self.matches: Sequence[Match] = next(self.playing)
        self.episodes: dict[str, Episode] = {}

    def go_on(self) -> Played | None:
        """All that it waited for is there: what it wants next is in `matches`, unless it is over."""
        try:
            episodes, self.episodes = self.episodes, {}
            self.matches = self.playing.send([episodes[match.id] for match in self.matches])
        except StopIteration as ended:
            learned, replayed = ended.value
            return Played(group=self.group, episodes=tuple(learned), replayed=tuple(replayed))
        return None


class Worker:
    """Plays groups of matches, as many as it is given, side by side; one thread, which advances when it is polled."""

    def __init__(
        self,
        config: Config,
        policies: Mapping[str, Policy],
        opponents: Opponents,
        rewards: Rewards | None,
        *,
        live: int = 1024,
    ) -> None:
        """`policies`: of the team. `opponents`: seats who else is named in a match. `live`: most matches at once."""
        self._config = config
        self._team = policies
        self._opponents = opponents
        self._rewards = rewards
        self._gold = bool({"gold", "gold_before"} & set(needs(load_recipe(config.credit))))
        self._learning = [name for name in policies if config.policies[name].learns]
        self._live = live
        self._seated: dict[str, Timed] = {name: Timed(policy) for name, policy in policies.items()}
        self._hall = Hall(self._seated, max_turns=config.play.max_turns, live=live)
        self._going: dict[str, _Going] = {}
        """By the match that is waited for."""
        self._groups: dict[str, set[str]] = {}
        """Group that is not over -> who sits in it and is not in the team."""
        self.over: list[Played] = []
        """Groups that are over and not taken yet, as they were played."""
        self._busy_s = 0.0
        self._polls = 0

    @property
    def num_matches(self) -> int:
        """Matches that are not over."""
        return self._hall.num_matches

    @property
    def short(self) -> bool:
        """Whether something is over, and no match waits for another one to end."""
        return bool(self.over) and self.num_matches <= self._live

    def begin(self, matches: Iterable[Match]) -> None:
        """Begin whole groups; those that end at once are over with the next poll.

        Raises:
            RunError: who is named in a match is missing or damaged.
        """
        groups = by_group(matches)
        for name, group in groups.items():
            self._groups[name] = {who for match in group for who in match.seats.values() if who not in self._team}
        here = set().union(*self._groups.values())
        for name, policy in self._opponents.seat(here).items():
            if name not in self._seated:
                self._seated[name] = Timed(policy)
        for name in self._seated.keys() - self._team.keys() - here:
            del self._seated[name]
        for group in groups.values():
            self._play(_Going(group, self._config))

    def poll(self) -> None:
        """Make some progress.

        Raises:
            GameError, ConfigError: see `Hall.poll`.
        """
        began = perf_counter()
        for episode in self._hall.poll():
            going = self._going.pop(episode.match.id)
            going.episodes[episode.match.id] = episode
            if len(going.episodes) == len(going.matches):
                self._go_on(going)
        self._busy_s += perf_counter() - began
        self._polls += 1

    def take(self) -> list[Played]:
        """The groups that are over since the last time, probed and rewarded as the settings say.

        Raises:
            GameError, ConfigError: see `rewarded`.
        """
        over, self.over = self.over, []
        probe, rewards = self._config.play.probe, self._rewards
        episodes = [episode for played in over for episode in played.episodes]
        if probe:
            episodes = probed(episodes, {name: timed.policy for name, timed in self._seated.items()}, probe)
        if self._gold:
            episodes = with_gold(episodes, {name: self._seated[name].policy for name in self._learning})
        if rewards is not None:
            episodes = [rewarded(episode, rewards) for episode in episodes]
        rest = iter(episodes)
        return [replace(played, episodes=tuple(next(rest) for _ in played.episodes)) for played in over]

    def effort(self) -> Effort:
        """What was done since the last time."""
        spent = {name: policy.spend() for name, policy in self._seated.items()}
        busy_s, self._busy_s = self._busy_s, 0.0
        return Effort(policy_s=spent, busy_s=busy_s)

    def signs(self) -> Signs:
        """For another thread that wants to know who does not answer."""
        return Signs(polls=self._polls, doing=self._hall.doing, waiting=self._waiting())

    def _waiting(self) -> tuple[str, float] | None:
        asked = [(name, policy.oldest()) for name, policy in list(self._seated.items())]
        found = [(oldest[1], oldest[0], name) for name, oldest in asked if oldest is not None]
        if not found:
            return None
        seconds, ticket, name = max(found, key=lambda entry: entry[0])
        assert isinstance(ticket, tuple), "as `Hall` made it"
        return f"match {ticket[0]}, agent {ticket[1]}: policy {name} does not answer", seconds

    def _play(self, going: _Going) -> None:
        while not going.matches:
            if self._end(going.go_on()):
                return
        self._going |= {match.id: going for match in going.matches}
        self._hall.begin(going.matches)

    def _go_on(self, going: _Going) -> None:
        if not self._end(going.go_on()):
            self._play(going)

    def _end(self, played: Played | None) -> bool:
        if played is None:
            return False
        self.over.append(played)
        del self._groups[played.group]
        return True
