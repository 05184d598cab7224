"""Arithmetic: values by exact evaluation of the text, and levels that get harder."""

import ast
import operator
import re
from fractions import Fraction
from statistics import mean

import pytest

from games.tasks import check, task_set

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def value_of(node):
    """Exact value by Python's own reading of the expression."""
    if isinstance(node, ast.Constant):
        return Fraction(node.value)
    return OPERATORS[type(node.op)](value_of(node.left), value_of(node.right))


def expression_of(task):
    return re.fullmatch(r"What is (.+)\?", task.prompt)[1]


@pytest.mark.parametrize("level", range(1, 6))
def test_the_answer_is_the_value_of_the_expression_in_the_question(level):
    for task in task_set("arithmetic", level=level, size=400):
        expression = expression_of(task)
        value = value_of(ast.parse(expression, mode="eval").body)
        assert task.answer == str(value)
        assert abs(value) <= 9999
        assert task.metadata == {"level": level, "operations": len(re.findall(r" [-+*/] ", expression))} | {
            "expression": expression,
            "paraphrase": f"Find the value of {expression}.",
        }
        assert check(task, f"<answer>{task.answer}.</answer>") == 1.0
        assert check(task, str(int(task.answer) + 1)) == 0.0


def test_levels_get_harder():
    levels = [[expression_of(task) for task in task_set("arithmetic", level=n, size=300)] for n in range(1, 6)]
    lengths = [mean(map(len, level)) for level in levels]
    operations = [mean(len(re.findall(r" [-+*/] ", text)) for text in level) for level in levels]
    assert lengths == sorted(lengths)
    assert operations == [1, 1, 2, 3, 5]
    assert all(re.fullmatch(r"[1-9] [-+] [1-9]", text) for text in levels[0])
    assert not any("(" in text for level in levels[:3] for text in level if "*" not in text)
    assert any("/" in text and "((" in text for text in levels[4])


def test_every_part_of_a_hard_expression_is_a_whole_number():
    def parts(node):
        return [node, *parts(node.left), *parts(node.right)] if isinstance(node, ast.BinOp) else [node]

    for task in task_set("arithmetic", level=5, size=300):
        for part in parts(ast.parse(expression_of(task), mode="eval").body):
            assert value_of(part).denominator == 1


def test_there_are_no_brackets_that_change_nothing():
    for task in task_set("arithmetic", level=5, size=300):
        tree = ast.parse(expression_of(task), mode="eval")
        assert ast.unparse(tree) == expression_of(task)
