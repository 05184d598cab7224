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
    "longest": "(SELECT turns FROM courses WHERE id = e.course) DESC, e.id DESC",
}
_NAMED = "(SELECT id FROM names WHERE name = ?)"


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
    conditions = _conditions(wanted)
    where = f"WHERE {' AND '.join(text for text, _ in conditions)}" if conditions else ""
    values = [value for _, filled in conditions for value in filled]
    order, ordering = _order(wanted)
    ((total,),) = index.rows(f"SELECT count(*) FROM episodes e {where}", *values)
    page = f"SELECT e.id FROM episodes e {where} ORDER BY {order} LIMIT ? OFFSET ?"
    found = index.rows(
        "SELECT e.course, e.match, e.step, e.kind, game.name, e.grp, status.name, c.turns, c.illegal, e.correct, "
        f"c.preview FROM ({page}) page JOIN episodes e ON e.id = page.id JOIN courses c ON c.id = e.course "
        f"JOIN names game ON game.id = c.game JOIN names status ON status.id = c.status ORDER BY {order}",
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


def _seats(index: Index, courses: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Course to who sat where, and what they got."""
    found: dict[int, list[dict[str, Any]]] = {}
    for course, agent, role, policy, value, outcome in index.rows(
        "SELECT s.course, agent.name, role.name, policy.name, s.return, s.outcome FROM seats s "
        "JOIN names agent ON agent.id = s.agent JOIN names role ON role.id = s.role "
        "JOIN names policy ON policy.id = s.policy "
        "WHERE s.course IN (SELECT value FROM json_each(?)) ORDER BY agent.name",
        json.dumps(courses),
    ):
        told = {"agent": agent, "role": role, "policy": policy, "return": value}
        found.setdefault(course, []).append(told | {"outcome": None if outcome is None else OUTCOMES[outcome]})
    return found


Condition = tuple[str, list[Any]]
"""A condition in SQL, and what it is filled with."""


def _conditions(wanted: Search) -> list[Condition]:
    """Those on episodes; all that are on how games went are one."""
    conditions = list(_of_episodes(wanted))
    courses = list(_of_courses(wanted))
    if courses:
        went = " AND ".join(text for text, _ in courses)
        values = [value for _, filled in courses for value in filled]
        conditions.append((f"e.course IN (SELECT c.id FROM courses c WHERE {went})", values))
    return conditions


def _of_episodes(wanted: Search) -> Iterator[Condition]:
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
    if wanted.outcome in ("right", "wrong"):
        yield f"e.correct {'>=' if wanted.outcome == 'right' else '<'} 1", []


def _of_courses(wanted: Search) -> Iterator[Condition]:
    if wanted.game:
        yield f"c.game = {_NAMED}", [wanted.game]
    if wanted.outcome == "illegal":
        yield "c.illegal > 0", []
    if wanted.outcome in ("truncated", "fault"):
        yield f"c.status = {_NAMED}", [wanted.outcome]
    own = wanted.outcome in OUTCOMES
    seat, values = _seat(wanted)
    if own:
        seat, values = [*seat, "s.outcome = ?"], [*values, OUTCOMES.index(wanted.outcome)]
    if seat:
        yield f"c.id IN (SELECT s.course FROM seats s WHERE {' AND '.join(seat)})", values
    words = re.findall(r"\w+", wanted.text)
    if words:
        phrase = f'"{" ".join(words)}"'
        yield "c.id IN (SELECT course FROM said WHERE text IN (SELECT rowid FROM texts WHERE texts MATCH ?))", [phrase]
    elif wanted.text.strip():
        yield "0", []  # nothing but punctuation, of which the index knows nothing


def _seat(wanted: Search) -> tuple[list[str], list[Any]]:
    """Conditions on the seat that is asked for, and what they are filled with."""
    asked = [(name, value) for name, value in (("role", wanted.role), ("policy", wanted.policy)) if value]
    return [f"s.{name} = {_NAMED}" for name, _ in asked], [value for _, value in asked]


def _order(wanted: Search) -> Condition:
    """How rows are ordered, and what the clause is filled with."""
    seat, values = _seat(wanted)
    if not seat or wanted.order not in ("best", "worst"):
        value = f"(SELECT {wanted.order} FROM courses WHERE id = e.course)"
        return _ORDERS[wanted.order].format(value=value), []
    value = f"(SELECT max(s.return) FROM seats s WHERE s.course = e.course AND {' AND '.join(seat)})"
    return _ORDERS[wanted.order].format(value=value), values
