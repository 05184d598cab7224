"""Benchmarks: their own made-up samples, what is asked and checked, and how broken rows are named."""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from games.tasks import BENCHMARKS, check, task_set
from games.tasks.benchmarks.base import Hub

SAMPLES = Path(import_module("games.tasks.benchmarks").__file__ or "").with_name("samples")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text().splitlines()]


def written(tmp_path: Path, *content: dict[str, Any]) -> str:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in content))
    return str(path)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_sample_has_five_to_ten_tasks_whose_gold_answers_are_right_and_others_wrong(name: str) -> None:
    tasks = task_set(name, path="sample")
    assert 5 <= len(tasks) <= 10
    assert [task.id for task in tasks] == [f"{name}/{number}" for number in range(len(tasks))]
    for task in tasks:
        assert check(task, task.answer) == check(task, f"So <answer>{task.answer}</answer>") == 1.0
        assert check(task, "I do not know.") == check(task, "") == 0.0
        if task.check != "code":
            assert check(task, f"It is \\boxed{{{task.answer}}}, clearly.") == 1.0


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_file_of_a_benchmark_says_where_its_rows_come_from(name: str) -> None:
    module = import_module(f"games.tasks.benchmarks.{name}")
    hub = module.HUB if hasattr(module, "HUB") else module.mmlu.HUB
    assert isinstance(hub, Hub)
    assert "/" in hub.name


def test_the_gold_answer_of_gsm8k_follows_the_last_mark() -> None:
    task = task_set("gsm8k", path="sample")[1]
    assert (task.answer, task.check) == ("1,440", "number")
    assert task.prompt.endswith("\nReason step by step, and put the final answer in \\boxed{}.")
    assert check(task, "1440 cars") == 1.0


def test_scibench_allows_five_per_cent() -> None:
    task = task_set("scibench", path="sample")[0]
    assert "units of m." in task.prompt
    assert [check(task, answer) for answer in ("30.7", "29.2", "32.2", "29.1", "32.3", "-30.7")] == [1, 1, 1, 0, 0, 0]
    assert "units" not in task_set("scibench", path="sample")[3].prompt


def test_the_letters_of_aqua_are_taken_off_its_options() -> None:
    task = task_set("aqua", path="sample")[0]
    assert task.metadata["choices"] == ("72", "75", "80", "85", "90")
    assert "\nC) 80\n" in task.prompt
    assert (check(task, "80"), check(task, "C"), check(task, "72")) == (1.0, 1.0, 0.0)


def test_the_seed_orders_the_choices_of_gpqa_and_the_gold_letter_follows() -> None:
    gold = [row["Correct Answer"] for row in rows("gpqa_diamond")]
    letters = set()
    for seed in range(5):
        tasks = task_set("gpqa_diamond", path="sample", seed=seed)
        assert [task.metadata["choices"]["ABCD".index(task.answer)] for task in tasks] == gold
        assert list(tasks) == list(task_set("gpqa_diamond", path="sample", seed=seed))
        letters.add("".join(task.answer for task in tasks))
    assert len(letters) > 1


def test_mmlu_stem_is_the_part_of_mmlu_in_its_subjects(tmp_path: Path) -> None:
    whole, stem = task_set("mmlu", path="sample"), task_set("mmlu_stem", path="sample")
    assert (len(whole), len(stem)) == (8, 6)
    assert [task.prompt for task in stem] == [task.prompt for task in whole[:6]]
    with pytest.raises(ValueError, match="tasks mmlu_stem: there are none in"):
        task_set("mmlu_stem", path=written(tmp_path, rows("mmlu")[-1]))


def test_a_function_is_run_after_what_stands_before_it_in_the_prompt() -> None:
    helper = task_set("humaneval", path="sample")[2]
    short = "```python\ndef without_vowels(text):\n    return ''.join(c for c in text if not is_vowel(c))\n```"
    assert check(helper, f"Here it is:\n{short}\nIt uses the helper.") == 1.0
    assert "def is_vowel" in helper.metadata["before"]
    assert "def without_vowels" not in helper.metadata["before"]


