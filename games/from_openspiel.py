"""Any other game of OpenSpiel, by its name there: `openspiel:goofspiel(num_cards=4,imp_info=True)`."""

import difflib
import math
import re
from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
import pyspiel

from games.openspiel import OpenSpielEnv, draw_chance
from games.settings import OnIllegal

_COLORING = re.compile("\x1b\\[[0-9;]*m")
_KIND = pyspiel.GameType
_DEALS = 20
_MISSING = "OpenSpiel has no text of what a seat sees in it"


def env(game: str, *, opening: int = 0, on_illegal: OnIllegal = "forfeit", scale: float | None = None) -> OpenSpielEnv:
    """The game that OpenSpiel loads by this text, with its parameters, if any, in parentheses.

    Simultaneous moves are made in turn, each unseen by the others until all are made. `opening`, `scale`: see
    `OpenSpielEnv`.

    Raises:
        ValueError: OpenSpiel does not know the game (the nearest name is given) or its parameters, or the game
            cannot be played as text in turn (the reason is given); or a setting is out of range.
    """
    return AnyOpenSpiel(game, opening=opening, on_illegal=on_illegal, scale=scale)


class AnyOpenSpiel(OpenSpielEnv):
    """Utility: OpenSpiel's. What is seen and how actions are called is OpenSpiel's too, cleaned up."""

    separator = "; "
    max_observation = 1_000_000

    def __init__(self, game: str, *, opening: int, on_illegal: OnIllegal, scale: float | None) -> None:
        loaded = _loaded(game)
        kind = loaded.get_type()
        self._observes = bool(kind.provides_observation_string)
        super().__init__(
            loaded,
            name=f"openspiel:{game}",
            rules=f"{kind.long_name}, a game for {loaded.num_players()} player(s), as in OpenSpiel: {game}.",
            action_names=tuple(map(str, range(loaded.num_distinct_actions()))),
            on_illegal=on_illegal,
            opening=opening,
            scale=scale,
        )

    def see(self, state: Any, player: int) -> str:
        text = state.observation_string(player) if self._observes else state.information_state_string(player)
        return f"You see:\n{_COLORING.sub('', text).rstrip()}\n"

    def action_text(self, state: Any, action: int) -> str:
        return _clean(state.action_to_string(action)) or f"action {action}"

    def legal(self, state: Any, player: int) -> dict[str, int]:
        """Text to OpenSpiel id of the player's legal actions; a text that OpenSpiel uses twice has the id behind it."""
        if state.current_player() != player:
            return {}
        texts = {action: self.action_text(state, action) for action in state.legal_actions()}
        times = Counter(texts.values())
        return {text if times[text] == 1 else f"{text} (action {i})": i for i, text in texts.items()}


def _clean(text: str) -> str:
    """The text in one line, without what separates legal actions from each other."""
    return " ".join(_COLORING.sub("", text).replace(";", ",").split()).strip(", ")


@lru_cache(maxsize=64)
def _loaded(game: str) -> Any:
    """The game with its moves in turn; kept, since it never changes and every match asks for it anew."""
    name = game.partition("(")[0]
    known = pyspiel.registered_names()
    if name not in known:
        (near,) = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(f"game openspiel:{game}: OpenSpiel has no game {name!r}; nearest valid name: {near}")
    try:
        loaded = pyspiel.load_game(game)
        reason = _unfit(loaded)
        if reason is None and loaded.get_type().dynamics == _KIND.Dynamics.SIMULTANEOUS:
            loaded = pyspiel.convert_to_turn_based(loaded)
        reason = reason or _unplayable(loaded)
    except pyspiel.SpielError as error:
        raise ValueError(f"game openspiel:{game}: OpenSpiel refuses: {' '.join(str(error).split())}") from error
    if reason is not None:
        raise ValueError(f"game openspiel:{game}: cannot be played here: {reason}")
    return loaded


def _unfit(game: Any) -> str | None:
    """Why a game of this kind cannot be played as text in turn; None when it can."""
    kind = game.get_type()
    if kind.dynamics == _KIND.Dynamics.MEAN_FIELD:
        return "its player is the average of a crowd (a mean-field game), so that nobody sits in a seat"
    if kind.chance_mode == _KIND.ChanceMode.SAMPLED_STOCHASTIC:
        return "OpenSpiel draws its chance by itself, out of reach of the seed of reset()"
    if not (kind.provides_observation_string or kind.provides_information_state_string):
        return _MISSING
    if not all(map(math.isfinite, (game.min_utility(), game.max_utility()))):
        return "its utilities have no bounds, so that no price of an illegal move is high enough"
    return None


def _unplayable(game: Any) -> str | None:
    """Why no decision of the game can be asked for; None when one can."""
    rng = np.random.default_rng(0)
    for _ in range(_DEALS):
        state = game.new_initial_state()
        draw_chance(state, rng)
        if not state.is_terminal():
            state.legal_actions()  # raises in games whose actions are no numbers
            return None
    return "it ends before anybody decides anything"
