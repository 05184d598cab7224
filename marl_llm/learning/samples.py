"""Credited episodes go in, the training sequences of one policy come out."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType

from marl_llm.types import Episode, Sample, Span, Turn

ByTurn = Mapping[tuple[str, int], float | Sequence[float]]
Advantages = ByTurn
"""(match id, turn index) -> advantage of the turn, or of each of its sampled tokens."""
Weights = ByTurn
"""(match id, turn index) -> weight in the loss of the turn, or of each of its sampled tokens."""


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
        spans = () if advantage is None else tuple(_spans(turn, index, advantage, weight))
        if not spans:
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
                spans=(*earlier, *spans),
            )
        )
    return [sample for sequences in by_agent.values() for sample in sequences]


def _spans(
    turn: Turn, index: int, advantage: float | Sequence[float], weight: float | Sequence[float]
) -> Iterator[Span]:
    """The turn's tokens with a weight, as one span for each run of equal weights: what has none is not counted.

    Tokens from before a fork have none.
    """
    assert turn.prompt is not None
    assert turn.completion is not None
    size = len(turn.completion.tokens)
    advantages = (advantage,) * size if isinstance(advantage, float | int) else tuple(advantage)
    weights = (weight,) * size if isinstance(weight, float | int) else tuple(weight)
    weights = (0.0,) * turn.begun + weights[turn.begun :]
    assert len(advantages) == len(weights) == size, f"turn {index}: {size} tokens have other advantages or weights"
    first = 0
    for shared, run in groupby(weights):
        last = first + len(tuple(run))
        if shared != 0:
            yield Span(
                start=len(turn.prompt) + first,
                length=last - first,
                logprobs=turn.completion.logprobs[first:last],
                advantages=advantages[first:last],
                role=turn.role,
                turn=index,
                weight=shared,
                versions=turn.completion.versions[first:last],
            )
        first = last
