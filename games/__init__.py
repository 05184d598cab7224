"""Games that speak text, as PettingZoo environments. Usable without `marl_llm`, which they never import."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from pettingzoo import AECEnv

from games.loading import load

_GAMES = {
    "connect_four": "games.connect_four:env",
    "hanabi": "games.hanabi:env",
    "kuhn_poker": "games.kuhn_poker:env",
    "leduc_poker": "games.leduc_poker:env",
    "mini_hanabi": "games.hanabi:mini",
    "simple_hanabi": "games.hanabi:simple",
    "tic_tac_toe": "games.tic_tac_toe:env",
}
_ADAPTERS = {"openspiel": "games.from_openspiel", "pettingzoo": "games.from_pettingzoo"}
FORMS = {
    "openspiel:GAME": "Any other game of OpenSpiel, as in openspiel:goofspiel(num_cards=4,imp_info=True).",
    "pettingzoo:MODULE": "An environment of PettingZoo, as in pettingzoo:pettingzoo.classic.tictactoe_v3.",
    "package.module:env": "A game of your own.",
}
"""Names that `make` understands besides `names()`, and what they mean."""


def names() -> tuple[str, ...]:
    """The games that `make` knows by name, sorted."""
    return tuple(_GAMES)


def make(name: str, **settings: Any) -> AECEnv:
    """A new environment of the game, not yet reset.

    `name` is one of `names()` or has one of the `FORMS`; of `package.module:function`, `function(**settings)` returns
    the environment.

    Raises:
        ValueError: the name is unknown (the nearest one is given), the module cannot be imported or has no
            such function, or a setting is unknown or out of range.
    """
    factory = _factory(name)
    try:
        return factory(**settings)
    except TypeError:
        _refuse_unknown(name, factory, settings)
        raise


def _refuse_unknown(name: str, factory: Callable[..., AECEnv], settings: dict[str, Any]) -> None:
    signature = inspect.signature(factory)
    try:
        signature.bind(**settings)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ValueError(f"game {name}: {error}; its settings: {known}") from error


def _factory(name: str) -> Callable[..., AECEnv]:
    module, colon, function = _GAMES.get(name, name).partition(":")
    if colon and module in _ADAPTERS:
        return partial(load(name, _ADAPTERS[module], "env"), function)
    if not colon:
        near = difflib.get_close_matches(name, _GAMES, n=1, cutoff=0.0)[0]
        allowed = ", ".join((*_GAMES, *FORMS))
        raise ValueError(f"unknown game {name!r}; nearest valid name: {near}; allowed: {allowed}")
    return load(name, module, function)
