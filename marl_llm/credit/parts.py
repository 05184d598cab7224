"""Stages that look at reward parts by name: gates, products, scales of their own, schedules, prices of length.

As in `stages`: pure functions, one float per row, NaN for unknown.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from marl_llm.credit.stages import (
    ILLEGAL,
    TRAJECTORY,
    Ddof,
    Keys,
    Names,
    NonNegative,
    Positive,
    Signal,
    Weights,
    Whole,
    broadcast,
    center,
    part_of,
    reward,
    scale,
    source,
    with_values,
)
from marl_llm.credit.statistics import between_extremes
from marl_llm.credit.table import FloatArray, TurnTable


def gate(
    table: TurnTable,
    *,
    parts: Names,
    thresholds: Weights = MappingProxyType({}),
    strict: bool = True,
) -> Signal:
    """Sum of the reward parts, of which lower ones count only where the higher ones are good enough (G-RA).

    `parts`: from the highest down; all that are not named come last, together, and the price of illegal moves always
    counts. A part is good enough where its sum over the agent's episode is more than its threshold (0, if it has none),
    or with `strict: false` as much. Where that is unknown, so is all that hangs on it. Source: arXiv 2508.10548.
    """
    units_N, num_units = table.key(TRAJECTORY)
    values_N, open_U = np.zeros(len(table)), np.ones(num_units)
    for part in parts:
        part_N, _ = part_of(table, part)
        values_N = values_N + _behind(open_U[units_N], part_N)
        total_U = np.bincount(units_N, part_N, num_units)
        least = thresholds.get(part, 0.0)
        passed_U = np.where(np.isnan(total_U), np.nan, total_U > least if strict else total_U >= least)
        open_U = _behind(open_U, passed_U)
    rest = reward(table, weights=dict.fromkeys((*parts, ILLEGAL), 0.0))
    price = reward(table, weights={ILLEGAL: 1.0}, others=0.0)
    return replace(price, values_N=values_N + _behind(open_U[units_N], rest.values_N) + price.values_N)


def product(table: TurnTable, *, parts: Names, power: Positive = 1.0) -> Signal:
    """Product of reward parts of the same turn, to a power (of the absolute value; the sign stays).

    With power 1/2 and two utilities it is their Nash welfare. A part that is not due is 0.
    """
    values_N = np.ones(len(table))
    for part in parts:
        values_N = values_N * part_of(table, part)[0]
    return source(table, np.sign(values_N) * np.abs(values_N) ** power)


def minmax(
    table: TurnTable, *, parts: Names, keys: Keys = ("game", "role", "policy"), scale: Positive = 10.0
) -> Signal:
    """Mean of reward parts, each brought to 0 to 1 by its extremes among the rows of `keys`, times `scale`.

    0 for a part without spread, and for one that is not due. Source: arXiv 2508.03905, by its code, which takes the
    extremes over the whole data set; here over the batch.
    """
    codes_N, num_keys = table.key(keys)
    values_N = np.zeros(len(table))
    for part in parts:
        part_N, due_N = part_of(table, part)
        known_N = due_N & ~np.isnan(part_N)
        values_N = values_N + np.where(due_N, between_extremes(codes_N, num_keys, part_N, known_N), 0.0)
    return source(table, scale * values_N / max(len(parts), 1))


def normalize_each(
    table: TurnTable,
    *,
    keys: Keys,
    weights: Weights = MappingProxyType({}),
    others: float = 1.0,
    ddof: Ddof = 1,
    eps: NonNegative = 1e-4,
) -> Signal:
    """Weighted sum (as in `reward`) of the z-scores within `keys` that each part's total over the episode has.

    So that a part that varies little is not drowned by one that varies much (GDPO, arXiv 2601.05242). An agent's
    episode in which a part is unknown enters no statistic of any.
    """
    result = reward(table, others=0.0)
    known_N = broadcast(table, reward(table, weights=weights, others=others)).values_N
    for part in table.parts:
        weight = weights.get(part, others)
        if weight != 0:
            one = broadcast(table, reward(table, weights={part: 1.0}, others=0.0))
            one = with_values(one, np.where(np.isnan(known_N), np.nan, one.values_N))
            one = center(table, one, keys=keys, per="episode")
            one = scale(table, one, keys=keys, per="episode", ddof=ddof, eps=eps)
            values_N = result.values_N + weight * one.values_N
            result = replace(result, values_N=values_N, illegal_N=result.illegal_N | one.illegal_N)
    return result


def overlong(
    table: TurnTable,
    signal: Signal,
    *,
    limit: Whole = 20480,
    cache: Whole = 4096,
    factor: NonNegative = 1.0,
    capped: bool = True,
) -> Signal:
    """Subtract a price for the last `cache` tokens before `limit`, from 0 up to `factor` a turn (DAPO, 2503.14476).

    `capped: false`: replies longer than `limit` cost more, as in the code. `limit` is what `play.max_reply_tokens` is.
    """
    price_N = np.maximum((table.length - (limit - cache)) / cache, 0.0)
    price_N = factor * (np.minimum(price_N, 1.0) if capped else price_N)
    return with_values(signal, signal.values_N - np.where(table.ends, price_N, 0.0))


def unfinished(table: TurnTable, signal: Signal, *, rule: Literal["zero", "unknown"] = "zero") -> Signal:
    """Make the values of episodes that were cut off 0 (ReMA, arXiv 2503.09501), or unknown, so that nothing is learned
    from them and they enter no statistic (DAPO's filter, 2503.14476)."""
    return with_values(signal, np.where(table.truncated, 0.0 if rule == "zero" else np.nan, signal.values_N))


def skip(table: TurnTable, signal: Signal, *, part: str, above: float, keys: Keys = ("game",)) -> Signal:
    """Learn nothing where no row of the same `keys` has more than `above` of a part: value and weight become 0."""
    codes_N, num_keys = table.key(keys)
    values_N, _ = part_of(table, part)
    useful_K = np.bincount(codes_N, values_N > above, num_keys) > 0
    useful_N = useful_K[codes_N]
    return replace(
        signal,
        values_N=np.where(useful_N, signal.values_N, 0.0),
        weights_N=np.where(useful_N, signal.weights_N, 0.0),
    )


def schedule(
    table: TurnTable,
    signal: Signal,
    memory: Mapping[str, float],
    *,
    steps: Whole,
    start: float = 1.0,
    end: float = 0.0,
    form: Literal["linear", "cosine"] = "cosine",
) -> tuple[Signal, dict[str, float]]:
    """Multiply by a factor that goes from `start`, at the first step, to `end` after `steps`, and stays there.

    In a term of a `sum` that is the weight of a reward part. What the factor 0 multiplies is not read: it cannot make a
    value unknown. Returns the signal and the number of steps there were.
    """
    step = memory.get("step", 0.0)
    way = min(step / steps, 1.0)
    factor = start + (end - start) * (way if form == "linear" else (1 - math.cos(math.pi * way)) / 2)
    after = {"step": step + 1}
    if factor == 0:
        none_N = np.zeros(len(table), dtype=np.bool_)
        return replace(signal, values_N=np.zeros(len(table)), illegal_N=none_N), after
    return with_values(signal, signal.values_N * factor), after


SOURCES: Mapping[str, Callable[..., Signal]] = {
    stage.__name__: stage for stage in (gate, product, minmax, normalize_each)
}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {stage.__name__: stage for stage in (overlong, unfinished, skip)}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {"schedule": schedule}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""


def _behind(open_: FloatArray, values: FloatArray) -> FloatArray:
    """The values behind an open gate, 0 behind a closed one."""
    behind: FloatArray = np.where(open_ == 0, 0.0, open_ * values)
    return behind
