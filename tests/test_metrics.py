"""What the episodes of a step say at a glance, worked out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from games.base import counted
from marl_llm.metrics import action_shares, cost_metrics, facts, identical_replies, play_metrics, win_rates
from marl_llm.types import Branch, Completion, Episode, Match, Turn

SAMPLED = Completion(tokens=(1, 2), logprobs=(0.0, 0.0), stop="eos", versions=(0, 0))
CHOICE = ("call", "fold")


def turn(observation: str, reply: str, *, legal_actions: tuple[str, ...] | None = CHOICE, agent: str = "a") -> Turn:
    return Turn(
        agent=agent,
        role=f"role of {agent}",
        policy="p",
        observation=observation,
        legal_actions=legal_actions,
        completion=SAMPLED,
        reply=reply,
        action=reply,
        legal=True,
    )


def episode(returns: Mapping[str, float], turns: Sequence[Turn] = (), **hidden: Any) -> Episode:
    match = Match(id="m", game="g", seed=0, group="m", seats={"*": "p"})
    return Episode(match=match, turns=tuple(turns), returns=returns, hidden=hidden)


def test_several_games_are_kept_apart() -> None:
    two = [episode({"a": 1.0, "b": 0.0}), episode({"a": 0.0, "b": 0.0})]
    two = [replace(e, match=replace(e.match, label=label)) for e, label in zip(two, ("x", "y"))]
    metrics = play_metrics(two)
    assert {key: metrics[key] for key in metrics if key.startswith("play/return/")} == {
        "play/return/x/a": 1.0,
        "play/return/x/b": 0.0,
        "play/return/y/a": 0.0,
        "play/return/y/b": 0.0,
    }
    assert (metrics["play/win_rate/x/a"], metrics["play/win_rate/y/a"]) == (1.0, 0.5)


def test_actions_before_a_fork_are_counted_once() -> None:
    first = episode({"a": 0.0}, [turn("0", "call"), turn("1", "call")])
    forked = replace(first.match, id="m/t1n1", branch=Branch(episode="m", turn=1))
    fork = replace(first, match=forked, turns=(replace(first.turns[0], weight=0.0), turn("1", "fold")))
    metrics = play_metrics([first, fork])
    assert (metrics["play/turns"], metrics["play/action/p/call"]) == (3, 2 / 3)


@pytest.mark.parametrize(
    ("returns", "rates"),
    [
        ({"a": 1.0, "b": -1.0}, {"a": 1.0, "b": 0.0}),
        ({"a": 0.0, "b": 0.0}, {"a": 0.5, "b": 0.5}),
        # a beats two of three; b and c beat one and share; d beats none.
        ({"a": 3.0, "b": 1.0, "c": 1.0, "d": -5.0}, {"a": 1.0, "b": 0.5, "c": 0.5, "d": 0.0}),
        # One against a team of two.
        ({"a": -1.0, "b": 1.0, "c": 1.0}, {"a": 0.0, "b": 0.75, "c": 0.75}),
        ({"a": 1.0}, {}),
    ],
)
def test_a_win_rate_is_the_share_of_the_others_that_got_less(
    returns: dict[str, float], rates: dict[str, float]
) -> None:
    assert win_rates(episode(returns)) == rates


def test_returns_and_win_rates_are_means_per_role() -> None:
    turns = [turn("x", "call"), turn("y", "fold", agent="b")]
    metrics = play_metrics([episode({"a": 1.0, "b": -1.0}, turns), episode({"a": 0.0, "b": 0.0}, turns)])
    assert metrics["play/return/role of a"] == 0.5
    assert metrics["play/win_rate/role of a"] == 0.75
    assert metrics["play/win_rate/role of b"] == 0.25
    assert metrics["play/identical_replies"] == 0.5


def test_length_and_entropy_of_replies_are_told_by_role() -> None:
    long = Completion(tokens=(1, 2, 3, 4), logprobs=(-1.0, -2.0, -3.0, 0.0), stop="eos", versions=(0, 0, 0, 0))
    turns = [replace(turn("x", "call"), completion=long), turn("y", "call"), turn("z", "call", agent="b")]
    metrics = play_metrics([episode({"a": 0.0, "b": 0.0}, turns)])
    assert (metrics["play/length/role of a"], metrics["play/length/role of b"]) == (3.0, 2.0)
    assert (metrics["play/entropy/role of a"], metrics["play/entropy/role of b"]) == (1.0, 0.0)


def test_identical_replies_weigh_observations_alike() -> None:
    # call: all of x, half of y, none of z; fold: half of y, all of z.
    turns = [turn("x", "call")] * 10 + [turn("y", "call"), turn("y", "fold")] + [turn("z", "fold")]
    assert identical_replies(turns) == (1 + 0.5) / 3
    assert identical_replies([turn("x", "call"), turn("y", "call")]) == 1.0


def test_replies_without_a_choice_or_a_model_do_not_count_as_identical() -> None:
    forced = turn("y", "call", legal_actions=("call",))
    scripted = replace(turn("y", "call"), completion=None)
    assert identical_replies([turn("x", "call"), turn("x", "call"), forced, scripted]) is None
    assert identical_replies([turn("x", "hello", legal_actions=None), turn("y", "hi", legal_actions=None)]) == 0.5
    assert "play/identical_replies" not in play_metrics([episode({"a": 0.0}, [forced])])


def test_games_at_fault_are_counted_and_in_nothing_else() -> None:
    sound = [episode({"a": 1.0, "b": -1.0}, [turn("x", "call")])]
    broken = replace(episode({"a": 9.0, "b": 0.0}, [turn("x", "fold"), turn("y", "fold", agent="b")]), status="fault")
    assert play_metrics([*sound, broken]) == {**play_metrics(sound), "play/faults": 1}


def test_an_action_has_its_share_of_the_turns_that_offered_it() -> None:
    # call: 2 of 4 turns; fold: 1 of 3; raise: 0 of 1; one reply was illegal, and the forced turn does not count.
    taken = [
        turn("x", "call"),
        turn("y", "fold"),
        turn("z", "call", legal_actions=("call", "raise")),
        replace(turn("x", "er"), action=None, legal=False),
        turn("y", "fold", legal_actions=("fold",)),
        turn("y", "hello", legal_actions=None),
    ]
    assert action_shares(taken) == {"call": 0.5, "fold": 1 / 3, "raise": 0.0}
    assert action_shares(taken[4:]) == {}
    assert action_shares([*taken, turn("x", "a", legal_actions=("a", "b"))]) == {}  # five different actions


def test_action_shares_are_told_of_policies_that_sample() -> None:
    scripted = replace(turn("x", "fold", agent="b"), completion=None, policy="q")
    metrics = play_metrics([episode({"a": 0.0, "b": 0.0}, [turn("x", "call"), scripted])])
    shares = {key: value for key, value in metrics.items() if key.startswith("play/action/")}
    assert shares == {"play/action/p/call": 1.0, "play/action/p/fold": 0.0}


def test_facts_are_means_of_the_numbers_that_games_tell() -> None:
    played = [episode({}, deal=True, share=0.5, word="tea", counts=[1, 2]), episode({}, deal=False, share=1.0)]
    assert facts(played) == {"deal": 0.5, "share": 0.75}
    assert play_metrics(played)["play/fact/share"] == 0.75


def test_of_what_is_counted_all_values_weigh_alike_whichever_game_had_them() -> None:
    played = [episode({}, precision=counted(values)) for values in ([1.0, 1.0, 1.0], [0.0], [])]
    assert facts(played) == {"precision": 0.75}
    assert facts(played[2:]) == {}


def costing(
    role: str, prompt: int, sampled: int, rewards: Mapping[str, float | None], *, policy: str = "p", label: str = ""
) -> Episode:
    """One turn of a model."""
    completion = Completion(tokens=(1,) * sampled, logprobs=(0.0,) * sampled, stop="eos", versions=(0,) * sampled)
    asked = replace(
        turn("x", "call"), role=role, policy=policy, prompt=(2,) * prompt, completion=completion, rewards=rewards
    )
    played = episode({"a": 0.0}, [asked])
    return replace(played, match=replace(played.match, label=label))


def test_a_role_costs_tokens_seconds_and_is_paid_for_them() -> None:
    played = [
        costing("solver", 60, 20, {"solution": 1.0, "format": -0.5}),
        costing("solver", 60, 60, {"solution": None}),
        costing("scorer", 90, 10, {"score": -1.0}),
        costing("scorer", 180, 20, {}, policy="q"),
    ]
    scripted = replace(turn("x", "call"), completion=None, policy="random", role="noise")
    broken = replace(costing("solver", 9, 9, {"solution": 9.0}), status="fault")
    fork = costing("solver", 60, 20, {"solution": 1.0})
    repeated = replace(fork, turns=tuple(replace(turn, weight=0.0) for turn in fork.turns))
    told = cost_metrics([*played, episode({}, [scripted]), broken, repeated], {"p": 3.0, "q": 7.0, "random": 1.0})
    # p read and sampled 300 tokens in 3 seconds: 0.01 each; q took 7 seconds for one turn.
    assert told == pytest.approx(
        {
            "play/cost/scorer/tokens": 30,
            "play/cost/scorer/prompt_tokens": 270,
            "play/cost/scorer/seconds": 8.0,
            "play/cost/scorer/reward_per_1k": -1000 / 300,
            "play/cost/solver/tokens": 80,
            "play/cost/solver/prompt_tokens": 120,
            "play/cost/solver/seconds": 2.0,
            "play/cost/solver/reward_per_1k": 2.5,
            "play/policy_cost/p/tokens": 90,
            "play/policy_cost/p/prompt_tokens": 210,
            "play/policy_cost/p/seconds": 3.0,
            "play/policy_cost/p/reward_per_1k": -0.5 / 0.3,
            "play/policy_cost/q/tokens": 20,
            "play/policy_cost/q/prompt_tokens": 180,
            "play/policy_cost/q/seconds": 7.0,
            "play/policy_cost/q/reward_per_1k": 0.0,
        }
    )


def test_of_several_games_the_roles_costs_are_told_apart() -> None:
    told = cost_metrics([costing("solver", 1, 1, {}, label="x"), costing("solver", 1, 2, {}, label="y")], {"p": 1.0})
    assert (told["play/cost/x/solver/tokens"], told["play/cost/y/solver/tokens"]) == (1, 2)
    assert told["play/policy_cost/p/tokens"] == 3


def test_of_several_games_actions_and_facts_are_told_apart() -> None:
    one, other = (
        episode({"a": 0.0}, [turn("x", "call")], deal=True),
        episode({"a": 0.0}, [turn("x", "fold")], deal=False),
    )
    metrics = play_metrics([replace(e, match=replace(e.match, label=label)) for e, label in ((one, "g"), (other, "h"))])
    assert (metrics["play/action/g/p/call"], metrics["play/action/h/p/call"]) == (1.0, 0.0)
    assert (metrics["play/fact/g/deal"], metrics["play/fact/h/deal"]) == (1.0, 0.0)
