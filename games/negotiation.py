"""Negotiation: two parties divide a pool of items that each values differently and in private."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from operator import mul
from random import Random
from typing import Any, Literal

from games.base import ANSWER, Legal, Parts
from games.settings import OnIllegal, check_whole, refused
from games.text_game import TextGame

NAME = "negotiation"
SEATS = ("player_0", "player_1")
ITEMS = ("book", "hat", "ball", "pen", "cup")
MAX_MESSAGE = 200
"""Characters of a message that the other party gets to read."""
SHOWN = {True: 6, False: 2}
"""Latest moves that a party sees, with talk and without."""

Counts = tuple[int, ...]


def env(
    *,
    talk: bool = True,
    rounds: int = 10,
    types: int = 3,
    min_items: int = 5,
    max_items: int = 7,
    total: int = 10,
    on_illegal: OnIllegal = "forfeit",
) -> "Negotiation":
    """Division of a pool of `types` (2 to 5) kinds of items, `min_items` to `max_items` in all.

    The pool is worth `total` to each party; what an item is worth to whom is drawn from the seed. Each kind is worth
    something to somebody, and some kind to both. `rounds`: turns of each party. `talk: false` is the compact form: no
    messages, and a list of legal actions, in which an offer is numbers only.

    Raises:
        ValueError: a setting is out of range, or there is no such pool.
    """
    check_whole(NAME, rounds=rounds, min_items=min_items, max_items=max_items, total=total)
    if not 2 <= types <= len(ITEMS):
        raise refused(NAME, "types", types, f"between 2 and {len(ITEMS)}")
    if not _pools(types, min_items, max_items, total):
        raise refused(NAME, "total", total, f"possible with {types} types and {min_items} to {max_items} items")
    return Negotiation(
        talk=talk,
        rounds=rounds,
        pool=(types, min_items, max_items, total),
        on_illegal=on_illegal,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """What a party did in a turn."""

    kind: Literal["say", "propose", "accept", "walk away"]
    """What it was."""
    text: str = ""
    """What was said."""
    items: Counts = ()
    """What the party wants for itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Talks:
    """How far a negotiation has come."""

    counts: Counts
    """Items in the pool, by kind."""
    values: tuple[Counts, Counts]
    """What an item of each kind is worth to each party."""
    moves: tuple[Move, ...] = ()
    """All that was done, by turn; the parties take turns."""

    @property
    def offer(self) -> int | None:
        """The turn in which the standing offer was made: the latest one."""
        return next((turn for turn in reversed(range(len(self.moves))) if self.moves[turn].items), None)

    @property
    def deal(self) -> tuple[Counts, Counts] | None:
        """What each party got; None without a deal."""
        if not self.moves or self.moves[-1].kind != "accept" or self.offer is None:
            return None
        items = self.moves[self.offer].items
        rest = tuple(count - item for count, item in zip(self.counts, items))
        return (items, rest) if self.offer % 2 == 0 else (rest, items)


