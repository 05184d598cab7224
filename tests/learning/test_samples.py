"""Credited episodes to training sequences: which turns join one sequence, and which tokens carry loss."""

from typing import Any

from marl_llm.learning.samples import to_samples
from marl_llm.types import Completion, Episode, Match, Sample, Span, Tokens, Turn


def turn(agent: str, prompt: Tokens | None, tokens: Tokens | None, *, policy: str = "a", **more: Any) -> Turn:
    """A turn whose i-th sampled token has log-probability -i/8 and weights of version 4."""
    completion = None
    if tokens is not None:
        logprobs = tuple(-i / 8 for i in range(len(tokens)))
        completion = Completion(tokens=tokens, logprobs=logprobs, stop="eos", versions=(4,) * len(tokens))
    fixed = {"observation": "", "reply": "", "action": None, "legal": True, "role": f"role of {agent}"}
    return Turn(agent=agent, policy=policy, prompt=prompt, completion=completion, **(fixed | more))


def episode(*turns: Turn, name: str = "m") -> Episode:
    match = Match(id=name, game="chess", seed=0, group="g", seats={"*": "a"})
    return Episode(match=match, turns=turns, returns={})


def span(start: int, length: int, advantage: float, *, index: int, role: str = "role of x") -> Span:
    return Span(
        start=start,
        length=length,
        logprobs=tuple(-i / 8 for i in range(length)),
        advantages=(advantage,) * length,
        role=role,
        turn=index,
        versions=(4,) * length,
    )


def shape(samples: list[Sample]) -> list[tuple[Tokens, list[int]]]:
    """Tokens, and the turns whose tokens carry loss."""
    return [(sample.tokens, [span.turn for span in sample.spans]) for sample in samples]


def test_a_turn_becomes_a_sequence_whose_sampled_tokens_carry_its_advantage() -> None:
    samples = to_samples([episode(turn("x", (1, 2, 3), (4, 5)))], {("m", 0): -0.5}, "a")
    expected = Sample(
        policy="a", game="chess", episode="m", agent="x", tokens=(1, 2, 3, 4, 5), spans=(span(3, 2, -0.5, index=0),)
    )
    assert samples == [expected]


def test_turns_of_one_dialogue_are_one_sequence() -> None:
    played = episode(
        turn("x", (1, 2), (3, 4)),
        turn("y", (1, 9), (5,)),
        turn("x", (1, 2, 3, 4, 6, 7), (8,)),
        turn("x", (1, 2, 3, 4, 6, 7, 8, 0), (9, 9)),
    )
    advantages = {("m", 0): 1.0, ("m", 1): 2.0, ("m", 2): 3.0, ("m", 3): 0.0}
    first, second = to_samples([played], advantages, "a")
    assert (first.agent, first.tokens) == ("x", (1, 2, 3, 4, 6, 7, 8, 0, 9, 9))
    assert first.spans == (span(2, 2, 1.0, index=0), span(6, 1, 3.0, index=2), span(8, 2, 0.0, index=3))
    assert (second.agent, second.tokens) == ("y", (1, 9, 5))
    assert second.spans == (span(2, 1, 2.0, index=1, role="role of y"),)


def test_a_prompt_that_changes_anything_before_it_starts_a_new_sequence() -> None:
    changed = {
        "an earlier token": (1, 0, 3, 4, 6),
        "a sampled token": (1, 2, 3, 5, 6),
        "the sampled part is missing": (1, 2, 6),
        "it is shorter": (1, 2, 3),
    }
    for what, prompt in changed.items():
        played = episode(turn("x", (1, 2), (3, 4)), turn("x", prompt, (8,)))
        samples = to_samples([played], {("m", 0): 1.0, ("m", 1): 1.0}, "a")
        assert shape(samples) == [((1, 2, 3, 4), [0]), ((*prompt, 8), [1])], what


def test_equal_prompts_of_two_agents_or_episodes_are_never_joined() -> None:
    one = turn("x", (1, 2), (3,))
    other = turn("y", (1, 2, 3, 4), (5,))
    advantages = {(name, i): 1.0 for name in "mn" for i in range(2)}
    samples = to_samples([episode(one, other), episode(one, other, name="n")], advantages, "a")
    assert [(sample.episode, sample.agent, len(sample.spans)) for sample in samples] == [
        ("m", "x", 1),
        ("m", "y", 1),
        ("n", "x", 1),
        ("n", "y", 1),
    ]


def test_other_policies_and_turns_without_advantage_or_tokens_are_left_out() -> None:
    played = episode(
        turn("x", (1,), (2,)),
        turn("y", (1,), (2,), policy="b"),
        turn("x", (1, 2, 3), (4,)),  # no advantage: part of what follows, without loss
        turn("x", (1, 2, 3, 4, 5), (6,)),
        turn("x", None, None),
        turn("x", (1, 2, 3, 4, 5, 6, 7), None),
        turn("x", (1, 2, 3, 4, 5, 6, 7), ()),
    )
    advantages = {("m", i): 1.0 for i in (0, 1, 3, 4, 5, 6)}
    assert shape(to_samples([played], advantages, "a")) == [((1, 2, 3, 4, 5, 6), [0, 3])]
    assert shape(to_samples([played], advantages, "b")) == [((1, 2), [1])]
    assert to_samples([played], advantages, "c") == []
    assert to_samples([played], {}, "a") == []


def test_weight_and_role_of_a_turn_go_with_its_span() -> None:
    played = episode(turn("x", (1,), (2,), weight=0.25, role="critic"), turn("x", (1, 2, 3), (4,)))
    (sample,) = to_samples([played], {("m", 0): 1.0, ("m", 1): 1.0}, "a")
    assert [(span.weight, span.role) for span in sample.spans] == [(0.25, "critic"), (1.0, "role of x")]
