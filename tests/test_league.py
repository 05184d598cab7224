"""The pool: how results are remembered, who is drawn, who joins and who leaves."""

import json
from collections import Counter
from typing import Literal

import pytest

from marl_llm.config import LeagueConfig
from marl_llm.league import Duel, League, Record, draw, forget, join, pool, record
from marl_llm.ratings import Rating, ratings

CONFIG = LeagueConfig(members=["random"], memory=8, per_step=1)
SNAPSHOTS = ("a@0", "a@5", "a@10")


def fared(**rates: float) -> League:
    """A league in which `a` has these win rates, to three decimals, against its snapshots `a@NUMBER`."""
    records = {name.replace("_", "@"): Record(1e6 * rate, 1e6) for name, rate in rates.items()}
    return League(snapshots=tuple(records), records={"a": records})


def test_a_win_rate_begins_at_one_half_and_half_of_it_is_forgotten_after_memory_games() -> None:
    league = record(CONFIG, League(), [Duel("a", "random", 1.0, 3)], ["a"])
    assert League().win_rate("a", "random") == 0.5
    assert league.records == {"a": {"random": Record(3.0, 3.0)}}
    assert league.win_rate("a", "random") == 3.5 / 4
    league = record(CONFIG, league, [Duel("a", "random", 0.0, 4), Duel("a", "random", 0.5, 4)], ["a"])
    assert league.records == {"a": {"random": Record(1.5 + 2, 1.5 + 8)}}


def test_a_result_counts_for_both_if_both_learn_and_for_nobody_else() -> None:
    duels = [Duel("b", "a", 0.75, 4), Duel("a", "a@0", 0.25, 4)]
    league = record(CONFIG, League(), duels, ["a", "b"])
    assert league.records == {"a": {"b": Record(1.0, 4.0), "a@0": Record(1.0, 4.0)}, "b": {"a": Record(3.0, 4.0)}}


def test_a_group_is_one_duel_for_the_ratings_which_go_on_from_step_to_step() -> None:
    duels = [Duel("a", "random", 0.75, 8), Duel("a", "random", 0.5, 8), Duel("a", "b", 0.0, 8)]
    league = record(CONFIG, record(CONFIG, League(), duels[:1], ["a"]), duels[1:], ["a"])
    margins = [("a", "random", 0.25), ("a", "random", 0.0), ("a", "b", -0.5)]
    assert league.ratings == ratings(["a", "random", "b"], margins)


def test_a_snapshot_begins_with_the_rating_of_its_policy() -> None:
    league = record(CONFIG, League(), [Duel("a", "random", 1.0, 8)], ["a"])
    league = join(CONFIG, league, "a@5", policy="a", main="a")
    assert league.snapshots == ("a@5",)
    assert league.ratings["a@5"] == league.ratings["a"] != league.ratings["random"]
    assert join(CONFIG, League(), "a@0", policy="a", main="a").ratings["a@0"].mu == 25
    assert pool(CONFIG, league) == ("random", "a@5")


def test_whom_the_trained_policy_beats_most_easily_leaves_a_full_pool_but_never_the_newest() -> None:
    config = LeagueConfig(keep=2)
    full = join(config, fared(a_0=0.1, a_5=0.9), "a@10", policy="a", main="a")
    assert full.snapshots == ("a@0", "a@10")
    assert full.records == {"a": {"a@0": Record(1e5, 1e6)}}
    assert "a@5" not in full.ratings
    assert join(config, fared(a_0=0.3, a_5=0.2), "a@10", policy="a", main="a").snapshots == ("a@5", "a@10")
    assert join(config, fared(a_0=0.3, a_5=0.3), "a@10", policy="a", main="a").snapshots == ("a@5", "a@10")
    assert join(LeagueConfig(keep=1), fared(a_0=0.1), "a@5", policy="a", main="a").snapshots == ("a@5",)


def test_who_is_forgotten_is_a_stranger_to_everybody() -> None:
    league = record(CONFIG, League(), [Duel("b", "a", 0.75, 4), Duel("a", "a@0", 0.25, 4)], ["a", "b"])
    gone = forget(league, "b")
    assert gone.records == {"a": {"a@0": Record(1.0, 4.0)}}
    assert set(gone.ratings) == {"a", "a@0"}


@pytest.mark.parametrize(
    ("weighting", "weights"),
    [("hard", (0.64, 0.25, 0.01)), ("even", (0.16, 0.25, 0.09)), ("uniform", (1.0, 1.0, 1.0))],
)
def test_opponents_are_met_as_often_as_their_weight_says(
    weighting: Literal["hard", "even", "uniform"], weights: tuple[float, ...]
) -> None:
    league, config = fared(a_0=0.2, a_5=0.5, a_10=0.9), LeagueConfig(weighting=weighting, per_step=1)
    draws = 4000
    met = Counter(draw(config, league, "a", groups=1, seed=seed)[0] for seed in range(draws))
    for name, weight in zip(SNAPSHOTS, weights, strict=True):
        chance = weight / sum(weights)
        assert met[name] / draws == pytest.approx(chance, abs=4 * (chance * (1 - chance) / draws) ** 0.5 + 1e-9)


def test_a_step_meets_few_opponents_who_share_its_groups_evenly() -> None:
    league = fared(a_0=0.5, a_5=0.5, a_10=0.5)
    for seed in range(50):
        names = draw(LeagueConfig(per_step=2), league, "a", groups=6, seed=seed)
        assert names[:3] == [names[0]] * 3
        assert names[3:] == [names[3]] * 3
    assert draw(CONFIG, league, "a", groups=0, seed=0) == []


def test_the_same_seed_draws_the_same_and_policies_draw_for_themselves() -> None:
    league = fared(a_0=0.5, a_5=0.5, a_10=0.5)
    config = LeagueConfig(per_step=20)
    one, two = (draw(config, league, name, groups=20, seed=3) for name in ("a", "b"))
    assert one == draw(config, league, "a", groups=20, seed=3)
    assert one != two


def test_the_state_survives_json_exactly() -> None:
    league = record(CONFIG, League(snapshots=("a@0",)), [Duel("a", "a@0", 1 / 3, 7)], ["a"])
    assert League.from_json(json.loads(json.dumps(league.to_json()))) == league


def test_metrics_tell_the_win_rates_of_the_trained_policy_and_all_ratings() -> None:
    league = League(
        records={"a": {"a@0": Record(3.0, 4.0)}, "b": {"a": Record(1.0, 1.0)}},
        ratings={"a": Rating(mu=26.0, sigma=8.0)},
    )
    assert league.metrics("a") == {"league/win_rate/a@0": 0.75, "league/rating/a": 26.0}
