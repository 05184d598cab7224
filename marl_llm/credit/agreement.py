"""How far recipes agree on the same turns: correlation, and where one praises what the other blames."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from marl_llm.credit.audit import AuditRow
from marl_llm.credit.statistics import FLAT


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """Two recipes on the same turns."""

    one: str
    """A recipe."""
    other: str
    """Another one."""
    turns: int
    """Turns that both were given."""
    correlation: float | None
    """Pearson's, of the advantages; None where one of the recipes gives all turns the same."""
    flips: int
    """Turns that one recipe makes more likely and the other less."""
    silent: int
    """Turns that one of them leaves as they are, and the other does not."""
    example: str | None
    """The flip that weighs most, by the product of the advantages in units of their deviations, as `episode#turn`."""


def agreements(rows: Sequence[AuditRow]) -> tuple[Agreement, ...]:
    """Each pair of the recipes of an audit, in their order."""
    names = list(rows[0].advantages) if rows else []
    values = {name: np.array([row.advantages[name] for row in rows]) for name in names}
    return tuple(_agreement(rows, values, one, other) for one, other in combinations(names, 2))


def _agreement(rows: Sequence[AuditRow], values: dict[str, Any], one: str, other: str) -> Agreement:
    a, b = values[one], values[other]
    product = a * b
    spread = float(a.std() * b.std())
    flips = product < 0
    worst = int(np.argmin(product)) if flips.any() else None
    return Agreement(
        one=one,
        other=other,
        turns=len(rows),
        correlation=float(((a - a.mean()) * (b - b.mean())).mean() / spread) if spread > FLAT else None,
        flips=int(flips.sum()),
        silent=int(((a == 0) != (b == 0)).sum()),
        example=None if worst is None else f"{rows[worst].episode}#{rows[worst].turn}",
    )


def agreement_json(pairs: Sequence[Agreement]) -> list[dict[str, Any]]:
    """As plain values."""
    return [asdict(pair) for pair in pairs]


def agreement_table(pairs: Sequence[Agreement]) -> Table:
    """For the terminal."""
    drawn = Table(title="agreement of recipes")
    for header in ("recipes", "correlation", "sign flips", "only one speaks", "turns", "greatest flip"):
        drawn.add_column(header, justify="left" if header in ("recipes", "greatest flip") else "right")
    for pair in pairs:
        correlation = "-" if pair.correlation is None else f"{pair.correlation:+.3f}"
        shares = [f"{count} ({count / pair.turns:.1%})" for count in (pair.flips, pair.silent)]
        cells = [f"{pair.one} / {pair.other}", correlation, *shares, str(pair.turns), pair.example or "-"]
        drawn.add_row(*map(Text, cells))
    return drawn
