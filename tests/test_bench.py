"""The benchmarks run, on next to nothing, and their arithmetic is right."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from games.conformance import check

BENCH = Path(__file__).parents[1] / "scripts" / "bench"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a script is run: its folder comes first."""
    monkeypatch.syspath_prepend(str(BENCH))


def run(name: str, *arguments: str) -> None:
    """Run a script as the shell would, on one thread."""
    sys.argv = [name, "--threads", "1", "--json", *arguments]
    runpy.run_path(str(BENCH / f"{name}.py"), run_name="__main__")


def results(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> dict[str, Any]:
    """What a script prints with --json."""
    monkeypatch.setattr(sys, "argv", [])
    run(name, *arguments)
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_step_shares_add_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    loads = results("step", monkeypatch, capsys, "--groups", "1", "--steps", "2")
    assert loads.keys() == {"kuhn", "tic_tac_toe"}
    for row in loads.values():
        parts = [name for name in row if name.endswith("_s") and name != "step_s"]
        assert sum(row[name] for name in parts) == pytest.approx(row["step_s"])
        assert all(row[name] > 0 for name in parts)
        model = row["play_forward_s"] + row["learn_model_s"]
        assert row["outside"] == pytest.approx(1 - model / row["step_s"])
    # Eight games of seven turns, in which every reply is an illegal one of about 32 tokens.
    assert loads["tic_tac_toe"]["turns"] == 56
    assert loads["tic_tac_toe"]["sampled_tokens"] > 56 * 16


def test_rollout_compares_with_generate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--conversations", "8", "--turns", "2", "--slots", "8", "--batches", "8", "--rounds", "1")
    result = results("rollout", monkeypatch, capsys, *arguments)
    rates = result["tokens_per_s"]
    assert result["ratios"]["generate, batch 8"] == pytest.approx(rates["engine hf"] / rates["generate, batch 8"])


def test_our_side_of_trl_is_a_game_that_keeps_its_promises_and_trains(tmp_path: Path) -> None:
    script = runpy.run_path(str(BENCH / "trl.py"))
    assert check(runpy.run_path(str(BENCH / "one_turn.py"))["env"], games=3) == []
    config = script["make_config"](groups=2, steps=2, threads=1)
    row, prompts = script["run_ours"](config, tmp_path)
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert len(set(prompts)) == 4  # two groups in each of two steps
    assert 16 * 80 < row["prompt_tokens"] < 16 * 120
    assert row["sampled_tokens"] <= 16 * 32


def test_a_ratio_is_taken_to_the_best_setting() -> None:
    script = runpy.run_path(str(BENCH / "trl.py"))
    summary, ratios = script["summary"], script["ratios"]
    rows = [{"step_s": s, "learn_s": 1.0, "sampled_tokens": 100.0, "prompt_tokens": 300.0} for s in (2.0, 4.0, 9.0)]
    row = summary(rows)
    assert (row["step_s"], row["sampled_tokens_per_s"], row["learned_tokens_per_s"]) == (4.0, 25.0, 400.0)
    slow, fast = dict(row), row | {"sampled_tokens_per_s": 50.0, "learned_tokens_per_s": 200.0}
    ours = row | {"sampled_tokens_per_s": 150.0, "learned_tokens_per_s": 1200.0}
    assert ratios(ours, {"slow": slow, "fast": fast}) == {"best": "fast", "step": 3.0, "learn": 3.0}


def test_trl_settings_are_told_apart_by_name() -> None:
    settings = runpy.run_path(str(BENCH / "trl.py"))["settings"]
    assert len({setting.name for setting in settings(256)}) == 3
    assert len({setting.name for setting in settings(8)}) == 2
