"""The finished lines of a file that may still be growing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """How far a file has been read."""

    inode: int = 0
    """Which file it was: one that was replaced is read anew."""
    offset: int = 0
    """Bytes up to the end of the last finished line."""
    lines: int = 0
    """Finished lines so far."""

    def fits(self, status: os.stat_result) -> bool:
        """Whether it is a place in that file, which has only grown since."""
        return status.st_ino == self.inode and status.st_size >= self.offset


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
