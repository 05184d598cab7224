"""A policy whose time is taken."""

from collections.abc import Hashable, Sequence
from time import perf_counter

from marl_llm.policies.base import Policy, Reply, Strategy, View


class Timed:
    """Another policy, which decides everything, and the wall seconds spent in it and waiting for it. Only metrics and
    whoever looks for hung seats may read them."""

    policy: Policy
    """The other one."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self._seconds = 0.0
        self._asked: dict[Hashable, float] = {}

    def spend(self) -> float:
        """Seconds in `submit` and `poll` since the last time: what the policy and its engine took, without games."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def oldest(self) -> tuple[Hashable, float] | None:
        """Of what has no answer yet: what was submitted first, and the seconds since; for any thread."""
        asked = list(self._asked.items())  # in one go, as far as other threads can see
        return (asked[0][0], perf_counter() - asked[0][1]) if asked else None

    def submit(self, ticket: Hashable, view: View) -> None:
        """Ask the policy for a decision."""
        began = self._asked[ticket] = perf_counter()
        self.policy.submit(ticket, view)
        self._seconds += perf_counter() - began

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """The policy's decisions that are ready."""
        began = perf_counter()
        ready = self.policy.poll()
        self._seconds += perf_counter() - began
        for ticket, _ in ready:
            del self._asked[ticket]
        return ready

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """The policy's distributions; see `Policy.strategies`."""
        return self.policy.strategies(views)
