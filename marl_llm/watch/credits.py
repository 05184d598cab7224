"""What credit makes of a step's episodes, computed when somebody looks."""

from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import numpy as np

from marl_llm.checkpoints import checkpoint_values, list_checkpoints
from marl_llm.credit.load import recipe_names
from marl_llm.credit.needs import lacking, needs, refused
from marl_llm.credit.origin import Origin, origins
from marl_llm.credit.recipe import Credited, Recipe, State, credit, credit_table, load_recipe, remembers
from marl_llm.credit.table import turn_table
from marl_llm.episodes import episode_files
from marl_llm.errors import ConfigError, MarlError, RunError
from marl_llm.types import Episode
from marl_llm.watch.reading import read_whole

KEPT = 8
"""Steps and recipes whose numbers stay in memory."""
AT_ONCE = 10
"""Earlier steps that are read while somebody waits; more are read in the background."""
MEMBERS = 200
"""Turns of a key that are told, those around the turn itself."""


Stamp = tuple[int, int, int]


class ReadingError(Exception):
    """A recipe remembers earlier steps, and they are still being read: ask again."""

    def __init__(self, done: int, of: int) -> None:
        super().__init__(f"it remembers earlier steps, of which {done} of {of} have been read")
        self.done, self.of = done, of


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one recipe makes of one turn."""

    recipe: Recipe
    """Which recipe."""
    advantage: float
    """Of the turn; of a recipe that values tokens the mean."""
    tokens: tuple[float, ...]
    """Of its tokens, if the recipe values them; else empty."""
    stages: tuple[Origin, ...]
    """Where it comes from."""


class Credits:
    """Advantages of a run's logged episodes, under any recipe, as in its training."""

    def __init__(self, run: Path, own: Any) -> None:
        """`own`: the run's recipe, as its settings have it."""
        self._run = run
        self._own = own
        self._found: OrderedDict[object, Credited] = OrderedDict()
        self._states: dict[tuple[str, int], State] = {}
        self._read: dict[int, Stamp] = {}
        self._reading: set[str] = set()
        self._refused: dict[str, MarlError] = {}
        self._one = Lock()

    def recipe(self, name: str) -> Recipe:
        """A recipe by its name in `configs/credit`; empty: the run's own, which also goes by its own name.

        Raises:
            ConfigError: there is none, or the run's own is gone.
        """
        if name in recipe_names() and name != self.own:
            return load_recipe(name)
        if name in ("", self.own):
            return load_recipe(self._own)
        raise ConfigError(f"recipe: {name!r} is not allowed; it must be one of {recipe_names()}, or the run's own")

    @cached_property
    def own(self) -> str:
        """Name of the run's recipe; empty: it is gone."""
        try:
            return load_recipe(self._own).name
        except ConfigError:
            return ""

    def told(self, episode: Episode, step: int | None, turn: int, recipe: Recipe) -> Told:
        """Everything about one turn.

        Raises:
            ReadingError: the recipe remembers steps that have not been read.
            ConfigError: the episode has no such turn with credit, or does not hold what the recipe needs.
        """
        credited = self.credited(episode, step, recipe)
        if episode.status == "fault":
            raise ConfigError("credit: an episode at fault takes part in nothing")
        missing = lacking(recipe, credited.turns) | _unknown(recipe, credited)
        if missing:
            raise refused(recipe, min(missing))
        stages = origins(credited, episode.match.id, turn)
        values = credited.by_turn(credited.advantages).get((episode.match.id, turn), 0.0)
        tokens = () if isinstance(values, float) else tuple(values)
        mean = values if isinstance(values, float) else sum(tokens) / max(1, len(tokens))
        return Told(recipe=recipe, advantage=mean, tokens=tokens, stages=stages)

    def credited(self, episode: Episode, step: int | None, recipe: Recipe) -> Credited:
        """What the recipe makes of the episode's step; of a branch as if it had been played beside it, and of what
        was played outside training by itself.

        Raises:
            ConfigError: see `credit`.
        """
        file = None if step is None else self._run / "episodes" / f"step_{step:06d}.jsonl"
        if file is None or step is None or not file.is_file():
            return _credit([episode], recipe)
        key = (_stamp(file), recipe.name, step)
        with self._one:
            if key not in self._found:
                self._found[key] = _credit(read_whole(file), recipe, self._state(recipe, step))
            self._found.move_to_end(key)
            while len(self._found) > KEPT:
                self._found.popitem(last=False)
            found = self._found[key]
            if episode.match.id in found.turns.names["episode"]:
                return found
            return _credit([*read_whole(file), episode], recipe, self._state(recipe, step))

    def _state(self, recipe: Recipe, step: int) -> State | None:
        """What the recipe remembers of earlier steps.

        Raises:
            ReadingError: many of them have to be read first, which goes on in the background.
        """
        if not remembers(recipe):
            return None
        if recipe.name in self._refused:
            raise self._refused.pop(recipe.name)
        self._forget_replaced()
        first, state = self._known(recipe, step)
        files = [(at, file) for at, file in episode_files(self._run / "episodes") if first < at < step]
        if len(files) <= AT_ONCE:
            return self._roll(recipe, state, files)
        if recipe.name not in self._reading:
            self._reading.add(recipe.name)
            Thread(target=self._read_on, args=(recipe, state, files), daemon=True, name="credit").start()
        raise ReadingError(first, step - 1)

    def _read_on(self, recipe: Recipe, state: State | None, files: Sequence[tuple[int, Path]]) -> None:
        try:
            self._roll(recipe, state, files)
        except MarlError as error:
            self._refused[recipe.name] = error
        except Exception as error:  # a file that is gone, or ours: whoever asked is told
            self._refused[recipe.name] = RunError(f"earlier steps cannot be read: {type(error).__name__}: {error}")
        finally:
            self._reading.discard(recipe.name)

    def _roll(self, recipe: Recipe, state: State | None, files: Sequence[tuple[int, Path]]) -> State | None:
        """What it remembers after these steps, if it remembers `state` before them."""
        for step, file in files:
            self._read[step] = _stamp(file)
            turns = turn_table(read_whole(file), tokens="tokens" in needs(recipe))
            state = credit_table(turns, recipe, state).state
            self._states[recipe.name, step] = state
        return state

    def _forget_replaced(self) -> None:
        """Forget what followed from steps that have been played again since, by a run that was resumed."""
        there = dict(episode_files(self._run / "episodes"))
        replaced = [step for step, stamp in self._read.items() if step not in there or _stamp(there[step]) != stamp]
        if replaced:
            first = min(replaced)
            self._states = {key: state for key, state in self._states.items() if key[1] < first}
            self._read = {step: stamp for step, stamp in self._read.items() if step < first}

    def _known(self, recipe: Recipe, step: int) -> tuple[int, State | None]:
        """The latest step before it whose memory is known, and that: of the run's own recipe also from a checkpoint."""
        known = [(at, state) for (name, at), state in tuple(self._states.items()) if name == recipe.name and at < step]
        if recipe.name == self.own:
            earlier = [(at, path) for at, path in list_checkpoints(self._run / "checkpoints") if at < step]
            with suppress(
                OSError, ValueError, LookupError, TypeError
            ):  # damaged, or deleted just now: others are known
                known += [(at, checkpoint_values(path)["credit"]) for at, path in earlier[-1:]]
        return max(known, key=lambda one: one[0], default=(0, None))


