"""Starting and ending the server."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from socket import socket as Socket

import torch

from marl_llm.listening import Server, address, listener
from marl_llm.serve.api import make_app
from marl_llm.serve.desk import Desk
from marl_llm.serve.gate import Limits
from marl_llm.serve.names import Library
from marl_llm.team import config_of


def serve_run(
    run: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key: str | None = None,
    limits: Limits | None = None,
    started: Callable[[str, Sequence[str]], None],
) -> None:
    """Answer until SIGTERM or Ctrl-C; then what is in flight is finished, up to a limit.

    Args:
        run: whose policies, by its latest checkpoint; or an experiment's YAML file: as it would begin.
        host: the address that is listened at.
        port: 0: any that is free.
        key: whoever asks must send it; None: nobody must.
        limits: what is taken.
        started: called with the address and the models, once requests are taken.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's.
        RunError, ModelError: see `Library`.
    """
    socket = listener(host, port)
    try:
        threads = config_of(run).run.threads
        if threads is not None:
            torch.set_num_threads(threads)
        library = Library(run)
        asyncio.run(_serve(socket, library, key, limits or Limits(), started))
    finally:
        socket.close()


async def _serve(
    socket: Socket,
    library: Library,
    key: str | None,
    limits: Limits,
    started: Callable[[str, Sequence[str]], None],
) -> None:
    desk = Desk(asyncio.get_running_loop().call_soon_threadsafe)
    server = Server(make_app(library, desk, limits=limits, key=key), shutdown_s=limits.shutdown_s)
    server.stop_on_signals()
    started(address(socket), library.names)
    try:
        await server.serve(sockets=[socket])
    finally:
        await asyncio.to_thread(desk.close)
