"""The page about the games says what the games say."""

import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

import games

SCRIPT = Path(__file__).parents[1] / "scripts" / "game_docs.py"


def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_page_is_up_to_date() -> None:
    assert script()["page"]() == script()["PAGE"].read_text(), "run scripts/game_docs.py"


def test_every_named_game_has_a_section_with_its_rules_and_settings() -> None:
    for name in games.names():
        text = script()["section"](name)
        assert text.startswith(f"## {name}\n")
        assert games.make(name).metadata["rules"] in text
        assert f"| `on_illegal` | `'{games.make(name).metadata['on_illegal']}'` |" in text
        assert "You are " in text


def test_every_form_of_other_names_has_a_section_with_its_settings() -> None:
    text = script()["page"]()
    for form, what in games.FORMS.items():
        assert f"\n## {form}\n\n{what}\n" in text
    assert "| `opening` | `0` |" in script()["form"]("openspiel:GAME")
    assert "| `utility_range` | `(-1.0, 1.0)` |" in script()["form"]("pettingzoo:MODULE")
    textarena = script()["form"]("textarena:ID")
    assert "| `num_players` | `None` |" in textarena
    assert "KuhnPoker (2)," in textarena
    assert "Taboo (4 to 16 in steps of 2)," in textarena
    assert "Chess, IteratedStagHunt, Klondike, ReverseTicTacToe, UltimateTexasHoldem: its source does not" in textarena


def test_check_refuses_a_page_that_is_out_of_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--check"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert not caught.value.code
    monkeypatch.setattr(games, "names", lambda: ("taboo",))
    with pytest.raises(SystemExit, match=r"games\.md is out of date; run game_docs\.py"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
