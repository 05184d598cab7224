"""The documents that agents search and read."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


class Document(Protocol):
    """What a corpus consists of; `games.tasks` has its own kind."""

    @property
    def id(self) -> str:
        """Its name, which no other document of the corpus has."""

    @property
    def title(self) -> str:
        """What it is about."""

    @property
    def text(self) -> str:
        """All of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A document of a file."""

    id: str
    """Its name, which no other document of the corpus has."""
    title: str
    """What it is about."""
    text: str
    """All of it."""


def documents_of(corpus: Sequence[Document] | str | Path) -> tuple[Stored, ...]:
    """The corpus sorted by id; a path is that of a file of JSON objects, one a line, with `id`, `title` and `text`.

    Raises:
        ValueError: the file cannot be read, a line of it is broken, an id is there twice, or nothing is there.
    """
    name = "corpus" if not isinstance(corpus, str | Path) else f"corpus {corpus}"
    found = _lines(Path(corpus), name) if isinstance(corpus, str | Path) else map(_stored, corpus)
    documents = tuple(sorted(found, key=lambda document: document.id))
    twice = [id for id, times in Counter(document.id for document in documents).items() if times > 1]
    if twice:
        raise ValueError(f"{name}: id {twice[0]!r} is not allowed twice; it must be one document's own")
    if not documents:
        raise ValueError(f"{name}: 0 documents are not allowed; it must be one or more")
    return documents


def _stored(document: Document) -> Stored:
    return Stored(id=document.id, title=document.title, text=document.text)


def _lines(path: Path, name: str) -> Iterator[Stored]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{name}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _document(line, f"{name}, line {number}")


def _document(line: str, where: str) -> Stored:
    try:
        fields: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error}") from error
    if not isinstance(fields, dict) or not all(isinstance(fields.get(key), str) for key in ("id", "title", "text")):
        raise ValueError(f"{where}: {line[:60]!r} is not allowed; it must be an object with texts id, title and text")
    return Stored(id=fields["id"], title=fields["title"], text=fields["text"])
