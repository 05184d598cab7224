"""Games that speak text, as PettingZoo environments. Usable without `marl_llm`, which they never import."""

import difflib
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from pettingzoo import AECEnv, ParallelEnv

from games.loading import load
from games.turns import in_turns

_GAMES = {
    "autogen": "games.pipelines.autogen:env",
    "connect_four": "games.connect_four:env",
    "debate": "games.pipelines.debate:env",
    "deep_research": "games.pipelines.deep_research:env",
    "discussion": "games.pipelines.discussion:env",
    "donor_game": "games.donor_game:env",
    "generate_verify_refine": "games.pipelines.generate_verify_refine:env",
    "hanabi": "games.hanabi:env",
    "kuhn_poker": "games.kuhn_poker:env",
    "leduc_poker": "games.leduc_poker:env",
    "mad": "games.pipelines.mad:env",
    "matrix_game": "games.matrix_game:env",
    "mini_hanabi": "games.hanabi:mini",
    "mixture_of_agents": "games.pipelines.mixture_of_agents:env",
    "negotiation": "games.negotiation:env",
    "planner": "games.pipelines.planner:env",
    "proposer_solver": "games.pipelines.proposer_solver:env",
    "public_goods": "games.public_goods:env",
    "self_consistency": "games.pipelines.self_consistency:env",
    "signals": "games.signals:env",
    "simple_hanabi": "games.hanabi:simple",
    "taboo": "games.taboo:env",
    "tic_tac_toe": "games.tic_tac_toe:env",
    "treasure_hunt": "games.treasure_hunt:env",
    "workflow": "games.pipelines.workflow:env",
}
ADAPTERS = {
    "openspiel": "games.from_openspiel",
    "pettingzoo": "games.from_pettingzoo",
    "textarena": "games.from_textarena",
}
"""Prefix of a name to the module whose `env` makes the game that the rest of the name says."""
FORMS = {
    "openspiel:GAME": "Any other game of OpenSpiel, as in openspiel:goofspiel(num_cards=4,imp_info=True).",
    "pettingzoo:MODULE": "An environment of PettingZoo, as in pettingzoo:pettingzoo.classic.tictactoe_v3.",
    "textarena:ID": "An environment of TextArena, as in textarena:KuhnPoker-v0.",
    "package.module:env": "A game of your own: what the function returns, as in mypackage.mygame:env.",
}
"""Names that `make` understands besides `names()`, and what they mean."""

Environment: TypeAlias = AECEnv | ParallelEnv


def names() -> tuple[str, ...]:
    """The games that `make` knows by name, sorted."""
    return tuple(_GAMES)


def make(name: str, **settings: Any) -> AECEnv:
    """A new environment of the game, not yet reset.

    `name` is one of `names()` or has one of the `FORMS`; of `package.module:function`, `function(**settings)` returns
    the environment. A `ParallelEnv` comes as a game in turns (`games.turns`).

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


def factory(name: str) -> Callable[..., Environment]:
    """The function that makes the game; its keyword arguments are the settings.

    Raises:
        ValueError: the name is unknown, or the module cannot be imported or has no such function.
    """
    module, colon, function = _GAMES.get(name, name).partition(":")
    if colon and module in ADAPTERS:
        return partial(load(name, ADAPTERS[module], "env"), function)
    if not colon:
        near = difflib.get_close_matches(name, _GAMES, n=1, cutoff=0.0)[0]
        allowed = ", ".join((*_GAMES, *FORMS))
        raise ValueError(f"unknown game {name!r}; nearest valid name: {near}; allowed: {allowed}")
    return load(name, module, function)


def _refuse_unknown(name: str, make_it: Callable[..., Environment], settings: dict[str, Any]) -> None:
    signature = inspect.signature(make_it)
    try:
        signature.bind(**settings)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ValueError(f"game {name}: {error}; its settings: {known}") from error
