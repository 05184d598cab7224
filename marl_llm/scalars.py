"""TensorBoard scalars, written by this thread: the disk's errors arrive where they can be reported.

(TensorBoard's own writer has a thread that dies of a full disk with a stack trace.)
"""

import time
from collections.abc import Mapping
from io import BytesIO, FileIO
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # type: ignore[import-untyped]
from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]
from tensorboard.summary.writer.record_writer import RecordWriter  # type: ignore[import-untyped]

from marl_llm.files import append


class Scalars:
    """One event file per session; TensorBoard hides what earlier ones hold from its first step on."""

    def __init__(self, folder: Path) -> None:
        """Nothing is written before the first step."""
        self._folder = folder
        self._file: FileIO | None = None

    def write(self, step: int, values: Mapping[str, float | None]) -> None:
        """Append a step's values; None is left out.

        Raises:
            OSError: it could not be written; the file is as it was.
        """
        if self._file is None:
            self._file = self._begin(step)
        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items() if value is not None]
        append(self._file, _record(Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))))

    def close(self) -> None:
        """Close the session's file; the next step begins another."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _begin(self, step: int) -> FileIO:
        number = len(list(self._folder.glob("events.out.tfevents.*")))
        file = FileIO(self._folder / f"events.out.tfevents.{number:06d}", "a")
        start = SessionLog(status=SessionLog.START)  # the mark that hides
        append(file, _record(Event(wall_time=time.time(), file_version="brain.Event:2")))
        append(file, _record(Event(wall_time=time.time(), step=step, session_log=start)))
        return file


def _record(event: Event) -> bytes:
    buffer = BytesIO()
    RecordWriter(buffer).write(event.SerializeToString())
    return buffer.getvalue()
