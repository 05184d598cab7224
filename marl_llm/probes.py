"""Probes: what a policy might have answered instead, measured for turns that were played (`Turn.probes`)."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from marl_llm.policies.base import Policy, Strategy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.types import Episode


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


def _told(strategy: Strategy | None) -> dict[str, float]:
    if strategy is None or strategy.illegal_mass == 1.0:
        return {"illegal_mass": 1.0}
    chances = {f"p/{action}": chance for action, chance in strategy.actions.items()}
    return {**chances, "illegal_mass": strategy.illegal_mass}
