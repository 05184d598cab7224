"""Starting and ending the episode browser."""

import asyncio
import gc
import secrets
from collections.abc import Callable
from pathlib import Path
from socket import socket as Socket
from tempfile import TemporaryDirectory

from marl_llm.errors import RunError
from marl_llm.listening import Server, address, listener
from marl_llm.run import Run
from marl_llm.watch.acts import Acts
from marl_llm.watch.api import make_app
from marl_llm.watch.browser import Browser
from marl_llm.watch.index import FILE, Index
from marl_llm.watch.jobs import Jobs

HOST = "127.0.0.1"
"""Nobody but this machine is answered."""
SHUTDOWN_S = 2.0


def watch_run(run: Path, *, port: int = 8321, device: str | None = None, started: Callable[[str], None]) -> None:
    """Show a run until SIGTERM or Ctrl-C.

    Args:
        run: its directory; training may go on there.
        port: 0: any that is free.
        device: of the models that play what is asked; None: where the run has them.
        started: called with the address, token included, once requests are taken.

    Raises:
        RunError, ConfigError: it is not a run directory, or the port is in use.
    """
    Run.config(run)  # before anything is written there
    socket = listener(HOST, port)
    try:
        with TemporaryDirectory(prefix="marl-llm-watch-") as elsewhere:
            browser = Browser(run, _index(run, Path(elsewhere)))
            asyncio.run(_serve(socket, browser, Acts(run, device=device), started))
    finally:
        socket.close()


def _index(run: Path, elsewhere: Path) -> Index:
    """In the run directory, to be there the next time; where that cannot be written, for as long as this lasts."""
    try:
        return Index(run)
    except RunError:
        return Index(run, elsewhere / FILE)


async def _serve(socket: Socket, browser: Browser, acts: Acts, started: Callable[[str], None]) -> None:
    token = secrets.token_urlsafe(24)
    jobs = Jobs()
    app = make_app(browser, acts, jobs, token=token, port=socket.getsockname()[1])
    server = Server(app, shutdown_s=SHUTDOWN_S)
    server.stop_on_signals()
    gc.freeze()  # what has been imported lives as long as the process, and need not be looked through again and again
    browser.start()
    started(f"{address(socket)}/#token={token}")
    try:
        await server.serve(sockets=[socket])
    finally:
        jobs.close()
        await asyncio.to_thread(acts.close)
        await asyncio.to_thread(browser.close)
