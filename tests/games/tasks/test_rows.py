"""Tasks from files of JSON lines and from Hugging Face data sets; broken lines are named by number."""

import json
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from games.tasks import Task, check, names, task_set

GOOD = '{"prompt": "2 + 2?", "answer": "4"}'


def written(tmp_path, *lines):
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines))
    return str(path)


@pytest.mark.parametrize("name", names())
def test_generated_tasks_come_back_from_a_file_as_they_were(tmp_path, name):
    tasks = task_set(name, size=20)
    path = written(tmp_path, *(json.dumps(asdict(task)) for task in tasks))
    assert list(task_set(path)) == list(tasks)


def test_a_row_needs_a_prompt_and_an_answer_only(tmp_path):
    path = written(tmp_path, "\ufeff" + GOOD, "", '{"prompt": "Half of 5?", "answer": 2.5, "level": 3, "id": 7}\r', "")
    assert list(task_set(path, check="number")) == [
        Task(id=f"{path}, line 1", prompt="2 + 2?", answer="4", check="number"),
        Task(id="7", prompt="Half of 5?", answer="2.5", check="number", metadata={"level": 3}),
    ]


def test_fields_may_have_other_names_and_answers_may_stand_at_the_end_of_a_solution(tmp_path):
    row = {"question": "Apples?", "solution": "3 * 4 = 12\n#### 1,012", "metadata": {"from": "gsm"}, "n": 1}
    path = written(tmp_path, json.dumps(row))
    (task,) = task_set(path, prompt="question", answer="solution", after="####", check="number")
    assert (task.prompt, task.answer) == ("Apples?", "1,012")
    assert task.metadata == {"from": "gsm", "n": 1}
    assert check(task, "It is \\boxed{1012}") == 1.0


