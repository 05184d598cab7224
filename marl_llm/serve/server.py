"""Starting and ending the server."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import uvicorn

from marl_llm.config.require import require
from marl_llm.errors import ConfigError
from marl_llm.serve.api import make_app
from marl_llm.serve.desk import Desk
from marl_llm.serve.gate import Limits
from marl_llm.serve.names import Library
from marl_llm.team import config_of


class _Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would end the process by the signal after all is done."""

    def capture_signals(self) -> Any:
        return nullcontext()


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
    listener = _listener(host, port)
    try:
        threads = config_of(run).run.threads
        if threads is not None:
            torch.set_num_threads(threads)
        library = Library(run)
        asyncio.run(_serve(listener, library, key, limits or Limits(), started))
    finally:
        listener.close()


def _listener(host: str, port: int) -> socket.socket:
    require(0 <= port < 2**16, "--port", port, "between 0 and 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"--host {host} --port {port}: cannot listen there: {reason}") from error


async def _serve(
    listener: socket.socket,
    library: Library,
    key: str | None,
    limits: Limits,
    started: Callable[[str, Sequence[str]], None],
) -> None:
    loop = asyncio.get_running_loop()
    desk = Desk(loop.call_soon_threadsafe)
    settings: dict[str, Any] = {
        "lifespan": "off",
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": limits.shutdown_s,
    }
    server = _Server(uvicorn.Config(make_app(library, desk, limits=limits, key=key), **settings))

    def stop() -> None:
        server.force_exit = server.should_exit  # the second time, at once
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    host, port = listener.getsockname()[:2]
    started(f"http://{f'[{host}]' if ':' in host else host}:{port}", library.names)
    try:
        await server.serve(sockets=[listener])
    finally:
        await asyncio.to_thread(desk.close)
