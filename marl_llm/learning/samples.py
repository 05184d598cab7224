"""Credited episodes go in, the training sequences of one policy come out."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from marl_llm.types import Episode, Sample, Span, Turn

Advantages = Mapping[tuple[str, int], float]
"""(match id, turn index) -> advantage of the turn."""
Weights = Mapping[tuple[str, int], float]
"""(match id, turn index) -> weight of the turn in the loss."""


def to_samples(
    episodes: Iterable[Episode], advantages: Advantages, policy: str, weights: Weights = MappingProxyType({})
) -> list[Sample]:
    """The policy's sequences in the order of (episode, agent, turn); turns without advantage or weight are left out.

    A turn that is not in `weights` has its own weight.
    A turn extends its agent's previous sequence only when its prompt starts with exactly that sequence's tokens;
    otherwise it starts a new one.
    """
    return [sample for episode in episodes for sample in _sequences(episode, advantages, policy, weights)]


def _sequences(episode: Episode, advantages: Advantages, policy: str, weights: Weights) -> list[Sample]:
    by_agent: dict[str, list[Sample]] = {turn.agent: [] for turn in episode.turns}
    for index, turn in enumerate(episode.turns):
        if turn.policy != policy or turn.prompt is None or turn.completion is None or not turn.completion.tokens:
            continue
        advantage = advantages.get((episode.match.id, index))
        weight = weights.get((episode.match.id, index), turn.weight)
        if advantage is None or weight == 0:
            continue
        sequences = by_agent[turn.agent]
        extends = sequences and turn.prompt[: len(sequences[-1].tokens)] == sequences[-1].tokens
        earlier = sequences.pop().spans if extends else ()
        sequences.append(
            Sample(
                policy=policy,
                game=episode.match.title,
                episode=episode.match.id,
                agent=turn.agent,
                tokens=turn.prompt + turn.completion.tokens,
                spans=(*earlier, _span(turn, index, advantage, weight)),
            )
        )
    return [sample for sequences in by_agent.values() for sample in sequences]


def _span(turn: Turn, index: int, advantage: float, weight: float) -> Span:
    assert turn.prompt is not None
    assert turn.completion is not None
    return Span(
        start=len(turn.prompt),
        length=len(turn.completion.tokens),
        logprobs=turn.completion.logprobs,
        advantages=(advantage,) * len(turn.completion.tokens),
        role=turn.role,
        turn=index,
        weight=weight,
        versions=turn.completion.versions,
    )
