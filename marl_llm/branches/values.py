"""What a state is worth: the mean of what the acting agent still gets when play goes on from there."""

from collections.abc import Collection, Hashable, Sequence
from itertools import islice
from math import exp, nan
from typing import TypeVar

from marl_llm.branches.forks import branch, mean, states, to_go
from marl_llm.branches.found import Found, Place
from marl_llm.play import Playing
from marl_llm.types import Episode, Match

Key = TypeVar("Key", bound=Hashable)
Asked = dict[Key, tuple[str, list[Match]]]
"""Whose return is looked at, and in which forks."""

VALUE = "value"
"""Probe of a turn: the value of the state before it. Probe of a token: that of what stands before the token."""


def values(episodes: Sequence[Episode], *, rollouts: int, learning: Collection[str]) -> Playing[Found]:
    """The probe `value` of every turn of the policies that learn (VinePPO, arXiv 2410.01679).

    From before the turn play goes on `rollouts` times; the value is the mean of what its agent's return then is less
    what it had brought before. Turns of the group before which all was the same share their rollouts, the first turn
    of all its members among them. Unknown, and no probe, if all rollouts ended at fault.
    """
    forks: Asked[int] = {}
    asked: dict[Place, int] = {}
    for (place, index), state in places(episodes, learning).items():
        asked[place, index] = state
        if state not in forks:
            again = [branch(episodes[place], index, number=n, purpose="v") for n in range(rollouts)]
            forks[state] = episodes[place].turns[index].agent, again
    replayed, found = yield from _valued(forks)
    known = {at: value for at, state in asked.items() if (value := found[state]) is not None}
    return Found(replayed=replayed, probes={at: {VALUE: value} for at, value in known.items()})


def options(episodes: Sequence[Episode], *, rollouts: int, learning: Collection[str]) -> Playing[Found]:
    """The probe `q` of every turn of the policies that learn, and `q/ACTION` for each of its legal actions.

    The action is taken, and play goes on from there `rollouts` times: the probe is the mean of what the agent still
    gets (the counterfactuals of COMA, arXiv 1705.08926; a router's options in C-3PO, arXiv 2502.06205). `q` is that of
    what the agent did, which may be illegal, or any text. Turns of the group before which all was the same share it.
    """
    forks: Asked[tuple[int, str | None]] = {}
    asked: dict[Place, int] = {}
    for (place, index), state in places(episodes, learning).items():
        asked[place, index], turn = state, episodes[place].turns[index]
        for action in dict.fromkeys((*(turn.legal_actions or ()), turn.action)):
            if (state, action) not in forks:
                purpose = f"o{len(forks)}"
                again = [
                    branch(episodes[place], index, number=n, actions={index: action}, purpose=purpose)
                    for n in range(rollouts)
                ]
                forks[state, action] = turn.agent, again
    replayed, found = yield from _valued(forks)
    probes = {}
    for (place, index), state in asked.items():
        turn = episodes[place].turns[index]
        names = {f"q/{action}": action for action in turn.legal_actions or ()} | {"q": turn.action}
        known = {name: value for name, action in names.items() if (value := found[state, action]) is not None}
        probes[place, index] = known
    return Found(replayed=replayed, probes=probes)


def segments(
    episodes: Sequence[Episode], *, rollouts: int, interval: int, below: float, learning: Collection[str]
) -> Playing[Found]:
    """The token probe `value` at every `interval`-th token that was sampled with a probability less than `below` (SPO,
    arXiv 2505.23564), and NaN at all others.

    The reply goes on anew from before that token, and play with it, `rollouts` times.
    """
    forks: Asked[Hashable] = {}
    asked: dict[Place, dict[int, Hashable]] = {}
    for (place, index), state in places(episodes, learning).items():
        turn = episodes[place].turns[index]
        completion = turn.completion
        if completion is None:
            continue
        unsure = [token for token, logprob in enumerate(completion.logprobs) if exp(logprob) < below]
        asked[place, index] = {token: (state, completion.tokens[:token]) for token in unsure[::interval]}
        for token, key in asked[place, index].items():
            if key not in forks:
                again = [
                    branch(episodes[place], index, number=n, token=token or None, purpose="v") for n in range(rollouts)
                ]
                forks[key] = turn.agent, again
    replayed, found = yield from _valued(forks)
    probes = {}
    for (place, index), cuts in asked.items():
        completion = episodes[place].turns[index].completion
        assert completion is not None
        known = {token: value for token, key in cuts.items() if (value := found[key]) is not None}
        probes[place, index] = {VALUE: tuple(known.get(token, nan) for token in range(len(completion.tokens)))}
    return Found(replayed=replayed, token_probes=probes)


def budgets(
    episodes: Sequence[Episode], *, tokens: Sequence[int], answers: int, learning: Collection[str]
) -> Playing[Found]:
    """What a reply would have been worth if its thought had ended after each number of `tokens` (AnytimeReasoner, arXiv
    2505.13438).

    The probe `budget/0` of a turn is the mean of what its agent still gets in `answers` forks, in which the thought
    ends after `tokens[0]` tokens, or where it ended by itself, and the rest is sampled; and so on. The token probe
    `budget` says which of them a token stands within: 0 up to `tokens[0]`, NaN after the last.
    """
    forks: Asked[Hashable] = {}
    asked: dict[Place, list[Hashable]] = {}
    for (place, index), state in places(episodes, learning).items():
        turn = episodes[place].turns[index]
        completion = turn.completion
        if completion is None or not completion.tokens:
            continue
        asked[place, index] = []
        for most in tokens:
            cut = min(most, len(completion.tokens))
            key = (state, completion.tokens[:cut])
            asked[place, index].append(key)
            if key not in forks:
                again = [
                    branch(episodes[place], index, number=n, token=cut, concluding=True, purpose="b")
                    for n in range(answers)
                ]
                forks[key] = turn.agent, again
    replayed, found = yield from _valued(forks)
    probes, within = {}, {}
    for (place, index), keys in asked.items():
        completion = episodes[place].turns[index].completion
        assert completion is not None
        known = {f"budget/{n}": value for n, key in enumerate(keys) if (value := found[key]) is not None}
        probes[place, index] = known
        each = (sum(most <= token for most in tokens) for token in range(len(completion.tokens)))
        within[place, index] = {"budget": tuple(float(n) if n < len(tokens) else nan for n in each)}
    return Found(replayed=replayed, probes=probes, token_probes=within)


def places(episodes: Sequence[Episode], learning: Collection[str]) -> dict[Place, int]:
    """The turns of the policies that learn, each with a number for the state before it."""
    return {
        (place, index): state
        for place, (episode, before) in enumerate(zip(episodes, states(episodes), strict=True))
        if episode.status != "fault"
        for index, (turn, state) in enumerate(zip(episode.turns, before, strict=True))
        if turn.policy in learning
    }


def _valued(asked: Asked[Key]) -> Playing[tuple[list[Episode], dict[Key, float | None]]]:
    """What was played, and for each key the mean of what its agent still gets."""
    replayed = yield [match for _, forks in asked.values() for match in forks]
    rest = iter(replayed)
    found = {}
    for key, (agent, forks) in asked.items():
        ended = [episode for episode in islice(rest, len(forks)) if episode.status != "fault"]
        found[key] = mean([to_go(episode, episode.match.begins, agent) for episode in ended])
    return replayed, found
