"""The flat table that credit works on: one row per turn, or one per sampled token, in an order that does not depend on
how the episodes were listed."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from marl_llm.errors import ConfigError
from marl_llm.types import Branch, Episode, Tokens, Turn

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

TextArray = NDArray[np.str_]

_NAMES = ("episode", "game", "group", "agent", "role", "policy", "observation", "node", "state", "action")
_NUMBERS = ("turn", "step", "token", "place", "parent")

KEY_COLUMNS = (*_NAMES, *_NUMBERS)
"""Columns that a key may be made of."""

LENGTH = "length"
"""Quantity of every table: the number of sampled tokens of the row's turn."""
LOGPROB = "logprob"
"""Quantity of every table with tokens: the log-probability (nats) that a token was drawn with."""


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
    """What was played."""
    stems: tuple[tuple[str, int], ...] = ()
    """Whose its first tokens are, where it was forked within a reply: node, and the token before which that ends."""
    state: str = ""
    """State key: equal where the decision problem is the same; empty where the game has none."""
    truncated: bool = False
    """Whether the episode was cut off."""
    probes: Mapping[str, float] = {}
    """Measured for the turn."""
    tokens: Tokens = ()
    """Ids of the sampled tokens; empty where no stage asks for them."""
    token_probes: Mapping[str, Sequence[float]] = {}
    """Measured for each of them."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class TokenColumns:
    """The sampled tokens of all turns, one after the other: T of them."""

    ids_T: IntArray
    """Token ids."""
    turn_T: IntArray
    """Row of the turn that each is in."""
    probes: Mapping[str, FloatArray]
    """What was measured for each; NaN where it was not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TurnTable:
    """N rows with P reward parts, ordered by (episode id, turn index, token index). Never mutated."""

    codes: Mapping[str, IntArray]
    """Each column of `KEY_COLUMNS` as integers from 0 on, equal where the column is equal. `parent` is that of the turn
    before in the episode as a `node`, plus 1; 0 for the first. A token after a fork within its reply has a number for
    the token that the fork stands after, until the next fork."""
    names: Mapping[str, Sequence[str]]
    """Of each column of texts: the text of each code."""
    num_tokens: IntArray
    """Sampled tokens of the row: 1 where rows are tokens."""
    length: IntArray
    """Sampled tokens of the row's turn."""
    weight: FloatArray
    """Of the turn."""
    parts: tuple[str, ...]
    """Names of the reward parts, sorted."""
    rewards_NP: FloatArray
    """Reward by part: 0 where absent, NaN where it was due and could not be measured. Of a turn's tokens the last one
    has it."""
    due_NP: BoolArray
    """Whether the part was due."""
    actions: Sequence[str | None]
    """What was played."""
    truncated: BoolArray
    """Whether the episode was cut off."""
    probes: Mapping[str, FloatArray]
    """Measured for the row, by name; NaN where it was not. In a table of turns, what was measured for each token has
    its mean here."""
    tokens: TokenColumns | None = None
    """The tokens of the rows, if they were asked for."""
    turn_row: IntArray
    """Row of each row's turn in the table of turns: 0 to N - 1 in that table itself."""
    stems: Sequence[tuple[int, Sequence[tuple[str, int]]]] = ()
    """Rows that were forked within a reply; see `Row.stems`."""
    by_token: bool = False
    """Whether a row is a token."""

    def __len__(self) -> int:
        return len(self.turn_row)

    @property
    def turn(self) -> IntArray:
        """Index of the turn in its episode."""
        return self.codes["turn"]

    @property
    def step(self) -> IntArray:
        """Index of the turn among its agent's turns in the episode."""
        return self.codes["step"]

    @property
    def place(self) -> IntArray:
        """Index of the row among its agent's rows in the episode."""
        return self.codes["place"]

    @property
    def ends(self) -> BoolArray:
        """Whether the row is the last of its turn: every row where rows are turns."""
        every: BoolArray = np.ones(len(self), dtype=np.bool_)
        return self.codes["token"] == self.length - 1 if self.by_token else every

    @cached_property
    def episode(self) -> TextArray:
        """Id of the match."""
        return self.column("episode")

    @cached_property
    def role(self) -> TextArray:
        """Role of the turn."""
        return self.column("role")

    def column(self, name: str) -> TextArray:
        """A column of texts."""
        return np.array(self.names[name], dtype=np.str_)[self.codes[name]]

    def key(self, names: Sequence[str]) -> tuple[IntArray, int]:
        """Number the distinct values of the columns `names` together: code per row, and their number."""
        codes_N, num_keys = np.zeros(len(self), dtype=np.int64), 1
        for name in names:
            column_N = self.codes[name]
            radix = int(column_N.max(initial=-1)) + 1
            codes_N = codes_N * radix + column_N
            codes_N, num_keys = _renumbered(codes_N, num_keys * radix)
        return codes_N, num_keys

    def label(self, names: Sequence[str], row: int) -> tuple[str, ...]:
        """The values of the columns `names` in one row, as text."""
        codes = [(name, int(self.codes[name][row])) for name in names]
        return tuple(self.names[name][code] if name in self.names else str(code) for name, code in codes)

    def described(self, names: Sequence[str], row: int) -> str:
        """The columns `names` of one row in words."""
        return " ".join(f"{name}={value}" for name, value in zip(names, self.label(names, row), strict=True)) or "all"

    def quantity(self, name: str) -> FloatArray:
        """A number per row: `length`, what was measured (a probe), or a reward part; NaN where it is unknown.

        Raises:
            ConfigError: these episodes hold no such quantity.
        """
        if name == LENGTH or not len(self):
            return self.length.astype(np.float64)
        if name in self.probes:
            return self.probes[name]
        if name in self.parts:
            return self.rewards_NP[:, self.parts.index(name)]
        known = sorted({LENGTH, *self.probes, *self.parts})
        raise ConfigError(f"credit: these episodes hold no quantity {name!r}; they hold {', '.join(known)}")

    def tokens_or_refuse(self, stage: str) -> TokenColumns:
        """The tokens of the rows.

        Raises:
            ConfigError: they were not logged.
        """
        if self.tokens is None or (len(self) and not len(self.tokens.ids_T)):
            raise ConfigError(
                f"credit: stage {stage} looks at sampled tokens, and no turn of these episodes has any (were they "
                "logged with run.tokens=false?)"
            )
        return self.tokens

    def of_tokens(self) -> "TurnTable":
        """The table with one row per sampled token; turns without any are not in it, and what they were paid stands on
        their agent's last token before them, if there is one.

        Tokens that were there before a fork have weight 0, and the node of the turn that they were sampled in. Tokens
        of one segment of a tree (from the reply's beginning or a fork to the next one) have one parent.

        Raises:
            ConfigError: tokens were not logged.
        """
        tokens = self.tokens_or_refuse("unit: token")
        row_T, size = tokens.turn_T, len(tokens.turn_T)
        rewards_NP, due_NP = self._moved_to_tokens()
        first_N = np.concatenate([[0], np.cumsum(self.length)])
        token_T = np.arange(size) - first_N[row_T]
        last_T = token_T == self.length[row_T] - 1
        codes = {name: codes_N[row_T] for name, codes_N in self.codes.items()} | {"token": token_T}
        nodes = {node: code for code, node in enumerate(self.names["node"])}
        weight_T, forked = self.weight[row_T], []
        for row, stems in self.stems:
            begins = first = int(first_N[row])
            for node, end in stems:
                codes["node"][first : begins + end] = nodes.setdefault(node, len(nodes))
                weight_T[first : begins + end] = 0.0
                first = begins + end
                forked.append(first - 1)
        codes["parent"] = _segments(codes, np.array(forked, dtype=np.int64))
        return replace(
            self,
            codes=codes | {"place": _places(codes["episode"], codes["agent"])},
            names={**self.names, "node": tuple(nodes)},
            num_tokens=np.ones(size, dtype=np.int64),
            length=self.length[row_T],
            weight=weight_T,
            rewards_NP=np.where(last_T[:, None], rewards_NP[row_T], 0.0),
            due_NP=due_NP[row_T] & last_T[:, None],
            actions=np.array(self.actions, dtype=object)[row_T],  # type: ignore[arg-type]  # indexed by row alone
            truncated=self.truncated[row_T],
            probes={name: values_N[row_T] for name, values_N in self.probes.items()} | dict(tokens.probes),
            tokens=replace(tokens, turn_T=np.arange(size)),
            turn_row=row_T,
            by_token=True,
        )

    def _moved_to_tokens(self) -> tuple[FloatArray, BoolArray]:
        """Rewards by turn, and where they are due: of turns without tokens at the agent's last turn with some."""
        if (self.length > 0).all():
            return self.rewards_NP, self.due_NP
        trajectory_N, _ = self.key(("episode", "agent"))
        order_N = np.argsort(trajectory_N, kind="stable")
        reached = np.maximum.accumulate(np.where(self.length[order_N] > 0, np.arange(len(self)), -1))
        known = reached >= 0
        known[known] = trajectory_N[order_N[reached[known]]] == trajectory_N[order_N[known]]
        rewards_NP, due_NP = np.zeros_like(self.rewards_NP), np.zeros_like(self.due_NP)
        np.add.at(rewards_NP, order_N[reached[known]], self.rewards_NP[order_N[known]])
        np.logical_or.at(due_NP, order_N[reached[known]], self.due_NP[order_N[known]])
        return rewards_NP, due_NP


