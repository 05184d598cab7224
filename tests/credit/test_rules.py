"""Votes, shaping, attribution and diversity: the papers' numbers, and what holds beside them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from games.pipelines.proposer_solver import WORTH
from marl_llm.credit.load import load_recipe
from marl_llm.credit.recipe import credit, credit_table
from marl_llm.credit.rewards import attribution, right
from marl_llm.credit.rules import chosen, consistency, diversity, votes_of
from marl_llm.credit.table import Row, table_of
from marl_llm.errors import ConfigError
from marl_llm.play import play, rewarded
from marl_llm.policies.scripted import make_scripted
from marl_llm.types import Episode, Match, Turn
from tests.credit.cases import cases, run


def values(rows: Sequence[Row], *stages: Any) -> list[float]:
    found: list[float] = run(rows, *stages).trace[-1][1].tolist()
    return found


def answers(given: Mapping[str, Sequence[str]], column: str) -> list[Row]:
    """One answer per episode, in the order given; the column says whose it is."""
    said = [(who, text) for who, texts in given.items() for text in texts]
    return [Row(f"m{i:02}", 0, action=text)._replace(**{column: who}) for i, (who, text) in enumerate(said)]


@cases("rlccf")
def test_consistent_models_weigh_more_in_a_vote(case: Any) -> None:
    rows = answers(case["inputs"]["answers"], "policy")
    found = values(rows, {"vote": {"keys": ["group"], "by": ["policy"], "weigh": "consistency"}})
    out = case["outputs"]
    assert found == [reward for rewards in out["rewards"].values() for reward in rewards]
    given = list(case["inputs"]["answers"].values())
    assert [float(consistency(texts)) for texts in given] == pytest.approx(list(out["sc"].values()))
    ballot = [(voter, text) for voter, texts in enumerate(given) for text in texts]
    assert {text: float(votes) for text, votes in votes_of(ballot, "consistency").items()} == pytest.approx(
        out["votes"]
    )
    assert chosen(ballot, "consistency") == out["label"]


def test_without_weights_the_majority_is_another() -> None:
    # Seven samples of a model that says nothing twice against two of one that does: 1/7 each, and 1 each.
    rows = answers({"wild": ["4", "4", "4", "1", "2", "3", "5"], "sure": ["6", "6"]}, "policy")
    assert values(rows, "vote") == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert values(rows, {"vote": {"weigh": "consistency"}}) == [0.0] * 7 + [1.0, 1.0]


def test_a_turn_that_forks_share_has_one_vote() -> None:
    forks = [Row(f"a{number}", action="4", node="a0#0", weight=float(number == 0)) for number in range(3)]
    rows = [*forks, Row("b", action="5"), Row("c", action="5")]
    assert values(rows, "vote") == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert values(rows, {"vote": {"keys": ["episode"]}}) == [1.0] * 5


def test_a_moving_average_leaves_out_what_has_no_weight() -> None:
    """b goes from 0 to 1/2 with the first turn, and not to 3/4 with the same turn of a fork."""
    fork = Row("a1", rewards={"outcome": 1.0}, node="a0#0", weight=0.0)
    rows = [Row("a0", rewards={"outcome": 1.0}), fork, Row("b", rewards={"outcome": 1.0})]
    found = values(rows, "reward", {"history": {"keys": ["game"], "alpha": 0.5, "per": "turn"}})
    assert (found[0], found[2]) == (1.0, 0.5)


def test_a_proposal_that_forks_share_is_no_repetition() -> None:
    worth = {"challenge": 0.5}
    forks = [Row(f"a{number}", action="one two", role="proposer", node="a0#0", rewards=worth) for number in range(3)]
    rows = [*forks, Row("b", action="three four", role="proposer", rewards=worth)]
    assert values(rows, "reward", "diversify") == pytest.approx([0.7] * 4)


@cases("co_reward")
def test_each_form_of_a_question_is_held_against_the_other(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    rows = answers({"plain": inputs["answers_original"], "other": inputs["answers_paraphrase"]}, "role")
    found = values(rows, {"vote": {"by": ["role"], "label": "others"}})
    assert found == outputs["reward_original"] + outputs["reward_paraphrase"]
    assert chosen([(0, text) for text in inputs["answers_paraphrase"]]) == outputs["label_for_original"]
    assert chosen([(0, text) for text in inputs["answers_original"]]) == outputs["label_for_paraphrase"]


def test_a_vote_counts_what_answers_say_of_whom_and_where() -> None:
    texts = ["7", "So: <answer>8</answer>", "8.", "8"]
    rows = [Row(f"m{i}", 0, action=text) for i, text in enumerate(texts)]
    others = [Row("n0", 0, action="7", group="other"), Row("m9", 0, action="7", role="critic"), Row("n1", 0)]
    found = values([*rows, *others], {"vote": {"roles": ["agent_0"]}})
    assert found == [0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("name", ["majority", "rlccf", "co_reward"])
def test_who_agrees_is_better_off_than_who_does_not(name: str) -> None:
    rows = [
        Row(f"m{i}", turn, role=role, agent=role, action=text)
        for i, text in enumerate(["5", "5", "6"])
        for turn, role in enumerate(("plain", "other"))
    ]
    found = credit_table(table_of(rows), load_recipe(name)).advantages
    # Rewards 1 1 0: mean 2/3, standard deviation .57735.
    assert found == pytest.approx(np.repeat([0.57735, 0.57735, -1.1547], 2), abs=1e-5)


@cases("marti_shape")
def test_shaping_holds_a_turn_against_the_mean_of_the_earlier_ones(case: Any) -> None:
    inputs = case["inputs"]
    rows = [Row("m", turn, {"right": value}) for turn, value in enumerate(inputs["r"])]
    found = values(rows, {"shape": {"part": "right", "form": inputs["name"], "alpha": inputs["alpha"]}})
    assert found == pytest.approx(case["outputs"]["r"], rel=1e-6)


def debate(*rounds: Sequence[float | None]) -> list[Row]:
    """Two debaters, side by side, each round; None is unknown."""
    return [
        Row("m", 2 * number + seat, {"right": value}, agent=f"debater_{seat}")
        for number, given in enumerate(rounds)
        for seat, value in enumerate(given)
    ]


def test_what_came_earlier_has_three_meanings() -> None:
    rows = debate((0.0, 1.0), (1.0, 0.0))

    def shaped(earlier: str) -> list[float]:
        return values(rows, {"shape": {"part": "right", "form": "margin", "earlier": earlier}})

    assert shaped("own") == [0.0, 1.0, 1.5, -0.5]
    assert shaped("rounds") == [0.0, 1.0, 1.25, -0.25]
    # One after the other: 1 - 0, then 1 - 1/2, then 0 - 2/3.
    assert shaped("turns") == pytest.approx([0.0, 1.5, 1.25, -1 / 3])


def test_the_last_reward_counts_beta_times_and_unknown_ones_do_not_count() -> None:
    stage = {"part": "right", "form": "margin", "alpha": 0.5, "beta": 0.5}
    assert values(debate((0.0, 1.0), (1.0, 1.0)), {"shape": stage}) == [0.0, 1.0, 2.0, 1.5]
    # In rounds the last one is the mean of the last round, .5: 1 + .5 (1 - .5) + .25 and 0 + .5 (0 - .5) + .25.
    found = values(debate((0.0, 1.0), (1.0, 0.0)), {"shape": {**stage, "earlier": "rounds"}})
    assert found == [0.0, 1.0, 1.5, 0.0]
    unknown = values(debate((0.0, 1.0), (None, None), (1.0, 1.0)), {"shape": {**stage, "beta": 0.0}})
    np.testing.assert_array_equal(unknown, [0.0, 1.0, np.nan, np.nan, 1.5, 1.0])
    critic = Row("m", 9, {}, agent="critic_0", role="critic")
    assert values([*debate((0.0, 1.0)), critic], {"shape": stage}) == [0.0, 1.0, 0.0]


def marked(marks: Sequence[float | None], score: float) -> list[Row]:
    """One agent's turns, of which the last has the score."""
    last = len(marks) - 1
    return [
        Row("m", turn, {"attribution": mark, **({"outcome": score} if turn == last else {})})
        for turn, mark in enumerate(marks)
    ]


