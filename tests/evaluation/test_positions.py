"""Exact play on small boards against numbers known from theory."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from marl_llm.config import GameConfig
from marl_llm.evaluation.positions import Positions, positions_of
from marl_llm.policies.base import Policy, Strategy, View
from marl_llm.policies.scripted import RandomPolicy, make_scripted
from tests.tiny import dictated, saying, seated

BOARD = GameConfig(name="tic_tac_toe")
NIM = GameConfig(name="openspiel:nim(pile_sizes=1;2)")


class Guessed(RandomPolicy):
    """Random play as if it were known from some replies only."""

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        return [replace(strategy, samples=64) for strategy in super().strategies(views)]


class Counting(RandomPolicy):
    """Random play that notes how many views it was asked about at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        self.batches.append(len(views))
        return super().strategies(views)


def both(policy: str) -> dict[str, str]:
    return {"player_0": policy, "player_1": policy}


def listed(game: GameConfig, **policies: Policy) -> Positions:
    positions = positions_of(game, policies)
    assert positions is not None
    return positions


def test_uniform_play_of_tic_tac_toe_has_the_known_exploitability_and_perfect_play_none() -> None:
    board = listed(BOARD, random=make_scripted("random", {}), perfect=make_scripted("minimax", {}))
    assert len(board) == 5478
    won = board.best_response(both("random"))
    assert won is not None
    # The first player wins all but one in 192 games against uniform play: OpenSpiel's NashConv / 2 is 0.9598.
    assert won["player_0"] == pytest.approx(1 - 1 / 192)
    assert sum(won.values()) / 2 == pytest.approx(0.9598, abs=5e-5)
    assert board.best_response(both("perfect")) == {"player_0": 0.0, "player_1": 0.0}


def test_games_of_tic_tac_toe_end_as_is_known() -> None:
    board = listed(BOARD, random=make_scripted("random", {}), perfect=make_scripted("minimax", {}))
    at_random = board.outcomes("random", "random")
    # Of all games of uniform play the first player wins 58.49 %, and 12.70 % are drawn.
    first, second = at_random["player_0"], at_random["player_1"]
    assert (first.win, first.draw, first.loss) == pytest.approx((0.584921, 0.126984, 0.288095), abs=1e-6)
    assert (second.loss, second.draw, second.win) == pytest.approx((first.win, first.draw, first.loss))
    assert all(o.draw == pytest.approx(1) for o in board.outcomes("perfect", "perfect").values())
    against_perfect = board.outcomes("random", "perfect")
    assert against_perfect["player_0"].win == against_perfect["player_1"].win == 0
    assert against_perfect["player_1"].loss > against_perfect["player_0"].loss > 0.7


def test_nim_with_piles_of_1_and_2_by_hand() -> None:
    # Whoever takes the last loses. From (1, 2): taking the whole 2 leaves a 1 to the other and wins. The other two
    # moves leave (0, 2), from which uniform play takes 1 and leaves the last to us, or 2 and loses: half each; or
    # (1, 1), where it takes one, and we have to take the last.
    random = make_scripted("random", {})
    won = listed(NIM, random=random).best_response(both("random"))
    assert won is not None
    assert won["player_0"] == pytest.approx(1.0)
    # Second: a third each of (0, 2): we take 1 and win; (1, 1): we take one and the last is theirs; (1, 0): lost.
    assert won["player_1"] == pytest.approx(1 / 3)


def test_a_policy_is_asked_once_in_one_batch_for_both_questions() -> None:
    policy = Counting()
    board = listed(BOARD, a=policy)
    board.best_response(both("a"))
    board.outcomes("a", "a")
    assert policy.batches == [1, 4520]  # 5478 less 958 boards where the game is over


def test_estimates_and_policies_that_go_by_more_than_they_see_are_left_out() -> None:
    model = dictated(saying({"a": 1.0}), "tic_tac_toe")
    policies = {
        "guessed": Guessed(),
        "noisy": make_scripted("noisy", {}),
        "dialogue": seated(model, context="dialogue"),
        "random": RandomPolicy(),
    }
    board = listed(BOARD, **policies)
    for name in ("guessed", "noisy", "dialogue"):
        assert board.best_response(both(name)) is None
        assert board.outcomes("random", name) == board.outcomes(name, "random") == {}


@pytest.mark.parametrize(
    "name",
    [
        "kuhn_poker",  # hidden cards, and chance
        "openspiel:go(board_size=2)",  # what a pass leads to depends on the move before it
        "openspiel:checkers",  # positions come up again
        "mini_hanabi",  # not OpenSpiel's
    ],
)
def test_positions_that_cannot_be_listed_or_do_not_say_it_all(name: str) -> None:
    assert positions_of(GameConfig(name=name), {}) is None


class First(RandomPolicy):
    """Always takes the first free cell."""

    def distribution(self, view: View) -> dict[str, float]:
        return {action: float(number == 0) for number, action in enumerate(view.legal_actions or ())}


def test_who_always_takes_the_first_free_cell_is_beaten_every_time() -> None:
    board = listed(BOARD, first=First(), random=RandomPolicy())
    assert board.best_response(both("first")) == {"player_0": 1.0, "player_1": 1.0}
    # Each seat's response plays against whoever sits in the other one.
    mixed = board.best_response({"player_0": "random", "player_1": "first"})
    assert mixed == {"player_0": 1.0, "player_1": pytest.approx(0.924868, abs=1e-6)}
