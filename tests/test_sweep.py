"""What a sweep makes of its command line."""

from pathlib import Path

import pytest

from marl_llm.errors import ConfigError
from marl_llm.sweep import SweepResult, exploitability_curve, parse_seeds, short, variants


def test_seeds_are_ranges_or_lists() -> None:
    assert parse_seeds("0-4") == [0, 1, 2, 3, 4]
    assert parse_seeds("0,3,7") == [0, 3, 7]
    assert parse_seeds("1,4-5") == [1, 4, 5]
    assert parse_seeds("0,0,1") == [0, 1]
    for wrong in ("", "a", "1-", "-1", "0..4", "3-1"):
        with pytest.raises(ConfigError, match="0-4 or 0,3,7"):
            parse_seeds(wrong)


def test_comma_separated_values_are_combined_and_brackets_kept_together() -> None:
    assert variants([]) == {"base": ()}
    assert variants(["a=1"]) == {"base": ("a=1",)}
    assert variants(["credit=mars,grpo", "a=1", "b=1,2"]) == {
        "credit=mars b=1": ("credit=mars", "a=1", "b=1"),
        "credit=mars b=2": ("credit=mars", "a=1", "b=2"),
        "credit=grpo b=1": ("credit=grpo", "a=1", "b=1"),
        "credit=grpo b=2": ("credit=grpo", "a=1", "b=2"),
    }
    assert list(variants(["betas=[0.9,0.95],[0,0.9]"])) == ["betas=[0.9,0.95]", "betas=[0,0.9]"]
    with pytest.raises(ConfigError, match="must be key=value"):
        variants(["credit"])


def test_in_a_plot_variants_are_called_by_what_tells_them_apart() -> None:
    assert short(["base"]) == ["base"]
    assert short(["credit=mars b=1", "credit=grpo b=1"]) == ["credit=mars b=1", "credit=grpo b=1"]
    assert short(["a.b.share=0 a.b.c.share=0.5", "a.b.share={x: a.b.c}"]) == ["share=0 c.share=0.5", "share={x: a.b.c}"]
    assert short(["a.lr=1", "a.lr=2"]) == ["lr=1", "lr=2"]


def test_exploitability_is_a_curve_over_the_steps_that_measured_it() -> None:
    rows = [
        {"step": 1, "play/games": 3.0},
        {"step": 2, "eval/exploitability": 0.5},
        {"step": 3, "eval/exploitability": None},
    ]
    assert exploitability_curve(rows) == {2: 0.5}


def test_a_result_has_mean_spread_and_values() -> None:
    measures = {"base": {"exploitability": [0.1, 0.2, 0.3]}}
    result = SweepResult(folder=Path("f"), plot=Path("p"), measures=measures).to_json()
    assert result["variants"]["base"]["exploitability"] == {
        "mean": pytest.approx(0.2),
        "spread": pytest.approx(0.1),
        "values": [0.1, 0.2, 0.3],
    }
