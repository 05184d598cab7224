"""A policy whose time is taken."""

from collections.abc import Hashable, Sequence
from time import perf_counter

from marl_llm.policies.base import Policy, Reply, Strategy, View


class Timed:
    """Another policy, which decides everything, and the wall seconds spent in it. Only metrics may read them."""

    seconds: float
    """In `submit` and `poll` so far: what the policy and its engine took, without the games."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self.seconds = 0.0

    def submit(self, ticket: Hashable, view: View) -> None:
        """Ask the policy for a decision."""
        began = perf_counter()
        self._policy.submit(ticket, view)
        self.seconds += perf_counter() - began

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """The policy's decisions that are ready."""
        began = perf_counter()
        ready = self._policy.poll()
        self.seconds += perf_counter() - began
        return ready

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """The policy's distributions; see `Policy.strategies`."""
        return self._policy.strategies(views)
