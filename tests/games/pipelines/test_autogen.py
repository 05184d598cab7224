"""Assistant and user: turns, the word that ends them, and which message is the answer."""

import pytest

import games
from tests.games.pipelines.test_workflow import play


def talk(assistant: list[str], user: list[str], **settings: int) -> tuple[object, list[tuple[str, str]]]:
    return play({"assistant_0": list(assistant), "user_0": list(user)}, "autogen", **settings)


def test_the_two_talk_by_turns_and_the_assistant_has_the_last_word() -> None:
    env, seen = talk(["1", "2", "GOLD"], ["why?", "sure?"])
    assert [agent for agent, _ in seen] == ["assistant_0", "user_0", "assistant_0", "user_0", "assistant_0"]
    assert seen[-1][1].endswith("\nassistant_0: 1\nuser_0: why?\nassistant_0: 2\nuser_0: sure?")
    assert env.hidden["correct"] == 1.0
    assert env.paid == {"assistant_0": 1.0, "user_0": 1.0}


@pytest.mark.parametrize(
    ("assistant", "user", "turns"),
    [
        (["GOLD TERMINATE"], [], 1),
        (["GOLD"], ["Fine. TERMINATE"], 2),
        (["GOLD", "TERMINATE"], ["check it"], 3),
        (["1", "So \\boxed{GOLD}", "You are welcome. TERMINATE"], ["no", "thanks"], 5),
        (["\\boxed{1}", "<answer>GOLD</answer> TERMINATE"], ["no"], 3),
        (["not yet terminated", "GOLD", "GOLD"], ["Do not terminate", "go on"], 5),
    ],
)
def test_the_word_ends_the_talk_and_the_last_marked_message_is_the_answer(
    assistant: list[str], user: list[str], turns: int
) -> None:
    env, seen = talk(assistant, user)
    assert len(seen) == turns
    assert env.hidden["correct"] == 1.0


def test_without_a_mark_the_last_message_is_the_answer() -> None:
    env, _ = talk(["GOLD", "1"], ["no"], turns=2)
    assert (env.hidden["answer"], env.hidden["correct"]) == ("1", 0.0)
    assert env.hidden["correct_assistant"] == 0.5


def test_whoever_says_nothing_but_the_word_has_not_answered() -> None:
    env, _ = talk(["TERMINATE"], [])
    assert env.hidden["answer"] == "no answer"
    assert env.paid == {"assistant_0": 0.0, "user_0": 0.0}


def test_an_advised_user_ends_the_talk_once_it_hears_the_right_answer() -> None:
    env = games.make("autogen")
    env.reset(seed=1)
    env.step("wrong")
    advised = []
    while not env.terminations[env.agent_selection]:
        advised.append(env.parallel.advise(env.infos[env.agent_selection]["state_key"]))
        env.step(advised[-1])
    assert advised == ["It is wrong.", env.hidden["gold"], "TERMINATE"]
    assert env.hidden["correct"] == 1.0


def test_turns_are_a_whole_number() -> None:
    with pytest.raises(ValueError, match="game autogen: turns=0 is not allowed"):
        games.make("autogen", turns=0)
