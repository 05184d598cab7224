"""The run directory, and the only code that writes to it.

    config.yaml                     the resolved settings
    metrics.jsonl                   one object per step
    episodes/step_000012.jsonl      what was played in a step, one episode a line
    checkpoints/step_12/            what is needed to go on from there
    evaluations/step_12.json        what was measured, before and after training
    league/agent@12/                a policy as it was then, if there is a league
    whatif/step_000012.jsonl        branches of a step's episodes that people asked for, one a line
    whatif/played.jsonl             games that people played, and their branches
    store.sqlite                    what waits for its learner at this moment, if the store is a file
    tensorboard/                    the metrics once more
    run.lock                        held while a process writes here

Whatever the moment a process is killed, the directory can be resumed: a file is either appended to line by
line, or renamed into place when it is complete. Within a step the order is `episodes`, `step`, `checkpoint`,
so that a checkpoint stands on complete records.

`whatif/` is written by who watches, also while another process trains here: it needs no `run.lock`, training never
reads it, and `rewind` leaves it as it is. `hidden.asked` of its episodes says what was asked for.
"""

import dataclasses
import errno
import fcntl
import json
import math
import operator
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from marl_llm.checkpoints import (
    checkpoint_of,
    checkpoint_path,
    checkpoint_values,
    latest_checkpoint,
    list_checkpoints,
    list_snapshots,
    prune_checkpoints,
    remove_leftovers,
    snapshot_path,
    write_whole,
)
from marl_llm.config import Config, load_config, to_yaml
from marl_llm.episodes import episode_files, episode_to_json, read_episodes
from marl_llm.errors import RunError
from marl_llm.files import append, remove_folder, replace, sync, writing
from marl_llm.types import Episode

__all__ = [
    "Metrics",
    "Run",
    "checkpoint_of",
    "checkpoint_path",
    "checkpoint_values",
    "keep_whatif",
    "latest_checkpoint",
    "latest_run",
    "list_evaluations",
    "read_episodes",
    "read_evaluation",
    "read_metrics",
    "snapshot_path",
    "whatif_file",
    "whatif_ids",
]

Metrics = dict[str, float | None]
"""One step: `step`, `time_s`, and the numbers that were measured. None: not a finite number."""


