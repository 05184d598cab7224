"""What servers of ours have in common: a socket to listen at, and signals that end them in order."""

import asyncio
import os
import signal
import socket
from contextlib import nullcontext, suppress
from typing import Any

import uvicorn

from marl_llm.config.require import require
from marl_llm.errors import ConfigError

TICK_S = 1.0
"""Seconds between two looks at the clock, for the date of answers."""


class Server(uvicorn.Server):
    """Leaves signals to us: uvicorn would end the process by the signal after all is done."""

    def __init__(self, app: Any, *, shutdown_s: float) -> None:
        """`shutdown_s`: how long requests in flight are waited for at the end."""
        settings: dict[str, Any] = {
            "lifespan": "off",
            "log_level": "warning",
            "access_log": False,
            "server_header": False,
            "timeout_graceful_shutdown": shutdown_s,
        }
        super().__init__(uvicorn.Config(app, **settings))
        self._woken = asyncio.Event()

    def capture_signals(self) -> Any:
        return nullcontext()

    async def main_loop(self) -> None:
        """Wait for the end; uvicorn itself looks ten times a second, which is most of what an idle server costs."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), TICK_S)

    def stop_on_signals(self) -> None:
        """Let SIGINT and SIGTERM end it, the second one at once; in its event loop."""

        def stop() -> None:
            self.force_exit = self.should_exit
            self.should_exit = True
            self._woken.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)


def listener(host: str, port: int) -> socket.socket:
    """A socket at which requests are taken; port 0: any that is free.

    Raises:
        ConfigError: the port is in use, or the address is not this machine's.
    """
    require(0 <= port < 2**16, "--port", port, "between 0 and 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno and error.errno > 0 else str(error)
        raise ConfigError(f"--host {host} --port {port}: cannot listen there: {reason}") from error


def address(listener: socket.socket) -> str:
    """Where it listens, as a URL."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
