"""GPQA-Diamond: what experts can answer and others cannot look up (arXiv 2311.12022). The hub asks who you are."""

from random import Random

from games.tasks.base import TaskSet, check_between
from games.tasks.benchmarks.base import Hub, Item, benchmark, lettered
from games.tasks.choice_answers import letters
from games.tasks.rows import Row

HUB = Hub(name="Idavidrein/gpqa", subset="gpqa_diamond", split="train")
PROMPT = "{question}\n{choices}\nReason step by step, and put the letter of the right choice in \\boxed{{}}."
FIELDS = ("Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


def tasks(name: str, *, path: str | None = None, size: int | None = None, seed: int = 0) -> TaskSet:
    """The tasks, with the settings of `benchmark`; `seed`: of the order of the choices."""
    check_between(name, 0, None, seed=seed)
    return benchmark(name, HUB, read, path=path, size=size, seed=seed)


def read(row: Row, seed: int) -> Item:
    """The item of a row, whose choices are in an order that question and seed fix."""
    question = row.text("Question").strip()
    order = list(range(len(FIELDS)))
    Random(f"gpqa {seed} {question}").shuffle(order)
    choices = tuple(row.text(FIELDS[number]).strip() for number in order)
    return Item(
        prompt=PROMPT.format(question=question, choices=lettered(choices)),
        answer=letters(choices)[order.index(0)],
        check="choice",
        metadata={"choices": choices},
    )
