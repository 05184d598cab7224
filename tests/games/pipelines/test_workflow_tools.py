"""Workflows with tools, judges that attribute, and paraphrases: what is read, what counts, whose failure is whose."""

from itertools import pairwise
from typing import Any

import pytest

import games
from games.conformance import check
from games.tools.sandbox import NoIsolation, Sandbox
from marl_llm.learning.samples import to_samples
from marl_llm.models import END
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Match
from tests.tiny import dictated, seated, untrained

CODER = {"coder": {"answers": True, "count": 2, "tools": ["python", "calculate"], "tool_turns": 2}}
READER = {"reader": {"sees": ["coder"], "answers": True}}


def begin(**settings: Any) -> Any:
    env = games.make("workflow", **settings)
    env.reset(seed=4)
    return env


def test_whoever_has_tools_reads_what_they_say_and_others_read_messages_alone() -> None:
    env = begin(nodes=CODER | READER)
    assert "Tools: python: CODE of a program" in env.observe("coder_0")["text"]
    env.step("calculate: 6 * 7")
    env.step("nineteen")
    assert list(env.choosing) == ["coder_0"]
    assert env.observe("coder_0")["text"].endswith("calculate: 6 * 7\n42")
    assert "42" not in env.observe("coder_1")["text"]
    env.step("python:\nfor i in range(2):\n    print(i + 40)")
    assert list(env.choosing) == ["coder_0"]
    seen = env.observe("coder_0")["text"]
    assert seen.endswith("for i in range(2):\n    print(i + 40)\n40\n41")
    assert "Tools:" not in seen
    env.step("calculate: 1 + 1")
    assert list(env.choosing) == ["reader_0"]
    assert env.observe("reader_0")["text"].endswith("\ncoder_0: calculate: 1 + 1\ncoder_1: nineteen")
    env.step("0")
    assert env.hidden["tool_calls"] == 2
    assert [told["turn"] for told in env.hidden["answers"]] == [3, 1, 4]


def test_what_an_agent_gets_wrong_with_a_tool_it_is_told() -> None:
    env = begin(nodes=CODER)
    env.step("calculate: 1 / 0")
    env.step("python: print(x)")
    assert env.observe("coder_0")["text"].endswith("calculate: 1 / 0\ndivision by zero")
    assert "NameError" in env.observe("coder_1")["text"]


def test_the_sandbox_is_as_it_is_told_and_long_output_is_cut() -> None:
    env = begin(nodes=CODER, sandbox={"wall_seconds": 1.0}, output=12)
    env.step("python: import time; time.sleep(9)")
    env.step("python: print('x' * 99)")
    assert "the program ... (" in env.observe("coder_0")["text"]
    assert env.observe("coder_1")["text"].endswith(f"{'x' * 12}... (87 characters left out)")


def test_a_tool_that_hangs_is_a_fault_and_nobodys_move() -> None:
    nodes = {"coder": {"answers": True, "tools": ["python"], "tool_turns": 1}}
    settings = {"nodes": nodes, "tool_seconds": 0.001}
    matches = [
        Match(id=f"m{i}", game="workflow", settings=settings, seed=i, group="g", seats={"*": "random"})
        for i in range(12)
    ]
    episodes = list(play(matches, {"random": make_scripted("random", {})}))
    faults = [episode for episode in episodes if episode.status == "fault"]
    assert 0 < len(faults) < 12
    assert all(episode.note.startswith("tool python hangs: not done after 0.001 s") for episode in faults)
    assert not any(episode.turns for episode in faults)


CALCULATES = "tests.games.pipelines.test_workflow_tools:calculating"


def calculating() -> Any:
    """One agent with a calculator."""
    return games.make("workflow", nodes={"coder": {"answers": True, "tools": ["calculate"], "tool_turns": 2}})


def test_what_a_tool_says_carries_no_loss() -> None:
    tokenizer = untrained(CALCULATES).tokenizer
    said = [tokenizer.decode([token]) for token in tokenizer.encode("calculate:7", add_special_tokens=False)]
    chain = ["\n", "<answer>", *said, "</answer>", END]
    policy = seated(
        dictated({token: {after: 1.0} for token, after in pairwise(chain)}, CALCULATES),
        max_reply_tokens=16,
    )
    match = Match(id="m", game=CALCULATES, seed=0, group="g", seats={"*": "agent"})
    (episode,) = play([match], {"agent": policy})
    assert [turn.action for turn in episode.turns] == ["calculate:7"] * 3
    assert episode.turns[2].observation.endswith("calculate:7\n7\ncalculate:7\n7")
    advantages = {("m", index): 1.0 for index in range(3)}
    trained = [
        sample.tokens[span.start : span.start + span.length]
        for sample in to_samples([episode], advantages, "agent")
        for span in sample.spans
    ]
    assert trained == [turn.completion.tokens for turn in episode.turns if turn.completion is not None]
    assert all(tokenizer.decode(tokens).startswith("<answer>calculate:7</answer>") for tokens in trained)


