"""Forks of a played episode, trees of them, and which of a group's episodes share a beginning."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from marl_llm.play import Playing
from marl_llm.seeds import derive
from marl_llm.types import Branch, Completion, Episode, Match, Turn

T = TypeVar("T")


def branch(
    episode: Episode,
    turn: int,
    *,
    number: int,
    actions: Mapping[int, str | None] = MappingProxyType({}),
    token: int | None = None,
    said: Turn | None = None,
    concluding: bool = False,
    muted: Mapping[str, str | None] = MappingProxyType({}),
    purpose: str = "",
) -> Match:
    """A match that plays the episode anew from turn `turn` on, in the same group.

    What was done before is done again, and has weight 0, so that it is not learned from twice; `actions` says what is
    done otherwise, by turn, `turn` included (None: a reply that cannot be read). With `token` the reply of the turn
    begins with so many of its tokens. `said` takes the turn's place: it is played as it is, and nobody is asked.
    `concluding`, `muted`: see `Match`. Forks with another `number` or `purpose` draw other replies.

    Raises:
        ValueError: the episode has no such turn, or the turn has no such token after the first.
    """
    if not 0 <= turn < len(episode.turns):
        raise ValueError(f"episode {episode.match.id} has no turn {turn}; it has {len(episode.turns)}")
    played = tuple(
        replace(before, reply=actions[index] or "", action=actions[index], prompt=None, completion=None)
        if index in actions and actions[index] != before.action
        else before
        for index, before in enumerate(episode.turns[: turn + (turn in actions)])
    )
    if said is not None:
        assert turn not in actions, "what is done in the turn is said twice"
        assert token is None, "the turn is not sampled"
        played += (replace(said, prompt=None, completion=None),)
    match = episode.match
    mark = f"t{turn}{'' if token is None else f'.{token}'}{purpose}n{number}"
    parts = (turn, number) if token is None and not purpose else (mark,)
    return replace(
        match,
        id=f"{match.id}/{mark}",
        member=derive(match.member, "branch", *parts),
        branch=Branch(episode=match.id, turn=turn, token=token),
        played=played,
        begun=None if token is None else _beginning(episode, turn, token),
        concluding=concluding,
        muted=dict(muted),
    )


def _beginning(episode: Episode, turn: int, token: int) -> Completion:
    completion = episode.turns[turn].completion
    if completion is None or not 0 < token <= len(completion.tokens):
        raise ValueError(f"episode {episode.match.id}, turn {turn}: no reply begins with {token} of its tokens")
    return replace(
        completion,
        tokens=completion.tokens[:token],
        logprobs=completion.logprobs[:token],
        versions=completion.versions[:token],
    )


def tree(episodes: Iterable[Episode], *, width: int, turns: int, tokens: int | None = None) -> Playing[list[Episode]]:
    """The episodes, and forks of them: each of their turns 1 to `turns` is decided `width` times (MALT, arXiv
    2412.01928).

    An episode of 1 + `turns` turns so becomes `width` to the power of `turns` leaves; its first turn is the other
    members of its group's to try. Episodes at fault are not forked. With `tokens` segments of the first reply take the
    place of turns, each of so many tokens and the last one as long as it likes (SPO-tree, arXiv 2505.23564); a reply
    that ends before is a leaf.
    """
    leaves = list(episodes)
    for turn in range(1, turns + 1):
        at, token = (turn, None) if tokens is None else (0, turn * tokens)
        forks = [
            branch(episode, at, number=number, token=token)
            for episode in leaves
            if episode.status != "fault" and _reaches(episode, at, token)
            for number in range(1, width)
        ]
        leaves += yield forks
    return leaves


def _reaches(episode: Episode, turn: int, token: int | None) -> bool:
    if turn >= len(episode.turns) or token is None:
        return turn < len(episode.turns)
    completion = episode.turns[turn].completion
    return completion is not None and token < len(completion.tokens)


def states(episodes: Sequence[Episode]) -> list[list[int]]:
    """Of each episode of a group: a number for the state before each turn, equal where all that was done before is.

    Equal are seats and, of every turn before, agent, action and reply, token by token.
    """
    numbers: dict[object, int] = {}

    def number(*key: object) -> int:
        return numbers.setdefault(key, len(numbers))

    found = []
    for episode in episodes:
        state, before = number(*sorted(episode.match.seats.items())), []
        for turn in episode.turns:
            before.append(state)
            said = turn.reply if turn.completion is None else turn.completion.tokens
            state = number(state, turn.agent, turn.action, said)
        found.append(before)
    return found


def to_go(episode: Episode, turn: int, agent: str) -> float:
    """The agent's return less what its turns before `turn` have brought."""
    before = (t.rewards.values() for t in episode.turns[:turn] if t.agent == agent)
    return episode.returns[agent] - sum(value or 0.0 for values in before for value in values)


def mean(values: Sequence[float]) -> float | None:
    """None: of nothing."""
    return sum(values) / len(values) if values else None


def together(playings: Sequence[Playing[T]]) -> Playing[list[T]]:
    """Several go on side by side, in the same batches; what each returns, in their order."""
    results: dict[int, T] = {}
    wanted: dict[int, Sequence[Match]] = dict.fromkeys(range(len(playings)), ())
    sent: dict[int, list[Episode] | None] = dict.fromkeys(wanted)
    while True:
        for number in tuple(wanted):
            try:
                wanted[number] = playings[number].send(sent[number])  # type: ignore[arg-type]  # None begins
            except StopIteration as ended:
                results[number] = ended.value
                del wanted[number]
        if not wanted:
            return [results[number] for number in range(len(playings))]
        episodes = iter((yield [match for matches in wanted.values() for match in matches]))
        sent = {number: [next(episodes) for _ in matches] for number, matches in wanted.items()}
