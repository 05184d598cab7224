"""Charts: each is one Vega-Lite specification, from which both the page's drawing and the figures for a paper are made.

Names of fields are ours; texts of others are values only, which Vega draws as text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

HEIGHT = 220
CELL = 84
"""Width of a column of a matrix that has more than `FEW_COLUMNS`."""
FEW_COLUMNS = 4
MOST_POINTS = 300
"""Of one line."""

LIGHT = ("#0b6bcb", "#d1510b", "#0a7d55", "#b0307a", "#8a6a00", "#6246c9", "#0c7f91", "#5c6570")
DARK = ("#6cb3ff", "#ff9d5c", "#4fd1a1", "#ff8ac4", "#e8c547", "#b3a1ff", "#57d3e6", "#aab4c0")


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart with what is said about it."""

    name: str
    """Of its files; unique in a report."""
    title: str
    about: str
    """One sentence below it; may be empty."""
    spec: Spec
    wide: bool = False
    """Whether it needs a line of the page for itself, and scrolls where that is too narrow."""


def lines(
    rows: Rows,
    *,
    y: str,
    x: str = "step",
    shares: bool = False,
    log: bool = False,
    names: Sequence[str] = (),
    zero: bool = False,
    raw: bool = False,
) -> Spec:
    """Lines over steps. Rows have `x`, `y` and `c` (whose line), maybe `lo` and `hi` (a band) and, with `raw`, `r`: the
    value itself, drawn faintly behind the smoothed one."""
    several = len(names) > 1
    scale = alt.Scale(type="log") if log else alt.Scale(domain=[0, 1]) if shares else alt.Scale(zero=zero)
    form: Any = ".0%" if shares else ".0e" if log else alt.Undefined
    axis = alt.Axis(title=y, tickCount=5, format=form)
    colour = _colour(names)
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X("x:Q", title=x, axis=alt.Axis(tickMinStep=1, format="~d"), scale=alt.Scale(nice=False, zero=False))
    )
    layers: list[alt.Chart] = []
    if any("lo" in row for row in rows):
        layers.append(
            base.mark_area(opacity=0.18).encode(
                y=alt.Y("lo:Q", scale=scale, axis=axis), y2="hi:Q", color=colour, tooltip=alt.value(None)
            )
        )
    if raw:
        layers.append(
            base.mark_line(opacity=0.28, strokeWidth=1).encode(
                y=alt.Y("r:Q", scale=scale, axis=axis), color=colour, tooltip=alt.value(None)
            )
        )
    drawn = base.mark_line(strokeWidth=2, point={"size": 18, "filled": True} if len(rows) <= 60 * len(names) else False)
    layers.append(drawn.encode(y=alt.Y("y:Q", scale=scale, axis=axis), color=colour, tooltip=alt.value(None)))
    tips = [alt.Tooltip("x:Q", title=x), alt.Tooltip("y:Q", title=y, format=".1%" if shares else ".4g")]
    tips = [alt.Tooltip("c:N", title="of"), *tips] if several else tips
    layers.append(base.mark_point(opacity=0, size=90).encode(y=alt.Y("y:Q", scale=scale), color=colour, tooltip=tips))
    return _finished(alt.layer(*layers))


def means(rows: Rows, *, y: str, names: Sequence[str], x: str = "step") -> Spec:
    """Means with intervals at a few places, joined by lines, and the line of 0; rows as in `lines`.

    `names`: also of lines that are not there, whose colours are left out.
    """
    drawn = {row["c"] for row in rows}
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X(
            "x:Q",
            title=x,
            axis=alt.Axis(tickMinStep=1, format="~d"),
            scale=alt.Scale(nice=False, zero=False, padding=8),
        ),
        color=_colour(names, [name for name in names if name in drawn]),
    )
    value = alt.Y("y:Q", title=y, axis=alt.Axis(tickCount=5), scale=alt.Scale(zero=True))
    tips = [
        alt.Tooltip("c:N", title="action"),
        alt.Tooltip("x:Q", title=x, format=".0f"),
        alt.Tooltip("y:Q", title=y, format="+.3f"),
        alt.Tooltip("lo:Q", title="95 % from", format="+.3f"),
        alt.Tooltip("hi:Q", title="to", format="+.3f"),
    ]
    nought = alt.Chart(alt.InlineData(values=[{"z": 0}])).mark_rule(strokeDash=[3, 3], opacity=0.6).encode(y="z:Q")
    return _finished(
        alt.layer(
            nought,
            base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(y=alt.Y("lo:Q"), y2="hi:Q", tooltip=tips),
            base.mark_line(strokeWidth=1.5, opacity=0.5).encode(y=value, tooltip=alt.value(None)),
            base.mark_point(filled=True, size=55, opacity=1).encode(y=value, tooltip=tips),
        )
    )


def spread(rows: Rows, *, y: str) -> Spec:
    """Distributions side by side: rows have `x` (a step), `p5`, `p25`, `p50`, `p75`, `p95`, `mean`, `n`."""
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X("x:O", title="step", axis=alt.Axis(labelAngle=0, labelOverlap=True)),
        tooltip=[
            alt.Tooltip("x:O", title="step"),
            alt.Tooltip("n:Q", title="turns"),
            alt.Tooltip("mean:Q", format="+.3f"),
            *(alt.Tooltip(f"p{at}:Q", title=f"{at} %", format="+.3f") for at in (5, 25, 50, 75, 95)),
        ],
    )
    return _finished(
        alt.layer(
            base.mark_rule(opacity=0.8, strokeWidth=1.5).encode(y=alt.Y("p5:Q", title=y), y2="p95:Q"),
            base.mark_bar(opacity=0.45, size=14).encode(y="p25:Q", y2="p75:Q"),
            base.mark_tick(thickness=2, size=18).encode(y="p50:Q"),
            base.mark_point(filled=True, size=35, shape="diamond", color=LIGHT[1], opacity=1).encode(y="mean:Q"),
        )
    )


