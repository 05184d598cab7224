"""Assistant and user proxy: the two talk in turns until one of them says that they are done."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node
from games.pipelines.work import Message, Work
from games.pipelines.workflow import RIGHT, SILENCE, Pay, Workflow
from games.settings import OnIllegal, check_whole
from games.tasks.answers import last_marked

NAME = "autogen"
DONE = "TERMINATE"
"""The word that ends the talk."""
ASSIST = f"Answer the user's question. If nothing is left to do, say {DONE} beside your answer."
REPLY = f"You are the user. Reply to the assistant: ask it to check or to go on, or say {DONE} if you are content."


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    turns: int = 3,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> "AutoGen":
    """Assistant and user proxy by turns (AutoGen, arXiv 2308.08155), with at most `turns` of the assistant.

    Either ends it with the word TERMINATE; nobody speaks after that. The answer is the assistant's last message with an
    answer in a box, a tag or a fence, or else its last that says more than TERMINATE, so that a later `you are welcome`
    does not lose what was boxed. `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, turns=turns)
    both = ("assistant", "user")
    return AutoGen(
        name=NAME,
        tasks=tasks,
        nodes=(
            Node(role="assistant", prompt=ASSIST, recalls=both, reach="all", answers=True),
            Node(role="user", prompt=REPLY, sees=("assistant",), recalls=both, reach="all", rounds="earlier"),
        ),
        rounds=turns,
        answer="assistant",
        decide="last",
        pay=pay,
        on_illegal=on_illegal,
        rules="An assistant answers a question, and a user replies, by turns.",
    )


class AutoGen(Workflow):
    """Utility and `hidden`: as in `workflow`."""

    def advise(self, state_key: str) -> str:
        """As in `workflow`; a user who has heard the right answer ends the talk."""
        advice = super().advise(state_key)
        return DONE if advice == RIGHT else advice

    def stops(self, message: Message) -> bool:
        return re.search(rf"\b{DONE}\b", message.text) is not None

    def answer_in(self, text: str) -> str:
        return re.sub(rf"[ \t]*\b{DONE}\b[.!]?", "", text).strip() or SILENCE

    def team_answer(self, position: Work) -> str:
        given = [self.answer_in(message.text) for message in position.said if message.role == "assistant"]
        marked = [text for text in given if last_marked(text) is not None]
        said = [text for text in given if text != SILENCE]
        return (marked or said or given)[-1]
