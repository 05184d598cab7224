"""The index of a run's episodes: a small database beside the files, so that none of them is read to find one.

It is a cache: it may be deleted at any time, and is made again where its form has changed.
"""

import os
import re
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from errno import EINVAL
from hashlib import blake2b
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from threading import Lock, local
from time import monotonic
from typing import Any
from zlib import crc32

import msgspec

from marl_llm.errors import ConfigError, RunError
from marl_llm.lines import Mark, finished_lines, tail
from marl_llm.matchmaking import seat_policy

FILE = "watch.sqlite"
SEARCHED = 20_000
"""Characters of an observation or reply that a search looks at."""
PREVIEW = 80
"""Characters of a last reply that are shown in a list."""
KNOWN_COURSES = 20_000
"""Ways that a game went, of which is remembered that they are in the index."""
SHORT = 4000
"""Characters of an episode from which it is not expected to come again."""
LOOK_S = 300.0
"""Seconds after which files that have been read are looked at again all the same."""
PROBLEMS = 20
"""Damaged lines of a file that are named."""

LOGGED, BRANCH, PLAYED = range(3)
KINDS = ("logged", "branch", "played")
LOST, DREW, WON = range(3)
OUTCOMES = ("lost", "drew", "won")

_SCHEMA = """
CREATE TABLE files(
    id INTEGER PRIMARY KEY, name TEXT UNIQUE, kind INTEGER, step INTEGER, inode INTEGER, read INTEGER, lines INTEGER,
    tail INTEGER, episodes INTEGER DEFAULT 0, problems TEXT DEFAULT '');
CREATE TABLE names(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE episodes(
    id INTEGER PRIMARY KEY, file INTEGER, offset INTEGER, match TEXT, kind INTEGER, step INTEGER, grp TEXT,
    correct REAL, original TEXT, course INTEGER);
CREATE TABLE courses(
    id INTEGER PRIMARY KEY, game INTEGER, status INTEGER, turns INTEGER, illegal INTEGER, best REAL, worst REAL,
    preview TEXT);
CREATE TABLE seats(
    course INTEGER, agent INTEGER, role INTEGER, policy INTEGER, return REAL, outcome INTEGER,
    PRIMARY KEY(course, agent)) WITHOUT ROWID;
CREATE VIRTUAL TABLE texts USING fts5(text, content='');
CREATE TABLE digests(digest INTEGER PRIMARY KEY, text INTEGER);
CREATE TABLE said(course INTEGER, text INTEGER);
CREATE TABLE seen(role INTEGER, policy INTEGER, PRIMARY KEY(role, policy)) WITHOUT ROWID;
CREATE INDEX by_step ON episodes(step, id);
CREATE INDEX by_original ON episodes(original) WHERE original IS NOT NULL;
"""

VERSION = crc32(_SCHEMA.encode()) & 0x7FFFFFFF
"""Of the database's form: one that was made in another form is made again."""


class _Branch(msgspec.Struct, gc=False):
    episode: str
    turn: int


class _Match(msgspec.Struct, gc=False):
    id: str
    game: str
    group: str
    label: str = ""
    seats: dict[str, str] = {}
    branch: _Branch | None = None


class _Turn(msgspec.Struct, gc=False):
    agent: str
    role: str
    policy: str
    observation: str
    reply: str
    legal: bool | None


class _Episode(msgspec.Struct, gc=False):
    """What the index keeps; the rest of a line is passed over."""

    match: _Match
    returns: dict[str, float]
    turns: list[_Turn]
    status: str = "done"
    hidden: msgspec.Raw = msgspec.Raw()


_NAME = re.compile(r"(step_[0-9]{1,18}|played)\.jsonl")
_read = msgspec.json.Decoder(_Episode).decode


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where an episode's line is."""

    file: Path
    """The file."""
    offset: int
    """Bytes before the line."""
    step: int | None
    """Its training step; None: it was played in the browser."""
    kind: str
    """One of `KINDS`."""


