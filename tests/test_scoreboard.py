"""The results of a benchmark as tables and as a plot."""

from pathlib import Path

import pytest
from rich.console import Console

from marl_llm.errors import RunError
from marl_llm.evaluation.accuracy import accuracies
from marl_llm.scoreboard import Results, plot_accuracy, scoreboard
from tests.evaluation.test_accuracy import answer

ITEMS = range(4)
ANSWERS = [answer("0", 1.0, item=item) for item in ITEMS]
ANSWERS += [answer(str(sample), item=item, sample=sample) for item in ITEMS for sample in (1, 2)]
ANSWERS += [answer("0", 1.0, item=item, protocol="debate", tokens=30) for item in ITEMS]
ANSWERS += [answer("0", 1.0, item=item, team="base", protocol=way) for item in ITEMS for way in ("single", "debate")]


def shown(results: Results, baseline: str | None = None) -> list[str]:
    """Lines, each with one space between its words."""
    console = Console(width=100, record=True)
    console.print(scoreboard(results, baseline))
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_every_protocol_and_team_has_its_numbers() -> None:
    lines = shown(accuracies(ANSWERS, samples=1, matched=True, baseline="base"), "base")
    assert "sums: 4 items, answers to each: 1; % right, 95 % over items" in lines
    assert "single ours 100.0 [51, 100] 10 500.0" in lines
    assert "debate ours 100.0 of 3: 100.0 +0.0 ± 0.0 +0.0 ± 0.0" in lines


def test_missing_answers_are_told() -> None:
    lines = shown(accuracies([answer(None)], samples=1, matched=False, baseline=None))
    assert "1 answers are missing and count as wrong; --retry asks them again" in lines
    assert not any("compared" in line for line in lines)


def test_several_benchmarks_stand_side_by_side_with_their_mean() -> None:
    right, wrong = (
        accuracies([given], samples=1, matched=False, baseline=None) for given in (answer("1", 1.0), answer("1"))
    )
    lines = shown({**right, ("riddles", "single", "ours"): wrong["sums", "single", "ours"]})
    assert "single ours 50.00 100.00 0.00" in lines


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    given = [answer("1", 1.0, team="crew [step] a[/b] $x_{$ y", protocol=way) for way in ("single", "debate")]
    results = accuracies(given, samples=1, matched=True, baseline=None)
    assert any("crew [step] a[/b] $x_{$ y" in line for line in shown(results))
    plot_accuracy(results, tmp_path / "accuracy.png")


def test_the_plot_is_a_picture_or_the_error_names_the_file(tmp_path: Path) -> None:
    results = accuracies(ANSWERS, samples=1, matched=True, baseline="base")
    plot_accuracy(results, tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RunError, match="could not write"):
        plot_accuracy(results, tmp_path / "none" / "accuracy.png")
