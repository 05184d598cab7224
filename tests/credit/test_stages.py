"""Numbers worked out by hand for each stage and for the edge policy."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from marl_llm.credit import stages
from marl_llm.credit.stages import Signal
from marl_llm.credit.table import Row, TurnTable, table_of
from marl_llm.errors import ConfigError

NAN = float("nan")


def samples(*values: float | None, **columns: Any) -> tuple[TurnTable, Signal]:
    """One-turn episodes with one reward each."""
    table = table_of(Row(f"m{i:02}", 0, {"outcome": value}, **columns) for i, value in enumerate(values))
    return table, stages.reward(table)


def played(*episodes: Sequence[float | None]) -> tuple[TurnTable, Signal]:
    """Episodes of one agent with a reward per turn."""
    rows = [Row(f"m{i}", k, {"outcome": r}) for i, rewards in enumerate(episodes) for k, r in enumerate(rewards)]
    table = table_of(rows)
    return table, stages.reward(table)


def with_illegal(*values: float) -> tuple[TurnTable, Signal]:
    """One-turn episodes of which the last ended with an illegal move."""
    rows = [Row(f"m{i:02}", 0, {"outcome": value}) for i, value in enumerate(values[:-1])]
    table = table_of([*rows, Row("m99", 0, {"outcome": 0.0, "illegal": values[-1]})])
    return table, stages.reward(table)


def same(signal: Signal, expected: Sequence[float]) -> None:
    np.testing.assert_allclose(signal.values_N, expected, rtol=1e-9, atol=1e-12)


def test_reward_weighs_parts_and_a_part_of_weight_zero_is_not_read() -> None:
    table = table_of([Row("a", 0, {"outcome": 1.0, "format": 0.5, "judge": None}), Row("b", 0, {"outcome": 2.0})])
    same(stages.reward(table), [NAN, 2.0])
    same(stages.reward(table, weights={"format": 2.0, "judge": 0.0, "nowhere": 9.0}), [2.0, 2.0])
    same(stages.reward(table, weights={"outcome": 3.0}, others=0.0), [3.0, 6.0])


def test_reward_notes_which_values_hold_the_price_of_an_illegal_move() -> None:
    table = table_of([Row("a", 0, {"illegal": -3.0}), Row("b", 0, {"illegal": 0.0}), Row("c", 0, {"outcome": -1.0})])
    assert stages.reward(table).illegal_N.tolist() == [True, False, False]
    assert not stages.reward(table, weights={"illegal": 0.0}).illegal_N.any()


def test_returns_discount_per_turn_of_the_agent_and_not_per_move_of_the_game() -> None:
    rows = [
        Row("a", 0, {"r": 1.0}, agent="p_0"),
        Row("a", 1, {"r": 10.0}, agent="p_1"),
        Row("a", 2, {"r": 2.0}, agent="p_0"),
        Row("a", 3, {"r": 4.0}, agent="p_0"),
        Row("b", 0, {"r": 8.0}, agent="p_0"),
    ]
    table = table_of(rows)
    same(stages.returns(table, stages.reward(table), gamma=0.5), [3.0, 10.0, 4.0, 4.0, 8.0])
    same(stages.returns(table, stages.reward(table), gamma=0.0), [1.0, 10.0, 2.0, 4.0, 8.0])


def test_returns_are_unknown_before_an_unknown_reward_and_known_after_it() -> None:
    same(stages.returns(*played([1.0, None, 2.0], [1.0, 1.0])), [NAN, NAN, 2.0, 2.0, 1.0])


def test_an_illegal_move_marks_the_returns_that_hold_its_price() -> None:
    table = table_of([Row("a", 0), Row("a", 1, {"illegal": -3.0}), Row("a", 2), Row("b", 0)])
    signal = stages.reward(table)
    assert stages.returns(table, signal).illegal_N.tolist() == [True, True, False, False]
    assert stages.broadcast(table, signal).illegal_N.tolist() == [True, True, True, False]


def test_broadcast_gives_every_turn_the_total() -> None:
    same(stages.broadcast(*played([1.0, 0.0, 2.0], [None, 1.0])), [3.0, 3.0, 3.0, NAN, NAN])


def test_center_counts_each_turn_or_each_episode_once() -> None:
    table, signal = played([3.0, 3.0, 3.0], [1.0])
    same(stages.center(table, signal, keys=(), per="turn"), [0.5, 0.5, 0.5, -1.5])
    same(stages.center(table, signal, keys=(), per="episode"), [1.0, 1.0, 1.0, -1.0])


def test_center_counts_each_token_once() -> None:
    table = table_of([Row("a", 0, {"r": 1.0}, num_tokens=3), Row("b", 0, {"r": 5.0}, num_tokens=1)])
    same(stages.center(table, stages.reward(table), keys=(), per="token"), [-1.0, 3.0])


def test_leave_one_out_leaves_out_the_turn_or_the_whole_episode() -> None:
    table, signal = played([3.0, 3.0], [1.0], [2.0])
    by_turn = stages.center(table, signal, keys=(), reference="leave_one_out", per="turn")
    same(by_turn, [1.0, 1.0, 1 - 8 / 3, 2 - 7 / 3])
    by_episode = stages.center(table, signal, keys=(), reference="leave_one_out", per="episode")
    same(by_episode, [1.5, 1.5, -1.5, 0.0])


def test_distinct_values_may_include_zero() -> None:
    table, signal = samples(1.0, 1.0, 2.0)
    same(stages.center(table, signal, keys=(), reference="unique"), [-0.5, -0.5, 0.5])
    same(stages.center(table, signal, keys=(), reference="unique", include_zero=True), [0.0, 0.0, 1.0])
    table, signal = samples(1.0, 1.0 + 1e-7, 2.0)
    same(stages.center(table, signal, keys=(), reference="unique", decimals=5), [-0.5, -0.5 + 1e-7, 0.5])


@pytest.mark.parametrize("reference", ["mean", "leave_one_out", "unique"])
@pytest.mark.parametrize("per", ["turn", "episode", "token"])
def test_a_lone_member_gets_zero_whatever_the_reference(reference: Any, per: Any) -> None:
    same(stages.center(*samples(0.7, None), keys=(), reference=reference, per=per), [0.0, NAN])


def test_a_lone_episode_gets_zero_even_where_its_turns_differ() -> None:
    same(stages.center(*played([1.0, 2.0]), keys=(), per="episode"), [0.0, 0.0])
    same(stages.center(*played([1.0, 2.0]), keys=(), per="turn"), [-0.5, 0.5])


def test_equal_values_leave_no_rounding_for_a_scale_to_blow_up() -> None:
    table, signal = samples(*[0.1] * 7)
    centred = stages.center(table, signal, keys=())
    assert not centred.values_N.any()
    same(stages.scale(table, centred, keys=(), eps=0.0), [0.0] * 7)


def test_scale_divides_by_deviation_plus_eps() -> None:
    table, signal = samples(2.0, -2.0, 1.0, -1.0)
    same(stages.scale(table, signal, keys=(), ddof=0, eps=0.0), np.array([2, -2, 1, -1]) / np.sqrt(2.5))
    same(
        stages.scale(table, signal, keys=(), ddof=1, eps=0.5),
        np.array([2, -2, 1, -1]) / (np.sqrt(10 / 3) + 0.5),
    )


def test_scale_may_count_each_episode_once() -> None:
    table, signal = played([1.0, 1.0, 1.0], [-1.0])
    same(
        stages.scale(table, signal, keys=(), per="episode", ddof=1, eps=0.0),
        np.array([1, 1, 1, -1]) / np.sqrt(2),
    )


def test_an_illegal_price_stays_out_of_the_scale_but_is_scaled_by_it() -> None:
    table, signal = with_illegal(1.0, -1.0, 1.0, -1.0, -8.0)
    same(stages.scale(table, signal, keys=(), ddof=0, eps=0.0), [1.0, -1.0, 1.0, -1.0, -8.0])
    counted = stages.scale(table, signal, keys=(), ddof=0, eps=0.0, illegal="include")
    same(counted, np.array([1, -1, 1, -1, -8]) / np.std([1, -1, 1, -1, -8]))


def test_where_only_illegal_values_stand_out_they_do_enter_the_scale() -> None:
    table, signal = with_illegal(0.0, 0.0, 0.0, -2.0)
    centred = stages.center(table, signal, keys=())
    same(centred, [0.5, 0.5, 0.5, -1.5])
    same(stages.scale(table, centred, keys=(), ddof=1, eps=0.0), [0.5, 0.5, 0.5, -1.5])


def test_whiten_keeps_an_illegal_price_out_of_the_scale_too() -> None:
    table, signal = with_illegal(1.0, -1.0, 1.0, -1.0, -5.0)
    centred = np.array([2.0, 0.0, 2.0, 0.0, -4.0])
    same(stages.whiten(table, signal, ddof=0, eps=0.0), centred)
    same(stages.whiten(table, signal, ddof=0, eps=0.0, illegal="include"), centred / np.sqrt(24 / 5))


def test_whiten_weighs_turns_by_their_tokens() -> None:
    table = table_of([Row("a", 0, {"r": 1.0}, num_tokens=3), Row("b", 0, {"r": 5.0}, num_tokens=1)])
    same(stages.whiten(table, stages.reward(table), ddof=1, eps=0.0), np.array([-1.0, 3.0]) / 2)


def test_whiten_may_put_the_value_at_the_last_token() -> None:
    # Tokens 0 0 2 | 2: mean 1, variance 1; the first turn's tokens become -1 -1 1.
    table = table_of([Row("a", 0, {"r": 2.0}, num_tokens=3), Row("b", 0, {"r": 2.0}, num_tokens=1)])
    same(stages.whiten(table, stages.reward(table), at="last_token", ddof=0, eps=0.0), [-1.0, 1.0])


def test_whiten_refuses_turns_without_tokens() -> None:
    table, signal = samples(1.0, 2.0, num_tokens=0)
    with pytest.raises(ConfigError, match=r"whiten counts sampled tokens.*run\.tokens=false"):
        stages.whiten(table, signal)


def test_clip_limits_values_and_leaves_unknown_ones_unknown() -> None:
    same(stages.clip(*samples(3.0, -3.0, None), low=-1.0, high=2.0), [2.0, -1.0, NAN])
    same(stages.clip(*samples(3.0, -3.0), high=2.0), [2.0, -3.0])


def test_history_updates_once_per_episode_or_once_per_turn() -> None:
    table, signal = played([1.0, 1.0], [1.0])
    by_episode, state = stages.history(table, signal, {}, keys=("game",), alpha=0.5, per="episode")
    same(by_episode, [1.0, 1.0, 0.5])
    assert state == {'["game"]': 0.75}
    by_turn, state = stages.history(table, signal, {}, keys=("game",), alpha=0.5, per="turn")
    same(by_turn, [1.0, 0.5, 0.25])
    assert state == {'["game"]': 0.875}


def test_history_does_not_learn_from_unknown_values_and_does_not_mutate_what_it_was_given() -> None:
    before = {'["game"]': 2.0, '["other"]': 5.0}
    signal, after = stages.history(*samples(None, 4.0), before, keys=("game",), alpha=0.5)
    same(signal, [NAN, 2.0])
    assert after == {'["game"]': 3.0, '["other"]': 5.0}
    assert before == {'["game"]': 2.0, '["other"]': 5.0}


@pytest.mark.parametrize("name", [*stages.PLAIN, "history"])
def test_every_stage_takes_a_table_without_turns(name: str) -> None:
    table = table_of([])
    keys: dict[str, Any] = {"keys": ()} if name in ("center", "scale", "history") else {}
    if name == "history":
        assert len(stages.history(table, stages.reward(table), {}, **keys)[0].values_N) == 0
    else:
        assert len(stages.PLAIN[name](table, stages.reward(table), **keys).values_N) == 0


def sub_agents(counts: list[int]) -> TurnTable:
    """Episodes in which a sub-agent was called so often; one turn a call."""
    return table_of(
        Row(f"m{k}", i, {"r": float(i)}, agent=f"sub_{i}", role="sub") for k, d in enumerate(counts) for i in range(d)
    )


def test_both_alignments_weigh_a_call_one_over_the_number_of_calls_on_average() -> None:
    table = sub_agents([1, 3, 8, 11])
    signal = stages.reward(table)
    by_weights = stages.align(table, signal).weights_N
    np.testing.assert_allclose(by_weights, np.repeat([1, 1 / 3, 1 / 8, 1 / 11], [1, 3, 8, 11]))
    drawn = np.array([stages.align(table, signal, by="copies", seed=seed).weights_N for seed in range(4000)])
    # The spread of a mean of 4000 weights is at most 0.006.
    np.testing.assert_allclose(drawn.mean(0), by_weights, atol=0.025)
    assert drawn[:, 1:4].sum(1) == pytest.approx(1.0)
    assert drawn[:, 12:].sum(1) == pytest.approx(1.0)
    assert drawn[:, 1:4].min() == 1 / 8
    assert drawn[:, 12:].max() == 1 / 8
    assert drawn[:, 1:4].std() > 0


def test_copies_are_drawn_by_seed_and_episode_alone() -> None:
    alone = stages.align(sub_agents([3]), stages.reward(sub_agents([3])), by="copies").weights_N
    beside = stages.align(sub_agents([3, 5]), stages.reward(sub_agents([3, 5])), by="copies").weights_N
    np.testing.assert_array_equal(alone, beside[:3])


def test_what_has_no_weight_is_in_no_statistic() -> None:
    table = table_of([Row("m0", 0, {"r": 1.0}, weight=0.0), Row("m1", 0, {"r": 2.0}), Row("m2", 0, {"r": 4.0})])
    centred = stages.center(table, stages.reward(table), keys=("group",))
    np.testing.assert_allclose(centred.values_N[1:], [-1.0, 1.0])


def test_a_call_of_many_turns_weighs_as_much_as_one_of_a_single_turn() -> None:
    rows = [Row("m0", i, {"r": 1.0}, agent="sub_0", role="sub") for i in range(3)]
    rows += [Row("m0", 3, {"r": 3.0}, agent="sub_1", role="sub"), Row("m1", 0, {"r": 7.0}, agent="sub_0", role="sub")]
    table = table_of(rows)
    aligned = stages.align(table, stages.reward(table))
    centred = stages.center(table, aligned, keys=("group", "role"), per="episode").values_N
    np.testing.assert_allclose(centred, np.array([1, 1, 1, 3, 7]) - 4.5)  # the mean of (1 + 3) / 2 and 7
