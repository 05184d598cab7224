"""What is being done for the page: one thing after the other, in a thread of its own."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import Any

from marl_llm.errors import MarlError

KEPT = 200
"""Jobs of which is remembered what came of them."""
Tell = Callable[[Mapping[str, Any]], None]
"""Told `doing`, in words, and how much is `done` of how much."""


@dataclass
class Job:
    """One thing to be done."""

    state: str = "waiting"
    """`waiting`, `running`, `done` or `failed`."""
    doing: str = ""
    """In words."""
    done: int = 0
    """How much of it."""
    of: int = 0
    """How much there is."""
    result: Any = None
    """What came of it."""
    error: str = ""
    """Why nothing did."""


class Jobs:
    """All of them, by name."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._numbers = count(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="acts")

    def begin(self, work: Callable[[Tell], Any]) -> str:
        """Do it when what was asked for before is done; its name."""
        name, job = f"j{next(self._numbers)}", Job()
        self._jobs[name] = job
        while len(self._jobs) > KEPT:
            self._jobs.popitem(last=False)
        self._thread.submit(self._run, job, work)
        return name

    def get(self, name: str) -> Job:
        """How it is.

        Raises:
            LookupError: there is none of that name.
        """
        if name not in self._jobs:
            raise LookupError(f"there is no job {name!r}; the server may have been started anew")
        return self._jobs[name]

    def close(self) -> None:
        """Begin nothing more; what is being done must be ended by whoever does it."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    @staticmethod
    def _run(job: Job, work: Callable[[Tell], Any]) -> None:
        def tell(told: Mapping[str, Any]) -> None:
            job.doing, job.done, job.of = (told.get(name, getattr(job, name)) for name in ("doing", "done", "of"))

        job.state = "running"
        try:
            job.result = work(tell)
            job.state = "done"
        except MarlError as error:
            job.state, job.error = "failed", str(error)
        except Exception as error:  # the page is told, and the next job is done
            job.state, job.error = "failed", f"{type(error).__name__}: {error}"
