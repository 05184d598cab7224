"""What a call's result was worth to the caller: it plays on without it."""

from collections.abc import Iterator, Sequence

from marl_llm.branches.forks import branch, mean
from marl_llm.branches.found import Found, Place
from marl_llm.play import Playing
from marl_llm.types import Episode

DIFFERENCE = "difference"
"""Reward part of a call's last turn: what its result was worth to the caller. Of any agent's last turn: what the
agent was worth to the team (`coalitions`)."""


def differences(episodes: Sequence[Episode], *, replays: int) -> Playing[Found]:
    """The part `difference` of each call.

    From where the caller speaks again it plays on `replays` times without the call's result: the last turn of the agent
    that was called (`Turn.parent`) is a reply that cannot be read. The difference is the caller's return less the mean
    of its returns then (leave-one-out; after arXiv 2002.06038 and the difference rewards of Wolpert and Tumer 2001). It
    is 0 for a caller that never spoke again, and unknown if all replays ended at fault.
    """
    calls = {(place, last): (caller, fork) for place, e in enumerate(episodes) for last, caller, fork in _calls(e)}
    matches = [
        ((place, last), branch(episodes[place], fork, number=last * replays + number, actions={last: None}))
        for (place, last), (_, fork) in calls.items()
        if fork is not None
        for number in range(replays)
    ]
    replayed = yield [match for _, match in matches]
    without: dict[Place, list[float]] = {key: [] for key in calls}
    for (key, _), episode in zip(matches, replayed, strict=True):
        if episode.status != "fault":
            without[key].append(episode.returns[calls[key][0]])
    rewards: dict[Place, dict[str, float | None]] = {}
    for (place, last), (caller, fork) in calls.items():
        value = mean(without[place, last])
        lost = None if value is None else episodes[place].returns[caller] - value
        rewards[place, last] = {DIFFERENCE: 0.0 if fork is None else lost}
    return Found(replayed=replayed, rewards=rewards)


def _calls(episode: Episode) -> Iterator[tuple[int, str, int | None]]:
    """Of each agent that was called: its last turn, who called it, and where the caller speaks next."""
    if episode.status == "fault":
        return
    last = {turn.agent: index for index, turn in enumerate(episode.turns) if turn.parent is not None}
    for index in last.values():
        parent = episode.turns[index].parent
        assert parent is not None
        caller = episode.turns[parent].agent
        later = (number for number in range(index + 1, len(episode.turns)) if episode.turns[number].agent == caller)
        yield index, caller, next(later, None)
