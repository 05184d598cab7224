"""The metrics of a run as columns, read on as the file grows."""

import json
import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_llm.alarms import MEANING
from marl_llm.lines import Mark, finished_lines, tail

POINTS = 300
"""Steps that a curve has at most; each stands for the mean of those around it."""

PROBLEMS = 20
"""Damaged lines that are named."""
SERIES = 16
"""Curves that are told without being asked for."""
TELLING = (
    "eval/(.*/)?exploitability",
    "play/return/.*",
    "play/fact/correct",
    "play/illegal_fraction",
    "learn/[^/]*/entropy",
    "play/reply_tokens",
    "play/fact/.*",
    "play/win_rate/.*",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Fired:
    """An alarm of the run."""

    name: str
    """As in metrics.jsonl."""
    first: int
    """Step at which it began."""
    last: int
    """Last step at which it was on."""
    steps: int
    """Steps at which it was on."""
    on: bool
    """Whether it is now."""
    meaning: str
    """What it means and what to look at."""


class Curves:
    """What metrics.jsonl holds, 8 bytes a number."""

    def __init__(self, file: Path) -> None:
        """Nothing is read before `refresh`."""
        self._file = file
        self._forget()

    def _forget(self) -> None:
        self._mark = Mark()
        self._columns: dict[str, array[float]] = {}
        self.steps: array[int] = array("q")
        """Steps so far, ascending."""
        self._damaged = 0
        self.problems: list[str] = []
        """Lines that are not the metrics of a step."""

    @property
    def latest(self) -> int:
        """The latest step; 0: none."""
        return self.steps[-1] if self.steps else 0

    def refresh(self) -> None:
        """Read what has been added; all of it again where the run was resumed from an earlier step."""
        try:
            status = self._file.stat()
            if not self._mark.fits(self._file):
                self._forget()
            if self._mark.offset == status.st_size:
                return
            end, number = self._mark.offset, self._mark.lines
            for offset, line in finished_lines(self._file, self._mark):
                end, number = offset + len(line), number + 1
                self._take(number, line)
            self._mark = Mark(inode=status.st_ino, offset=end, lines=number, tail=tail(self._file, end))
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            self.problems = [f"{self._file.name}: cannot be read: {error.strerror}"]

    def _take(self, number: int, line: bytes) -> None:
        try:
            row: dict[str, Any] = json.loads(line)
            (step,) = array("q", [int(row["step"])])
            values = {key: math.nan if value is None else float(value) for key, value in row.items()}
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            self._damaged += 1
            if self._damaged <= PROBLEMS:
                self.problems.append(f"{self._file.name}: line {number} is not the metrics of a step")
            else:
                more = f"{self._file.name}: {self._damaged - PROBLEMS} more lines are not the metrics of a step"
                self.problems[PROBLEMS:] = [more]
            return
        for key, value in values.items():
            column = self._columns.setdefault(key, array("d"))
            column.extend([math.nan] * (len(self.steps) - len(column)))
            column.append(value)
        self.steps.append(step)

    def alarms(self) -> list[Fired]:
        """Those that fired, the latest first."""
        found = []
        for key, column in tuple(self._columns.items()):  # another thread may add some
            rows = [row for row, value in enumerate(column) if value > 0] if key.startswith("alarm/") else []
            if rows:
                name = key.removeprefix("alarm/")
                found.append(
                    Fired(
                        name=name,
                        first=self.steps[rows[0]],
                        last=self.steps[rows[-1]],
                        steps=len(rows),
                        on=rows[-1] == len(self.steps) - 1,
                        meaning=MEANING.get(name.partition("/")[0], ""),
                    )
                )
        return sorted(found, key=lambda fired: -fired.first)

    def alarmed(self, name: str) -> list[int]:
        """The steps at which an alarm was on."""
        return [
            step for step, value in zip(self.steps, self._columns.get(f"alarm/{name}", ()), strict=False) if value > 0
        ]

    def curves(self, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """`steps`, and `series` by key: of each part of the run the mean, None where nothing was measured.

        `keys`: those that there are of them; None: the ones that say how the run is going.
        """
        width = max(1, math.ceil(len(self.steps) / POINTS))
        starts = range(0, len(self.steps), width)
        wanted = self._telling() if keys is None else [key for key in keys if key in self._columns]
        series = {key: [_mean(self._columns[key][start : start + width]) for start in starts] for key in wanted}
        return {"steps": [self.steps[min(start + width, len(self.steps)) - 1] for start in starts], "series": series}

    def _telling(self) -> list[str]:
        """The columns that are shown without being asked for, those that matter most first."""
        return [key for form in TELLING for key in sorted(self._columns) if re.fullmatch(form, key)][:SERIES]


def _mean(values: Iterable[float]) -> float | None:
    known = [value for value in values if math.isfinite(value)]
    return sum(known) / len(known) if known else None
