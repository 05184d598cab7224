"""The stages of credit: pure functions `(table, signal, *, parameters) -> signal`, one float per row, that is per turn,
or per sampled token in a recipe with `unit: token`.

Nearly every method is `A = d * (x - W x)`: x from `reward`, `returns` or `broadcast`, the reference W from
`center` or `history`, the scale d from `scale` or `whiten`. One edge policy holds for all of them:

- NaN means unknown. It enters no statistic, spreads only to values made of it, and ends as advantage 0.
- A lone member of a key gets 0, never its raw value. Where there is no spread, the result is 0.
- Values that contain an `illegal` reward stay out of the spread that normalises ordinary outcomes (they are
  scaled by it all the same), unless a stage is told `illegal: include`.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import numpy as np

from marl_llm.credit.statistics import FLAT, mean_of_distinct, mean_of_others, moments, per_deviation, total
from marl_llm.credit.table import BoolArray, FloatArray, IntArray, TurnTable
from marl_llm.errors import ConfigError
from marl_llm.seeds import generator

ILLEGAL = "illegal"
"""Name of the reward part that is the price of an illegal move."""


class Bounds(NamedTuple):
    """Smallest and largest allowed value of a parameter."""

    low: float
    high: float

    def text(self) -> str:
        """In words."""
        if math.isfinite(self.high):
            return f"a number between {self.low:g} and {self.high:g}"
        return f"a number of {self.low:g} or more" if math.isfinite(self.low) else "a number"


Keys = tuple[str, ...]
Names = Annotated[tuple[str, ...], "names"]
"""Any names, where `Keys` are names of columns."""
Quantity = Annotated[str, "quantity"]
"""Name of a number that each row has (`TurnTable.quantity`)."""
Weights = Mapping[str, float]
Fraction = Annotated[float, Bounds(0.0, 1.0)]
NonNegative = Annotated[float, Bounds(0.0, math.inf)]
Positive = Annotated[float, Bounds(1e-9, math.inf)]
Natural = Annotated[int, Bounds(0, math.inf)]
Whole = Annotated[int, Bounds(1, math.inf)]
Per = Literal["turn", "episode", "token"]
Ddof = Literal[0, 1]
IllegalRule = Literal["exclude", "include"]
Lone = Literal["zero", "raw"]
"""What becomes of a lone member of a key: 0, or as in some releases its value as it is, as if the mean of its key were
0 and the standard deviation 1."""
TRAJECTORY: Keys = ("episode", "agent")
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Signal:
    """What stages hand on."""

    values_N: FloatArray
    """Value per row; NaN: unknown."""
    illegal_N: BoolArray
    """Whether an illegal move's price is part of the value."""
    weights_N: FloatArray
    """Weight of each row in statistics and in the loss; 0 leaves it out of both."""


def source(table: TurnTable, values_N: FloatArray) -> Signal:
    """Values with which a recipe begins, of which the price of illegal moves is no part."""
    return Signal(values_N=values_N, illegal_N=np.zeros(len(table), dtype=np.bool_), weights_N=table.weight)


def part_of(table: TurnTable, part: str) -> tuple[FloatArray, BoolArray]:
    """A reward part per row, and where it was due; parts may be rare, so that none may hold it."""
    if part not in table.parts:
        return np.zeros(len(table)), np.zeros(len(table), dtype=np.bool_)
    column = table.parts.index(part)
    return table.rewards_NP[:, column], table.due_NP[:, column]


def reward(table: TurnTable, *, weights: Weights = MappingProxyType({}), others: float = 1.0) -> Signal:
    """Weighted sum of the reward parts: `weights` by name, `others` for every part that is not named.

    A name that these episodes do not hold is allowed, since parts may be rare. A part of weight 0 is not
    read: it cannot make a value unknown.
    """
    values_N, illegal_N = np.zeros(len(table)), np.zeros(len(table), dtype=np.bool_)
    for column, part in enumerate(table.parts):
        weight = weights.get(part, others)
        if weight != 0:
            values_N += weight * table.rewards_NP[:, column]
            if part == ILLEGAL:
                illegal_N |= table.rewards_NP[:, column] != 0
    return Signal(values_N=values_N, illegal_N=illegal_N, weights_N=table.weight)


