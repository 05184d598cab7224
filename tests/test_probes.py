"""What a policy might have answered instead, measured for the turns that were played."""

from dataclasses import replace
from math import log

import pytest
import torch

from marl_llm.config import GameConfig
from marl_llm.matchmaking import series
from marl_llm.models import LanguageModel, make_tiny
from marl_llm.play import play
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.scripted import make_scripted
from marl_llm.probes import probed, with_gold
from marl_llm.text import canonical_reply
from marl_llm.types import Completion, Episode, Tokens, Turn
from tests.tiny import CONTEXT, TINY, dictated, saying, seated, texts, untrained

TALK = GameConfig(name="discussion", settings={"rounds": 1, "agents": 3})
SEATS = {"agent_0": "scripted", "*": "agent"}


def played(policy: LLMPolicy) -> list[Episode]:
    policies = {"agent": policy, "scripted": make_scripted("random", {})}
    episodes = list(play(series(TALK, SEATS, name="x", games=2, seed=0), policies))
    return probed(episodes, policies, ["scorer"])


def plain(model: LanguageModel, policy: LLMPolicy, read: Tokens, reply: str) -> float:
    """Probability of a reply after what was read, by one pass of the plain model."""
    tokens = policy.chat.encode_reply(reply)
    with torch.inference_mode():
        logprobs_TV = model.model(input_ids=torch.tensor([[*read, *tokens]])).logits[0].log_softmax(-1)
    told = logprobs_TV[torch.arange(len(read) - 1, len(read) + len(tokens) - 1), list(tokens)]
    return told.sum().exp().item()


def test_probes_are_the_chances_of_a_teacher_forced_pass_renormalised() -> None:
    model = untrained("discussion", sharpness=20.0)
    policy = seated(model)
    judged = [turn for episode in played(policy) for turn in episode.turns if turn.role == "scorer"]
    mine = [turn for turn in judged if turn.policy == "agent"]
    assert len(mine) == 4
    for turn in mine:
        assert turn.prompt is not None
        mass = {action: plain(model, policy, turn.prompt, canonical_reply(action)) for action in "123"}
        total = sum(mass.values())
        expected = {f"p/{action}": value / total for action, value in mass.items()}
        assert turn.probes == pytest.approx({**expected, "illegal_mass": 1 - total}, rel=1e-3, abs=1e-5)
    assert all(max(turn.probes[f"p/{action}"] for action in "123") > 0.5 for turn in mine), "uniform would hide much"
    assert len({turn.probes["p/1"] for turn in mine}) > 1, "it depends on what was read"


def test_other_roles_and_players_without_a_model_have_no_probes() -> None:
    policy = seated(dictated(saying({"3": 0.6, "1": 0.2, "e": 0.2}), "discussion"))
    turns = [turn for episode in played(policy) for turn in episode.turns]
    assert {(turn.role, turn.policy) for turn in turns if turn.probes} == {("scorer", "agent")}
    told = {"p/1": 0.25, "p/2": 0.0, "p/3": 0.75, "illegal_mass": 0.2}
    assert all(turn.probes == pytest.approx(told, abs=1e-4) for turn in turns if turn.probes)


def test_measuring_changes_nothing_else_and_keeps_what_was_measured_before() -> None:
    policy = seated(dictated(saying({"3": 1.0}), "discussion"))
    before = played(policy)
    marked = [replace(e, turns=tuple(replace(turn, probes={"value": 2.0}) for turn in e.turns)) for e in before]
    after = probed(marked, {"agent": policy, "scripted": make_scripted("random", {})}, ["scorer"])
    for old, new in zip(before, after, strict=True):
        assert [replace(turn, probes={}) for turn in new.turns] == [replace(turn, probes={}) for turn in old.turns]
        assert [turn.probes for turn in new.turns] == [{"value": 2.0, **turn.probes} for turn in old.turns]


def test_a_policy_that_gives_no_legal_action_any_chance_tells_nothing_of_them() -> None:
    rambling = seated(dictated({"\n": {"e": 1.0}, "e": {"e": 1.0}}, "discussion"))
    turns = [turn for episode in played(rambling) for turn in episode.turns if turn.policy == "agent"]
    assert [turn.probes for turn in turns if turn.role == "scorer"] == [{"illegal_mass": 1.0}] * 4


