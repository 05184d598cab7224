"""The process that loads models and acts for a watcher: `python -m marl_llm.watch.worker RUN`.

A request is a line of JSON on the standard input: `{"id": 1, "do": "branch", ...}`. The answers to it are lines on the
standard output: any number of `{"id": 1, "doing": "playing", "done": 3, "of": 8}`, then `{"id": 1, "result": {...}}` or
`{"id": 1, "error": "one line"}`. Requests are done in their order, one at a time:

- `branch`: `file` and `offset` (bytes) of the episode's line, and what a `whatif.Wish` has
- `score`: `file`, `offset` and `step`
- `play`: what a `tables.Game` has
- `move`: `table` and `reply`

The process ends when its standard input does, whatever it is doing then.
"""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TextIO, TypeVar

import torch

from marl_llm.errors import ConfigError, MarlError
from marl_llm.types import Episode
from marl_llm.watch.reading import read_one
from marl_llm.watch.seats import Seats
from marl_llm.watch.tables import Game, Tables
from marl_llm.watch.whatif import Json, Tell, Wish, branched, scored

T = TypeVar("T")


class Actor:
    """Does what is asked for."""

    def __init__(self, run: Path, *, device: str | None = None, first_table: int = 1) -> None:
        """`device`: see `Seats`; `first_table`: see `Tables`.

        Raises:
            RunError, ConfigError: it is no run directory.
        """
        self._seats = Seats(run, device=device)
        self._tables = Tables(self._seats, first=first_table)

    @property
    def threads(self) -> int | None:
        """Threads for tensor operations; None: PyTorch's choice."""
        return self._seats.config.run.threads

    def do(self, request: Mapping[str, Any], tell: Tell) -> Json:
        """The result of one request.

        Raises:
            MarlError: it could not be done.
        """
        doing = request.get("do")
        if doing == "branch":
            original, at = self._episode(request)
            return branched(self._seats, original, at, _made(Wish, request), tell)
        if doing == "score":
            original, at = self._episode(request)
            return scored(self._seats, original, at, request.get("step"), tell)
        if doing == "play":
            return self._tables.begin(_made(Game, request), tell)
        if doing == "move":
            return self._tables.move(request["table"], request["reply"], tell)
        raise ConfigError(f"do: {doing!r} is not allowed; it must be branch, score, play or move")

    def _episode(self, request: Mapping[str, Any]) -> tuple[Episode, int | None]:
        """The episode of the line that begins at `offset` in `file`, and the step that it is of; None: no step's."""
        file = Path(request["file"])
        episode = read_one(file, request["offset"])
        step = re.fullmatch(r"step_(\d+)\.jsonl", file.name)
        return episode, None if step is None else int(step[1])


def _made(kind: type[T], request: Mapping[str, Any]) -> T:
    """What is wished for, of those keys of a request that are about it and not null."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    try:
        return kind(**{key: value for key, value in request.items() if key in known and value is not None})
    except TypeError as error:
        raise ConfigError(f"the request is not complete: {error}") from error


def serve(actor: Actor, requests: Iterator[Mapping[str, Any]], out: TextIO) -> None:
    """Answer all requests."""

    def say(line: Mapping[str, Any]) -> None:
        out.write(f"{json.dumps(line)}\n")
        out.flush()

    for request in requests:
        number = request["id"]

        def tell(doing: str, done: int, of: int, number: object = number) -> None:
            say({"id": number, "doing": doing, "done": done, "of": of})

        try:
            say({"id": number, "result": actor.do(request, tell)})
        except MarlError as error:
            say({"id": number, "error": " ".join(str(error).split())})
        except Exception as error:  # a game's, a model's or ours: the next request may go well
            traceback.print_exc()
            say({"id": number, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"})


def _requests(stdin: TextIO) -> Iterator[Mapping[str, Any]]:
    """The requests, in their order. The process ends when there can be no more."""
    queue: SimpleQueue[Mapping[str, Any]] = SimpleQueue()

    def read() -> None:
        try:
            for line in stdin:
                queue.put(json.loads(line))
        finally:
            os._exit(0)  # in the middle of whatever is done for nobody now

    Thread(target=read, name="requests", daemon=True).start()
    while True:
        yield queue.get()


def _step_back() -> None:
    """Let training go first: on the CPU, and where memory is short."""
    os.nice(10)
    try:
        Path("/proc/self/oom_score_adj").write_text("500")
    except OSError:  # another system
        return


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="run directory")
    parser.add_argument("--device", help="of all models; default: where the run has them")
    parser.add_argument("--first-table", type=int, default=1, help="number of the first table")
    given = parser.parse_args()
    # Whatever games and libraries print goes to the standard error.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _step_back()
    actor = Actor(given.run, device=given.device, first_table=given.first_table)
    if actor.threads is not None:
        torch.set_num_threads(actor.threads)
    serve(actor, _requests(sys.stdin), out)


if __name__ == "__main__":
    main()