def align(
    table: TurnTable,
    signal: Signal,
    *,
    by: Literal["weights", "copies"] = "weights",
    size: Whole = 8,
    seed: Natural = 0,
) -> Signal:
    """Let every episode weigh the same in a role, however many agents played it there (M-GRPO, arXiv 2511.13288).

    Where d agents of one policy have the role in an episode, as sub-agents that were called d times, each weighs 1/d
    (`weights`). `copies` is the paper's way to the same expectation: with d up to `size` all are kept and copies drawn
    at random until there are `size`, with more `size` are drawn; a weight is the number of copies / `size`. The draw
    depends on `seed` and the episode alone.
    """
    roles_N, num_roles = table.key(("episode", "role", "policy"))
    agents_N, num_agents = table.key(("episode", "role", "policy", "agent"))
    role_A = np.zeros(num_agents, dtype=np.int64)
    role_A[agents_N] = roles_N
    agents_R = np.bincount(role_A, minlength=num_roles)
    weight_A = 1.0 / agents_R[role_A]
    if by == "copies":
        _, first_R = np.unique(roles_N, return_index=True)
        drawn = np.flatnonzero((agents_R > 1) & (agents_R != size))  # else nothing is left to chance
        start_R = np.cumsum(agents_R) - agents_R
        order_A = np.argsort(role_A, kind="stable")
        weight_A = np.where(agents_R[role_A] == 1, 1.0, 1.0 / size)
        for role in drawn.tolist():
            draws = generator(seed, *table.label(("episode", "role", "policy"), int(first_R[role])))
            count = int(agents_R[role])
            weight_A[order_A[start_R[role] : start_R[role] + count]] = _copies(draws, count, size) / size
    return replace(signal, weights_N=signal.weights_N * weight_A[agents_N])


def _copies(draws: np.random.Generator, count: int, size: int) -> FloatArray:
    """How often each of `count` is there, if `size` are wanted."""
    chosen = np.arange(count) if count <= size else draws.choice(count, size, replace=False)
    more = draws.choice(count, max(size - count, 0))
    return np.bincount(np.concatenate([chosen, more]), minlength=count).astype(np.float64)


def returns(table: TurnTable, signal: Signal, *, gamma: Fraction = 1.0, form: Literal["sum", "min"] = "sum") -> Signal:
    """Reward-to-go within the episode, R_k = r_k + gamma R_{k+1} over the turns of one agent.

    Linear in rows. A turn whose later rewards are unknown is unknown. `min`: R_k = min(r_k, R_{k+1}), so that a chain
    is worth what its worst link still to come is (PURE, arXiv 2504.15275); then `gamma` is not used.
    """
    if gamma == 0 and form == "sum":
        return signal
    values_N, illegal_N = signal.values_N.copy(), signal.illegal_N.copy()
    next_N = next_row(table)
    for rows in backwards(table):
        rows = rows[next_N[rows] >= 0]
        after = values_N[next_N[rows]]
        values_N[rows] = values_N[rows] + gamma * after if form == "sum" else np.minimum(values_N[rows], after)
        illegal_N[rows] |= illegal_N[next_N[rows]]
    return replace(signal, values_N=values_N, illegal_N=illegal_N)


def broadcast(table: TurnTable, signal: Signal) -> Signal:
    """Every turn gets the total of its agent in its episode."""
    codes_N, num_keys = table.key(TRAJECTORY)
    total_K = total(codes_N, num_keys, signal.values_N)
    illegal_K = total(codes_N, num_keys, signal.illegal_N.astype(np.float64)) > 0
    return replace(signal, values_N=total_K[codes_N], illegal_N=illegal_K[codes_N])


def center(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    reference: Literal["mean", "leave_one_out", "unique"] = "mean",
    per: Per = "turn",
    without: Literal["unit", "episode"] = "unit",
    include_zero: bool = False,
    decimals: int = 5,
    lone: Lone = "zero",
) -> Signal:
    """Subtract a reference taken over the rows that share `keys`.

    `per` says what is counted once: each turn, each (episode, agent), so that long games weigh no more than
    short ones, or each token. `leave_one_out` leaves out one of these, or with `without: episode` the whole (episode,
    agent). `unique` is the mean of the values that differ in their first `decimals`, whatever `per`;
    `include_zero` counts 0 among them.
    """
    codes_N, num_keys = table.key(keys)
    units_N, known_N = units_of(table, keys, per), known_rows(signal)
    apart_N = units_N if without == "unit" else units_of(table, keys, "episode")
    weights_N = weights_of(table, signal, units_N, known_N, per)
    if reference == "mean":
        reference_N = moments(codes_N, num_keys, signal.values_N, weights_N)[0][codes_N]
    elif reference == "leave_one_out":
        reference_N = mean_of_others(codes_N, num_keys, apart_N, signal.values_N, weights_N)
    else:
        extra = (0.0,) if include_zero else ()
        codes, values = codes_N[known_N], signal.values_N[known_N]
        reference_N = mean_of_distinct(codes, num_keys, values, decimals=decimals, extra=extra)[codes_N]
    lone_N = units_per_key(codes_N, num_keys, apart_N, known_N)[codes_N] <= 1
    alone_N = signal.values_N if lone == "raw" else np.zeros(len(table))
    return with_values(signal, np.where(lone_N, alone_N, signal.values_N - reference_N))


