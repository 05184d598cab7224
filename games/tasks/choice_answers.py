"""Multiple choice: the letter that a reply means, however it is written."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

from games.tasks.answers import final_answer, normalised
from games.tasks.base import Task, refused

_MARKS = re.compile(r"\\(?:text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}|[*_`$]")
"""What is written around a letter to make it stand out."""
_ALONE = re.compile(r"(?:option|choice)?\s*+[(\[]?\s*+([A-Z])\s*+[)\]]?\s*+[.:,]?", re.IGNORECASE)
_MARKED = re.compile(r"(?:(?i:option|choice)\s+)?(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Z])[).:])(?!\w)\s*(.*)", re.DOTALL)
"""A letter with a mark, `(c)` or `C)`, and what follows it."""
_BARE = re.compile(r"(?:(?i:option|choice)\s+)?[(\[]?()([A-Z])(?!\w)(.*)", re.DOTALL)
"""A letter, which may be the word `A` as well, and what follows it."""
_OR = re.compile(r"\W*(?:,|/|&|or\b|and\b)\s*[(\[]?[A-Z]\b")
"""Another letter, right after one."""
_SAYS = re.compile(r"\banswer\b\W{0,4}(?:is|:)\W*?(?::\s*)?(?=([^\n]{1,1000}))", re.IGNORECASE)
_BOLD = re.compile(r"\*\*\s*+([^*\n]++)\s*+\*\*")
_MOST = 20
"""Places of a text that are looked at, the last ones: a text that repeats itself is not to take long."""


def letters(choices: Sequence[str]) -> str:
    """The letters of so many choices."""
    return ascii_uppercase[: len(choices)]


def check(task: Task, reply: str) -> float:
    """1.0 if the reply means the choice with the gold letter and no other one; else 0.0."""
    return float(read_choice(final_answer(reply), task.metadata["choices"]) == task.answer)


def validate(task: Task) -> None:
    """Refuse a task without choices, or whose gold answer is not the letter of one.

    Raises:
        ValueError: see above.
    """
    choices = task.metadata.get("choices", ())
    listed = isinstance(choices, Sequence) and not isinstance(choices, str)
    if not listed or not 2 <= len(choices) <= 26 or not all(isinstance(text, str) for text in choices):
        raise refused("with check 'choice'", "metadata.choices", choices, "a list of 2 to 26 texts")
    if len(task.answer) != 1 or task.answer not in letters(choices):
        raise refused("with check 'choice'", "answer", task.answer, f"one of {', '.join(letters(choices))}")


def read_choice(text: str, choices: Sequence[str]) -> str | None:
    """The letter of the choice that a text means; None: of none, or of several.

    The whole text may be a letter (`C`, `(C)`, `C) 42`) or a choice's own words. Of a longer text that counts
    which stands after `answer is` or `answer:`; without that, what is in bold; without that, the last line.
    """
    if whole := _meant(text, choices):
        return whole
    said = [_meant(part, choices, after=True) for part in _SAYS.findall(text)[-_MOST:]]
    bold = [_meant(part, choices) for part in _BOLD.findall(text)[-_MOST:]]
    last = [_meant(part, choices) for part in text.strip().splitlines()[-1:]]
    for found in (said, bold, last):
        if letters_said := set(found) - {None}:
            return letters_said.pop() if len(letters_said) == 1 else None
    return None


def _meant(text: str, choices: Sequence[str], *, after: bool = False) -> str | None:
    """The letter that a text means by itself; `after`: it follows the words `answer is`, so that a bare one counts."""
    text = _MARKS.sub(lambda mark: mark[1] or "", text).strip()
    known = letters(choices)
    alone = _ALONE.fullmatch(text)
    if alone and alone[1].upper() in known:
        return alone[1].upper()
    worded = _worded(text, choices)
    if worded:
        return worded[0] if len(worded) == 1 else None
    for form in (_MARKED, *((_BARE,) if after else ())):
        if found := form.match(text):
            letter, rest = (found[1] or found[2]).upper(), found[3]
            worded = _worded(rest, choices)
            clear = letter in worded if worded else after and not _OR.match(rest)
            return letter if letter in known and clear else None
    return None


def _worded(text: str, choices: Sequence[str]) -> list[str]:
    """The letters of the choices that say the same as the text."""
    said = normalised(text)
    return [
        letter for letter, choice in zip(letters(choices), choices, strict=True) if normalised(choice) == said != ""
    ]
