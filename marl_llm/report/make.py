"""A report, from run directories to a folder that opens from a disk."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_llm.errors import RunError
from marl_llm.files import remove_folder, whole_folder, writing
from marl_llm.report.figures import library, write_figure
from marl_llm.report.logs import read_runs, run_folders
from marl_llm.report.page import TEMPLATES, Report, compose, html

MARK = ".marl-llm-report"
"""The file that tells a folder of ours, which may be replaced."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A report that was written."""

    folder: Path
    report: Report

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"

    def to_json(self) -> dict[str, Any]:
        """Where it is, and its headline numbers."""
        report = self.report
        return {
            "report": str(self.folder),
            "index": str(self.index),
            "variants": [
                {
                    "name": group.name,
                    "runs": [str(log.path) for log in group.runs],
                    "steps": [log.last_step for log in group.runs],
                    "seconds": [log.seconds for log in group.runs],
                    "numbers": {
                        told.name: {"first": told.first, "last": told.last} for told in report.headlines[group.name]
                    },
                }
                for group in report.groups
            ],
            "alarms": [
                {"run": alarm.run, "name": alarm.name, "first": alarm.first, "last": alarm.last, "steps": alarm.steps}
                for alarm in report.alarms
            ],
            "damaged": list(report.damage),
        }


def make_report(paths: Sequence[Path], into: Path | None, tell: Callable[[str], None]) -> Made:
    """Write the report of some runs (or folders of sweeps), and return where it is.

    `into`: its folder; by default `RUN/report` of one run, else `report-NAME` here. One that an earlier report left is
    replaced, whole.

    Raises:
        RunError: there is no such run, no run can be read, or the folder holds something else or cannot be written.
        ConfigError: the settings of the only run are damaged.
    """
    folders = run_folders(paths)
    logs, refused = read_runs(folders)
    folder = into or (folders[0] / "report" if len(folders) == 1 else Path(f"report-{logs[0].config.run.name}"))
    _require_ours(folder)
    report = compose(logs, refused, tell)
    charts = report.charts()
    with _replacing(folder) as unfinished:
        (unfinished / MARK).write_text("Made by marl-llm report, which may replace this folder.\n")
        (unfinished / "figures").mkdir()
        for number, chart in enumerate(charts, start=1):
            if number % 10 == 0 or number == len(charts):
                tell(f"figures: {number} of {len(charts)}")
            write_figure(chart, unfinished / "figures")
        (unfinished / "library.js").write_text(library(), encoding="utf-8")
        shutil.copyfile(TEMPLATES / "page.js", unfinished / "page.js")
        (unfinished / "index.html").write_text(html(report), encoding="utf-8")
    return Made(folder=folder, report=report)


def _require_ours(folder: Path) -> None:
    """Refuse to replace what no report has left.

    Raises:
        RunError: something else is there.
    """
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise RunError(f"{folder}: is there already and no folder of a report; choose another one with --into")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
        raise RunError(
            f"{folder}: holds something else than a report, and is left as it is; choose another folder with --into"
        )


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A folder to write to that takes the place of `folder` once it is whole."""
    fresh = folder.with_name(f"{folder.name}.new")
    _require_ours(fresh)
    with whole_folder(fresh) as unfinished:
        if fresh.exists():  # a report that was finished, and killed before it had its name
            remove_folder(fresh)
        yield unfinished
    with writing(folder):
        _require_ours(folder)
        if folder.exists():
            remove_folder(folder)
        fresh.rename(folder)
