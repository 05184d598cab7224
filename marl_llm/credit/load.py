"""Recipes, that is credit methods as short lists of stages, and how they are read from YAML.

Every mistake is refused with its place, the value and what is allowed.
"""

import difflib
import inspect
import math
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from marl_llm.credit import compare, graph, parts, rules, stages, tokens, values
from marl_llm.credit.table import KEY_COLUMNS
from marl_llm.errors import ConfigError

_PLACES = (Path(__file__).resolve().parents[2], Path(sys.prefix) / "share" / "marl-llm")
RECIPES = next((p for place in _PLACES if (p := place / "configs" / "credit").is_dir()), Path("configs/credit"))
"""Folder of the named recipes: in the repository, or where an installed package has its data."""

_ROOMS = (stages, parts, rules, compare, graph, values, tokens)
SOURCES: Mapping[str, Callable[..., stages.Signal]] = {n: stage for room in _ROOMS for n, stage in room.SOURCES.items()}
"""Stages that a recipe may begin with, besides `sum`, by name."""
PLAIN: Mapping[str, Callable[..., stages.Signal]] = {n: stage for room in _ROOMS for n, stage in room.PLAIN.items()}
"""Stages that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[stages.Signal, dict[str, float]]]] = {
    name: stage for room in _ROOMS for name, stage in room.REMEMBERING.items()
}
"""Stages that take a signal and what they remember of earlier steps, and return both, by name."""
STAGES: Mapping[str, Callable[..., Any]] = {**SOURCES, **REMEMBERING, **PLAIN}
"""All of them, by name."""
_KEYS = ("about", "unit", "parts", "with", "checked", "stages")
_FIRST = (*SOURCES, "sum")
_LAST = ("align", "skip", "once", "drop_flat", "unsure", "thin")
"""Stages that set weights, which a `sum` takes from the turns anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One stage of a recipe with its parameters."""

    stage: str
    """Name of the stage."""
    label: str
    """Unique within the recipe: the stage's name, numbered from the second occurrence on."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Parameters, checked."""
    terms: "tuple[Term, ...]" = ()
    """What `sum` adds up; empty for every other stage."""

    @property
    def filled(self) -> Mapping[str, Any]:
        """Its parameters, with the defaults of those that are not given."""
        return _defaults(STAGES[self.stage]) | dict(self.params)

    @property
    def keys(self) -> tuple[str, ...] | None:
        """By what it puts rows together; None where it looks at each alone."""
        found: tuple[str, ...] | None = None if self.stage == "sum" else self.filled.get("keys")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Term:
    """One summand of the stage `sum`."""

    steps: tuple[Step, ...]
    """Stages from a reward on."""
    weight: float = 1.0
    """Factor of their result."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A credit method."""

    name: str
    """Name of the file, or `inline`."""
    stages: tuple[Step, ...]
    """What is done, in order; the first is `sum` or one of `SOURCES`."""
    about: str = ""
    """What it is for and where it comes from."""
    by_token: bool = False
    """Whether rows are tokens (`unit: token`), not turns."""
    parts: tuple[str, ...] = ()
    """Reward parts without which it would be another method."""
    checked: tuple[str, ...] = ()
    """Names of the worked numbers that its stages were checked against (`tests/credit/golden`)."""
    settings: tuple[str, ...] = ()
    """What else belongs to the method: `key=value` changes of a policy's settings (`with`), for the user to make."""