class Negotiation(TextGame[Talks]):
    """Utility: what one's share is worth to oneself; 0 without a deal (deal or no deal, arXiv 1706.05125).

    `hidden` tells the joint value that was reached, the greatest one there was, and the share of it that was reached.
    """

    def __init__(self, *, talk: bool, rounds: int, pool: tuple[int, int, int, int], on_illegal: OnIllegal) -> None:
        self._talk, self._turns, self._pool = talk, 2 * rounds, pool
        kinds = ", ".join(plural(kind) for kind in ITEMS[: pool[0]])
        forms = "'say: MESSAGE', 'propose: 1 book, 2 hats', 'accept' or 'walk away'"
        super().__init__(
            name=NAME,
            rules=(
                f"Negotiation. Two parties divide {kinds}, worth {pool[3]} points to each, differently and in private. "
                "In turn, propose what you want for yourself (the other gets the rest), accept the other's offer if it "
                "is the latest, or walk away. You get what your items are worth to you; without a deal after "
                f"{rounds} turns each, nothing."
            ),
            answer=f"Answer with {forms}" if talk else f"{ANSWER}; numbers count {kinds}",
            default="walks away",
            seats={agent: agent for agent in SEATS},
            utility_range=(0.0, float(pool[3])),
            on_illegal=on_illegal,
        )

    def deal(self, draws: Random) -> Talks:
        counts, vectors = draws.choice(_pools(*self._pool))
        while True:
            values = draws.choice(vectors), draws.choice(vectors)
            if _interesting(*values):
                return Talks(counts=counts, values=values)

    def legal(self, agent: str) -> Legal:
        if len(self.position.moves) % 2 != SEATS.index(agent):
            return ()
        if self._talk:
            return None
        accept = ("accept",) if self._may_accept() else ()
        return ("walk away", *accept, *_offers(self.position.counts))

    def read(self, agent: str, text: str) -> str | None:
        if not self._talk:
            return super().read(agent, text)
        action = " ".join(text.split())
        return action if self._move(action) else None

    def examples(self, agent: str) -> tuple[str, ...]:
        accept = ("accept",) if self._may_accept() else ()
        return ("walk away", *accept, "say: what do you want most?", *_offers(self.position.counts, words=True))

    def offer(self, agent: str) -> str:
        if self._talk:
            return ""
        accept = "accept, " if self._may_accept() else ""
        limits = " ".join(f"0-{count}" for count in self.position.counts)
        return f"Legal actions: walk away, {accept}propose {limits}"

    def see(self, agent: str) -> str:
        position, me = self.position, SEATS.index(agent)
        worth = ", ".join(f"{kind} {value}" for kind, value in zip(ITEMS, position.values[me]))
        turns = range(len(position.moves))[-SHOWN[self._talk] :]
        moves = "; ".join(f"{'You' if turn % 2 == me else 'Other'}: {self._told(turn)}" for turn in turns)
        return (
            f"Pool: {_named(position.counts)}. Worth to you: {worth}. "
            f"Turns left: {self._turns - len(position.moves)}. Latest moves: {moves or 'none'}."
        )

    def state_key(self, agent: str) -> str:
        position = self.position
        told = [self._told(turn) for turn in range(len(position.moves))]
        return json.dumps([NAME, agent, position.counts, position.values[SEATS.index(agent)], told])

    def after(self, actions: Mapping[str, str]) -> tuple[Talks, Parts]:
        (action,) = actions.values()
        move = self._move(action)
        assert move is not None
        position = replace(self.position, moves=(*self.position.moves, move))
        if position.deal is None:
            return position, {}
        worth = _worth(position.deal, position.values)
        return position, {agent: {"outcome": float(value)} for agent, value in zip(SEATS, worth)}

    def over(self, agent: str) -> bool:
        moves = self.position.moves
        return len(moves) == self._turns or (bool(moves) and moves[-1].kind in ("accept", "walk away"))

    @property
    def hidden(self) -> dict[str, Any]:
        """Values by party, `joint_value` reached (0 without a deal), `max_joint_value` of any division, their ratio."""
        position = self.position
        best = sum(count * max(pair) for count, pair in zip(position.counts, zip(*position.values)))
        reached = sum(_worth(position.deal, position.values)) if position.deal else 0
        return {
            "counts": list(position.counts),
            "values": {agent: list(values) for agent, values in zip(SEATS, position.values)},
            "deal": position.deal is not None,
            "joint_value": reached,
            "max_joint_value": best,
            "joint_share": reached / best,
        }

    def _may_accept(self) -> bool:
        offer, turn = self.position.offer, len(self.position.moves)
        return offer is not None and (turn - offer) % 2 == 1

    def _move(self, action: str) -> Move | None:
        """The move that a text means in the position; None: none that is legal."""
        lowered = action.casefold()
        if lowered == "walk away":
            return Move(kind="walk away")
        if lowered == "accept":
            return Move(kind="accept") if self._may_accept() else None
        if not self._talk:
            return Move(kind="propose", items=_numbers(action))
        kind, _, rest = (part.strip() for part in action.partition(":"))
        if kind.casefold() == "say" and rest:
            return Move(kind="say", text=rest[:MAX_MESSAGE])
        items = _bundle(rest, self.position.counts) if kind.casefold() == "propose" else None
        return None if items is None else Move(kind="propose", items=items)

    def _told(self, turn: int) -> str:
        move = self.position.moves[turn]
        if move.kind == "say":
            return f"{move.kind}: {move.text}"
        if move.kind != "propose":
            return move.kind
        return f"propose: {_named(move.items)}" if self._talk else _offer(move.items)