class Run:
    """A run directory that this process, and no other, may write to."""

    path: Path
    """The directory."""
    _last_step: int
    _seconds_before: float
    _began: float

    def __init__(self, path: Path, lock: int, keep_checkpoints: int) -> None:
        """Use `Run.create` or `Run.open`."""
        self.path = path
        self._lock = lock
        self._keep_checkpoints = keep_checkpoints
        from marl_llm.scalars import Scalars  # TensorBoard takes a while to import, and who only reads does without

        self._scalars = Scalars(path / "tensorboard")
        self._unsynced: list[Path] = []
        self._metrics: FileIO | None = None

    @classmethod
    def create(cls, config: Config, path: str | Path | None = None) -> Self:
        """Make and lock a directory: `path`, or `NAME-seedN-K` under `run.dir`, with the next free K.

        Raises:
            RunError: `path` exists already, or it could not be written.
        """
        final = Path(path) if path is not None else _next_path(config)
        with writing(final):
            final.parent.mkdir(parents=True, exist_ok=True)
            # Filled under another name, so that what has the final name can be resumed.
            unfinished = final.with_name(f".{final.name}.{os.getpid()}.tmp")
            shutil.rmtree(unfinished, ignore_errors=True)
            for folder in ("episodes", "checkpoints", "tensorboard"):
                (unfinished / folder).mkdir(parents=True)
            lock = _lock(unfinished)
            (unfinished / "metrics.jsonl").touch()
            replace(unfinished / "config.yaml", to_yaml(config).encode())
            while not _rename_to_new(unfinished, final):
                if path is not None:
                    shutil.rmtree(unfinished)
                    os.close(lock)
                    raise RunError(f"{final} exists already; resume it, or choose another path")
                final = _next_path(config)
            sync(final.parent)
        run = cls(final, lock, config.run.keep_checkpoints)
        run._open_metrics()
        return run

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Lock an existing run directory in order to go on with it; call `rewind` before anything is written.

        Raises:
            RunError: it is not a run directory, or another process uses it.
            ConfigError: its config.yaml is damaged.
        """
        path = Path(path)
        config = Run.config(path)
        with writing(path):
            lock = _lock(path)
            for folder in ("checkpoints", "league"):
                remove_leftovers(path / folder)
        return cls(path, lock, config.run.keep_checkpoints)

    @staticmethod
    def config(path: str | Path) -> Config:
        """The resolved settings of a run directory.

        Raises:
            RunError: it is not a run directory.
            ConfigError: its config.yaml is damaged.
        """
        file = Path(path) / "config.yaml"
        if not file.is_file():
            raise RunError(f"{path}: not a run directory, since it has no config.yaml")
        return load_config(file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the directory. A process that dies releases it too."""
        self._scalars.close()
        if self._metrics is not None:
            self._metrics.close()
        os.close(self._lock)

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a step's line, with `time_s`: wall-clock seconds since the run began, to 3 decimals.

        A resumed run goes on from the `time_s` of the last line that `rewind` kept. A number that is not
        finite is written as null: nothing was measured. Steps ascend.

        Raises:
            RunError: it could not be written.
        """
        assert self._metrics is not None, "call rewind first"
        assert step > self._last_step, f"step {step} after step {self._last_step}: call rewind first"
        time_s = self._seconds_before + time.monotonic() - self._began
        row: Metrics = {"step": step, "time_s": round(time_s, 3)}
        assert not row.keys() & metrics.keys(), "step and time_s are set here"
        row |= {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        line = json.dumps(row, separators=(",", ":"), allow_nan=False)
        with writing(self.path / "metrics.jsonl"):
            append(self._metrics, f"{line}\n".encode())
        self._last_step = step
        with writing(self.path / "tensorboard"):
            self._scalars.write(step, {name: row[name] for name in metrics})

    def episodes(self, step: int, episodes: Iterable[Episode], tokens: bool) -> None:
        """Write what was played in a step; `tokens` includes prompts and completions.

        Raises:
            RunError: it could not be written.
        """
        file = self.path / "episodes" / f"step_{step:06d}.jsonl"
        assert not file.exists(), f"{file} exists: call rewind first"
        lines = "".join(f"{episode_to_json(episode, tokens=tokens)}\n" for episode in episodes)
        with writing(file):
            replace(file, lines.encode(), durable=False)
        self._unsynced.append(file)

    def checkpoint(self, step: int, write: Callable[[Path], None], values: Any) -> None:
        """Save what `write` puts into the folder it is given, and JSON values; then delete the oldest ones.

        One that is there already stays as it is: a step has one outcome.

        Raises:
            RunError: it could not be written; earlier checkpoints are untouched.
        """
        assert self._metrics is not None, "call rewind first"
        assert step <= max(self._last_step, 0), "a step's metrics come before its checkpoint"
        folder = self.path / "checkpoints"
        if (folder / f"step_{step}").exists():
            return
        with writing(folder):
            os.fsync(self._metrics.fileno())
            for file in self._unsynced:
                sync(file)
            sync(self.path / "episodes")
        self._unsynced.clear()
        write_whole(folder / f"step_{step}", write, values)
        with writing(folder):
            prune_checkpoints(folder, self._keep_checkpoints)

    def snapshot(self, policy: str, step: int, write: Callable[[Path], None]) -> str:
        """Save what `write` puts into the folder it is given, for good, as `league/POLICY@STEP`; returns that name.

        Raises:
            RunError: it could not be written.
        """
        name = f"{policy}@{step}"
        with writing(self.path / "league"):
            (self.path / "league").mkdir(exist_ok=True)
        write_whole(self.path / "league" / name, write, {})
        return name

    def new_store(self) -> Path:
        """Where this session's store may have its file; that of an earlier session is deleted.

        Raises:
            RunError: it could not be.
        """
        file = self.path / "store.sqlite"
        with writing(file):
            for name in (file.name, f"{file.name}-wal", f"{file.name}-shm"):
                file.with_name(name).unlink(missing_ok=True)
        return file

    def evaluation(self, step: int, result: Mapping[str, Any]) -> None:
        """Write what was measured at a step, as `evaluations/step_N.json`.

        Raises:
            RunError: it could not be written.
        """
        file = _evaluation_file(self.path, step)
        with writing(file):
            file.parent.mkdir(exist_ok=True)
            replace(file, json.dumps(result, indent=1, allow_nan=False).encode())

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """See the function of that name."""
        return latest_checkpoint(self.path)

    def rewind(self, step: int | None) -> None:
        """Forget all that came after the checkpoint of `step` (None: all), since it will be played again.

        Raises:
            RunError: a line of metrics.jsonl (not a half-written last one) is malformed, or the disk failed.
        """
        last = -1 if step is None else step
        checkpoints = list_checkpoints(self.path / "checkpoints")
        assert step is None or step in dict(checkpoints), f"there is no checkpoint of step {step}"
        file = self.path / "metrics.jsonl"
        kept = b"".join(line + b"\n" for number, line, _ in _rows(file) if number <= last)
        with writing(self.path):
            # Newest first, records last: killed in between, the next rewind still finds them in agreement.
            for later, folder in [*reversed(checkpoints), *list_snapshots(self.path)]:
                if later > last:
                    remove_folder(folder)
            for later, played in episode_files(self.path / "episodes"):
                if later > last:
                    played.unlink()
            for measured, evaluated in list_evaluations(self.path):
                if measured > last:
                    evaluated.unlink()
            if self._metrics is not None:
                self._metrics.close()
            replace(file, kept)
        self._scalars.close()
        self._unsynced.clear()
        self._open_metrics()

    def _open_metrics(self) -> None:
        file = self.path / "metrics.jsonl"
        with writing(file):
            self._metrics = FileIO(file, "a")
        self._last_step, self._seconds_before = -1, 0.0
        for step, _, row in _rows(file):
            self._last_step, self._seconds_before = step, row["time_s"] or 0.0
        self._began = time.monotonic()


def whatif_file(path: str | Path, step: int | None) -> Path:
    """Where branches of a step's episodes are kept in a run directory; None: games that people played."""
    return Path(path) / "whatif" / ("played.jsonl" if step is None else f"step_{step:06d}.jsonl")


