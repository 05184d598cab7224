"""The stories that algebra problems tell, by level.

Solutions are drawn first and what the text gives follows from them, so that every problem has a whole solution.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

NAMES = (
    *("Ann", "Ben", "Cara", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jack", "Kim", "Leo", "Mia", "Noah", "Olga"),
    *("Paul", "Rosa", "Sam", "Tina", "Uma", "Vera", "Will", "Yara", "Zoe"),
)
THINGS = ("apples", "books", "cards", "coins", "cups", "eggs", "hats", "keys", "nuts", "pens", "plums", "shells")


@dataclass(frozen=True, kw_only=True, slots=True)
class Story:
    """A problem with blanks."""

    text: str
    """In braces: names p, q, r; plurals thing, other; numbers."""
    equations: tuple[str, ...]
    """What the text says, with the same numbers in braces; x is asked for, y and z are other unknowns."""
    ranges: Mapping[str, tuple[int, int]]
    """Numbers that are drawn, each with its least and greatest value."""
    rest: Callable[..., dict[str, int]]
    """The other numbers, from those that were drawn."""


ONE_STEP = (
    Story(
        text="{p} has {a} {thing} and gets {b} more. How many {thing} does {p} have now?",
        equations=("x = {a} + {b}",),
        ranges={"a": (1, 20), "b": (1, 20)},
        rest=lambda a, b: {"x": a + b},
    ),
    Story(
        text="{p} has {a} {thing} and gives {b} of them to {q}. How many {thing} does {p} have left?",
        equations=("x = {a} - {b}",),
        ranges={"a": (2, 30), "b": (1, 20)},
        rest=lambda a, b: {"x": a - b},
    ),
    Story(
        text="{p} has some {thing}. After getting {b} more, {p} has {c}. How many {thing} did {p} have at first?",
        equations=("x + {b} = {c}",),
        ranges={"x": (1, 20), "b": (1, 20)},
        rest=lambda x, b: {"c": x + b},
    ),
    Story(
        text="{p} gives away {b} {thing} and has {c} left. How many {thing} did {p} have at first?",
        equations=("x - {b} = {c}",),
        ranges={"x": (2, 30), "b": (1, 20)},
        rest=lambda x, b: {"c": x - b},
    ),
)
TWO_STEPS = (
    Story(
        text=(
            "{p} has {a} boxes with {b} {thing} in each and gives {c} {thing} to {q}. "
            "How many {thing} does {p} have left?"
        ),
        equations=("x = {a}*{b} - {c}",),
        ranges={"a": (2, 9), "b": (2, 9), "c": (2, 30)},
        rest=lambda a, b, c: {"x": a * b - c},
    ),
    Story(
        text="{p} buys {a} {thing} at the same price and a bag for {b} coins, and pays {c} coins. What does one cost?",
        equations=("{a}*x + {b} = {c}",),
        ranges={"a": (2, 9), "x": (1, 20), "b": (2, 20)},
        rest=lambda a, x, b: {"c": a * x + b},
    ),
    Story(
        text=(
            "{p} shares some {thing} among {a} children. Each gets {b}, and {c} are left over. "
            "How many {thing} were there?"
        ),
        equations=("x = {a}*{b} + {c}",),
        ranges={"a": (4, 9), "b": (2, 12), "c": (2, 3)},
        rest=lambda a, b, c: {"x": a * b + c},
    ),
    Story(
        text="{a} times a number, less {b}, is {c}. What is the number?",
        equations=("{a}*x - {b} = {c}",),
        ranges={"a": (2, 9), "x": (2, 20), "b": (1, 30)},
        rest=lambda a, x, b: {"c": a * x - b},
    ),
)
BOTH_SIDES = (
    Story(
        text="{a} times a number plus {b} is the same as {c} times the number plus {d}. What is the number?",
        equations=("{a}*x + {b} = {c}*x + {d}",),
        ranges={"x": (1, 20), "b": (1, 20), "c": (2, 6), "e": (1, 5)},
        rest=lambda x, b, c, e: {"a": c + e, "d": e * x + b},
    ),
    Story(
        text="{p} has {a} times as many {thing} as {q}. Together they have {b}. How many {thing} does {q} have?",
        equations=("y = {a}*x", "x + y = {b}"),
        ranges={"x": (2, 30), "a": (2, 9)},
        rest=lambda x, a: {"b": x + a * x},
    ),
    Story(
        text="{p} has {a} {thing} more than {q}. Together they have {b}. How many {thing} does {p} have?",
        equations=("x = y + {a}", "x + y = {b}"),
        ranges={"x": (3, 60), "a": (2, 30)},
        rest=lambda x, a: {"y": x - a, "b": 2 * x - a},
    ),
    Story(
        text=(
            "{p} starts with {a} coins and saves {b} coins a week. {q} starts with {c} coins and saves {d} coins a "
            "week. After how many weeks do they have the same?"
        ),
        equations=("{a} + {b}*x = {c} + {d}*x",),
        ranges={"x": (2, 20), "a": (2, 30), "d": (2, 8), "e": (1, 6)},
        rest=lambda x, a, d, e: {"b": d + e, "c": a + e * x},
    ),
)
TWO_UNKNOWNS = (
    Story(
        text=(
            "{a} {thing} and {b} {other} cost {m} coins. {c} {thing} and {d} {other} cost {n} coins. "
            "How many coins does one of the {thing} cost?"
        ),
        equations=("{a}*x + {b}*y = {m}", "{c}*x + {d}*y = {n}"),
        ranges={"x": (1, 15), "y": (1, 15), "a": (2, 6), "b": (2, 6), "c": (2, 6), "d": (2, 6)},
        # A determinant of 0 would leave the price open: "k" is no number of the text, and must be 1 or more.
        rest=lambda x, y, a, b, c, d: {"m": a * x + b * y, "n": c * x + d * y, "k": abs(a * d - b * c)},
    ),
    Story(
        text=(
            "In {d} years {p} will be {a} times as old as {q} will be then. "
            "Today {p} is {b} years older than {q}. How old is {q} today?"
        ),
        equations=("y + {d} = {a}*(x + {d})", "y - x = {b}"),
        ranges={"x": (1, 20), "d": (2, 12), "a": (2, 4)},
        rest=lambda x, d, a: {"b": (a - 1) * (x + d)},
    ),
    Story(
        text=(
            "A farm has hens and cows, {m} animals with {n} legs in all. A hen has 2 legs, a cow has 4. "
            "How many cows are there?"
        ),
        equations=("x + y = {m}", "4*x + 2*y = {n}"),
        ranges={"x": (1, 40), "y": (1, 40)},
        rest=lambda x, y: {"m": x + y, "n": 4 * x + 2 * y},
    ),
    Story(
        text=(
            "{p} and {q} have {m} {thing} together. If {p} gave {a} of them to {q}, both would have the same. "
            "How many {thing} does {p} have?"
        ),
        equations=("x + y = {m}", "x - {a} = y + {a}"),
        ranges={"y": (1, 40), "a": (1, 15)},
        rest=lambda y, a: {"x": y + 2 * a, "m": 2 * y + 2 * a},
    ),
)
THREE_UNKNOWNS = (
    Story(
        text=(
            "{p}, {q} and {r} have {m} {thing} in all. {p} has {a} times as many as {q}, and {r} has {b} more than "
            "{p}. How many {thing} does {r} have?"
        ),
        equations=("x + y + z = {m}", "y = {a}*z", "x = y + {b}"),
        ranges={"z": (2, 20), "a": (2, 5), "b": (1, 20)},
        rest=lambda z, a, b: {"x": a * z + b, "y": a * z, "m": 2 * a * z + b + z},
    ),
    Story(
        text=(
            "{p} and {q} are {k} years old together, {q} and {r} are {m} together, {p} and {r} are {n} together. "
            "How old is {p}?"
        ),
        equations=("x + y = {k}", "y + z = {m}", "x + z = {n}"),
        ranges={"x": (1, 40), "y": (1, 40), "z": (1, 40)},
        rest=lambda x, y, z: {"k": x + y, "m": y + z, "n": x + z},
    ),
    Story(
        text=(
            "{p} buys {a} {thing} and {b} {other} for {k} coins. {q} buys {c} {other} and a map for {m} coins. "
            "A map costs {n} coins more than one of the {thing}. How many coins does a map cost?"
        ),
        equations=("{a}*y + {b}*z = {k}", "{c}*z + x = {m}", "x = y + {n}"),
        ranges={"y": (1, 12), "z": (1, 12), "a": (2, 6), "b": (2, 6), "c": (2, 6), "n": (2, 9)},
        # As above: a*c and b in proportion would leave the price open.
        rest=lambda y, z, a, b, c, n: {"x": y + n, "k": a * y + b * z, "m": c * z + y + n, "i": abs(a * c - b)},
    ),
    Story(
        text=(
            "Today {p} is {a} times as old as {q}. {r} is {b} years younger than {p}. In {c} years the three will be "
            "{m} years old together. How old is {r} today?"
        ),
        equations=("y = {a}*z", "x = y - {b}", "x + y + z + 3*{c} = {m}"),
        ranges={"z": (2, 15), "a": (2, 4), "b": (2, 15), "c": (2, 10)},
        rest=lambda z, a, b, c: {"x": a * z - b, "y": a * z, "m": 2 * a * z - b + z + 3 * c},
    ),
)
LEVELS = (ONE_STEP, TWO_STEPS, BOTH_SIDES, TWO_UNKNOWNS, THREE_UNKNOWNS)
"""Stories by level, 1 first."""
