"""Self-consistency and mixture of agents: who reads whom, and whose answer counts."""

import pytest

import games
from tests.games.pipelines.test_workflow import play


def test_solvers_answer_alone_and_the_majority_decides() -> None:
    replies = {"solver_0": ["1"], "solver_1": ["GOLD"], "solver_2": [""], "solver_3": [""], "solver_4": ["GOLD.0"]}
    env, seen = play(replies, "self_consistency")
    assert len(seen) == 5
    assert all("\n" not in text for _, text in seen)
    assert (env.hidden["answer"], env.hidden["correct"]) == (env.hidden["gold"], 1.0)
    assert env.hidden["correct_solver"] == 0.4


def test_an_aggregator_reads_all_answers_and_decides() -> None:
    replies = {"solver_0": ["1"], "solver_1": ["1"], "aggregator_0": ["GOLD"]}
    env, seen = play(replies, "self_consistency", agents=2, aggregator=True)
    assert seen[-1][0] == "aggregator_0"
    assert seen[-1][1].endswith("\nsolver_0: 1\nsolver_1: 1")
    assert env.hidden["correct"] == 1.0


def test_each_layer_reads_the_one_before_and_the_aggregator_the_last() -> None:
    replies = {"proposer_0": ["a", "c", "e"], "proposer_1": ["b", "d", "f"], "aggregator_0": ["GOLD"]}
    env, seen = play(replies, "mixture_of_agents", proposers=2, layers=3)
    heard = [text.partition("\n")[2] for _, text in seen]
    assert heard == [
        *["", ""],
        *["proposer_0: a\nproposer_1: b"] * 2,
        *["proposer_0: c\nproposer_1: d"] * 2,
        "proposer_0: e\nproposer_1: f",
    ]
    assert env.hidden["correct"] == 1.0
    assert env.hidden["correct_proposer"] == 0.0


def test_with_one_layer_proposers_are_not_told_of_another() -> None:
    _, seen = play({"proposer_0": ["a"], "aggregator_0": ["b"]}, "mixture_of_agents", proposers=1, layers=1)
    assert "layer before" not in seen[0][1]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("self_consistency", {"agents": 0}, "agents=0 is not allowed"),
        ("self_consistency", {"aggregator": 1}, "aggregator=1 is not allowed; it must be true or false"),
        ("mixture_of_agents", {"layers": 0}, "layers=0 is not allowed"),
        ("mixture_of_agents", {"proposers": 1.5}, "proposers=1.5 is not allowed"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"game {name}: {message}"):
        games.make(name, **settings)
