"""One engine under several policies, each of which sees only what it asked for."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from marl_llm.engines.base import Engine, Request
from marl_llm.engines.checks import check_policy
from marl_llm.types import Completion, Tokens

E = TypeVar("E", bound=Engine)


class Share(Generic[E]):
    """What one policy sees of an engine: `poll` returns its own completions, and keeps those of others for them."""

    def __init__(self, engine: E, policy: str, *, beside: "Share[E] | None" = None) -> None:
        """`beside`: any other view of the same engine; None: this is the first one."""
        self.engine = engine
        self.context_tokens = engine.context_tokens
        self.policies: tuple[str, ...] = (policy,)
        self._done: dict[str, list[tuple[Hashable, Completion]]] = {} if beside is None else beside._done
        self._done[policy] = []

    def submit(self, request: Request) -> None:
        """Queue a request of this policy; see `Engine.submit`. Other policies may use the same tickets."""
        check_policy(request.policy, self.policies)
        self.engine.submit(replace(request, ticket=(request.policy, request.ticket)))

    def poll(self) -> list[tuple[Hashable, Completion]]:
        """What has finished meanwhile; if nothing has, advance the engine by one step, for everybody."""
        (policy,) = self.policies
        if not self._done[policy]:
            for ticket, completion in self.engine.poll():
                assert isinstance(ticket, tuple)
                owner, theirs = ticket
                self._done[owner].append((theirs, completion))
        done, self._done[policy] = self._done[policy], []
        return done

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of continuations; see `Engine.score`."""
        check_policy(policy, self.policies)
        return self.engine.score(policy, pairs, temperature)

    def forget(self) -> None:
        """Drop what was kept of everybody's sequences; see `Engine.forget`."""
        self.engine.forget()

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Replace this policy's weights; see `Engine.load_weights`."""
        check_policy(policy, self.policies)
        self.engine.load_weights(policy, weights, version)

    def sleep(self) -> None:
        """Give memory back, for everybody; see `Engine.sleep`."""
        self.engine.sleep()

    def wake(self) -> None:
        """Take it again; see `Engine.wake`."""
        self.engine.wake()
