"""The flat turn table: one row per turn, in an order that does not depend on how the episodes were listed."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_llm.errors import ConfigError
from marl_llm.types import EMPTY, Episode

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

KEY_COLUMNS = ("agent", "episode", "game", "group", "policy", "role", "step", "turn")
"""Columns that a key may be made of."""


class Row(NamedTuple):
    """One turn (or one token, for a method that thinks in tokens), by hand or from `turn_table`."""

    episode: str
    """Id of the match."""
    turn: int = 0
    """Index of the turn in the episode."""
    rewards: Mapping[str, float | None] = EMPTY
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
    num_tokens: int = 1
    """Sampled tokens; 0 when no model sampled or they were not logged."""
    action: str | None = None
    """What was played; shown by the audit and read by no stage."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Column:
    """A column of names as integer codes."""

    codes_N: IntArray
    """Position in `labels`, per row."""
    labels: tuple[str, ...]
    """Distinct names in order of first occurrence."""

    @classmethod
    def of(cls, names: Sequence[str]) -> "Column":
        """The column that holds `names`."""
        code = {name: index for index, name in enumerate(dict.fromkeys(names))}
        codes_N = np.fromiter((code[name] for name in names), np.int64, len(names))
        return cls(codes_N=codes_N, labels=tuple(code))


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TurnTable:
    """N turns with P reward parts, ordered by (episode id, turn index). Never mutated."""

    episode: Column
    """Id of the match."""
    game: Column
    """Name of the game."""
    group: Column
    """Group of the match."""
    agent: Column
    """Agent that decided."""
    role: Column
    """Role of the turn."""
    policy: Column
    """Policy that decided."""
    turn_N: IntArray
    """Index of the turn in its episode."""
    step_N: IntArray
    """Index of the turn among its agent's turns in the episode."""
    num_tokens_N: IntArray
    """Sampled tokens."""
    parts: tuple[str, ...]
    """Names of the reward parts, sorted."""
    rewards_NP: FloatArray
    """Reward by part: 0 where absent, NaN where it was due and could not be measured."""
    due_NP: BoolArray
    """Whether the part was due."""
    actions: tuple[str | None, ...]
    """What was played."""

    def __len__(self) -> int:
        return len(self.turn_N)

    def key(self, names: Sequence[str]) -> tuple[IntArray, int]:
        """Number the distinct values of the columns `names` together: code per row, and their number."""
        codes_N, num_keys = np.zeros(len(self), dtype=np.int64), 1
        for name in names:
            column_N = self._codes(name)
            radix = int(column_N.max(initial=-1)) + 1
            _, codes_N = np.unique(codes_N * radix + column_N, return_inverse=True)
            num_keys = int(codes_N.max(initial=-1)) + 1
        return codes_N, num_keys

    def label(self, names: Sequence[str], row: int) -> tuple[str, ...]:
        """The values of the columns `names` in one row, as text."""
        return tuple(self._text(name, row) for name in names)

    def _codes(self, name: str) -> IntArray:
        assert name in KEY_COLUMNS, name
        if name in ("turn", "step"):
            codes_N: IntArray = getattr(self, f"{name}_N")
            return codes_N
        column: Column = getattr(self, name)
        return column.codes_N

    def _text(self, name: str, row: int) -> str:
        code = int(self._codes(name)[row])
        if name in ("turn", "step"):
            return str(code)
        column: Column = getattr(self, name)
        return column.labels[code]


def turn_table(episodes: Iterable[Episode]) -> TurnTable:
    """Flatten episodes; those with status `fault` are left out.

    Raises:
        ConfigError: two episodes have the same id.
    """
    return table_of(
        Row(
            episode=episode.match.id,
            turn=index,
            rewards=turn.rewards,
            agent=turn.agent,
            role=turn.role,
            group=episode.match.group,
            game=episode.match.game,
            policy=turn.policy,
            num_tokens=len(turn.completion.tokens) if turn.completion is not None else 0,
            action=turn.action,
        )
        for episode in episodes
        if episode.status != "fault"
        for index, turn in enumerate(episode.turns)
    )


def table_of(rows: Iterable[Row]) -> TurnTable:
    """The table of `rows`, whatever order they come in.

    Raises:
        ConfigError: two rows have the same episode and turn.
    """
    ordered = sorted(rows, key=lambda row: row[:2])
    for before, after in itertools.pairwise(ordered):
        if before[:2] == after[:2]:
            raise ConfigError(f"credit: episode {after.episode!r} occurs twice; match ids must be unique")
    rewards_NP, due_NP, parts = _rewards([row.rewards for row in ordered])
    return TurnTable(
        episode=Column.of([row.episode for row in ordered]),
        game=Column.of([row.game for row in ordered]),
        group=Column.of([row.group for row in ordered]),
        agent=Column.of([row.agent for row in ordered]),
        role=Column.of([row.role for row in ordered]),
        policy=Column.of([row.policy for row in ordered]),
        turn_N=np.array([row.turn for row in ordered], dtype=np.int64),
        step_N=_steps(ordered),
        num_tokens_N=np.array([row.num_tokens for row in ordered], dtype=np.int64),
        parts=parts,
        rewards_NP=rewards_NP,
        due_NP=due_NP,
        actions=tuple(row.action for row in ordered),
    )


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
