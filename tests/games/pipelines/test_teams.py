"""What all pipelines on a task have in common, whoever is in them."""

from typing import Any

import pytest

import games
from games.conformance import check
from marl_llm.config import GameConfig
from marl_llm.matchmaking import series
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted

TEAMS: dict[str, dict[str, Any]] = {
    "workflow": {},
    "self_consistency": {"aggregator": True},
    "debate": {"judge": True},
    "mad": {"rounds": 2},
    "autogen": {"turns": 2},
    "mixture_of_agents": {},
    "generate_verify_refine": {},
    "planner": {},
}
SOURCES: dict[str, dict[str, Any]] = {
    "asked": {"source": "asked", "prompt": "What is left?\nSay | and more."},
    "choice": {"source": "mmlu", "path": "sample"},
    "code": {"source": "humaneval", "path": "sample", "size": 2},
}


@pytest.mark.parametrize("name", TEAMS)
@pytest.mark.parametrize("source", SOURCES)
def test_it_keeps_its_promises_on_every_kind_of_task(name: str, source: str) -> None:
    made = lambda: games.make(name, tasks=SOURCES[source], **TEAMS[name])  # noqa: E731
    assert check(made, games=3) == []


@pytest.mark.parametrize("name", TEAMS)
def test_who_knows_the_truth_is_right_and_hidden_says_what_was_answered(name: str) -> None:
    game = GameConfig(name=name, settings={"tasks": SOURCES["choice"], **TEAMS[name]})
    informed = make_scripted("informed", {"accuracy": 1.0})
    for episode in play(series(game, {"*": "informed"}, name="m", games=3, seed=0), {"informed": informed}):
        assert episode.status == "done"
        assert episode.hidden["correct"] == 1.0
        assert episode.hidden["answer"] == episode.hidden["gold"]
        assert episode.hidden["task"].startswith("mmlu/")
        assert all(turn.legal for turn in episode.turns)
        assert all(value in (0.0, 1.0) for value in episode.returns.values())


@pytest.mark.parametrize("name", TEAMS)
def test_a_forfeit_costs_the_offender_alone(name: str) -> None:
    env = games.make(name, on_illegal="forfeit", **TEAMS[name])
    env.reset(seed=0)
    offender = env.agent_selection
    while env.agents and not env.terminations[env.agent_selection]:
        env.step("  " if env.agent_selection == offender else "word")
    assert {agent for agent, reward in env.rewards.items() if reward} == {offender}
    assert env.rewards[offender] == -1.0
