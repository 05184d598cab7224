"""Stages that weigh a value by what is known of the tokens: certainty, entropy, novelty, rank.

As in `stages`: pure functions, one float per row, NaN for unknown. A quantity that a row does not know changes nothing.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from marl_llm.credit.stages import (
    TRAJECTORY,
    Fraction,
    Keys,
    Natural,
    NonNegative,
    Per,
    Quantity,
    Signal,
    backwards,
    known_rows,
    needs,
    next_row,
    part_of,
    source,
    units_of,
    units_per_key,
    weights_of,
    with_values,
)
from marl_llm.credit.statistics import between_extremes, moments, per_deviation
from marl_llm.credit.table import LENGTH, BoolArray, FloatArray, TurnTable
from marl_llm.seeds import generator

GROUP: Keys = ("group", "role", "policy")
ROLE: Keys = ("role", "policy")
UNBOUNDED = math.inf
Reduce = Literal["mean", "sum"]
"""What a unit's quantity is: the mean or the sum over its sampled tokens."""


def measure(table: TurnTable, *, by: Quantity) -> Signal:
    """The value is a quantity; unknown in trajectories with an unknown reward, which are told nothing."""
    units_N, num_units = table.key(TRAJECTORY)
    unknown_U = np.bincount(units_N, np.isnan(table.rewards_NP).any(axis=1), num_units) > 0
    values_N = np.where(unknown_U[units_N], np.nan, _known(table, by))
    return source(table, values_N)


def times(
    table: TurnTable,
    signal: Signal,
    *,
    by: Quantity,
    keys: Keys = GROUP,
    per: Per = "episode",
    reduce: Reduce = "mean",
    positive: float = 0.0,
    negative: float = 0.0,
    eps: NonNegative = 1e-6,
) -> Signal:
    """Multiply by exp(b z): b is `positive` where the value is above 0, `negative` where it is below.

    z is the z-score of the quantity among the units (`per`) that share `keys`, with the standard deviation of a sample;
    0 where there is no spread. Source: UCAS, arXiv 2510.10649.
    """
    codes_N, num_keys = table.key(keys)
    mean_N, _, first_N = _per_unit(table, signal, by, keys, per, reduce)
    centre_K, variance_K = moments(codes_N, num_keys, mean_N, first_N.astype(np.float64), 1)
    z_N = np.nan_to_num((mean_N - centre_K[codes_N]) * per_deviation(variance_K, eps)[codes_N])
    slope_N = np.where(signal.values_N > 0, positive, negative)
    return with_values(signal, signal.values_N * np.exp(slope_N * z_N))


def bonus(
    table: TurnTable,
    signal: Signal,
    *,
    by: Quantity,
    form: Literal["value", "novelty", "early", "range"] = "value",
    weight: float = 1.0,
    keys: Keys = GROUP,
    per: Per = "episode",
    where: Literal["positive", "nonzero", "all"] = "positive",
    positive_only: bool = False,
    kappa: NonNegative = UNBOUNDED,
    keep_sign: bool = False,
) -> Signal:
    """Add `weight` times what a quantity x comes to, to the values of the kind `where`.

    `value`: x of the row. The others look at the units (`per`) that share `keys`: `novelty` is 1 - exp(x - mean x), of
    a unit's mean x over its tokens (XRPO, arXiv 2510.06672: x is the log-probability); `early` is (x - mean x) / mean
    length, over those units alone that get it (ASPO, 2508.19201: x is where the first tool is called); `range` is
    (x - least) / (most - least) of rows (UCAS, 2510.10649: x is the sampled token's logit), 0 where all are equal.
    `positive_only`: what is added is 0 or more. `kappa`: it is at most kappa |value|, either way. `keep_sign`: a value
    above 0 does not fall below.
    """
    values_N = signal.values_N
    chosen_N = {"positive": values_N > 0, "nonzero": values_N != 0, "all": ~np.isnan(values_N)}[where]
    codes_N, num_keys = table.key(keys)
    if form == "value":
        raw_N = _known(table, by)
    elif form == "range":
        x_N = _known(table, by)
        raw_N = between_extremes(codes_N, num_keys, x_N, known_rows(signal) & ~np.isnan(x_N))
    else:
        among = signal if form == "novelty" else with_values(signal, np.where(chosen_N, values_N, np.nan))
        mean_N, length_N, first_N = _per_unit(table, among, by, keys, per, "mean")
        weights_N = first_N.astype(np.float64)
        difference_N = mean_N - moments(codes_N, num_keys, mean_N, weights_N)[0][codes_N]
        if form == "novelty":
            raw_N = 1 - np.exp(difference_N)
        else:
            mean_length_K = moments(codes_N, num_keys, length_N, weights_N)[0]
            raw_N = difference_N / np.maximum(mean_length_K, 1.0)[codes_N]
    added_N = np.where(chosen_N, np.nan_to_num(weight * raw_N), 0.0)
    added_N = np.maximum(added_N, 0.0) if positive_only else added_N
    return with_values(signal, _bounded(values_N, added_N, kappa, keep_sign))


