"""Ratings from duels, on cases whose answer is known."""

import pytest

from marl_llm.ratings import ratings


def test_ratings_follow_the_duels() -> None:
    """The first duel between equals, by the rule of the Plackett-Luce model.

    Before it the variance (25/3)^2 grows by tau^2, tau = 25/300; then mu moves by variance / c * 1/2 (the chance to
    lose) where c^2 = 2 variance + 2 beta^2, beta = 25/6.
    """
    variance = (25 / 3) ** 2 + (25 / 300) ** 2
    moved = variance / (2 * variance + 2 * (25 / 6) ** 2) ** 0.5 / 2
    result = ratings("abc", [("a", "b", 0.5)])
    assert result["a"].mu == pytest.approx(25 + moved)
    assert result["b"].mu == pytest.approx(25 - moved)
    assert result["c"].mu == 25
    assert result["a"].ordinal == pytest.approx(result["a"].mu - 3 * result["a"].sigma)


def test_a_draw_between_equals_tells_only_that_more_is_known() -> None:
    result = ratings("ab", [("a", "b", 0.0)])
    assert (result["a"].mu, result["b"].mu) == (25, 25)
    assert result["a"].sigma < 25 / 3


def test_ratings_go_on_from_those_that_are_known() -> None:
    duels = [("a", "b", 0.5), ("b", "c", -0.2), ("a", "c", 0.0)]
    before = ratings("ab", duels[:1])
    assert ratings("abc", duels[1:], before) == ratings("abc", duels)
