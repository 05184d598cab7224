"""The file of answers: what is there stays there."""

import os
from pathlib import Path

import pytest

from marl_llm.errors import RunError
from marl_llm.evaluation.answers import AnswerFile, read_answers
from tests.evaluation.test_accuracy import answer


def test_answers_come_back_as_they_were_and_the_later_of_two_counts(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    first, failed, again = answer("sieben\n\U0001f600", 0.5), answer(None, item=1), answer("8", 1.0, item=1)
    with AnswerFile(path) as file:
        file.add(first)
        file.add(failed)
    with AnswerFile(path) as file:
        assert list(file.answers.values()) == [first, failed]
        file.add(again)
    assert read_answers(path) == [first, again]


def test_a_last_line_that_is_not_whole_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path) as file:
        file.add(answer("1"))
        file.add(answer("2", item=1))
    os.truncate(path, path.stat().st_size - 7)
    with AnswerFile(path) as file:
        file.add(answer("3", item=2))
    assert [found.answer for found in read_answers(path)] == ["1", "3"]


@pytest.mark.parametrize("line", ["no", "[]", "{}", '{"team": 1}'])
def test_a_line_that_is_no_answer_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "answers.jsonl"
    with AnswerFile(path) as file:
        file.add(answer("1"))
    with path.open("a") as more:
        more.write(line + "\n")
    with pytest.raises(RunError, match=rf"{path}:2: not an answer"):
        read_answers(path)


def test_a_file_that_is_not_there_or_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such file"):
        read_answers(tmp_path / "none.jsonl")
    with pytest.raises(RunError, match="could not write"):
        AnswerFile(tmp_path)
