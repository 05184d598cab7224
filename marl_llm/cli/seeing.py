"""Commands that show what the agents did; torch is not needed to look."""

import json
from pathlib import Path
from typing import Annotated

import typer

from marl_llm.cli.base import Json, app, log, out
from marl_llm.errors import ConfigError, MarlError


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run directories, or the folder of a sweep")],
    into: Annotated[
        Path | None, typer.Option(help="Folder; default: RUN/report, of several runs ./report-NAME")
    ] = None,
    as_json_: Json = False,
) -> None:
    """Write a report of one or several runs as a folder of static HTML, with every chart as PNG and SVG.

    Runs whose settings differ in the seed alone are one line with a band; others are drawn side by side.

    Example: marl-llm report runs/kuhn-seed0-1
    """
    try:
        from marl_llm.report.make import make_report
    except ModuleNotFoundError as error:
        if error.name not in ("altair", "vl_convert", "jinja2"):
            raise
        raise MarlError(f"{error.name} is not installed; run: pip install 'marl-llm[report]'") from error

    with log.status("reading") as status:
        made = make_report(runs, into, lambda text: status.update(text))
    if as_json_:
        print(json.dumps(made.to_json()))
        return
    if made.report.damage:
        log.print(f"{len(made.report.damage)} files or lines are damaged; the report names them", markup=False)
    out.print(f"report: {made.index}", markup=False)


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="Run directory, of a run that is over or still goes on")],
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8321,
    device: Annotated[
        str | None, typer.Option(help="Of the models that play what is asked, such as cpu; default: the run's")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser of this machine")] = False,
) -> None:
    r"""Browse a run's episodes: who saw, thought and said what, why it was praised, and what would have been otherwise.

    A page for this machine alone, live while training goes on; Ctrl-C ends it. Needs pip install 'marl-llm\[watch]'.

    Example: marl-llm watch runs/kuhn-seed0-1
    """
    try:
        from marl_llm.watch.server import watch_run
    except ImportError as error:
        raise ConfigError(
            f"watch needs FastAPI, uvicorn and msgspec ({error}): pip install 'marl-llm[watch]'"
        ) from error

    def started(address: str) -> None:
        out.print(f"{run} at {address} (Ctrl-C ends it)", markup=False)
        if open_:
            typer.launch(address)

    watch_run(run, port=port, device=device, started=started)
