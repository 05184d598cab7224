"""Stages that know what a state is worth, from a critic or from further play: differences, GAE, segments.

As in `stages`: pure functions, one float per row, NaN for unknown. The quantity `value` of a row is that of the state
before it, to the agent that acts.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from marl_llm.credit.graph import SAME
from marl_llm.credit.stages import (
    TRAJECTORY,
    Fraction,
    Keys,
    Lone,
    NonNegative,
    Positive,
    Quantity,
    Signal,
    Whole,
    backwards,
    needs,
    next_row,
    part_of,
    previous_row,
    reward,
    source,
    with_values,
)
from marl_llm.credit.statistics import moments, total
from marl_llm.credit.table import LOGPROB, FloatArray, IntArray, TurnTable
from marl_llm.errors import ConfigError


def quantity(table: TurnTable, *, of: Quantity, least: Quantity = "") -> Signal:
    """What was measured for each row; of two measurements the smaller, so that one critic's error is not believed."""
    values_N = table.quantity(of)
    return source(table, np.minimum(values_N, table.quantity(least)) if least else values_N)


def part(table: TurnTable, *, of: Quantity) -> Signal:
    """One reward part, which the run must offer (see `needs`); 0 where it is not due."""
    return reward(table, weights={of: 1.0}, others=0.0)


def gain(
    table: TurnTable, *, of: Quantity = "gold", before: Quantity = "gold_before", form: Literal["logp", "prob"] = "logp"
) -> Signal:
    """What a turn adds to a log-probability that was measured after it: information gain (IGPO, arXiv 2510.14967).

    It is compared with `before`, and where that is not known with what was measured after the agent's turn before.
    `prob`: the gain of exp of both. Where rows are tokens it stands on the last one of a turn, with 0 before it.
    """
    after_N, before_N = table.quantity(of), table.quantity(before)
    first_N = np.arange(len(table)) - table.codes["token"]  # a turn's tokens are rows in order
    earlier_N = previous_row(next_row(table))[first_N]
    before_N = np.where(np.isnan(before_N) & (earlier_N >= 0), after_N[earlier_N], before_N)
    if form == "prob":
        after_N, before_N = np.exp(after_N), np.exp(before_N)
    return source(table, np.where(table.ends, after_N - before_N, 0.0))


def soft_min(table: TurnTable, *, part: str = "process", temperature: Positive = 0.1) -> Signal:
    """A part weighed by softmax(-part / temperature) over the agent's turns to which it is due, so that the sum is near
    the smallest of them; 0 elsewhere (PURE, arXiv 2504.15275)."""
    values_N, due_N = part_of(table, part)
    units_N, num_units = table.key(TRAJECTORY)
    least_U = np.full(num_units, np.inf)
    np.fmin.at(least_U, units_N[due_N], values_N[due_N])  # where one is NaN, the sum makes all of the agent's unknown
    share_N = np.zeros(len(table))
    share_N[due_N] = np.exp(-(values_N[due_N] - least_U[units_N[due_N]]) / temperature)
    sum_N = total(units_N, num_units, share_N)[units_N]
    weighed_N = np.divide(share_N, sum_N, out=np.zeros(len(table)), where=due_N) * values_N
    return source(table, np.where(due_N, weighed_N, 0.0))


