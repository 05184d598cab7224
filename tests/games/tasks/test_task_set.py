"""Sets of tasks: what they are functions of, their splits, and how a wrong name or setting is refused."""

import re
import subprocess
import sys

import pytest

from games.tasks import check, names, settings_of, task_set
from games.tasks.generated import Draft, generated, split_of

SMALL = {
    "algebra": {"level": 3},
    "arithmetic": {"level": 1},
    "countdown": {"numbers": 3},
    "knights": {"people": 2},
    "multihop": {"documents": 60},
    "reading": {"documents": 60},
    "survey": {"documents": 60, "questions": 2},
}
"""Generators, with settings that leave few different tasks."""


def test_every_generator_is_tried_here():
    assert set(SMALL) == set(names())


@pytest.mark.parametrize("name", names())
def test_a_task_is_a_function_of_settings_split_and_index_whatever_the_size_and_the_order_of_asking(name):
    few, many = task_set(name, **SMALL[name], size=20), task_set(name, **SMALL[name], size=300)
    backwards = [few[i] for i in reversed(range(20))]
    assert backwards[::-1] == many[:20] == list(few)
    assert len(few) == 20
    assert few[-1] == few[19]
    assert task_set(name, **SMALL[name], seed=1)[0].prompt != few[0].prompt
    assert len({task.id for task in many}) == 300


def test_another_process_makes_the_same_tasks():
    asks = "from games.tasks import names, task_set; print([task_set(name)[7].prompt for name in names()])"
    printed = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str([task_set(name)[7].prompt for name in names()])


def test_tasks_do_not_change_from_version_to_version():
    assert {name: task_set(name)[0].prompt for name in names()} == {
        "algebra": "Finn has 24 coins and gives 2 of them to Gina. How many coins does Finn have left?",
        "arithmetic": "What is 1 + 5?",
        "countdown": "Make 11 from the numbers 10, 6, 6, 13, each used at most once, with + - * / and brackets. "
        "Answer with the expression.",
        "knights": "Knights always tell the truth, knaves always lie. A says: B is a knight. B says: exactly 1 of us "
        "is a knight. C says: B is a knight. Who is what? Answer in this form: A knight, B knave, C knight.",
        "multihop": "What is the birthplace of Hedda Davosen?",
        "reading": "What is the first year of the Turin Prize? Given: The Turin Prize was first held in the year 2028. "
        "The Turin Prize is organised by the Ketex School. The Turin Prize takes place in Zitoford. The Turin Prize "
        "was won by Magda Tineman. The Turin Prize and the Kogil Games are often mixed up.",
        "survey": "What is the birth year of Lena Zebiman? Who is the teacher of Julia Damusen? Who is the teacher of "
        "Konrad Ranisen?",
    }


@pytest.mark.parametrize("name", names())
def test_train_and_test_share_no_task(name):
    train, test = (task_set(name, **SMALL[name], split=split, size=800) for split in ("train", "test"))
    assert {task.prompt for task in train} & {task.prompt for task in test} == set()
    assert train.name != test.name


def test_tasks_that_differ_only_in_what_could_be_learned_by_heart_are_in_one_split():
    def keys(name, key, **settings):
        splits = (task_set(name, split=split, size=1500, **settings) for split in ("train", "test"))
        return [{key(task) for task in tasks} for tasks in splits]

    # Numbers in another order, other names in the same story, other questions about the same thing.
    for train, test in (
        keys("countdown", lambda t: (t.metadata["target"], *sorted(t.metadata["numbers"])), numbers=2),
        keys("algebra", lambda t: (t.metadata["story"], *t.metadata["equations"]), level=1),
        keys("multihop", lambda t: t.metadata["chain"][0], documents=100),
    ):
        assert train
        assert test
        assert train & test == set()


def test_a_fifth_of_all_keys_are_for_tests():
    share = sum(split_of(f"key {number}") == "test" for number in range(10_000)) / 10_000
    assert share == pytest.approx(0.2, abs=0.012)  # three standard deviations


@pytest.mark.parametrize("name", names())
def test_the_gold_answer_is_right_and_an_empty_reply_is_not(name):
    for task in task_set(name, **SMALL[name], size=50):
        assert check(task, task.answer) == 1.0
        assert check(task, f"I think so. <answer> {task.answer}</answer>") == 1.0
        assert check(task, "") == 0.0
        assert check(task, "I do not know.") == 0.0


def test_a_draw_is_the_same_for_the_same_seed_and_reaches_the_whole_set():
    tasks = task_set("arithmetic", level=3, size=10)
    drawn = [tasks.draw(seed).id for seed in range(200)]
    assert drawn == [tasks.draw(seed).id for seed in range(200)]
    assert set(drawn) == {task.id for task in tasks}


def test_an_index_outside_the_set_is_an_error_and_ends_a_loop():
    tasks = task_set("arithmetic", size=3)
    with pytest.raises(IndexError, match="there is no task 3; there are 3"):
        tasks[3]
    assert len(list(tasks)) == 3
    assert [task.id[-1] for task in tasks[1:]] == ["1", "2"]


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("arithmetik", {}, "unknown tasks 'arithmetik'; nearest valid name: arithmetic; allowed: algebra, arithmetic"),
        ("knight", {}, "nearest valid name: knights"),
        ("arithmetic", {"lvl": 2}, "tasks arithmetic: unknown setting 'lvl'; its settings: level, split, seed, size"),
        ("arithmetic", {"level": 6}, "tasks arithmetic: level=6 is not allowed; it must be a whole number, 1 to 5"),
        ("algebra", {"level": True}, "level=True is not allowed"),
        ("countdown", {"numbers": 7}, "numbers=7 is not allowed; it must be a whole number, 2 to 6"),
        ("countdown", {"target": 1}, "target=1 is not allowed; it must be a whole number, 2 to 1000"),
        ("knights", {"people": 1}, "people=1 is not allowed; it must be a whole number, 2 to 5"),
        ("multihop", {"hops": 5}, "hops=5 is not allowed; it must be a whole number, 1 to 4"),
        ("multihop", {"documents": 19}, "documents=19 is not allowed; it must be a whole number, 20 to 20000"),
        ("multihop", {"style": "odd"}, "style='odd' is not allowed; it must be plain or varied"),
        ("algebra", {"split": "dev"}, "split='dev' is not allowed; it must be train or test"),
        ("algebra", {"size": 0}, "size=0 is not allowed; it must be a whole number, 1 or more"),
        ("algebra", {"seed": "x"}, "seed='x' is not allowed; it must be a whole number, 0 or more"),
    ],
)
def test_a_wrong_name_or_setting_is_refused_in_a_line(source, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        task_set(source, **settings)
    assert "\n" not in str(error.value)


def test_settings_are_told_with_their_defaults():
    assert settings_of("countdown") == {
        "numbers": 4,
        "largest": 20,
        "target": 100,
        "split": "train",
        "seed": 0,
        "size": 10_000,
    }
    with pytest.raises(ValueError, match="unknown generator 'chess'"):
        settings_of("chess")


def test_settings_that_leave_a_split_empty_are_refused_when_a_task_is_asked_for():
    def maker(draws):
        return Draft(prompt="1 + 1?", answer="2", check="number", split="train")

    assert generated("sums", maker, split="train", size=2)[1].id == "sums/train/1"
    with pytest.raises(ValueError, match="tasks sums: 2000 draws gave none of split 'test'; widen the settings"):
        generated("sums", maker, split="test", size=2)[0]