def test_a_gold_answer_in_a_box_is_taken_out_of_it(tmp_path):
    (task,) = task_set(written(tmp_path, json.dumps({"prompt": "?", "answer": "So $x=\\boxed{\\frac{1}{2}}$."})))
    assert task.answer == "\\frac{1}{2}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x"', "not JSON: Expecting ',' delimiter (column 15)"),
        ("[1, 2]", "[1, 2] is not allowed; it must be an object with fields"),
        ('{"answer": "4"}', "field 'prompt' is missing; there are: answer"),
        ('{"prompt": "x", "anwser": "4"}', "field 'answer' is missing; there are: prompt, anwser"),
        ("{}", "field 'prompt' is missing; there are: none"),
        ('{"prompt": 5, "answer": "4"}', "field 'prompt': 5 is not allowed; it must be a text"),
        ('{"prompt": " ", "answer": "4"}', "field 'prompt': ' ' is not allowed; it must be a text"),
        ('{"prompt": "x", "answer": null}', "field 'answer': None is not allowed; it must be a text or a number"),
        ('{"prompt": "x", "answer": true}', "field 'answer': True is not allowed; it must be a text or a number"),
        ('{"prompt": "x", "answer": NaN}', "field 'answer': nan is not allowed; it must be a text or a number"),
        (
            '{"prompt": "x", "answer": "4", "check": "exakt"}',
            "check='exakt' is not allowed; it must be one of choice, code, countdown",
        ),
        ('{"prompt": "x", "answer": "4", "check": 1}', "field 'check': 1 is not allowed"),
        ('{"prompt": "x", "answer": "four", "check": "number"}', "answer='four' is not allowed; it must be a number"),
        ('{"prompt": "x", "answer": "?!"}', "answer='?!' is not allowed; it must be a text with letters or digits"),
        (
            '{"prompt": "x", "answer": "4", "metadata": [1]}',
            "field 'metadata': [1] is not allowed; it must be an object",
        ),
        ('{"prompt": "x", "answer": "4", "id": "same"}', "id 'same' is taken by "),
        ('{"prompt": "x", "answer": "1 + 1", "check": "countdown"}', "metadata.target=None is not allowed"),
        (
            '{"prompt": "x", "answer": "1 + 1", "check": "countdown", "metadata": {"target": 2, "numbers": [1, 3]}}',
            "answer='1 + 1' is not allowed; it must be an expression that makes 2 from [1, 3]",
        ),
        (
            '{"prompt": "x", "answer": "1", "check": "countdown", "metadata": {"target": 1, "numbers": "1"}}',
            "metadata.numbers='1' is not allowed; it must be a list of whole numbers",
        ),
        ('{"prompt": "x", "answer": "A", "check": "knights"}', "answer='A' is not allowed; it must be like 'A knight"),
        (b'{"prompt": "\xff"}', "not UTF-8 (byte 13)"),
        ("[" * 100_000, "not JSON that can be read"),
        ('{"prompt": "x", "answer": ' + "1" * 5000 + "}", "not JSON that can be read"),
    ],
)
def test_a_broken_line_is_named_by_its_number(tmp_path, line, message):
    first = '{"prompt": "1 + 1?", "answer": "2", "id": "same"}'
    path = written(tmp_path, first, "", line, GOOD)
    with pytest.raises(ValueError, match="line 3: ") as error:
        task_set(path)
    assert str(error.value).startswith(f"{path}, line 3: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_without_tasks_is_refused(tmp_path):
    for lines in ([], [""], ["", "  "]):
        path = written(tmp_path, *lines)
        with pytest.raises(ValueError, match="there are no tasks") as error:
            task_set(path)
        assert str(error.value) == f"{path}: there are no tasks"


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none\.jsonl: cannot be read: No such file"):
        task_set(str(tmp_path / "none.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(ValueError, match=r"folder\.jsonl: cannot be read: Is a directory"):
        task_set(str(tmp_path / "folder.jsonl"))


def test_an_unknown_setting_or_checker_of_a_file_is_refused(tmp_path):
    path = written(tmp_path, GOOD)
    with pytest.raises(ValueError, match="'level'; its settings: split, prompt, answer, check, after"):
        task_set(path, level=2)
    with pytest.raises(
        ValueError, match="check='fuzzy' is not allowed; it must be one of choice, code, countdown, exact, f1"
    ):
        task_set(path, check="fuzzy")
    with pytest.raises(ValueError, match="split='dev' is not allowed; it must be train or test, or left out"):
        task_set(path, split="dev")


def test_a_file_falls_into_two_parts_that_share_no_prompt(tmp_path):
    lines = [json.dumps({"prompt": f"{n % 50} + 1?", "answer": n % 50 + 1}) for n in range(100)]
    path = written(tmp_path, *lines)
    train, test = ({task.prompt for task in task_set(path, split=split)} for split in ("train", "test"))
    assert train & test == set()
    assert len(train) + len(test) == 50
    assert len(task_set(path)) == 100
    path = written(tmp_path, GOOD)
    sizes = []
    for split in ("train", "test"):
        try:
            sizes.append(len(task_set(path, split=split)))
        except ValueError as error:
            assert str(error) == f"{path}: there are no tasks in split '{split}'"  # noqa: PT017
    assert sizes == [1]


def test_a_data_set_is_read_or_the_error_says_how_to_install_what_reads_it(tmp_path, monkeypatch):
    (tmp_path / "test.jsonl").write_text('{"question": "2 + 2?", "solution": "#### 4"}\n')
    source, names_of = f"hf:{tmp_path}", {"prompt": "question", "answer": "solution"}
    if find_spec("datasets"):
        monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
        (task,) = task_set(source, split="test", after="####", **names_of)
        assert task == Task(id=f"{source}, row 0", prompt="2 + 2?", answer="4")
        with pytest.raises(ValueError, match="cannot be loaded: ValueError: Unknown split"):
            task_set(source, split="dev")
    else:
        with pytest.raises(ValueError, match=r"needs the package datasets: pip install 'marl-llm\[tasks\]'"):
            task_set(source, split="test", **names_of)
    with pytest.raises(ValueError, match="'level'; its settings: split, subset, prompt, answer, check, after"):
        task_set(source, level=1)