def recipe_names() -> list[str]:
    """Names of the recipes in `configs/credit`, sorted."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(spec: str | Path | Mapping[str, Any]) -> Recipe:
    """A recipe by name, by the path of a YAML file, or written out as a mapping with `about` and `stages`.

    Raises:
        ConfigError: there is no such recipe or file, it is not valid YAML, or a stage, parameter or value is
            not one of those allowed (the nearest valid name is given).
    """
    if isinstance(spec, Mapping):
        return _recipe("inline", spec)
    if not isinstance(spec, str | Path):
        raise ConfigError(f"credit: {spec!r} is not allowed; it must be a recipe's name, a path or a mapping")
    path = Path(spec)
    if isinstance(spec, str) and path.suffix not in (".yaml", ".yml") and "/" not in spec:
        _known("credit", "recipe", spec, recipe_names())
        path = RECIPES / f"{spec}.yaml"
    return _recipe(path.stem, _read(path))


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"credit recipe {path}: no such file")
    try:
        return OmegaConf.to_container(OmegaConf.load(path))
    except (OmegaConfBaseException, yaml.YAMLError, OSError, ValueError) as error:
        raise ConfigError(f"credit recipe {path}: not valid YAML: {' '.join(str(error).split())}") from error


def _recipe(name: str, raw: Any) -> Recipe:
    where = f"credit recipe {name}"
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: must be a mapping of {', '.join(_KEYS)}, not {type(raw).__name__}")
    for key in raw:
        _known(where, "key", key, _KEYS)
    unit = raw.get("unit", "turn")
    _known(f"{where}: unit", "value", unit, ("turn", "token"))
    return Recipe(
        name=name,
        stages=_steps(where, raw.get("stages"), prefix="", used={}),
        about=str(raw.get("about", "")),
        by_token=unit == "token",
        parts=_value(f"{where}: parts", stages.Names, raw.get("parts", [])),
        checked=_value(f"{where}: checked", stages.Names, raw.get("checked", [])),
        settings=_value(f"{where}: with", stages.Names, raw.get("with", [])),
    )


def _steps(where: str, raw: Any, *, prefix: str, used: dict[str, int]) -> tuple[Step, ...]:
    if not isinstance(raw, list | tuple) or not raw:
        raise ConfigError(f"{where}: stages: {raw!r} is not allowed; it must be a list of stages")
    return tuple(_step(where, item, index, prefix, used) for index, item in enumerate(raw))


def _step(where: str, item: Any, index: int, prefix: str, used: dict[str, int]) -> Step:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        allowed = "a stage's name, or one stage with its parameters"
        raise ConfigError(f"{where}: stage {index + 1}: {item!r} is not allowed; it must be {allowed}")
    ((stage, raw),) = item.items()
    place = f"{where}: stage {index + 1}"
    _known(place, "stage", stage, (*STAGES, "sum"))
    if (index == 0) != (stage in _FIRST):
        rule = f"the first stage must be one of {', '.join(_FIRST)}" if index == 0 else "only the first stage may be"
        raise ConfigError(f"{place}: {stage!r} is not allowed; {rule}{'' if index == 0 else ' ' + stage}")
    used[prefix + stage] = used.get(prefix + stage, 0) + 1
    label = prefix + stage + (f"_{used[prefix + stage]}" if used[prefix + stage] > 1 else "")
    place = f"{place} ({stage})"
    if stage in _LAST and prefix:
        raise ConfigError(f"{place}: is not allowed in a term; it must follow the sum")
    if stage == "sum":
        return Step(stage=stage, label=label, terms=_terms(place, raw, prefix=f"{label}.", used=used))
    return Step(stage=stage, label=label, params=_params(place, stage, {} if raw is None else raw))


def _terms(where: str, raw: Any, *, prefix: str, used: dict[str, int]) -> tuple[Term, ...]:
    if not isinstance(raw, list | tuple) or not raw:
        raise ConfigError(f"{where}: {raw!r} is not allowed; it must be a list of terms with weight and stages")
    terms = []
    for index, item in enumerate(raw):
        place = f"{where}: term {index + 1}"
        if not isinstance(item, Mapping):
            raise ConfigError(f"{place}: {item!r} is not allowed; it must be a mapping with weight and stages")
        for key in item:
            _known(place, "key", key, ("weight", "stages"))
        weight = _value(f"{place}: weight", float, item.get("weight", 1.0))
        steps = _steps(place, item.get("stages"), prefix=f"{prefix}{index + 1}.", used=used)
        terms.append(Term(weight=weight, steps=steps))
    return tuple(terms)


def _params(where: str, stage: str, raw: Any) -> dict[str, Any]:
    if not isinstance(raw, Mapping):
        raise ConfigError(f"{where}: {raw!r} is not allowed; it must be a mapping of parameters")
    function = STAGES[stage]
    parameters = _defaults(function)
    hints = get_type_hints(function, include_extras=True)
    for name in raw:
        _known(where, "parameter", name, parameters)
    for name, default in parameters.items():
        if default is inspect.Parameter.empty and name not in raw:
            raise ConfigError(f"{where}: parameter {name} is missing")
    return {name: _value(f"{where}: {name}", hints[name], value) for name, value in raw.items()}


def _defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Parameter of a stage to its default, `Parameter.empty` where it has none."""
    signature = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in signature if p.kind is p.KEYWORD_ONLY}


def _value(where: str, hint: Any, value: Any) -> Any:
    """The value as the stage takes it, checked against the parameter's type."""
    if hint == stages.Keys:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{where}: {value!r} is not allowed; it must be a list of columns")
        for column in value:
            _known(where, "column", column, KEY_COLUMNS)
        return tuple(value)
    if hint == stages.Names:
        if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
            raise ConfigError(f"{where}: {value!r} is not allowed; it must be a list of names")
        return tuple(value)
    if hint in (str, stages.Quantity):
        if not isinstance(value, str):
            raise ConfigError(f"{where}: {value!r} is not allowed; it must be a text")
        return value
    if hint == stages.Weights:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where}: {value!r} is not allowed; it must be a mapping of parts to numbers")
        return {str(part): _value(f"{where}.{part}", float, weight) for part, weight in value.items()}
    if get_origin(hint) is Literal:
        if isinstance(value, str):
            _known(where, "value", value, [str(choice) for choice in get_args(hint)])
        elif isinstance(value, bool) or value not in get_args(hint):
            raise ConfigError(f"{where}: {value!r} is not allowed; it must be one of {list(get_args(hint))}")
        return value
    if hint in (bool, int):
        if type(value) is not hint:
            raise ConfigError(f"{where}: {value!r} is not allowed; it must be of type {hint.__name__}")
        return value
    return _number(where, hint, value)


def _number(where: str, hint: Any, value: Any) -> float:
    kind, bounds = get_args(hint) if get_origin(hint) is Annotated else (hint, stages.Bounds(-math.inf, math.inf))
    if kind is int and type(value) is not int:
        raise ConfigError(f"{where}: {value!r} is not allowed; it must be a whole number")
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not bounds.low <= value <= bounds.high:
        raise ConfigError(f"{where}: {value!r} is not allowed; it must be {bounds.text()}")
    return kind(value)  # type: ignore[no-any-return]  # int or float


def _known(where: str, kind: str, name: Any, allowed: Collection[str]) -> None:
    if name in allowed:
        return
    near = difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.0)
    hint = f"nearest valid name: {near[0]}; " if near else ""
    raise ConfigError(f"{where}: unknown {kind} {name!r}; {hint}allowed: {', '.join(allowed)}")
