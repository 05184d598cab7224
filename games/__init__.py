"""Games that speak text, as PettingZoo environments. Usable without `marl_llm`, which they never import."""

import difflib
import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from pettingzoo import AECEnv, ParallelEnv

from games.turns import in_turns

_GAMES = (
    "connect_four",
    "donor_game",
    "kuhn_poker",
    "leduc_poker",
    "matrix_game",
    "negotiation",
    "public_goods",
    "taboo",
    "tic_tac_toe",
)

Environment: TypeAlias = AECEnv | ParallelEnv


def names() -> tuple[str, ...]:
    """The games that `make` knows by name, sorted."""
    return _GAMES


def make(name: str, **settings: Any) -> AECEnv:
    """A new environment of the game, not yet reset.

    `name` is one of `names()`, or `package.module:function` for a game of the user's own, where
    `function(**settings)` returns the environment. A `ParallelEnv` comes as a game in turns (`games.turns`).

    Raises:
        ValueError: the name is unknown (the nearest one is given), the module cannot be imported or has no
            such function, or a setting is unknown or out of range.
    """
    make_it = factory(name)
    try:
        made = make_it(**settings)
    except TypeError:
        _refuse_unknown(name, make_it, settings)
        raise
    return in_turns(made) if isinstance(made, ParallelEnv) else made


def _refuse_unknown(name: str, factory: Callable[..., Environment], settings: dict[str, Any]) -> None:
    signature = inspect.signature(factory)
    try:
        signature.bind(**settings)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ValueError(f"game {name}: {error}; its settings: {known}") from error


def factory(name: str) -> Callable[..., Environment]:
    """The function that makes the game; its keyword arguments are the settings.

    Raises:
        ValueError: the name is unknown, or the module cannot be imported or has no such function.
    """
    if name in _GAMES:
        return _load(name, f"games.{name}", "env")
    module, colon, function = name.partition(":")
    if not colon:
        near = difflib.get_close_matches(name, _GAMES, n=1, cutoff=0.0)[0]
        allowed = f"{', '.join(_GAMES)}, or package.module:env"
        raise ValueError(f"unknown game {name!r}; nearest valid name: {near}; allowed: {allowed}")
    return _load(name, module, function)


def _load(name: str, module: str, function: str) -> Callable[..., Environment]:
    try:
        loaded = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything while it is imported
        reason = " ".join(str(error).split())
        raise ValueError(f"game {name!r}: cannot import {module!r}: {type(error).__name__}: {reason}") from error
    found = getattr(loaded, function, None)
    if not callable(found):
        raise ValueError(f"game {name!r}: module {module!r} has no function {function!r}")
    made: Callable[..., Environment] = found
    return made
