"""What a sweep makes of its command line."""

from pathlib import Path

import pytest

from marl_llm.config.variants import short
from marl_llm.errors import ConfigError
from marl_llm.sweep import SweepResult, later_exploitability, parse_seeds, plotted, variants


def test_seeds_are_ranges_or_lists() -> None:
    assert parse_seeds("0-4") == [0, 1, 2, 3, 4]
    assert parse_seeds("0,3,7") == [0, 3, 7]
    assert parse_seeds("1,4-5") == [1, 4, 5]
    assert parse_seeds("0,0,1") == [0, 1]
    for wrong in ("", "a", "1-", "-1", "0..4", "3-1"):
        with pytest.raises(ConfigError, match="0-4 or 0,3,7"):
            parse_seeds(wrong)


def test_comma_separated_values_are_combined_and_brackets_kept_together() -> None:
    assert variants({}, []) == {"base": ()}
    assert variants({}, ["a=1"]) == {"base": ("a=1",)}
    assert variants({}, ["credit=mars,grpo", "a=1", "b=1,2"]) == {
        "credit=mars b=1": ("credit=mars", "a=1", "b=1"),
        "credit=mars b=2": ("credit=mars", "a=1", "b=2"),
        "credit=grpo b=1": ("credit=grpo", "a=1", "b=1"),
        "credit=grpo b=2": ("credit=grpo", "a=1", "b=2"),
    }
    assert list(variants({}, ["betas=[0.9,0.95],[0,0.9]"])) == ["betas=[0.9,0.95]", "betas=[0,0.9]"]
    with pytest.raises(ConfigError, match="must be key=value"):
        variants({}, ["credit"])


def test_in_a_plot_variants_are_called_by_what_tells_them_apart() -> None:
    assert short(["base"]) == ["base"]
    assert short(["credit=mars b=1", "credit=grpo b=1"]) == ["credit=mars b=1", "credit=grpo b=1"]
    assert short(["a.b.share=0 a.b.c.share=0.5", "a.b.share={x: a.b.c}"]) == ["share=0 c.share=0.5", "share={x: a.b.c}"]
    assert short(["a.lr=1", "a.lr=2"]) == ["lr=1", "lr=2"]


def test_what_is_exploitable_in_the_second_half_is_told_by_game() -> None:
    rows = [{"step": step, "eval/exploitability": step / 8} for step in (1.0, 2.0, 3.0, 4.0)]
    assert later_exploitability(rows) == {"exploitability": [0.375, 0.5]}
    assert later_exploitability([{"eval/kuhn/exploitability": 0.5, "eval/go/exploitability": None}]) == {
        "kuhn: exploitability": [0.5]
    }
    assert later_exploitability([{"step": 1.0}]) == {}


def test_a_result_has_mean_spread_and_values() -> None:
    measures = {"base": {"exploitability": [0.1, 0.2, 0.3]}}
    result = SweepResult(folder=Path("f"), plot=Path("p"), measures=measures).to_json()
    assert result["variants"]["base"]["exploitability"] == {
        "mean": pytest.approx(0.2),
        "spread": pytest.approx(0.1),
        "values": [0.1, 0.2, 0.3],
    }


def test_the_plot_shows_what_tells_most() -> None:
    told = ["play/action/agent/hare", "play/fact/deal"]
    assert plotted({*told, "play/illegal_fraction", "eval/exploitability"}) == ["eval/exploitability"]
    several = ["eval/kuhn/exploitability", "eval/leduc/exploitability"]
    assert plotted({*told, *several}) == several
    assert plotted({*told, "play/illegal_fraction"}) == told
    assert plotted({"play/illegal_fraction", "play/turns"}) == ["play/illegal_fraction"]


def test_named_variants_stand_beside_the_experiment() -> None:
    named = {"no turns": ("credit=mars",), "kuhn": ("games.a.share=0", "run.steps=3")}
    assert variants(named, ["run.steps=1"]) == {
        "base": ("run.steps=1",),
        "no turns": ("credit=mars", "run.steps=1"),
        "kuhn": ("games.a.share=0", "run.steps=3", "run.steps=1"),
    }
    assert list(variants({"kuhn": ()}, ["a=1,2"])) == ["a=1", "a=2", "kuhn a=1", "kuhn a=2"]
