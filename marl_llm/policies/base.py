"""What every policy does, and what it may know."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from marl_llm.types import Completion, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What a seat knows when it is asked to decide."""

    game: str
    """Name of the game."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the game."""
    match: str
    """Id of the match; with `agent`, the key of a conversation."""
    agent: str
    """Whose decision it is."""
    rules: str
    """The rules as text, the same in every turn."""
    observation: str
    """What the seat may know of the current state, as text."""
    legal_actions: tuple[str, ...] | None
    """Actions that the game accepts; None: any text."""
    examples: tuple[str, ...] = ()
    """Some actions that the game accepts where they are not a list; empty: any text, or they are listed."""
    state_key: str | None
    """Information state of the seat; what scripted players look up."""
    seed: int
    """Fixes the draws of this decision."""
    history: tuple[tuple[str, str], ...] = ()
    """Earlier (observation, reply) pairs of this seat in this match, oldest first."""
    conversation: Tokens | None = None
    """The tokens of this seat's latest turn, prompt and completion; None before its first turn, or without a model."""
    begun: Completion | None = None
    """What the reply begins with, sampled before: it is given back as a part of the whole. None: nothing."""
    concluding: bool = False
    """Whether what the reply begins with ends its thought, and nothing more of that is sampled."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """A decision."""

    text: str
    """The reply as text."""
    action: str | None
    """The action read from it; None: none could be read."""
    prompt: Tokens | None = None
    """What the model read; None without a model."""
    completion: Completion | None = None
    """What the model wrote; None without a model."""
    overflow: bool = False
    """The conversation no longer fits the context: the match ends as truncated."""
    fault: str = ""
    """Why there is no decision, where something other than a player failed: the match ends at fault, and this is no
    turn. Empty: there is one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Strategy:
    """A policy's behaviour in one information state."""

    actions: Mapping[str, float]
    """Probability of each legal action; sums to 1."""
    illegal_mass: float = 0.0
    """Probability of all other replies, before the legal ones were renormalised."""
    samples: int | None = None
    """Replies behind an estimate; None: exact."""


class Policy(Protocol):
    """Decides for one or many seats of many matches at once."""

    def submit(self, ticket: Hashable, view: View) -> None:
        """Ask for a decision."""

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """Make some progress; return the decisions that are ready."""

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """The distribution over legal actions in each view, batched.

        Raises:
            ValueError: a view has no legal actions, so that there is nothing to distribute over.
        """
