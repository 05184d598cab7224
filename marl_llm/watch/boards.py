"""How a game is shown, and the boards of an episode, which is played again for that from its seed and its actions.

Games may be anybody's: what one of them raises here is no reason for a page not to show the rest.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from marl_llm.errors import GameError
from marl_llm.play import Table, make_game
from marl_llm.policies.base import Reply
from marl_llm.types import Episode, Match, Turn

FORMS = ("list", "columns", "board")
"""How an episode may be shown; the first is for all that say nothing."""
PlainBoard = dict[str, Any]
"""`{"rows": [[{"text": "X", "action": None}]]}`: see `games.base.Board`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boards:
    """The boards of an episode."""

    before: tuple[PlainBoard | None, ...]
    """Before each turn, as its agent saw it; None: there is none."""
    final: PlainBoard | None
    """At the end, as the agent of the latest turn sees it; None: there is none."""


def boards(episode: Episode) -> Boards:
    """The boards of the episode: none of a game that has no board, or from where it does not come out as it did."""
    match, turns = episode.match, episode.turns
    before: list[PlainBoard | None] = [None] * len(turns)
    final = None
    try:
        if turns and form(match.game, match.settings) == "board":
            final = _replayed(match, turns, before)
    except Exception:  # whatever a game raises, the episode can be read without its boards
        final = None
    return Boards(before=tuple(before), final=final)


def none(episode: Episode) -> Boards:
    """That there are none."""
    return Boards(before=(None,) * len(episode.turns), final=None)


def _replayed(match: Match, turns: tuple[Turn, ...], before: list[PlainBoard | None]) -> PlainBoard | None:
    """Fill in the boards before the turns, and return the final one.

    Raises:
        GameError: the game does not come out as it did.
    """
    table = Table(replace(match, branch=None), len(turns) + 1)
    for index, turn in enumerate(turns):
        view = table.asked.get(turn.agent)
        if view is None or view.observation != turn.observation:
            raise GameError(f"match {match.id}: turn {index} is another one when it is played again")
        before[index] = board(table.game, turn.agent)
        if turn.legal is None:
            break  # it was never put to the game
        table.take(turn.agent, turn.policy, Reply(text=turn.reply, action=turn.action))
    return board(table.game, turns[-1].agent)


def board(game: Any, agent: str) -> PlainBoard | None:
    """The board as the agent may see it now, of an environment without wrappers; None: there is none."""
    try:
        rows = game.board(agent)
        return None if rows is None else {"rows": [[_cell(cell) for cell in row] for row in rows]}
    except Exception:  # whatever a game raises, or makes of a board
        return None


def _cell(cell: Any) -> dict[str, str | None]:
    return {"text": str(cell.text), "action": None if cell.action is None else str(cell.action)}


def form(name: str, settings: Mapping[str, Any]) -> str:
    """How episodes of a game are shown, one of `FORMS`.

    Raises:
        ConfigError: see `marl_llm.play.make_game`.
    """
    told: str = about(name, settings)["form"]
    return told


def about(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a page needs to know of a game: `agents`, `roles`, `rules`, `form` (one of `FORMS`), and `talks`, whether
    the first to move may say anything.

    Raises:
        ConfigError: see `marl_llm.play.make_game`.
    """
    return dict(_about(name, json.dumps(dict(settings), sort_keys=True, default=dict)))


@lru_cache(maxsize=256)
def _about(name: str, settings: str) -> dict[str, Any]:
    env = make_game(name, json.loads(settings))
    game = env.unwrapped
    told = game.metadata
    known = told.get("form") in FORMS and (told["form"] != "board" or hasattr(game, "board"))
    return {
        "agents": list(game.possible_agents),
        "roles": list(told.get("roles", game.possible_agents)),
        "rules": str(told.get("rules", "")),
        "form": told["form"] if known else FORMS[0],
        "talks": _talks(name, json.loads(settings)),
    }


def _talks(name: str, settings: Mapping[str, Any]) -> bool:
    try:
        match = Match(id="about", game=name, settings=settings, seed=0, group="about", seats={})
        return any(view.legal_actions is None for view in Table(match, 1).views.values())
    except Exception:  # a game that cannot be begun is somebody else's to report
        return False