def thought(policy: LLMPolicy, reply: str) -> Turn:
    tokens = policy.chat.encode_reply(reply)
    zeros = (0,) * len(tokens)
    return Turn(
        agent="agent_0",
        role="scorer",
        policy="agent",
        observation="",
        legal_actions=("1", "2", "3"),
        prompt=policy.chat.start("Think.", "Score it."),
        completion=Completion(tokens=tokens, logprobs=tuple(map(float, zeros)), stop="eos", versions=zeros),
        reply=reply,
        action=None,
        legal=True,
    )


def test_with_thinking_chances_are_those_after_the_thought() -> None:
    model = untrained("discussion", thinking=True, sharpness=30.0)
    policy = seated(model, thinking=True)
    thinks = ("<think>It is <answer>1</answer>?</think> So: ", "<think>wrong</think>")
    turns = [thought(policy, f"{begun}<answer>2</answer>") for begun in thinks]
    for turn, begun, strategy in zip(turns, thinks, policy.chances(turns), strict=True):
        assert turn.prompt is not None
        read = turn.prompt + policy.chat.encode_reply(begun)[:-1]
        mass = {action: plain(model, policy, read, canonical_reply(action)) for action in "123"}
        assert strategy is not None
        assert strategy.samples is None
        assert strategy.actions == pytest.approx({a: m / sum(mass.values()) for a, m in mass.items()}, rel=1e-3)
    (unfinished, unanswered) = (thought(policy, reply) for reply in ("<think>It is <answer>1</answer>", "Well, 3."))
    assert policy.chances([unfinished, unanswered]) == [None, None]


def test_a_token_that_thought_and_answer_share_is_read_as_part_of_the_answer() -> None:
    spelled = ["so < answer>2</answer>"] * 50
    model = make_tiny(TINY, [*texts("discussion", True), *spelled], context_tokens=CONTEXT, seed=0)
    policy = seated(model, thinking=True)
    turn = thought(policy, "so < answer>2</answer>")
    assert turn.prompt is not None
    assert turn.completion is not None
    so, shared = turn.completion.tokens[:2]
    assert (policy.chat.decode([so]), policy.chat.decode([shared])) == ("so", " <")
    mass = {action: plain(model, policy, (*turn.prompt, so), f" {canonical_reply(action)}") for action in "123"}
    (strategy,) = policy.chances([turn])
    assert strategy is not None
    assert strategy.actions == pytest.approx({a: m / sum(mass.values()) for a, m in mass.items()}, rel=1e-3)


def test_the_gold_answer_is_measured_after_what_an_agent_reads_next() -> None:
    model = untrained("discussion", sharpness=20.0)
    policy = seated(model)
    policies = {"agent": policy, "scripted": make_scripted("random", {})}
    episodes = list(play(series(TALK, SEATS, name="x", games=2, seed=0), policies))
    told = with_gold(episodes, policies)
    measured = 0
    for episode in told:
        reply = canonical_reply(episode.hidden["gold"])
        size = len(policy.chat.encode_reply(reply))
        for agent in {turn.agent for turn in episode.turns if turn.policy == "agent"}:
            mine = [turn for turn in episode.turns if turn.agent == agent]
            assert len(mine) > 1
            for place, turn in enumerate(mine):
                assert turn.prompt is not None
                nearness = log(plain(model, policy, turn.prompt, reply)) / size
                quantity, whose = ("gold", mine[place - 1]) if place else ("gold_before", turn)
                assert whose.probes[quantity] == pytest.approx(nearness, rel=1e-3)
                measured += 1
            assert "gold" not in mine[-1].probes, "nothing is read after it"
            assert all("gold_before" not in turn.probes for turn in mine[1:])
        assert not any(turn.probes for turn in episode.turns if turn.policy != "agent")
    assert measured > 4
    unknown = [replace(episode, hidden={}) for episode in episodes]
    assert with_gold(unknown, policies) == unknown
    spoken = [replace(e, hidden={**e.hidden, "gold_action": "another thing"}) for e in episodes]
    assert with_gold(spoken, policies)[0].turns[-1] == episodes[0].turns[-1]
    assert with_gold(spoken, policies) != [replace(e, hidden=s.hidden) for e, s in zip(told, spoken, strict=True)]
