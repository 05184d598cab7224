"""What every request passes: the key, the limit of its body, and the count."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from fastapi import HTTPException

from marl_llm.serve.counts import Counts
from marl_llm.serve.refusals import Refused

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health",)
"""What needs no key."""
CLIENT_LEFT = 499
"""Status under which a request is counted whose client has gone."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes."""

    max_requests: int = 512
    """Requests that are answered at a time."""
    max_tokens: int | None = None
    """Most tokens that a request may ask for; None: the context alone is the limit."""
    max_body: int = 2**20
    """Bytes of a request."""
    shutdown_s: float = 30.0
    """How long requests in flight are waited for at the end."""


class Gate:
    """Around the application, without buffering anything."""

    def __init__(self, app: App, *, counts: Counts, limits: Limits, key: str | None) -> None:
        self._app, self._counts, self._limits = app, counts, limits
        self._key = None if key is None else f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        headers = dict(scope["headers"])
        began, status = monotonic(), CLIENT_LEFT

        async def note(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refusal = self._refusal(scope["path"], headers)
            if refusal is not None:
                await refusal.answer()(scope, receive, note)
                return
            await self._app(scope, self._limited(receive), note)
        except asyncio.CancelledError:  # at the end of the server, where a request is waited for no longer
            if status == CLIENT_LEFT:
                await Refused(503, "The server is shutting down.").answer()(scope, receive, note)
        finally:
            if scope["path"].startswith("/v1/") and scope["method"] == "POST":
                left = scope.get("client_left", False)
                model = scope.get("model", "")
                self._counts.answered(model, CLIENT_LEFT if left else status, monotonic() - began)

    def _refusal(self, path: str, headers: MutableMapping[bytes, bytes]) -> Refused | None:
        given = headers.get(b"authorization", b"")
        if self._key is not None and path not in OPEN and not hmac.compare_digest(given, self._key):
            message = "Incorrect API key provided; send the server's key as Authorization: Bearer KEY."
            return Refused(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self._limits.max_body:
            return self._too_large()
        return None

    def _too_large(self) -> Refused:
        return Refused(413, f"The body is larger than {self._limits.max_body} bytes, the limit of this server.")

    def _limited(self, receive: Receive) -> Receive:
        size = 0

        async def limited() -> MutableMapping[str, Any]:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self._limits.max_body:
                raise HTTPException(413, self._too_large().message)
            return message

        return limited
