"""What is measured by playing on: values of states and of tokens, alternatives, coalitions, thoughts cut short."""

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from math import isnan, log
from typing import Any

import numpy as np
import pytest

from marl_llm import measures
from marl_llm.branches.alternatives import alternatives
from marl_llm.branches.coalitions import antithetic, coalitions, sampled_shapley, shapley
from marl_llm.branches.forks import branch, states, to_go, together, tree
from marl_llm.branches.found import measured
from marl_llm.branches.values import budgets, options, segments, values
from marl_llm.config import GameConfig
from marl_llm.credit.recipe import credit, load_recipe
from marl_llm.credit.table import turn_table
from marl_llm.episodes import episode_from_json, episode_to_json
from marl_llm.learning.samples import to_samples
from marl_llm.matchmaking import series
from marl_llm.models import END
from marl_llm.play import Playing, play, played
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Completion, Episode, Match, Sample, Turn
from tests.credit.cases import cases
from tests.tiny import dictated, saying, seated, token_id

KUHN = GameConfig(name="kuhn_poker")
ROUNDS = GameConfig(name="matrix_game", settings={"continuation": 1.0, "max_rounds": 2})


class By:
    """Decides by a function of the view; None cannot be read, and `fault` is a fault."""

    def __init__(self, decide: Callable[[View], str | None]) -> None:
        self._decide = decide
        self._asked: list[tuple[Hashable, View]] = []

    def submit(self, ticket: Hashable, view: View) -> None:
        self._asked.append((ticket, view))

    def poll(self) -> list[tuple[Hashable, Reply]]:
        asked, self._asked = self._asked, []
        return [(ticket, self._reply(self._decide(view))) for ticket, view in asked]

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        return []

    @staticmethod
    def _reply(action: str | None) -> Reply:
        fault = "gone" if action == "fault" else ""
        return Reply(text=action or "", action=None if fault else action, fault=fault)


def group(game: GameConfig, *, members: int = 1, seed: int = 0, seats: Mapping[str, str] | None = None) -> list[Match]:
    (match,) = series(game, seats or {"*": "agent"}, name="m", games=1, seed=seed)
    return [replace(match, id=f"m{n}", member=n) for n in range(members)]


def bold(view: View) -> str:
    """In the first of the forks: bets and calls; else checks and folds."""
    assert view.legal_actions is not None
    return view.legal_actions["n0" in view.match]


def sign(episode: Episode) -> float:
    """+1 where player_0 has the higher card: all check in it."""
    assert abs(episode.returns["player_0"]) == 1
    return episode.returns["player_0"]


def test_the_value_of_a_state_is_what_the_agent_still_gets_on_average() -> None:
    """One fork bets and calls, for 2 chips; the other checks, for 1."""
    players = {"agent": By(bold)}
    (parent,) = play(group(KUHN), players)
    (marked,), replayed = played(measured([parent], [values([parent], rollouts=2, learning=["agent"])]), players)
    assert [turn.probes for turn in marked.turns] == [{"value": 1.5 * sign(parent)}, {"value": -1.5 * sign(parent)}]
    assert len(replayed) == 4
    assert replace(marked, turns=parent.turns) == parent


def test_what_a_turn_before_has_brought_is_not_part_of_a_value() -> None:
    """Both cooperate in two rounds for 3 each; in the forks player_1 defects from then on, for 5, 0 for the other."""

    def decide(view: View) -> str:
        return "defect" if "/" in view.match and view.agent == "player_1" else "cooperate"

    players = {"agent": By(decide)}
    (parent,) = play(group(ROUNDS), players)
    assert [turn.agent for turn in parent.turns] == ["player_0", "player_1"] * 2
    (marked,), _ = played(measured([parent], [values([parent], rollouts=1, learning=["agent"])]), players)
    assert [turn.probes["value"] for turn in marked.turns] == [0.0, 10.0, 0.0, 5.0]
    assert to_go(parent, 2, "player_0") == 3.0


def test_equal_beginnings_of_a_group_share_their_rollouts_and_only_learners_have_values() -> None:
    players = {"agent": By(bold), "other": By(bold)}
    parents = list(play(group(KUHN, members=3, seats={"player_0": "agent", "player_1": "other"}), players))
    every = played(measured(parents, [values(parents, rollouts=2, learning=["agent", "other"])]), players)
    assert len(every[1]) == 4
    marked, replayed = played(measured(parents, [values(parents, rollouts=2, learning=["agent"])]), players)
    assert len(replayed) == 2
    assert [[turn.probes for turn in e.turns] for e in marked] == [[{"value": 1.5 * sign(parents[0])}, {}]] * 3


def test_a_value_is_of_rollouts_that_did_not_end_at_fault_and_else_unknown() -> None:
    """The first fork of the first turn fails, and both of the second."""

    def decide(view: View) -> str | None:
        return "fault" if view.match.endswith("t0vn0") or "t1v" in view.match else bold(view)

    players = {"agent": By(decide)}
    (parent,) = play(group(KUHN), players)
    (marked,), replayed = played(measured([parent], [values([parent], rollouts=2, learning=["agent"])]), players)
    assert [episode.status for episode in replayed] == ["fault", "done", "fault", "fault"]
    assert [turn.probes for turn in marked.turns] == [{"value": 1.0 * sign(parent)}, {}]


def test_every_legal_action_is_taken_and_played_on_from() -> None:
    """Two rounds of the dilemma in which the other always cooperates: 3 or 5 at once, then 3 more."""
    players = {"agent": By(lambda view: "cooperate"), "other": By(lambda view: "cooperate")}
    (parent,) = play(group(ROUNDS, seats={"player_0": "agent", "player_1": "other"}), players)
    (marked,), replayed = played(measured([parent], [options([parent], rollouts=2, learning=["agent"])]), players)
    assert [turn.probes for turn in marked.turns] == [
        {"q/cooperate": 6.0, "q/defect": 8.0, "q": 6.0},
        {},
        {"q/cooperate": 3.0, "q/defect": 5.0, "q": 3.0},
        {},
    ]
    assert len(replayed) == 8
    assert [fork.turns[fork.match.begins].weight for fork in replayed] == [0.0] * 8


def test_what_was_done_instead_of_an_action_has_a_value_too() -> None:
    """player_0 says nothing that can be read and so checks; the other checks."""

    def decide(view: View) -> str | None:
        return None if view.agent == "player_0" else "check"

    game = replace(KUHN, settings={"on_illegal": "default_action"})
    players = {"agent": By(decide)}
    (parent,) = play(group(game), players)
    playing = options([parent], rollouts=1, learning=["agent"])
    (marked,), replayed = played(measured([parent], [playing]), players)
    assert [fork.turns[0].action for fork in replayed[:3]] == ["check", "bet", None]
    assert marked.turns[0].probes["q"] == parent.returns["player_0"]
    assert marked.turns[1].probes["q"] == marked.turns[1].probes["q/check"]


def test_states_are_equal_where_all_before_is() -> None:
    def turn(action: str, *tokens: int) -> Turn:
        said = Completion(tokens=tokens, logprobs=(0.0,) * len(tokens), stop="eos", versions=(0,) * len(tokens))
        return replace(TURN, action=action, reply=action, completion=said)

    episodes = [
        replace(EPISODE, turns=(turn("a", 1), turn("b", 2), turn("c", 3))),
        replace(EPISODE, turns=(turn("a", 1), turn("c", 2), turn("c", 3))),
        replace(EPISODE, turns=(turn("a", 4), turn("b", 2))),
        replace(EPISODE, turns=(turn("a", 1),), match=replace(EPISODE.match, seats={"*": "other"})),
    ]
    first, second, third, fourth = states(episodes)
    assert first[:2] == second[:2]
    assert third[0] == first[0] != fourth[0]
    assert len({first[2], second[2], third[1], first[1], first[0]}) == 5


