"""Multiple choice: which letter a reply means, and when it means none."""

import time
from typing import Any

import pytest

from games.tasks import Task, check
from games.tasks.answers import alike, validate
from games.tasks.choice_answers import read_choice

CHOICES = ("3", "4", "Paris", "five apples")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "C",
            "c",
            "(C)",
            "C)",
            "C.",
            "**C**",
            "$C$",
            "\\text{C}",
            "Option C",
            "(c) Paris",
            "C) Paris",
            "Paris",
            "paris.",
        ),
        *("The answer is C", "The answer is **C**.", "Answer: C", "Final Answer:\nC", "The answer is $\\text{C}$"),
        *("The answer is C because A is too small", "The correct answer is: (C) Paris", "The answer is Paris."),
        "A) is too small.\nB) is too large.\nThe answer is C. So C.",
        "A triangle has three sides.\nThe answer is C",
        "So it must be\n\n**C**\n\nas was to be shown",
        "A and B are out, so that this is left:\nC",
    ],
)
def test_a_letter_is_read_however_it_is_written(text: str) -> None:
    assert read_choice(text, CHOICES) == "C"


@pytest.mark.parametrize(
    "text",
    [
        *("", "E", "no answer", "A or B", "A, B", "C) 4", "C. 4", "I do not know", "The answer is A or C"),
        *("The answer is A, C", "The answer is C. No, the answer is D", "The answer is not clear", "**A**, no, **C**"),
        *("The answer is C) 4", "A) is right\nB) is wrong"),
    ],
)
def test_two_letters_or_none_are_no_answer(text: str) -> None:
    assert read_choice(text, CHOICES) is None


def test_the_gold_letter_is_right_and_votes_are_counted_by_letter() -> None:
    task = Task(id="t", prompt="?", answer="C", check="choice", metadata={"choices": CHOICES})
    assert [check(task, text) for text in ("<answer>(C)</answer>", "So \\boxed{C}", "B", "?")] == [1, 1, 0, 0]
    assert {alike(task, text) for text in ("C", "The answer is (C)", "Paris")} == {"C"}


def test_a_choice_that_stands_there_twice_has_no_letter_of_its_own() -> None:
    assert read_choice("same", ("same", "same")) is None


@pytest.mark.parametrize(
    ("answer", "metadata", "message"),
    [
        ("C", {}, "metadata.choices=() is not allowed; it must be a list of 2 to 26 texts"),
        ("A", {"choices": "AB"}, "metadata.choices='AB' is not allowed"),
        ("C", {"choices": ["1", "2"]}, "answer='C' is not allowed; it must be one of A, B"),
        ("AB", {"choices": ["1", "2"]}, "answer='AB' is not allowed"),
    ],
)
def test_a_task_without_choices_is_refused(answer: str, metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="with check 'choice'") as error:
        validate(Task(id="t", prompt="?", answer=answer, check="choice", metadata=metadata))
    assert message in str(error.value)


@pytest.mark.parametrize(
    "part",
    [
        *(
            "the answer is ",
            "answer: ",
            "answer is\n",
            "answer is :",
            "**",
            "** ",
            "** a ** ",
            "**C** ",
            "(",
            "A ",
            "\n",
            " ",
        ),
        *("\\text{", "word ", "A, "),
    ],
)
def test_a_long_reply_that_repeats_itself_is_read_in_no_time(part: str) -> None:
    text = part * (100_000 // len(part))
    for whole in (text, f"**{text}1", f"option{text}1", f"A{text}1", f"answer is{text}"):
        begin = time.process_time()
        read_choice(whole, CHOICES)
        assert time.process_time() - begin < 1


def test_of_many_answers_the_last_ones_count() -> None:
    assert read_choice("The answer is A\n" + "The answer is C\n" * 20, CHOICES) == "C"
    assert read_choice("The answer is A\n" + "The answer is C\n" * 19, CHOICES) is None
