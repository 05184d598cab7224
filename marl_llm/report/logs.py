"""What a run directory holds, read so that what is damaged is named and the rest goes on.

A last line without its end is no damage: somebody may be writing it at this moment.
"""

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marl_llm.config import Config
from marl_llm.episodes import checked_from_json, episode_files, is_number, is_number_or_none
from marl_llm.errors import MarlError, RunError
from marl_llm.lines import finished_lines
from marl_llm.run import Run, list_evaluations
from marl_llm.types import Episode

MOST_FILES = 24
"""Steps whose episodes are read, however long a run is."""
MOST_LINES = 5
"""Damaged lines of one file that are named."""


@dataclass(kw_only=True)
class Series:
    """One metric over the steps that have it."""

    steps: "array[int]" = field(default_factory=lambda: array("q"))
    values: "array[float]" = field(default_factory=lambda: array("d"))


@dataclass(kw_only=True, eq=False)
class RunLog:
    """One run, as far as it can be read at once: everything but its episodes."""

    path: Path
    config: Config
    series: dict[str, Series]
    """Metric to its values; `time_s` is one of them."""
    evaluations: dict[int, Mapping[str, Any]]
    """Step to what was measured, by game (see `GameEvaluation.to_json`)."""
    files: list[tuple[int, Path]]
    """Step and file of the episodes that are there."""
    damage: list[str]
    """One line for whatever could not be read, in the order in which it was found."""

    @property
    def last_step(self) -> int:
        """The last step that was finished; 0 before the first."""
        return max((series.steps[-1] for series in self.series.values()), default=0)

    @property
    def seconds(self) -> float:
        """How long it took, by its own clock."""
        return self.series["time_s"].values[-1] if "time_s" in self.series else 0.0

    def sampled(self) -> list[tuple[int, Path]]:
        """At most `MOST_FILES` of the files, evenly spread from the first to the last."""
        return even(self.files, MOST_FILES)


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """The run directories that are meant: those that are named, and those inside a folder of a sweep.

    Raises:
        RunError: one is neither.
    """
    found: list[Path] = []
    for path in paths:
        if (path / "config.yaml").is_file():
            inside = [path]
        elif path.is_dir():
            inside = sorted(folder for folder in path.iterdir() if (folder / "config.yaml").is_file())
        else:
            raise RunError(f"{path}: no such run directory")
        if not inside:
            raise RunError(f"{path}: not a run directory, since it has no config.yaml")
        found += [folder for folder in inside if folder not in found]
    return found


def read_run(path: Path) -> RunLog:
    """Everything but the episodes of a run directory.

    Raises:
        RunError: it is not a run directory.
        ConfigError: its config.yaml is damaged.
    """
    config = Run.config(path)
    damage: list[str] = []
    folder = path / "episodes"
    return RunLog(
        path=path,
        config=config,
        series=_series(path / "metrics.jsonl", damage),
        evaluations=_evaluations(path, damage),
        files=episode_files(folder) if folder.is_dir() else [],
        damage=damage,
    )


def even(items: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most `most` of the items, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(index * (len(items) - 1) / (most - 1))] for index in range(most)]


def episodes_of(file: Path, damage: list[str]) -> Iterator[tuple[int, Episode]]:
    """Where its line begins (bytes), and the episode, of each line of a file that is one; the rest goes to `damage`."""
    name, bad = f"{file.parent.parent.name}/episodes/{file.name}", 0
    try:
        for number, (offset, line) in enumerate(finished_lines(file), start=1):
            try:
                episode = checked_from_json(line)
            except ValueError as error:
                bad += 1
                if bad <= MOST_LINES:
                    damage.append(f"{name}: line {number} is not an episode: {str(error)[:200]}")
            else:
                yield offset, episode
    except OSError as error:
        damage.append(f"{name}: could not be read: {error.strerror or error}")
    if bad > MOST_LINES:
        damage.append(f"{name}: {bad - MOST_LINES} more lines are not episodes")


def episode_at(file: Path, offset: int) -> Episode | None:
    """The episode whose line begins there; None where it has gone meanwhile."""
    try:
        with file.open("rb") as lines:
            lines.seek(offset)
            return checked_from_json(lines.readline())
    except (OSError, ValueError):
        return None


def _series(file: Path, damage: list[str]) -> dict[str, Series]:
    found: dict[str, Series] = defaultdict(Series)
    name, bad = f"{file.parent.name}/{file.name}", 0
    try:
        for number, (_, line) in enumerate(finished_lines(file), start=1):
            try:
                row = json.loads(line)
                step = row["step"]
                if not isinstance(row, dict) or not isinstance(step, int):
                    raise ValueError
            except (ValueError, TypeError, KeyError, RecursionError):
                bad += 1
                if bad <= MOST_LINES:
                    damage.append(f"{name}: line {number} is not the metrics of a step")
                continue
            for key, value in row.items():
                if key != "step" and is_number(value):
                    found[key].steps.append(step)
                    found[key].values.append(float(value))
    except FileNotFoundError:
        damage.append(f"{name}: is missing")
    except OSError as error:
        damage.append(f"{name}: could not be read: {error.strerror or error}")
    if bad > MOST_LINES:
        damage.append(f"{name}: {bad - MOST_LINES} more lines are not the metrics of a step")
    return dict(found)


def _evaluations(path: Path, damage: list[str]) -> dict[int, Mapping[str, Any]]:
    found = {}
    for step, file in list_evaluations(path):
        try:
            data = json.loads(file.read_bytes())
            for measured in data["games"].values():
                for seats in measured["opponents"].values():
                    for score in seats.values():
                        if not all(is_number(score[key]) for key in ("mean", "low", "high", "games", "win_rate")):
                            raise ValueError("a score is no number")
                if not is_number_or_none(measured["exploitability"]):
                    raise ValueError("the exploitability is no number")
            found[step] = data["games"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            damage.append(f"{path.name}/evaluations/{file.name}: is not an evaluation: {str(error)[:200]}")
    return found


def read_runs(paths: Sequence[Path]) -> tuple[list[RunLog], list[str]]:
    """All runs that can be read, and a line for each that cannot.

    Raises:
        MarlError: none can; it is the error of the first.
    """
    logs: list[RunLog] = []
    refused: list[MarlError] = []
    for path in paths:
        try:
            logs.append(read_run(path))
        except MarlError as error:
            refused.append(error)
    if not logs:
        raise refused[0]
    return logs, [str(error) for error in refused]