def test_the_first_so_many_tasks_are_taken() -> None:
    assert len(task_set("gsm8k", path="sample", size=2)) == 2
    assert len(task_set("gsm8k", path="sample", size=100)) == 6
    assert task_set("gsm8k", path="sample", size=2)[1] == task_set("gsm8k", path="sample")[1]


def test_a_file_in_the_form_of_the_data_set_is_read_and_read_again_when_it_has_changed(tmp_path: Path) -> None:
    path = written(tmp_path, *rows("gsm8k")[:2])
    assert list(task_set("gsm8k", path=path)) == list(task_set("gsm8k", path="sample", size=2))
    assert task_set("gsm8k", path=path)[0] is task_set("gsm8k", path=path)[0]
    written(tmp_path, rows("gsm8k")[2])
    assert task_set("gsm8k", path=path)[0].answer == "21"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("gsm8k", {"answer": "so #### many"}, "answer='many' is not allowed; it must be a number"),
        ("gsm8k", {"question": None}, "field 'question': None is not allowed; it must be a text"),
        ("math500", {"answer": ""}, "field 'answer': '' is not allowed; it must be a text"),
        ("aime24", {"answer": []}, "field 'answer': [] is not allowed; it must be a text or a number"),
        ("scibench", {"answer_number": "about 3"}, "answer='about 3' is not allowed; it must be a number"),
        ("aqua", {"correct": "F"}, "answer='F' is not allowed; it must be one of A, B, C, D, E"),
        ("aqua", {"options": "A)1"}, "field 'options': 'A)1' is not allowed; it must be a list of texts"),
        ("gpqa_diamond", {"Incorrect Answer 2": " "}, "field 'Incorrect Answer 2': ' ' is not allowed"),
        ("mmlu", {"answer": 4}, "field 'answer': 4 is not allowed; it must be a whole number, 0 to 3"),
        ("mmlu", {"answer": "B"}, "field 'answer': 'B' is not allowed; it must be a whole number, 0 to 3"),
        ("humaneval", {"test": ""}, "field 'test': '' is not allowed; it must be a text"),
        ("mbpp", {"test_list": []}, "field 'test_list': [] is not allowed; it must be a list of texts"),
    ],
)
def test_a_broken_row_is_named_by_its_number(tmp_path: Path, name: str, change: dict[str, Any], message: str) -> None:
    first, second, *_ = rows(name)
    path = written(tmp_path, first, {**second, **change})
    with pytest.raises(ValueError, match="line 2: ") as error:
        task_set(name, path=path)
    assert str(error.value).startswith(f"{path}, line 2: ")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 0}, "tasks gsm8k: size=0 is not allowed"),
        ({"path": "samples"}, "path='samples' is not allowed; it must be a .jsonl file, sample, or null"),
        ({"seed": 1}, "tasks gsm8k: got an unexpected keyword argument 'seed'; its settings: path, size"),
        ({"path": "none.jsonl"}, r"none.jsonl: cannot be read: No such file"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"gsm8k|cannot be read") as error:
        task_set("gsm8k", **settings)
    assert message in str(error.value)


def test_a_benchmark_is_found_by_a_name_that_is_nearly_its_own() -> None:
    with pytest.raises(ValueError, match=r"unknown tasks 'gsm8'; nearest valid name: gsm8k; allowed: .*humaneval"):
        task_set("gsm8")


def test_without_the_hub_the_error_names_the_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows("gsm8k")))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    module = import_module("games.tasks.benchmarks.gsm8k")
    monkeypatch.setattr(module, "HUB", Hub(name=str(data)))
    assert list(task_set("gsm8k")) == list(task_set("gsm8k", path="sample"))
    monkeypatch.setattr(module, "HUB", Hub(name=str(tmp_path / "nowhere")))
    with pytest.raises(ValueError, match=rf"tasks hf:{tmp_path}/nowhere: cannot be loaded: "):
        task_set("gsm8k")
