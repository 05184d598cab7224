"""Stages that compare with more than a mean: halves, virtual samples, fitted weights, win rates, agreement.

As in `stages`: pure functions, one float per row, NaN for unknown. What is compared here are the members of a key, each
(episode, agent) once, with the mean of its values: after `broadcast` its total.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from marl_llm.credit.rules import final_answers
from marl_llm.credit.stages import (
    Ddof,
    Fraction,
    Keys,
    Names,
    NonNegative,
    Quantity,
    Signal,
    Whole,
    center,
    known_rows,
    scale,
    units_of,
    weights_of,
    whiten,
    with_values,
)
from marl_llm.credit.statistics import FLAT, moments, per_deviation, total
from marl_llm.credit.table import LENGTH, BoolArray, FloatArray, IntArray, TurnTable
from marl_llm.errors import ConfigError

BATCH: Keys = ("game", "role", "policy")
"""What a batch is to a role: everything that its policy did in it in one game."""


class Members(NamedTuple):
    """The U members of K keys."""

    unit_N: IntArray
    """Member that each row is of."""
    code_N: IntArray
    """Key of each row."""
    num_keys: int
    """K."""
    code_U: IntArray
    """Key of each member."""
    value_U: FloatArray
    """Mean of its known values."""
    weight_U: FloatArray
    """Mean of their weights; 0: it is not counted."""

    @property
    def size_K(self) -> IntArray:
        """How many members of each key are counted."""
        return np.bincount(self.code_U[self.weight_U > 0], minlength=self.num_keys)

    def batches(self, table: TurnTable, over: Keys) -> tuple[IntArray, int]:
        """The batch (`over`) that each key is of, and how many there are."""
        batch_N, num_batches = table.key(over)
        batch_K = np.zeros(self.num_keys, dtype=np.int64)
        batch_K[self.code_N] = batch_N
        return batch_K, num_batches

    def moments(self, ddof: int = 0) -> tuple[FloatArray, FloatArray]:
        """Mean and variance of each key."""
        return moments(self.code_U, self.num_keys, self.value_U, self.weight_U, ddof)


def members(table: TurnTable, signal: Signal, keys: Keys) -> Members:
    """Who is compared with whom, by which value."""
    code_N, num_keys = table.key(keys)
    unit_N = units_of(table, keys, "episode")
    num_units = int(unit_N.max(initial=-1)) + 1
    weights_N = weights_of(table, signal, unit_N, known_rows(signal), "episode")
    code_U = np.zeros(num_units, dtype=np.int64)
    code_U[unit_N] = code_N
    value_U, _ = moments(unit_N, num_units, signal.values_N, weights_N)
    return Members(unit_N, code_N, num_keys, code_U, value_U, total(unit_N, num_units, weights_N))


def virtual(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    best: float = 1.0,
    count: Whole = 1,
    ddof: Ddof = 1,
    eps: NonNegative = 1e-6,
) -> Signal:
    """z-score within `keys` as if `count` more members had got `best`, the most there is (NGRPO, arXiv 2509.18851).

    So that those who all failed alike learn from it; a lone member is not alone then.
    """
    m = members(table, signal, keys)
    codes = np.concatenate([m.code_U, np.arange(m.num_keys)])
    values = np.concatenate([m.value_U, np.full(m.num_keys, best)])
    weights = np.concatenate([m.weight_U, np.full(m.num_keys, float(count))])
    mean_K, variance_K = moments(codes, m.num_keys, values, weights, ddof)
    return with_values(signal, (signal.values_N - mean_K[m.code_N]) * per_deviation(variance_K, eps)[m.code_N])


def beta(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    over: Keys = BATCH,
    low: float = 0.0,
    high: float = 1.0,
    most: NonNegative = 1e6,
) -> Signal:
    """Centre within `keys`, and weigh a key by how rare its mean is among the keys of the same `over` (BNPO).

    Values are mapped from [low, high] to [0, 1], those outside to the nearest. A Beta density is fitted to the means of
    the keys with several members; where they do not differ it is flat. A key weighs 1 / its density, up to `most`. With
    several reward parts: the mean of one such term for each, by `sum`. Source: arXiv 2506.02864, whose release divides
    by 0 where the means are equal.

    Raises:
        ConfigError: `high` is not above `low`.
    """
    if high <= low:
        raise ConfigError(f"credit: stage beta: high: {high:g} is not allowed; it must be more than low ({low:g})")
    signal = replace(signal, values_N=np.clip((signal.values_N - low) / (high - low), 0.0, 1.0))
    m = members(table, signal, keys)
    mean_K, _ = m.moments()
    batch_K, num_batches = m.batches(table, over)
    several_K = m.size_K > 1
    fitted = [beta_fit(mean_K[several_K & (batch_K == batch)]) for batch in range(num_batches)]
    weight_K = np.zeros(m.num_keys)
    for batch, (a, b) in enumerate(fitted):
        chosen_K = several_K & (batch_K == batch)
        weight_K[chosen_K] = beta_weight(mean_K[chosen_K], a, b, most)
    return with_values(signal, weight_K[m.code_N] * (signal.values_N - mean_K[m.code_N]))


def beta_fit(mean_M: FloatArray) -> tuple[float, float]:
    """Parameters of the density that M group means are divided by (arXiv 2506.02864); 1, 1 where they do not differ."""
    zeros = np.zeros(len(mean_M), dtype=np.int64)
    (mean,), (variance,) = (x.tolist() for x in moments(zeros, 1, mean_M, np.ones(len(mean_M)), 1))
    if variance <= FLAT**2:
        return 1.0, 1.0
    c = mean * (1 - mean) / variance - 1
    return max(1 + c * mean / 3, 1.0), max(1 + c * (1 - mean) / 3, 1.0)


def beta_weight(p_M: FloatArray, a: float, b: float, most: float = 1e6) -> FloatArray:
    """1 / Beta(p; a, b), up to `most`."""
    constant = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b))
    density_M = constant * p_M ** (a - 1) * (1 - p_M) ** (b - 1)
    inverse_M: FloatArray = np.divide(1.0, density_M, out=np.full(len(p_M), most), where=density_M > 0)
    weight_M: FloatArray = np.minimum(inverse_M, most)
    return weight_M


Local = Literal["all", "paid", "valued"]
"""Which values may be compared within their key: all, those that are not 0, or those that differ from the mean."""


class Consensus(NamedTuple):
    """How much the members of K keys agree, and what follows from it for N rows."""

    entropy_K: FloatArray
    """Of the answers, in bits."""
    reward_K: FloatArray
    """Mean value, less where answers differ."""
    between_N: FloatArray
    """z-score of that among the keys of a batch."""
    within_N: FloatArray
    """z-score of the value within the key."""
    weight_N: FloatArray
    """Share of the latter."""


def consensus(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    over: Keys = BATCH,
    roles: Names = (),
    steepness: float = 5.0,
    bits: NonNegative = 1.0,
    local: Local = "paid",
    discount: bool = True,
    eps: NonNegative = 1e-6,
) -> Signal:
    """Compare members where their answers differ, and whole keys where they agree (COPO, arXiv 2508.04138).

    A = (1 - w) z(key's reward among those of `over`) + w z(value within `keys`), w = sigmoid(steepness (H - bits)).
    H: entropy in bits of the final answers (of the last turn of one of `roles`; compared as in `vote`, none is an
    answer too). `local`: w is 0 for values of 0 (`paid`), or where the second z-score is 0 (`valued`). `discount`: a
    key's reward is its mean times 1 - (1 - 1/G) H / log2 G. The paper weighs two clipped losses, here it is one.
    """
    found = consensus_of(
        table,
        signal,
        keys=keys,
        over=over,
        roles=roles,
        steepness=steepness,
        bits=bits,
        local=local,
        discount=discount,
        eps=eps,
    )
    return with_values(signal, (1 - found.weight_N) * found.between_N + found.weight_N * found.within_N)


def consensus_of(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    over: Keys,
    roles: Names,
    steepness: float,
    bits: float,
    local: Local,
    discount: bool,
    eps: float,
) -> Consensus:
    """What `consensus` is made of."""
    m = members(table, signal, keys)
    size_K, (mean_K, variance_K) = m.size_K, m.moments(1)
    entropy_K = _entropy(m, final_answers(table, m.unit_N, roles))
    bits_K = np.log2(np.maximum(size_K, 1))
    scale_K = np.divide(1 - 1 / np.maximum(size_K, 1), bits_K, out=np.zeros(m.num_keys), where=bits_K > 0)
    reward_K = mean_K * (1 - scale_K * entropy_K) if discount else mean_K
    batch_K, num_batches = m.batches(table, over)
    mean_B, variance_B = moments(batch_K, num_batches, reward_K, (size_K > 0).astype(np.float64), 1)
    between_K = (reward_K - mean_B[batch_K]) * per_deviation(variance_B, eps)[batch_K]
    within_N = (signal.values_N - mean_K[m.code_N]) * per_deviation(variance_K, eps)[m.code_N]
    weight_K = 1 / (1 + np.exp(np.clip(-steepness * (entropy_K - bits), -700, 700)))
    own_N = {"all": np.ones(len(table)), "paid": signal.values_N, "valued": within_N}[local] != 0
    weight_N = np.where(own_N, weight_K[m.code_N], 0.0)
    return Consensus(entropy_K, reward_K, between_K[m.code_N], within_N, weight_N)


def _entropy(m: Members, answer_U: IntArray) -> FloatArray:
    """Of the answers of each key, in bits."""
    counted_U = m.weight_U > 0
    pairs = m.code_U[counted_U] * (int(answer_U.max(initial=-1)) + 2) + answer_U[counted_U] + 1
    _, first, count = np.unique(pairs, return_index=True, return_counts=True)
    code = m.code_U[counted_U][first]
    share = count / m.size_K[code]
    return total(code, m.num_keys, -share * np.log2(share))


def halves(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    by: Quantity = LENGTH,
    mu: Fraction = 1.0,
    alpha: Fraction = 1.0,
    damp: Literal["high", "low"] = "high",
) -> Signal:
    """Compare with the members of the other half of the key, split by a quantity (CANON, arXiv 2509.23962).

    The half with the lower `by` (of a member: all tokens for `length`, else the mean) gets the smaller part of an odd
    number; of equals the first go there. `mu`: share of the comparison with the other half, the rest is with the own
    one. `alpha` multiplies the values of the half `damp` where halves are compared. Whoever has no other half gets 0.
    """
    m = members(table, signal, keys)
    metric_U = _metric(table, m, by)
    counted_U = (m.weight_U > 0) & ~np.isnan(metric_U)
    rank_U, size_K = _ranks(m.code_U, m.num_keys, metric_U, counted_U)
    high_U = rank_U >= size_K[m.code_U] // 2
    half_U = 2 * m.code_U + high_U
    mean_H, _ = moments(half_U, 2 * m.num_keys, m.value_U, m.weight_U * counted_U)
    half_N, high_N = half_U[m.unit_N], high_U[m.unit_N]
    other_N = half_N ^ 1
    damped_N = high_N == (damp == "high")
    own_N, theirs_N = np.where(damped_N, alpha, 1.0), np.where(damped_N, 1.0, alpha)
    between_N = own_N * signal.values_N - theirs_N * mean_H[other_N]
    mixed_N = mu * between_N + (1 - mu) * (signal.values_N - mean_H[half_N])
    mixed_N = np.where(size_K[m.code_N] > 1, mixed_N, 0.0)
    return with_values(signal, np.where(counted_U[m.unit_N], mixed_N, np.nan))


def _metric(table: TurnTable, m: Members, by: str) -> FloatArray:
    if by == LENGTH:
        return total(m.unit_N, len(m.code_U), table.num_tokens.astype(np.float64))
    values_N = table.quantity(by)
    known_N = (~np.isnan(values_N)).astype(np.float64)
    mean_U, _ = moments(m.unit_N, len(m.code_U), values_N, known_N)
    return np.where(total(m.unit_N, len(m.code_U), known_N) > 0, mean_U, np.nan)


def _ranks(code_U: IntArray, num_keys: int, value_U: FloatArray, counted_U: BoolArray) -> tuple[IntArray, IntArray]:
    """Place of each member within its key by its value, of equals in order, and how many there are in each key."""
    chosen = np.flatnonzero(counted_U)
    order = chosen[np.lexsort((value_U[chosen], code_U[chosen]))]
    size_K = np.bincount(code_U[chosen], minlength=num_keys)
    start_K = np.cumsum(size_K) - size_K
    rank_U = np.zeros(len(code_U), dtype=np.int64)
    rank_U[order] = np.arange(len(order)) - start_K[code_U[order]]
    return rank_U, size_K


def winrate(table: TurnTable, signal: Signal, *, keys: Keys, by: Quantity = "") -> Signal:
    """Share of the other members of the key that are beaten, a tie counting a half (SPO, arXiv 2401.04056).

    Compared by the quantity `by`, or by the value if none is named; a lone member has 0.5. Preferences that go round in
    a circle, which no number has, are matches between the two texts, and then `pool: {keys: [node]}` is the win rate.
    """
    if by:
        signal = with_values(signal, table.quantity(by))
    m = members(table, signal, keys)
    counted_U = m.weight_U > 0
    below_U, size_K = _ranks(m.code_U, m.num_keys, m.value_U, counted_U)
    above_U, _ = _ranks(m.code_U, m.num_keys, -m.value_U, counted_U)
    others_U = size_K[m.code_U] - 1
    place_U = (below_U - above_U + others_U) / 2  # equals stand in the same order in both
    share_U = np.divide(place_U, others_U, out=np.full(len(place_U), 0.5), where=others_U > 0)
    return with_values(signal, share_U[m.unit_N])


def token_average(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys,
    limit: NonNegative = 5.0,
    eps: NonNegative = 1e-6,
) -> Signal:
    """z-score within `keys` over sampled tokens; over members instead where one of the key would get `limit` or more.

    Tokens decide so what the average is, unless a short reply stands against many long ones (HAPO, arXiv 2509.16591).

    Raises:
        ConfigError: there are turns, and none of them has sampled tokens.
    """
    if len(table) and not table.num_tokens.any():
        raise ConfigError("credit: stage token_average counts sampled tokens, and no turn of these episodes has any")
    by_token = scale(table, center(table, signal, keys=keys, per="token"), keys=keys, per="token", ddof=0, eps=eps)
    by_member = scale(table, center(table, signal, keys=keys, per="episode"), keys=keys, per="episode", eps=eps)
    codes_N, num_keys = table.key(keys)
    far_N = known_rows(signal) & (np.abs(by_token.values_N) >= limit)
    far_K = np.bincount(codes_N, far_N, num_keys) > 0
    return with_values(signal, np.where(far_K[codes_N], by_member.values_N, by_token.values_N))


def whiten_within(
    table: TurnTable,
    signal: Signal,
    *,
    keys: Keys = (),
    beyond: NonNegative = 3.0,
    rule: Literal["paper", "released"] = "paper",
) -> Signal:
    """z-score over the sampled tokens of `keys`; what is more than `beyond` from 0 becomes 0 (arXiv 2505.02835).

    `released`: more than `beyond` from the mean of the raw values, as the code has it, or more than 10 from 0.
    """
    whitened = whiten(table, signal, keys=keys, ddof=0)
    z_N, origin_N = whitened.values_N, np.zeros(len(table))
    if rule == "released":
        codes_N, num_keys = table.key(keys)
        weights_N = weights_of(table, signal, np.arange(len(table)), known_rows(signal), "token")
        origin_N = moments(codes_N, num_keys, signal.values_N, weights_N)[0][codes_N]
        z_N = np.where(np.abs(z_N) > 10, 0.0, z_N)
    return with_values(whitened, np.where(np.abs(whitened.values_N - origin_N) > beyond, 0.0, z_N))


def median_history(
    table: TurnTable,
    signal: Signal,
    means: Mapping[str, float],
    *,
    keys: Keys,
    over: Keys = BATCH,
    size: Whole = 10240,
) -> tuple[Signal, dict[str, float]]:
    """Subtract the median of the last `size` means of `keys` that earlier steps had in the same `over`.

    What was good when it was played need not be good now; with `clip: {low: 0}` only what still is stays (SPEAR, arXiv
    2509.22601). Without earlier steps: the median of this one. Returns the signal and the means, by `over` and number.
    """
    m = members(table, signal, keys)
    mean_K, _ = m.moments()
    batch_N, num_batches = table.key(over)
    kept: dict[str, list[float]] = {}
    for name, value in means.items():
        kept.setdefault(name.rpartition(" ")[0], []).append(value)
    median_B = np.zeros(num_batches)
    for batch in range(num_batches):
        rows = np.flatnonzero(batch_N == batch)
        name = json.dumps(table.label(over, int(rows[0])))
        present = np.unique(m.code_N[rows])
        fresh = mean_K[present[m.size_K[present] > 0]].tolist()
        earlier = kept.get(name) or fresh
        median_B[batch] = np.median(earlier) if earlier else 0.0
        kept[name] = [*kept.get(name, []), *fresh][-size:]
    state = {f"{name} {number:06}": value for name, values in kept.items() for number, value in enumerate(values)}
    return with_values(signal, signal.values_N - median_B[batch_N]), state


SOURCES: Mapping[str, Callable[..., Signal]] = {}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {
    stage.__name__: stage for stage in (virtual, beta, consensus, halves, winrate, token_average, whiten_within)
}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {"median_history": median_history}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""