TURN = Turn(
    agent="a", role="a", policy="agent", observation="", reply="x", action="x", legal=True, rewards={"outcome": 1.0}
)
EPISODE = Episode(match=Match(id="e", game="g", seed=0, group="g", seats={"*": "agent"}), turns=(TURN,), returns={})


def answered(playing: Playing[Any], returns: Callable[[Match], Mapping[str, float] | None]) -> Any:
    """What comes of it if every match that it wants ends with these returns; None: at fault."""
    try:
        matches = next(playing)
        while True:
            sent = [(match, returns(match)) for match in matches]
            matches = playing.send(
                [
                    Episode(match=m, turns=m.played, returns=r or {}, status="fault" if r is None else "done")
                    for m, r in sent
                ]
            )
    except StopIteration as ended:
        return ended.value


@cases("coma_mc")
def test_a_baseline_is_the_mean_of_all_other_messages(case: dict[str, Any]) -> None:
    first, *rest = case["inputs"]["returns"]
    gained = iter(rest)
    episodes = [replace(EPISODE, returns={"a": first}, turns=(replace(TURN, rewards={}),))]
    playing = alternatives(episodes, number=len(rest), keep=True, learning=["agent"])
    every, found = answered(playing, lambda match: {"a": next(gained)})
    assert len(every) == 1 + len(rest)
    assert found.replayed == ()
    for place, (mine, expected) in enumerate(zip(case["inputs"]["returns"], case["outputs"]["A"], strict=True)):
        assert mine - found.probes[place, 0]["baseline"] == pytest.approx(expected, abs=1e-6)


def test_alternatives_of_a_state_are_drawn_once_and_a_group_s_own_messages_are_among_them() -> None:
    """Two members got 1 and 0, two forks of their shared first turn 4 and none: it ended at fault."""
    episodes = [
        replace(
            EPISODE, match=replace(EPISODE.match, id=name), returns={"a": value}, turns=(replace(TURN, rewards={}),)
        )
        for name, value in (("e", 1.0), ("f", 0.0))
    ]
    asked: list[str] = []

    def returns(match: Match) -> Mapping[str, float] | None:
        asked.append(match.id)
        return {"a": 4.0} if match.id.endswith("n0") else None

    every, found = answered(alternatives(episodes, number=2, keep=False, learning=["agent"]), returns)
    assert asked == ["e/t0an0", "e/t0an1"]
    assert every == episodes
    assert len(found.replayed) == 2
    assert found.probes == {(0, 0): {"baseline": 2.0}, (1, 0): {"baseline": 2.5}}


def test_alternatives_that_are_kept_stand_in_the_table_beside_what_they_are_alternatives_to() -> None:
    players = {"agent": By(bold)}
    parents = list(play(group(KUHN, members=2), players))
    every, _ = played(alternatives(parents, number=2, keep=True, learning=["agent"]), players)
    table = turn_table(every)
    own = table.weight > 0
    codes_N = table.key(["parent"])[0][own]
    # Two members and the forks that they share; after the first one's check another two; and what goes on from a fork.
    assert sorted(np.bincount(codes_N).tolist()) == [1, 1, 1, 1, 3, 4]


@cases("shapley")
def test_shapley_values(case: dict[str, Any]) -> None:
    worth = {frozenset(name): value for name, value in case["inputs"]["v"].items()}
    phi = case["outputs"]["phi"]
    assert shapley("ABC", worth.get) == pytest.approx(phi)
    orders = [("A", "B", "C"), ("C", "B", "A")]
    assert sampled_shapley(orders, worth.get) == pytest.approx(case["outputs"]["perm_2"])
    every = list(itertools.permutations("ABC"))
    assert sampled_shapley(every, worth.get) == pytest.approx(case["outputs"]["perm_all"])


def team_of(returns: float, *agents: str) -> Episode:
    turns = tuple(replace(TURN, agent=agent, rewards={}) for agent in agents)
    return replace(EPISODE, turns=turns, returns=dict.fromkeys(agents, returns))


