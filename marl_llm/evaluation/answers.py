"""The answers of a benchmark, one line of a file each: what is there is not asked again."""

import json
from dataclasses import asdict, dataclass, fields
from fcntl import LOCK_EX, LOCK_NB, flock
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

from marl_llm.errors import RunError
from marl_llm.files import append, writing
from marl_llm.types import Status


@dataclass(frozen=True, kw_only=True, slots=True)
class Key:
    """Which answer it is."""

    team: str
    """Whose."""
    run: int
    """Number of the run among the team's."""
    benchmark: str
    """To what."""
    protocol: str
    """How it was found."""
    item: int
    """Number of the question in the benchmark."""
    sample: int
    """Number of the answer among those to the same question."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """One answer to one question."""

    key: Key
    """Which one it is."""
    task: str
    """The question's own name."""
    asked: str
    """A digest of question and gold answer, so that another question under the same number is noticed."""
    step: int | None
    """The checkpoint that answered; None: of policies that belong to no run."""
    answer: str | None
    """What was answered; None: nothing, since the episode did not end by the rules."""
    vote: str | None
    """What it counts as where a majority is looked for: the same for answers that mean the same. None: as nothing."""
    correct: float
    """How right it is, 0.0 to 1.0; 0.0 where there is none."""
    tokens: int
    """Sampled tokens, of all agents."""
    prompt_tokens: int
    """Tokens read, of all agents."""
    turns: int
    """Decisions of all agents."""
    seconds: float
    """From the answer before it, of all that are asked side by side, to this one."""
    status: Status = "done"
    """How the episode ended."""
    note: str = ""
    """Why, if not by the rules."""

    @property
    def failed(self) -> bool:
        """Whether there is no answer, which counts as a wrong one."""
        return self.answer is None


class AnswerFile:
    """A file of answers that this process adds to; whatever the moment it is killed, whole lines are there."""

    def __init__(self, path: Path) -> None:
        """Open the file, or make it; a last line that is not whole is cut off.

        Raises:
            RunError: another process adds to it, it cannot be written, or a line is no answer (it is named).
        """
        self._path = path
        with writing(path):
            self._file = FileIO(path, "a+")
        try:
            flock(self._file, LOCK_EX | LOCK_NB)
            whole, known = _read(path, self._file)
            self._file.truncate(whole)
        except BlockingIOError as error:
            self._file.close()
            raise RunError(f"{path}: another process is adding to it") from error
        except RunError:
            self._file.close()
            raise
        self.answers = {answer.key: answer for answer in known}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, answer: Answer) -> None:
        """Write the answer down; of two with the same key the later one counts.

        Raises:
            RunError: it could not be written; the file is as before.
        """
        data = asdict(answer)
        row = {**data.pop("key"), **data}
        with writing(self._path):
            append(self._file, json.dumps(row, allow_nan=False).encode() + b"\n")
        self.answers[answer.key] = answer


def read_answers(path: Path) -> list[Answer]:
    """All answers of a file, of those with the same key the last; whoever adds to it is not disturbed.

    Raises:
        RunError: there is no such file, or a line is no answer (it is named).
    """
    if not path.is_file():
        raise RunError(f"{path}: no such file")
    with FileIO(path) as file:
        return list({answer.key: answer for answer in _read(path, file)[1]}.values())


def _read(path: Path, file: FileIO) -> tuple[int, list[Answer]]:
    """How many bytes are whole lines, and the answers in them."""
    file.seek(0)
    data = file.readall()
    *lines, unfinished = data.split(b"\n")
    answers = []
    for number, line in enumerate(lines, start=1):
        try:
            answers.append(_answer(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RunError(f"{path}:{number}: not an answer: {line[:60]!r}") from error
    return len(data) - len(unfinished), answers


def _answer(row: dict[str, object]) -> Answer:
    key = Key(**{field.name: row.pop(field.name) for field in fields(Key)})  # type: ignore[arg-type]
    return Answer(key=key, **row)  # type: ignore[arg-type]
