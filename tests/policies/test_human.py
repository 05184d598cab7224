"""A person in a seat: what is shown, what is asked, and what counts as an answer."""

from dataclasses import replace

import pytest

from marl_llm.config import GameConfig
from marl_llm.matchmaking import series
from marl_llm.play import play
from marl_llm.policies.base import Reply, View
from marl_llm.policies.human import HumanPolicy
from marl_llm.policies.scripted import make_scripted

VIEW = View(
    game="kuhn_poker",
    match="m",
    agent="player_0",
    rules="",
    observation="Your card: K.",
    legal_actions=("check", "bet"),
    state_key="2",
    seed=0,
)


class Terminal:
    """Answers what is asked with the given lines, and keeps all that was said."""

    def __init__(self, *lines: str) -> None:
        self.lines = list(lines)
        self.said: list[str] = []
        self.person = HumanPolicy(self.said.append, self.ask)

    def ask(self, prompt: str) -> str:
        self.said.append(prompt)
        return self.lines.pop(0)


def test_the_view_is_shown_and_the_answer_is_the_games_own_spelling() -> None:
    terminal = Terminal("  BET ")
    terminal.person.submit("t", VIEW)
    assert terminal.said == []
    assert terminal.person.poll() == [("t", Reply(text="bet", action="bet"))]
    assert terminal.said == ["Your card: K.", "player_0> "]
    assert terminal.person.poll() == []


def test_what_is_not_possible_is_asked_again() -> None:
    terminal = Terminal("fold", "", "check")
    terminal.person.submit("t", VIEW)
    assert terminal.person.poll() == [("t", Reply(text="check", action="check"))]
    assert terminal.said == [
        "Your card: K.",
        "player_0> ",
        "'fold' is not possible; choose one of: check, bet",
        "player_0> ",
        "'' is not possible; choose one of: check, bet",
        "player_0> ",
    ]


def test_where_any_text_is_an_action_the_first_answer_counts() -> None:
    terminal = Terminal(" I offer 3. ")
    terminal.person.submit("t", replace(VIEW, legal_actions=None))
    assert terminal.person.poll() == [("t", Reply(text="I offer 3.", action="I offer 3."))]


def test_several_tables_are_asked_in_turn() -> None:
    terminal = Terminal("check", "bet")
    for ticket in (1, 2):
        terminal.person.submit(ticket, VIEW)
    assert [(ticket, reply.action) for ticket, reply in terminal.person.poll()] == [(1, "check"), (2, "bet")]


def test_a_person_can_play_a_whole_game() -> None:
    terminal = Terminal(*["check", "fold", "check", "fold"] * 3)
    seats = {"player_0": "me", "player_1": "random"}
    matches = series(GameConfig(name="kuhn_poker"), seats, name="x", games=1, seed=0)
    (episode,) = play(matches, {"me": terminal.person, "random": make_scripted("random", {})})
    assert episode.status == "done"
    assert all(turn.legal for turn in episode.turns)
    assert terminal.said[0] == episode.turns[0].observation


def test_a_person_has_no_probabilities() -> None:
    with pytest.raises(ValueError, match="cannot be computed"):
        Terminal().person.strategies([VIEW])
