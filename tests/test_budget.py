"""How a step's games are shared out among its groups, and which of these are learned from."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import atan, inf, pi, sqrt
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from marl_llm.budget.keep import Successes, kept
from marl_llm.budget.sizes import (
    Asked,
    allotted,
    equal,
    half_width,
    knapsack,
    knapsack_value,
    needed,
    priority,
    t_quantile,
    xrpo,
)
from marl_llm.budget.spend import Round
from marl_llm.config import BudgetConfig, Config, MatchmakingConfig, PolicyConfig, load_config
from marl_llm.errors import ConfigError
from marl_llm.league import League
from marl_llm.matchmaking import groups, matches, schedule
from marl_llm.run import checkpoint_path, checkpoint_values, read_episodes, read_metrics
from marl_llm.train import train
from marl_llm.types import Branch, Episode, Match, Status
from tests.credit.cases import cases
from tests.test_train import Silent, same_checkpoints, small, without_time

SPREAD = BudgetConfig(keep="spread", max_batches=3)
AGENTS = {"game": ["player_0", "player_1"]}
LEAGUE = League()


def one_role(groups: Sequence[Sequence[float]]) -> dict[int, Successes]:
    return {number: {"agent/solver": values} for number, values in enumerate(groups)}


# --- which groups are kept


@cases("dapo_dynamic_sampling")
def test_groups_with_a_spread_or_one_member_are_kept(case: dict[str, Any]) -> None:
    by_name: dict[str, list[float]] = {}
    for name, value in zip(case["inputs"]["group"], case["inputs"]["metric"], strict=True):
        by_name.setdefault(name, []).append(value)
    stay = kept(SPREAD, one_role(list(by_name.values())))
    assert {name: number in stay for number, name in enumerate(by_name)} == case["outputs"]["keep"]


@cases("prime_filter")
def test_groups_whose_mean_success_is_between_bounds_are_kept(case: dict[str, Any]) -> None:
    settings = BudgetConfig(keep="between", between=[case["inputs"]["lo"], case["inputs"]["hi"]])
    stay = kept(settings, one_role(case["inputs"]["acc"]))
    assert [number in stay for number in range(3)] == case["outputs"]["keep"]


def test_the_bounds_belong_to_what_is_kept() -> None:
    at_bounds = one_role([[1, 0, 0, 0, 0], [1, 1, 1, 1, 0], [0.1]])
    assert kept(BudgetConfig(keep="between"), at_bounds) == [0, 1]


def test_the_top_part_by_deviation_is_kept_and_of_equals_the_first() -> None:
    played = one_role([[1, 1], [0, 1], [0.4, 0.5], [0, 1]])
    assert kept(BudgetConfig(keep="top"), played) == [1, 2, 3]
    assert kept(BudgetConfig(keep="top", top=0.25), played) == [1]


def test_one_role_with_a_spread_is_enough_and_what_does_not_count_is_no_group() -> None:
    played: dict[int, Successes] = {
        0: {"a/planner": [1, 1], "a/searcher": [0, 1]},
        1: {"a/planner": [1, 1], "a/searcher": [0, 0]},
        2: {},
        3: {"a/planner": []},
    }
    assert kept(SPREAD, played) == [0]
    assert kept(BudgetConfig(), played) == [0, 1]


# --- how large groups are


@cases("knapsack_value")
def test_the_value_of_games_of_a_deal(case: dict[str, Any]) -> None:
    value = knapsack_value(case["inputs"]["N"], case["inputs"]["p"])
    assert value == pytest.approx(case["outputs"]["value"], rel=1e-6)


@cases("knapsack_alloc")
def test_games_go_where_they_are_worth_most(case: dict[str, Any]) -> None:
    given, chances = case["inputs"], [[p] for p in case["inputs"]["p"]]
    sizes = allotted(chances, given["budget"], least=given["n_low"], most=given["n_up"])
    assert sizes == case["outputs"]["N"]
    value = sum(knapsack_value(n, p) for n, p in zip(sizes, given["p"], strict=True))
    assert value == pytest.approx(case["outputs"]["value"], rel=1e-6)


@cases("knapsack_need")
def test_the_games_that_a_deal_needs(case: dict[str, Any]) -> None:
    games = needed(case["inputs"]["p"], case["inputs"]["alpha"])
    assert games == pytest.approx(case["outputs"]["n"], rel=1e-6)
    assert needed(1.0) == needed(0.0) == inf


def test_no_other_division_is_worth_more() -> None:
    chances, budget = [0.05, 0.3, 0.6, 0.95], 20

    def worth(sizes: Sequence[int]) -> float:
        return sum(knapsack_value(n, p) for n, p in zip(sizes, chances, strict=True))

    sizes = allotted([[p] for p in chances], budget, least=2, most=12)
    others = [(a, b, c, budget - a - b - c) for a in range(2, 13) for b in range(2, 13) for c in range(2, 13)]
    assert worth(sizes) == pytest.approx(max(worth(o) for o in others if 2 <= o[3] <= 12), rel=1e-12)


def test_where_all_succeed_always_all_get_the_same_and_with_several_who_learn_the_mean_counts() -> None:
    assert allotted([[1.0], [1.0]], 9, least=2, most=16) == [5, 4]
    assert allotted([[0.5, 0.5], [1.0, 0.5]], 12, least=2, most=16) == [7, 5]
    assert allotted([[1.0, 0.0], [1.0, 1.0]], 8, least=2, most=5) == [5, 2]
    assert allotted([], 0, least=2, most=5) == []


def test_a_deal_that_is_new_has_the_mean_size_and_the_others_share_theirs() -> None:
    asked = Asked(groups=3, size=8, remembered={0: {"a/x": 0.5}, 2: {"a/x": 1.0}})
    assert next(knapsack(BudgetConfig(sizes="knapsack"), asked)) == {0: 14, 1: 8, 2: 2}


@cases("xrpo_priority")
def test_the_priority_of_one_game_more(case: dict[str, Any]) -> None:
    given, outputs = case["inputs"], case["outputs"]
    found = priority(given["rewards"], given["T"], exploration=given["lam"], alpha=given["alpha"])
    assert found == pytest.approx(outputs["priority"], rel=1e-6)
    delta = priority(given["rewards"], given["T"], exploration=0.0, alpha=given["alpha"])
    assert delta == pytest.approx(outputs["delta"], rel=1e-6)
    assert found - delta == pytest.approx(outputs["phi"], rel=1e-6)
    n, ones = len(given["rewards"]), sum(given["rewards"])
    deviation = sqrt(ones * (n - ones) / n / (n - 1))
    assert half_width(deviation, n, given["alpha"]) == pytest.approx(outputs["h"], rel=1e-6)


def test_what_was_seen_once_has_no_deviation_yet_and_comes_first() -> None:
    assert priority([1.0], 8) == priority([], 8) == inf


@pytest.mark.parametrize(
    ("confidence", "freedom", "t"),
    [  # tables of Student's t, two-sided
        (0.95, 1, 12.706204736),
        (0.95, 2, 4.3026527297),
        (0.95, 3, 3.1824463053),
        (0.99, 7, 3.4994832974),
        (0.95, 30, 2.0422724563),
        (0.9, 127, 1.6569403435),
    ],
)
def test_quantiles_of_students_t(confidence: float, freedom: int, t: float) -> None:
    assert t_quantile(confidence, freedom) == pytest.approx(t, rel=1e-9)


def test_the_quantile_undoes_the_distribution_where_that_is_simple() -> None:
    assert 2 / pi * atan(t_quantile(0.37, 1)) == pytest.approx(0.37, rel=1e-12)
    t = t_quantile(0.37, 2)
    assert t / sqrt(2 + t * t) == pytest.approx(0.37, rel=1e-12)


def test_games_are_added_where_the_mean_is_least_certain() -> None:
    """Four groups of two, then phases of four up to 20 games: only group 1 is uncertain."""
    orders = xrpo(BudgetConfig(sizes="xrpo", most=9, exploration=0.0), Asked(groups=4, size=5))
    assert next(orders) == {0: 2, 1: 2, 2: 2, 3: 2}
    sure = {0: {"a": [1.0] * 2}, 2: {"a": [0.0] * 2}, 3: {"a": [0.5] * 2}}
    assert orders.send({**sure, 1: {"a": [0.0, 1.0]}}) == {1: 4}
    assert orders.send({**sure, 1: {"a": [0.0, 1.0] * 3}}) == {1: 3, 0: 1}, "no group has more than 9"
    assert orders.send({**sure, 1: {"a": [0.0, 1.0] * 4}, 0: {"a": [1.0] * 3}}) == {2: 2, 3: 1, 0: 1}, "the smallest"
    with pytest.raises(StopIteration):
        orders.send({})


def test_all_games_are_spent_and_exploration_evens_them_out() -> None:
    orders = xrpo(BudgetConfig(sizes="xrpo", exploration=1e6, phase=3), Asked(groups=3, size=4))
    sizes = Counter(next(orders))
    try:
        while True:
            sizes.update(orders.send({n: {"a": [0.0, float(n == 1)] * (s // 2)} for n, s in sizes.items()}))
    except StopIteration:
        pass
    assert sizes == {0: 4, 1: 4, 2: 4}


def test_groups_are_replaced_until_there_are_enough_or_as_often_as_is_allowed() -> None:
    def play(*batches: Mapping[int, list[float]]) -> list[dict[int, int]]:
        orders, played = equal(SPREAD, Asked(groups=3, size=2)), dict[int, Successes]()
        asked = [dict(next(orders))]
        for batch in batches:
            played |= {number: {"a": values} for number, values in batch.items()}
            try:
                asked.append(dict(orders.send(played)))
            except StopIteration:
                return asked
        raise AssertionError("it still goes on")

    first = {0: [1.0, 1.0], 1: [0.0, 1.0], 2: [0.0, 0.0]}
    assert play(first, {3: [0.0, 1.0], 4: [0.0, 1.0]}) == [{0: 2, 1: 2, 2: 2}, {3: 2, 4: 2}]
    same, again = {3: [0.0, 0.0], 4: [0.0, 1.0]}, {5: [0.0, 0.0]}
    assert play(first, same, again) == [{0: 2, 1: 2, 2: 2}, {3: 2, 4: 2}, {5: 2}], "three batches are all"


# --- deals that come back


def making(**settings: Any) -> Config:
    policies = {"agent": PolicyConfig(), "random": PolicyConfig(kind="random")}
    return Config(matchmaking=MatchmakingConfig(**{"groups": 4, "group_size": 2} | settings), policies=policies)


def test_every_pass_goes_through_all_deals_once_in_another_order() -> None:
    config = making(deals=6)
    drawn = [group.deal for step in range(1, 10) for group in groups(config, step, {"game": 1.0}, LEAGUE)]
    passes = [drawn[start : start + 6] for start in range(0, 36, 6)]
    assert all(len(set(deals)) == 6 for deals in passes)
    assert len(set(map(tuple, passes))) > 1
    seeds = {group.deal: group.seed for step in range(1, 10) for group in groups(config, step, {"game": 1.0}, LEAGUE)}
    assert len(set(seeds.values())) == 6
    assert set(seeds) == set(drawn) == {f"game/{number}" for number in range(6)}


def test_a_deal_that_comes_back_is_replied_to_anew() -> None:
    config = making(groups=1, deals=1)
    one, two = (schedule(config, step, {"game": 1.0}, AGENTS, LEAGUE) for step in (1, 2))
    assert {match.seed for match in one + two} == {one[0].seed}
    assert len({match.member for match in one + two}) == 4
    assert [match.id for match in two] == ["s2/g0/m0", "s2/g0/m1"]


def test_further_groups_and_members_are_those_that_a_larger_step_has() -> None:
    config = making()
    larger = making(groups=6, group_size=3)
    whole = schedule(larger, 5, {"game": 1.0}, AGENTS, LEAGUE)
    more = groups(config, 5, {"game": 1.0}, LEAGUE, first=4, count=2)
    assert matches(config, 5, more[1], range(1, 3), AGENTS["game"]) == whole[16:18]


# --- a step


def played(match: Match, won: float, status: Status = "done") -> Episode:
    """Player 0, whom the agent plays, got this."""
    return Episode(match=match, turns=(), returns={"player_0": won, "player_1": -won}, status=status)


def round_of(config: Config, **remembered: Mapping[str, float]) -> Round:
    deals: Mapping[str, Mapping[str, float]] = {name.replace("_", "/"): value for name, value in remembered.items()}
    return Round(config, 1, {"game": 1.0}, AGENTS, LEAGUE, deals, {"game": (-2.0, 2.0)})


def against_random(**settings: Any) -> Config:
    return making(seats={"player_0": "agent", "player_1": "random"}, **settings)


def test_without_a_budget_a_step_is_what_is_scheduled() -> None:
    config = making()
    step = round_of(config)
    assert step.matches == schedule(config, 1, {"game": 1.0}, AGENTS, LEAGUE)
    episodes = [played(match, 1.0) for match in step.matches]
    assert step.further(episodes) == []
    over = step.over(episodes)
    assert (over.episodes, over.metrics, over.remembered) == (episodes, {}, {})


def test_dropped_groups_are_not_learned_from_and_told() -> None:
    step = round_of(against_random(budget=BudgetConfig(keep="spread", max_batches=2)))
    returns = [1, 1, -1, 1, 2, 2, 1, -2]  # groups 0 and 2 are dropped
    episodes = [played(match, won) for match, won in zip(step.matches, returns, strict=True)]
    further = step.further(episodes)
    assert [match.id for match in further] == ["s1/g4/m0", "s1/g4/m1", "s1/g5/m0", "s1/g5/m1"]
    episodes += [played(match, won) for match, won in zip(further, [1, 1, 1, -1], strict=True)]
    assert step.further(episodes) == []
    over = step.over(episodes)
    assert {episode.match.group for episode in over.episodes} == {"s1/g1", "s1/g3", "s1/g5"}
    assert over.metrics == {
        "play/budget/batches": 2,
        "play/budget/groups": 6,
        "play/budget/dropped": 3,
        "play/budget/games": 12,
        "play/budget/dropped_games": 6,
        "play/budget/size_min": 2,
        "play/budget/size_max": 2,
        "play/budget/known": 0,
        # success rates between 0 and 1: 3/4 for both who get 1, 1/2, 3/8, 1 and 1/2
        "play/budget/needed": pytest.approx(fmean([needed(0.75)] * 2 + [needed(0.5)] * 2 + [needed(0.375)])),
    }


def test_games_at_fault_and_forks_do_not_count_and_a_threshold_makes_a_return_a_success() -> None:
    step = round_of(against_random(groups=1, deals=1, budget=BudgetConfig(success=0.0)))
    one, two = step.matches
    fork = Branch(episode=one.id, turn=1)
    episodes = [played(one, 0.5), played(two, -2.0, "fault"), played(replace(one, branch=fork), -2.0)]
    assert step.over(episodes).remembered == {"game/0": {"agent/player_0": 1.0}}
    scaled = round_of(against_random(groups=1, deals=1, budget=BudgetConfig()))
    assert scaled.over(episodes).remembered == {"game/0": {"agent/player_0": 0.625}}
    nothing = [played(one, 0.5, "fault"), played(two, -2.0, "fault")]
    old = round_of(against_random(groups=1, deals=1, budget=BudgetConfig()), game_0={"agent/player_0": 0.3})
    assert old.over(nothing).remembered == {"game/0": {"agent/player_0": 0.3}}, "what it was"


def test_a_deal_has_as_many_games_as_its_last_success_is_worth() -> None:
    config = against_random(groups=2, group_size=8, deals=2, budget=BudgetConfig(sizes="knapsack"))
    step = round_of(config, game_0={"agent/player_0": 0.5}, game_1={"agent/player_0": 1.0})
    by_deal = {group.deal: f"s1/g{group.number}" for group in groups(config, 1, {"game": 1.0}, LEAGUE)}
    sizes = Counter(match.group for match in step.matches)
    assert sizes == {by_deal["game/0"]: 14, by_deal["game/1"]: 2}
    assert step.over([played(match, 1.0) for match in step.matches]).metrics["play/budget/known"] == 2


# --- settings


@pytest.mark.parametrize(
    ("making", "message"),
    [
        ("budget: {max_batches: 2}", "budget.max_batches: 2 .* 1 with budget.keep: all"),
        ("budget: {sizes: xrpo, keep: spread, max_batches: 2}", "1 with budget.sizes: xrpo"),
        ("budget: {sizes: knapsack}", "matchmaking.deals: None .* a number with budget.sizes: knapsack"),
        ("budget: {sizes: xrpo, least: 5}", "matchmaking.group_size: 4 .* from budget.least"),
        ("budget: {sizes: xrpo}, swap_seats: true", "matchmaking.swap_seats: True .* false with budget.sizes: xrpo"),
        ("budget: {between: [0.8, 0.2]}", "budget.between"),
        ("budget: {between: [0.8]}", "budget.between"),
        ("budget: {top: 0}", "budget.top"),
        ("budget: {max_batches: 0}", "budget.max_batches: 0"),
        ("budget: {least: 0}", "budget.least"),
        ("budget: {most: 1}", r"budget.most: 1 .* budget.least \(2\) or more"),
        ("budget: {phase: 0}", "budget.phase"),
        ("budget: {exploration: -1}", "budget.exploration"),
        ("budget: {alpha: 1}", "budget.alpha"),
        ("deals: 0", "matchmaking.deals: 0"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, making: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(tmp_path, f"matchmaking={{groups: 2, group_size: 4, {making}}}")


def test_who_plays_ahead_does_not_know_yet_what_was_played(tmp_path: Path) -> None:
    budget = "matchmaking.budget={keep: spread, max_batches: 2}"
    small(tmp_path, "runtime=ray", budget)
    with pytest.raises(ConfigError, match=r"cluster.mode: 'async' .* sync with matchmaking.budget"):
        small(tmp_path, "runtime=ray", "cluster={mode: async, evaluators: 1}", budget)


def test_engines_that_sleep_after_a_step_cannot_play_more_of_it(tmp_path: Path) -> None:
    shared = ("runtime=ray", "cluster={colocate: true, evaluators: 0}", "policies.agent.engine={kind: vllm}")
    small(tmp_path, *shared, "matchmaking.budget={keep: spread}")
    with pytest.raises(ConfigError, match=r"cluster.colocate: True .* false with a matchmaking.budget"):
        small(tmp_path, *shared, "matchmaking.budget={keep: spread, max_batches: 2}")


# --- a run

ONE_SIDED = (
    "games={game: {name: kuhn_poker, settings: {on_illegal: default_action}}}",
    "policies.agent.warmup=null",
    "run.seed=1",
    "play.context_tokens=224",
)
"""Who cannot answer yet does always the same, and what the other one does decides."""
SEATS = "seats: {player_0: agent, player_1: random}"


def run(folder: Path, making: str, *overrides: str, stop_after: str = "") -> Path:
    """Three steps; interrupted after a step and resumed, if that is wanted."""
    options = [*ONE_SIDED, "run.steps=3", "evaluation={every: 0, games: 0}", f"matchmaking={{{making}, {SEATS}}}"]
    config = small(folder, *options, *overrides)
    observer = Silent()
    path = train(config, observer, path=folder / "run", stop=lambda: observer.told[-1] == stop_after)
    return train(config, Silent(), path=path, resume=True) if stop_after else path


BUDGETS = {
    "dynamic": "groups: 3, group_size: 2, budget: {keep: spread, max_batches: 30}",
    "knapsack": "groups: 3, group_size: 4, deals: 4, budget: {sizes: knapsack, success: 0.0}",
    "xrpo": "groups: 3, group_size: 4, budget: {sizes: xrpo, keep: top, exploration: 0.05}",
}


@pytest.fixture(scope="module")
def whole_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An uninterrupted run with each budget."""
    return {name: run(tmp_path_factory.mktemp(name), making) for name, making in BUDGETS.items()}