def coalition(match: Match, team: str = "ABC") -> str:
    return "".join(agent for agent in team if agent not in match.muted)


SETTINGS: dict[str, Any] = {"rollouts": 1, "exact": 6, "permutations": 2, "muted": None, "learning": ["agent"]}


@cases("shapley")
def test_a_team_is_paid_by_what_its_coalitions_are_worth(case: dict[str, Any]) -> None:
    v = case["inputs"]["v"]
    asked: list[str] = []

    def returns(match: Match) -> Mapping[str, float]:
        asked.append(coalition(match))
        return dict.fromkeys("ABC", v[asked[-1]])

    episode = team_of(v["ABC"], "A", "B", "C", "A")
    found = answered(coalitions([episode], parts=["shapley", "difference"], **SETTINGS), returns)
    assert sorted(asked) == sorted(set(v) - {"ABC"})
    last = {"A": 3, "B": 1, "C": 2}
    for agent, expected in case["outputs"]["phi"].items():
        parts = found.rewards[0, last[agent]]
        assert parts["shapley"] == pytest.approx(expected)
        assert parts["difference"] == pytest.approx(v["ABC"] - v["ABC".replace(agent, "")])
    assert len(found.rewards) == 3


@cases("difference")
def test_a_difference_needs_one_coalition_for_each_agent(case: dict[str, Any]) -> None:
    names = dict(zip("ABC", case["inputs"]["G_without"], strict=True))
    left_out = {"ABC".replace(letter, ""): case["inputs"]["G_without"][name] for letter, name in names.items()}
    episode = team_of(case["inputs"]["G"], "A", "B", "C")
    playing = coalitions([episode], parts=["difference"], **SETTINGS)
    found = answered(playing, lambda match: dict.fromkeys("ABC", left_out[coalition(match)]))
    assert len(found.replayed) == 3
    for place, name in enumerate(names.values()):
        assert found.rewards[0, place] == {"difference": pytest.approx(case["outputs"]["D"][name])}


def test_of_a_large_team_orders_are_drawn_and_shares_still_sum_to_the_whole() -> None:
    agents = "ABCDEFGH"
    episode = team_of(64.0, *agents)
    playing = coalitions([episode], parts=["shapley"], **SETTINGS)
    found = answered(playing, lambda match: dict.fromkeys(agents, float(len(coalition(match, agents)) ** 2)))
    shares = [found.rewards[0, place]["shapley"] for place in range(8)]
    assert sum(shares) == pytest.approx(64.0)
    # Whoever comes k-th adds 2k - 1, and in the reverse order 2 (9 - k) - 1: 8 on average.
    assert shares == pytest.approx([8.0] * 8)
    assert len(found.replayed) <= 2 * 2 * 7 + 1
    drawn = antithetic(agents, 2, 0)
    assert [drawn[1], drawn[3]] == [drawn[0][::-1], drawn[2][::-1]]


def test_a_coalition_of_which_nothing_is_known_leaves_shares_unknown() -> None:
    playing = coalitions([team_of(1.0, "A", "B")], parts=["shapley", "difference"], **SETTINGS)
    found = answered(playing, lambda match: None if coalition(match, "AB") == "A" else {"A": 0.5, "B": 0.5})
    assert found.rewards == {
        (0, 0): {"shapley": None, "difference": 0.5},
        (0, 1): {"shapley": None, "difference": None},
    }


