"""Small statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, sqrt

import numpy as np
from numpy.typing import NDArray

Z95 = 1.959964


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its 95 % interval (normal approximation, draws taken as independent)."""

    mean: float
    low: float
    high: float
    """Equal to `mean`, as `low`, where there is but one draw."""
    count: int
    """Draws that it is of."""

    @property
    def half(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


def interval(values: "NDArray[np.float64] | Sequence[float]") -> Interval | None:
    """The mean of the known values; None where there are none."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    if not len(known):
        return None
    mean = float(known.mean())
    half = Z95 * float(known.std(ddof=1)) / sqrt(len(known)) if len(known) > 1 else 0.0
    return Interval(mean=mean, low=mean - half, high=mean + half, count=len(known))


def number(value: float | None, digits: int = 3) -> str:
    """A number for a reader: few digits, no exponent where none is needed."""
    if value is None or not isfinite(value):
        return "–"
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.{digits}g}".replace("-", "−")
    text = (
        f"{value:,.0f}" if abs(value) >= 1000 or (value == int(value) and abs(value) >= 10) else f"{value:.{digits}g}"
    )
    return text.replace("-", "−")


def signed(value: float | None) -> str:
    """A return or an advantage: with its sign, two decimals."""
    if value is None or not isfinite(value):
        return "–"
    text = f"{value:+.2f}" if abs(value) < 1e4 else f"{value:+.3g}"
    return ("0.00" if float(value) == 0 or text in ("+0.00", "-0.00") else text).replace("-", "−")


def percent(share: float | None) -> str:
    """A share."""
    if share is None or not isfinite(share):
        return "–"
    if 0 < share < 0.005:
        return "<\u00a01\u00a0%"
    if 0.995 < share < 1:
        return ">\u00a099\u00a0%"
    return f"{100 * share:.0f}\u00a0%"


def fine_percent(share: float | None) -> str:
    """A share that may be small."""
    return "–" if share is None or not isfinite(share) else f"{100 * share:.3g}\u00a0%"


def duration(seconds: float) -> str:
    """A time in words."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s" if seconds < 10 else f"{rest} s"
