"""Functions that a user names as `package.module:function`."""

import importlib
from collections.abc import Callable
from typing import Any


def load(game: str, module: str, function: str) -> Callable[..., Any]:
    """The function of the module, imported if need be.

    Raises:
        ValueError: the module cannot be imported or has no such function; names the game that asked for it.
    """
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything while it is imported
        reason = " ".join(str(error).split())
        raise ValueError(f"game {game!r}: cannot import {module!r}: {type(error).__name__}: {reason}") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise ValueError(f"game {game!r}: module {module!r} has no function {function!r}")
    made: Callable[..., Any] = found
    return made
