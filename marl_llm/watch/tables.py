"""Games that a person plays, each at a table that waits for the person's next move."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marl_llm.config import GameConfig
from marl_llm.config.require import require
from marl_llm.errors import ConfigError, RunError
from marl_llm.matchmaking import trained_policy
from marl_llm.play import Hall, Table, agents_of
from marl_llm.policies.base import Policy, Reply
from marl_llm.policies.human import AwaitedPolicy
from marl_llm.run import keep_whatif, whatif_ids
from marl_llm.types import Episode, Match
from marl_llm.watch.boards import board
from marl_llm.watch.seats import PERSON, Seats
from marl_llm.watch.whatif import Json, Tell, dated, spoken, with_asked

MOST = 32
"""Tables that are kept; the oldest goes when another game begins."""
SHOWN = 80
"""Characters of a reply in what is said of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """What a person wants to play."""

    game: str
    """What the run calls it, or any name that `games.make` takes."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the game, where they differ from the run's."""
    seat: str | None = None
    """The person's; None: the first."""
    against: str | Mapping[str, str] | None = None
    """Who has all other seats, or each of them; None: the policy that the run trains."""
    seed: int = 0
    """Fixes the deal."""
    step: int | None = None
    """Checkpoint of the run's policies; None: the latest."""


class Tables:
    """All games that people play."""

    def __init__(self, seats: Seats, *, first: int = 1) -> None:
        """`first`: number of the first table, so that none is called as one of a process before."""
        self._seats = seats
        self._next = first
        self._tables: OrderedDict[str, PlayedTable] = OrderedDict()

    def begin(self, wish: Game, tell: Tell) -> Json:
        """Sit the person down, and play until it is the person's turn, or the game is over.

        Raises:
            ConfigError, RunError, ModelError: there is no such game, seat, player or checkpoint.
            GameError: the game raised.
        """
        table = PlayedTable(self._seats, wish, tell)
        _go_on(table, tell)
        name = f"t{self._next}"
        self._next += 1
        while len(self._tables) >= MOST:
            self._tables.popitem(last=False)[1].leave()
        self._tables[name] = table
        return {"table": name, **table.told()}

    def move(self, name: str, reply: str, tell: Tell) -> Json:
        """Make the person's move, and play until it is the person's turn again, or the game is over.

        What is no legal action changes nothing: `refused` says why.

        Raises:
            RunError: there is no such table.
            GameError, RunError: the game raised, or it could not be kept; the table is gone.
        """
        if name not in self._tables:
            raise RunError(
                f"table {name} is gone: the process that played there has ended, or {MOST} other games were begun "
                "since; begin another game"
            )
        table = self._tables.pop(name)
        refused = table.refusal(reply)
        if not refused:
            table.answer(reply)
            _go_on(table, tell)
        self._tables[name] = table
        return {"table": name, **table.told(refused)}


def _go_on(table: "PlayedTable", tell: Tell) -> None:
    """Play on; where that fails, nobody stays there."""
    try:
        table.go_on(tell)
    except BaseException:
        table.leave()
        raise