def test_muted_agents_are_silent_from_the_first_of_their_turns_on() -> None:
    """Cooperation pays 3 each. Without player_1, who then always defects, player_0 gets 0 and player_1 5: the mean is
    2.5 a round. Without both it is 1 each."""
    players = {"agent": By(lambda view: "cooperate")}
    parents = list(play(group(ROUNDS, members=2), players))
    settings = {**SETTINGS, "muted": "defect"}
    marked, replayed = played(
        measured(parents, [coalitions(parents, parts=["shapley", "difference"], **settings)]), players
    )
    assert len(replayed) == 3  # of both members: all of their turns were the same
    for fork in replayed:
        for turn in fork.turns[fork.match.begins :]:
            assert turn.action == ("defect" if turn.agent in fork.match.muted else "cooperate")
    assert sorted((fork.match.begins, *fork.match.muted) for fork in replayed) == [
        (0, "player_0"),
        (0, "player_0", "player_1"),
        (1, "player_1"),
    ]
    for episode in marked:
        shares = [episode.turns[place].rewards for place in (2, 3)]
        assert [each["difference"] for each in shares] == [1.0, 1.0]
        assert [each["shapley"] for each in shares] == [2.0, 2.0]


def cautious(view: View) -> str:
    """Checks and folds."""
    assert view.legal_actions is not None
    return view.legal_actions[0]


def test_a_reply_goes_on_from_a_token_with_what_was_sampled_before_it() -> None:
    policy = seated(dictated(saying({"check": 0.5, "bet": 0.5})))
    players = {"agent": policy, "other": By(cautious)}
    (parent,) = play(group(KUHN, seats={"player_0": "agent", "player_1": "other"}), players)
    said = parent.turns[0].completion
    assert said is not None
    forks = list(play([branch(parent, 0, number=n, token=1) for n in range(16)], players))
    for fork in forks:
        again = fork.turns[0].completion
        assert again is not None
        assert fork.turns[0].prompt == parent.turns[0].prompt
        assert again.tokens[0] == said.tokens[0]
        assert len(again.tokens) == len(again.logprobs) == len(again.versions) == len(said.tokens) == 4
        assert fork.turns[0].action in ("check", "bet")
        assert again.logprobs[1] == pytest.approx(log(0.5), abs=1e-3)
    assert {fork.turns[0].action for fork in forks} == {"check", "bet"}
    (kept,) = play([branch(parent, 0, number=0, token=2)], players)
    assert kept.turns[0].action == parent.turns[0].action
    with pytest.raises(ValueError, match="no reply begins with 5 of its tokens"):
        branch(parent, 0, number=0, token=5)


def test_a_fork_from_a_token_keeps_to_the_length_of_a_reply() -> None:
    endless = {"\n": {"check": 1.0}, "check": {"check": 1.0}}
    players = {"agent": seated(dictated(endless)), "other": By(cautious)}
    (parent,) = play(group(KUHN, seats={"player_0": "agent", "player_1": "other"}), players)
    (fork,) = play([branch(parent, 0, number=0, token=3)], players)
    assert [replace(turn, begun=0) for turn in fork.turns] == list(parent.turns)
    assert fork.turns[0].completion is not None
    assert len(fork.turns[0].completion.tokens) == 8


