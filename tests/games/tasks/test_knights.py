"""Knights and knaves: solutions by brute force from the words of the puzzle alone."""

import re
from itertools import product
from statistics import mean

import pytest

from games.tasks import Task, check, task_set

PEOPLE = "ABCDE"


def meaning(words, speaker, knight):
    """Whether a sentence is true, read from its words; `knight`: letter to whether they are a knight."""
    words = re.sub(r"\bI\b", speaker, words)
    if found := re.fullmatch(r"exactly (\d) of us (?:is a knight|are knights)", words):
        return sum(knight.values()) == int(found[1])
    if found := re.fullmatch(r"(\w) and (\w) are (the same|different)", words):
        return (knight[found[1]] == knight[found[2]]) == (found[3] == "the same")
    if found := re.fullmatch(r"(\w) and (\w) are both (knight|knave)s", words):
        return knight[found[1]] == knight[found[2]] == (found[3] == "knight")
    claims = [re.fullmatch(r"(\w) (?:is|am) a (knight|knave)", part) for part in words.split(" or ")]
    return any(knight[claim[1]] == (claim[2] == "knight") for claim in claims)


def solutions(prompt):
    said = re.findall(r"(\w) says: ([^.]+)\.", prompt)
    people = [speaker for speaker, _ in said]
    worlds = (dict(zip(people, kinds)) for kinds in product((True, False), repeat=len(people)))
    return [world for world in worlds if all(meaning(words, who, world) == world[who] for who, words in said)]


@pytest.mark.parametrize("people", range(2, 6))
def test_the_answer_is_the_only_way_that_things_can_be(people):
    seen = set()
    for task in task_set("knights", people=people, size=300):
        (world,) = solutions(task.prompt)
        assert task.answer == ", ".join(f"{who} {'knight' if knight else 'knave'}" for who, knight in world.items())
        assert list(world) == list(PEOPLE[:people])
        assert len(task.metadata["statements"]) == people
        seen.add(task.answer)
    assert len(seen) >= 3 * 2**people // 4, "answers vary"


def test_more_people_mean_longer_puzzles():
    lengths = [mean(len(task.prompt) for task in task_set("knights", people=n, size=100)) for n in range(2, 6)]
    assert lengths == sorted(lengths)


def test_a_puzzle_in_words():
    prompt = "A says: I am a knave or B is a knight. B says: exactly 1 of us is a knight."
    # A a knave would have told the truth; so A is a knight and B must be one; then B lies. No solution.
    assert solutions(prompt) == []
    # B's claim is that of a knave about himself, if he is one: false either way only if A and B are alike.
    assert solutions("A says: B is a knave. B says: I and A are both knaves.") == [{"A": True, "B": False}]


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("A knight, B knave", True),
        ("B knave, A knight.", True),
        ("a is a knight and b is a knave", True),
        ("A: Knight\nB: Knave", True),
        ("<answer>A = knight; B = knave</answer>", True),
        ("A knight, B knave, A knight", True),
        ("A knight", False),
        ("A knave, B knave", False),
        ("A knight, B knave, C knight", False),
        ("A knight, B knave, B knight", False),
        ("A is not a knight, B knave", False),
        ("A knight B knave", False),
        ("knight, knave", False),
        ("", False),
    ],
)
def test_a_reply_says_what_everyone_is_in_any_order(reply, right):
    task = Task(id="t", prompt="?", answer="A knight, B knave", check="knights")
    assert check(task, reply) == float(right)
