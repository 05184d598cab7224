"""All that is played of a group: its matches, and what the settings want to be played on from them."""

from collections.abc import Collection, Sequence

from marl_llm.branches.alternatives import alternatives
from marl_llm.branches.calls import differences
from marl_llm.branches.coalitions import coalitions
from marl_llm.branches.forks import tree
from marl_llm.branches.found import Found, marked, measured
from marl_llm.branches.values import budgets, options, segments, values
from marl_llm.config import PlayConfig
from marl_llm.play import Playing
from marl_llm.types import Episode, Match


def rollout(
    matches: Sequence[Match], config: PlayConfig, learning: Collection[str]
) -> Playing[tuple[list[Episode], list[Episode]]]:
    """A group's episodes and forks, all of which are learned from, with what was measured; and what was played for it.

    `learning`: the policies that learn.
    """
    episodes = yield matches
    replayed: list[Episode] = []
    if config.tree is not None:
        episodes = yield from tree(
            episodes, width=config.tree.width, turns=config.tree.turns, tokens=config.tree.tokens
        )
    wanted = config.branches
    if wanted.alternatives:
        episodes, found = yield from alternatives(
            episodes, number=wanted.alternatives, keep=wanted.keep_alternatives, learning=learning
        )
        episodes, replayed = marked(episodes, [found]), list(found.replayed)
    episodes, more = yield from measured(episodes, _measurements(episodes, config, learning))
    return episodes, replayed + more


def _measurements(episodes: Sequence[Episode], config: PlayConfig, learning: Collection[str]) -> list[Playing[Found]]:
    wanted, found = config.branches, []
    if config.replays:
        found.append(differences(episodes, replays=config.replays))
    if wanted.values:
        found.append(values(episodes, rollouts=wanted.values, learning=learning))
    if wanted.options:
        found.append(options(episodes, rollouts=wanted.options, learning=learning))
    if (s := wanted.segments) is not None:
        found.append(segments(episodes, rollouts=s.rollouts, interval=s.interval, below=s.below, learning=learning))
    if (b := wanted.budgets) is not None:
        found.append(budgets(episodes, tokens=b.tokens, answers=b.answers, learning=learning))
    if (c := wanted.coalitions) is not None:
        found.append(
            coalitions(
                episodes,
                rollouts=c.rollouts,
                parts=c.parts,
                exact=c.exact,
                permutations=c.permutations,
                muted=c.muted,
                learning=learning,
            )
        )
    return found
