"""What is taken down of each decision while the sampled steps are read, one file after the other.

Of a decision only numbers are kept, and where its episode stands, so that what is kept stays small whatever was said.
"""

from array import array
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import nan
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from marl_llm.config import Config
from marl_llm.errors import ConfigError
from marl_llm.matchmaking import seat_policy
from marl_llm.report.judging import Advantages, Judge
from marl_llm.report.logs import RunLog, episodes_of
from marl_llm.types import Episode, Turn
from marl_llm.visible import shortened

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

ACTION_LENGTH = 40
"""Characters of an action's name."""
OBSERVATION_LENGTH = 4000
FOLLOWERS = 3
"""Turns of others that are named after a decision."""
THE_END = "the end"
THEN = ", then "

Who = tuple[str, str, str]
"""Game, role and policy."""


@dataclass(kw_only=True)
class Decisions:
    """All decisions of the sampled steps, a row each; N rows."""

    step: IntArray
    who: IntArray
    """Index into `Sample.who`."""
    state: IntArray
    """Equal numbers are equal decision problems, of one `who`."""
    action: IntArray
    """Index into `Sample.actions`."""
    follow: IntArray
    """What others did until its agent's next turn: index into `Sample.follows`."""
    value: FloatArray
    """Return of its agent."""
    advantage: FloatArray
    """NaN: not known."""
    length: IntArray
    """Characters of the reply."""
    tokens: IntArray
    """Sampled tokens; 0 where they were not logged."""
    illegal: IntArray
    """1: it was no legal action."""
    episode: IntArray
    """Index into `Sample.places`."""
    turn: IntArray
    """Index in its episode."""


@dataclass(kw_only=True)
class Sample:
    """What was read of one run's episodes."""

    steps: tuple[int, ...]
    """Steps that were read."""
    of: int
    """Steps that have episodes."""
    episodes: int
    """Episodes that were read."""
    decisions: Decisions
    who: list[Who]
    actions: list[str]
    follows: list[str]
    observations: dict[int, str]
    """The shortest observation of each state that came more than once."""
    offered: dict[int, tuple[str, ...]]
    """What was legal in it, where that is a list."""
    places: list[tuple[Path, int]]
    """File and offset of each episode."""
    parts: dict[tuple[str, str, str, int], tuple[float, int]]
    """Game, role, reward part and step to the sum of the part, and over how many episodes and agents."""
    meetings: list["Met"]
    statuses: dict[str, int]
    """How episodes ended, to how many did."""
    judge: Judge


@dataclass(frozen=True, kw_only=True, slots=True)
class Met:
    """One agent's result in one episode."""

    step: int
    group: str
    game: str
    agent: str
    policy: str
    others: str
    """Policies in the other seats."""
    value: float
    """Its return."""
    lead: float
    """Its return less the mean of the others'."""


@dataclass(kw_only=True)
class _Names:
    """Numbers of what is named, in the order in which it came."""

    codes: dict[object, int] = field(default_factory=dict)

    def __call__(self, name: object) -> int:
        return self.codes.setdefault(name, len(self.codes))


class _Notes:
    """Columns that grow while files are read."""

    def __init__(self) -> None:
        self.ints: dict[str, array[int]] = defaultdict(lambda: array("q"))
        self.value, self.advantage = array("d"), array("d")
        self.who, self.actions, self.follows, self.states = _Names(), _Names(), _Names(), _Names()
        self.seen: set[int] = set()
        self.observations: dict[int, str] = {}
        self.offered: dict[int, tuple[str, ...]] = {}
        self.places: list[tuple[Path, int]] = []
        self.parts: dict[tuple[str, str, str, int], tuple[float, int]] = {}
        self.meetings: list[Met] = []
        self.statuses: dict[str, int] = defaultdict(int)


def read_sample(log: RunLog, tell: Callable[[int, int], None] = lambda done, of: None) -> Sample:
    """Read the run's sampled steps; what is damaged is added to `log.damage`. `tell` hears how many are done."""
    notes, judge, files = _Notes(), Judge.of(log), log.sampled()
    steps: list[int] = []
    trained = trained_policies(log.config)
    for done, (step, file) in enumerate(files, start=1):
        read = list(episodes_of(file, log.damage))
        if read:
            steps.append(step)
        advantages = judge.advantages(step, [episode for _, episode in read])
        for offset, episode in read:
            notes.statuses[episode.status] += 1
            if episode.status != "fault":
                notes.places.append((file, offset))
                _take_down(notes, step, episode, advantages, trained)
        tell(done, len(files))
    columns = {name: np.frombuffer(column, dtype=np.int64) for name, column in notes.ints.items()}
    empty = np.zeros(0, dtype=np.int64)
    return Sample(
        steps=tuple(steps),
        of=len(log.files),
        episodes=sum(notes.statuses.values()),
        decisions=Decisions(
            **{name: columns.get(name, empty) for name in _INTS},
            value=np.frombuffer(notes.value, dtype=np.float64),
            advantage=np.frombuffer(notes.advantage, dtype=np.float64),
        ),
        who=list(notes.who.codes),  # type: ignore[arg-type]  # the names that were given
        actions=list(notes.actions.codes),  # type: ignore[arg-type]
        follows=list(notes.follows.codes),  # type: ignore[arg-type]
        observations=notes.observations,
        offered=notes.offered,
        places=notes.places,
        parts=notes.parts,
        meetings=notes.meetings,
        statuses=dict(notes.statuses),
        judge=judge,
    )


