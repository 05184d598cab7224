"""Whether a reply answers a task: the final answer is taken out of its text, then compared with the gold answer."""

import importlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

from games.tasks.base import Task, refused

CHECKERS = {
    "choice": "games.tasks.choice_answers:check",
    "code": "games.tasks.code_answers:check",
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
LINES = ("choice", "code")
"""Checkers that get the whole reply, line by line, since they find the answer in it themselves."""

_NUMBER = r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]+)?"
_WORD = r"[a-z°%]+(?:\^?[23])?(?:[/*][a-z]+(?:\^?[23])?)?"
_UNIT = rf"(?:\s*(?!e[0-9]|hundred|thousand|million|billion|trillion|dozen|pi\b){_WORD}(?: [a-z-]+){{0,2}})?"
"""A word and up to two more, which do not change the number: `apples in all`, `km/h`, `°c`, `m2`."""
_MAX_NUMBER = 60
"""Characters of the longest number that is read."""
_TYPESETTING = re.compile(r"\\?\$|\\[,;!()\[\]]|\\(?:left|right)(?![A-Za-z])")
_SCRIPTS = {
    **{ord(digit): f"^{value}" for value, digit in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")},
    **{ord(digit): f"_{value}" for value, digit in enumerate("₀₁₂₃₄₅₆₇₈₉")},
}
"""So that `5²` is not read as 52, which is its compatible form in Unicode."""


def check(task: Task, reply: str) -> float:
    """How right a reply is, 0.0 to 1.0, by the task's own checker; a reply that cannot be read is wrong.

    Raises:
        ValueError: there is no such checker, or what it needs is not installed.
    """
    return _checker(task)(task, reply if task.check in LINES else final_answer(reply))


def final_answer(reply: str) -> str:
    r"""What a reply answers: the last `<answer>...</answer>`, and of that the last `\boxed{...}`; without them, all."""
    tagged = last_tagged(reply)
    text = reply if tagged is None else tagged
    boxed = _last_boxed(text)
    return (text if boxed is None else boxed).strip()


def last_tagged(reply: str) -> str | None:
    """What is in the last `<answer>...</answer>`; None: there is none."""
    tagged = re.findall(r"<answer>((?:(?!</?answer>).)*)</answer>", reply, flags=re.DOTALL | re.IGNORECASE)
    return tagged[-1] if tagged else None


def last_marked(reply: str) -> str | None:
    """What a reply marks as its answer, by a tag, a box or a fence of code; None: it marks nothing."""
    tagged = last_tagged(reply)
    boxed = _last_boxed(reply if tagged is None else tagged)
    if tagged is not None or boxed is not None:
        return final_answer(reply)
    fenced = re.findall(r"```[^\n`]*\n(.*?)```", reply, flags=re.DOTALL)
    return fenced[-1] if fenced else None


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
    elif task.check == "number" and not _tolerance(task.metadata.get("tolerance", 0)):
        raise refused("with check 'number'", "metadata.tolerance", task.metadata["tolerance"], "0 to less than 1")
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
    """1.0 if the numbers are equal; else 0.0. A unit after it is passed over.

    Exactly, or with `tolerance` in the task's metadata up to so much of the gold one (0.05: 5 %).
    """
    value, gold = read_number(answer), read_number(task.answer)
    if value is None or gold is None:
        return 0.0
    return float(abs(value - gold) <= Fraction(str(task.metadata.get("tolerance", 0))) * abs(gold))


def alike(task: Task, reply: str) -> str:
    """What a reply answers, in a form that is the same for replies that mean the same; votes are counted by it."""
    answer = final_answer(reply)
    if task.check == "number" and (value := read_number(answer)) is not None:
        return str(value)
    if task.check in ("countdown", "math"):
        text = plain(answer)
        value = read_number(text, units=False) if task.check == "math" else None
        # Between two digits white space says something: `1 2` is not 12.
        return re.sub(r"(?<![0-9])\s+|\s+(?![0-9])", "", text) if value is None else str(value)
    if task.check in ("choice", "code"):
        module = importlib.import_module(_path(task).partition(":")[0])
        read = module.read_code(reply) if task.check == "code" else module.read_choice(answer, task.metadata["choices"])
        return read or normalised(answer)
    return normalised(answer)


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


def plain(text: str) -> str:
    r"""A formula without what only sets its type: `$`, `\left`, `\,`, an outer `\text{}`, a full stop at its end."""
    text = _TYPESETTING.sub("", text.translate(_SCRIPTS).replace("−", "-"))
    text = re.sub(r"\\[dt]frac(?![A-Za-z])", r"\\frac", text).strip().rstrip(". ")
    worded = re.fullmatch(r"\\text\s*\{([^{}]*)\}", text)
    return worded[1].strip() if worded else text


def read_number(text: str, *, units: bool = True) -> Fraction | None:
    r"""The number that a text is: `-3`, `1,250.5`, `3/4`, `1 1/2`, `\frac{3}{4}`, `1.5e3`, with `$` before or, with
    `units`, a unit after it; None: it is something else."""
    unit = _UNIT if units else ""
    text = re.sub(r"(?<=[0-9])(?=[¼-¾⅐-⅞])", " ", text)
    text = unicodedata.normalize("NFKC", text).replace("−", "-").replace("⁄", "/").strip().rstrip(". ")
    text = re.sub(r"\\d?frac\{([0-9]+)\}\{([0-9]+)\}", r"\1/\2", text).replace("\\", "").strip("$€£ ")
    if len(text) > 2 * _MAX_NUMBER:
        return None
    text = text.casefold()
    if found := re.fullmatch(rf"([+-]?)(?:([0-9]+)\s+)?([0-9]+)\s*/\s*([0-9]+){unit}", text):
        sign, whole, above, below = found.groups()
        if int(below) == 0:
            return None
        value = int(whole or 0) + Fraction(int(above), int(below))
        return -value if sign == "-" else value
    found = re.fullmatch(rf"([+-]?)\s*[$€£]?\s*({_NUMBER})(e[+-]?[0-9]{{1,2}})?{unit}", text)
    if found is None or not re.search("[0-9]", found[2]):
        return None
    value = Fraction(found[2].replace(",", "") + (found[3] or ""))
    return -value if found[1] == "-" else value


def _tolerance(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1


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