def keep_whatif(path: str | Path, step: int | None, episodes: Sequence[Episode]) -> list[Episode]:
    """Add episodes to a `whatif_file`; returns them as they are kept.

    An id that is there already gets the next free number at its end. What a process that was killed has left
    half-written is cut off. Any number of processes may write at the same time.

    Raises:
        RunError: it could not be written.
    """
    file = whatif_file(path, step)
    with writing(file):
        file.parent.mkdir(exist_ok=True)
        with FileIO(file, "a+") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX)
            opened.seek(0)
            content = opened.readall()
            opened.truncate(content.rfind(b"\n") + 1)
            taken = _ids(content)
            kept = []
            for episode in episodes:
                name = _free(episode.match.id, taken)
                taken.add(name)
                kept.append(dataclasses.replace(episode, match=dataclasses.replace(episode.match, id=name)))
            append(opened, "".join(f"{episode_to_json(episode)}\n" for episode in kept).encode())
            os.fsync(opened.fileno())
    return kept


def whatif_ids(path: str | Path, step: int | None) -> set[str]:
    """The ids of the episodes in a `whatif_file`, which need not be there."""
    file = whatif_file(path, step)
    return _ids(file.read_bytes()) if file.is_file() else set()


def _ids(content: bytes) -> set[str]:
    """The ids of the episodes among the finished lines."""
    found = set()
    for line in content.split(b"\n")[:-1]:
        with suppress(ValueError, TypeError, KeyError):  # a damaged line is nobody's
            found.add(str(json.loads(line)["match"]["id"]))
    return found


