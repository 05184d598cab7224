"""Playing on from a turn of a finished episode: forks, trees, and what a call's result was worth."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from marl_llm.play import Playing
from marl_llm.seeds import derive
from marl_llm.types import Branch, Episode, Match, Turn

DIFFERENCE = "difference"
"""Reward part of a call's last turn: what its result was worth to the caller."""


def branch(
    episode: Episode, turn: int, *, number: int, actions: Mapping[int, str | None] = MappingProxyType({})
) -> Match:
    """A match that plays the episode anew from turn `turn` on, in the same group.

    What was done before is done again, and has weight 0, so that it is not learned from twice; `actions` says what is
    done otherwise, by turn (None: a reply that cannot be read). Forks with different `number` draw different replies.

    Raises:
        ValueError: the episode has no such turn.
    """
    if not 0 <= turn < len(episode.turns):
        raise ValueError(f"episode {episode.match.id} has no turn {turn}; it has {len(episode.turns)}")
    played = tuple(
        replace(before, reply=actions[index] or "", action=actions[index], prompt=None, completion=None)
        if index in actions
        else before
        for index, before in enumerate(episode.turns[:turn])
    )
    match = episode.match
    return replace(
        match,
        id=f"{match.id}/t{turn}n{number}",
        member=derive(match.member, "branch", turn, number),
        branch=Branch(episode=match.id, turn=turn),
        played=played,
    )


def tree(episodes: Iterable[Episode], *, width: int, turns: int) -> Playing[list[Episode]]:
    """The episodes, and forks of them: each of their turns 1 to `turns` is decided `width` times (MALT, arXiv
    2412.01928).

    An episode of 1 + `turns` turns so becomes `width` to the power of `turns` leaves; its first turn is the other
    members of its group's to try. Episodes at fault are not forked.
    """
    leaves = list(episodes)
    for turn in range(1, turns + 1):
        forks = [
            branch(episode, turn, number=number)
            for episode in leaves
            if episode.status != "fault" and turn < len(episode.turns)
            for number in range(1, width)
        ]
        leaves += yield forks
    return leaves


def with_differences(episodes: Iterable[Episode], *, replays: int) -> Playing[tuple[list[Episode], list[Episode]]]:
    """The episodes with the part `difference` for each call, and the replays that it was measured by.

    From where the caller speaks again it plays on `replays` times without the call's result: the last turn of the agent
    that was called (`Turn.parent`) is a reply that cannot be read. The difference is the caller's return less the mean
    of its returns then (leave-one-out; after arXiv 2002.06038 and the difference rewards of Wolpert and Tumer 2001). It
    is 0 for a caller that never spoke again, and unknown if all replays ended at fault.
    """
    played = list(episodes)
    calls = {(place, last): (caller, fork) for place, e in enumerate(played) for last, caller, fork in _calls(e)}
    forks: dict[str, tuple[int, int]] = {}
    matches = []
    for (place, last), (_, fork) in calls.items():
        for number in range(replays if fork is not None else 0):
            assert fork is not None
            matches.append(branch(played[place], fork, number=last * replays + number, actions={last: None}))
            forks[matches[-1].id] = (place, last)
    replayed = yield matches
    without: dict[tuple[int, int], list[float]] = {key: [] for key in calls}
    for episode in replayed:
        if episode.status != "fault":
            key = forks[episode.match.id]
            without[key].append(episode.returns[calls[key][0]])
    for (place, last), (caller, fork) in calls.items():
        found = without[place, last]
        value = played[place].returns[caller] - sum(found) / len(found) if found else None
        played[place] = _rewarded(played[place], last, 0.0 if fork is None else value)
    return played, replayed


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


def _rewarded(episode: Episode, index: int, value: float | None) -> Episode:
    turns: Sequence[Turn] = episode.turns
    turn = replace(turns[index], rewards={**turns[index].rewards, DIFFERENCE: value})
    return replace(episode, turns=(*turns[:index], turn, *turns[index + 1 :]))
