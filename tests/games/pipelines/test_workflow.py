"""Workflows: who reads whom, who speaks when, what is paid, and how a wrong graph is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import games
from games.pipelines.graph import layers, read_nodes
from games.pipelines.workflow import SILENCE, majority
from games.tasks import Task
from games.turns import InTurns

CHAIN = {
    "solver": {"prompt": "Solve.", "count": 2, "answers": True, "recalls": ["solver"]},
    "critic": {"prompt": "Criticise.", "sees": ["solver"], "choices": ["good", "bad"]},
    "boss": {"prompt": "Decide.", "sees": ["solver", "critic"], "rounds": "last", "answers": True},
}


def play(replies: dict[str, list[str]], name: str = "workflow", **settings: Any) -> tuple[Any, list[tuple[str, str]]]:
    """The game after every agent has given its replies in order, and who saw what; gold answers are put in for GOLD."""
    env = games.make(name, **settings)
    env.reset(seed=4)
    gold, seen, paid = env.hidden["gold"], [], dict.fromkeys(env.possible_agents, 0.0)
    while env.agents:
        agent = env.agent_selection
        if env.terminations[agent]:
            env.step(None)
            continue
        seen.append((agent, env.observe(agent)["text"].replace(gold, "GOLD")))
        env.step(replies[agent].pop(0).replace("GOLD", gold))
        for other, reward in env.rewards.items():
            paid[other] += reward
    env.paid = paid
    return env, seen


def test_a_layer_speaks_side_by_side_after_all_that_it_reads() -> None:
    nodes = read_nodes("workflow", CHAIN)
    assert [[node.role for node in layer] for layer in layers(nodes, 0, 2)] == [["solver"], ["critic"]]
    assert [[node.role for node in layer] for layer in layers(nodes, 1, 2)] == [["solver"], ["critic"], ["boss"]]
    assert nodes[0].agents == ("solver_0", "solver_1")


def test_each_role_reads_what_the_graph_says_and_nothing_else() -> None:
    replies = {
        "solver_0": ["one", "two"],
        "solver_1": ["uno", "dos"],
        "critic_0": ["good", "bad"],
        "boss_0": ["GOLD"],
    }
    env, seen = play(replies, nodes=CHAIN, rounds=2)
    assert [agent for agent, _ in seen] == [*["solver_0", "solver_1", "critic_0"] * 2, "boss_0"]
    heard = [text.partition("\n")[2] for _, text in seen]
    assert heard[0] == heard[1] == ""
    assert heard[2] == "solver_0: one\nsolver_1: uno Legal actions: good, bad"
    assert heard[3] == heard[4] == "solver_0: one\nsolver_1: uno"
    assert heard[6] == "solver_0: two\nsolver_1: dos\ncritic_0: bad"
    assert env.hidden["correct"] == 1.0
    assert env.hidden["correct_solver"] == 0.0
    assert env.paid == dict.fromkeys(env.possible_agents, 1.0)


def test_agents_of_a_layer_can_be_asked_at_once() -> None:
    env = games.make("workflow", nodes=CHAIN)
    env.reset(seed=0)
    assert isinstance(env, InTurns)
    assert list(env.choosing) == ["solver_0", "solver_1"]


def test_the_parts_that_are_paid_are_those_that_are_asked_for() -> None:
    replies = {"solver_0": ["GOLD"], "solver_1": [""], "critic_0": ["?"], "boss_0": ["wrong"]}
    env, _ = play(replies, nodes=CHAIN, pay=["outcome", "correct", "format"])
    assert env.paid == {"solver_0": 2.0, "solver_1": 0.0, "critic_0": 0.0, "boss_0": 1.0}
    assert env.hidden["correct_solver"] == 0.5
    assert env.hidden["answer"] == "wrong"


def test_a_forfeit_costs_the_offender_alone() -> None:
    env = games.make("workflow", on_illegal="forfeit")
    env.reset(seed=0)
    env.step("  ")
    assert env.rewards == {"solver_0": -1.0}
    assert env.infos["solver_0"]["illegal"]


def test_the_majority_is_counted_by_what_the_answers_say() -> None:
    task = Task(id="t", prompt="?", answer="8")
    assert majority(task, ["7", "I say <answer>8</answer>", "8.", "nine"]) == "I say <answer>8</answer>"
    assert majority(task, ["a", "b"]) == "a"
    assert majority(task, [SILENCE, SILENCE, "b"]) == "b"
    assert majority(task, [SILENCE, SILENCE]) == SILENCE
    assert majority(replace(task, check="number"), ["7", "8.0 km", "8"]) == "8.0 km"


def test_in_a_debate_the_majority_or_a_judge_decides() -> None:
    said = {"debater_0": ["x", "GOLD"], "debater_1": ["GOLD", "GOLD"], "debater_2": ["y", "z"]}
    env, seen = play({agent: list(texts) for agent, texts in said.items()}, "debate")
    assert env.hidden["correct"] == 1.0
    assert seen[3][1].endswith("\ndebater_0: x\ndebater_1: GOLD\ndebater_2: y")
    env, seen = play(said | {"judge_0": ["no"]}, "debate", judge=True)
    assert env.hidden["answer"] == "no"
    assert seen[-1][1].endswith("\ndebater_0: GOLD\ndebater_1: GOLD\ndebater_2: z")


def test_a_refiner_reads_the_answer_and_what_was_said_about_it() -> None:
    env, seen = play(
        {"generator_0": ["five"], "verifier_0": ["not so"], "refiner_0": ["GOLD"]}, "generate_verify_refine"
    )
    assert seen[2][1].endswith("\ngenerator_0: five\nverifier_0: not so")
    assert env.hidden["correct"] == 1.0
    assert env.hidden["correct_generator"] == 0.0


def test_what_could_not_be_read_is_heard_as_silence() -> None:
    env, seen = play({"generator_0": [" "], "verifier_0": ["hm"], "refiner_0": ["1"]}, "generate_verify_refine")
    assert f"generator_0: {SILENCE}" in seen[1][1]
    assert env.agents == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": {}}, "tasks={} is not allowed; it must be a mapping with a source"),
        ({"tasks": {"source": "aritmetic"}}, "nearest valid name: arithmetic"),
        ({"nodes": {}}, "nodes={} is not allowed; it must be a mapping from roles to what they do"),
        ({"nodes": {"a": {"sees": ["b"]}}}, "nodes.a.sees='b' is not allowed; it must be one of a"),
        ({"nodes": {"a": {"sees": ["b"]}, "b": {"sees": ["a"]}}}, "in a circle: a -> b -> a; use recalls"),
        ({"nodes": {"a1": {}}}, "without a number at its end"),
        ({"nodes": {"a": {"count": 0}}}, "nodes.a.count=0 is not allowed"),
        ({"nodes": {"a": {"colour": 1}}}, "a mapping with some of answers, asks, attributes, choices, count"),
        ({"nodes": {"a": {"sees": "b"}}}, "nodes.a.sees='b' is not allowed; it must be a list of texts"),
        ({"nodes": {"a": {"rounds": "odd"}}}, "it must be all or first or last or earlier"),
        ({"nodes": {"a": {}}}, "a role with answers: true in the last round"),
        ({"nodes": CHAIN, "answer": "critic"}, "answer='critic' is not allowed; it must be one of solver, boss"),
        ({"decide": "vote"}, "decide='vote' is not allowed; it must be last or majority"),
        ({"pay": "outcome"}, "pay='outcome' is not allowed; it must be a list of some of outcome, correct, format"),
        ({"rounds": 0}, "rounds=0 is not allowed"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"workflow|tasks") as caught:
        games.make("workflow", **settings)
    assert message in str(caught.value)


def test_advice_is_the_gold_answer_or_the_truth_about_the_latest_one() -> None:
    nodes = {**CHAIN, "talker": {"sees": ["solver"]}}
    env = games.make("workflow", nodes=nodes)
    env.reset(seed=4)
    gold, advised = env.hidden["gold"], {}
    for reply in (gold, "wrong", "good", "fine", gold):
        agent = env.agent_selection
        advised[agent] = env.parallel.advise(env.infos[agent]["state_key"])
        env.step(reply)
    assert advised == {
        "solver_0": gold,
        "solver_1": gold,
        "critic_0": "bad",
        "talker_0": "It is wrong.",
        "boss_0": gold,
    }


def test_a_broken_line_of_a_file_of_tasks_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tasks.jsonl"
    path.write_text('{"prompt": "1 + 1?", "answer": "2"}\n{"prompt": "2 + 2?"}\n')
    with pytest.raises(ValueError, match=r"tasks\.jsonl, line 2: field 'answer' is missing"):
        games.make("workflow", tasks={"source": str(path)})
