"""Averages, best and majority of k, and what the majority of single answers reaches with as many tokens."""

import pytest

from marl_llm.evaluation.accuracy import accuracies, as_json, rate_of, vote, votes
from marl_llm.evaluation.answers import Answer, Key


def answer(
    text: str | None,
    correct: float = 0.0,
    *,
    item: int = 0,
    sample: int = 0,
    tokens: int = 10,
    protocol: str = "single",
    team: str = "ours",
    run: int = 0,
) -> Answer:
    key = Key(team=team, run=run, benchmark="sums", protocol=protocol, item=item, sample=sample)
    return Answer(
        key=key,
        task=f"t{item}",
        asked="",
        step=None,
        answer=text,
        vote=text,
        correct=correct,
        tokens=tokens,
        prompt_tokens=5,
        turns=1,
        seconds=0.5,
        status="truncated" if text is None else "done",
    )


def test_the_vote_is_for_the_answer_that_most_give() -> None:
    given = [answer("7"), answer("4", 1.0), answer("4", 1.0)]
    assert vote(given) == 1.0
    assert vote([*given, answer("7"), answer("7")]) == 0.0


def test_of_equals_the_first_is_taken_and_who_does_not_answer_does_not_vote() -> None:
    assert vote([answer(None), answer(None), answer("4", 1.0), answer("7")]) == 1.0
    assert vote([answer(None)]) == 0.0


def test_average_best_and_majority_of_three_answers_to_two_questions() -> None:
    given = [answer("4", 1.0, sample=0), answer("5", sample=1), answer("4", 1.0, sample=2)]
    given += [answer(None, item=1, sample=0), answer("8", item=1, sample=1), answer("9", 1.0, item=1, sample=2)]
    (result,) = accuracies(given, samples=3, matched=True, baseline=None).values()
    assert (result.items, result.samples, result.runs, result.failed) == (2, 3, 1, 1)
    assert result.accuracy.mean == pytest.approx((2 / 3 + 1 / 3) / 2)
    assert result.best == 1.0
    assert result.majority == 0.5
    assert (result.tokens, result.prompt_tokens, result.turns, result.seconds) == (10, 5, 1, 0.5)
    assert result.matched is None


def test_a_failed_answer_stays_in_the_denominator() -> None:
    given = [answer("4", 1.0), answer(None, item=1), answer(None, item=2), answer(None, item=3)]
    (result,) = accuracies(given, samples=1, matched=False, baseline=None).values()
    assert result.accuracy.mean == 0.25


def test_a_protocol_stands_beside_the_majority_of_as_many_single_answers_as_have_its_tokens() -> None:
    """A debate of 29 tokens is as long as three answers of 10, of which two of three are right in the first item."""
    given = [answer("1", 1.0, sample=0), answer("2", sample=1), answer("1", 1.0, sample=2)]
    given += [answer("3", item=1, sample=sample) for sample in range(3)]
    given += [answer("2", protocol="debate", tokens=29), answer("4", 1.0, item=1, protocol="debate", tokens=29)]
    assert votes(given, "ours", "sums", "debate") == 3
    results = accuracies(given, samples=1, matched=True, baseline=None)
    matched = results["sums", "debate", "ours"].matched
    assert matched is not None
    assert (matched.votes, matched.tokens) == (3, 30)
    assert matched.accuracy.mean == 0.5
    assert matched.difference.mean == pytest.approx(0.0)
    assert results["sums", "single", "ours"].accuracy.mean == 0.5


def test_votes_that_are_not_whole_are_left_out() -> None:
    given = [answer("1", 1.0, sample=0), answer("1", 1.0, sample=1), answer("2", sample=2)]
    given += [answer("1", 1.0, protocol="debate", tokens=20)]
    matched = accuracies(given, samples=1, matched=True, baseline=None)["sums", "debate", "ours"].matched
    assert matched is not None
    assert (matched.votes, matched.accuracy.mean) == (2, 1.0)


def test_where_no_tokens_are_counted_nothing_is_matched() -> None:
    given = [answer("1", tokens=0), answer("1", protocol="debate", tokens=0)]
    assert votes(given, "ours", "sums", "debate") == 0
    assert accuracies(given, samples=1, matched=True, baseline=None)["sums", "debate", "ours"].matched is None


def test_no_more_vote_than_were_asked() -> None:
    given = [answer("1", 1.0, sample=0), answer("2", sample=1), answer("1", 1.0, protocol="debate", tokens=40)]
    matched = accuracies(given, samples=1, matched=True, baseline=None)["sums", "debate", "ours"].matched
    assert matched is not None
    assert (matched.votes, matched.tokens) == (2, 20)


def test_a_protocol_shorter_than_a_single_answer_is_compared_with_one() -> None:
    given = [answer("1"), answer("1", protocol="debate", tokens=2)]
    assert votes(given, "ours", "sums", "debate") == 1


def test_teams_are_compared_item_by_item_with_the_baseline() -> None:
    """Both are right in 2 of 4 and 3 of 4, but ours is right wherever the baseline is: 1/4 more, three times 0."""
    rights = {"base": [1, 1, 0, 0], "ours": [1, 1, 1, 0]}
    given = [answer("x", right, item=i, team=team) for team, row in rights.items() for i, right in enumerate(row)]
    results = accuracies(given, samples=1, matched=False, baseline="base")
    against = results["sums", "single", "ours"].against
    assert against is not None
    assert against.mean == 0.25
    assert against.high - against.mean == pytest.approx(1.959964 * 0.5 / 2)
    assert results["sums", "single", "base"].against is None


def test_runs_are_averaged_and_their_spread_is_told() -> None:
    given = [
        answer("x", right, item=i, run=run) for run, row in enumerate([[1, 1], [1, 0]]) for i, right in enumerate(row)
    ]
    (result,) = accuracies(given, samples=1, matched=False, baseline=None).values()
    assert (result.runs, result.items, result.accuracy.mean) == (2, 2, 0.75)
    assert result.spread == pytest.approx(0.5 / 2**0.5)


def test_an_interval_never_leaves_0_to_1_and_has_a_width_even_where_all_are_right() -> None:
    sure = rate_of([1.0] * 10)
    assert (sure.mean, sure.high) == (1.0, pytest.approx(1.0))
    assert sure.low == pytest.approx(0.7225, abs=1e-4)
    one = rate_of([0.0])
    assert one.low == 0.0 < one.high < 1.0


def test_results_become_one_object_each() -> None:
    results = accuracies([answer("1", 1.0)], samples=1, matched=False, baseline=None)
    (row,) = as_json(results)
    assert (row["benchmark"], row["protocol"], row["team"], row["items"]) == ("sums", "single", "ours", 1)
