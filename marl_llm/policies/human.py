"""A person in a seat: at the terminal, or somewhere else, and waited for."""

from collections.abc import Callable, Hashable, Sequence

from games.base import find
from marl_llm.policies.base import Reply, Strategy, View


class Person:
    """What people have in common: no probabilities that could be read."""

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """A person has no probabilities to read.

        Raises:
            ValueError: always.
        """
        raise ValueError("a person's probabilities cannot be computed")


class HumanPolicy(Person):
    """Shows each view with `show` and reads the decision with `ask`; asks again until it is a legal action."""

    def __init__(self, show: Callable[[str], None], ask: Callable[[str], str]) -> None:
        self._show = show
        self._ask = ask
        self._waiting: list[tuple[Hashable, View]] = []

    def submit(self, ticket: Hashable, view: View) -> None:
        """Remember whom to ask."""
        self._waiting.append((ticket, view))

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """Ask, one view after the other."""
        waiting, self._waiting = self._waiting, []
        return [(ticket, self._decide(view)) for ticket, view in waiting]

    def _decide(self, view: View) -> Reply:
        self._show(view.observation)
        while True:
            answer = self._ask(f"{view.agent}> ").strip()
            if view.legal_actions is None:
                return Reply(text=answer, action=answer)
            action = find(answer, view.legal_actions)
            if action is not None:
                return Reply(text=action, action=action)
            self._show(f"{answer!r} is not possible; choose one of: {', '.join(view.legal_actions)}")


class AwaitedPolicy(Person):
    """Sits in one seat of one match; whoever plays sees what it is `asked`, and has it `answer`."""

    asked: View | None
    """What has to be decided now; None: nothing."""

    def __init__(self) -> None:
        self.asked = None
        self._ticket: Hashable = None
        self._ready: list[tuple[Hashable, Reply]] = []

    def submit(self, ticket: Hashable, view: View) -> None:
        """Wait for `answer`."""
        assert self.asked is None, "it sits in one seat"
        self._ticket, self.asked = ticket, view

    def answer(self, reply: Reply) -> None:
        """Decide what is `asked`."""
        assert self.asked is not None, "it was not asked"
        self._ready.append((self._ticket, reply))
        self.asked = None

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """What was answered since the last call."""
        ready, self._ready = self._ready, []
        return ready