_INTS = ("step", "who", "state", "action", "follow", "length", "tokens", "illegal", "episode", "turn")


def trained_policies(config: Config) -> set[str]:
    """Names of the policies that learn."""
    return {name for name, policy in config.policies.items() if policy.kind == "llm" and policy.trainable}


def _take_down(notes: _Notes, step: int, episode: Episode, advantages: Advantages, trained: set[str]) -> None:
    roles = {turn.agent: turn.role for turn in episode.turns}
    for index, turn in enumerate(episode.turns):
        for part, reward in turn.rewards.items():
            if reward is not None and index >= episode.match.begins:
                _add(notes.parts, (episode.match.title, turn.role, part, step), reward, 0)
    for agent in episode.returns:
        _add(notes.parts, (episode.match.title, roles.get(agent, agent), "", step), 0.0, 1)
    _meet(notes, step, episode)
    for index in range(episode.match.begins, len(episode.turns)):
        turn = episode.turns[index]
        if turn.policy in trained:
            _decision(notes, step, episode, index, turn, advantages)


def _add(
    parts: dict[tuple[str, str, str, int], tuple[float, int]], key: tuple[str, str, str, int], value: float, count: int
) -> None:
    total, number = parts.get(key, (0.0, 0))
    parts[key] = total + value, number + count


def _decision(notes: _Notes, step: int, episode: Episode, index: int, turn: Turn, advantages: Advantages) -> None:
    who = (episode.match.title, turn.role, turn.policy)
    key = turn.state_key if turn.state_key is not None else turn.observation
    state = notes.states((who, blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()))
    if state not in notes.seen:
        notes.seen.add(state)
    elif len(turn.observation) < len(notes.observations.get(state, " " * (OBSERVATION_LENGTH + 1))):
        notes.observations[state] = turn.observation
    elif state not in notes.observations:
        notes.observations[state] = turn.observation[:OBSERVATION_LENGTH] + "…"
    if turn.legal_actions is not None and state not in notes.offered:
        notes.offered[state] = tuple(shortened(str(a), ACTION_LENGTH) for a in turn.legal_actions[:50])
    row = {
        "step": step,
        "who": notes.who(who),
        "state": state,
        "action": notes.actions(action_name(turn)),
        "follow": notes.follows(_followed(episode.turns, index)),
        "length": len(turn.reply),
        "tokens": turn.num_sampled,
        "illegal": int(turn.legal is False),
        "episode": len(notes.places) - 1,
        "turn": index,
    }
    for name, value in row.items():
        notes.ints[name].append(value)
    notes.value.append(float(episode.returns.get(turn.agent, nan)))
    notes.advantage.append(advantages.get((episode.match.id, index), nan))


def action_name(turn: Turn) -> str:
    """An action in a few words."""
    if turn.action is None:
        return "(unreadable)" if turn.legal is False else "(cut off)"
    return shortened(turn.action, ACTION_LENGTH) + (" (illegal)" if turn.legal is False else "")


def _followed(turns: Sequence[Turn], index: int) -> str:
    """What the others did until the agent's next turn, in words."""
    told: list[str] = []
    agent = turns[index].agent
    two = len({turn.agent for turn in turns}) <= 2
    for turn in turns[index + 1 :]:
        if turn.agent == agent:
            break
        if len(told) == FOLLOWERS:
            told.append("…")
            break
        told.append(action_name(turn) if two else f"{shortened(turn.role, ACTION_LENGTH)}: {action_name(turn)}")
    else:
        if not told:
            return THE_END
    return THEN.join(told) or "its own next turn"


def _meet(notes: _Notes, step: int, episode: Episode) -> None:
    sits = {turn.agent: turn.policy for turn in episode.turns}
    seats = {agent: sits.get(agent) or _seated(episode.match.seats, agent) for agent in episode.returns}
    returns: Mapping[str, float] = episode.returns
    if len(returns) < 2:
        return
    total = sum(returns.values())
    for agent, value in returns.items():
        others = sorted({seats[other] for other in returns if other != agent})
        notes.meetings.append(
            Met(
                step=step,
                group=episode.match.group,
                game=episode.match.title,
                agent=agent,
                policy=seats[agent],
                others=", ".join(others),
                value=float(value),
                lead=float(value - (total - value) / (len(returns) - 1)),
            )
        )


def _seated(seats: Mapping[str, str], agent: str) -> str:
    """The policy of an agent that had no turn."""
    try:
        return seat_policy(seats, agent)
    except ConfigError:
        return "?"