def scale(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    per: Per = "turn",
    ddof: Ddof = 1,
    eps: NonNegative = 1e-6,
    illegal: IllegalRule = "exclude",
    lone: Lone = "zero",
) -> Signal:
    """Divide by (standard deviation + eps) of the rows that share `keys`; `per` as in `center`.

    Where ordinary rows have no spread there is nothing to protect, and illegal ones count too.
    """
    codes_N, num_keys = table.key(keys)
    units_N, known_N = units_of(table, keys, per), known_rows(signal)

    def variance(counted_N: BoolArray) -> FloatArray:
        weights_N = weights_of(table, signal, units_N, counted_N, per)
        return moments(codes_N, num_keys, signal.values_N, weights_N, ddof)[1]

    factor_K = per_deviation(_ordinary(variance, signal, known_N, illegal), eps)
    if lone == "raw":
        factor_K[units_per_key(codes_N, num_keys, units_N, known_N) <= 1] = 1 / (1 + eps)
    return with_values(signal, signal.values_N * factor_K[codes_N])


def whiten(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys = (),
    at: Literal["every_token", "last_token"] = "every_token",
    ddof: Ddof = 1,
    eps: NonNegative = 1e-8,
    illegal: IllegalRule = "exclude",
) -> Signal:
    """(x - mean) / sqrt(variance + eps) over the sampled tokens of the rows that share `keys`.

    A turn's value stands at every one of its tokens (an advantage), or at its last one with 0 before it (a
    reward); then the result is the sum over the turn's tokens.

    Raises:
        ConfigError: there are turns, and none of them has sampled tokens.
    """
    if len(table) and not table.num_tokens.any():
        raise ConfigError(
            "credit: stage whiten counts sampled tokens, and no turn of these episodes has any (were they "
            "logged with run.tokens=false?); use center and scale instead"
        )
    codes_N, num_keys = table.key(keys)
    known_N, tokens_N = known_rows(signal), table.num_tokens.astype(np.float64)
    # One entry with a weight for the tokens of a turn that hold the same value.
    entries: list[tuple[FloatArray, FloatArray]] = [(signal.values_N, tokens_N)]
    if at == "last_token":
        zeros_N = np.zeros(len(table))
        entries = [(signal.values_N, np.minimum(tokens_N, 1)), (zeros_N, np.maximum(tokens_N - 1, 0))]
    codes = np.concatenate([codes_N for _ in entries])
    values = np.concatenate([values_N for values_N, _ in entries])

    def statistics(counted_N: BoolArray) -> tuple[FloatArray, FloatArray]:
        weights = np.concatenate([weights_N * counted_N * signal.weights_N for _, weights_N in entries])
        return moments(codes, num_keys, values, weights, ddof)

    mean_N = statistics(known_N)[0][codes_N]
    variance_K = _ordinary(lambda counted_N: statistics(counted_N)[1], signal, known_N, illegal)
    std_K = np.sqrt(variance_K + eps)
    factor_K = np.divide(1.0, std_K, out=np.zeros_like(std_K), where=variance_K > FLAT**2)
    removed_N = mean_N * tokens_N if at == "last_token" else mean_N
    return with_values(signal, (signal.values_N - removed_N) * factor_K[codes_N])


def clip(table: TurnTable, signal: Signal, *, low: float = -math.inf, high: float = math.inf) -> Signal:
    """Limit the values to [low, high]."""
    return with_values(signal, np.clip(signal.values_N, low, high))


def history(
    table: TurnTable,
    signal: Signal,
    baselines: Mapping[str, float],
    *,
    keys: Keys,
    alpha: Fraction = 0.95,
    order: Literal["subtract_first", "update_first"] = "subtract_first",
    per: Literal["turn", "episode"] = "episode",
) -> tuple[Signal, dict[str, float]]:
    """Subtract a moving average b <- alpha b + (1 - alpha) x per key, from 0 on, in order of (episode, turn).

    `per: episode` updates once per (episode, agent), with the mean of its values. Source: arXiv 2506.24119,
    whose release subtracts before it updates. Returns the signal and the new averages, by key as a JSON list.
    """
    codes_N, _ = table.key(keys)
    units_N, known_N = units_of(table, keys, per), known_rows(signal)
    num_units = int(units_N.max(initial=-1)) + 1
    mean_U, _ = moments(units_N, num_units, signal.values_N, known_N.astype(np.float64))
    rows = np.flatnonzero(known_N)
    _, first = np.unique(units_N[rows], return_index=True)
    updated, baseline_U = dict(baselines), np.zeros(num_units)
    names: dict[int, str] = {}
    for row in rows[np.sort(first)].tolist():
        code, unit = int(codes_N[row]), int(units_N[row])
        name = names.get(code) or names.setdefault(code, json.dumps(table.label(keys, row)))
        before = updated.get(name, 0.0)
        updated[name] = alpha * before + (1 - alpha) * float(mean_U[unit])
        baseline_U[unit] = before if order == "subtract_first" else updated[name]
    return with_values(signal, signal.values_N - baseline_U[units_N]), updated


