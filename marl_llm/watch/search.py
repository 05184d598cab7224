"""Which episodes of an index a person asks for."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from marl_llm.config.require import require
from marl_llm.watch.index import KINDS, OUTCOMES, Index

Order = Literal["newest", "oldest", "best", "worst", "longest"]
Outcome = Literal["won", "drew", "lost", "illegal", "truncated", "fault", "right", "wrong"]
Kind = Literal["logged", "branch", "played"]
MOST = 200
"""Rows of one page."""

_ORDERS = {
    "newest": "e.step DESC, e.id DESC",
    "oldest": "e.step, e.id",
    "best": "{value} DESC, e.id DESC",
    "worst": "{value}, e.id DESC",
    "longest": "e.turns DESC, e.id DESC",
}
_OUTCOMES = {
    "illegal": "e.illegal > 0",
    "right": "e.correct >= 1",
    "wrong": "e.correct < 1",
    **{status: f"e.status = (SELECT id FROM names WHERE name = '{status}')" for status in ("truncated", "fault")},
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Search:
    """What is asked for; empty: all."""

    game: str = ""
    """As the run calls it."""
    role: str = ""
    """Somebody had it."""
    policy: str = ""
    """It decided, in that role if one is given."""
    outcome: str = ""
    """One of `Outcome`; won, drew and lost are about that role and policy, else about anybody."""
    first: int | None = None
    """Earliest step."""
    last: int | None = None
    """Latest step."""
    steps: Sequence[int] | None = None
    """Only these steps."""
    text: str = ""
    """Whole words that were seen or said in one turn, one after the other; letters and digits alone count."""
    kind: str = ""
    """One of `Kind`."""
    group: str = ""
    """Group of the match."""
    original: str = ""
    """Episode that they fork from."""
    order: str = "newest"
    """One of `Order`; best and worst go by the return of that role and policy, else by anybody's."""
    offset: int = 0
    """How many are passed over."""
    limit: int = 50
    """How many are given at most."""

    def __post_init__(self) -> None:
        """Raises `ConfigError` where a value is not allowed."""
        for name, value, allowed in (
            ("outcome", self.outcome, ("", *get_args(Outcome))),
            ("kind", self.kind, ("", *get_args(Kind))),
            ("order", self.order, get_args(Order)),
        ):
            require(value in allowed, name, value, f"one of {[one for one in allowed if one]}")
        require(0 <= self.limit <= MOST, "limit", self.limit, f"between 0 and {MOST}")
        require(self.offset >= 0, "offset", self.offset, "0 or more")


def search(index: Index, wanted: Search) -> dict[str, Any]:
    """`total`, how many there are, and `rows`, those of one page, as plain values."""
    conditions, values = _conditions(wanted)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order, ordering = _order(wanted)
    ((total,),) = index.rows(f"SELECT count(*) FROM episodes e {where}", *values)
    found = index.rows(
        "SELECT e.id, e.match, e.step, e.kind, game.name, e.grp, status.name, e.turns, e.illegal, e.correct, e.preview "
        f"FROM (SELECT * FROM episodes e {where} ORDER BY {order} LIMIT ? OFFSET ?) e "
        f"JOIN names game ON game.id = e.game JOIN names status ON status.id = e.status ORDER BY {order}",
        *values,
        *ordering,
        wanted.limit,
        wanted.offset,
        *ordering,
    )
    seats = _seats(index, [row[0] for row in found])
    names = ("id", "step", "kind", "game", "group", "status", "turns", "illegal", "correct", "preview")
    rows = [dict(zip(names, row[1:], strict=True)) | {"seats": seats.get(row[0], [])} for row in found]
    return {"total": total, "rows": [row | {"kind": KINDS[row["kind"]]} for row in rows]}


def _seats(index: Index, episodes: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for episode, agent, role, policy, value, outcome in index.rows(
        "SELECT s.episode, agent.name, role.name, policy.name, s.return, s.outcome FROM seats s "
        "JOIN names agent ON agent.id = s.agent JOIN names role ON role.id = s.role "
        "JOIN names policy ON policy.id = s.policy "
        "WHERE s.episode IN (SELECT value FROM json_each(?)) ORDER BY agent.name",
        json.dumps(episodes),
    ):
        told = {"agent": agent, "role": role, "policy": policy, "return": value}
        found.setdefault(episode, []).append(told | {"outcome": None if outcome is None else OUTCOMES[outcome]})
    return found


def _conditions(wanted: Search) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for condition, value in _plain(wanted):
        conditions.append(condition)
        values += value
    own = wanted.outcome in OUTCOMES
    seat = [(name, value) for name, value in (("role", wanted.role), ("policy", wanted.policy)) if value]
    if seat or own:
        parts = [f"s.{name} = (SELECT id FROM names WHERE name = ?)" for name, _ in seat]
        parts += ["s.outcome = ?"] if own else []
        conditions.append(f"e.id IN (SELECT s.episode FROM seats s WHERE {' AND '.join(parts)})")
        values += [value for _, value in seat] + ([OUTCOMES.index(wanted.outcome)] if own else [])
    return conditions, values


def _plain(wanted: Search) -> Iterator[tuple[str, list[Any]]]:
    """Conditions on episodes alone, each with what it is filled with."""
    if wanted.game:
        yield "e.game = (SELECT id FROM names WHERE name = ?)", [wanted.game]
    if wanted.kind:
        yield "e.kind = ?", [KINDS.index(wanted.kind)]
    if wanted.group:
        yield "e.grp = ?", [wanted.group]
    if wanted.original:
        yield "e.original = ?", [wanted.original]
    if wanted.first is not None:
        yield "e.step >= ?", [wanted.first]
    if wanted.last is not None:
        yield "e.step <= ?", [wanted.last]
    if wanted.steps is not None:
        yield "e.step IN (SELECT value FROM json_each(?))", [json.dumps(list(wanted.steps))]
    if wanted.outcome in _OUTCOMES:
        yield _OUTCOMES[wanted.outcome], []
    words = re.findall(r"\w+", wanted.text)
    if words:
        phrase = f'"{" ".join(words)}"'
        within = "SELECT episode FROM said WHERE text IN (SELECT rowid FROM texts WHERE texts MATCH ?)"
        yield f"e.id IN ({within})", [phrase]
    elif wanted.text.strip():
        yield "0", []  # nothing but punctuation, of which the index knows nothing


def _order(wanted: Search) -> tuple[str, list[Any]]:
    """How rows are ordered, and what the clause is filled with."""
    seat = [(name, value) for name, value in (("role", wanted.role), ("policy", wanted.policy)) if value]
    if not seat or wanted.order not in ("best", "worst"):
        return _ORDERS[wanted.order].format(value=f"e.{wanted.order}"), []
    parts = " AND ".join(f"s.{name} = (SELECT id FROM names WHERE name = ?)" for name, _ in seat)
    value = f"(SELECT max(s.return) FROM seats s WHERE s.episode = e.id AND {parts})"
    return _ORDERS[wanted.order].format(value=value), [value for _, value in seat]