@pytest.mark.parametrize("name", BUDGETS)
def test_a_run_with_a_budget_goes_on_bit_for_bit(tmp_path: Path, whole_runs: dict[str, Path], name: str) -> None:
    whole, part = whole_runs[name], run(tmp_path, BUDGETS[name], stop_after="step 2")
    rows = read_metrics(whole)
    assert without_time(read_metrics(part)) == without_time(rows)
    assert same_checkpoints(whole, part, 3)
    logged = Counter(episode.match.id.partition("/")[0] for episode in read_episodes(whole))
    for row in rows:
        assert row["play/games"] == row["play/budget/games"]
        assert logged[f"s{row['step']:.0f}"] == row["play/budget/games"] - row["play/budget/dropped_games"]
        assert row["learn/agent/sampled_tokens"] <= row["play/sampled_tokens"]


def test_dropped_groups_are_replaced_and_what_was_kept_is_what_it_was(
    tmp_path: Path, whole_runs: dict[str, Path]
) -> None:
    plain, picked = run(tmp_path, "groups: 3, group_size: 2", "run.steps=1"), whole_runs["dynamic"]
    rows = read_metrics(picked)
    assert [row["play/budget/groups"] - row["play/budget/dropped"] for row in rows] == [3, 3, 3]
    assert sum(row["play/budget/dropped"] for row in rows) > 0
    first = {episode.match.id: episode for episode in read_episodes(plain) if episode.match.id.startswith("s1/")}
    kept_ones = {episode.match.id: episode for episode in read_episodes(picked) if episode.match.id.startswith("s1/")}
    assert all(kept_ones[name] == first[name] for name in first.keys() & kept_ones.keys())
    assert first.keys() & kept_ones.keys()
    for step in (1, 2, 3):
        returns: dict[str, set[float]] = {}
        for episode in read_episodes(picked):
            if episode.match.id.startswith(f"s{step}/"):
                returns.setdefault(episode.match.group, set()).add(episode.returns["player_0"])
        assert len(returns) == 3
        assert all(len(values) == 2 for values in returns.values())


