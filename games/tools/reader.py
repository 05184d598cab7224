"""Reads a document of a local corpus, page by page."""

import re
from collections.abc import Sequence
from pathlib import Path

from games.tools.base import ToolError
from games.tools.documents import Document, Stored, documents_of

_PAGE = re.compile(r"(.+?)[ \t,]+page[ \t]+(\d{1,6})", re.IGNORECASE | re.DOTALL)
_NAMED = 5
"""Ids that are named where a title stands for several documents."""


class Reader:
    """`read: ID`: the document of this id or exact title, `page` characters at a time.

    `corpus`: documents, or the path of a file of JSON lines.

    Raises:
        ValueError: the corpus is broken (see `documents_of`), or `page` is no whole number from 100 on.
    """

    name = "read"
    usage = "read: ID (or exact title) of a document; read: ID page 2 for the next part of a long one"

    def __init__(self, corpus: Sequence[Document] | str | Path, *, page: int = 1500) -> None:
        if not isinstance(page, int) or isinstance(page, bool) or page < 100:
            raise ValueError(f"read: page={page!r} is not allowed; it must be a whole number, 100 or more")
        self._page = page
        self._documents = {document.id: document for document in documents_of(corpus)}
        self._titles: dict[str, list[str]] = {}
        for document in self._documents.values():
            self._titles.setdefault(document.title, []).append(document.id)

    def __call__(self, argument: str) -> str:
        """Id, title and which page it is, then the text of the page.

        Raises:
            ToolError: no document, or more than one, has that id or title; or there is no such page.
        """
        wanted = argument.strip().removeprefix("[").removesuffix("]")
        document, number = self._document(wanted), 1
        if document is None and (paged := _PAGE.fullmatch(wanted)):
            document, number = self._document(paged[1].removesuffix("]")), int(paged[2])
        if document is None:
            raise ToolError(f"no document has the id or the title {wanted[:100]!r}" if wanted else "which document?")
        pages = _pages(document.text, self._page)
        if not 1 <= number <= len(pages):
            raise ToolError(f"[{document.id}] has pages 1 to {len(pages)}")
        which = f" (page {number} of {len(pages)})" if len(pages) > 1 else ""
        return f"[{document.id}] {document.title}{which}\n{pages[number - 1]}"

    def _document(self, wanted: str) -> Stored | None:
        if wanted in self._documents:
            return self._documents[wanted]
        ids = self._titles.get(wanted, [])
        if len(ids) > 1:
            raise ToolError(f"{len(ids)} documents have that title: {', '.join(ids[:_NAMED])}")
        return self._documents[ids[0]] if ids else None


def _pages(text: str, page: int) -> list[str]:
    """The text in parts of at most `page` characters, cut between words where that loses less than half a page."""
    pages = []
    rest = text.strip()
    while len(rest) > page:
        end = max(rest.rfind(blank, page // 2, page + 1) for blank in (" ", "\n"))
        end = page if end < 0 else end
        pages.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    return [*pages, rest]
