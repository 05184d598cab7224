"""MMLU: 14,042 questions with four choices, of 57 subjects (arXiv 2009.03300)."""

from games.tasks.base import TaskSet
from games.tasks.benchmarks.base import Hub, Item, benchmark, lettered
from games.tasks.choice_answers import letters
from games.tasks.rows import Row

HUB = Hub(name="cais/mmlu", subset="all", split="test")
PROMPT = "{question}\n{choices}\nReason step by step, and put the letter of the right choice in \\boxed{{}}."


def tasks(name: str, *, path: str | None = None, size: int | None = None) -> TaskSet:
    """The tasks, with the settings of `benchmark`."""
    return benchmark(name, HUB, read, path=path, size=size)


def read(row: Row) -> Item:
    """The item of a row, whose answer is the number of a choice, from 0."""
    choices, number = row.texts("choices"), row.fields.get("answer")
    if type(number) is not int or not 0 <= number < len(choices):
        raise row.refused("answer", f"a whole number, 0 to {len(choices) - 1}")
    return Item(
        prompt=PROMPT.format(question=row.text("question").strip(), choices=lettered(choices)),
        answer=letters(choices)[number],
        check="choice",
        metadata={"choices": choices, "subject": row.text("subject")},
    )