@needs("budget", "tokens")
def budgets(
    table: TurnTable,
    *,
    keys: Keys = SAME,
    prior: Literal["uniform", "linear", "last"] = "uniform",
    base: Positive = 2.0,
    lone: Lone = "zero",
) -> Signal:
    """Advantage of thinking on, for the tokens of each stretch between budgets (token probe `budget`; BRPO).

    With S budgets s = 0 .. S - 1 of a turn, R_s what an answer would have earned after each (probes `budget/0`,
    `budget/1`, ...), and the prior P_s that it is stopped there: T_s = sum_{j>=s} P_j R_j;
    A_s = T_s - (s V1 + (S - s) V2) / S, where V1 is the mean of the earlier R, weighed by base^j, times
    sum_{j>=s} P_j, and V2 the mean of T_s over the turns of `keys` at the same step, each counting once. Source: arXiv
    2505.13438. A lone turn gets 0, or with `raw`, as in the release, V2 = 0. Tokens after the last budget are unknown.

    Raises:
        ConfigError: rows are turns.
    """
    if len(table) and not table.by_token:
        raise ConfigError("credit: stage budgets values stretches of a reply; the recipe must have unit: token")
    values_N, ends = np.full(len(table), np.nan), np.flatnonzero(table.ends)
    size = 1 + max((int(name[7:]) for name in table.probes if re.fullmatch(r"budget/\d+", name)), default=-1)
    if not len(table) or not size:
        return source(table, values_N)
    number_S = np.arange(size)
    weight_S = {"uniform": np.ones(size), "linear": number_S + 1.0, "last": (number_S == size - 1) * 1.0}[prior]
    share_S = weight_S / weight_S.sum()
    worth_US = np.stack([table.probes.get(f"budget/{s}", values_N)[ends] for s in range(size)], axis=1)
    ahead_US = (share_S * worth_US)[:, ::-1].cumsum(axis=1)[:, ::-1]
    past_S = base ** (number_S - float(size))  # a common factor, which cancels, so that nothing overflows
    own_US = np.zeros_like(worth_US)
    own_US[:, 1:] = ((past_S * worth_US).cumsum(axis=1) / past_S.cumsum())[:, :-1] * share_S[::-1].cumsum()[::-1][1:]
    places_N, num_places = table.key((*keys, "step"))
    place_U, weight_U = places_N[ends], table.weight[ends]
    known_U = ~np.isnan(ahead_US[:, 0]) & (weight_U > 0)
    means = [moments(place_U, num_places, ahead_U, known_U * weight_U)[0][place_U] for ahead_U in ahead_US.T]
    lone_U = (np.bincount(place_U, known_U, num_places)[place_U] <= 1)[:, None]
    others_US = np.where(lone_U, 0.0, np.stack(means, axis=1))
    advantages_US = ahead_US - (number_S * own_US + (size - number_S) * others_US) / size
    if lone == "zero":
        advantages_US = np.where(lone_U & ~np.isnan(advantages_US), 0.0, advantages_US)
    stretch_N, turn_N = table.quantity("budget"), np.cumsum(table.codes["token"] == 0) - 1
    within_N = stretch_N < size
    values_N[within_N] = advantages_US[turn_N[within_N], stretch_N[within_N].astype(np.int64)]
    return source(table, values_N)


def gae(
    table: TurnTable,
    signal: Signal,
    *,
    value: Quantity = "value",
    gamma: Fraction = 1.0,
    lam: Fraction = 0.95,
    cut: Literal["stay", "end"] = "stay",
    unmeasured: Literal["unknown", "filled"] = "unknown",
    levels: Literal[1, 2] = 1,
    gamma_turn: Fraction = 0.95,
) -> Signal:
    """Generalised advantage estimation: d_k = r_k + gamma V_{k+1} - V_k, A_k = d_k + gamma lam A_{k+1}.

    V is 0 after the end. Where an episode was cut off, V stays what it was (`stay`: EGAE of T-PPO, arXiv 2506.15050),
    or that is an end too. `unmeasured: filled`: from the end on, states without a value are worth r + gamma V of the
    next, so their advantage is 0 (VinePPO, arXiv 2410.01679, with `lam: 0`). `levels: 2`: first over the ends of turns
    with `gamma_turn`, then over the tokens within each (RAGEN's bi-level GAE, arXiv 2504.20073).
    """
    values_N = table.quantity(value).copy()
    next_N, gamma_N = next_row(table), np.full(len(table), gamma)
    if levels == 2:
        ends_N = table.ends
        next_N = np.where(ends_N, _next_end(next_N, table), next_N)
        gamma_N = np.where(ends_N, gamma_turn, gamma)
    measured_N = np.ones(len(table), dtype=np.bool_)  # filled states stay open towards the start
    advantages_N, illegal_N = np.zeros(len(table)), signal.illegal_N.copy()
    for rows in backwards(table):
        after, g = next_N[rows], gamma_N[rows]
        last = after < 0
        stay = last & table.truncated[rows] if cut == "stay" else np.zeros(len(rows), dtype=np.bool_)
        beyond = np.where(stay, values_N[rows], np.where(last, 0.0, values_N[after]))
        if unmeasured == "filled":
            open_rows = np.isnan(values_N[rows]) & (last | ~measured_N[after])
            beyond = np.where(open_rows & last, 0.0, beyond)
            values_N[rows] = np.where(open_rows, signal.values_N[rows] + g * beyond, values_N[rows])
            measured_N[rows] = ~open_rows
        later = np.where(last, 0.0, advantages_N[after]) if lam > 0 else 0.0
        advantages_N[rows] = signal.values_N[rows] + g * beyond - values_N[rows] + g * lam * later
        if lam > 0:
            illegal_N[rows] |= ~last & illegal_N[after]
    return replace(signal, values_N=advantages_N, illegal_N=illegal_N)