@cases("sotopia_attribution")
def test_a_score_is_dealt_out_by_what_was_said_of_each_turn(case: Any) -> None:
    inputs = case["inputs"]
    if "turns" in inputs:
        stage: dict[str, Any] = {"form": "discounted", "gamma": inputs["gamma"]}
        marks = [0.0] * inputs["turns"]
    else:
        stage = {"form": "normalized"} if inputs.get("normalized") else {"form": "direct", "scale": inputs["scale"]}
        marks = inputs["attribution"]
    found = values(marked(marks, inputs["episode_score"]), {"attribute": stage})
    assert found == pytest.approx(case["outputs"]["reward"], rel=1e-6)


@cases("sotopia")
def test_both_ways_to_attribute_a_goal(case: Any) -> None:
    inputs, outputs = case["inputs"], case["outputs"]
    rows = marked(inputs["attr"], inputs["goal"])
    assert values(rows, {"attribute": {"scale": inputs["scale"]}}) == pytest.approx(outputs["direct"])
    assert values(rows, {"attribute": {"form": "normalized"}}) == pytest.approx(outputs["normalized"])


def test_nothing_attributed_is_nothing_and_unread_is_unknown() -> None:
    assert values(marked([0.0, 0.0], 5.0), {"attribute": {"form": "normalized"}}) == [0.0, 0.0]
    for form in ("direct", "normalized"):
        found = values(marked([None, 3.0], 6.0), {"attribute": {"form": form}})
        np.testing.assert_array_equal(found, [np.nan, 6.0])
    assert values([Row("m", 0, {"outcome": 1.0})], "attribute") == [0.0]


