"""What vl-convert makes: figures for a paper, and the library that draws on the page."""

from pathlib import Path

import vl_convert

from marl_llm.report.charts import Chart, settings, sized

WIDTH = 560
"""Of a figure, in points; a PNG has twice as many pixels."""


def write_figure(chart: Chart, folder: Path) -> None:
    """Write a chart as `NAME.png` and `NAME.svg`, on white."""
    spec = {
        **sized(chart.spec, WIDTH),
        "background": "#ffffff",
        "config": {**settings(dark=False), "background": "#ffffff"},
    }
    svg = vl_convert.vegalite_to_svg(spec)
    (folder / f"{chart.name}.svg").write_text(svg, encoding="utf-8")
    (folder / f"{chart.name}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))


def library() -> str:
    """JavaScript that defines `vegaEmbed`, to stand beside the page; it asks for nothing from elsewhere."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle
