"""Rankings from who beat whom, on cases whose answer is known."""

import pytest

from marl_llm.evaluation.ranking import alpha_rank, rings

RPS = ("rock", "paper", "scissors")
ROUND = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}


def test_alpha_rank_shares_its_time_equally_in_a_ring_and_among_equals() -> None:
    assert alpha_rank(RPS, ROUND) == pytest.approx(dict.fromkeys(RPS, 1 / 3))
    assert alpha_rank(RPS, set()) == pytest.approx(dict.fromkeys(RPS, 1 / 3))


def test_alpha_rank_stays_with_whoever_beats_the_other() -> None:
    """Two states: the loser is left with rate 0.99 and entered with rate 0.01."""
    assert alpha_rank(("weak", "strong"), {("strong", "weak")}) == pytest.approx({"weak": 0.01, "strong": 0.99})


def test_a_ring_is_found_once_and_begins_with_its_first_player() -> None:
    assert rings(RPS, ROUND) == (("rock", "scissors", "paper"),)
    assert rings(RPS[::-1], ROUND) == (("scissors", "paper", "rock"),)


def test_an_order_has_no_ring() -> None:
    assert rings("abc", {("a", "b"), ("b", "c"), ("a", "c")}) == ()


def test_every_player_in_a_ring_is_in_a_shortest_one() -> None:
    beats = {("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("d", "e"), ("e", "a"), ("a", "f")}
    # a and c close a ring of three with b; d and e have only the long way round.
    assert rings("abcdef", beats) == (("a", "b", "c"), ("a", "b", "c", "d", "e"))