def proposals(texts: Sequence[str], worth: float) -> list[Row]:
    return [Row(f"m{i}", 0, {"challenge": worth}, role="proposer", action=text) for i, text in enumerate(texts)]


@cases("pasodoble_diversity")
def test_diversity_is_the_share_of_the_others_with_other_words(case: Any) -> None:
    inputs = case["inputs"]
    texts = [" ".join(words) for words in (inputs["question"], *inputs["history"])]
    stage = {"overlap": inputs["threshold"], "least": 0.0, "bonus": 1.0}
    found = values(proposals(texts, 1.0), "reward", {"diversify": stage})
    assert found[0] == pytest.approx(1.0 + case["outputs"]["diversity"])
    mine = frozenset(inputs["question"])
    for other, alike in zip(inputs["history"], case["outputs"]["jaccard"], strict=True):  # to a limit just above it
        shares = [diversity(mine, [frozenset(other)], alike + step) for step in (1e-6, -1e-6)]
        assert shares == [1.0, 0.0]


@cases("pasodoble_proposer")
def test_a_proposal_is_worth_its_challenge_and_its_diversity(case: Any) -> None:
    inputs = case["inputs"]
    rate, diversity = inputs["pass_rate"], inputs["diversity"]
    worth = 0.0 if rate <= inputs["tau_low"] else round(WORTH - rate, 9)
    alike = round(10 * (1 - diversity))
    texts = ["mine", *["mine"] * alike, *[f"other {i}" for i in range(10 - alike)]]
    found = values(proposals(texts, worth), "reward", {"diversify": {"least": inputs["div_min"]}})
    assert found[0] == pytest.approx(case["outputs"]["reward"])


def test_only_questions_of_ones_own_policy_count_and_only_between_the_marks() -> None:
    texts = [f"Question: what is {i} answer: {i}" for i in ("one", "one", "two")]
    rows = proposals(texts, 0.5)
    marks = {"after": "question:", "before": "answer:"}
    # Between the marks two of three are the same: shares 1/2, 1/2 and 1 of other words.
    assert values(rows, "reward", {"diversify": marks}) == pytest.approx([0.6, 0.6, 0.7])
    rows[1] = rows[1]._replace(policy="other")
    assert values(rows, "reward", {"diversify": marks}) == pytest.approx([0.7, 0.7, 0.7])
    solver = Row("m0", 1, {"correct": 1.0}, role="solver", action="one")
    assert values([*rows, solver], "reward", {"diversify": marks})[1] == 1.0


def solved(name: str, challenge: float, rights: Sequence[float], group: str = "g") -> list[Row]:
    """One match: a proposal and who solved it."""
    text = f"question: {name} answer: 1"
    proposer = Row(name, 0, {"challenge": challenge}, role="proposer", agent="proposer_0", group=group, action=text)
    return [
        proposer,
        *(
            Row(name, 1 + i, {"correct": right}, role="solver", agent=f"solver_{i}", group=group, action="1")
            for i, right in enumerate(rights)
        ),
    ]


def test_pasodoble_compares_solvers_of_one_question_and_proposers_of_one_seed() -> None:
    rows = solved("a", 0.6, (1.0, 0.0)) + solved("b", 0.1, (1.0, 1.0)) + solved("c", 0.5, (1.0, 0.0), group="h")
    found = credit_table(table_of(rows), load_recipe("pasodoble"))
    # Each question is unlike the others: +.2 for all, so that .8 and .3 remain within group g.
    expected = [0.25, 0.5, -0.5, -0.25, 0.0, 0.0, 0.0, 0.5, -0.5]
    assert found.advantages == pytest.approx(expected)
    assert found.weights.tolist() == [1.0] * 9


def test_a_step_in_which_no_question_divides_the_solvers_teaches_nothing() -> None:
    rows = solved("a", 0.0, (1.0, 0.0, 0.0, 0.0, 0.0)) + solved("b", 0.1, (1.0,) * 5)
    found = credit_table(table_of(rows), load_recipe("pasodoble"))
    assert found.advantages.tolist() == found.weights.tolist() == [0.0] * 12
    other = [row._replace(game="other") for row in solved("c", 0.6, (1.0, 0.0))]
    both = credit_table(table_of(rows + other), load_recipe("pasodoble"))
    assert both.weights.tolist() == [0.0] * 12 + [1.0] * 3


def test_rewards_of_debates_are_graded_turn_by_turn() -> None:
    match = Match(id="m", game="debate", settings={"judge": True}, seed=3, group="g", seats={"*": "informed"})
    (episode,) = play([match], {"informed": make_scripted("informed", {"accuracy": 0.5})})
    episode = rewarded(episode, right)
    gold = episode.hidden["gold"]
    assert len(episode.turns) == 7
    assert [turn.rewards["right"] for turn in episode.turns] == [float(turn.action == gold) for turn in episode.turns]
    assert {turn.rewards["right"] for turn in episode.turns} == {0.0, 1.0}
    assert len(credit([episode], load_recipe("marti_margin")).advantages) == 7


def test_attributions_come_from_judges_and_probes() -> None:
    told = [
        {"turn": 0, "judge": 2, "value": 3},
        {"turn": 0, "judge": 3, "value": 1},
        {"turn": 1, "judge": 2, "value": None},
        {"turn": 1, "judge": 3, "value": None},
    ]
    turn = Turn(agent="a_0", role="a", policy="me", observation="", reply="", action="", legal=True)
    probed = Turn(
        agent="a_0", role="a", policy="me", observation="", reply="", action="", legal=True, probes={"attribution": 2.0}
    )
    match = Match(id="m", game="workflow", seed=0, group="g", seats={})
    episode = Episode(match=match, turns=(turn, turn, probed), returns={}, hidden={"attributions": told})
    assert attribution(episode) == {0: {"attribution": 2.0}, 1: {"attribution": None}, 2: {"attribution": 2.0}}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([{"vote": {"roles": "solver"}}], r"roles: 'solver' is not allowed; it must be a list of names"),
        ([{"vote": {"weigh": "size"}}], r"weigh: unknown value 'size'"),
        ([{"shape": {"part": 1, "form": "margin"}}], r"part: 1 is not allowed; it must be a text"),
        ([{"shape": {"form": "margin"}}], r"parameter part is missing"),
        ([{"attribute": {"scale": 0}}], r"scale: 0 is not allowed; it must be a number of 1e-09 or more"),
        (["reward", {"diversify": {"overlap": 2}}], r"overlap: 2 is not allowed; .* between 0 and 1"),
        (
            [{"sum": [{"stages": ["reward", {"skip": {"part": "a", "above": 0}}]}]}],
            r"\(skip\): is not allowed in a term; it must follow the sum",
        ),
    ],
)
def test_a_wrong_parameter_is_refused(stages: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_recipe({"stages": stages})