def needs(*names: str) -> Callable[[F], F]:
    """What a stage cannot do without, besides its columns and quantities: see `marl_llm.credit.needs`."""

    def note(stage: F) -> F:
        stage.needs = names  # type: ignore[attr-defined]
        return stage

    return note


SOURCES: Mapping[str, Callable[..., Signal]] = {"reward": reward}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {
    stage.__name__: stage for stage in (align, returns, broadcast, center, scale, whiten, clip)
}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {"history": history}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""


def units_of(table: TurnTable, keys: Keys, per: Per) -> IntArray:
    """What counts once within the key: the row itself, its turn, or its (episode, agent)."""
    if per == "turn" and table.by_token:
        codes_N, num_keys = table.key(keys)
        units_N: IntArray = np.unique(table.turn_row * num_keys + codes_N, return_inverse=True)[1]
        return units_N
    return table.key((*keys, *TRAJECTORY))[0] if per == "episode" else np.arange(len(table))


def known_rows(signal: Signal) -> BoolArray:
    """Which rows are counted: those with a value and a weight."""
    known_N: BoolArray = ~np.isnan(signal.values_N) & (signal.weights_N > 0)
    return known_N


def weights_of(table: TurnTable, signal: Signal, units_N: IntArray, counted_N: BoolArray, per: Per) -> FloatArray:
    """Weight of each row in a statistic: 0 where it is not counted; each counted unit or token sums to its weight."""
    counts_N = counted_N.astype(np.float64)
    if per == "token":
        return counts_N * table.num_tokens * signal.weights_N
    counted_U = np.bincount(units_N, counts_N)
    return counts_N / np.maximum(counted_U, 1.0)[units_N] * signal.weights_N


def units_per_key(codes_N: IntArray, num_keys: int, units_N: IntArray, counted_N: BoolArray) -> IntArray:
    """How many units each key has, of those with a row that is counted."""
    _, first = np.unique(units_N[counted_N], return_index=True)
    return np.bincount(codes_N[counted_N][first], minlength=num_keys)


def _ordinary(
    variance: Callable[[BoolArray], FloatArray], signal: Signal, known_N: BoolArray, illegal: IllegalRule
) -> FloatArray:
    """The variance that the edge policy asks for: of ordinary rows, or of all where those have no spread."""
    every_K = variance(known_N)
    if illegal == "include" or not signal.illegal_N.any():
        return every_K
    ordinary_K = variance(known_N & ~signal.illegal_N)
    return np.where(ordinary_K > FLAT**2, ordinary_K, every_K)


def next_row(table: TurnTable) -> IntArray:
    """Row of the same agent's next turn (or token) in the episode; -1 after its last."""
    codes_N, _ = table.key(TRAJECTORY)
    order_N = np.argsort(codes_N, kind="stable")
    same = codes_N[order_N][1:] == codes_N[order_N][:-1]
    next_N = np.full(len(table), -1)
    next_N[order_N[:-1][same]] = order_N[1:][same]
    return next_N


def previous_row(next_N: IntArray) -> IntArray:
    """Row that each row is the next of, as `next_row` says; -1 for none."""
    before_N = np.full_like(next_N, -1)
    before_N[next_N[next_N >= 0]] = np.flatnonzero(next_N >= 0)
    return before_N


def backwards(table: TurnTable) -> Iterator[IntArray]:
    """The rows at each place of their trajectories (see `TurnTable.place`), from the last place to the first."""
    order_N = np.argsort(table.place, kind="stable")
    starts = np.searchsorted(table.place[order_N], np.arange(int(table.place.max(initial=-1)) + 2))
    return (order_N[starts[place] : starts[place + 1]] for place in range(len(starts) - 2, -1, -1))


def with_values(signal: Signal, values_N: FloatArray) -> Signal:
    """The signal with other values, which are unknown where NaN."""
    return replace(signal, values_N=np.where(np.isnan(signal.values_N), np.nan, values_N))