def test_a_tree_of_tokens_tries_every_segment_and_each_token_is_learned_from_once() -> None:
    """Four tokens, split after the first and the second: 1, 2, 4 and 4 of them at the four places."""
    policy = seated(dictated(saying({"check": 0.5, "bet": 0.5})))
    players = {"agent": policy, "other": By(cautious)}
    parents = play(group(KUHN, seats={"player_0": "agent", "player_1": "other"}), players)
    leaves = played(tree(parents, width=2, turns=2, tokens=1), players)
    assert [leaf.match.id for leaf in leaves] == ["m0", "m0/t0.1n1", "m0/t0.2n1", "m0/t0.1n1/t0.2n1"]
    assert [leaf.turns[0].begun for leaf in leaves] == [0, 1, 2, 2]
    assert [leaf.turns[0].num_sampled for leaf in leaves] == [4, 3, 2, 2]
    assert list(map(episode_from_json, map(episode_to_json, leaves))) == [
        replace(leaf, match=replace(leaf.match, played=(), begun=None)) for leaf in leaves
    ]
    table = turn_table(leaves, tokens=True).of_tokens()
    model = table.column("policy") == "agent"
    nodes = list(zip(table.column("node").tolist(), table.codes["token"].tolist(), strict=True))
    for token, expected in enumerate((1, 2, 4, 4)):
        here = [node for node, own in zip(nodes, model, strict=True) if own and node[1] == token]
        assert len(here) == 4
        assert len(set(here)) == expected
        assert table.weight[model & (table.codes["token"] == token)].sum() == expected
    credited = credit(leaves, load_recipe("spo_tree_tokens"))
    edges = {name: values for (name, _), values in credited.by_turn(dict(credited.trace)["center"]).items()}
    worth = [leaf.returns["player_0"] for leaf in leaves]
    first = (worth[0] + worth[2] - worth[1] - worth[3]) / 4  # half the distance of the means of their leaves
    late, other = (worth[0] - worth[2]) / 2, (worth[1] - worth[3]) / 2
    assert list(edges.values()) == [  # of m0 and those forked from it, by id
        [0.0, first, late, late],
        [0.0, -first, other, other],
        [0.0, -first, -other, -other],
        [0.0, first, -late, -late],
    ]
    advantages = {(leaf.match.id, 0): 1.0 for leaf in leaves}
    spans = [sample.spans for sample in to_samples(leaves, advantages, "agent")]
    assert [span.length for (span,) in spans] == [4, 3, 2, 2]
    looked = measures.measured(leaves, {"agent": Sure()}, {"entropy"})
    known = [[not isnan(value) for value in leaf.turns[0].token_probes["entropy"]] for leaf in looked]
    assert known == [[True] * 4, [False, *[True] * 3], [False, False, True, True], [False, False, True, True]]


class Sure:
    """A learner whose entropy is 0 everywhere."""

    def measure(self, samples: Sequence[Sample], quantities: Sequence[str]) -> dict[str, np.ndarray]:
        size = sum(span.length for sample in samples for span in sample.spans)
        return {name: np.zeros(size) for name in quantities}


def test_values_of_tokens_stand_where_the_model_was_not_sure() -> None:
    """The opponent checks and folds: a bet wins 1, a check what the cards say. The second of four tokens decides."""
    policy = seated(dictated(saying({"check": 0.5, "bet": 0.5})))
    players = {"agent": policy, "other": By(cautious)}
    (parent,) = play(group(KUHN, seats={"player_0": "agent", "player_1": "other"}, seed=1), players)
    (checked,) = play([branch(parent, 1, number=0, actions={0: "check"})], players)
    playing = segments([parent], rollouts=8, interval=1, below=0.9, learning=["agent"])
    (marked,), replayed = played(measured([parent], [playing]), players)
    assert {fork.match.branch.token for fork in replayed if fork.match.branch} == {1}
    bets = sum(fork.turns[0].action == "bet" for fork in replayed)
    assert 0 < bets < 8
    found = marked.turns[0].token_probes["value"]
    assert found[1] == (bets + (8 - bets) * sign(checked)) / 8
    assert [isnan(value) for value in found] == [True, False, True, True]
    assert marked.turns[1].token_probes == {}
    every = turn_table([marked], tokens=True).of_tokens().probes["value"]
    assert every[1] == found[1]


def test_a_segment_begins_at_every_so_manieth_token_and_equal_beginnings_share_rollouts() -> None:
    probabilities = [0.5, 0.99, 0.8, 0.95, 0.3, 0.99, 0.7, 0.99]  # SPO's own example: cut points -1 and 3
    said = Completion(tokens=tuple(range(8)), logprobs=tuple(map(log, probabilities)), stop="eos", versions=(0,) * 8)
    episodes = [
        replace(EPISODE, match=replace(EPISODE.match, id=name), turns=(replace(TURN, completion=said, rewards={}),))
        for name in ("e", "f")
    ]
    worth = {None: 0.4, 4: 0.6}
    playing = segments(episodes, rollouts=2, interval=2, below=0.9, learning=["agent"])
    found = answered(playing, lambda match: {"a": worth[match.branch.token if match.branch else None]})
    assert len(found.replayed) == 4
    for place in (0, 1):
        values_T = found.token_probes[place, 0]["value"]
        assert {token: value for token, value in enumerate(values_T) if not isnan(value)} == {0: 0.4, 4: 0.6}


