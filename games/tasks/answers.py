"""Whether a reply answers a task: the final answer is taken out of its text, then compared with the gold answer."""

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

from games.tasks.base import Task, refused

CHECKERS = {
    "countdown": "games.tasks.countdown:check",
    "exact": "games.tasks.answers:exact",
    "f1": "games.tasks.answers:f1",
    "knights": "games.tasks.knights:check",
    "list": "games.tasks.answers:listed",
    "math": "games.tasks.math_answers:check",
    "number": "games.tasks.answers:number",
    "unknown": "games.tasks.asked:unknown",
}
"""Name of a checker to the function: of a task and a final answer, 0.0 (wrong) to 1.0 (right)."""

_NUMBER = r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?"
_WORD = r"[a-z°%]+(?:\^?[23])?(?:[/*][a-z]+(?:\^?[23])?)?"
_UNIT = rf"(?:\s*(?!e[0-9]|hundred|thousand|million|billion|trillion|dozen|pi\b){_WORD}(?: [a-z-]+){{0,2}})?"
"""A word and up to two more, which do not change the number: `apples in all`, `km/h`, `°c`, `m2`."""
_MAX_NUMBER = 60
"""Characters of the longest number that is read."""


def check(task: Task, reply: str) -> float:
    """How right a reply is, 0.0 to 1.0, by the task's own checker; a reply that cannot be read is wrong.

    Raises:
        ValueError: there is no such checker, or what it needs is not installed.
    """
    return _checker(task)(task, final_answer(reply))


def final_answer(reply: str) -> str:
    r"""What a reply answers: the last `<answer>...</answer>`, and of that the last `\boxed{...}`; without them, all."""
    tagged = re.findall(r"<answer>((?:(?!</?answer>).)*)</answer>", reply, flags=re.DOTALL | re.IGNORECASE)
    text = tagged[-1] if tagged else reply
    boxed = _last_boxed(text)
    return (text if boxed is None else boxed).strip()


def validate(task: Task) -> None:
    """Refuse a task that could not be checked: unknown checker, or a gold answer that it cannot read.

    Raises:
        ValueError: see above.
    """
    module, _, _ = _path(task).partition(":")
    look = getattr(importlib.import_module(module), "validate", None)
    if module != __name__ and look is not None:
        look(task)
    elif task.check == "number" and read_number(task.answer) is None:
        raise refused("with check 'number'", "answer", task.answer, "a number")
    elif task.check in ("exact", "f1", "list") and not normalised(task.answer):
        raise refused(f"with check {task.check!r}", "answer", task.answer, "a text with letters or digits")


def exact(task: Task, answer: str) -> float:
    """1.0 if the texts are equal but for case, spaces, articles and punctuation; else 0.0."""
    return float(normalised(answer) == normalised(task.answer))


def f1(task: Task, answer: str) -> float:
    """Harmonic mean of precision and recall of the answer's words (SQuAD, arXiv 1606.05250), 0.0 to 1.0."""
    said, gold = normalised(answer).split(), normalised(task.answer).split()
    common = (Counter(said) & Counter(gold)).total()
    return 2 * common / (len(said) + len(gold)) if said else 0.0


def listed(task: Task, answer: str) -> float:
    """The share of the parts, with `;` between them, that are `exact` in their place; parts too many count as wrong."""
    said, gold = ([normalised(part) for part in text.split(";")] for text in (answer, task.answer))
    return sum(one == other != "" for one, other in zip(said, gold)) / max(len(said), len(gold))


def number(task: Task, answer: str) -> float:
    """1.0 if the numbers are equal, exactly; else 0.0. A unit after it is passed over."""
    value = read_number(answer)
    return float(value is not None and value == read_number(task.answer))


def normalised(text: str) -> str:
    """Lower case, one space between words, no punctuation but that of numbers (`-3`, `2.5`), no articles.

    A text that is nothing but an article keeps it: it may be choice A.
    """
    text = unicodedata.normalize("NFKC", text).casefold().replace("−", "-")
    text = re.sub(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))", "", text)
    text = re.sub(r"['’`\"]|\.(?![0-9])", "", text)
    text = re.sub(r"(?<![\w)])-(?=\.?[0-9])", "\0", text)
    words = "".join(c if c.isalnum() or c in "\0." or unicodedata.combining(c) else " " for c in text).split()
    bare = [word.replace("\0", "-") for word in words]
    return " ".join([word for word in bare if word not in ("a", "an", "the")] or bare)


def read_number(text: str) -> Fraction | None:
    r"""The number that a text is: `-3`, `1,250.5`, `3/4`, `1 1/2`, `\frac{3}{4}`, `1.5e3`, with `$` before or a unit
    after it; None: it is something else."""
    text = re.sub(r"(?<=[0-9])(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/").strip().rstrip(". ")
    text = re.sub(r"\\d?frac\{([0-9]+)\}\{([0-9]+)\}", r"\1/\2", text).replace("\\", "").strip("$€£ ")
    if len(text) > 2 * _MAX_NUMBER:
        return None
    text = text.casefold()
    if found := re.fullmatch(rf"([+-]?)(?:([0-9]+)\s+)?([0-9]+)\s*/\s*([0-9]+){_UNIT}", text):
        sign, whole, above, below = found.groups()
        if int(below) == 0:
            return None
        value = int(whole or 0) + Fraction(int(above), int(below))
        return -value if sign == "-" else value
    found = re.fullmatch(rf"([+-]?)\s*[$€£]?\s*({_NUMBER})(e[+-]?[0-9]{{1,2}})?{_UNIT}", text)
    if found is None or not re.search("[0-9]", found[2]):
        return None
    value = Fraction(found[2].replace(",", "") + (found[3] or ""))
    return -value if found[1] == "-" else value


def _path(task: Task) -> str:
    if task.check not in CHECKERS:
        raise refused(task.id, "check", task.check, f"one of {', '.join(CHECKERS)}")
    return CHECKERS[task.check]


def _checker(task: Task) -> Callable[[Task, str], float]:
    module, _, function = _path(task).partition(":")
    found: Callable[[Task, str], float] = getattr(importlib.import_module(module), function)
    return found


def _last_boxed(text: str) -> str | None:
    r"""What is in the `\boxed{...}` that starts last of those that are closed; None: there is none."""
    last, found = -1, None
    openings: list[int | None] = []
    for brace in re.finditer(r"\\(?:boxed|fbox)\s*\{|\\.|[{}]", text):
        if brace[0] == "{":
            openings.append(None)
        elif brace[0].endswith("{") and len(brace[0]) > 2:
            openings.append(brace.end())
        elif brace[0] == "}" and openings:
            start = openings.pop()
            if start is not None and start > last:
                last, found = start, text[start : brace.start()]
    return found
