"""A store in one SQLite file, for any number of processes on one machine."""

import fcntl
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marl_llm.errors import RunError
from marl_llm.runtime.store import (
    DIGEST,
    Clock,
    Committed,
    Counts,
    Entry,
    Lease,
    check_fits,
    complete,
    contradiction,
    digest,
    entry_from_json,
    entry_to_json,
    full,
    in_order,
    lost,
    state,
)

PATIENCE_S = 60.0
"""How long one process waits for another's transaction, each of which takes milliseconds."""

TABLES = """
CREATE TABLE IF NOT EXISTS groups (
    queue TEXT, name TEXT, size INTEGER, version INTEGER, members INTEGER, state TEXT, lease INTEGER, digests BLOB,
    PRIMARY KEY (queue, name)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held ON groups (queue, version, name) WHERE state = 'held';
CREATE INDEX IF NOT EXISTS lent ON groups (lease) WHERE lease IS NOT NULL;
CREATE TABLE IF NOT EXISTS entries (
    queue TEXT, name TEXT, key TEXT, content TEXT, PRIMARY KEY (queue, name, key), UNIQUE (queue, key)
);
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT, expires REAL, acknowledged INTEGER DEFAULT 0
);
"""
"""A group is `held`, `acknowledged` or `dropped`; entries are there while it is held."""


