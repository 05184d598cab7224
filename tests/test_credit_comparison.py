"""The comparison of credit methods, on next to nothing, and its arithmetic."""

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from marl_llm.credit.recipe import credit_table, load_recipe
from marl_llm.credit.table import Row, table_of
from marl_llm.errors import ConfigError

ROOT = Path(__file__).parents[1]
SCRIPT = ROOT / "scripts" / "credit_comparison.py"
COMPARISON = ROOT / "configs" / "credit_comparison" / "comparison.yaml"

TASK = """
games: {hunt: {name: treasure_hunt, settings: {place: cottage, moves: 2}}}
play: {max_reply_tokens: 6, context_tokens: 256}
policies:
  agent:
    tiny: {hidden: 16, layers: 1, heads: 2, mlp: 16, vocabulary: 400}
    warmup: {teacher: random, games: 32, steps: 30, batch: 16, lr: 0.02}
    engine: {slots: 16, cache_slots: 4}
    learner: {lr: 0.01, schedule: constant}
  random: {kind: random}
matchmaking: {groups: 2, group_size: 4}
"""
METHODS = """
tasks: {cottage: {tokens: 120, every: 40}}
methods:
  grpo: [credit=grpo]
  slow: [credit=rae, policies.agent.learner.lr=0]
"""


@pytest.fixture
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "cottage.yaml").write_text(TASK)
    (tmp_path / "comparison.yaml").write_text(METHODS)
    return tmp_path


def run(folder: Path, *arguments: str) -> None:
    sys.argv = ["credit_comparison", str(folder / "comparison.yaml"), "--into", str(folder / "out"), *arguments]
    runpy.run_path(str(SCRIPT), run_name="__main__")


def test_it_runs_resumes_and_writes_table_plot_and_results(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    run(small, "--seeds", "0-1")
    out = small / "out"
    first = capsys.readouterr().out
    assert first.startswith("4 runs, 0 already done, 1 at a time\n")
    told = json.loads((out / "results.json").read_text())["cottage"]
    assert list(told) == ["grpo", "slow"]
    assert told["slow"]["final"]["values"][0] == told["slow"]["final"]["values"][1], "what learns nothing is the start"
    assert len(set(told["grpo"]["final"]["values"])) == 2
    kept = json.loads((out / "cottage" / "grpo-seed0.json").read_text())
    assert kept["looks"][0]["tokens"] == 0
    assert kept["looks"][-1]["tokens"] >= 120
    assert kept["looks"][0]["value"] == pytest.approx(told["slow"]["final"]["mean"], abs=1e-9), "all begin alike"
    assert all(-1 <= look["correlation"] <= 1 for look in kept["looks"] if look["correlation"] is not None)
    assert "| `slow` (2) | " in (out / "table.md").read_text()
    assert (out / "credit_comparison.png").stat().st_size > 10_000
    run(small, "--seeds", "0-1")
    assert capsys.readouterr().out.startswith("4 runs, 4 already done")


def test_a_result_with_other_settings_is_not_taken_for_this_one(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    run(small, "--seeds", "0", "--methods", "grpo")
    (small / "comparison.yaml").write_text(METHODS.replace("every: 40", "every: 60"))
    with pytest.raises(ConfigError, match=r"grpo-seed0.json: made with other settings; delete it"):
        run(small, "--seeds", "0", "--methods", "grpo")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--methods", "ppo"), "--methods: 'ppo' is not allowed; it must be one of"),
        (("--tasks", "chess"), "--tasks: 'chess' is not allowed; it must be one of"),
    ],
)
def test_unknown_names_are_refused(
    small: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", [])
    with pytest.raises(ConfigError, match=message):
        run(small, *arguments)


def test_correlation_leaves_out_turns_without_weight(script: dict[str, Any]) -> None:
    rows = [Row("a", turn, {"outcome": value}) for turn, value in enumerate((1.0, 2.0, 4.0))]
    rows.append(Row("a", 3, {"outcome": -9.0}, weight=0.0))
    credited = credit_table(table_of(rows), recipe("reward"))
    true = {("a", 0): 0.0, ("a", 1): 1.0, ("a", 2): 0.0, ("a", 3): 5.0}
    # Deviations (-4, -1, 5) / 3 and (-1, 2, -1) / 3: their product is -3 / 9, their squares 42 / 9 and 6 / 9.
    assert script["correlation"](credited, true) == pytest.approx(-3 / (42 * 6) ** 0.5)
    assert script["correlation"](credited, dict.fromkeys(true, 1.0)) is None
    assert script["correlation"](credited, {}) is None


def recipe(stage: str) -> Any:
    return load_recipe({"about": "one stage", "stages": [stage]})


def test_measures_of_a_run(script: dict[str, Any]) -> None:
    looks = [
        {"tokens": 0, "value": 0.0, "correlation": 0.4},
        {"tokens": 40, "value": 0.2, "correlation": None},
        {"tokens": 60, "value": 0.6, "correlation": 0.9},  # in the second half
        {"tokens": 110, "value": 1.1, "correlation": None},
    ]
    told = script["measures"](
        {"asked": {"tokens": 100}, "looks": looks, "steps": 3, "seconds": 2.0, "cpu_seconds": 1.0}
    )
    assert told["final"] == pytest.approx(1.0)
    # 40 * 0.1 + 20 * 0.4 + 40 * 0.8 over 100.
    assert told["area"] == pytest.approx(0.44, abs=1e-3)
    assert (told["correlation"], told["looks"], told["skipped"]) == (0.4, 2, 1)


def test_advantages_get_unit_deviation_by_one_factor(script: dict[str, Any]) -> None:
    rows = [Row(str(turn), 0, {"outcome": value}) for turn, value in enumerate((1.0, 2.0, 6.0))]
    credited = credit_table(table_of(rows), script["at_one_scale"](recipe("reward")))
    # Their mean is 3, their variance (4 + 1 + 9) / 3.
    assert credited.advantages == pytest.approx([x / (14 / 3) ** 0.5 for x in (1, 2, 6)], rel=1e-6)


def test_every_method_of_ours_is_an_experiment(script: dict[str, Any], tmp_path: Path) -> None:
    cells = script["read"](COMPARISON, tmp_path, "0", None, None)
    first = {cell.task.name: cell for cell in reversed(cells)}
    assert set(first) == {"treasure_hunt", "signals"}
    assert script["settings"](first["signals"]).policies["agent"].learner.schedule == "constant"
    for cell in cells:
        if cell.task.name == "treasure_hunt":
            load_recipe(script["settings"](cell).credit)
