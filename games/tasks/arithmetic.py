"""Arithmetic in five levels, from small sums to nested expressions; the answer is always a whole number."""

from dataclasses import dataclass
from random import Random

from games.tasks.base import check_between
from games.tasks.generated import Draft, Maker, split_of

NAME = "arithmetic"
LARGEST = 9999
"""No part of an expression is larger, nor smaller than its negative."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What expressions of a level are made of."""

    operations: int
    """Operators in an expression."""
    largest: int
    """Greatest number in it."""
    operators: str
    """The operators to choose from."""
    brackets: bool
    """Whether a right-hand part may be an expression too; if not, all is read from left to right."""
    negative: bool
    """Whether parts may be less than 0."""


LEVELS = (
    Level(operations=1, largest=9, operators="+-", brackets=False, negative=False),
    Level(operations=1, largest=99, operators="+-", brackets=False, negative=True),
    Level(operations=2, largest=20, operators="+-*", brackets=False, negative=True),
    Level(operations=3, largest=20, operators="+-*", brackets=True, negative=True),
    Level(operations=5, largest=30, operators="+-*/", brackets=True, negative=True),
)
RANK = {"+": 1, "-": 1, "*": 2, "/": 2}
NUMBER = 3
"""Rank of a number, which never needs brackets."""

Part = tuple[str, int, int]
"""Text, value and rank of the operator that is applied last."""


def maker(*, level: int = 1) -> Maker:
    """Expressions of a level, 1 to 5.

    Raises:
        ValueError: there is no such level.
    """
    check_between(NAME, 1, len(LEVELS), level=level)
    rules = LEVELS[level - 1]

    def make(draws: Random) -> Draft:
        part = None
        while part is None:
            part = _expression(draws, rules, rules.operations)
        text, value, _ = part
        return Draft(
            prompt=f"What is {text}?",
            answer=str(value),
            check="number",
            split=split_of(text),
            metadata={
                "level": level,
                "operations": rules.operations,
                "expression": text,
                "paraphrase": f"Find the value of {text}.",
            },
        )

    return make


def _expression(draws: Random, rules: Level, operations: int) -> Part | None:
    """An expression with so many operators; None: what was drawn breaks a rule of the level."""
    if operations == 0:
        number = draws.randint(1, rules.largest)
        return str(number), number, NUMBER
    right_ones = draws.randrange(operations) if rules.brackets else 0
    left = _expression(draws, rules, operations - 1 - right_ones)
    right = _expression(draws, rules, right_ones)
    if left is None or right is None:
        return None
    for operator in draws.sample(rules.operators, len(rules.operators)):
        value = _apply(operator, left[1], right[1])
        if value is not None and abs(value) <= LARGEST and (value >= 0 or rules.negative):
            return _joined(left, operator, right, value)
    return None


def _joined(left: Part, operator: str, right: Part, value: int) -> Part:
    """The whole, with the brackets that it needs: a part of the same rank on the right has them, as in a - (b - c)."""
    rank = RANK[operator]
    first = f"({left[0]})" if left[2] < rank else left[0]
    second = f"({right[0]})" if right[2] <= rank else right[0]
    return f"{first} {operator} {second}", value, rank


def _apply(operator: str, left: int, right: int) -> int | None:
    """The value; None: a division that leaves a rest."""
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    return None if right == 0 or left % right else left // right
