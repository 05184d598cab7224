"""Credited episodes go in, the training sequences of one policy come out."""

from collections.abc import Iterable, Mapping

from marl_llm.types import Episode, Sample, Span, Turn

Advantages = Mapping[tuple[str, int], float]
"""(match id, turn index) -> advantage of the turn."""


def to_samples(episodes: Iterable[Episode], advantages: Advantages, policy: str) -> list[Sample]:
    """The policy's sequences in the order of (episode, agent, turn); turns without advantage are left out.

    A turn extends its agent's previous sequence only when its prompt starts with exactly that sequence's tokens;
    otherwise it starts a new one.
    """
    samples: list[Sample] = []
    for episode in episodes:
        for agent in dict.fromkeys(turn.agent for turn in episode.turns):
            samples += _sequences(episode, agent, advantages, policy)
    return samples


def _sequences(episode: Episode, agent: str, advantages: Advantages, policy: str) -> list[Sample]:
    sequences: list[Sample] = []
    for index, turn in enumerate(episode.turns):
        advantage = advantages.get((episode.match.id, index))
        if turn.agent != agent or turn.policy != policy or advantage is None:
            continue
        if turn.prompt is None or turn.completion is None or not turn.completion.tokens:
            continue
        last = sequences[-1] if sequences else None
        extends = last is not None and turn.prompt[: len(last.tokens)] == last.tokens
        earlier = sequences.pop().spans if extends else ()
        sequences.append(
            Sample(
                policy=policy,
                game=episode.match.title,
                episode=episode.match.id,
                agent=agent,
                tokens=turn.prompt + turn.completion.tokens,
                spans=(*earlier, _span(turn, index, advantage)),
            )
        )
    return sequences


def _span(turn: Turn, index: int, advantage: float) -> Span:
    assert turn.prompt is not None
    assert turn.completion is not None
    return Span(
        start=len(turn.prompt),
        length=len(turn.completion.tokens),
        logprobs=turn.completion.logprobs,
        advantages=(advantage,) * len(turn.completion.tokens),
        role=turn.role,
        turn=index,
        weight=turn.weight,
        versions=turn.completion.versions,
    )