def test_what_was_remembered_of_deals_decides_the_sizes_of_the_next_step(whole_runs: dict[str, Path]) -> None:
    path = whole_runs["knapsack"]
    rows = read_metrics(path)
    config = load_config(path / "config.yaml")
    drawn = [[group.deal for group in groups(config, step, {"game": 1.0}, LEAGUE)] for step in (1, 2, 3)]
    seen = [set[str](), {*drawn[0]}, {*drawn[0], *drawn[1]}]
    assert [row["play/budget/known"] for row in rows] == [
        sum(deal in before for deal in deals) for deals, before in zip(drawn, seen, strict=True)
    ]
    assert rows[0]["play/budget/size_min"] == rows[0]["play/budget/size_max"] == 4
    assert any(row["play/budget/size_min"] < 4 < row["play/budget/size_max"] for row in rows[1:])
    assert all(row["play/budget/games"] == 12 for row in rows)
    deals = checkpoint_values(checkpoint_path(path, 3))["deals"]
    assert sorted(deals) == [f"game/{number}" for number in range(4)]
    assert all(list(by) == ["agent/player_0"] and 0 <= by["agent/player_0"] <= 1 for by in deals.values())


def test_where_nothing_is_kept_nothing_is_learned(tmp_path: Path) -> None:
    never = "groups: 2, group_size: 2, budget: {keep: spread, success: 99.0, max_batches: 2}"
    path = run(tmp_path, never, "run.steps=1")
    (row,) = read_metrics(path)
    assert (row["play/budget/dropped"], row["play/budget/batches"]) == (4, 2)
    assert not [key for key in row if key.startswith("learn/")]
    assert list(read_episodes(path)) == []