def test_where_nothing_isolates_programs_there_is_no_game() -> None:
    missing = [kind for kind in ("landlock", "bubblewrap") if not isolates(kind)]
    for kind in missing:
        with pytest.raises(NoIsolation, match=rf"isolation='{kind}' is not possible here .* without protection"):
            games.make("workflow", nodes=CODER, sandbox={"isolation": kind})
    with pytest.raises(ValueError, match="sandbox: isolation='walls' is not allowed"):
        games.make("workflow", nodes=CODER, sandbox={"isolation": "walls"})


def isolates(kind: str) -> bool:
    try:
        Sandbox(isolation=kind)
    except NoIsolation:
        return False
    return True


JUDGED = {
    "solver": {"answers": True, "count": 2},
    "judge": {"sees": ["solver"], "attributes": True},
}


@pytest.mark.parametrize(
    ("said", "values"),
    [
        ("3, -1", [3, -1]),
        ("<answer>solver: 0 and 2.</answer>", [0, 2]),
        ("3", [None, None]),
        ("3 1 1", [None, None]),
        ("4 0", [None, None]),
        ("1.5 2", [None, None]),
        ("I like them both", [None, None]),
        ("9" * 5000, [None, None]),
        ("", [None, None]),
    ],
)
def test_what_a_judge_says_of_each_message_is_read_or_marked_as_unread(said: str, values: list[int | None]) -> None:
    env = begin(nodes=JUDGED)
    env.step("1")
    env.step("2")
    assert "For each message below, in order" in env.observe("judge_0")["text"]
    env.step(said)
    assert env.hidden["attributions"] == [{"turn": i, "judge": 2, "value": value} for i, value in enumerate(values)]
    assert all(env.terminations.values())


def test_a_judge_that_follows_advice_attributes_rightly() -> None:
    env = begin(nodes=JUDGED)
    env.step("wrong")
    env.step(env.hidden["gold"])
    assert env.parallel.advise(env.infos["judge_0"]["state_key"]) == "0, 3"


@pytest.mark.parametrize("said", ["", "?!", "perhaps the second", "<answer></answer>"])
def test_a_judge_that_answers_nonsense_is_wrong_and_the_game_goes_on_to_its_end(said: str) -> None:
    env = games.make("debate", judge=True, rounds=1)
    env.reset(seed=4)
    for _ in range(3):
        env.step(env.hidden["gold"])
    env.step(said)
    assert env.infos["judge_0"]["illegal"] is (said == "")
    assert env.hidden["correct"] == 0.0
    assert env.hidden["correct_debater"] == 1.0
    assert set(env.rewards.values()) == {0.0}


def test_a_critic_that_says_none_of_its_choices_is_heard_as_silence() -> None:
    nodes = {
        "solver": {"answers": True},
        "critic": {"sees": ["solver"], "choices": ["good", "bad"]},
        "boss": {"sees": ["critic"], "answers": True},
    }
    env = begin(nodes=nodes)
    env.step("1")
    env.step("fine")
    assert env.infos["critic_0"]["illegal"]
    assert env.observe("boss_0")["text"].endswith("\ncritic_0: no answer")


def test_a_role_may_be_asked_in_other_words() -> None:
    nodes = {"plain": {"answers": True}, "other": {"answers": True, "asks": "paraphrase"}}
    env = begin(nodes=nodes)
    expression = env.parallel.position.task.metadata["expression"]
    assert env.observe("plain_0")["text"].endswith(f"Question: What is {expression}?")
    assert env.observe("other_0")["text"].endswith(f"Question: Find the value of {expression}.")
    with pytest.raises(ValueError, match="asks='paraphrase' is not allowed; it must be question: task algebra"):
        games.make("workflow", nodes=nodes, tasks={"source": "algebra"})


def test_tools_keep_the_contract_of_games() -> None:
    assert check(lambda: games.make("workflow", nodes=CODER | READER), games=3) == []


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ({"a": {"answers": True, "tools": ["telnet"]}}, "it must be a list of some of calculate, python"),
        ({"a": {"answers": True, "tools": "python"}}, "it must be a list of texts"),
        ({"a": {"tools": ["python"], "choices": ["x"]}}, "it must be empty where there are choices"),
        ({"a": {"answers": True, "tool_turns": 0}}, "nodes.a.tool_turns=0 is not allowed"),
        (
            {"a": {"answers": True, "attributes": True}},
            "nodes.a.attributes=True is not allowed; it must be false where",
        ),
        ({"a": {"answers": True, "asks": "riddle"}}, "it must be question or paraphrase"),
    ],
)
def test_a_wrong_node_is_refused(nodes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"nodes\.a") as caught:
        games.make("workflow", nodes=nodes)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tool_seconds": 0}, "tool_seconds=0 is not allowed; it must be more than 0"),
        ({"output": 0}, "output=0 is not allowed"),
        ({"nodes": CODER, "sandbox": {"colour": 1}}, "sandbox: {'colour': 1} is not allowed"),
        ({"nodes": CODER, "sandbox": 3}, "sandbox: 3 is not allowed; it must be a mapping of settings"),
    ],
)
def test_a_wrong_setting_of_tools_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=r"workflow|sandbox") as caught:
        games.make("workflow", **settings)
    assert message in str(caught.value)
