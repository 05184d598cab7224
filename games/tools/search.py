"""Search over a local corpus: BM25, as SQLite's FTS5 computes it."""

import re
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, Self

from games.tools.base import ToolError
from games.tools.documents import Document, Stored, documents_of

MAX_WORDS = 32
"""Different words of a query that are looked for: the first ones."""
SNIPPET = 24
"""Words of a document that a result shows, at most, unless told otherwise."""
LONGEST = 64
"""The most words that SQLite shows."""

_FIND = """
    SELECT id, title, snippet(documents, 2, '', '', '...', ?) FROM documents
    WHERE documents MATCH ? ORDER BY round(bm25(documents), 9), id LIMIT ?
"""


class Search:
    """`search: QUERY`: the `results` documents that match best, best first, one a line, ties by id.

    `corpus`: documents, or the path of a file of JSON lines. A line shows up to `snippet` words of its document. Words
    are matched by stem, in title and text; a document need not have all of them. All tools of one corpus share one
    index in memory, made once in a process; copies, pickled ones too, and threads may use it at the same time.

    Raises:
        ValueError: the corpus is broken (see `documents_of`), or `results` is no whole number from 1 on,
            or `snippet` none from 1 to 64.
    """

    name = "search"
    usage = "search: QUERY, a few words; the best documents are told with their ids"

    def __init__(self, corpus: Sequence[Document] | str | Path, *, results: int = 3, snippet: int = SNIPPET) -> None:
        if not isinstance(results, int) or isinstance(results, bool) or results < 1:
            raise ValueError(f"search: results={results!r} is not allowed; it must be a whole number, 1 or more")
        if not isinstance(snippet, int) or isinstance(snippet, bool) or not 1 <= snippet <= LONGEST:
            raise ValueError(f"search: snippet={snippet!r} is not allowed; it must be a whole number, 1 to {LONGEST}")
        self._documents = documents_of(corpus)
        self._results, self._snippet = results, snippet
        self._index = _index(self._documents)

    def __call__(self, argument: str) -> str:
        """Lines `[ID] TITLE: SNIPPET`, or that nothing was found. Any text is a query; operators mean nothing.

        Raises:
            ToolError: there is no word in it.
        """
        words = list(dict.fromkeys(re.findall(r"\w+", argument.casefold())))[:MAX_WORDS]
        if not words:
            raise ToolError("the query has no words")
        found = self._index.find(" OR ".join(f'"{word}"' for word in words), self._results, self._snippet)
        return "\n".join(found) or "nothing found"

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # nothing in it ever changes

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._documents, self._results, self._snippet)


def _again(documents: tuple[Stored, ...], results: int, snippet: int) -> Search:
    return Search(documents, results=results, snippet=snippet)


class _Index:
    """A connection that may be used from any thread, one at a time."""

    def __init__(self, documents: tuple[Stored, ...]) -> None:
        self._lock = Lock()
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.execute(
            "CREATE VIRTUAL TABLE documents USING fts5(id UNINDEXED, title, text, tokenize='porter unicode61')"
        )
        rows = ((_line(document.id), _line(document.title), _line(document.text)) for document in documents)
        self._connection.executemany("INSERT INTO documents VALUES (?, ?, ?)", rows)

    def find(self, query: str, results: int, snippet: int) -> list[str]:
        with self._lock:
            found = self._connection.execute(_FIND, (snippet, query, results))
            return [f"[{id}] {title}: {text}" for id, title, text in found]


@lru_cache(maxsize=8)
def _index(documents: tuple[Stored, ...]) -> _Index:
    return _Index(documents)


def _line(text: str) -> str:
    """The text on one line, without the half characters that SQLite does not take."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").split())
