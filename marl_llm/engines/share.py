"""One engine for several who ask, each of whom sees only what it asked for."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Generic, TypeVar

import torch

from marl_llm.engines.base import Engine, Request
from marl_llm.engines.checks import check_policy
from marl_llm.types import Completion, Tokens

E = TypeVar("E", bound=Engine)


class Share(Generic[E]):
    """What one of them sees of an engine: `poll` returns its own completions, and keeps those of others for them."""

    def __init__(
        self, engine: E, policy: str, *, beside: "Share[E] | None" = None, called: Hashable = None, steps: bool = True
    ) -> None:
        """The engine under one of its policies.

        Args:
            engine: has the policy.
            policy: whose weights are asked.
            beside: any other view of the same engine; None: this is the first one.
            called: keeps views of one policy apart; None: there is one, and it is called like the policy.
            steps: whether `poll` advances the engine. One that does not waits for others to do it.
        """
        self.engine = engine
        self.context_tokens = engine.context_tokens
        self.policies: tuple[str, ...] = (policy,)
        self._name = policy if called is None else called
        self._steps = steps
        self._done: dict[Hashable, list[tuple[Hashable, Completion]]] = {} if beside is None else beside._done
        self._done[self._name] = []

    def submit(self, request: Request) -> None:
        """Queue a request of this view; see `Engine.submit`. Other views may use the same tickets."""
        check_policy(request.policy, self.policies)
        self.engine.submit(replace(request, ticket=(self._name, request.ticket)))

    def poll(self) -> list[tuple[Hashable, Completion]]:
        """What has finished meanwhile; if nothing has, advance the engine by one step, for everybody."""
        if self._steps and not self._done[self._name]:
            self.step()
        done, self._done[self._name] = self._done[self._name], []
        return done

    def step(self) -> None:
        """Advance the engine by one step, for everybody; what finishes is kept for whoever asked."""
        for ticket, completion in self.engine.poll():
            assert isinstance(ticket, tuple)
            owner, theirs = ticket
            self._done[owner].append((theirs, completion))

    @property
    def ready(self) -> bool:
        """Whether something has finished that was not fetched."""
        return bool(self._done[self._name])

    def close(self) -> None:
        """Leave; nothing of this view may be in flight."""
        del self._done[self._name]

    def sampled(self, ticket: Hashable) -> Tokens:
        """What a request of this view has sampled so far; see `Engine.sampled`."""
        return self.engine.sampled((self._name, ticket))

    def cancel(self, ticket: Hashable) -> None:
        """Drop a request of this view; see `Engine.cancel`. What has finished for it meanwhile is dropped as well."""
        kept = [item for item in self._done[self._name] if item[0] != ticket]
        if len(kept) == len(self._done[self._name]):
            self.engine.cancel((self._name, ticket))
        self._done[self._name] = kept

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of continuations; see `Engine.score`."""
        check_policy(policy, self.policies)
        return self.engine.score(policy, pairs, temperature)

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[tuple[int, float], ...]]:
        """The most probable tokens; see `Engine.best`."""
        check_policy(policy, self.policies)
        return self.engine.best(policy, pairs, temperature)

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
