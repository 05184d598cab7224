import numpy as np
import pytest

from marl_llm.credit.table import Row, table_of, turn_table
from marl_llm.errors import ConfigError
from marl_llm.types import Completion, Episode, Match, Status, Turn

SAMPLED = Completion(tokens=(7, 8), logprobs=(-0.1, -0.2), stop="eos", versions=(0, 0))


def turn(agent: str, completion: Completion | None = None, **rewards: float | None) -> Turn:
    return Turn(
        agent=agent,
        role="seat",
        policy="me",
        observation=f"seen by {agent}",
        completion=completion,
        reply="",
        action="bet",
        legal=True,
        rewards=rewards,
    )


def episode(name: str, *turns: Turn, status: Status = "done") -> Episode:
    match = Match(id=name, game="kuhn_poker", seed=0, group="g0", seats={"*": "me"})
    return Episode(match=match, turns=turns, returns={}, status=status)


def test_every_turn_is_a_row_with_what_credit_needs() -> None:
    table = turn_table(
        [
            episode("b", turn("player_1", outcome=-1.0)),
            episode("a", turn("player_0", SAMPLED), turn("player_1"), turn("player_0", outcome=1.0, judge=None)),
        ]
    )
    assert table.episode.tolist() == ["a", "a", "a", "b"]
    assert table.turn.tolist() == [0, 1, 2, 0]
    assert table.step.tolist() == [0, 0, 1, 0]
    assert table.column("agent").tolist() == ["player_0", "player_1", "player_0", "player_1"]
    assert table.num_tokens.tolist() == [2, 0, 0, 0]
    assert table.column("observation").tolist() == [f"seen by {agent}" for agent in table.column("agent")]
    assert {
        table.column("game")[0],
        table.column("group")[0],
        table.role[0],
        table.column("policy")[0],
        table.actions[0],
    } == {
        "kuhn_poker",
        "g0",
        "seat",
        "me",
        "bet",
    }


def test_an_absent_reward_is_zero_and_not_due_and_an_unmeasured_one_is_unknown() -> None:
    table = turn_table([episode("a", turn("p_0"), turn("p_0", judge=None), turn("p_0", outcome=1.0, judge=0.0))])
    assert table.parts == ("judge", "outcome")
    np.testing.assert_array_equal(table.rewards_NP, [[0, 0], [np.nan, 0], [0, 1]])
    np.testing.assert_array_equal(table.due_NP, [[False, False], [True, False], [True, True]])


def test_episodes_at_fault_are_left_out_and_truncated_ones_are_not() -> None:
    faulty, cut = episode("f", turn("p_0"), status="fault"), episode("t", turn("p_0"), status="truncated")
    assert turn_table([faulty, cut]).episode.tolist() == ["t"]
    assert len(turn_table([faulty])) == 0


def test_two_episodes_of_one_id_are_refused() -> None:
    with pytest.raises(ConfigError, match="episode 'a' occurs twice"):
        turn_table([episode("a", turn("p_0")), episode("a", turn("p_0"))])


def test_keys_number_tuples_of_columns() -> None:
    table = table_of(Row(f"m{i}", i % 2, group=g, role=r) for i, (g, r) in enumerate(["xa", "xb", "ya", "xa"]))
    codes, num_keys = table.key(["group", "role"])
    assert num_keys == 3
    assert codes[0] == codes[3]
    assert len(set(codes.tolist())) == 3
    assert table.key([])[0].tolist() == [0, 0, 0, 0]
    assert table.label(["group", "turn"], 1) == ("x", "1")


def test_a_key_of_two_columns_does_not_run_names_together() -> None:
    table = table_of([Row("m0", group="a", role="bc"), Row("m1", group="ab", role="c")])
    assert table.key(["group", "role"])[1] == 2


def test_a_table_of_tokens_has_the_reward_at_a_turns_last_token() -> None:
    rows = [
        Row("a", 0, {"r": 1.0}, tokens=(7, 8), token_probes={"entropy": (0.5, 0.25)}, probes={"value": 3.0}),
        Row("a", 1, {"r": 5.0}, agent="tool", num_tokens=0),
        Row("a", 2, {"r": 2.0}, tokens=(9,)),
    ]
    turns = table_of(rows)
    assert turns.probes["entropy"][0] == 0.375
    table = turns.of_tokens()
    assert table.rewards_NP[:, 0].tolist() == [0.0, 1.0, 2.0]
    assert table.turn_row.tolist() == [0, 0, 2]
    assert table.turn.tolist() == [0, 0, 2]
    assert table.codes["token"].tolist() == [0, 1, 0]
    assert table.place.tolist() == [0, 1, 2]
    assert table.length.tolist() == [2, 2, 1]
    assert table.quantity("length").tolist() == [2.0, 2.0, 1.0]
    np.testing.assert_array_equal(table.quantity("entropy"), [0.5, 0.25, np.nan])
    assert table.quantity("value")[:2].tolist() == [3.0, 3.0]


def test_a_quantity_that_nobody_measured_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="hold no quantity 'entropy'; they hold length, r"):
        table_of([Row("a", 0, {"r": 1.0})]).quantity("entropy")


def test_tokens_that_were_not_logged_are_refused() -> None:
    with pytest.raises(ConfigError, match="unit: token looks at sampled tokens, and no turn"):
        table_of([Row("a", 0, {"r": 1.0})]).of_tokens()