def segments(table: TurnTable, signal: Signal, *, value: Quantity = "value") -> Signal:
    """Rows from one with a value up to the next: all get what is paid in them, plus the next value (0 after the last),
    less their own. Rows before the first value get 0 (SPO-chain, arXiv 2505.23564)."""
    values_N = table.quantity(value)
    units_N, num_units = table.key(TRAJECTORY)
    order_N = np.argsort(units_N, kind="stable")
    starts, units = ~np.isnan(values_N[order_N]), units_N[order_N]
    first = np.diff(units, prepend=-1) > 0
    segment = np.cumsum(starts | first) - 1
    opens = np.flatnonzero(starts | first)
    paid_S = total(segment, len(opens), signal.values_N[order_N])
    value_S, unit_S = values_N[order_N][opens], units[opens]
    same_S = np.append(unit_S[1:] == unit_S[:-1], False)[: len(opens)]
    next_S = np.where(same_S, np.append(value_S[1:], 0.0)[: len(opens)], 0.0)
    worth_S = np.where(np.isnan(value_S), 0.0, paid_S + next_S - value_S)
    result_N = np.empty(len(table))
    result_N[order_N] = worth_S[segment]
    illegal_N = np.empty(len(table), dtype=np.bool_)
    illegal_N[order_N] = (total(segment, len(opens), signal.illegal_N[order_N].astype(np.float64)) > 0)[segment]
    unknown_U = total(units_N, num_units, np.isnan(signal.values_N).astype(np.float64)) > 0
    return replace(signal, values_N=np.where(unknown_U[units_N], np.nan, result_N), illegal_N=illegal_N)


def unsure(table: TurnTable, signal: Signal, *, of: Quantity = LOGPROB, probability: Fraction = 0.9) -> Signal:
    """Learn nothing from what was drawn with more than this probability: value and weight become 0 (SPO)."""
    sure_N = np.exp(table.quantity(of)) > probability
    return replace(
        with_values(signal, np.where(sure_N, 0.0, signal.values_N)),
        weights_N=np.where(sure_N, 0.0, signal.weights_N),
    )


def prover(
    table: TurnTable, signal: Signal, *, value: Quantity = "value", samples: Whole = 4, alpha: NonNegative = 5.0
) -> Signal:
    """Q + alpha (B(Q) - B(V)): what a step is worth, and how much it helps the best of `samples` tries.

    Q = r + V of the next state (0 after the end), B(x) = 1 - (1 - x)^samples, x in [0, 1]. PAV, arXiv 2410.08146.
    """
    values_N, next_N = table.quantity(value), next_row(table)
    q_N = signal.values_N + np.where(next_N >= 0, values_N[next_N], 0.0)

    def best(x_N: FloatArray) -> FloatArray:
        return 1 - (1 - np.clip(x_N, 0.0, 1.0)) ** samples

    return replace(signal, values_N=q_N + alpha * (best(q_N) - best(values_N)))


def fill(table: TurnTable, signal: Signal, *, value: float = 0.0) -> Signal:
    """What is unknown becomes `value`: for a term of `sum` that only some turns have."""
    return replace(signal, values_N=np.where(np.isnan(signal.values_N), value, signal.values_N))


SOURCES: Mapping[str, Callable[..., Signal]] = {
    stage.__name__: stage for stage in (quantity, part, gain, soft_min, budgets)
}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {stage.__name__: stage for stage in (gae, segments, unsure, prover, fill)}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""


def _next_end(next_N: IntArray, table: TurnTable) -> IntArray:
    """Row of the last token of the agent's next turn, for a last token of a turn; -1 after the last turn."""
    last_N = np.where(next_N >= 0, next_N + (table.length[next_N] - 1 if table.by_token else 0), -1)
    return last_N
