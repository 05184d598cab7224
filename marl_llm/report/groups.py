"""Which runs are one line: those whose settings differ in the seed alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marl_llm.config import flat_settings
from marl_llm.config.variants import short
from marl_llm.report.logs import RunLog

IGNORED = frozenset({"run.seed", "run.dir", "run.name"})
"""Settings that make no other experiment."""
LONGEST_NAME = 60


@dataclass(frozen=True, kw_only=True, eq=False)
class Variant:
    """Runs of the same settings."""

    name: str
    """The settings that tell it from the others; empty where there is only one."""
    runs: tuple[RunLog, ...]
    """At least one, in the order in which they were named."""

    @property
    def first(self) -> RunLog:
        """The run whose episodes are looked at."""
        return self.runs[0]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A setting that is not the same in all runs."""

    key: str
    values: tuple[str, ...]
    """By run."""


def variants(logs: Sequence[RunLog]) -> tuple[Variant, ...]:
    """The runs by their settings, in the order in which they were named."""
    settings = [_settings(log) for log in logs]
    groups: dict[tuple[str, ...], list[RunLog]] = {}
    differing = _differing(settings)
    for log, values in zip(logs, settings, strict=True):
        groups.setdefault(tuple(_text(values.get(key)) for key in differing), []).append(log)
    names = [_named(differing, values) for values in groups]
    return tuple(
        Variant(name=name, runs=tuple(runs))
        for name, runs in zip(_distinct(short(names)), groups.values(), strict=True)
    )


def differences(logs: Sequence[RunLog]) -> list[Difference]:
    """All settings in which the runs differ, seeds included."""
    settings = [flat_settings(log.config) for log in logs]
    return [
        Difference(key=key, values=tuple(_text(values.get(key, "")) for values in settings))
        for key in _differing(settings)
    ]


def _settings(log: RunLog) -> dict[str, Any]:
    return {key: value for key, value in flat_settings(log.config).items() if key not in IGNORED}


def _differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for values in settings for key in values)
    return [key for key in keys if len({_text(values.get(key)) for values in settings}) > 1]


def _text(value: object) -> str:
    return "null" if value is None else str(value)


def _named(keys: Sequence[str], values: Sequence[str]) -> str:
    return " ".join(f"{key}={value.replace(' ', '')}" for key, value in zip(keys, values, strict=True))


def _distinct(names: Sequence[str]) -> list[str]:
    """Names that fit a legend, and stay different."""
    cut = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    return [name if cut.count(name) == 1 else f"{index + 1}: {name}" for index, name in enumerate(cut)]