def _free(name: str, taken: Collection[str]) -> str:
    """The name, with the next number at its end for which it is not taken; it must end with one."""
    stem = name.rstrip("0123456789")
    number = int(name[len(stem) :])
    while f"{stem}{number}" in taken:
        number += 1
    return f"{stem}{number}"


def list_evaluations(path: str | Path) -> list[tuple[int, Path]]:
    """Step and file of what was measured in a run directory, in the order of steps."""
    named = ((re.fullmatch(r"step_(\d+)", file.stem), file) for file in (Path(path) / "evaluations").glob("*.json"))
    return sorted((int(match[1]), file) for match, file in named if match)


def read_evaluation(path: str | Path, step: int) -> dict[str, Any] | None:
    """What was measured at a step of a run directory; None when nothing was.

    Raises:
        RunError: the file is damaged.
    """
    file = _evaluation_file(Path(path), step)
    if not file.is_file():
        return None
    try:
        result = json.loads(file.read_bytes())
    except ValueError as error:
        raise RunError(f"{file}: damaged ({error}); delete it to measure again") from error
    if not isinstance(result, dict):
        raise RunError(f"{file}: damaged (not an object); delete it to measure again")
    return result


def _evaluation_file(path: Path, step: int) -> Path:
    return path / "evaluations" / f"step_{step}.json"


def read_metrics(path: str | Path) -> list[Metrics]:
    """The steps of a metrics file, or of a run directory, without a last line that is not finished.

    Raises:
        RunError: there is no such file, or a line is malformed (file and line are named).
    """
    path = Path(path)
    return [row for _, _, row in _rows(path / "metrics.jsonl" if path.is_dir() else path)]


def latest_run(config: Config) -> Path | None:
    """The newest run directory with the name and seed of these settings, or None."""
    return max(_numbered(config).items(), default=(0, None))[1]


def _rows(file: Path) -> Iterator[tuple[int, bytes, Metrics]]:
    """Step, line and content of each finished line."""
    if not file.is_file():
        raise RunError(f"{file}: no such file")
    *lines, _unfinished = file.read_bytes().split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            step = operator.index(row["step"])
            float(row["time_s"])
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(f"{file}:{number}: not the metrics of a step: {line[:60]!r}") from error
        yield step, line, row


def _numbered(config: Config) -> dict[int, Path]:
    base = Path(config.run.dir) / f"{config.run.name}-seed{config.run.seed}"
    named = ((re.fullmatch(rf"{re.escape(base.name)}-(\d+)", path.name), path) for path in _siblings(base))
    return {int(match[1]): path for match, path in named if match}


def _siblings(path: Path) -> Iterable[Path]:
    return path.parent.iterdir() if path.parent.is_dir() else ()


def _next_path(config: Config) -> Path:
    number = max(_numbered(config), default=0) + 1
    return Path(config.run.dir) / f"{config.run.name}-seed{config.run.seed}-{number}"


def _rename_to_new(source: Path, target: Path) -> bool:
    """Whether it was renamed: the system refuses to put it onto a file or a folder that holds something."""
    try:
        source.rename(target)
    except (FileExistsError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False
    return True


def _lock(path: Path) -> int:
    """Lock a run directory until the returned descriptor is closed, or this process dies."""
    descriptor = os.open(path / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        owner = os.read(descriptor, 20).decode()
        os.close(descriptor)
        raise RunError(f"{path} is in use by process {owner or '(just started)'}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor
