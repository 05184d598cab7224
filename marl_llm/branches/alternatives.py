"""What else might have been said: the message of a turn is drawn again, with all that others did before it fixed."""

from collections.abc import Collection, Sequence

from marl_llm.branches.forks import branch, mean, to_go
from marl_llm.branches.found import Found, Place
from marl_llm.branches.values import places
from marl_llm.play import Playing
from marl_llm.types import Episode

BASELINE = "baseline"
"""Probe of a turn: what its agent still gets, on average, when it says something else."""


def alternatives(
    episodes: Sequence[Episode], *, number: int, keep: bool, learning: Collection[str]
) -> Playing[tuple[list[Episode], Found]]:
    """The episodes, and the probe `baseline` of every turn of the policies that learn (after COMA, arXiv 1705.08926).

    From before the turn play goes on `number` times. All that was then said in the same state, by members of the group
    too, is compared: the baseline of a message is the mean of what the agent still gets after each of the others
    (leave-one-out). Unknown, and no probe, where there is none that did not end at fault. With `keep` the forks are
    among the episodes that are returned, and the turns in which they differ have a baseline as well.
    """
    own = {at: state for at, state in places(episodes, learning).items() if at[1] >= episodes[at[0]].match.begins}
    first: dict[int, Place] = {}
    for at, state in own.items():
        first.setdefault(state, at)
    matches = [
        (state, branch(episodes[place], index, number=n, purpose="a"))
        for state, (place, index) in first.items()
        for n in range(number)
    ]
    forks = yield [match for _, match in matches]
    every = [*episodes, *forks]
    agents = {state: episodes[place].turns[index].agent for state, (place, index) in first.items()}
    said: dict[int, dict[Place, float]] = {state: {} for state in first}
    for (place, index), state in own.items():
        said[state][place, index] = to_go(episodes[place], index, agents[state])
    for place, (state, match) in enumerate(matches, start=len(episodes)):
        if every[place].status != "fault":
            said[state][place, match.begins] = to_go(every[place], match.begins, agents[state])
    probes = {}
    for gained in said.values():
        for at in gained:
            others = mean([value for other, value in gained.items() if other != at])
            if others is not None and (keep or at[0] < len(episodes)):
                probes[at] = {BASELINE: others}
    return (every if keep else list(episodes)), Found(replayed=() if keep else forks, probes=probes)
