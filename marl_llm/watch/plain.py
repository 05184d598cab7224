"""Answers in JSON, whatever is in a run's files."""

import json
import math
from collections.abc import Mapping
from typing import Any

from fastapi.responses import JSONResponse


class Plain(JSONResponse):
    """JSON as browsers read it: a number that is not finite is null, and half a surrogate pair stays what it is."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except ValueError:  # of such a number, or of such a half
            return json.dumps(_finite(content), separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
