"""Countdown: gold answers and other right ones, and what is no answer."""

import re
from collections import Counter
from fractions import Fraction
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games.tasks import Task, check, task_set
from games.tasks.countdown import evaluate

TASK = Task(
    id="t", prompt="?", answer="(8 - 5) * 3", check="countdown", metadata={"numbers": [3, 5, 8, 8], "target": 9}
)


def by_python(expression):
    """Exact value by Python itself, numbers made fractions first."""
    return eval(re.sub(r"([0-9]+)", r"Fraction(\1)", expression), {"Fraction": Fraction})


@pytest.mark.parametrize("numbers", range(2, 7))
def test_the_gold_answer_makes_the_target_from_all_numbers_of_the_question(numbers):
    for task in task_set("countdown", numbers=numbers, size=200):
        target, listed = re.match(r"Make ([0-9]+) from the numbers ([0-9, ]+), each", task.prompt).groups()
        assert by_python(task.answer) == int(target) == task.metadata["target"]
        given_numbers = [int(number) for number in listed.split(", ")]
        assert Counter(map(int, re.findall("[0-9]+", task.answer))) == Counter(given_numbers)
        assert task.metadata["numbers"] == given_numbers
        assert len(given_numbers) == numbers
        assert 1 <= int(target) <= 100
        assert int(target) not in given_numbers


def test_more_numbers_mean_longer_solutions():
    lengths = [mean(len(task.answer) for task in task_set("countdown", numbers=n, size=200)) for n in range(2, 7)]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("(8 - 5) * 3", True),
        ("3*(8-5)", True),
        ("3 × (8 − 5) = 9", True),
        ("$[8 - 5] * 3$.", True),
        ("so <answer>(8-5)*3</answer>", True),
        ("8 / 8 + 5 + 3", True),
        ("8 + 3 / (8 - 5)", True),
        ("(8 + 5 / (8 - 3))", True),
        ("8 - 5 + 3", False),  # 6
        ("3 * 3", False),  # 3 is there once
        ("8 + 8 + 8 - 5 * 3", False),  # 9, but with three eights
        ("9", False),
        ("3 + 6", False),
        ("(8 - 5) * 3 = 10", False),
        ("(8 - 5) * 3 = 9 = 9", False),
        ("-5 + 8 + 3 + 3", False),
        ("8 - -5", False),
        ("3 ** 5", False),
        ("8 // 5", False),
        ("8 / (8 - 8)", False),
        ("8 + 03", False),
        ("8 +", False),
        ("The answer is (8 - 5) * 3", False),
        ("__import__('os')", False),
        ("(" * 90 + "8" + ")" * 90, False),
        ("8" * 150, False),
        ("", False),
    ],
)
def test_any_expression_that_keeps_the_rules_is_right_and_no_other(reply, right):
    assert check(TASK, reply) == float(right)


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({' '.join(parts)})"),
    max_leaves=8,
)


@given(EXPRESSIONS)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_expressions_are_worth_what_python_says_with_exact_fractions(expression):
    try:
        value = by_python(expression)
    except ZeroDivisionError:
        assert evaluate(expression) is None
    else:
        assert evaluate(expression) == (value, [int(number) for number in re.findall("[0-9]+", expression)])
