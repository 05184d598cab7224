"""Questions whose answer nobody knows, and one question out of many."""

import pytest

import games
from games.pipelines import tasks_of
from games.tasks import check, task_set


def test_a_question_is_asked_as_it_is_and_no_answer_is_right() -> None:
    (task,) = task_set("asked", prompt="Why?")
    assert task.prompt == "Why?"
    assert check(task, "Because.") == check(task, "") == 0.0


@pytest.mark.parametrize("settings", [{}, {"prompt": " "}, {"prompt": 3}, {"prompt": "a", "answer": "b"}])
def test_a_question_without_words_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tasks asked: .*prompt"):
        task_set("asked", **settings)


def test_every_pipeline_asks_the_question_that_it_is_given() -> None:
    for name in ("workflow", "debate", "generate_verify_refine"):
        env = games.make(name, tasks={"source": "asked", "prompt": "What is left?"})
        env.reset(seed=3)
        assert "What is left?" in env.last()[0]["text"]
        assert env.unwrapped.hidden["gold"] == ""


def test_one_item_of_many_is_the_only_task() -> None:
    many = tasks_of("here", {"source": "arithmetic", "size": 5})
    (one,) = tasks_of("here", {"source": "arithmetic", "size": 5, "item": 3})
    assert one == many[3]


@pytest.mark.parametrize("item", [5, -1, "2", True])
def test_an_item_that_is_not_there_is_refused(item: object) -> None:
    with pytest.raises(ValueError, match=r"game here: tasks.item=.* is not allowed; it must be .* 0 to 4"):
        tasks_of("here", {"source": "arithmetic", "size": 5, "item": item})
