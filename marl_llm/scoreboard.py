"""The results of a benchmark as tables in the terminal, and as a plot of accuracy over tokens."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import ScalarFormatter
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from marl_llm.evaluation.accuracy import Accuracy, Place
from marl_llm.evaluation.tournament import Mean
from marl_llm.files import writing

mpl.use("agg")
MARKERS = "osD^vPX*<>hd"

Results = Mapping[Place, Accuracy]


def scoreboard(results: Results, baseline: str | None) -> RenderableType:
    """Two tables for each benchmark, and one of all side by side where there are several."""
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _, _ in results))
    tables: list[RenderableType] = []
    for benchmark in benchmarks:
        tables += [*_benchmark(results, benchmark), *_compared(results, benchmark, baseline)]
    if len(benchmarks) > 1:
        tables += ["% right", _all(results, benchmarks)]
    return Group(*tables, *_remarks(results))


def plot_accuracy(results: Results, path: Path) -> None:
    """Write accuracy over tokens for each benchmark (PNG); lines are the majority of single answers.

    Raises:
        RunError: it could not be written.
    """
    benchmarks = list(dict.fromkeys(benchmark for benchmark, _, _ in results))
    figure, axes_1B = pyplot.subplots(
        1, len(benchmarks), figsize=(1.5 + 4 * len(benchmarks), 4.2), layout="constrained", squeeze=False
    )
    for benchmark, axes in zip(benchmarks, axes_1B[0], strict=True):
        _panel(axes, {(way, team): found for (name, way, team), found in results.items() if name == benchmark})
        axes.set_title(benchmark, parse_math=False)
    axes_1B[0][0].set_ylabel("right answers")
    legend = axes_1B[0][-1].legend(fontsize=7, loc="center left", bbox_to_anchor=(1.02, 0.5))
    for text in legend.get_texts():
        text.set_parse_math(False)
    with writing(path):
        figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def _benchmark(results: Results, benchmark: str) -> Iterator[RenderableType]:
    """A line that says what was asked, and the table."""
    rows = {(way, team): found for (name, way, team), found in results.items() if name == benchmark}
    first = next(iter(rows.values()))
    k = first.samples
    yield f"{escape(benchmark)}: {first.items} items, answers to each: {k}; % right, 95 % over items"
    columns = ["right", *(["best", "majority"] if k > 1 else []), "tokens", "ms"]
    seeds = any(found.spread is not None for found in rows.values())
    table = _table([*columns, *(["seeds"] if seeds else [])])
    for (way, team), found in _by_way(rows):
        cells = [_share(found.accuracy)]
        if k > 1:
            cells += [f"{100 * found.best:.1f}", f"{100 * found.majority:.1f}"]
        cells += [f"{found.tokens:.0f}", f"{1000 * found.seconds:.1f}"]
        cells += [f"± {100 * found.spread:.1f}"] if found.spread is not None else []
        table.add_row(escape(way), escape(team), *cells)
    yield table


def _compared(results: Results, benchmark: str, baseline: str | None) -> Iterator[RenderableType]:
    """Protocols beside the majority at equal tokens, teams beside the baseline; none where nothing is compared."""
    rows = {(way, team): found for (name, way, team), found in results.items() if name == benchmark}
    against = [f"less {baseline}"] if any(found.against for found in rows.values()) else []
    matched = ["majority", "less that"] if any(found.matched for found in rows.values()) else []
    if not against and not matched:
        return
    what = "; majority: of as many single answers as have the same tokens" if matched else ""
    yield f"{escape(benchmark)}, compared item by item{what}"
    table = _table(["right", *matched, *against])
    for (way, team), found in _by_way(rows):
        cells = [f"{100 * found.accuracy.mean:.1f}"]
        if matched and found.matched:
            majority = found.matched
            cells += [f"of {majority.votes}: {100 * majority.accuracy.mean:.1f}", _difference(majority.difference)]
        elif matched:
            cells += ["", ""]
        cells += [_difference(found.against)] if found.against else []
        table.add_row(escape(way), escape(team), *cells)
    yield table


def _by_way(rows: Mapping[tuple[str, str], Accuracy]) -> list[tuple[tuple[str, str], Accuracy]]:
    """Rows of one protocol after each other."""
    ways = list(dict.fromkeys(way for way, _ in rows))
    return sorted(rows.items(), key=lambda row: ways.index(row[0][0]))


def _table(columns: list[str]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("protocol", overflow="fold")
    table.add_column("team", no_wrap=True)
    for column in columns:
        table.add_column(escape(column), justify="right", no_wrap=True)
    return table


def _all(results: Results, benchmarks: list[str]) -> Table:
    table = _table(["mean", *benchmarks])
    for way, team in dict.fromkeys((way, team) for _, way, team in results):
        found = [results.get((benchmark, way, team)) for benchmark in benchmarks]
        shares = [100 * result.accuracy.mean for result in found if result is not None]
        cells = ["" if result is None else f"{100 * result.accuracy.mean:.2f}" for result in found]
        table.add_row(
            escape(way), escape(team), f"{np.mean(shares):.2f}" if len(shares) == len(benchmarks) else "", *cells
        )
    return table


def _remarks(results: Results) -> Iterator[str]:
    failed = sum(result.failed for result in results.values())
    if failed:
        yield f"{failed} answers are missing and count as wrong; --retry asks them again"


def _panel(axes: Axes, rows: Mapping[tuple[str, str], Accuracy]) -> None:
    teams = list(dict.fromkeys(team for _, team in rows))
    ways = list(dict.fromkeys(way for way, _ in rows))
    for (way, team), found in rows.items():
        mean = found.accuracy
        axes.errorbar(
            [max(found.tokens, 1)],
            [mean.mean],
            yerr=[[mean.mean - mean.low], [mean.high - mean.mean]],
            fmt=MARKERS[ways.index(way) % len(MARKERS)],
            color=f"C{teams.index(team)}",
            label=f"{way}, {team}",
            markersize=5,
            elinewidth=1,
        )
    for number, team in enumerate(teams):
        matched = [found.matched for (_, of), found in rows.items() if of == team and found.matched]
        singles = [found for (_, of), found in rows.items() if of == team and found.matched is None]
        curve = sorted(
            [(found.tokens, found.accuracy.mean) for found in singles]
            + [(found.tokens, found.accuracy.mean) for found in matched]
        )
        if matched:
            axes.plot(*zip(*curve, strict=True), color=f"C{number}", lw=1, alpha=0.6, label=f"majority, {team}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(ScalarFormatter())
    axes.set_xlabel("sampled tokens of an answer")
    axes.grid(alpha=0.3)


def _share(mean: Mean) -> str:
    return rf"{100 * mean.mean:.1f} \[{100 * mean.low:.0f}, {100 * mean.high:.0f}]"


def _difference(mean: Mean) -> str:
    text = f"{100 * mean.mean:+.1f} ± {100 * (mean.high - mean.mean):.1f}"
    colour = "green" if mean.low > 0 else "red" if mean.high < 0 else ""
    return f"[{colour}]{text}[/]" if colour else text
