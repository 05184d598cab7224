"""Commands that show what the agents did; torch is not needed to look."""

from pathlib import Path
from typing import Annotated

import typer

from marl_llm.cli.base import app, out
from marl_llm.errors import ConfigError


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(help="Run directory, of a run that is over or still goes on")],
    port: Annotated[int, typer.Option(help="0: any that is free")] = 8321,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser of this machine")] = False,
) -> None:
    """Browse a run's episodes: who saw, thought and said what, why it was praised, and what would have been otherwise.

    A page for this machine alone, live while training goes on; Ctrl-C ends it. Needs pip install 'marl-llm[watch]'.

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

    watch_run(run, port=port, started=started)
