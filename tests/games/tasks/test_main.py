"""Tasks and documents from the command line."""

import json
from dataclasses import asdict

import pytest

from games.tasks import task_set
from games.tasks.__main__ import main
from games.tasks.corpus import corpus


def printed(capsys, *arguments):
    assert main(arguments) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_tasks_are_printed_as_json_lines(capsys):
    asked = ("arithmetic", "--level", "2", "--count", "3", "--start", "5", "--split", "test")
    tasks = task_set("arithmetic", level=2, split="test")
    assert printed(capsys, *asked) == [asdict(task) for task in tasks[5:8]]


def test_the_corpus_is_printed_too(capsys):
    rows = printed(capsys, "corpus", "--documents", "20", "--world-seed", "2")
    assert rows == [asdict(document) for document in corpus(documents=20, world_seed=2).documents]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("arithmetik",), "error: unknown tasks 'arithmetik'; nearest valid name: arithmetic"),
        (("arithmetic", "--level", "9"), "error: tasks arithmetic: level=9 is not allowed"),
        (("arithmetic", "--level"), "error: settings are pairs of --NAME and VALUE; there are: --level"),
        (("corpus", "--pages", "9"), "error: "),
    ],
)
def test_a_mistake_is_one_line_on_stderr(capsys, arguments, message):
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(message)
    assert told.err.count("\n") == 1
