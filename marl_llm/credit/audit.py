"""Where a number comes from: each turn's reward parts, stage values, and who it was compared with."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from marl_llm.credit.load import Step
from marl_llm.credit.needs import lacking, needs, refused
from marl_llm.credit.recipe import Credited, Recipe, State, credit_table
from marl_llm.credit.table import FloatArray, turn_table
from marl_llm.types import Episode


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditRow:
    """One turn. Most mappings go by recipe; a second recipe of one name is called `name_2`."""

    episode: str
    """Id of the match."""
    turn: int
    """Index of the turn in the episode."""
    group: str
    """Group of the match."""
    agent: str
    """Who decided."""
    role: str
    """What the agent was doing."""
    action: str | None
    """What was played."""
    rewards: Mapping[str, float | None]
    """The parts that were due; None: could not be measured."""
    stages: Mapping[str, Mapping[str, float | None]]
    """By recipe, each stage's value; None: unknown."""
    advantages: Mapping[str, float]
    """By recipe, the advantage."""
    keys: Mapping[str, str]
    """By recipe, the key of its first stage that compares turns; absent where none does."""
    members: Mapping[str, tuple[str, ...]]
    """By recipe, all turns of that key as `episode#turn`, this one included."""
    tokens: Mapping[str, tuple[float, ...]]
    """By recipe that values tokens, their advantages; `stages` and `advantages` have the means over them then."""


def credited_batches(
    batches: Mapping[str, Iterable[Episode]], recipes: Sequence[Recipe]
) -> Iterator[tuple[str, list[Credited]]]:
    """What the recipes make of one training step after the other, as in training: nothing is compared across steps,
    and what a recipe remembers goes from step to step.

    `batches`: by name, in order. The first one is a fresh start.

    Raises:
        ConfigError: see `credit`; or, after the last one, none of them holds a quantity or part that a recipe needs.
    """
    states: list[State | None] = [None] * len(recipes)
    missing = [{*needs(recipe), *recipe.parts} for recipe in recipes]
    for name, episodes in batches.items():
        turns = turn_table(episodes, tokens=any("tokens" in needs(recipe) for recipe in recipes))
        for number, recipe in enumerate(recipes):
            missing[number] &= lacking(recipe, turns)
        credited = [credit_table(turns, recipe, state) for recipe, state in zip(recipes, states, strict=True)]
        states = [one.state for one in credited]
        yield name, credited
    for recipe, lacks in zip(recipes, missing, strict=True):
        if lacks:
            raise refused(recipe, min(lacks))


def audit(credited: Sequence[Credited], *, batch: str = "") -> tuple[AuditRow, ...]:
    """Line up what several recipes made of the same episodes, one row per turn in canonical order.

    `batch`: put before every key, so that the rows of several batches can be shown together.
    """
    if not credited:
        return ()
    names = _unique([one.recipe.name for one in credited])
    table = credited[0].turns
    for one in credited:
        assert np.array_equal(one.turns.episode, table.episode), "recipes must see the same episodes"
        assert np.array_equal(one.turns.turn, table.turn), "recipes must see the same episodes"
    compared = {name: _compared(one, batch) for name, one in zip(names, credited, strict=True)}
    keyed = {name: found for name, found in compared.items() if found is not None}
    stages = {name: _stage_values(one) for name, one in zip(names, credited, strict=True)}
    advantages = {n: np.nan_to_num(one.per_turn(one.advantages)) for n, one in zip(names, credited, strict=True)}
    tokens = {
        name: one.by_turn(one.advantages) for name, one in zip(names, credited, strict=True) if one.table.by_token
    }
    keys = zip(table.episode.tolist(), table.turn.tolist(), strict=True)
    told = [[str(text) for text in table.column(name)] for name in ("group", "agent", "role")]
    return tuple(
        AuditRow(
            episode=episode,
            turn=turn,
            group=told[0][row],
            agent=told[1][row],
            role=told[2][row],
            action=table.actions[row],
            rewards={
                part: or_none(table.rewards_NP[row, column])
                for column, part in enumerate(table.parts)
                if table.due_NP[row, column]
            },
            stages={name: stages[name][row] for name in names},
            advantages={name: float(values[row]) for name, values in advantages.items()},
            keys={name: labels[row] for name, (labels, _) in keyed.items()},
            members={name: groups[labels[row]] for name, (labels, groups) in keyed.items()},
            tokens={name: _several(values.get((episode, turn), ())) for name, values in tokens.items()},
        )
        for row, (episode, turn) in enumerate(keys)
    )