class SQLiteStore:
    """A store that survives the end of any process, kill -9 included; of a loss of power, all but its last moments.

    An object belongs to the thread that made it.
    """

    def __init__(self, path: Path, *, max_groups: int, clock: Clock) -> None:
        """Open the file, or make it; `max_groups` per queue. `clock` must be the same in all processes.

        Raises:
            RunError: it is no store, or it could not be made.
        """
        self._path = path
        self._max_groups = max_groups
        self._clock = clock
        with self._explained():
            self._db = sqlite3.connect(path, timeout=PATIENCE_S, isolation_level=None)
            self._db.row_factory = sqlite3.Row
            try:
                with self._alone():
                    self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = NORMAL")
                self._db.executescript(f"BEGIN IMMEDIATE; {TABLES} COMMIT;")
            except (sqlite3.Error, OSError):
                self._db.close()
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Within the block nobody else opens the store: SQLite does not wait when two change the journal's mode."""
        with self._path.with_name(f"{self._path.name}.lock").open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def commit(self, entry: Entry) -> Committed:
        """See `Store.commit`."""
        content, place = entry_to_json(entry), (entry.queue, entry.group)
        mark = digest(content)
        with self._transaction() as db:
            row = db.execute("SELECT * FROM groups WHERE queue = ? AND name = ?", place).fetchone()
            if row is not None and row["state"] == "dropped":
                return "dropped"
            if row is not None and mark in _digests(row):
                return "known"
            key = (entry.queue, entry.key)
            same = db.execute("SELECT 1 FROM entries WHERE queue = ? AND key = ?", key).fetchone()
            if same is not None or (row is not None and row["state"] == "acknowledged"):
                raise contradiction(entry)
            if row is None:
                self._check_room(db, entry)
                check_fits(entry, size=entry.size, members=0)
                db.execute(
                    "INSERT INTO groups VALUES (?, ?, ?, ?, 1, 'held', NULL, ?)",
                    (*place, entry.size, entry.version, mark),
                )
            else:
                check_fits(entry, size=row["size"], members=row["members"])
                db.execute(
                    "UPDATE groups SET members = members + 1, version = min(version, ?), digests = ?"
                    " WHERE queue = ? AND name = ?",
                    (entry.version, row["digests"] + mark, *place),
                )
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", (*place, entry.key, content))
            return "stored"

    def withdraw(self, queue: str, group: str) -> None:
        """See `Store.withdraw`."""
        with self._transaction() as db:
            row = db.execute("SELECT * FROM groups WHERE queue = ? AND name = ?", (queue, group)).fetchone()
            if row is None:
                db.execute("INSERT INTO groups VALUES (?, ?, 0, 0, 0, 'dropped', NULL, x'')", (queue, group))
            elif row["state"] != "dropped":
                if row["members"] == row["size"]:
                    raise complete(queue, group)
                self._drop(db, queue, group)

    def lease(
        self, queue: str, *, groups: int | None, version: int, max_staleness: int | None, seconds: float
    ) -> Lease | None:
        """See `Store.lease`."""
        with self._transaction() as db:
            now = self._expire(db)
            free = "FROM groups WHERE queue = ? AND state = 'held' AND lease IS NULL"
            if max_staleness is not None:
                oldest = version - max_staleness
                for row in db.execute(f"SELECT name {free} AND version < ?", (queue, oldest)).fetchall():
                    self._drop(db, queue, row["name"])
            rows = db.execute(
                f"SELECT name {free} AND members = size ORDER BY version, name LIMIT ?",
                (queue, -1 if groups is None else groups),
            ).fetchall()
            if not rows or (groups is not None and len(rows) < groups):
                return None
            number = db.execute("INSERT INTO leases (queue, expires) VALUES (?, ?)", (queue, now + seconds)).lastrowid
            assert number is not None
            names = [(queue, row["name"]) for row in rows]
            db.executemany(f"UPDATE groups SET lease = {number} WHERE queue = ? AND name = ?", names)
            content = "SELECT content FROM entries WHERE queue = ? AND name = ?"
            found = [[entry_from_json(row["content"]) for row in db.execute(content, place)] for place in names]
            return Lease(id=number, queue=queue, groups=tuple(map(in_order, found)))

    def acknowledge(self, lease: Lease) -> None:
        """See `Store.acknowledge`."""
        with self._transaction() as db:
            if self._held(db, lease)["acknowledged"]:
                return
            names = "SELECT queue, name FROM groups WHERE lease = ?"
            db.execute(f"DELETE FROM entries WHERE (queue, name) IN ({names})", (lease.id,))
            db.execute("UPDATE groups SET state = 'acknowledged', lease = NULL WHERE lease = ?", (lease.id,))
            db.execute("UPDATE leases SET acknowledged = 1 WHERE id = ?", (lease.id,))

    def release(self, lease: Lease) -> None:
        """See `Store.release`."""
        with self._transaction() as db:
            if self._held(db, lease)["acknowledged"]:
                raise lost(lease)
            _free(db, lease.id)

    def counts(self, queue: str) -> Counts:
        """See `Store.counts`."""
        with self._transaction() as db:
            self._expire(db)
            rows = db.execute(
                "SELECT state, lease IS NOT NULL AS leased, members = size AS complete, COUNT(*) AS number"
                " FROM groups WHERE queue = ? GROUP BY 1, 2, 3",
                (queue,),
            ).fetchall()
        counts: dict[str, int] = {}
        for row in rows:
            name = state(row["leased"], row["complete"]) if row["state"] == "held" else row["state"]
            counts[name] = counts.get(name, 0) + row["number"]
        return Counts(**counts)

    def entries(self) -> Iterator[Entry]:
        """See `Store.entries`."""
        with self._transaction() as db:
            keys = db.execute("SELECT queue, key FROM entries ORDER BY queue, name, key").fetchall()
        for place in keys:  # one at a time: all at once may be more than fits in memory
            with self._transaction() as db:
                row = db.execute("SELECT content FROM entries WHERE queue = ? AND key = ?", tuple(place)).fetchone()
            if row is not None:
                yield entry_from_json(row["content"])

    def close(self) -> None:
        """Close the file."""
        with self._explained():
            self._db.close()

    def _check_room(self, db: sqlite3.Connection, entry: Entry) -> None:
        held = "SELECT COUNT(*) FROM groups WHERE queue = ? AND state = 'held'"
        if db.execute(held, (entry.queue,)).fetchone()[0] >= self._max_groups:
            raise full(entry, self._max_groups)

    def _drop(self, db: sqlite3.Connection, queue: str, group: str) -> None:
        db.execute("DELETE FROM entries WHERE queue = ? AND name = ?", (queue, group))
        db.execute("UPDATE groups SET state = 'dropped', digests = x'' WHERE queue = ? AND name = ?", (queue, group))

    def _expire(self, db: sqlite3.Connection) -> float:
        """Free what was leased for too long; returns the time."""
        now = self._clock()
        over = db.execute("SELECT id FROM leases WHERE NOT acknowledged AND expires <= ?", (now,)).fetchall()
        for row in over:
            _free(db, row["id"])
        return now

    def _held(self, db: sqlite3.Connection, lease: Lease) -> Mapping[str, Any]:
        self._expire(db)
        row = db.execute("SELECT acknowledged FROM leases WHERE id = ?", (lease.id,)).fetchone()
        if row is None:
            raise lost(lease)
        found: Mapping[str, Any] = row
        return found

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """All of the block happens, or nothing does; nobody else does anything meanwhile."""
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise RunError(f"store {self._path}: {error}") from error


def _free(db: sqlite3.Connection, number: int) -> None:
    db.execute("UPDATE groups SET lease = NULL WHERE lease = ?", (number,))
    db.execute("DELETE FROM leases WHERE id = ?", (number,))


def _digests(row: Mapping[str, Any]) -> set[bytes]:
    marks: bytes = row["digests"]
    return {marks[place : place + DIGEST] for place in range(0, len(marks), DIGEST)}
