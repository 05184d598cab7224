"""What every request passes: it comes from this page on this machine, and who acts has the token."""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from marl_llm.watch.plain import Plain

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HTTP = 80
"""Port that no browser names."""
MAX_BODY = 2 * 2**20
"""Bytes of a request."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Sent with every answer: nothing of the page comes from elsewhere, and nobody else's page may show it."""
FOREIGN = (b"cross-site", b"same-site")
"""What a browser says of requests that another page makes."""
_NAMES = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Around the application.

    A page of somebody else's can send requests here, and by a name of its own that leads to this machine also read
    the answers; so the name that was asked for (`Host`) and the page that asks (`Origin`) must be ours, and whatever
    changes something or costs computation (any method but GET and HEAD) needs the token, which no other page can know.
    """

    def __init__(self, app: App, *, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        names = [f"{name}:{port}" for name in _NAMES] + [name for name in _NAMES if port == HTTP]
        self._hosts = {name.encode() for name in names}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # there are none here
        if scope["type"] != "http":
            return

        async def sealed(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        refusal = self._refusal(scope["method"], dict(scope["headers"]))
        if refusal is None:
            await self._app(scope, receive, sealed)
        else:
            status, reason = refusal
            await Plain({"error": reason}, status)(scope, receive, sealed)

    def _refusal(self, method: str, headers: MutableMapping[bytes, bytes]) -> tuple[int, str] | None:
        if headers.get(b"host", b"") not in self._hosts:
            return 403, "This server answers to the address that marl-llm watch printed, and to no other name."
        origin = headers.get(b"origin")
        if origin is not None and origin not in self._origins:
            return 403, "Requests of other pages are refused."
        if headers.get(b"sec-fetch-site") in FOREIGN and headers.get(b"sec-fetch-mode") != b"navigate":
            return 403, "Requests of other pages are refused."  # as an image, a script: they tell no origin
        if method in ("GET", "HEAD"):
            return None
        if not hmac.compare_digest(headers.get(b"x-token", b""), self._token):
            return 403, "Open the address that marl-llm watch printed: it has the token without which nothing is done."
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length[:20]) > MAX_BODY:
            return 413, f"The body must say its length, of at most {MAX_BODY} bytes."
        return None
