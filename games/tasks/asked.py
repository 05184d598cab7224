"""A question that somebody asks, whose answer nobody here knows."""

from games.tasks.base import Task, TaskSet, refused

SOURCE = "asked"


def ask(_: str, *, prompt: str) -> TaskSet:
    """The one task whose question is `prompt`.

    Raises:
        ValueError: the prompt is empty.
    """
    if not isinstance(prompt, str) or not prompt.strip():
        raise refused(SOURCE, "prompt", prompt, "a text")
    task = Task(id=SOURCE, prompt=prompt, answer="", check="unknown")
    return TaskSet(name=SOURCE, size=1, make=lambda _: task)


def unknown(task: Task, answer: str) -> float:
    """0.0: nobody can say."""
    return 0.0
