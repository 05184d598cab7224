"""Recipes over episodes: what holds for all of them, whatever the numbers."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_llm.credit.load import load_recipe, recipe_names
from marl_llm.credit.needs import OFFERS
from marl_llm.credit.recipe import credit, credit_table
from marl_llm.credit.table import Row, table_of
from marl_llm.types import Episode, Match, Turn

NAMES = recipe_names()
PROBES = ("logprob", *sorted(OFFERS.keys() - {"state_key", "tokens"}))
BY_TURN = ("at_grpo", "brpo_summary", "grpo_normalize_then_sum")
"""Recipes that compare rewards of single turns."""
GROUPED = [
    *("at_grpo", "brpo", "brpo_summary", "canon", "coma_mc", "dapo", "dr_grpo", "gigpo", "gigpo_std", "grpo"),
    *("grpo_normalize_then_sum", "hapo", "igpo", "igpo_joint", "igpo_released", "marge", "minimaximalist", "mt_grpo"),
    *("mt_grpo_k", "pure_min", "rlcr", "rloo", "salt", "spear", "spo_tree", "spo_tree_tokens", "t_spmo", "tempo"),
    "tempo_turns",
]
WHEN_PAID = ("gigpo", "gigpo_std", "igpo_joint", "igpo_released")
"""Recipes for which it matters when a reward is paid, so that a constant in the end is no constant."""
TOGETHER = ("mars_released", "mars_scaled_no_roles")
"""Recipes that centre opponents together: one does what its original does, one is the ablation of not doing so."""
ALL_ROLES = (*TOGETHER, "comas")
"""Recipes that centre all roles of a policy together."""
BY_WORDS = ("co_reward", "majority", "rlccf")
"""Recipes that go by what was said, not by rewards."""
BY_QUANTITIES = ("archer", "brpo", "coma", "read_j", "read_s", "spa", "sweet")
"""Recipes that go by what was measured, which may be known where no reward is."""
ONE_SCALE = ("comas_roles", "mars_scaled", "mars_scaled_no_turns", "self_play", "state_baseline")
"""Recipes with one scale for all roles."""

rewards = st.sampled_from([-2.0, -1.0, 0.0, 0.05, 1.0, 2.0, None])
matches = st.lists(st.lists(rewards, min_size=1, max_size=5), min_size=1, max_size=6)
recipes = st.sampled_from(NAMES)
quick = settings(max_examples=60, deadline=None)


def rows_of(games: Sequence[Sequence[float | None]], group: str = "g", prefix: str = "m") -> list[Row]:
    """Two players move in turn; every turn has the reward listed, and the last may be illegal at -2."""
    return [
        Row(
            f"{prefix}{i}",
            k,
            {"illegal" if value == -2.0 else "outcome": value},
            agent=f"player_{k % 2}",
            role=f"player_{k % 2}",
            group=group,
            action=f"move {(i + k) % 2}",
            state=f"state {k % 3}",
            truncated=i % 3 == 2,
            tokens=tuple((i * 7 + k * j) % 5 for j in range(1 + (i + k) % 3)),
            probes={f"budget/{s}": ((i * 3 + k * 5 + s * 7) % 11) / 11 for s in range(2)},
            token_probes={
                name: tuple(((n + i * 3 + k * 5 + j * 7) % 11) / 11 - 0.9 for j in range(1 + (i + k) % 3))
                for n, name in enumerate(PROBES)
            }
            | {"budget": (0.0, 1.0, float("nan"))[: 1 + (i + k) % 3]},
        )
        for i, values in enumerate(games)
        for k, value in enumerate(values)
    ]


def advantages(name: str, rows: Sequence[Row]) -> dict[tuple[str, int, int], float]:
    """By episode, turn and token; of a recipe that values turns, as if each had one token."""
    result = credit_table(table_of(rows), load_recipe(name))
    found = result.by_turn(result.advantages)
    return {(*turn, j): a for turn, values in found.items() for j, a in enumerate(np.atleast_1d(values).tolist())}


@quick
@given(games=matches, name=recipes, data=st.data())
def test_the_order_of_the_list_changes_nothing(games: Any, name: str, data: st.DataObject) -> None:
    rows = rows_of(games)
    assert advantages(name, data.draw(st.permutations(rows))) == advantages(name, rows)


@quick
@given(games=matches, name=recipes)
def test_advantages_are_finite(games: Any, name: str) -> None:
    assert np.isfinite(list(advantages(name, rows_of(games)).values())).all()


@quick
@given(games=matches, others=matches, name=st.sampled_from(GROUPED))
def test_another_group_changes_nothing(games: Any, others: Any, name: str) -> None:
    rows = rows_of(games)
    more = advantages(name, rows + rows_of(others, "h", "n") + rows_of(others, "i", "o"))
    assert {key: value for key, value in more.items() if key[0].startswith("m")} == advantages(name, rows)


@quick
@given(games=matches, name=st.sampled_from([name for name in NAMES if name not in (*BY_WORDS, *BY_QUANTITIES)]))
def test_an_episode_whose_rewards_are_unknown_changes_nobody_else(games: Any, name: str) -> None:
    rows = rows_of(games)
    more = advantages(name, [*rows, *rows_of([[None, None, None]], prefix="z")])
    unknown = [more.pop(key) for key in list(more) if key[0] == "z0"]
    assert unknown
    assert not any(unknown)
    assert more == advantages(name, rows)


@quick
@given(
    games=matches, name=st.sampled_from(sorted({*GROUPED} - {*WHEN_PAID})), constant=st.sampled_from([-2.5, 0.5, 4.0])
)
def test_a_constant_on_all_rewards_of_a_group_changes_nothing(games: Any, name: str, constant: float) -> None:
    """Paid at every turn where a recipe looks at turns, and once to every agent where it looks at totals."""
    rows = [row._replace(rewards={"r": (i * 7 % 5) / 2}) for i, row in enumerate(rows_of(games))]
    last = {(row.episode, row.agent): row.turn for row in rows}
    paid = [
        row._replace(rewards={"r": (row.rewards["r"] or 0.0) + constant})
        if name in BY_TURN or last[row.episode, row.agent] == row.turn
        else row
        for row in rows
    ]
    before, after = advantages(name, rows), advantages(name, paid)
    assert list(after.values()) == pytest.approx(list(before.values()), abs=1e-6)


@quick
@given(games=matches, name=st.sampled_from([name for name in NAMES if name not in ALL_ROLES]), shift=st.floats(-3, 3))
def test_what_an_opponent_is_paid_changes_no_reference(games: Any, name: str, shift: float) -> None:
    rows = [row for row in rows_of(games) if None not in row.rewards.values()]
    changed = [
        row._replace(rewards={part: value + shift for part, value in row.rewards.items() if value is not None})
        if row.role == "player_1"
        else row
        for row in rows
    ]
    before, after = advantages(name, rows), advantages(name, changed)
    roles = {(row.episode, row.turn): row.role for row in rows}
    mine = [key for key in before if roles[key[:2]] == "player_0"]
    if name in ONE_SCALE:  # one scale for both seats: only the unit may change
        before, after = ({key: np.sign(round(v, 9)) for key, v in a.items()} for a in (before, after))
    assert [after[key] for key in mine] == [before[key] for key in mine]


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TOGETHER])
def test_another_policy_in_the_same_role_of_the_same_group_changes_nothing(name: str) -> None:
    """So that members of a group may swap seats with an opponent, or meet one that learns too."""
    rows = rows_of([[1.0, -1.0, 0.05], [-1.0, 1.0], [0.0, 2.0]])
    others = [row._replace(episode=f"z{row.episode}", policy="other", rewards={"r": 7.0}) for row in rows]
    both = advantages(name, rows + others)
    assert {key: value for key, value in both.items() if not key[0].startswith("z")} == advantages(name, rows)


LONE = [
    *("brpo", "dr_grpo", "grpo", "mt_grpo", "mt_grpo_k", "rloo", "salt", "self_play", "spo_tree", "spo_tree_tokens"),
    *("t_spmo", "tempo"),
]


@pytest.mark.parametrize("name", LONE)
def test_a_lone_game_of_a_group_gets_zero(name: str) -> None:
    rows = rows_of([[1.0, -1.0, 0.05]]) + rows_of([[1.0, -1.0], [-1.0, 1.0]], "h", "n")
    assert [advantages(name, rows)["m0", k, 0] for k in range(3)] == [0.0, 0.0, 0.0]


def test_self_play_has_unit_deviation_over_ordinary_turns_and_prices_illegal_moves_in_it() -> None:
    def row(i: int, part: str, value: float) -> Row:
        return Row(f"m{i}", 0, {part: value}, group=f"g{i // 3}")

    rows = [row(i, "outcome", value) for i, value in enumerate([3.0, 0.0, 0.0, 1.0, -1.0])]
    result = advantages("self_play", [*rows, row(5, "illegal", -3.0)])
    # Centred: 2 -1 -1 and 2 0 -2, the last being illegal; the others' mean is .4 and their variance 1.84.
    expected = np.array([2, -1, -1, 2, 0, -2]) / np.sqrt(1.84)
    np.testing.assert_allclose(list(result.values()), expected, rtol=1e-7)


def test_state_baseline_compares_with_what_followed_the_same_sight_before() -> None:
    recipe = load_recipe("state_baseline")

    def rows(name: str, values: tuple[float, float]) -> list[Row]:
        return [Row(name, 0, {"r": values[0]}, observation="here"), Row(name, 1, {"r": values[1]}, observation="there")]

    state = credit_table(table_of(rows("a", (0.0, 1.0))), recipe).state
    assert {key: round(value, 9) for key, value in state["history"].items()} == {
        '["game", "agent_0", "policy", "here"]': 0.1,
        '["game", "agent_0", "policy", "there"]': 0.1,
    }
    credited = credit_table(table_of(rows("b", (-0.5, 1.0))), recipe, state)
    # Reward-to-go .5 and 1, both above .1; their mean is taken off too, and .25 is the unit.
    np.testing.assert_allclose(credited.advantages, [-1.0, 1.0], rtol=1e-6)


def test_reinforce_pp_is_whitened_per_seat() -> None:
    rows = [
        Row("a", 0, {"r": 3.0}, role="first"),
        Row("a", 1, {"r": 5.0}, agent="agent_1", role="second"),
        Row("b", 0, {"r": 1.0}, role="first"),
        Row("b", 1, {"r": 5.0}, agent="agent_1", role="second"),
    ]
    half = 1 / np.sqrt(2 + 1e-8)
    assert list(advantages("reinforce_pp", rows).values()) == pytest.approx([half, 0.0, -half, 0.0])


def test_how_many_turns_have_no_advantage_is_told() -> None:
    rows = [
        Row("a", 0, {"r": 1.0}),
        Row("b", 0, {"r": -1.0}),
        Row("c", 0, {"r": None}),
        Row("d", 0, {"r": 0.0}),
        Row("e", 0, {"r": 5.0}, weight=0.0),
        Row("f", 0, {"r": 7.0}, num_tokens=0, policy="scripted"),
    ]
    credited = credit_table(table_of(rows), load_recipe("dr_grpo"))
    assert credited.metrics() == {"credit/zero": 0.5, "credit/unknown": 0.25}
    assert credit_table(table_of([]), load_recipe("dr_grpo")).metrics() == {}


def test_state_goes_on_exactly_after_a_trip_through_json() -> None:
    recipe = load_recipe("rae")
    first = [Row(f"a{i}", 0, {"r": value}) for i, value in enumerate([1.0, 0.1, -0.3])]
    second = [Row(f"b{i}", 0, {"r": value}) for i, value in enumerate([0.7, -1.0])]
    state = credit_table(table_of(first), recipe).state
    resumed = credit_table(table_of(second), recipe, json.loads(json.dumps(state)))
    whole = credit_table(table_of(first + second), recipe)
    assert resumed.advantages.tolist() == whole.advantages[3:].tolist()
    assert resumed.state == whole.state
    assert list(state) == ["history"]


def test_state_within_a_sum_is_kept_per_term() -> None:
    terms = [{"stages": ["reward", {"history": {"keys": [], "alpha": alpha, "per": "turn"}}]} for alpha in (0.5, 0.0)]
    result = credit_table(table_of([Row("a", 0, {"r": 1.0})]), load_recipe({"stages": [{"sum": terms}]}))
    assert result.state == {"sum.1.history": {"[]": 0.5}, "sum.2.history": {"[]": 1.0}}
    assert [label for label, _ in result.trace] == [
        "sum.1.reward",
        "sum.1.history",
        "sum.2.reward",
        "sum.2.history",
        "sum",
    ]


def test_unknown_values_stay_visible_in_the_trace_and_become_zero_in_the_end() -> None:
    rows = [Row("a", 0, {"r": None}), Row("b", 0, {"r": 1.0}), Row("c", 0, {"r": 3.0})]
    result = credit_table(table_of(rows), load_recipe("mars"))
    assert np.isnan(result.trace[-1][1][0])
    assert result.advantages.tolist() == [0.0, -1.0, 1.0]


def test_episodes_at_fault_take_part_in_nothing() -> None:
    def episode(name: str, outcome: float, status: Any = "done") -> Episode:
        turn = Turn(
            agent="player_0",
            role="player_0",
            policy="me",
            observation="",
            reply="",
            action="bet",
            legal=True,
            rewards={"outcome": outcome},
        )
        match = Match(id=name, game="kuhn_poker", seed=0, group="g", seats={"*": "me"})
        return Episode(match=match, turns=(turn,), returns={"player_0": outcome}, status=status)

    good = [episode("a", 1.0), episode("b", -1.0)]
    result = credit([*good, episode("c", 100.0, "fault")], load_recipe("grpo"))
    assert result.table.episode.tolist() == ["a", "b"]
    assert result.advantages.tolist() == credit(good, load_recipe("grpo")).advantages.tolist()


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_without_turns_has_no_advantages(name: str) -> None:
    assert credit([], load_recipe(name)).advantages.tolist() == []
