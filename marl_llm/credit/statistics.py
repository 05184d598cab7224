"""Weighted statistics per key: N rows in K keys, and U units that are left out together."""

from collections.abc import Sequence

import numpy as np

from marl_llm.credit.table import BoolArray, FloatArray, IntArray

FLAT = 1e-12
"""Standard deviations up to this are rounding, not spread."""


def total(codes_N: IntArray, num_keys: int, values_N: FloatArray) -> FloatArray:
    """Sum of the values of each key, added in row order."""
    return np.asarray(np.bincount(codes_N, values_N, num_keys), dtype=np.float64)


def moments(
    codes_N: IntArray, num_keys: int, values_N: FloatArray, weights_N: FloatArray, ddof: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Weighted mean and variance of each key: sum w (x - mean)^2 / (sum w - ddof).

    Rows of weight 0 are not read and may be NaN. Mean and variance are 0 where they are undefined. The mean
    of equal values is exactly that value, so that a scale finds no rounding to blow up.
    """
    counted_N = weights_N > 0
    codes, values, weights = codes_N[counted_N], values_N[counted_N], weights_N[counted_N]
    origin_K = _any_value(codes, num_keys, values)
    shifted = values - origin_K[codes]
    weight_K = total(codes, num_keys, weights)
    offset_K = _ratio(total(codes, num_keys, weights * shifted), weight_K)
    squares_K = total(codes, num_keys, weights * (shifted - offset_K[codes]) ** 2)
    return origin_K + offset_K, _ratio(squares_K, weight_K - ddof)


def per_deviation(variance_K: FloatArray, eps: float) -> FloatArray:
    """1 / (standard deviation + eps) of each key; 0 where there is no spread."""
    std_K = np.sqrt(variance_K)
    return np.divide(1.0, std_K + eps, out=np.zeros_like(std_K), where=std_K > FLAT)


def between_extremes(codes_N: IntArray, num_keys: int, values_N: FloatArray, counted_N: BoolArray) -> FloatArray:
    """Each value less the least of its key, by their range: 0 to 1 for rows that are counted, 0 where all are equal.

    Counted rows are not NaN.
    """
    low_K, high_K = np.full(num_keys, np.inf), np.full(num_keys, -np.inf)
    np.minimum.at(low_K, codes_N[counted_N], values_N[counted_N])
    np.maximum.at(high_K, codes_N[counted_N], values_N[counted_N])
    range_K = np.where(high_K > low_K, high_K - low_K, np.inf)
    return (values_N - np.where(np.isfinite(low_K), low_K, 0.0)[codes_N]) / range_K[codes_N]


def mean_of_others(
    codes_N: IntArray, num_keys: int, units_N: IntArray, values_N: FloatArray, weights_N: FloatArray
) -> FloatArray:
    """Per row, the weighted mean of its key without the row's own unit; a unit lies in one key."""
    counted_N = weights_N > 0
    codes, units, weights = codes_N[counted_N], units_N[counted_N], weights_N[counted_N]
    origin_K = _any_value(codes, num_keys, values_N[counted_N])
    weighted = weights * (values_N[counted_N] - origin_K[codes])
    num_units = int(units_N.max(initial=-1)) + 1
    others_N = total(codes, num_keys, weighted)[codes_N] - total(units, num_units, weighted)[units_N]
    weight_N = total(codes, num_keys, weights)[codes_N] - total(units, num_units, weights)[units_N]
    return origin_K[codes_N] + _ratio(others_N, weight_N)


def mean_of_distinct(
    codes_N: IntArray, num_keys: int, values_N: FloatArray, *, decimals: int, extra: Sequence[float] = ()
) -> FloatArray:
    """Mean of the distinct values of each key, `extra` counted in every key; 0 where there are none.

    Values that agree to `decimals` are one value, the smallest of them.
    """
    codes = np.concatenate([codes_N, *(np.arange(num_keys) for _ in extra)])
    values = np.concatenate([values_N, *(np.full(num_keys, value) for value in extra)])
    rounded = np.round(values, decimals)
    order = np.lexsort((values, rounded, codes))
    codes, values, rounded = codes[order], values[order], rounded[order]
    fresh = np.ones(len(codes), dtype=np.bool_)
    fresh[1:] = (codes[1:] != codes[:-1]) | (rounded[1:] != rounded[:-1])
    return moments(codes, num_keys, values, fresh.astype(np.float64))[0]


def _any_value(codes: IntArray, num_keys: int, values: FloatArray) -> FloatArray:
    origin_K = np.zeros(num_keys)
    origin_K[codes] = values
    return origin_K


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > FLAT)
