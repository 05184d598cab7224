"""Tasks that a generator makes from a seed: any number of them, each by its index, in two splits that share none."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from games.tasks.base import Split, Task, TaskSet

TEST_SHARE = 0.2
"""Share of what there is that belongs to the test split."""
ATTEMPTS = 2000
"""Draws until a split is given up as empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A task before it has a place in a set."""

    prompt: str
    """What is asked."""
    answer: str
    """The gold answer."""
    check: str
    """Name of the checker."""
    split: Split
    """Where it belongs, whoever draws it; the same for tasks that could be learned from each other by heart."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What else is known."""


Maker = Callable[[Random], Draft]
"""A generator with its settings: a random task at every call."""


def split_of(key: str) -> Split:
    """The split that a key belongs to, by its hash: the same in every process, whatever else there is."""
    return "test" if hashed(key) < TEST_SHARE else "train"


def hashed(key: str) -> float:
    """A number from 0 to 1 that looks random, the same in every process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest(), "big") / 2**32


def generated(name: str, maker: Maker, *, split: Split, size: int) -> TaskSet:
    """`size` tasks; the one at an index depends on name, split and index only, `name` having all settings in it.

    In a small space of tasks, some come more than once in a split, and never in both.
    """

    def make(index: int) -> Task:
        draws = Random(f"{name}/{split}/{index}")
        for _ in range(ATTEMPTS):
            draft = maker(draws)
            if draft.split == split:
                return Task(
                    id=f"{name}/{split}/{index}",
                    prompt=draft.prompt,
                    answer=draft.answer,
                    check=draft.check,
                    metadata=draft.metadata,
                )
        raise ValueError(f"tasks {name}: {ATTEMPTS} draws gave none of split {split!r}; widen the settings")

    return TaskSet(name=f"{name}/{split}", size=size, make=make)