def turn_table(episodes: Iterable[Episode], *, tokens: bool = False) -> TurnTable:
    """Flatten episodes; those with status `fault` are left out. `tokens`: with their tokens.

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
            stems=_stems(forks, episode.match.id, index) if turn.begun else (),
            node=_node(forks, episode.match.id, index) if episode.match.branch is not None else "",
            action=turn.action,
            state=turn.state_key or "",
            truncated=episode.status == "truncated",
            probes=turn.probes,
            tokens=turn.completion.tokens if tokens and turn.completion is not None else (),
            token_probes=_token_probes(turn) if tokens else {},
        )
        for episode in known
        for index, turn in enumerate(episode.turns)
    )


def _token_probes(turn: Turn) -> Mapping[str, Sequence[float]]:
    return {} if turn.completion is None else {**turn.token_probes, LOGPROB: turn.completion.logprobs}


def _node(forks: Mapping[str, Branch | None], episode: str, turn: int) -> str:
    """The turn as it was first played, in the episode that this one was forked from, if that is one of them."""
    fork = forks.get(episode)
    return f"{episode}#{turn}" if fork is None or turn >= fork.turn else _node(forks, fork.episode, turn)


def _stems(forks: Mapping[str, Branch | None], episode: str, turn: int) -> tuple[tuple[str, int], ...]:
    """The turns that this one shares tokens with, the oldest first, each with where these end."""
    fork = forks.get(episode)
    if fork is None or fork.turn != turn or fork.token is None:
        return ()
    older = _stems(forks, fork.episode, turn)
    shared = tuple((node, min(end, fork.token)) for node, end in older)
    return (*shared, (_node(forks, fork.episode, turn), fork.token))


def table_of(rows: Iterable[Row]) -> TurnTable:
    """The table of `rows`, whatever order they come in.

    Raises:
        ConfigError: two rows have the same episode and turn.
    """
    ordered = sorted(rows, key=lambda row: row[:2])
    for before, after in itertools.pairwise(ordered):
        if before[:2] == after[:2]:
            raise ConfigError(f"credit: episode {after.episode!r} occurs twice; match ids must be unique")
    columns: dict[str, Sequence[str]] = {name: [getattr(row, name) for row in ordered] for name in _NAMES}
    columns["node"] = [row.node or f"{row.episode}#{row.turn}" for row in ordered]
    columns["action"] = [row.action or "" for row in ordered]
    names = {name: tuple(dict.fromkeys(column)) for name, column in columns.items()}
    codes = {name: _codes(column, names[name]) for name, column in columns.items()}
    place = _places(codes["episode"], codes["agent"])
    zeros = np.zeros(len(ordered), dtype=np.int64)
    rewards_NP, due_NP, parts = _rewards([row.rewards for row in ordered])
    lengths = np.array([len(row.tokens) or row.num_tokens for row in ordered], dtype=np.int64)
    tokens = _tokens(ordered) if not ordered or any(row.tokens for row in ordered) else None
    return TurnTable(
        codes={
            **codes,
            "parent": _parents(codes["episode"], codes["node"]),
            "turn": np.array([row.turn for row in ordered], dtype=np.int64),
            "step": place,
            "place": place,
            "token": zeros,
        },
        names=names,
        num_tokens=lengths,
        length=lengths,
        weight=np.array([row.weight for row in ordered], dtype=np.float64),
        parts=parts,
        rewards_NP=rewards_NP,
        due_NP=due_NP,
        actions=tuple(row.action for row in ordered),
        truncated=np.array([row.truncated for row in ordered], dtype=np.bool_),
        probes=_probes(ordered) | ({} if tokens is None else _means(tokens, len(ordered))),
        tokens=tokens,
        turn_row=np.arange(len(ordered)),
        stems=[(number, row.stems) for number, row in enumerate(ordered) if row.stems],
    )


def _codes(column: Sequence[str], names: Sequence[str]) -> IntArray:
    code = {name: index for index, name in enumerate(names)}
    return np.fromiter((code[name] for name in column), np.int64, len(column))


def _places(episode_N: IntArray, agent_N: IntArray) -> IntArray:
    """Index of each row among those of the same episode and agent."""
    trajectory_N = episode_N * (int(agent_N.max(initial=0)) + 1) + agent_N
    order_N = np.argsort(trajectory_N, kind="stable")
    sorted_N = trajectory_N[order_N]
    starts = np.flatnonzero(np.diff(sorted_N, prepend=-1))
    ranks_N = np.arange(len(order_N)) - np.repeat(starts, np.diff([*starts, len(order_N)]))
    places_N = np.empty_like(order_N)
    places_N[order_N] = ranks_N
    return places_N


def _parents(episode_N: IntArray, node_N: IntArray) -> IntArray:
    """Node of the row before in the same episode, plus 1; 0 where there is none."""
    parents_N = np.zeros_like(node_N)
    parents_N[1:] = np.where(episode_N[1:] == episode_N[:-1], node_N[:-1] + 1, 0)
    return parents_N


def _segments(codes: Mapping[str, IntArray], forked: IntArray) -> IntArray:
    """Parent of each token: that of its turn, or a number beyond those for the latest of the tokens before it that
    somebody was forked after (`forked`: rows that are such tokens of the tree)."""
    parent_T, token_T = codes["parent"], codes["token"]
    tree_T = codes["node"] * (int(token_T.max(initial=0)) + 1) + token_T
    starts_T = token_T == 0
    starts_T[1:] |= np.isin(tree_T, tree_T[forked])[:-1]
    begins_T = np.maximum.accumulate(np.where(starts_T, np.arange(len(token_T)), 0))
    beyond = int(parent_T.max(initial=0)) + 1
    return np.where(token_T[begins_T] == 0, parent_T, beyond + tree_T[begins_T - 1])


def _renumbered(codes_N: IntArray, most: int) -> tuple[IntArray, int]:
    """The distinct codes, all less than `most`, numbered from 0 on in their order, and their number."""
    if most > 4 * len(codes_N) + 1024:  # too sparse for a table
        distinct, codes_N = np.unique(codes_N, return_inverse=True)
        return codes_N, len(distinct)
    there = np.zeros(most, dtype=np.bool_)
    there[codes_N] = True
    return (np.cumsum(there) - 1)[codes_N], int(there.sum())


def _probes(ordered: Sequence[Row]) -> dict[str, FloatArray]:
    names = sorted(set().union(*(row.probes for row in ordered)))
    return {name: np.array([row.probes.get(name, np.nan) for row in ordered], dtype=np.float64) for name in names}


def _tokens(ordered: Sequence[Row]) -> TokenColumns:
    lengths = np.array([len(row.tokens) for row in ordered], dtype=np.int64)
    probes = {}
    for name in sorted(set().union(*(row.token_probes for row in ordered))):
        missing = [(np.nan,) * length for length in lengths]
        chain = (row.token_probes.get(name, absent) for row, absent in zip(ordered, missing, strict=True))
        probes[name] = np.array(list(itertools.chain.from_iterable(chain)), dtype=np.float64)
        assert len(probes[name]) == lengths.sum(), f"token probe {name} has another length than its tokens"
    return TokenColumns(
        ids_T=np.array(list(itertools.chain.from_iterable(row.tokens for row in ordered)), dtype=np.int64),
        turn_T=np.repeat(np.arange(len(ordered)), lengths),
        probes=probes,
    )


def _means(tokens: TokenColumns, num_turns: int) -> dict[str, FloatArray]:
    """Mean over the tokens of each turn."""
    means = {}
    for name, values_T in tokens.probes.items():
        known_T = ~np.isnan(values_T)
        counts_N = np.bincount(tokens.turn_T, known_T, num_turns)
        sums_N = np.bincount(tokens.turn_T, np.where(known_T, values_T, 0.0), num_turns)
        means[name] = np.divide(sums_N, counts_N, out=np.full(num_turns, np.nan), where=counts_N > 0)
    return means


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