def worths(state_key: str | None, actions: Sequence[str]) -> dict[str, float]:
    """What the party whose state key it is gets if an action makes the deal, as a share of the pool's worth, 0 to 1.

    That is the worth of the items that it proposes to take, or of those that it accepts; any other action has 0.

    Raises:
        ValueError: it is no state key of this game.
    """
    try:
        name, _, counts, values, told = json.loads(state_key or "")
    except (ValueError, TypeError):
        name = None
    if name != NAME:
        raise ValueError(f"{state_key!r} is not a state key of {NAME}")
    offers = [bundle for move in told if (bundle := _proposed(move, counts)) is not None]
    taken = {action: _proposed(action, counts) for action in actions}
    if offers:
        taken["accept"] = tuple(count - item for count, item in zip(counts, offers[-1]))
    pool = sum(map(mul, counts, values))
    return {action: sum(map(mul, taken[action] or (), values)) / pool for action in actions}


def plural(kind: str) -> str:
    """The name of several items."""
    return f"{kind}s"


@lru_cache(maxsize=1024)
def _named(items: Counts) -> str:
    """A bundle in words: `1 book, 2 hats`."""
    named = [f"{count} {kind if count == 1 else plural(kind)}" for count, kind in zip(items, ITEMS) if count]
    return ", ".join(named) or "nothing"


def _worth(shares: tuple[Counts, Counts], values: tuple[Counts, Counts]) -> list[int]:
    return [sum(count * value for count, value in zip(share, own)) for share, own in zip(shares, values)]


def _offer(items: Counts) -> str:
    return f"propose {' '.join(str(count) for count in items)}"


def _numbers(offer: str) -> Counts:
    return tuple(int(number) for number in offer.split()[1:])


def _proposed(move: str, counts: Counts) -> Counts | None:
    """The bundle of a proposal in words or numbers; None: it is something else."""
    kind, colon, bundle = move.partition(":")
    if colon:
        return _bundle(bundle.strip(), counts) if kind.casefold() == "propose" else None
    return _numbers(move) if move.startswith("propose ") else None


@lru_cache(maxsize=512)
def _offers(counts: Counts, *, words: bool = False) -> tuple[str, ...]:
    """Every bundle that one party may want, in words or in the compact form."""
    bundles = product(*(range(count + 1) for count in counts))
    return tuple(f"propose: {_named(items)}" if words else _offer(items) for items in bundles)


def _bundle(text: str, counts: Counts) -> Counts | None:
    """The items of `1 book, 2 hats`; None if it is something else, or more than there is."""
    items = [0] * len(counts)
    if text.casefold() == "nothing":
        return tuple(items)
    for part in re.split(r"\s*,\s*(?:and\s+)?|\s+and\s+", text.casefold()):
        named = re.fullmatch(r"([0-9]{1,3}) ([a-z]+)", part)
        kinds = [kind for kind in range(len(counts)) if named and named[2] in (ITEMS[kind], plural(ITEMS[kind]))]
        if named is None or not kinds or items[kinds[0]]:
            return None
        items[kinds[0]] = int(named[1])
    return tuple(items) if all(item <= count for item, count in zip(items, counts)) else None


def _interesting(one: Counts, other: Counts) -> bool:
    """Whether each kind is worth something to somebody, and some kind to both."""
    return all(a or b for a, b in zip(one, other)) and any(a and b for a, b in zip(one, other))


@lru_cache(maxsize=16)
def _pools(types: int, min_items: int, max_items: int, total: int) -> list[tuple[Counts, list[Counts]]]:
    """Pools in which some pair of values is interesting, each with all values that make it worth `total`."""
    pools = []
    for counts in product(range(1, max_items + 1), repeat=types):
        if min_items <= sum(counts) <= max_items:
            vectors = list(_values(counts, total))
            if any(_interesting(one, other) for one in vectors for other in vectors):
                pools.append((counts, vectors))
    return pools


def _values(counts: Counts, total: int) -> list[Counts]:
    """All whole values, 0 included, of the kinds that make these counts worth `total`."""
    if not counts:
        return [()] if total == 0 else []
    first, *rest = counts
    return [
        (value, *others)
        for value in range(total // first + 1)
        for others in _values(tuple(rest), total - first * value)
    ]
