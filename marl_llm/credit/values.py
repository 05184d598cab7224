"""Stages that know what a state is worth, from a critic or from further play: differences, GAE, segments.

As in `stages`: pure functions, one float per row, NaN for unknown.
"""

from collections.abc import Callable, Mapping

from marl_llm.credit.stages import Signal

SOURCES: Mapping[str, Callable[..., Signal]] = {}
"""Where values come from, by name."""
PLAIN: Mapping[str, Callable[..., Signal]] = {}
"""The stages here that take a signal and remember nothing, by name."""
REMEMBERING: Mapping[str, Callable[..., tuple[Signal, dict[str, float]]]] = {}
"""The stages here that take a signal and what they remember of earlier steps, and return both, by name."""
