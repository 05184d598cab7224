"""Forks of a played episode: what is played again, what is drawn anew, trees, and what a call was worth."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from marl_llm.branches.calls import differences
from marl_llm.branches.forks import branch, tree
from marl_llm.branches.found import measured
from marl_llm.config import GameConfig
from marl_llm.credit.recipe import credit, load_recipe
from marl_llm.errors import GameError
from marl_llm.learning.samples import to_samples
from marl_llm.matchmaking import series
from marl_llm.play import play, played
from marl_llm.policies.base import Policy
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Branch, Episode
from tests.tiny import dictated, saying, seated

RANDOM = {"random": make_scripted("random", {})}
KNOWING = {"all": make_scripted("informed", {"accuracy": 1.0})}
CHAIN = GameConfig(name="generate_verify_refine", settings={"tasks": {"source": "arithmetic", "level": 1}})
RESEARCH = GameConfig(
    name="deep_research",
    settings={"tasks": {"source": "multihop", "documents": 60, "hops": 2}, "planner_turns": 3},
)


def episode_of(game: GameConfig, policies: Mapping[str, Policy], *, seed: int = 0) -> Episode:
    (name,) = policies
    (episode,) = play(series(game, {"*": name}, name="m", games=1, seed=seed), policies)
    return episode


def test_a_fork_repeats_what_was_before_and_draws_the_rest_anew() -> None:
    parent = episode_of(GameConfig(name="leduc_poker"), RANDOM, seed=2)
    forks = list(play([branch(parent, 1, number=number) for number in range(20)], RANDOM))
    first = parent.turns[0]
    for fork in forks:
        assert fork.match.branch == Branch(episode=parent.match.id, turn=1)
        assert fork.match.group == parent.match.group
        assert (fork.turns[0].observation, fork.turns[0].action) == (first.observation, first.action)
        assert [turn.weight for turn in fork.turns] == [0.0] + [1.0] * (len(fork.turns) - 1)
    assert len({tuple(turn.action for turn in fork.turns) for fork in forks}) > 1
    assert len({fork.match.id for fork in forks}) == 20


def test_the_same_fork_is_the_same_game_and_a_fork_can_be_forked() -> None:
    parent = episode_of(GameConfig(name="leduc_poker"), RANDOM, seed=2)
    (fork,) = play([branch(parent, 1, number=0)], RANDOM)
    assert list(play([branch(parent, 1, number=0)], RANDOM)) == [fork]
    longer = next(f for n in range(9) for f in play([branch(parent, 1, number=n)], RANDOM) if len(f.turns) > 2)
    (again,) = play([branch(longer, 2, number=0)], RANDOM)
    assert [turn.action for turn in again.turns[:2]] == [turn.action for turn in longer.turns[:2]]


def test_a_turn_can_be_played_otherwise_in_a_fork() -> None:
    parent = episode_of(RESEARCH, KNOWING)
    assert parent.hidden["correct"] == 1.0
    asked = next(index for index, turn in enumerate(parent.turns) if turn.role == "planner" and index > 0)
    (fork,) = play([branch(parent, asked, number=0, actions={asked - 1: None})], KNOWING)
    assert fork.turns[asked - 1].legal is False
    assert "-> no answer" in fork.turns[asked].observation
    assert fork.turns[asked].action == parent.turns[0].action  # asks again, as its first question had no answer


def test_only_turns_that_were_played_can_be_forked() -> None:
    parent = episode_of(CHAIN, KNOWING)
    with pytest.raises(ValueError, match="has no turn 3; it has 3"):
        branch(parent, 3, number=0)


def test_a_game_that_does_not_follow_from_its_seed_cannot_be_forked() -> None:
    parent = episode_of(GameConfig(name="leduc_poker"), RANDOM, seed=2)
    match = branch(parent, 2, number=0)
    other = replace(match, played=match.played[::-1])
    with pytest.raises(GameError, match="player_1 was to move, and when the same is played again it is player_0"):
        list(play([other], RANDOM))


def test_a_tree_tries_every_later_decision_and_values_what_it_led_to() -> None:
    """MALT: 3 generations, 9 verifications, 27 refinements; a node's value is the mean of what came of it."""
    guessing = {"all": make_scripted("informed", {"accuracy": 0.5})}
    matches = [
        replace(match, id=f"m{n}", member=n)
        for match in series(CHAIN, {"*": "all"}, name="m", games=1, seed=1)
        for n in range(3)
    ]
    leaves = played(tree(play(matches, guessing), width=3, turns=2), guessing)
    assert len(leaves) == 27
    credited = credit(leaves, load_recipe("malt"))
    table = credited.table
    nodes = table.column("node").tolist()
    assert len(set(nodes)) == 3 + 9 + 27
    assert [int((table.weight[table.turn == turn] > 0).sum()) for turn in range(3)] == [3, 9, 27]
    outcome = {leaf.match.id: leaf.hidden["correct"] for leaf in leaves}
    for row in range(len(table)):
        node = nodes[row]
        through = [outcome[table.episode[other]] for other in range(len(table)) if nodes[other] == node]
        assert credited.advantages[row] == pytest.approx(sum(through) / len(through))
    assert 0 < sum(outcome.values()) < 27


def test_what_was_played_before_a_fork_is_not_learned_from_twice() -> None:
    policy = seated(dictated(saying({"check": 0.5, "bet": 0.5})))
    parent = episode_of(GameConfig(name="kuhn_poker"), {"agent": policy})
    (fork,) = play([branch(parent, 1, number=0)], {"agent": policy})
    advantages = {(e.match.id, i): 1.0 for e in (parent, fork) for i in range(len(e.turns))}
    credited = credit([parent, fork], load_recipe("grpo"))
    weights = dict(zip(zip(credited.table.episode.tolist(), credited.table.turn.tolist()), credited.weights.tolist()))
    turns = [s.spans[0].turn for s in to_samples([fork], advantages, "agent", weights)]
    assert 0 not in turns
    assert 1 in turns


def test_what_a_call_was_worth_is_what_its_caller_loses_without_it() -> None:
    """Both facts are needed, and with three turns there is none left to ask again."""
    parent = episode_of(RESEARCH, KNOWING)
    (credited,), replayed = played(measured([parent], [differences([parent], replays=2)]), KNOWING)
    last = {turn.agent: index for index, turn in enumerate(parent.turns) if turn.parent is not None}
    assert len(last) == 2
    assert len(replayed) == 4
    for index, turn in enumerate(credited.turns):
        expected = {"difference": 1.0} if index in last.values() else {}  # format stays, the answer is lost
        assert turn.rewards == {**parent.turns[index].rewards, **expected}


def test_a_call_whose_caller_never_speaks_again_was_worth_nothing() -> None:
    parent = episode_of(RESEARCH, KNOWING)
    cut = replace(parent, turns=parent.turns[:3], status="truncated")
    (credited,), replayed = played(measured([cut], [differences([cut], replays=2)]), KNOWING)
    assert replayed == []
    assert credited.turns[2].rewards["difference"] == 0.0
