"""The flat turn table: one row per turn, in an order that does not depend on how the episodes were listed."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_llm.errors import ConfigError
from marl_llm.types import Branch, Episode

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

TextArray = NDArray[np.str_]

_NAMES = ("episode", "game", "group", "agent", "role", "policy", "observation", "node")

KEY_COLUMNS = (*_NAMES, "turn", "step")
"""Columns that a key may be made of."""


class Row(NamedTuple):
    """One turn (or one token, for a method that thinks in tokens), by hand or from `turn_table`."""

    episode: str
    """Id of the match."""
    turn: int = 0
    """Index of the turn in the episode."""
    rewards: Mapping[str, float | None] = {}
    """Reward by part; None or NaN marks a part that was due and could not be measured."""
    agent: str = "agent_0"
    """Who decided."""
    role: str = "agent_0"
    """What the agent was doing."""
    group: str = "group"
    """Group of the match."""
    game: str = "game"
    """Name of the game."""
    policy: str = "policy"
    """Name of the policy."""
    observation: str = ""
    """What the agent saw in this turn."""
    weight: float = 1.0
    """Of the turn, in statistics and in the loss."""
    num_tokens: int = 1
    """Sampled tokens; 0 when no model sampled or they were not logged."""
    node: str = ""
    """Equal where one turn is part of several episodes, which fork after it; empty: its episode and turn."""
    action: str | None = None
    """What was played; shown by the audit and read by no stage."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TurnTable:
    """N turns with P reward parts, ordered by (episode id, turn index). Never mutated."""

    episode: TextArray
    """Id of the match."""
    game: TextArray
    """Name of the game."""
    group: TextArray
    """Group of the match."""
    agent: TextArray
    """Agent that decided."""
    role: TextArray
    """Role of the turn."""
    policy: TextArray
    """Policy that decided."""
    observation: TextArray
    """What the agent saw in the turn: equal where the decision is the same, if the text tells all of it."""
    node: TextArray
    """Equal where one turn is part of several episodes, which fork after it."""
    turn: IntArray
    """Index of the turn in its episode."""
    step: IntArray
    """Index of the turn among its agent's turns in the episode."""
    num_tokens: IntArray
    """Sampled tokens."""
    weight: FloatArray
    """Of the turn."""
    parts: tuple[str, ...]
    """Names of the reward parts, sorted."""
    rewards_NP: FloatArray
    """Reward by part: 0 where absent, NaN where it was due and could not be measured."""
    due_NP: BoolArray
    """Whether the part was due."""
    actions: tuple[str | None, ...]
    """What was played."""
    codes: Mapping[str, IntArray]
    """Each column of `KEY_COLUMNS` as integers from 0 on, equal where the column is equal."""

    def __len__(self) -> int:
        return len(self.turn)

    def key(self, names: Sequence[str]) -> tuple[IntArray, int]:
        """Number the distinct values of the columns `names` together: code per row, and their number."""
        codes_N, num_keys = np.zeros(len(self), dtype=np.int64), 1
        for name in names:
            column_N = self.codes[name]
            radix = int(column_N.max(initial=-1)) + 1
            _, codes_N = np.unique(codes_N * radix + column_N, return_inverse=True)
            num_keys = int(codes_N.max(initial=-1)) + 1
        return codes_N, num_keys

    def label(self, names: Sequence[str], row: int) -> tuple[str, ...]:
        """The values of the columns `names` in one row, as text."""
        return tuple(str(getattr(self, name)[row]) for name in names)


def turn_table(episodes: Iterable[Episode]) -> TurnTable:
    """Flatten episodes; those with status `fault` are left out.

    Raises:
        ConfigError: two episodes have the same id.
    """
    known = [episode for episode in episodes if episode.status != "fault"]
    forks = {episode.match.id: episode.match.branch for episode in known}
    return table_of(
        Row(
            episode=episode.match.id,
            turn=index,
            rewards=turn.rewards,
            agent=turn.agent,
            role=turn.role,
            group=episode.match.group,
            game=episode.match.title,
            policy=turn.policy,
            observation=turn.observation,
            weight=turn.weight,
            num_tokens=len(turn.completion.tokens) if turn.completion is not None else 0,
            node=_node(forks, episode.match.id, index),
            action=turn.action,
        )
        for episode in known
        for index, turn in enumerate(episode.turns)
    )


def _node(forks: Mapping[str, Branch | None], episode: str, turn: int) -> str:
    """The turn as it was first played, in the episode that this one was forked from, if that is one of them."""
    fork = forks.get(episode)
    return f"{episode}#{turn}" if fork is None or turn >= fork.turn else _node(forks, fork.episode, turn)


def table_of(rows: Iterable[Row]) -> TurnTable:
    """The table of `rows`, whatever order they come in.

    Raises:
        ConfigError: two rows have the same episode and turn.
    """
    ordered = sorted(rows, key=lambda row: row[:2])
    for before, after in itertools.pairwise(ordered):
        if before[:2] == after[:2]:
            raise ConfigError(f"credit: episode {after.episode!r} occurs twice; match ids must be unique")
    names = {name: [getattr(row, name) for row in ordered] for name in _NAMES}
    names["node"] = [row.node or f"{row.episode}#{row.turn}" for row in ordered]
    rewards_NP, due_NP, parts = _rewards([row.rewards for row in ordered])
    turn, step = np.array([row.turn for row in ordered], dtype=np.int64), _steps(ordered)
    return TurnTable(
        **{name: np.array(column, dtype=np.str_) for name, column in names.items()},
        turn=turn,
        step=step,
        num_tokens=np.array([row.num_tokens for row in ordered], dtype=np.int64),
        weight=np.array([row.weight for row in ordered], dtype=np.float64),
        parts=parts,
        rewards_NP=rewards_NP,
        due_NP=due_NP,
        actions=tuple(row.action for row in ordered),
        codes={name: _codes(column) for name, column in names.items()} | {"turn": turn, "step": step},
    )


def _codes(names: Sequence[str]) -> IntArray:
    code = {name: index for index, name in enumerate(dict.fromkeys(names))}
    return np.fromiter((code[name] for name in names), np.int64, len(names))


def _steps(ordered: Sequence[Row]) -> IntArray:
    seen: dict[tuple[str, str], int] = {}
    steps = []
    for row in ordered:
        trajectory = (row.episode, row.agent)
        steps.append(seen.get(trajectory, 0))
        seen[trajectory] = steps[-1] + 1
    return np.array(steps, dtype=np.int64)


def _rewards(rewards: Sequence[Mapping[str, float | None]]) -> tuple[FloatArray, BoolArray, tuple[str, ...]]:
    parts = tuple(sorted(set().union(*rewards)))
    column = {part: index for index, part in enumerate(parts)}
    rewards_NP = np.zeros((len(rewards), len(parts)))
    due_NP = np.zeros((len(rewards), len(parts)), dtype=np.bool_)
    for row, by_part in enumerate(rewards):
        for part, value in by_part.items():
            rewards_NP[row, column[part]] = np.nan if value is None else value
            due_NP[row, column[part]] = True
    return rewards_NP, due_NP, parts
