"""All against all: payoffs worked out by hand, deals that all share, and faults that count for nobody."""

import json
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest

from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError
from marl_llm.evaluation.tournament import Mean, mean_of, tournament
from marl_llm.policies.base import Policy, Reply, View
from marl_llm.policies.scripted import ScriptedPolicy, make_scripted
from marl_llm.types import Episode

RPS = GameConfig(name="matrix_game", settings={"payoffs": "rock_paper_scissors", "continuation": 0})


class Always(ScriptedPolicy):
    """Takes the legal action with this number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def distribution(self, view: View) -> dict[str, float]:
        assert view.legal_actions is not None
        return {view.legal_actions[self._number]: 1.0}


class Unreachable(Always):
    """Cannot be reached in one deal, when it is first to move, or never."""

    def __init__(self, number: int, deal: int | None) -> None:
        super().__init__(number)
        self._deal = deal

    def submit(self, ticket: Hashable, view: View) -> None:
        if self._deal is None or (view.match.endswith(f"/{self._deal}") and view.agent == "player_0"):
            self._ready.append((ticket, Reply(text="", action=None, fault="no line")))
        else:
            super().submit(ticket, view)


def held(game: GameConfig, players: dict[str, Policy], games: int = 3, seed: int = 0) -> dict[str, Any]:
    result: dict[str, Any] = tournament(game, players, num_games=games, seed=seed).to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def test_rock_paper_and_scissors_beat_each_other_in_a_ring() -> None:
    result = held(RPS, {"rock": Always(0), "paper": Always(1), "scissors": Always(2)})
    payoffs = [[None, -1.0, 1.0], [1.0, None, -1.0], [-1.0, 1.0, None]]
    assert result["payoff"] == {"mean": payoffs, "low": payoffs, "high": payoffs}
    assert result["advantage"]["mean"][0] == [None, -2.0, 2.0]
    assert result["win_rate"] == [[None, 0.0, 1.0], [1.0, None, 0.0], [0.0, 1.0, None]]
    assert result["cycles"] == [["rock", "scissors", "paper"]]
    assert result["alpha_rank"] == pytest.approx(dict.fromkeys(result["players"], 1 / 3))
    assert (result["episodes"], result["faults"]) == (3 * 2 * 3, 0)


def test_both_orders_play_the_same_deals_so_that_luck_cancels_out() -> None:
    """Both always bet and call: whoever has the better card wins 2, and loses 2 when the seats are swapped."""
    result = tournament(GameConfig(), {"one": Always(1), "other": Always(1)}, num_games=10, seed=0)
    pairing = result.pairings["one", "other"]
    assert pairing.payoff == Mean(mean=0.0, low=0.0, high=0.0)
    assert (pairing.win_rate, pairing.won) == (0.5, False)
    assert result.ratings["one"].mu == result.ratings["other"].mu


def test_what_a_player_gets_and_by_how_much_it_is_ahead_differ_where_both_can_gain() -> None:
    """Five rounds of the prisoner's dilemma against tit for tat: 5, then 1 in each round, for whoever defects."""
    game = GameConfig(name="matrix_game", settings={"continuation": 1, "max_rounds": 5})
    result = held(game, {"kind": make_scripted("tit_for_tat", {}), "defect": Always(1)})
    assert result["payoff"]["mean"] == [[15.0, 4.0], [9.0, 5.0]]
    assert result["advantage"]["mean"] == [[0.0, -5.0], [5.0, 0.0]]
    assert result["episodes"] == 4 * 3


def test_of_three_seats_one_is_the_players_and_all_others_are_the_opponents() -> None:
    """Of 10 points each, all or nothing goes into a pot, which grows by half and is shared."""
    settings = {"players": 3, "rounds": 1, "levels": 2, "multiplier": 1.5, "punishment": False}
    result = held(GameConfig(name="public_goods", settings=settings), {"keep": Always(0), "give": Always(1)})
    # Alone among givers: 10 + 20 * 1.5 / 3, and they 10 each; alone among keepers: 10 * 1.5 / 3, and they 15 each.
    assert result["payoff"]["mean"] == [[10.0, 20.0], [5.0, 15.0]]
    assert result["advantage"]["mean"] == [[0.0, 10.0], [-10.0, 0.0]]
    assert result["win_rate"] == [[0.0, 1.0], [0.0, 0.0]]
    assert result["episodes"] == (3 + 3 + 1 + 1) * 3


def test_the_equilibrium_of_kuhn_poker_beats_random_play() -> None:
    players: dict[str, Policy] = {"random": make_scripted("random", {}), "cfr": make_scripted("cfr", {})}
    result = tournament(GameConfig(), players, num_games=300, seed=0)
    assert result.pairings["cfr", "random"].payoff.low > 0
    assert result.pairings["cfr", "random"].won
    assert result.alpha_rank["cfr"] == pytest.approx(0.99)
    assert result.ratings["cfr"].mu > result.ratings["random"].mu
    again = tournament(GameConfig(), players, num_games=300, seed=0)
    assert again.to_json() == result.to_json()
    assert tournament(GameConfig(), players, num_games=300, seed=1).pairings != result.pairings


def test_a_deal_with_a_fault_counts_for_nobody_and_is_counted() -> None:
    """Without the dropped half deal the seats are even: passive play loses its ante to whoever bets."""
    result = held(GameConfig(), {"passive": Always(0), "shaky": Unreachable(1, deal=2)}, games=5)
    assert result["deals"] == [[None, 4], [4, None]]
    assert result["payoff"]["mean"] == [[None, -1.0], [1.0, None]]
    assert (result["episodes"], result["faults"]) == (10, 1)
    assert result["fault_notes"] == {"shaky: no line": 1}


def test_whoever_is_never_reached_has_no_scores() -> None:
    result = held(GameConfig(), {"passive": Always(0), "gone": Unreachable(0, deal=None)})
    assert result["payoff"]["mean"] == [[None, None], [None, None]]
    assert result["alpha_rank"] == pytest.approx({"passive": 0.5, "gone": 0.5})
    assert result["ratings"]["gone"]["mu"] == 25
    assert result["faults"] == 6


def test_a_watcher_sees_every_episode_and_knows_how_many_will_come() -> None:
    seen: list[Episode] = []

    def watch(episodes: Any, total: int) -> Any:
        assert total == 18
        for episode in episodes:
            seen.append(episode)
            yield episode

    tournament(RPS, {"r": Always(0), "p": Always(1), "s": Always(2)}, num_games=3, seed=0, watch=watch)
    assert len(seen) == 18
    assert len({episode.match.seed for episode in seen}) == 3


def test_a_game_for_one_is_no_place_to_meet() -> None:
    players: dict[str, Policy] = {"a": Always(0), "b": Always(0)}
    with pytest.raises(ConfigError, match="has one seat only"):
        tournament(GameConfig(name="openspiel:catch"), players, num_games=2, seed=0)


def test_the_interval_of_a_mean() -> None:
    """1, 2, 3: mean 2, standard deviation 1, standard error 1 / sqrt(3)."""
    mean = mean_of([1.0, 2.0, 3.0])
    assert (mean.mean, mean.high - mean.mean) == pytest.approx((2.0, 1.959964 / np.sqrt(3)))
    assert mean_of([4.0]) == Mean(mean=4.0, low=4.0, high=4.0)
