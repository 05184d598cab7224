"""A tournament as tables in the terminal, coloured like a heat map, and as a plot."""

from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table

from marl_llm.evaluation.leaderboard import settings_text
from marl_llm.evaluation.tournament import Tournament
from marl_llm.files import writing
from marl_llm.terminal import plain, shown

mpl.use("agg")
COLOURS = mpl.colormaps["RdBu"]
DARK = 0.45
"""Luminance below which text on a colour is white."""


LABEL = 30
"""Characters of a name that fit beside a plot."""
NOTES = 10
"""Kinds of faults that are told."""


def standings(result: Tournament) -> RenderableType:
    """Payoff matrix, ranking, rings and faults; players in the order of their ratings."""
    return Group(_payoff_table(result), _ranking(result), "\n".join(_remarks(result)))


def plot_payoffs(result: Tournament, path: Path) -> None:
    """Write the payoff matrix with intervals as a heat map (PNG).

    Raises:
        RunError: it could not be written.
    """
    order = _order(result)
    payoffs_PP = _payoffs(result, order)
    size = 2 + 1.1 * len(order)
    figure, axes = pyplot.subplots(figsize=(size + 1, size), layout="constrained")
    image = axes.imshow(np.ma.masked_invalid(payoffs_PP), cmap=COLOURS)
    figure.colorbar(image, ax=axes, label="mean return of the row against the column")
    for row, player in enumerate(order):
        for column, opponent in enumerate(order):
            if (player, opponent) in result.pairings:
                payoff = result.pairings[player, opponent].payoff
                text = f"{payoff.mean:+.2f}\n[{payoff.low:+.2f}, {payoff.high:+.2f}]"
                _, ink = _colour(payoffs_PP, row, column)
                axes.text(column, row, text, ha="center", va="center", fontsize=7, color=ink)
    names = [plain(player, LABEL) for player in order]
    axes.set_xticks(range(len(order)), names, rotation=30, ha="right", fontsize=8, parse_math=False)
    axes.set_yticks(range(len(order)), names, fontsize=8, parse_math=False)
    axes.set_title(plain(result.game.name, 2 * LABEL), parse_math=False)
    with writing(path):
        figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def _payoff_table(result: Tournament) -> Table:
    order = _order(result)
    payoffs_PP = _payoffs(result, order)
    game = f"{result.game.name} {settings_text(result.game)}".strip()
    title = f"{shown(game)}: mean return of row against column, ± 95 %"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("player", no_wrap=True, max_width=16)  # in full in the ranking
    for number in range(1, len(order) + 1):
        table.add_column(str(number), justify="center", no_wrap=True, min_width=8)
    for row, player in enumerate(order):
        cells = []
        for column, opponent in enumerate(order):
            if (player, opponent) in result.pairings:
                payoff = result.pairings[player, opponent].payoff
                colour, ink = _colour(payoffs_PP, row, column)
                spread = f"± {payoff.high - payoff.mean:.2f}"
                cells.append(f"[{ink} on {colour}]{payoff.mean:^+8.2f}\n{spread:^8}[/]")
            else:
                cells.append("")
        table.add_row(f"{row + 1} {shown(player)}", *cells)
    return table


def _ranking(result: Tournament) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("player", overflow="fold")
    for column in ("rating", "alpha-rank", "won", "deals", "beats"):
        table.add_column(column, no_wrap=column != "beats")
    order = _order(result)
    for row, player in enumerate(order):
        rating = result.ratings[player]
        met = [other for other in order if other != player and (player, other) in result.pairings]
        won = [result.pairings[player, other].win_rate for other in met]
        beaten = [str(order.index(other) + 1) for other in met if result.pairings[player, other].won]
        table.add_row(
            f"{row + 1} {shown(player)}",
            f"{rating.mu:.1f} ± {rating.sigma:.1f}",
            f"{result.alpha_rank[player]:.1%}",
            f"{np.mean(won):.1%}" if won else "",
            str(sum(result.pairings[player, other].deals for other in met)),
            " ".join(beaten),
        )
    return table


def _remarks(result: Tournament) -> Iterator[str]:
    for ring in result.cycles:
        yield f"ring: {' beats '.join(map(shown, (*ring, ring[0])))}"
    faults = sum(result.faults.values())
    yield f"{result.episodes} episodes" + (f", {faults} at fault and in no score:" if faults else "")
    worst = sorted(result.faults.items(), key=lambda fault: -fault[1])
    for note, count in worst[:NOTES]:
        yield f"  {count} x {shown(note)}"
    if worst[NOTES:]:
        yield f"  {sum(count for _, count in worst[NOTES:])} x something else"


def _order(result: Tournament) -> list[str]:
    return sorted(result.players, key=lambda player: -result.ratings[player].mu)


def _payoffs(result: Tournament, order: list[str]) -> np.ndarray:
    """Mean returns; NaN where there are none."""
    means = {pair: pairing.payoff.mean for pair, pairing in result.pairings.items()}
    return np.array([[means.get((row, column), np.nan) for column in order] for row in order])


def _colour(payoffs_PP: np.ndarray, row: int, column: int) -> tuple[str, str]:
    """Background and ink of a cell, as hex colour and name: the least payoff is red, the greatest blue."""
    known = payoffs_PP[np.isfinite(payoffs_PP)]
    width = known.max() - known.min()
    red, green, blue, _ = COLOURS((payoffs_PP[row, column] - known.min()) / width if width else 0.5)
    dark = 0.3 * red + 0.59 * green + 0.11 * blue < DARK
    return mpl.colors.to_hex((red, green, blue)), "white" if dark else "black"