def rank(
    table: TurnTable,
    signal: Signal,
    averages: Mapping[str, float],
    *,
    level: Quantity = "er",
    spread: Quantity = "erv",
    change: Quantity = "era",
    keys: Keys = ROLE,
    alpha: Fraction = 0.3,
    gain: NonNegative = 2.0,
    kappa: NonNegative = 2.0,
    at: Literal["all", "last"] = "all",
) -> tuple[Signal, dict[str, float]]:
    """Add min(max(Phi, 0), |value| / kappa): whoever's hidden states have become richer than they were (VERL).

    With d the relative distance of each quantity from its moving average m <- (1 - alpha) m + alpha x (clipped at 5),
    and beta = sigmoid(gain d_change): Phi = beta tanh(d_level) + (1 - beta) tanh(d_spread). m is kept per `keys`; it
    begins as the first batch's mean over turns, and takes in each later one's after it was used; the first gets
    nothing. `at: last`: only a turn's last token gets it, of a table of tokens. Source: arXiv 2509.23808.
    """
    codes_N, num_keys = table.key(keys)
    known_N = known_rows(signal)
    x_QN = np.stack([_known(table, name) for name in (level, spread, change)])
    known_N &= ~np.isnan(x_QN).any(axis=0)
    units_N = units_of(table, keys, "turn")
    row_K = np.zeros(num_keys, dtype=np.int64)
    row_K[codes_N] = np.arange(len(table))
    updated, before_QK = dict(averages), np.full((3, num_keys), np.nan)
    for q, name in enumerate((level, spread, change)):
        mean_K, _ = moments(codes_N, num_keys, x_QN[q], weights_of(table, signal, units_N, known_N, "turn"))
        for code in np.unique(codes_N[known_N]).tolist():
            label = json.dumps([name, *table.label(keys, row_K[code])])
            before_QK[q, code] = averages.get(label, np.nan)
            mean = float(mean_K[code])
            updated[label] = (1 - alpha) * averages.get(label, mean) + alpha * mean
    phi_N = np.where(known_N, rank_phi(x_QN, before_QK[:, codes_N], gain), np.nan)
    if at == "last":
        phi_N = np.where(table.ends, phi_N, 0.0)
    bound = 1 / kappa if kappa else math.inf
    return with_values(signal, _bounded(signal.values_N, np.maximum(np.nan_to_num(phi_N), 0.0), bound, False)), updated


def rank_phi(x_QN: FloatArray, average_QN: FloatArray, gain: float) -> FloatArray:
    """Phi of `rank`, of its three quantities and their averages."""
    d_QN = np.clip((x_QN - average_QN) / (np.abs(average_QN) + 1e-8), -5.0, 5.0)
    beta_N = 1 / (1 + np.exp(-gain * d_QN[2]))
    phi_N: FloatArray = beta_N * np.tanh(d_QN[0]) + (1 - beta_N) * np.tanh(d_QN[1])
    return phi_N


def fit(table: TurnTable, signal: Signal, *, keys: Keys = ROLE, eps: NonNegative = 1e-6) -> Signal:
    """Divide by (the largest |reward-to-go| + eps) among the rows that share `keys` (PRIME, arXiv 2502.01456)."""
    codes_N, num_keys = table.key(keys)
    sums_N, next_N = np.nan_to_num(signal.values_N), next_row(table)
    for rows in backwards(table):
        rows = rows[next_N[rows] >= 0]
        sums_N[rows] += sums_N[next_N[rows]]
    most_K = np.zeros(num_keys)
    np.maximum.at(most_K, codes_N, np.where(known_rows(signal), np.abs(sums_N), 0.0))
    return with_values(signal, signal.values_N / (most_K + eps)[codes_N])


