"""Countdown: reach a target with given numbers, each used at most once."""

import ast
import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from random import Random
from typing import Any

from games.tasks.base import Task, check_between, refused
from games.tasks.generated import Draft, Maker, split_of

NAME = "countdown"
MAX_EXPRESSION = 200
"""Characters of the longest expression that is read."""
_SIGNS = str.maketrans({"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "[": "(", "]": ")"})


def maker(*, numbers: int = 4, largest: int = 20, target: int = 100) -> Maker:
    """`numbers` (2 to 6) from 1 to `largest`, and a target from 1 to `target`, which all of them together reach.

    `largest` and `target` are 2 to 1000.

    Raises:
        ValueError: a setting is out of range.
    """
    check_between(NAME, 2, 6, numbers=numbers)
    check_between(NAME, 2, 1000, largest=largest, target=target)

    def make(draws: Random) -> Draft:
        while True:
            chosen = [draws.randint(1, largest) for _ in range(numbers)]
            text, value = _combined(draws, [(str(number), number) for number in chosen])
            if 1 <= value <= target and value not in chosen:
                break
        listed = ", ".join(map(str, chosen))
        return Draft(
            prompt=(
                f"Make {value} from the numbers {listed}, each used at most once, with + - * / and brackets. "
                "Answer with the expression."
            ),
            answer=text,
            check=NAME,
            split=split_of(f"{value} from {sorted(chosen)}"),
            metadata={"numbers": chosen, "target": value},
        )

    return make


def _combined(draws: Random, parts: list[tuple[str, int]]) -> tuple[str, int]:
    """All parts joined two by two, in random order, into one; in between, whole numbers of 0 or more only."""
    while len(parts) > 1:
        draws.shuffle(parts)
        (one, a), (other, b) = parts.pop(), parts.pop()
        if a < b:
            one, other, a, b = other, one, b, a
        operators = "+-*/" if b and a % b == 0 else "+-*"
        operator = draws.choice(operators)
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if b else 0}[operator]
        parts.append((f"({one} {operator} {other})", value))
    text, value = parts[0]
    return text[1:-1], value


def check(task: Task, answer: str) -> float:
    """1.0 for an expression that makes the target with the given numbers, each used at most once; else 0.0.

    Operators are + - * / with brackets, results in between may be fractions, and `= TARGET` may follow.
    """
    text = answer.translate(_SIGNS).strip().strip("$.").strip()
    expression, equals, claimed = text.partition("=")
    target = task.metadata["target"]
    if equals and claimed.strip() != str(target):
        return 0.0
    found = evaluate(expression)
    if found is None:
        return 0.0
    value, used = found
    return float(value == target and not Counter(used) - Counter(task.metadata["numbers"]))


def validate(task: Task) -> None:
    """Refuse a task whose numbers or target are missing, or whose gold answer is wrong.

    Raises:
        ValueError: see above.
    """
    metadata: Mapping[str, Any] = task.metadata
    if not isinstance(metadata.get("target"), int):
        raise refused(NAME, "metadata.target", metadata.get("target"), "a whole number")
    numbers = metadata.get("numbers")
    if not isinstance(numbers, list | tuple) or not all(isinstance(number, int) for number in numbers):
        raise refused(NAME, "metadata.numbers", numbers, "a list of whole numbers")
    if not check(task, task.answer):
        raise refused(NAME, "answer", task.answer, f"an expression that makes {metadata['target']} from {numbers}")


def evaluate(expression: str) -> tuple[Fraction, list[int]] | None:
    """Exact value of an expression of whole numbers, and the numbers in it; None: it is none, or divides by 0."""
    text = expression.strip()
    if len(text) > MAX_EXPRESSION or not re.fullmatch(r"[0-9+\-*/() ]+", text):
        return None
    used: list[int] = []
    try:
        return _value(ast.parse(text, mode="eval").body, used), used
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError, MemoryError):
        # Python's parser says with the last two that brackets are nested too deeply.
        return None


def _value(node: ast.expr, used: list[int]) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) is int:
        used.append(node.value)
        return Fraction(node.value)
    if not isinstance(node, ast.BinOp):
        raise ValueError("neither a number nor an operation on two")
    left, right = _value(node.left, used), _value(node.right, used)
    match node.op:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            return left / right
    raise ValueError("not one of + - * /")