def as_json(rows: Sequence[AuditRow]) -> dict[str, Any]:
    """The audit as plain values: `rows`, and once under `groups` the members of each recipe's keys."""
    groups: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        for name, key in row.keys.items():
            turns = groups.setdefault(name, {})
            if key not in turns:
                turns[key] = list(row.members[name])
    shown = [field.name for field in fields(AuditRow) if field.name != "members"]
    plain = [{name: getattr(row, name) for name in shown} for row in rows]
    return {"recipes": list(rows[0].advantages) if rows else [], "rows": plain, "groups": groups}


def table(rows: Sequence[AuditRow]) -> Table:
    """The audit for the terminal: of one recipe whom a turn is held against and all stages, of several the advantages.

    The stages of several would not fit a screen: `origins` has them, turn by turn.
    """
    drawn = Table(title="credit per turn")
    for header in ("turn", "role", "action", "rewards"):
        drawn.add_column(header)
    if not rows:
        return drawn
    recipes = list(rows[0].advantages)
    alone = recipes[0] if len(recipes) == 1 else None
    if alone is not None:
        drawn.add_column("compared with")
        for label in rows[0].stages[alone]:
            drawn.add_column(label, justify="right", style="dim")
    for name in recipes:
        drawn.add_column(name, justify="right", style="bold")
    for row in rows:
        cells = [f"{row.episode}#{row.turn}", row.role, row.action or "-", parts_text(row.rewards)]
        if alone is not None:
            cells.append(f"{len(row.members[alone])} turns" if alone in row.members else "-")
            cells += [number_text(value) for value in row.stages[alone].values()]
        cells += [number_text(row.advantages[name]) for name in recipes]
        drawn.add_row(*map(Text, cells))
    return drawn


def _compared(credited: Credited, batch: str) -> tuple[list[str], dict[str, tuple[str, ...]]] | None:
    """Key of each row under the recipe's first comparing stage, and the turns of each key."""
    keys = _first_keys(credited.recipe.stages)
    if keys is None:
        return None
    table = credited.turns
    labels = [table.described(keys, row) for row in range(len(table))]
    labels = [f"{batch} {label}" if batch else label for label in labels]
    groups: dict[str, list[str]] = {}
    for label, episode, turn in zip(labels, table.episode.tolist(), table.turn.tolist(), strict=True):
        groups.setdefault(label, []).append(f"{episode}#{turn}")
    return labels, {label: tuple(turns) for label, turns in groups.items()}


def _first_keys(steps: Sequence[Step]) -> tuple[str, ...] | None:
    for step in steps:
        for term in step.terms:
            inner = _first_keys(term.steps)
            if inner is not None:
                return inner
        if step.keys is not None:
            return step.keys
    return None


def _stage_values(credited: Credited) -> list[dict[str, float | None]]:
    columns = [(label, _plain(credited.per_turn(values_N))) for label, values_N in credited.trace]
    return [{label: column[row] for label, column in columns} for row in range(len(credited.turns))]


def _plain(values_N: FloatArray) -> list[float | None]:
    return [or_none(value) for value in values_N.tolist()]


def _several(values: float | Sequence[float]) -> tuple[float, ...]:
    return (values,) if isinstance(values, float) else tuple(values)


def or_none(value: float) -> float | None:
    """The number; None where it is unknown."""
    return None if np.isnan(value) else float(value)


def _unique(names: Sequence[str]) -> list[str]:
    return [
        name if names[:index].count(name) == 0 else f"{name}_{names[:index].count(name) + 1}"
        for index, name in enumerate(names)
    ]


def parts_text(rewards: Mapping[str, float | None]) -> str:
    """Reward parts in words."""
    return " ".join(f"{part} {number_text(value)}" for part, value in rewards.items()) or "-"


def number_text(value: float | None) -> str:
    """A number in words."""
    return "?" if value is None else f"{value:+.4g}"
