"""Errors in the form of OpenAI's API."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse

FORMS = {
    "prompt": "a text, a list of texts, a list of token ids, or a list of such lists; none of them empty",
    "stop": "a text or a list of at most 16 texts",
    "content": "a text or a list of parts {type: text, text: ...}",
}
"""What is allowed where there are several forms, of which pydantic would name any."""
TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class Refused(Exception):
    """A request that is not answered."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = headers

    def answer(self) -> JSONResponse:
        """As a response."""
        return JSONResponse(self.body(), self.status, headers=dict(self.headers or {}))

    def body(self) -> dict[str, Any]:
        """As JSON."""
        kind = TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def malformed(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """A body that has not the form of a request, from what pydantic says of it."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return Refused(400, f"The body is not valid JSON: {first['ctx']['error']}.")
    place = [str(part) for part in first["loc"][1:]]
    several = next((number for number, part in enumerate(place) if part in FORMS), None)
    if first["type"] == "extra_forbidden":
        return Refused(400, f"Unrecognized request argument supplied: {'.'.join(place)}", param=".".join(place))
    if several is not None and len(place) > several + 1:
        param = ".".join(place[: several + 1])
        return Refused(400, f"{param}: it must be {FORMS[place[several]]}.", param=param)
    param = ".".join(place)
    said = first["msg"].removeprefix("Value error, ")
    if not param:  # what we refuse ourselves begins with the name
        return Refused(400, f"{said}.", param=said.split()[0].rstrip(":"))
    return Refused(400, f"{param}: {said}.", param=param)
