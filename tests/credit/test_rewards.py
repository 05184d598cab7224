from marl_llm.credit.rewards import marshal, marshal_length, theirs
from marl_llm.types import Completion, Episode, Match, Turn


def turn(num_tokens: int | None, legal: bool = True) -> Turn:
    completion = None
    if num_tokens is not None:
        ids = (1,) * num_tokens
        completion = Completion(tokens=ids, logprobs=(0.0,) * num_tokens, stop="eos", versions=ids)
    return Turn(
        agent="p_0",
        role="p_0",
        policy="me",
        observation="",
        completion=completion,
        reply="",
        action=None,
        legal=legal,
    )


def episode(*turns: Turn) -> Episode:
    return Episode(match=Match(id="a", game="kuhn_poker", seed=0, group="g", seats={}), turns=turns, returns={})


def test_only_turns_that_a_model_answered_get_a_length_bonus() -> None:
    assert marshal_length(episode(turn(11), turn(None), turn(2048))) == {0: {"length": 0.5}, 2: {"length": 0.0}}


def test_a_legal_action_is_worth_a_little_and_an_illegal_one_nothing() -> None:
    assert marshal(episode(turn(11), turn(None), turn(2048, legal=False))) == {
        0: {"length": 0.5, "format": 0.05},
        2: {"length": 0.0, "format": 0.0},
    }


def test_what_the_others_got_comes_with_an_agents_last_turn() -> None:
    turns = tuple(
        Turn(agent=agent, role=agent, policy="me", observation="", reply="", action="", legal=True)
        for agent in ("p_0", "p_1", "p_0")
    )
    match = Match(id="a", game="negotiation", seed=0, group="g", seats={"*": "me"})
    played = Episode(match=match, turns=turns, returns={"p_0": 4.0, "p_1": 3.0, "p_2": -1.0})
    assert theirs(played) == {1: {"theirs": 3.0}, 2: {"theirs": 2.0}}
