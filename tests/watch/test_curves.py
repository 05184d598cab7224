"""Metrics as columns: live, resumed, damaged."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from marl_llm.watch.curves import POINTS, PROBLEMS, Curves


def row(step: int, **values: Any) -> bytes:
    return f"{json.dumps({'step': step, 'time_s': float(step)} | values)}\n".encode()


def test_a_growing_file_is_read_on_and_its_half_line_waits(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    curves = Curves(file)
    curves.refresh()
    assert (curves.latest, curves.problems) == (0, [])
    line = row(2, a=2.0, b=None)
    file.write_bytes(row(1, a=1.0) + line[:10])
    curves.refresh()
    assert curves.latest == 1
    with file.open("ab") as more:
        more.write(line[10:])
    curves.refresh()
    assert curves.curves(["a", "b", "c"]) == {"steps": [1, 2], "series": {"a": [1.0, 2.0], "b": [None, None]}}
    assert curves.problems == []


def test_a_run_that_goes_on_from_an_earlier_step_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(row(1, a=1.0) + row(2, a=2.0))
    curves = Curves(file)
    curves.refresh()
    new = tmp_path / "new"
    new.write_bytes(row(1, a=1.0) + row(2, a=5.0) + row(3, a=6.0))
    new.rename(file)
    curves.refresh()
    assert curves.curves(["a"])["series"] == {"a": [1.0, 5.0, 6.0]}


def test_damaged_lines_are_named_and_skipped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(row(1, a=1.0) + b"[]\n" + b'{"step": "x"}\n' + b"\xff\n" + row(2, a=2.0))
    curves = Curves(file)
    curves.refresh()
    assert curves.curves(["a"]) == {"steps": [1, 2], "series": {"a": [1.0, 2.0]}}
    assert curves.problems == [f"metrics.jsonl: line {n} is not the metrics of a step" for n in (2, 3, 4)]


@pytest.mark.parametrize(
    "line",
    ['{"step": 1e999}', f'{{"step": {10**30}}}', f'{{"step": 2, "a": {10**400}}}', "[" * 100_000, '{"step": NaN}'],
)
def test_numbers_that_are_too_large_are_named_and_what_follows_is_read(tmp_path: Path, line: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(row(1, a=1.0) + line.encode() + b"\n" + row(3, a=3.0))
    curves = Curves(file)
    curves.refresh()
    assert curves.curves(["a"]) == {"steps": [1, 3], "series": {"a": [1.0, 3.0]}}
    assert curves.problems == ["metrics.jsonl: line 2 is not the metrics of a step"]


def test_of_many_damaged_lines_the_first_are_named(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(b"x\n" * 1000)
    curves = Curves(file)
    curves.refresh()
    assert len(curves.problems) == PROBLEMS + 1
    assert curves.problems[-1] == f"metrics.jsonl: {1000 - PROBLEMS} more lines are not the metrics of a step"


def test_alarms_have_the_step_at_which_they_began(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    on = {"alarm/entropy_collapse/agent": 1.0}
    file.write_bytes(row(1) + row(2, **on) + row(3, **on) + row(4) + row(5, **on) + row(6, **{"alarm/no_credit": 1.0}))
    curves = Curves(file)
    curves.refresh()
    latest, first = curves.alarms()
    assert (latest.name, latest.first, latest.on) == ("no_credit", 6, True)
    assert (first.name, first.first, first.last, first.steps, first.on) == ("entropy_collapse/agent", 2, 5, 3, False)
    assert "hardly varies" in first.meaning
    assert curves.alarmed("entropy_collapse/agent") == [2, 3, 5]
    assert curves.alarmed("role_skew") == []


def test_a_long_run_is_told_in_few_points_that_are_means(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    steps = 2 * POINTS + 1
    file.write_bytes(b"".join(row(step, **{"play/return/x": float(step)}) for step in range(1, steps + 1)))
    curves = Curves(file)
    curves.refresh()
    told = curves.curves()
    assert len(told["steps"]) <= POINTS
    assert told["steps"][-1] == steps
    values = told["series"]["play/return/x"]
    assert values[0] == 2.0
    assert all(math.isclose(value, step - 1, abs_tol=1) for value, step in zip(values, told["steps"], strict=True))
