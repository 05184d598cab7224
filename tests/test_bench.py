"""The benchmarks run, on next to nothing, and their arithmetic is right."""

import argparse
import json
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import games
from games.conformance import check
from marl_llm.credit.load import recipe_names
from tests.learning.small import together

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


def test_credit_times_every_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(BENCH / "credit.py"))["main"](["--episodes", "16"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines[3:-1]] == recipe_names()
    assert lines[-1] == "slower than wanted: none"


def test_rollout_compares_with_generate(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--conversations", "8", "--turns", "2", "--slots", "8", "--batches", "8", "--rounds", "1")
    result = results("rollout", monkeypatch, capsys, *arguments)
    rates = result["tokens_per_s"]
    assert result["ratios"]["engine hf / generate, batch 8"] == pytest.approx(
        rates["engine hf"] / rates["generate, batch 8"]
    )


def test_the_server_loses_and_mixes_up_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = results("serve", monkeypatch, capsys, "--clients", "6", "--seconds", "0.2", "--stream")
    assert result["answers"] >= 6
    assert (result["errors"], result["lost"], result["not_its_own"]) == (0, 0, 0)
    rates = result["tokens_per_s"], result["offline_tokens_per_s"]
    assert result["ratio_to_offline"] == pytest.approx(rates[0] / rates[1])


def test_what_text_costs_is_measured_on_the_same_games(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(BENCH / "game_text.py"))
    arguments = ["--json", "--rounds", "1", "--seconds", "0.001", "--only", "kuhn_poker", "donor_game"]
    monkeypatch.setattr(sys, "argv", ["game_text", *arguments])
    monkeypatch.setitem(script["main"].__globals__, "LIMIT", 1000.0)  # one short round says nothing about time
    script["main"]()
    rows = json.loads(capsys.readouterr().out)
    assert rows.keys() == {"kuhn_poker", "donor_game"}
    for row in rows.values():
        ratio = row["no_text_games_per_s"] / row["text_games_per_s"]
        assert row["over_no_text"] == pytest.approx(ratio)
    assert rows["kuhn_poker"]["over_openspiel"] > 0
    assert "over_openspiel" not in rows["donor_game"]


@pytest.mark.parametrize("name", games.names())
def test_a_game_without_text_is_otherwise_the_same(name: str) -> None:
    full, mute = games.make(name), runpy.run_path(str(BENCH / "game_text.py"))["without_text"](name)
    full.reset(seed=0)
    mute.reset(seed=0)
    while full.agents:
        assert mute.agent_selection == full.agent_selection
        assert mute.rewards == full.rewards
        agent = full.agent_selection
        infos = [{**env.infos[agent], "state_key": None} for env in (full, mute)]
        assert infos[0] == infos[1]
        over = full.terminations[agent] or full.truncations[agent]
        action = None if over else (infos[0].get("examples") or infos[0]["legal_actions"])[-1]
        full.step(action)
        mute.step(action)
    assert mute.agents == []


def test_text_that_makes_a_game_too_slow_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(BENCH / "game_text.py"))
    rounds = [{"text": 8.0, "no_text": 2.0}, {"text": 2.0, "no_text": 2.0}, {"text": 9.0, "no_text": 3.0}]
    row = script["summary"](rounds, 40)
    assert row == {"text_games_per_s": 5.0, "no_text_games_per_s": 20.0, "over_no_text": 3.0}
    monkeypatch.setattr(sys, "argv", ["game_text", "--only", "kuhn_poker", "--rounds", "1", "--seconds", "0.001"])
    monkeypatch.setitem(script["main"].__globals__, "LIMIT", 0.0)
    with pytest.raises(SystemExit) as caught:
        script["main"]()
    assert caught.value.code == 1


def added(processes: int, logit_tokens: int) -> int:
    """Bytes that an update takes with 384 positions and a vocabulary of 100,000: 146 MiB of logits."""
    sys.path.insert(0, str(BENCH))
    script = runpy.run_path(str(BENCH / "learner.py"))
    bytes_added: int = script["added"](script["OBJECTIVES"]["with full KL and entropy"], logit_tokens, 100_000, 384)
    return bytes_added


def test_logits_in_chunks_take_less_memory() -> None:
    """90 positions have 34 MiB: what is smaller than 32, glibc keeps for later, and finds little use for."""
    (at_once,), (in_chunks,) = (together(1, added, tokens) for tokens in (384, 90))
    assert at_once > 4 * 146 * 2**20
    assert in_chunks < 0.5 * at_once


def test_operations_of_a_learner_are_counted_as_by_hand() -> None:
    script = runpy.run_path(str(BENCH / "learner_gpu.py"))
    size = script["Size"](hidden=4, layers=2, heads=2, inner=6, keys=1, dim=3, vocabulary=10)
    # a layer: query and output 4 * 6 each, key and value 4 * 3 each, feed-forward 3 * 4 * 6: 144 weights; head: 40.
    # five tokens see 1 + 2 + 3 + 4 + 5 = 15 keys, each in 2 layers and 2 heads of width 3, twice two operations forward
    # (scores and values), and twice as many backward
    assert script["operations"](size, 5, 2) == 6 * (5 * 2 * 144 + 2 * 40) + 3 * 4 * (15 * 2 * 2 * 3)
    small = script["Qwen3ForCausalLM"](size.config())
    layers = sum(p.numel() for p in small.model.layers.parameters() if p.dim() == 2)
    assert layers == 2 * 144
    for name, parameters in (("0.6B", 0.596e9), ("1.7B", 1.72e9), ("4B", 4.02e9)):
        with script["torch"].device("meta"):
            model = script["Qwen3ForCausalLM"](script["SIZES"][name].config())
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=0.005)


def test_the_benchmark_for_gpus_runs_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    script = runpy.run_path(str(BENCH / "learner_gpu.py"))
    size = script["Size"](hidden=16, layers=2, heads=2, inner=24, keys=1, dim=8, vocabulary=50)
    settings = {"tokens": 32, "rows": 3, "micro_batch": 64, "steps": 1, "no_checkpointing": False}
    row = script["measure"](size, argparse.Namespace(**settings), 1e9, device="cpu")
    assert row["tokens_per_s"] == pytest.approx(3 * 32 / row["step_s"])
    assert row["mfu"] == pytest.approx(3 * script["operations"](size, 32, 16) / row["step_s"] / 1e9)
    with pytest.raises(SystemExit, match=r"the peak of Slow 1 is not known here; give it as --peak"):
        script["peak_of"]("Slow 1")
    assert script["peak_of"]("NVIDIA H200") == 989e12
    monkeypatch.setattr(sys, "argv", ["learner_gpu"])
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        script["main"]()


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


def test_workers_that_are_simulated_are_kept_busy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ("--workers", "1,8", "--seconds", "1", "--warm", "0.3", "--median", "0.1", "--transport", "here")
    found = results("scale", monkeypatch, capsys, *short)
    one, eight = found["points"]
    assert (one["workers"], eight["workers"]) == (1, 8)
    for point in (one, eight):
        assert 0.5 < point["efficiency"] <= 1.001
        assert 0 < point["coordinator_cpu"] <= point["driver_cpu"]
        assert point["messages_per_s"] > 1
    assert eight["matches_per_s"] > 2 * one["matches_per_s"] > 4
