"""What every engine does. The contract is tested in `tests/engines/contract.py`, for every engine alike."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from marl_llm.types import Completion, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One completion to be sampled."""

    ticket: Hashable
    """Comes back with the completion; must be unique among the requests in flight."""
    policy: str
    """Whose weights answer."""
    prompt: Tokens
    """At least one token."""
    max_tokens: int
    """Most tokens to sample, at least 1."""
    seed: int
    """Fixes the draws, whatever else is in the batch (0 <= seed < 2**63)."""
    temperature: float = 1.0
    """Divides the logits. 0: the most probable token is taken, and log-probabilities are those at 1."""


class Engine(Protocol):
    """Samples completions of one base model and scores given ones."""

    context_tokens: int
    """Most tokens of prompt and completion together."""
    policies: tuple[str, ...]
    """Names that requests may use."""

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            ValueError: the policy is unknown, the ticket is in flight, or the prompt leaves no room for a token.
        """

    def poll(self) -> list[tuple[Hashable, Completion]]:
        """Advance by one scheduler step; return what has finished, in the order of finishing."""

    def sampled(self, ticket: Hashable) -> Tokens:
        """What a request in flight has sampled so far.

        Raises:
            ValueError: no such ticket is in flight.
        """

    def cancel(self, ticket: Hashable) -> None:
        """Drop a request in flight: it never comes out of `poll`, and its slot and its ticket are free again.

        Raises:
            ValueError: no such ticket is in flight.
        """

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        """Log-probabilities (nats) of each continuation's tokens after its prompt, teacher-forced.

        Requests in flight are not affected.

        Raises:
            ValueError: the policy is unknown, a prompt is empty, a pair is longer than the context, or the temperature
                is not more than 0.
        """

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[tuple[int, float], ...]]:
        """The most probable token at the place of each of the continuation's, with its log-probability; see `score`.

        Where a continuation has that token, `score` gives the same number.
        """

    def forget(self) -> None:
        """Drop what was kept of earlier sequences, so that nothing depends on them, not even the last bits."""

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Replace the policy's weights between polls; requests in flight go on with the new ones.

        Raises:
            ValueError: the policy is unknown, or a name or shape differs from the model's.
        """

    def sleep(self) -> None:
        """Give a GPU's memory back until `wake`, if the engine can; twice is once. Nothing may be asked of it then."""

    def wake(self) -> None:
        """Take the memory again, if it was given back; requests in flight go on."""
