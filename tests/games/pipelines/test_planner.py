"""Planner and helpers: who is asked what, and what the planner reads."""

import pytest

import games
from games.pipelines.planner import sub_questions
from marl_llm.config import GameConfig
from marl_llm.matchmaking import series
from marl_llm.play import play as played
from marl_llm.policies.scripted import make_scripted
from tests.games.pipelines.test_workflow import play


def test_helpers_answer_their_own_questions_side_by_side_and_see_nothing_else() -> None:
    replies = {"planner_0": ["ask: What is 1 + 1? | And 2 + 2?", "GOLD"], "helper_0": ["2"], "helper_1": ["4"]}
    env, seen = play(replies, "planner")
    assert [agent for agent, _ in seen] == ["planner_0", "helper_0", "helper_1", "planner_0"]
    assert seen[1][1] == "You are helper_0. Answer briefly. Question: What is 1 + 1?"
    assert seen[2][1] == "You are helper_1. Answer briefly. Question: And 2 + 2?"
    assert seen[3][1].endswith("\nWhat is 1 + 1? helper_0: 2\nAnd 2 + 2? helper_1: 4")
    assert "at most 3 of them" in seen[0][1]
    assert env.hidden["calls"] == 2
    assert env.hidden["correct"] == env.hidden["correct_planner"] == 1.0
    assert env.paid == {"planner_0": 1.0, "helper_0": 1.0, "helper_1": 1.0, "helper_2": 0.0}


def test_those_who_are_asked_can_be_asked_at_once() -> None:
    env = games.make("planner")
    env.reset(seed=0)
    env.step("one | two")
    assert list(env.choosing) == ["helper_0", "helper_1"]


def test_questions_too_many_are_left_out() -> None:
    env, seen = play({"planner_0": ["a | b | c", "1"], "helper_0": ["x"]}, "planner", helpers=1)
    assert [agent for agent, _ in seen] == ["planner_0", "helper_0", "planner_0"]
    assert env.hidden["calls"] == 1


@pytest.mark.parametrize("plan", ["", " | ", "no answer"])
def test_a_planner_that_asks_nothing_answers_alone(plan: str) -> None:
    env, seen = play({"planner_0": [plan, "GOLD"]}, "planner")
    assert [agent for agent, _ in seen] == ["planner_0", "planner_0"]
    assert (env.hidden["correct"], env.hidden["calls"]) == (1.0, 0)


@pytest.mark.parametrize(
    ("text", "questions"),
    [
        ("What is a? | What is b?", ["What is a?", "What is b?"]),
        ("Ask: only this", ["only this"]),
        ("Here is my plan:\n1. What is a?\n2) What  is b?\nThank you", ["What is a?", "What is b?"]),
        ("- one\n* two", ["one", "two"]),
        ("first\n\nsecond", ["first", "second"]),
        ("1.5 + 2?", ["1.5 + 2?"]),
        (" \n", []),
    ],
)
def test_a_plan_is_read_however_it_is_written(text: str, questions: list[str]) -> None:
    assert sub_questions(text) == questions


def test_helpers_are_called_by_the_planners_plan() -> None:
    matches = series(GameConfig(name="planner"), {"*": "informed"}, name="m", games=2, seed=0)
    for episode in played(matches, {"informed": make_scripted("informed", {"accuracy": 1.0})}):
        assert [(turn.agent, turn.parent) for turn in episode.turns] == [
            ("planner_0", None),
            ("helper_0", 0),
            ("planner_0", None),
        ]
        assert episode.turns[0].action in episode.turns[0].observation
        assert episode.hidden["correct"] == 1.0


def test_two_helpers_with_different_questions_are_in_different_states() -> None:
    env = games.make("planner", helpers=1)
    keys = set()
    for plan in ("one", "two"):
        env.reset(seed=0)
        env.step(plan)
        keys.add(env.infos["helper_0"]["state_key"])
    assert len(keys) == 2


def test_helpers_are_a_whole_number() -> None:
    with pytest.raises(ValueError, match="game planner: helpers=0 is not allowed"):
        games.make("planner", helpers=0)
