"""Multi-agent debate: one agent answers, one has to disagree, a moderator ends it or a judge decides."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from games.pipelines import ARITHMETIC
from games.pipelines.graph import Node
from games.pipelines.work import Message, Work
from games.pipelines.workflow import SILENCE, Pay, Workflow
from games.settings import OnIllegal, check_whole
from games.tasks.answers import last_marked, normalised, plain

NAME = "mad"
AFFIRM = "Give your answer, with a short reason; where the other one has replied, defend or correct it."
NEGATE = "You disagree with the answer of affirmative_0: say why, and give your answer."
MODERATE = "If one of the two is clearly right, give the final answer. If not, say: continue"
JUDGE = "The moderator has not decided. Read both sides and give the final answer."
LONGEST = 20
"""Words of a decision that stands without a mark."""

_MARK = re.compile(
    r"(?<!\bno )\b(?:debate_answer|answer)[\"']?\s*(?::|\bis\b:?)\s*[\"']?(.*?)(?=\.\s|\.?$|[\"\n]|'[,}\s])",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"^(?:async )?(?:def|class) \w+.*:$", re.MULTILINE)
_GO_ON = re.compile(
    r"\b(?:continue|go on|carry on|(?:next|another|further|more) rounds?|undecided|"
    r"(?:cannot|can't|not) (?:yet )?decide|not (?:yet|clear)|no (?:decision|answer|preference|winner|agreement)|"
    r"unclear|both (?:sides|are|have|make))\b",
    re.IGNORECASE,
)


def env(
    *,
    tasks: Mapping[str, Any] = ARITHMETIC,
    rounds: int = 3,
    pay: Sequence[Pay] = ("outcome",),
    on_illegal: OnIllegal = "default_action",
) -> "MAD":
    """At most `rounds` of affirmative, negative and moderator (MAD, arXiv 2305.19118), who read all that was said.

    The first message of the moderator that decides ends the game with its answer: later turns are not played. It is
    read leniently (`verdict`), and what cannot be read lets the two go on. After the last round a judge decides.
    `tasks`, `pay`: as in `workflow`.

    Raises:
        ValueError: a setting is out of range.
    """
    check_whole(NAME, rounds=rounds)
    sides = ("affirmative", "negative")
    return MAD(
        name=NAME,
        tasks=tasks,
        nodes=(
            Node(role="affirmative", prompt=AFFIRM, recalls=sides, reach="all", answers=True),
            Node(role="negative", prompt=NEGATE, sees=("affirmative",), recalls=sides, reach="all", answers=True),
            Node(role="moderator", prompt=MODERATE, sees=sides, recalls=sides, reach="all", answers=True),
            Node(
                role="judge",
                prompt=JUDGE,
                sees=(*sides, "moderator"),
                rounds="last",
                recalls=sides,
                reach="all",
                answers=True,
            ),
        ),
        rounds=rounds,
        answer="judge",
        decide="last",
        pay=pay,
        on_illegal=on_illegal,
        rules=(
            "Debate of two sides. One answers a question, the other disagrees; a moderator decides or lets them go on, "
            "and in the end a judge decides."
        ),
    )


class MAD(Workflow):
    """Utility and `hidden`: as in `workflow`. Of the moderator's messages those are answers that decide."""

    def stops(self, message: Message) -> bool:
        return message.role == "moderator" and verdict(message.text) is not None

    def is_answer(self, message: Message) -> bool:
        return message.role != "moderator" or self.stops(message)

    def answer_in(self, text: str) -> str:
        return text if self.position.task.check == "code" else verdict(text) or text

    def team_answer(self, position: Work) -> str:
        return self.answer_in(position.said[-1].text)


def verdict(text: str) -> str | None:
    """The final answer that a moderator gives; None: it lets the debate go on, or cannot be read.

    That is what it marks as its answer (a tag, a box, a fence, `answer: 7`, `"debate_answer": "7"`), unless nothing but
    `continue` or the like is marked; all of a text with a Python function; or all of one of at most 20 words, unless it
    says something like `continue`.
    """
    if text == SILENCE or not normalised(text):
        return None
    held = last_marked(text)
    if held is not None:
        return None if _GO_ON.fullmatch(plain(held).strip(" .*!\n")) else text
    if _CODE.search(text):
        return text
    marked: list[str] = [found.strip(" .*{}'") for found in _MARK.findall(text)]
    if marked and marked[-1] and not _GO_ON.search(marked[-1]):
        return marked[-1]
    if marked or _GO_ON.search(text) or len(text.split()) > LONGEST:
        return None
    return text