def _stamp(file: Path) -> Stamp:
    """By which it is seen that a file has been replaced."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _credit(episodes: Sequence[Episode], recipe: Recipe, state: State | None = None) -> Credited:
    """See `credit`.

    Raises:
        RunError: episodes fork from each other in a circle.
    """
    try:
        return credit(episodes, recipe, state)
    except RecursionError as error:
        raise RunError("the episodes of this step fork from each other in a circle") from error


def _unknown(recipe: Recipe, credited: Credited) -> set[str]:
    """What the recipe needs and nobody measured in this step."""
    probes = credited.turns.probes
    return {name for name in needs(recipe) if name in probes and np.isnan(probes[name]).all()}


def told_json(told: Told, around: str) -> dict[str, Any]:
    """As plain values; of many members those around `around`, which is `episode#turn`."""
    return {
        "name": told.recipe.name,
        "about": told.recipe.about,
        "advantage": told.advantage,
        "by_token": told.recipe.by_token,
        "tokens": told.tokens,
        "stages": [
            {
                "label": origin.label,
                "before": origin.before,
                "after": origin.after,
                "key": origin.key,
                "baseline": origin.baseline,
                "count": len(origin.members),
                "members": _around(origin.members, around),
            }
            for origin in told.stages
        ],
    }


def _around(members: Sequence[tuple[str, float | None]], name: str) -> Sequence[tuple[str, float | None]]:
    if len(members) <= MEMBERS:
        return members
    place = next((number for number, (member, _) in enumerate(members) if member == name), 0)
    start = min(max(0, place - MEMBERS // 2), len(members) - MEMBERS)
    return members[start : start + MEMBERS]