class Index:
    """The index of one run; one thread at a time brings it up to date, any number look things up."""

    def __init__(self, run: Path, file: Path | None = None) -> None:
        """`file`: where it is kept; by default in the run directory.

        Raises:
            RunError: it cannot be written.
        """
        self._run = run
        self.file = file or run / FILE
        self._writing = Lock()
        self._own = local()
        self._settled: dict[str, int] = {}
        self._looked = monotonic()
        self._courses: OrderedDict[object, int] = OrderedDict()
        self._names = _Names(self._number)
        self.indexed = {"files": 0, "of": 0, "episodes": 0}
        """How far it is."""
        self.problems: list[str] = []
        """What could not be read, file by file."""
        self._inode = 0
        with _failing(self.file):
            self._make()

    def _make(self) -> None:
        if self.file.exists() and self._version() != VERSION:
            self._remove()
        self._settled = {}
        self._courses.clear()
        self._names.clear()
        self._inode = 0  # of no file: every thread opens it anew
        database = self._database()
        with database:
            if not database.execute("SELECT name FROM sqlite_master WHERE name = 'files'").fetchone():
                database.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        self._own.inode = self._inode = self.file.stat().st_ino

    def _version(self) -> int | None:
        """Of the form that the file has; None: it is no database."""
        try:
            with closing(sqlite3.connect(self.file)) as database:
                (version,) = database.execute("PRAGMA user_version").fetchone()
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError:
            return None
        return int(version)

    def _is_there(self) -> bool:
        """Whether the file has not been deleted."""
        try:
            return self.file.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _remove(self) -> None:
        for end in ("", "-wal", "-shm"):
            self.file.with_name(self.file.name + end).unlink(missing_ok=True)

    def _database(self) -> sqlite3.Connection:
        """This thread's connection."""
        if getattr(self._own, "inode", None) != self._inode:
            database = sqlite3.connect(self.file, timeout=30, isolation_level=None)
            database.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; PRAGMA cache_size = -8000;")
            if hasattr(self._own, "database"):
                self._own.database.close()
            self._own.database, self._own.inode = database, self._inode
        found: sqlite3.Connection = self._own.database
        return found

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds; of values that the database cannot hold the nearest that it can."""
        return self._database().execute(query, [_held(value) for value in values]).fetchall()

    # What brings it up to date.

    def refresh(self) -> Iterator[None]:
        """Read what is new, newest step first, and pause after every file.

        A file that has been read to its end is looked at again where it is the newest, may be added to, or has been put
        in place of another; all are from time to time.

        Raises:
            RunError: the index cannot be written.
        """
        with self._writing, _failing(self.file):
            if not self._is_there():
                self._make()
            if monotonic() - self._looked > LOOK_S:
                self._settled, self._looked = {}, monotonic()
            names, unsettled = _files(self._run, self._settled)
            if len(unsettled) > 1 or self._settled.keys() - names:
                for (name,) in self.rows("SELECT name FROM files"):
                    if name not in names:
                        self._forget(name)
                        self._settled.pop(name, None)
                self._count(len(names))
            for file in unsettled:
                if self._read(file):
                    self._count(len(names))
                    yield

    def _read(self, file: "_File") -> bool:
        """Take in what is new in a file; whether anything was."""
        found = self.rows("SELECT inode, read, lines, tail FROM files WHERE name = ?", file.name)
        inode, read, lines, before = (one or 0 for one in found[0]) if found else (0, 0, 0, 0)
        mark = Mark(inode=inode, offset=read, lines=lines, tail=before)
        try:
            status = file.path.stat()
            if not (S_ISREG(status.st_mode) or S_ISDIR(status.st_mode)):
                raise OSError(EINVAL, "Not a regular file")  # which could keep whoever reads it waiting for ever
            fits = mark.fits(file.path)
            if fits and mark.offset == status.st_size:
                self._settled[file.name] = file.inode
                return False
            if not fits:
                if found:
                    self._forget(file.name)
                mark = Mark(inode=status.st_ino)
            if self._add(file, mark) == status.st_size:
                self._settled[file.name] = file.inode
        except OSError as error:
            self._report(file, f"cannot be read: {error.strerror}")
        return True

    def _count(self, total: int) -> None:
        ((files, episodes),) = self.rows("SELECT count(*), coalesce(sum(episodes), 0) FROM files")
        self.indexed = {"files": files, "of": total, "episodes": episodes}
        told = self.rows("SELECT name, problems FROM files WHERE problems != '' ORDER BY name")
        self.problems = [f"{name}: {problem}" for name, problems in told for problem in problems.split("\n")]

    def _forget(self, name: str) -> None:
        with self._transaction() as database:
            database.execute("DELETE FROM episodes WHERE file = (SELECT id FROM files WHERE name = ?)", (name,))
            database.execute("DELETE FROM files WHERE name = ?", (name,))

    def _report(self, file: "_File", problem: str) -> None:
        with self._transaction() as database:
            self._file_id(database, file)
            database.execute("UPDATE files SET problems = ? WHERE name = ?", (problem, file.name))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._database()
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            self._courses.clear()
            self._names.clear()
            if database.in_transaction:  # a full disk has ended it already
                database.execute("ROLLBACK")
            raise

    def _file_id(self, database: sqlite3.Connection, file: "_File") -> int:
        row = (file.name, file.kind, file.step)
        database.execute("INSERT OR IGNORE INTO files(name, kind, step) VALUES(?, ?, ?)", row)
        ((number,),) = self.rows("SELECT id FROM files WHERE name = ?", file.name)
        return int(number)

    def _add(self, file: "_File", mark: Mark) -> int:
        """Take in the finished lines of a file after `mark`; the bytes up to where they end."""
        with self._transaction() as database:
            number = self._file_id(database, file)
            ((read, inode),) = self.rows("SELECT read, inode FROM files WHERE id = ?", number)
            if inode == mark.inode and read != mark.offset:
                return mark.offset  # another watcher of this run was faster
            rows: list[tuple[Any, ...]] = []
            problems: list[str] = []
            end, lines = mark.offset, mark.lines
            for offset, line in finished_lines(file.path, mark):
                end, lines = offset + len(line), lines + 1
                try:
                    episode = _read(line)
                    correct = _correct(episode.hidden)
                except (ValueError, RecursionError, OverflowError) as error:
                    problems.append(f"line {lines} is not an episode, and is skipped: {error}")
                    continue
                match = episode.match
                original = match.branch.episode if match.branch else None
                course = self._course(database, episode)
                rows.append((number, offset, match.id, file.kind, file.step, match.group, correct, original, course))
            database.executemany("INSERT INTO episodes VALUES(NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            ((before,),) = self.rows("SELECT problems FROM files WHERE id = ?", number)
            told = [*before.split("\n")[:PROBLEMS], *problems][:PROBLEMS] if before else problems[:PROBLEMS]
            if len(problems) > PROBLEMS:
                told.append(f"{len(problems) - PROBLEMS} more lines are not episodes")
            database.execute(
                "UPDATE files SET inode = ?, read = ?, lines = ?, tail = ?, episodes = episodes + ?, problems = ? "
                "WHERE id = ?",
                (mark.inode, end, lines, tail(file.path, end), len(rows), "\n".join(told), number),
            )
        return end

    def _course(self, database: sqlite3.Connection, episode: _Episode) -> int:
        """Number of how the game went: who sat where, what was seen and said, and what came of it.

        One that has been there lately is kept once: small games go the same way again and again.
        """
        match, turns = episode.match, episode.turns
        said = [(turn.agent, turn.role, turn.policy, turn.observation, turn.reply, turn.legal) for turn in turns]
        came = (match.label or match.game, episode.status, *match.seats.items(), *episode.returns.items())
        key = (came, *said)
        number = self._courses.get(key)
        if number is None:
            number = self._new_course(database, episode)
            if sum(len(turn.observation) + len(turn.reply) for turn in turns) <= SHORT:
                self._courses[key] = number
                if len(self._courses) > KNOWN_COURSES:
                    self._courses.popitem(last=False)
        return number

    def _new_course(self, database: sqlite3.Connection, episode: _Episode) -> int:
        match, returns, turns, names = episode.match, episode.returns, episode.turns, self._names
        ordered = sorted(returns.values())
        best, worst = (ordered[-1], ordered[0]) if ordered else (0.0, 0.0)
        illegal = sum(turn.legal is False for turn in turns)
        preview = turns[-1].reply[-PREVIEW:] if turns else ""
        row = (names[match.label or match.game], names[episode.status], len(turns), illegal, best, worst, preview)
        number = database.execute("INSERT INTO courses VALUES(NULL, ?, ?, ?, ?, ?, ?, ?)", row).lastrowid
        assert number is not None
        last = {turn.agent: turn for turn in turns}
        alone, shared = len(ordered) < 2, ordered[-2:] == [best, best]
        for agent, value in returns.items():
            turn = last.get(agent)
            role = names[turn.role if turn else agent]
            policy = names[turn.policy if turn else _seated(match.seats, agent)]
            outcome = None if alone else LOST if value < best else DREW if shared else WON
            seat = (number, names[agent], role, policy, value, outcome)
            database.execute("INSERT INTO seats VALUES(?, ?, ?, ?, ?, ?)", seat)
            database.execute("INSERT OR IGNORE INTO seen VALUES(?, ?)", (role, policy))
        for text in {self._text(database, turn) for turn in turns}:
            database.execute("INSERT INTO said VALUES(?, ?)", (number, text))
        return number

    def _number(self, name: str) -> int:
        """Number of a name that comes again and again."""
        self._database().execute("INSERT OR IGNORE INTO names(name) VALUES(?)", (name,))
        ((number,),) = self.rows("SELECT id FROM names WHERE name = ?", name)
        return int(number)

    def _text(self, database: sqlite3.Connection, turn: _Turn) -> int:
        """Number of what was seen and said in a turn: a text that has been there before is kept once."""
        text = f"{turn.observation[:SEARCHED]}\n{turn.reply[:SEARCHED]}"
        digest = hash_of(text)
        found = self.rows("SELECT text FROM digests WHERE digest = ?", digest)
        if found:
            return int(found[0][0])
        number = database.execute("INSERT INTO texts(text) VALUES(?)", (text,)).lastrowid
        assert number is not None
        database.execute("INSERT INTO digests VALUES(?, ?)", (digest, number))
        return number

    # What is looked up.

    def place(self, match: str) -> Place | None:
        """Where an episode is; None: there is none of that id."""
        # A person looks at one episode at a time: going through all costs less than an index of names that grows along.
        found = self.rows(
            "SELECT files.name, offset, e.step, e.kind FROM "
            "(SELECT * FROM episodes WHERE match = ? ORDER BY id DESC LIMIT 1) e JOIN files ON files.id = file",
            match,
        )
        if not found:
            return None
        ((name, offset, step, kind),) = found
        return Place(file=self._run / name, offset=offset, step=step, kind=KINDS[kind])


@dataclass(frozen=True, kw_only=True, slots=True)
class _File:
    """A file with episodes."""

    name: str
    """Its path in the run directory."""
    path: Path
    """Where it is."""
    kind: int
    """Place in `KINDS`."""
    step: int | None
    """Training step; None: of no step."""
    inode: int
    """Which file has that name now."""


def _files(run: Path, settled: Mapping[str, int]) -> tuple[set[str], list[_File]]:
    """The names of all of them; and, the newest step first, those that have to be looked at: not as they are in
    `settled`, or may be added to."""
    names: set[str] = set()
    found = []
    for folder, kind in (("episodes", LOGGED), ("whatif", BRANCH)):
        try:
            entries = {f"{folder}/{one.name}": one for one in os.scandir(run / folder) if _NAME.fullmatch(one.name)}
        except OSError:  # there is none
            continue
        names |= entries.keys()
        newest = max(entries, default="") if kind == LOGGED else None
        for name, entry in entries.items():
            if settled.get(name) != entry.inode() or newest in (name, None):
                digits = entry.name.removeprefix("step_").removesuffix(".jsonl")
                step = int(digits) if digits.isdecimal() else None
                of = PLAYED if step is None else kind
                found.append(_File(name=name, path=run / name, kind=of, step=step, inode=entry.inode()))
    return names, sorted(found, key=lambda file: -1 if file.step is None else file.step, reverse=True)


class _Names(dict[str, int]):
    """Numbers of names; a new one is asked for once."""

    def __init__(self, number: Callable[[str], int]) -> None:
        super().__init__()
        self._number = number

    def __missing__(self, name: str) -> int:
        self[name] = number = self._number(name)
        return number


def _held(value: Any) -> Any:
    if isinstance(value, int):
        return max(-(2**63), min(value, 2**63 - 1))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def hash_of(text: str) -> int:
    """64 bits by which a text is known again."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


def _seated(seats: Mapping[str, str], agent: str) -> str:
    try:
        return seat_policy(seats, agent)
    except ConfigError:
        return ""


def _correct(hidden: msgspec.Raw) -> float | None:
    """What a task says of the answer; None: it is no task, or says nothing."""
    raw = bytes(hidden)
    if b'"correct"' not in raw:
        return None
    said = msgspec.json.decode(raw)
    value = said.get("correct") if isinstance(said, dict) else None
    return float(value) if isinstance(value, (bool, int, float)) else None


@contextmanager
def _failing(file: Path) -> Iterator[None]:
    """Turn what the database says into one line for the user.

    Raises:
        RunError: it could not be read or written.
    """
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise RunError(f"{file}: the index of episodes cannot be written: {error}; it may be deleted") from error