THINKING = {
    "\n": {"<think>": 1.0},
    "<think>": {"check": 1.0},
    "check": {"bet": 1.0},
    "bet": {"check": 0.75, "</think>": 0.25},
    "</think>": {"<answer>": 1.0},
    "<answer>": {"fold": 1.0},
    "fold": {"</answer>": 1.0},
    "</answer>": {END: 1.0},
}


def test_a_thought_that_is_cut_short_ends_and_an_answer_follows() -> None:
    model = dictated(THINKING, thinking=True)
    policy = seated(model, thinking=True, max_reply_tokens=32)
    assert policy.chat.opened == ""
    players = {"agent": policy, "other": By(cautious)}
    (parent,) = play(group(KUHN, seats={"player_0": "agent", "player_1": "other"}), players)
    said = parent.turns[0].completion
    assert said is not None
    ended = said.tokens.index(token_id(model, "</think>"))
    playing = budgets([parent], tokens=[2, 31], answers=2, learning=["agent"])
    (marked,), replayed = played(measured([parent], [playing]), players)
    assert len(replayed) == 4
    for fork in replayed[:2]:
        again = fork.turns[0].completion
        assert again is not None
        assert again.tokens == (*said.tokens[:2], *said.tokens[ended:])
        assert again.logprobs[2] == 0.0  # forced
    for fork in replayed[2:]:
        assert fork.turns[0].completion is not None
        assert fork.turns[0].completion.tokens == said.tokens
    turn = marked.turns[0]
    assert turn.probes == {"budget/0": to_go(replayed[0], 0, "player_0"), "budget/1": to_go(replayed[2], 0, "player_0")}
    assert turn.token_probes["budget"] == (0.0, 0.0) + (1.0,) * (len(said.tokens) - 2)
    recipe = load_recipe({"unit": "token", "stages": [{"budgets": {"lone": "raw"}}]})
    early, late = turn.probes["budget/0"], turn.probes["budget/1"]
    found = credit([marked], recipe).by_turn(credit([marked], recipe).advantages)[marked.match.id, 0]
    assert found == [(early + late) / 2] * 2 + [late / 2 - early / 4] * (len(said.tokens) - 2)


def test_what_goes_on_side_by_side_is_played_together() -> None:
    def wanting(*rounds: int) -> Playing[list[str]]:
        got: list[str] = []
        for number in rounds:
            episodes = yield [replace(EPISODE.match, id=f"{sum(rounds)}/{number}/{n}") for n in range(number)]
            got += [episode.match.id for episode in episodes]
        return got

    asked: list[str] = []

    def returns(match: Match) -> Mapping[str, float]:
        asked.append(match.id)
        return {}

    first, second, third = answered(together([wanting(1, 2), wanting(2), wanting()]), returns)
    assert first == ["3/1/0", "3/2/0", "3/2/1"]
    assert second == ["2/2/0", "2/2/1"]
    assert third == []
    assert asked == ["3/1/0", "2/2/0", "2/2/1", "3/2/0", "3/2/1"]


def test_the_same_measurement_is_the_same_and_forks_of_other_purposes_draw_anew() -> None:
    players = {"agent": make_scripted("random", {})}
    (parent,) = play(group(KUHN), players)

    def measure() -> list[Episode]:
        wanted = [values([parent], rollouts=3, learning=["agent"]), coalitions([parent], parts=["shapley"], **COVERED)]
        return [*played(measured([parent], wanted), players)[1]]

    assert measure() == measure()
    seeds = [branch(parent, 0, number=0, purpose=purpose).member for purpose in ("", "v", "a", "b", "c0")]
    assert len(set(seeds)) == 5


COVERED = {**SETTINGS, "muted": "check"}