def heat(rows: Rows, *, value: str, across: str, down: str) -> Spec:
    """A matrix: rows have `row`, `col`, `v`, `lo`, `hi`, `t` (what is written) and `n`."""
    most = max((abs(float(row["v"])) for row in rows), default=1.0) or 1.0
    count = len(dict.fromkeys(row["row"] for row in rows))
    across_count = len(dict.fromkeys(row["col"] for row in rows))
    width = CELL * across_count if across_count > FEW_COLUMNS else None
    axis = alt.Axis(orient="top", labelAngle=0 if width is None else -30, labelLimit=140)
    base = alt.Chart(alt.InlineData(values=list(rows))).encode(
        x=alt.X("col:N", title=across, sort=None, axis=axis),
        y=alt.Y("row:N", title=down, sort=None, axis=alt.Axis(labelLimit=180)),
        tooltip=[
            alt.Tooltip("row:N", title=down),
            alt.Tooltip("col:N", title=across),
            alt.Tooltip("v:Q", title=value, format="+.3f"),
            alt.Tooltip("lo:Q", title="95 % from", format="+.3f"),
            alt.Tooltip("hi:Q", title="to", format="+.3f"),
            alt.Tooltip("n:Q", title="games"),
        ],
    )
    colour = alt.Color(
        "v:Q",
        title=value,
        legend=None,
        scale=alt.Scale(domain=[-most, 0, most], range=["#c4551a", "#f1efe9", "#1f6fb2"], interpolate="rgb"),
    )
    strong = f"abs(datum.v) > {0.6 * most}"
    ink = alt.condition(strong, alt.value("#ffffff"), alt.value("#1c1c1c"))
    chart = alt.layer(
        base.mark_rect(cornerRadius=3).encode(color=colour),
        base.mark_text(fontSize=12, lineBreak="\n").encode(text="t:N", color=ink),
    )
    return _finished(chart, height=max(60, 46 * count), width=width)


def periods(rows: Rows, last: int) -> Spec:
    """When alarms were on: rows have `name`, `from`, `to`."""
    count = len(dict.fromkeys(row["name"] for row in rows))
    chart = (
        alt.Chart(alt.InlineData(values=list(rows)))
        .mark_bar(height=12, cornerRadius=2)
        .encode(
            x=alt.X(
                "from:Q",
                title="step",
                axis=alt.Axis(tickMinStep=1, format="~d"),
                scale=alt.Scale(domain=[0, max(1, last) + 0.5], nice=False),
            ),
            x2="to:Q",
            y=alt.Y("name:N", title=None, sort=None, axis=alt.Axis(labelLimit=240)),
            tooltip=[alt.Tooltip("name:N"), alt.Tooltip("from:Q"), alt.Tooltip("to:Q")],
        )
    )
    return _finished(chart, height=30 * count + 10)


def sized(spec: Spec, width: int) -> Spec:
    """The same chart for a figure of that width."""
    return {**spec, "width": width} if spec["width"] == "container" else spec


def settings(*, dark: bool) -> Spec:
    """How charts look, in one of the two schemes."""
    ink, soft, grid = ("#e6e8eb", "#a9b1bb", "#333a43") if dark else ("#1c2024", "#545d68", "#e4e6ea")
    words = {"labelColor": soft, "titleColor": soft, "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": 500}
    return {
        "background": "transparent" if dark else "#ffffff00",
        "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif",
        "view": {"stroke": None},
        "range": {"category": list(DARK if dark else LIGHT)},
        "axis": {**words, "gridColor": grid, "domainColor": soft, "tickColor": soft, "tickSize": 4, "titlePadding": 8},
        "axisX": {"grid": False},
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            **words,
            "labelColor": ink,
            "orient": "top",
            "title": None,
            "symbolType": "stroke",
            "symbolStrokeWidth": 3,
            "labelLimit": 320,
            "columns": 3,
        },
        "mark": {"color": (DARK if dark else LIGHT)[0]},
        "rule": {"color": soft},
    }


def _colour(names: Sequence[str], told: Sequence[str] | None = None) -> Any:
    """Colours by line; they come from `settings`, by scheme. `told`: those that the legend names."""
    several = len(names) > 1
    values = alt.Undefined if told is None else list(told)
    legend = alt.Legend(symbolOpacity=1, values=values) if several else None
    return alt.Color("c:N", scale=alt.Scale(domain=list(names)), sort=None, legend=legend)


def _finished(chart: Any, height: int = HEIGHT, width: int | None = None) -> Spec:
    """The specification, as wide as its place unless a width is given."""
    spec: Spec = chart.properties(width=width or "container", height=height).to_dict(validate=False)
    spec.pop("config", None)
    if width is None:
        spec["autosize"] = {"type": "fit-x", "contains": "padding"}
    return spec


def thinned(points: Iterable[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most that many points: means of neighbours."""
    known = list(points)
    size = -(-len(known) // most)
    if size <= 1:
        return known
    chunks = [known[start : start + size] for start in range(0, len(known), size)]
    return [(chunk[-1][0], sum(value for _, value in chunk) / len(chunk)) for chunk in chunks]
