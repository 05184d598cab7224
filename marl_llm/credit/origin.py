"""Where one turn's number comes from: what went into each stage of a recipe and what came out, and whom it was compared
with there."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.text import Text
from rich.tree import Tree

from marl_llm.credit.audit import number_text, or_none
from marl_llm.credit.load import Step
from marl_llm.credit.recipe import Credited
from marl_llm.credit.stages import TRAJECTORY
from marl_llm.errors import ConfigError

SHOWN = 12
"""Members of a key that the terminal shows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """One stage, of one turn; of a recipe that values tokens, with the means over the turn's tokens."""

    label: str
    """The stage's label in the recipe."""
    before: float | None
    """What went in; None: nothing did, or it is unknown."""
    after: float | None
    """What came out; None: unknown."""
    key: str | None
    """What those it is compared with share; None where the stage compares nothing."""
    members: tuple[tuple[str, float | None], ...]
    """Those, itself included: `episode#turn`, and what went in."""

    @property
    def baseline(self) -> float | None:
        """What was taken off."""
        return None if self.before is None or self.after is None or self.key is None else self.before - self.after


def origins(credited: Credited, episode: str, turn: int) -> tuple[Origin, ...]:
    """Every stage of the recipe, for one turn.

    Raises:
        ConfigError: these episodes have no such turn.
    """
    turns = credited.turns
    found = np.flatnonzero((turns.episode == episode) & (turns.turn == turn))
    if not len(found):
        raise ConfigError(f"credit: there is no turn {episode}#{turn} in these episodes")
    values = {label: credited.per_turn(values_N) for label, values_N in credited.trace}
    return tuple(_origins(credited, credited.recipe.stages, values, int(found[0])))


def _origins(credited: Credited, steps: Sequence[Step], values: dict[str, Any], row: int) -> Iterator[Origin]:
    before_N = None
    for step in steps:
        for term in step.terms:
            yield from _origins(credited, term.steps, values, row)
        keys = _keys(step)
        key, members = (None, ()) if keys is None else _members(credited, keys, before_N, row)
        yield Origin(
            label=step.label,
            before=None if before_N is None else or_none(before_N[row]),
            after=or_none(values[step.label][row]),
            key=key,
            members=members,
        )
        before_N = values[step.label]


def _keys(step: Step) -> tuple[str, ...] | None:
    """By what a stage puts turns together; None where it looks at one alone."""
    if step.stage in ("returns", "broadcast", "gae", "segments", "prover", "gain", "soft_min"):
        return TRAJECTORY
    return step.keys


def _members(
    credited: Credited, keys: Sequence[str], before_N: Any, row: int
) -> tuple[str | None, tuple[tuple[str, float | None], ...]]:
    turns = credited.turns
    codes_N, _ = turns.key(keys)
    rows = np.flatnonzero(codes_N == codes_N[row]).tolist()
    names = [f"{turns.episode[other]}#{turns.turn[other]}" for other in rows]
    numbers = [None if before_N is None else or_none(before_N[other]) for other in rows]
    return turns.described(keys, row), tuple(zip(names, numbers, strict=True))


def origins_json(found: Sequence[Origin]) -> list[dict[str, Any]]:
    """As plain values."""
    return [asdict(origin) for origin in found]


def origins_tree(recipe: str, rewards: str, advantage: float, found: Sequence[Origin], *, by_token: bool) -> Tree:
    """For the terminal. `by_token`: say that numbers are means over the turn's tokens."""
    means = "; numbers are means over its tokens" if by_token else ""
    tree = Tree(Text(f"{recipe}: {advantage:+.4g}   (reward parts: {rewards}{means})"))
    for origin in found:
        change = "" if origin.before is None else f"{number_text(origin.before)} -> "
        branch = tree.add(Text(f"{origin.label}: {change}{number_text(origin.after)}"))
        if origin.key is not None:
            others = ", ".join(f"{name} {number_text(value)}" for name, value in origin.members[:SHOWN])
            more = f", and {len(origin.members) - SHOWN} more" if len(origin.members) > SHOWN else ""
            branch.add(Text(f"{len(origin.members)} turns share {origin.key}: {others}{more}"))
    return tree
