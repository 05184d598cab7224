"""Final answers in replies, and the checkers that need no package: exact, number, f1."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from games.tasks import Task, check, final_answer
from games.tasks.answers import CHECKERS, alike, normalised, read_number, validate

QUICK = settings(max_examples=200, deadline=None, derandomize=True)


def score(how, gold, reply):
    return check(Task(id="t", prompt="?", answer=gold, check=how), reply)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("  12 \n", "12"),
        ("So <answer> 12 </answer>.", "12"),
        ("<answer>1</answer> no, <ANSWER>2</ANSWER>", "2"),
        ("<answer>1</answer> and <answer>2", "1"),
        ("<answer>1 <answer>2</answer>", "2"),
        ("<answer>two\nlines</answer>", "two\nlines"),
        ("<answer></answer>", ""),
        ("It is \\boxed{12}.", "12"),
        ("\\boxed{1}, so \\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{\\text{a}\\} b}", "\\text{a}\\} b"),
        ("\\boxed{1} and \\boxed{2", "1"),
        ("\\boxed {3} \\fbox{4}", "4"),
        ("\\boxed{\\boxed{5}}", "5"),
        ("\\boxed{6} <answer>7</answer>", "7"),
        ("<answer>$\\boxed{8}$</answer> \\boxed{9}", "8"),
        ("} } \\boxed{1}", "1"),
        ("", ""),
    ],
)
def test_the_final_answer_is_the_last_tag_then_the_last_box_then_everything(reply, answer):
    assert final_answer(reply) == answer


@given(before=st.text(max_size=30), answer=st.text(st.characters(exclude_characters="<>\\{}"), max_size=30))
@QUICK
def test_what_is_tagged_or_boxed_is_found_after_any_text(before, answer):
    assert final_answer(f"{before}<answer>{answer}</answer>") == answer.strip()
    if "answer>" not in before.casefold() and "\\" not in before:
        assert final_answer(f"{before}\\boxed{{{answer}}}") == answer.strip()


def test_a_long_reply_of_openings_is_read_in_no_time():
    assert final_answer("\\boxed{" * 50_000) == ("\\boxed{" * 50_000)
    assert final_answer("<answer>" * 20_000) == "<answer>" * 20_000


@pytest.mark.parametrize(
    ("reply", "share"),
    [
        ("Ada Bo; 1912; the Club", 1.0),
        ("ada bo;1912 ;Club.", 1.0),
        ("Ada Bo; 1913; Club", 2 / 3),
        ("1912; Ada Bo; Club", 1 / 3),
        ("Ada Bo; 1912", 2 / 3),
        ("Ada Bo; 1912; Club; Club", 3 / 4),
        ("Ada Bo 1912 Club", 0.0),
        ("", 0.0),
        (";;", 0.0),
    ],
)
def test_a_list_counts_by_the_share_that_is_right_in_its_place(reply, share):
    assert score("list", "Ada Bo; 1912; Club", reply) == share
    assert score("list", "Ada Bo;; Club", ";;") == 0.0


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("Ada Lovelace", "  ada   LOVELACE. ", True),
        ("the Blue Bridge", "Blue Bridge!", True),
        ("New York", "new-york", True),
        ("it's", "its", True),
        ("U.S.", "US", True),
        ("A", "a.", True),
        ("A", "the", False),
        ("A", "B", False),
        ("-5", "5", False),
        ("-5", "−5", True),
        ("2.5", "25", False),
        ("2.5", "2.5.", True),
        ("3/4", "34", False),
        ("1,000", "1000", True),
        ("1,2", "12", False),
        ("2019-2020", "2019 2020", True),
        ("Zoë", "zoë", True),
        ("Paris", "Paris or Rome", False),
    ],
)
def test_exact_looks_past_case_spaces_articles_and_punctuation_but_not_past_signs(gold, reply, right):
    assert score("exact", gold, reply) == float(right)


@given(words=st.lists(st.sampled_from(["red", "the", "a", "7", "-3", "2.5", "x1", "Été"]), min_size=1, max_size=6))
@QUICK
def test_exact_is_blind_to_how_a_text_is_dressed(words):
    gold = " ".join(words)
    dressed = f"  {'  '.join(word.upper() for word in words)} !"
    assert score("exact", gold, dressed) == 1.0
    assert normalised(normalised(gold)) == normalised(gold)


@given(text=st.text(max_size=60))
@QUICK
def test_any_reply_gets_a_score_between_0_and_1_from_every_checker(text):
    golds = {"choice": "A", "knights": "A knight", "countdown": "1 + 1"}
    known = {"target": 2, "numbers": [1, 1], "choices": ["3", "a word"]}
    for how in sorted(set(CHECKERS) - {"math", "code"}):
        task = Task(id="t", prompt="?", answer=golds.get(how, "2"), check=how, metadata=known)
        assert 0.0 <= check(task, text) <= 1.0


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12),
        (" -3. ", -3),
        ("−3", -3),
        ("+7", 7),
        ("007", 7),
        ("2.50", Fraction(5, 2)),
        (".5", Fraction(1, 2)),
        ("1,234,567.5", Fraction(2469135, 2)),
        ("3/4", Fraction(3, 4)),
        ("-3 / 4", Fraction(-3, 4)),
        ("1 1/2", Fraction(3, 2)),
        ("½", Fraction(1, 2)),
        ("1½", Fraction(3, 2)),
        ("\\frac{3}{4}", Fraction(3, 4)),
        ("-\\dfrac{3}{4}", Fraction(-3, 4)),
        ("$1,250", 1250),
        ("-$5", -5),
        ("$12$", 12),
        ("50%", 50),
        ("50 \\%", 50),
        ("12 apples", 12),
        ("12 apples in all", 12),
        ("5km/h", 5),
        ("9 m²", 9),
        ("20 °C", 20),
        ("1.5e3", 1500),
        ("2E-2", Fraction(1, 50)),
        ("3 eggs", 3),
        ("9 m^2", 9),
        ("2 million", None),
        ("2 pi", None),
        ("5x10^3", None),
        ("5 and 6", None),
        ("3 + 4", None),
        ("1,23", None),
        ("12,3456", None),
        ("1 2", None),
        ("3 or 4", None),
        ("3-4", None),
        ("1/0", None),
        ("twelve", None),
        ("x = 12", None),
        ("", None),
        (".", None),
        ("-", None),
        ("1.2.3", None),
        ("1e999999999", None),
        ("9" * 100_000, None),
    ],
)
def test_numbers_are_read_as_people_write_them(text, value):
    assert read_number(text) == value


@given(
    value=st.integers(-(10**9), 10**9), below=st.integers(1, 999), unit=st.sampled_from(["", " apples", "%", " km/h"])
)
@QUICK
def test_every_way_to_write_a_number_is_read_as_that_number(value, below, unit):
    def forms(number):
        return [str(number), f"{number:,}", f"{number}.0", f"{number * below}/{below}"]

    for gold in forms(value):
        for reply, wrong in zip(forms(value), forms(value + 1)):
            assert score("number", gold, f"<answer>{reply}{unit}</answer>") == 1.0
            assert score("number", gold, f"<answer>{wrong}{unit}</answer>") == 0.0
    cents = f"{value // 100}.{value % 100:02}" if value >= 0 else f"-{-value // 100}.{-value % 100:02}"
    assert read_number(cents) == Fraction(value, 100)


@pytest.mark.parametrize(
    ("gold", "reply", "value"),
    [
        ("the red house", "red house", 1.0),
        ("red house", "a red barn", 0.5),  # precision 1/2, recall 1/2
        ("red house", "the big red house there", 2 / 3),  # precision 2/4, recall 1
        ("red house", "green", 0.0),
        ("red red house", "red red red", 2 / 3),  # two of three words in common on both sides
        ("red house", "", 0.0),
    ],
)
def test_f1_counts_the_words_in_common(gold, reply, value):
    assert score("f1", gold, reply) == pytest.approx(value)


def test_an_unknown_checker_is_refused_by_name():
    with pytest.raises(
        ValueError, match="check='fuzzy' is not allowed; it must be one of choice, code, countdown, exact, f1"
    ):
        score("fuzzy", "1", "1")


def test_a_tolerance_is_a_share_of_the_gold_answer():
    task = Task(id="t", prompt="?", answer="-200", check="number", metadata={"tolerance": 0.05})
    assert [check(task, text) for text in ("-190", "-210", "-189", "210", "x")] == [1, 1, 0, 0, 0]
    for wrong in (1, -0.1, "5 %", True):
        with pytest.raises(ValueError, match=r"metadata.tolerance=.* is not allowed; it must be 0 to less than 1"):
            validate(replace(task, metadata={"tolerance": wrong}))


def test_replies_that_mean_the_same_vote_alike():
    def vote(how, reply):
        return alike(Task(id="t", prompt="?", answer="2", check=how), reply)

    assert vote("number", "1,000") == vote("number", "<answer>1000.0 km</answer>") == vote("number", "\\boxed{1e3}")
    assert vote("math", "\\frac{1}{2}") == vote("math", "$0.5$")
    assert vote("number", "many") == vote("exact", "Many!") == "many"
    assert vote("exact", "1000") != vote("exact", "1000.0")


@pytest.mark.parametrize("how", ["math", "countdown"])
def test_formulas_with_other_operators_are_other_votes(how):
    def votes(*replies):
        return len({alike(Task(id="t", prompt="?", answer="2", check=how), reply) for reply in replies})

    formulas = ("x+2", "x-2", "-x+2", "x^2", "x_2", "x/2", "x<2", "x>2", "2x", "2", "5!", "5", "5²", "52", "5 2")
    assert votes(*formulas) == len(formulas)
    assert votes("3+4*2", "3-4-2", "3+4+2") == 3
    assert votes("x + 2", "$x+2$", "\\(x + 2\\).", "\\text{x+2}", "So \\boxed{x\\,+\\;2}") == 1
    assert votes("3 − 2", "3-2") == votes("x²", "x^2") == votes("\\left(1,\\!2\\right)", "(1, 2)") == 1
    assert votes("\\dfrac{x}{2}", "\\frac{x}{2}") == 1
    assert votes("\\rightarrow", "\\leftarrow") == 2


def test_a_formula_that_is_a_number_votes_as_one_and_never_without_its_unit():
    def vote(reply):
        return alike(Task(id="t", prompt="?", answer="2", check="math"), reply)

    assert vote("1 1/2") == vote("\\(\\dfrac{3}{2}\\)") == vote("1.50.") == "3/2"
    assert vote("\\$1\\,000") == vote("1,000") == "1000"
    assert len({vote(text) for text in ("2", "2 y", "2m", "2%")}) == 4
