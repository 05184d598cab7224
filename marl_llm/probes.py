"""Probes: what a policy might have answered instead, measured for turns that were played (`Turn.probes`)."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from marl_llm.policies.base import Policy, Strategy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.types import Episode, Turn


def probed(episodes: Sequence[Episode], policies: Mapping[str, Policy], roles: Collection[str]) -> list[Episode]:
    """The episodes, in which turns of these roles have the chances of their legal actions among their probes.

    `p/ACTION`: its probability, renormalised over the legal actions; `illegal_mass`: that of all other replies. The
    weights are those that the policies have now: to be called before they learn. One batch per policy. Where no legal
    action has any probability, or a thought ended without an answer, `illegal_mass` is 1 and stands alone. Turns that
    no language model of ours played, or that list no actions, have no probes.
    """
    places: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, episode in enumerate(episodes):
        for index, turn in enumerate(episode.turns):
            if turn.role in roles and turn.prompt is not None and turn.legal_actions:
                places[turn.policy].append((number, index))
    turns = [list(episode.turns) for episode in episodes]
    for name, found in places.items():
        policy = policies[name]
        if isinstance(policy, LLMPolicy):
            strategies = policy.chances([turns[number][index] for number, index in found])
            for (number, index), strategy in zip(found, strategies, strict=True):
                turn = turns[number][index]
                turns[number][index] = replace(turn, probes={**turn.probes, **_told(strategy)})
    return [replace(episode, turns=tuple(new)) for episode, new in zip(episodes, turns, strict=True)]


def with_gold(episodes: Sequence[Episode], policies: Mapping[str, Policy]) -> list[Episode]:
    """The episodes, in which turns know how near their agent is to the gold answer that `Episode.hidden` tells (its
    `gold_action`, if that is another text than `gold`).

    `gold`: mean log-probability per token of the reply that says it and nothing else, after all that the agent reads in
    its next turn; `gold_before`, in its first turn: after what it reads in that one. An agent's last turn has no
    `gold`, since nothing is read after it. Thoughts are left out. The weights are those that the policies have now. One
    batch per policy; turns that no language model of ours played have none, nor have episodes without a gold answer.
    Source: IGPO, arXiv 2510.14967.
    """
    asked: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
    turns = [list(episode.turns) for episode in episodes]
    for number, episode in enumerate(episodes):
        if not _gold(episode):
            continue
        last: dict[tuple[str, str], int] = {}
        for index, turn in enumerate(episode.turns):
            if turn.prompt is not None:
                before = last.get((turn.agent, turn.policy))
                place = (number, index, "gold_before") if before is None else (number, before, "gold")
                asked[turn.policy].append(place)
                last[turn.agent, turn.policy] = index
    for name, places in asked.items():
        policy = policies.get(name)
        if not isinstance(policy, LLMPolicy):
            continue
        read = [_next_read(turns[number], index, name) for number, index, name in places]
        golds = [_gold(episodes[number]) for number, _, _ in places]
        for (number, index, quantity), value in zip(places, policy.nearness(read, golds), strict=True):
            if value is not None:
                turn = turns[number][index]
                turns[number][index] = replace(turn, probes={**turn.probes, quantity: value})
    return [replace(episode, turns=tuple(new)) for episode, new in zip(episodes, turns, strict=True)]


def _gold(episode: Episode) -> str:
    """The action that says the gold answer; empty: there is none."""
    return str(episode.hidden.get("gold_action") or episode.hidden.get("gold") or "")


def _next_read(turns: Sequence[Turn], index: int, quantity: str) -> Turn:
    """The turn whose prompt the quantity of a turn is measured after: itself, or its agent's next one."""
    mine = turns[index]
    if quantity == "gold_before":
        return mine
    later = (turn for turn in turns[index + 1 :] if (turn.agent, turn.policy) == (mine.agent, mine.policy))
    return next(turn for turn in later if turn.prompt is not None)


def _told(strategy: Strategy | None) -> dict[str, float]:
    if strategy is None or strategy.illegal_mass == 1.0:
        return {"illegal_mass": 1.0}
    chances = {f"p/{action}": chance for action, chance in strategy.actions.items()}
    return {**chances, "illegal_mass": strategy.illegal_mass}
