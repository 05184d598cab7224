"""Responses that are searched for, against exact exploitability."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from marl_llm.config import GameConfig
from marl_llm.evaluation.best_response import BestResponse, best_response
from marl_llm.evaluation.exploitability import exploitability
from marl_llm.evaluation.positions import positions_of
from marl_llm.policies.base import Policy, Strategy, View
from marl_llm.policies.scripted import RandomPolicy, make_scripted
from tests.tiny import dictated, saying, seated

KUHN = GameConfig(name="kuhn_poker")
LEDUC = GameConfig(name="leduc_poker")
BOARD = GameConfig(name="tic_tac_toe")
BOTH = {"player_0": "a", "player_1": "a"}


def found(game: GameConfig, policy: Policy, simulations: int, *, seed: int = 0, games: int = 500) -> BestResponse:
    result = best_response(game, {"a": policy}, BOTH, simulations=simulations, seed=seed, games=games)
    assert result is not None
    assert not result.exact
    assert result.simulations == simulations
    assert result.value == pytest.approx(sum(mean.mean for mean in result.seats.values()) / 2)
    assert result.low <= result.value <= result.high
    return result


@pytest.mark.parametrize("kind", ["random", "cfr", "noisy"])
def test_in_kuhn_poker_the_lower_bound_comes_close_to_exploitability(kind: str) -> None:
    policy = make_scripted(kind, {})  # type: ignore[arg-type]
    exact = exploitability(KUHN, {"a": policy}, BOTH).value
    bound = found(KUHN, policy, 600)
    assert bound.low <= exact
    assert bound.high >= exact - 0.05


def test_in_leduc_poker_the_lower_bound_grows_with_the_search_and_stays_below() -> None:
    uniform = make_scripted("random", {})
    little, more = (found(LEDUC, uniform, simulations) for simulations in (50, 2000))
    assert more.value > little.value
    assert more.value > 1.4
    assert more.low < 2.3736  # known from theory


def test_an_equilibrium_of_leduc_poker_gives_nothing_to_find() -> None:
    cfr = make_scripted("cfr", {"iterations": 30})
    assert found(LEDUC, cfr, 300, games=300).low <= exploitability(LEDUC, {"a": cfr}, BOTH).value < 0.1


def test_same_seed_same_bound_and_another_seed_another() -> None:
    uniform = make_scripted("random", {})
    one, again, other = (found(KUHN, uniform, 100, seed=seed, games=50) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_on_a_board_a_searched_response_wins_less_than_the_exact_best_one() -> None:
    uniform = make_scripted("random", {})
    searched = found(BOARD, uniform, 1500, games=200)
    positions = positions_of(BOARD, {"a": uniform})
    exact = best_response(BOARD, {"a": uniform}, BOTH, simulations=400, seed=0, positions=positions)
    assert exact is not None
    assert (exact.exact, exact.simulations) == (True, 0)
    assert exact.low == exact.value == exact.high == pytest.approx(0.9598, abs=5e-5)
    assert searched.low < exact.value
    assert searched.low > 0.2  # uniform play itself would win 0


class Fooling(RandomPolicy):
    """Random play, known from one reply per state only: a response to that reply would win far too much."""

    def __init__(self) -> None:
        super().__init__()
        self.submitted = 0

    def submit(self, ticket: object, view: View) -> None:
        self.submitted += 1
        super().submit(ticket, view)  # type: ignore[arg-type]

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        exact = super().strategies(views)
        return [
            replace(s, actions={a: float(n == v.seed % len(s.actions)) for n, a in enumerate(s.actions)}, samples=1)
            for s, v in zip(exact, views, strict=True)
        ]


def test_a_response_to_an_estimate_is_tested_on_new_replies() -> None:
    policy = Fooling()
    result = found(KUHN, policy, 300)
    assert policy.submitted > 500
    assert result.low <= 0.458334


def test_a_model_is_asked_by_what_it_sees_alone_or_with_its_history() -> None:
    model = dictated(saying({"check": 0.25, "bet": 0.25, "fold": 0.25, "call": 0.25}))
    turn, dialogue = (found(KUHN, seated(model, context=context), 200) for context in ("turn", "dialogue"))
    for bound in (turn, dialogue):  # uniform among the legal actions
        assert bound.value > 0.3
        assert bound.low < 0.458334


def test_replies_that_are_never_legal_are_no_preference() -> None:
    mute = seated(dictated(saying({"bet": 1.0}, start="\n"), thinking=True), thinking=True, samples=2)
    result = found(KUHN, mute, 20, games=20)
    assert result.seats.keys() == {"player_0", "player_1"}


@pytest.mark.parametrize("name", ["matrix_game", "public_goods", "mini_hanabi"])
def test_games_that_are_not_zero_sum_on_openspiels_rules_have_none(name: str) -> None:
    assert best_response(GameConfig(name=name), {"a": RandomPolicy()}, BOTH, simulations=1, seed=0) is None


@pytest.mark.parametrize(
    ("name", "simulations"), [("openspiel:liars_dice", 800), ("openspiel:goofspiel(num_cards=4,imp_info=True)", 1500)]
)
def test_in_larger_games_more_is_found_than_the_policy_wins_from_itself(name: str, simulations: int) -> None:
    assert found(GameConfig(name=name), RandomPolicy(), simulations, games=300).low > 0


def test_connect_four_with_more_positions_than_can_be_listed_is_searched() -> None:
    game = GameConfig(name="connect_four")
    assert positions_of(game, {"a": RandomPolicy()}) is None
    assert all(-1 <= mean.mean <= 1 for mean in found(game, RandomPolicy(), 150, games=30).seats.values())
