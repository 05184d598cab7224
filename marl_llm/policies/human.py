"""A person in a seat, at the terminal."""

from collections.abc import Callable, Hashable, Sequence

from marl_llm.policies.base import Reply, Strategy, View


class HumanPolicy:
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

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """A person has no probabilities to read.

        Raises:
            ValueError: always.
        """
        raise ValueError("a person's probabilities cannot be computed")

    def _decide(self, view: View) -> Reply:
        self._show(view.observation)
        while True:
            answer = self._ask(f"{view.agent}> ").strip()
            if view.legal_actions is None:
                return Reply(text=answer, action=answer)
            for action in view.legal_actions:
                if answer.casefold() == action.casefold():
                    return Reply(text=action, action=action)
            self._show(f"{answer!r} is not possible; choose one of: {', '.join(view.legal_actions)}")
