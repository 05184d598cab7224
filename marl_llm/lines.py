"""The finished lines of a file that may still be growing."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

TAIL = 4096
"""Bytes by which a file is known again: a new one may have the number of one that was deleted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """How far a file has been read."""

    inode: int = 0
    """Which file it was: one that was replaced is read anew."""
    offset: int = 0
    """Bytes up to the end of the last finished line."""
    lines: int = 0
    """Finished lines so far."""
    tail: int = 0
    """Checksum of the bytes before `offset`."""

    def fits(self, path: Path) -> bool:
        """Whether it is a place in that file, which has only grown since.

        Raises:
            OSError: the file cannot be read.
        """
        status = path.stat()
        return status.st_ino == self.inode and status.st_size >= self.offset and tail(path, self.offset) == self.tail


def tail(path: Path, offset: int) -> int:
    """Checksum of up to `TAIL` bytes before a place in a file.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb", buffering=0) as file:
        start = max(0, offset - TAIL)
        file.seek(start)
        return crc32(file.read(offset - start))


BEGINNING = Mark()


def finished_lines(path: Path, mark: Mark = BEGINNING) -> Iterator[tuple[int, bytes]]:
    """Offset and content of each finished line after `mark`, one in memory at a time; what follows the last newline is
    still being written.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        file.seek(mark.offset)
        offset = mark.offset
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield offset, line
            offset += len(line)
