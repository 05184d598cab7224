"""Proposer and solvers: what is asked, what is refused, what both earn, and what is known of it."""

from typing import Any

import pytest

import games
from games.conformance import check
from games.pipelines.proposer_solver import ProposerSolver, read_proposal
from games.turns import InTurns
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Match

GOOD = "question: What is 20 + 11? answer: 31"


def played(*replies: str, **settings: Any) -> tuple[InTurns, dict[str, float]]:
    """The game after these replies, and what everybody was paid."""
    env = games.make("proposer_solver", **{"solvers": 4, **settings})
    env.reset(seed=0)
    assert isinstance(env, InTurns)
    paid = dict.fromkeys(env.possible_agents, 0.0)
    for reply in replies:
        env.step(reply)
        for agent, reward in env.rewards.items():
            paid[agent] += reward
    return env, paid


def test_the_question_goes_to_all_solvers_at_once_and_its_answer_to_none() -> None:
    env, _ = played(GOOD)
    assert list(env.choosing) == [f"solver_{i}" for i in range(4)]
    assert env.observe("solver_2")["text"] == "You are solver_2. Question: What is 20 + 11?"
    env.step("31")
    assert "31" not in env.observe("solver_1")["text"]


def test_a_question_is_worth_most_when_few_but_not_too_few_solve_it() -> None:
    env, paid = played(GOOD, "31", "<answer>31.0</answer>", "30", "no idea")
    assert paid == {"proposer_0": 0.6, "solver_0": 1.0, "solver_1": 1.0, "solver_2": 0.0, "solver_3": 0.0}
    assert all(env.terminations.values())
    assert env.hidden["pass_rate"] == 0.5
    assert env.hidden["valid"] is True
    assert env.hidden["question"] == "What is 20 + 11?"
    _, all_solve = played(GOOD, *["31"] * 4)
    assert all_solve["proposer_0"] == 0.1
    _, one_of_five = played(GOOD, "31", *["1"] * 4, solvers=5)
    assert one_of_five["proposer_0"] == 0.0
    assert one_of_five["solver_0"] == 1.0


def test_a_wrong_answer_of_the_proposer_is_found_out_and_earns_it_nothing() -> None:
    wrong = "question: What is 20 + 11? answer: 32"
    env, paid = played(wrong, "31", "31", "32", "32")
    assert paid == {"proposer_0": 0.0, "solver_0": 1.0, "solver_1": 1.0, "solver_2": 0.0, "solver_3": 0.0}
    assert env.hidden["wrong"] is True
    assert env.hidden["gold"] == "31"
    env, paid = played(wrong, "31", "31", "32", "32", verify=False)
    assert paid == {"proposer_0": 0.6, "solver_0": 0.0, "solver_1": 0.0, "solver_2": 1.0, "solver_3": 1.0}
    assert env.hidden["wrong"] is False


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ("What is 20 + 11?", "question or answer is missing"),
        ("question: What is 20 + 11? answer: ", "question or answer is missing"),
        ("question: answer: 3", "question or answer is missing"),
        ("", "question or answer is missing"),
        ("question: What is 31 + 0? answer: 31", "leaks"),
        ("question: 5 answer: it is 5", "leaks"),
        (r"question: What is 20 + 11? \boxed{31} answer: 32", "boxed answer in the question"),
        ("question: SEED answer: 99999", "repeats the seed"),
        ("question: Who am I? answer: nobody", "cannot be verified"),
        ("question: What is sqrt(2)? answer: 1.414", "cannot be verified"),
    ],
)
def test_what_cannot_be_asked_ends_the_game(said: str, problem: str) -> None:
    env, _ = played()
    assert isinstance(env.parallel, ProposerSolver)
    env.step(said.replace("SEED", env.parallel.position.task.prompt.upper()))
    assert all(env.terminations.values())
    assert set(env.rewards.values()) == {0.0}
    told = env.hidden
    assert (told["valid"], told["problem"], told["pass_rate"]) == (False, problem, 0.0)
    assert env.infos["proposer_0"]["illegal"] is (said == "")


def test_a_number_within_another_is_no_leak() -> None:
    env, _ = played("question: What is 17 - 10? answer: 7")
    assert env.hidden["problem"] == ""


def test_without_verification_any_question_goes() -> None:
    env, paid = played("Question: Who wrote it? ANSWER: The poet", "poet", "A poet.", "me", "you", verify=False)
    assert paid["solver_0"] == paid["solver_1"] == 1.0
    assert env.hidden["gold"] == "The poet"
    assert read_proposal("so, question: a b answer: c answer: d") == ("a b", "c answer: d")


def test_solvers_know_the_question_alone_and_who_called_them() -> None:
    match = Match(id="m", game="proposer_solver", seed=1, group="g", seats={"*": "informed"})
    (episode,) = play([match], {"informed": make_scripted("informed", {"accuracy": 1.0})})
    assert [turn.role for turn in episode.turns] == ["proposer", *["solver"] * 4]
    assert [turn.parent for turn in episode.turns] == [None, 0, 0, 0, 0]
    assert len({turn.observation.partition(". ")[2] for turn in episode.turns[1:]}) == 1
    assert episode.hidden["pass_rate"] == 1.0
    assert episode.turns[0].rewards == {"challenge": 0.1}


@pytest.mark.parametrize("tasks", [{"source": "arithmetic", "level": 4}, {"source": "algebra"}])
def test_whoever_follows_advice_proposes_and_solves(tasks: dict[str, Any]) -> None:
    env = games.make("proposer_solver", tasks={**tasks, "size": 50}, verify=tasks["source"] == "arithmetic")
    for seed in range(5):
        env.reset(seed=seed)
        while not any(env.terminations.values()):
            env.step(env.parallel.advise(env.infos[env.agent_selection]["state_key"]))
        assert env.hidden["pass_rate"] == 1.0
        assert not env.hidden["wrong"]


@pytest.mark.parametrize("settings", [{}, {"solvers": 1}, {"tasks": {"source": "algebra"}, "verify": False}])
def test_it_keeps_the_contract_of_games(settings: dict[str, Any]) -> None:
    assert check(lambda: games.make("proposer_solver", **settings), games=10) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"solvers": 0}, "solvers=0 is not allowed"),
        ({"verify": 1}, "verify=1 is not allowed; it must be true or false"),
        ({"tasks": {"source": "algebra"}}, "verify=True is not allowed; it must be false where questions are not"),
    ],
)
def test_a_wrong_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match="proposer_solver") as caught:
        games.make("proposer_solver", **settings)
    assert message in str(caught.value)