class PlayedTable:
    """One game that a person plays."""

    def __init__(self, seats: Seats, wish: Game, tell: Tell) -> None:
        """See `Tables.begin`."""
        self._seats = seats
        self._match, self._mine = _match(seats, wish)
        self._step = seats.before(None) if wish.step is None else seats.require(wish.step)
        others = set(self._match.seats.values()) - {PERSON}
        game = GameConfig(name=self._match.game, settings=dict(self._match.settings))
        self._places = seats.take(others, self._step, game, lambda text: tell(text, 0, 1))
        self._person = AwaitedPolicy()
        policies: dict[str, Policy] = {**self._places, PERSON: self._person}
        self._hall = Hall(policies, max_turns=seats.config.play.max_turns)
        self._hall.begin([self._match])
        self._table: Table | None = None
        self._episode: Episode | None = None

    def go_on(self, tell: Tell) -> None:
        """Play until it is the person's turn, or the game is over; then it is kept."""
        tell("playing", 0, 1)
        while self._episode is None and self._person.asked is None:
            for episode in self._hall.poll():
                self.leave()
                asked = f"a person played {self._mine} (policies of step {self._step})"
                told = with_asked(dated(episode, self._seats, self._step), asked)
                (self._episode,) = keep_whatif(self._seats.path, None, [told])
        if self._person.asked is not None:
            self._table = self._hall.table(self._match.id)

    def refusal(self, reply: str) -> str:
        """Why the person cannot make this move; empty: it is possible."""
        view = self._person.asked
        if view is None:
            return "the game is over"
        action = spoken(reply, view.legal_actions, self._seats.config.play)
        if action is not None and (view.legal_actions is not None or self._accepted(action)):
            return ""
        if not reply.strip():
            return "nothing was said"
        allowed = view.examples if view.legal_actions is None else view.legal_actions
        shown = f"{reply[:SHOWN]}{'...' if len(reply) > SHOWN else ''}"
        return f"{shown!r} is not possible here; possible is: {_listed(allowed)}"

    def _accepted(self, action: str) -> bool:
        """Whether an action is legal where actions are no list, as far as the game tells."""
        assert self._table is not None, "the person was asked"
        accepts = getattr(getattr(self._table.game, "parallel", None), "accepts", None)
        try:
            return accepts is None or bool(accepts(self._mine, action))
        except Exception:  # whatever a game raises here: the move itself will tell
            return True

    def answer(self, reply: str) -> None:
        """Make the person's move, which is possible."""
        view = self._person.asked
        assert view is not None, "asked by `refusal`"
        self._person.answer(Reply(text=reply, action=spoken(reply, view.legal_actions, self._seats.config.play)))

    def leave(self) -> None:
        """Nobody plays here any more."""
        for place in self._places.values():
            place.leave()

    def told(self, refused: str = "") -> Json:
        """What the person may know."""
        view, episode = self._person.asked, self._episode
        turns = episode.turns if episode is not None else self._table.turns if self._table is not None else ()
        game = None if self._table is None else self._table.game
        return {
            "game": self._match.title,
            "seat": self._mine,
            "seats": dict(self._match.seats),
            "rules": "" if game is None else str(game.metadata.get("rules", "")),
            "observation": _seen(game, self._mine) if view is None else view.observation,
            "legal_actions": [] if view is None else view.legal_actions,
            "examples": [] if view is None else list(view.examples),
            "board": None if game is None else board(game, self._mine),
            "history": [
                {"observation": turn.observation, "reply": turn.reply} for turn in turns if turn.agent == self._mine
            ],
            "over": episode is not None,
            "status": "" if episode is None else episode.status,
            "note": "" if episode is None else episode.note,
            "returns": None if episode is None else dict(episode.returns),
            "episode": None if episode is None else episode.match.id,
            "refused": refused,
        }


def _seen(game: Any, agent: str) -> str:
    """What the agent sees when the game is over; empty where it sees nothing any more."""
    try:
        return str(game.observe(agent)["text"])
    except Exception:  # many games tell nothing to those who are out
        return ""


def _listed(actions: Sequence[str], most: int = 20) -> str:
    more = f" and {len(actions) - most} more" if len(actions) > most else ""
    return f"{', '.join(actions[:most])}{more}"


def _match(seats: Seats, wish: Game) -> tuple[Match, str]:
    """What is played, and the person's seat."""
    config = seats.config
    own = config.games.get(wish.game)
    name, settings = (wish.game, {}) if own is None else (own.name, own.settings)
    game = GameConfig(name=name, settings={**settings, **wish.settings})
    agents = agents_of(game)
    mine = agents[0] if wish.seat is None else wish.seat
    require(mine in agents, "seat", mine, f"one of {agents}")
    require(0 <= wish.seed < 2**63, "seed", wish.seed, "a whole number from 0 to 2 to the power of 63, less 1")
    label = wish.game if own is not None and len(config.trained_games) > 1 else ""
    match = Match(
        id=f"played/{len(whatif_ids(seats.path, None)) + 1}",
        game=game.name,
        settings=game.settings,
        seed=wish.seed,
        group=f"played/{label or game.name}/{wish.seed}",
        seats=_seated(agents, mine, trained_policy(config) if wish.against is None else wish.against),
        label=label,
    )
    return match, mine


def _seated(agents: Sequence[str], mine: str, against: str | Mapping[str, str]) -> dict[str, str]:
    others = [agent for agent in agents if agent != mine]
    chosen = dict.fromkeys(others, against) if isinstance(against, str) else dict(against)
    unknown, free = sorted(chosen.keys() - set(others)), [agent for agent in others if agent not in chosen]
    if PERSON in chosen.values():
        raise ConfigError(f"against: {PERSON!r} is not allowed; a person sits in one seat")
    if unknown or free:
        raise ConfigError(f"against: {chosen} is not allowed; it must be one player, or one for each of {others}")
    return {agent: PERSON if agent == mine else chosen[agent] for agent in agents}
