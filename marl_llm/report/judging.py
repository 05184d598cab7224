"""Advantages of logged episodes, by the recipe that the run learns by."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any

from marl_llm.checkpoints import checkpoint_values, list_checkpoints
from marl_llm.credit.recipe import Recipe, State, credit, load_recipe, remembers
from marl_llm.errors import MarlError
from marl_llm.report.logs import RunLog
from marl_llm.types import Episode

Advantages = dict[tuple[str, int], float]
"""(match id, turn index) -> advantage; turns of which the recipe cannot tell anything are left out."""


@dataclass(kw_only=True)
class Judge:
    """What the run's recipe makes of single steps."""

    recipe: Recipe | None
    """None: it cannot be read any more."""
    notes: list[str] = field(default_factory=list)
    """What a reader has to know about the numbers."""
    _states: list[tuple[int, Path]] = field(default_factory=list)
    _fresh: list[int] = field(default_factory=list)

    @staticmethod
    def of(log: RunLog) -> "Judge":
        """The judge of a run."""
        try:
            recipe = load_recipe(log.config.credit)
        except (MarlError, OSError) as error:
            return Judge(recipe=None, notes=[f"Advantages are not known, since the recipe cannot be read: {error}"])
        judge = Judge(recipe=recipe)
        if remembers(recipe):
            judge._states = list_checkpoints(log.path / "checkpoints")
            judge.notes.append(
                "The recipe remembers earlier steps. What it remembered is taken from the nearest checkpoint before "
                "each sampled step, where there is one; else it begins fresh. Its numbers are not quite those of "
                "training then."
            )
        return judge

    @property
    def name(self) -> str:
        """The recipe's name, or why there is none."""
        return self.recipe.name if self.recipe is not None else "unknown"

    def advantages(self, step: int, episodes: Sequence[Episode]) -> Advantages:
        """What the episodes of one step, all of them, are worth; empty where that cannot be told (see `notes`)."""
        if self.recipe is None:
            return {}
        try:
            credited = credit(episodes, self.recipe, self._state(step))
        except (MarlError, ValueError, TypeError, OverflowError) as error:  # an episode may hold anything
            note = f"Advantages of some steps are not known: {error}"
            if note not in self.notes:
                self.notes.append(note)
            return {}
        turns, unknown = credited.turns, credited.unknown
        values = credited.per_turn(credited.advantages).tolist()
        keys = zip(turns.episode.tolist(), turns.turn.tolist(), strict=True)
        return {key: value for key, value in zip(keys, values, strict=True) if key not in unknown and isfinite(value)}

    def _state(self, step: int) -> State | None:
        for at, folder in reversed(self._states):
            if at < step:
                try:
                    state: Any = checkpoint_values(folder)["credit"]
                except (OSError, json.JSONDecodeError, KeyError, TypeError):
                    continue
                return state if isinstance(state, dict) else None
        return None
