"""Running a recipe over episodes: what it makes of them, stage by stage."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from marl_llm.credit.load import PLAIN, REMEMBERING, SOURCES, Recipe, Step, Term, load_recipe
from marl_llm.credit.needs import check_table, lacking, needs
from marl_llm.credit.stages import Signal
from marl_llm.credit.table import FloatArray, TurnTable, turn_table
from marl_llm.types import Episode

__all__ = ["Credited", "Recipe", "State", "credit", "credit_table", "load_recipe", "remembers"]

State = Mapping[str, Mapping[str, float]]
"""What stages remember from batch to batch: label of the stage, key, number. JSON keeps it exactly."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Credited:
    """What a recipe made of some episodes."""

    recipe: Recipe
    """Which recipe."""
    turns: TurnTable
    """The turns, in canonical order."""
    table: TurnTable
    """What the recipe's rows are: those turns, or their tokens; N rows."""
    advantages: FloatArray
    """Advantage per row; finite: 0 where it is unknown."""
    weights: FloatArray
    """Weight of each row in the loss."""
    trace: tuple[tuple[str, FloatArray], ...]
    """Label of each stage and its value per row, NaN where unknown."""
    state: State
    """To hand to the next call, and to save."""

    @property
    def unknown(self) -> set[tuple[str, int]]:
        """(match id, turn index) of the turns of which the recipe could not tell anything."""
        return {turn for turn, values in self.by_turn(self.trace[-1][1]).items() if np.all(np.isnan(values))}

    def metrics(self) -> dict[str, float]:
        """Of the rows with sampled tokens and a weight: `credit/zero`, the share whose advantage is 0, and
        `credit/unknown`, the share of which the recipe cannot tell anything. Empty where there are none."""
        counted_N = (self.weights > 0) & (self.table.length > 0)
        if not counted_N.any():
            return {}
        return {
            "credit/zero": float((self.advantages[counted_N] == 0).mean()),
            "credit/unknown": float(np.isnan(self.trace[-1][1][counted_N]).mean()),
        }

    def per_turn(self, values_N: FloatArray) -> FloatArray:
        """A value per row as one per turn: the mean over its tokens; NaN where it has no row."""
        rows, num_turns = self.table.turn_row, len(self.turns)
        count = np.bincount(rows, minlength=num_turns)
        mean = np.bincount(rows, values_N, num_turns)
        result: FloatArray = np.divide(mean, count, out=np.full(num_turns, np.nan), where=count > 0)
        return result

    def by_turn(self, values_N: FloatArray) -> dict[tuple[str, int], float | Sequence[float]]:
        """(match id, turn index) -> the value of its row, or those of its tokens. Turns without a row are left out."""
        keys = list(zip(self.turns.episode.tolist(), self.turns.turn.tolist(), strict=True))
        if not self.table.by_token:
            return dict(zip(keys, values_N.tolist(), strict=True))
        bounds = np.searchsorted(self.table.turn_row, np.arange(len(keys) + 1))
        values = values_N.tolist()
        return {key: values[a:b] for key, a, b in zip(keys, bounds[:-1], bounds[1:], strict=True) if a < b}


def credit(episodes: Iterable[Episode], recipe: Recipe, state: State | None = None) -> Credited:
    """Compute the advantage of every turn; episodes with status `fault` take part in nothing.

    The order of the episodes changes nothing. `state` is that of the previous call; None: a fresh start.

    Raises:
        ConfigError: two episodes have the same id, or a stage needs what the episodes do not hold.
    """
    return credit_table(turn_table(episodes, tokens="tokens" in needs(recipe)), recipe, state)


def credit_table(turns: TurnTable, recipe: Recipe, state: State | None = None) -> Credited:
    """As `credit`, over a table of turns that may have been made by hand."""
    check_table(recipe, turns)
    # What nobody could measure in this step is unknown, and no error: another step may have it.
    unknown = {name: np.full(len(turns), np.nan) for name in lacking(recipe, turns) - {*recipe.parts}}
    turns = replace(turns, probes={**turns.probes, **unknown}) if unknown else turns
    table = turns.of_tokens() if recipe.by_token else turns
    signal, trace, state = _run(table, recipe.stages, state or {})
    return Credited(
        recipe=recipe,
        turns=turns,
        table=table,
        advantages=np.nan_to_num(signal.values_N),
        weights=signal.weights_N,
        trace=trace,
        state=state,
    )


Trace = tuple[tuple[str, FloatArray], ...]


def _run(table: TurnTable, steps: Sequence[Step], state: State) -> tuple[Signal, Trace, State]:
    signal, trace, state = _first(table, steps[0], state)
    for step in steps[1:]:
        if step.stage in REMEMBERING:
            memory = state.get(step.label, {})
            signal, memory = REMEMBERING[step.stage](table, signal, memory, **step.params)
            state = {**state, step.label: memory}
        else:
            signal = PLAIN[step.stage](table, signal, **step.params)
        trace += ((step.label, signal.values_N),)
    return signal, trace, state


def _first(table: TurnTable, step: Step, state: State) -> tuple[Signal, Trace, State]:
    trace: Trace = ()
    if step.stage == "sum":
        signal, trace, state = _sum(table, step.terms, state)
    else:
        signal = SOURCES[step.stage](table, **step.params)
    return signal, (*trace, (step.label, signal.values_N)), state


def _sum(table: TurnTable, terms: Sequence[Term], state: State) -> tuple[Signal, Trace, State]:
    trace: Trace = ()
    values_N, illegal_N = np.zeros(len(table)), np.zeros(len(table), dtype=np.bool_)
    for term in terms:
        signal, inner, state = _run(table, term.steps, state)
        trace += inner
        values_N = values_N + term.weight * signal.values_N
        illegal_N = illegal_N | signal.illegal_N
    return Signal(values_N=values_N, illegal_N=illegal_N, weights_N=table.weight), trace, state


def remembers(recipe: Recipe) -> bool:
    """Whether what it makes of a step depends on earlier ones."""
    return _any_remembers(recipe.stages)


def _any_remembers(steps: Sequence[Step]) -> bool:
    return any(s.stage in REMEMBERING or any(_any_remembers(term.steps) for term in s.terms) for s in steps)