def expand(table: TurnTable, signal: Signal, *, keys: Keys = GROUP, per: Per = "episode") -> Signal:
    """Multiply by G / (G - 1) where G units share `keys`: a mean taken off before becomes that of the others, where a
    unit's values are one. A lone one gets 0."""
    codes_N, num_keys = table.key(keys)
    units_K = units_per_key(codes_N, num_keys, units_of(table, keys, per), known_rows(signal)).astype(np.float64)
    factor_K = np.divide(units_K, units_K - 1, out=np.zeros(num_keys), where=units_K > 1)
    return with_values(signal, signal.values_N * factor_K[codes_N])


@needs("tokens")
def thin(
    table: TurnTable,
    signal: Signal,
    *,
    first: Natural = 100,
    more: Natural = 100,
    chance: Fraction = 0.5,
    seed: Natural = 0,
) -> Signal:
    """Learn from the first tokens of each turn, and of the later ones from each with `chance`, up to `more` of them.

    The weight of the others becomes 0. The draws depend on `seed`, the episode and the turn. Source: S-GRPO, arXiv
    2504.20834. Of a table of turns it leaves all as it is.
    """
    if not table.by_token:
        return signal
    token_N = table.codes["token"]
    kept_N = token_N < first
    begins = np.flatnonzero((token_N == 0) & (table.length > first))
    for row in begins.tolist():
        later = slice(row + first, row + int(table.length[row]))
        if chance < 1:
            draws = generator(seed, *table.label(("episode", "turn"), row))
            drawn = draws.random(later.stop - later.start) < chance
        else:
            drawn = np.ones(later.stop - later.start, dtype=np.bool_)
        kept_N[later] = drawn & (np.cumsum(drawn) <= more)
    return replace(signal, weights_N=np.where(kept_N, signal.weights_N, 0.0))


SOURCES: Mapping[str, Callable[..., Signal]] = {"measure": measure}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {stage.__name__: stage for stage in (times, bonus, fit, expand, thin)}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {"rank": rank}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""


def _known(table: TurnTable, name: str) -> FloatArray:
    """The quantity of each row; NaN where it is a reward part that was not due, and where these episodes hold none."""
    if name == LENGTH or name in table.probes:
        return table.quantity(name)
    values_N, due_N = part_of(table, name)
    return np.where(due_N, values_N, np.nan)


def _per_unit(
    table: TurnTable, signal: Signal, by: str, keys: Keys, per: Per, reduce: Reduce
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Of each row's unit: its quantity over the tokens, NaN where unknown, and its tokens; and which row stands for it.

    Only rows with a known value count, and in the quantity and for standing for a unit those that have one.
    """
    units_N, x_N = units_of(table, keys, per), _known(table, by)
    counted_N = known_rows(signal) & ~np.isnan(x_N)
    tokens_N = np.where(counted_N, np.maximum(table.num_tokens, 1), 0).astype(np.float64)
    num_units = int(units_N.max(initial=-1)) + 1
    mean_U, _ = moments(units_N, num_units, x_N, tokens_N)
    tokens_U = np.bincount(units_N, tokens_N, num_units)
    value_U = np.where(tokens_U > 0, mean_U * tokens_U if reduce == "sum" else mean_U, np.nan)
    length_U = np.bincount(units_N, np.where(known_rows(signal), table.num_tokens, 0), num_units).astype(np.float64)
    first_N = np.zeros(len(table), dtype=np.bool_)
    rows = np.flatnonzero(counted_N)
    first_N[rows[np.unique(units_N[rows], return_index=True)[1]]] = True
    return value_U[units_N], length_U[units_N], first_N


def _bounded(values_N: FloatArray, added_N: FloatArray, kappa: float, keep_sign: bool) -> FloatArray:
    """The values with what is added to them, which is within kappa |value| where kappa is finite."""
    if math.isfinite(kappa):
        bound_N = kappa * np.abs(values_N)
        added_N = np.clip(added_N, -bound_N, bound_N)
    result_N = values_N + added_N
    return np.where((values_N > 0) & (result_N < 0), 0.0, result_N) if keep_sign else result_N
