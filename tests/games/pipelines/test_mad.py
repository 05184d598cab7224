"""Debate of two sides: who reads what, what ends it, and how a moderator is read."""

import pytest

import games
from games.pipelines.mad import verdict
from tests.games.pipelines.test_workflow import play

SIDES = {"affirmative_0": ["one", "two", "three"], "negative_0": ["uno", "dos", "tres"]}


def said(**others: list[str]) -> dict[str, list[str]]:
    return {agent: list(texts) for agent, texts in (SIDES | others).items()}


def test_a_moderator_that_decides_ends_the_debate_and_nobody_speaks_after_it() -> None:
    env, seen = play(said(moderator_0=["continue", "GOLD"], judge_0=["never"]), "mad")
    assert [agent for agent, _ in seen] == ["affirmative_0", "negative_0", "moderator_0"] * 2
    assert env.hidden["correct"] == env.hidden["correct_moderator"] == 1.0
    assert "correct_judge" not in env.hidden
    assert env.paid == {"affirmative_0": 1.0, "negative_0": 1.0, "moderator_0": 1.0, "judge_0": 0.0}


def test_both_sides_and_the_moderator_read_all_that_the_two_said_before() -> None:
    _, seen = play(said(moderator_0=["continue", "continue", "?"], judge_0=["GOLD"]), "mad")
    heard = [text.partition("\n")[2] for _, text in seen]
    assert heard[0] == ""
    assert heard[1] == "affirmative_0: one"
    assert heard[2] == heard[3] == "affirmative_0: one\nnegative_0: uno"
    assert heard[7] == "\n".join(
        ("affirmative_0: one\nnegative_0: uno\naffirmative_0: two\nnegative_0: dos", "affirmative_0: three")
    )
    assert heard[9].startswith("affirmative_0: one\nnegative_0: uno\naffirmative_0: two")
    assert "You disagree" in seen[1][1]


def test_after_the_last_round_a_judge_decides() -> None:
    env, seen = play(said(moderator_0=["continue"], judge_0=["I say: the answer is GOLD."]), "mad", rounds=1)
    assert [agent for agent, _ in seen] == ["affirmative_0", "negative_0", "moderator_0", "judge_0"]
    assert env.hidden["answer"] == env.hidden["gold"]
    assert [answer["right"] for answer in env.hidden["answers"]] == [0.0, 0.0, 1.0]


def test_a_moderator_that_cannot_be_read_lets_them_go_on() -> None:
    env, seen = play(said(moderator_0=[" ", "no answer", " ".join(["well"] * 30)], judge_0=["GOLD"]), "mad")
    assert len(seen) == 10
    assert env.hidden["correct"] == 1.0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("7", "7"),
        ("Affirmative is right. The final answer is 7.", "7"),
        ("The answer is: 3.5. So it ends.", "3.5"),
        ("Answer: B", "B"),
        ('{"Supported Side": "Negative", "Reason": "he counts well", "debate_answer": "7"}', "7"),
        ("{'Reason': 'so', 'debate_answer': '7', 'more': 'x'}", "7"),
        ("I cannot tell why, but it is <answer>7</answer>", "I cannot tell why, but it is <answer>7</answer>"),
        (
            f"import math\n\ndef seven():\n    return {' + '.join(['1'] * 30)}",
            f"import math\n\ndef seven():\n    return {' + '.join(['1'] * 30)}",
        ),
        ("<answer>continue to 7</answer>", "<answer>continue to 7</answer>"),
        ("The casino answer is 7", "7"),
        ("So \\boxed{7}, and nobody needs to continue", "So \\boxed{7}, and nobody needs to continue"),
    ],
)
def test_a_decision_is_read_however_it_is_given(text: str, answer: str) -> None:
    assert verdict(text) == answer


@pytest.mark.parametrize(
    "text",
    [
        *("continue", "Continue.", "no answer", "Go on, please.", "I cannot decide yet", "Both sides have merit."),
        *("The answer is not clear.", "Another round is needed", " ".join(["word"] * 21)),
        '{"Whether there is a preference": "No", "Supported Side": "", "Reason": "", "debate_answer": ""}',
        *("<answer>continue</answer>", "So <answer> Continue. </answer>", "\\boxed{continue}", "```\ncontinue\n```"),
        *("\\boxed{\\text{continue}}", "\\boxed{\\text{no answer}}", "It is not 5 but 7, no answer is missing"),
        "__import__('os').system('true') or the debate should continue",
    ],
)
def test_all_else_means_go_on(text: str) -> None:
    assert verdict(text) is None


def test_advice_leads_to_a_decision_after_one_round() -> None:
    env = games.make("mad")
    env.reset(seed=1)
    while not env.terminations[env.agent_selection]:
        env.step(env.parallel.advise(env.infos[env.agent_selection]["state_key"]))
    assert env.hidden["correct"] == 1.0
    assert len(env.hidden["answers"]) == 3


def test_rounds_are_a_whole_number() -> None:
    with pytest.raises(ValueError, match="game mad: rounds=0 is not allowed"):
        games.make("mad", rounds=0)
