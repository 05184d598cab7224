"""What an action calls, what search and reader find, what the calculator computes, and whose doing a failure is."""

import pickle
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from games.tasks.corpus import corpus
from games.tools.base import ToolError, ToolFault, cut, parse_call, use
from games.tools.calculator import Calculator, told, value
from games.tools.documents import Stored
from games.tools.reader import Reader
from games.tools.search import Search

DOCUMENTS = (
    Stored(id="d2", title="Ada", text="Ada was born in Tokiburg. She liked long walks and short books."),
    Stored(id="d1", title="Bob", text="Bob was born in Kopeford."),
    Stored(id="d3", title="Tokiburg", text="Tokiburg is a city."),
)


class Slow:
    """Takes half a minute."""

    name = "slow"
    usage = "slow: ANYTHING"

    def __call__(self, argument: str) -> str:
        time.sleep(30)
        return argument


class Broken:
    """Raises, or returns no text."""

    name = "broken"
    usage = "broken: ANYTHING"

    def __call__(self, argument: str) -> str:
        if argument == "number":
            return 3  # type: ignore[return-value]
        raise OSError("disk gone")


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("calculate: 1 + 2", "1 + 2"),
        ("  CALCULATE :  1 + 2  ", "1 + 2"),
        ("calculate:\n1\n+ 2", "1\n+ 2"),
        ("calculate:", ""),
        ("1 + 2", None),
        ("calculated: 1", None),
        ("calculate: 1\ncalculate: 2", None),
        ("calculate 1", None),
    ],
)
def test_a_call_is_a_name_a_colon_and_an_argument(text: str, argument: str | None) -> None:
    call = parse_call(text, [Calculator()])
    assert (call and call[1]) == argument


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="one tool per name"):
        parse_call("x", [Calculator(), Calculator()])


def test_search_finds_by_words_best_first_and_any_text_is_a_query() -> None:
    search = Search(DOCUMENTS, results=2)
    lines = search("Where was Ada born?").splitlines()
    assert [line.partition("]")[0] for line in lines] == ["[d2", "[d1"]
    assert search('"Tokiburg" AND NOT (city*) OR NEAR') == search("tokiburg and not city or near")
    assert search("zzz") == "nothing found"
    with pytest.raises(ToolError, match="no words"):
        search(" ?! ")
    assert pickle.loads(pickle.dumps(search))("Ada") == deepcopy(search)("Ada") == search("Ada")


def test_a_search_shows_as_many_words_of_a_document_as_it_is_told() -> None:
    long = [Stored(id="d9", title="Long", text=" ".join(f"w{number}" for number in range(100)))]
    for snippet in (1, 24, 64):
        shown = Search(long, snippet=snippet)("w50").partition(": ")[2].strip(".").split()
        assert len(shown) == snippet
        assert "w50" in shown
        assert pickle.loads(pickle.dumps(Search(long, snippet=snippet)))("w50") == Search(long, snippet=snippet)("w50")
    assert Search(long)("w50") == Search(long, snippet=24)("w50")
    for wrong in (0, 65, 2.0):
        with pytest.raises(ValueError, match=r"snippet=.* it must be a whole number, 1 to 64"):
            Search(long, snippet=wrong)  # type: ignore[arg-type]


def test_many_threads_search_one_index_and_find_the_same() -> None:
    search = Search(corpus(documents=200).documents)
    names = [document.title for document in corpus(documents=200).documents[:40]]
    alone = [search(name) for name in names]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(search, names)) == alone
    assert all(line.splitlines()[0].split("] ")[1].startswith(name) for name, line in zip(names, alone, strict=True))


def test_a_document_is_read_by_id_or_title_page_by_page() -> None:
    long = Stored(id="d9", title="Long", text="word " * 100)
    reader = Reader((*DOCUMENTS, long), page=120)
    assert reader("d1") == reader(" [d1] ") == reader("Bob") == "[d1] Bob\nBob was born in Kopeford."
    pages = [reader(f"d9 page {number}").partition("\n")[2] for number in range(1, 6)]
    assert " ".join(pages).split() == ["word"] * 100
    assert reader("d9").startswith("[d9] Long (page 1 of 5)\n")
    for wrong, said in (("d8", "no document"), ("", "which document"), ("d9 page 6", "has pages 1 to 5")):
        with pytest.raises(ToolError, match=said):
            reader(wrong)


def test_a_broken_corpus_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "title": "A", "text": "x"}\n{"id": "b"}\n')
    with pytest.raises(ValueError, match=r"corpus.jsonl, line 2: .* must be an object with texts id, title and text"):
        Search(str(path))
    with pytest.raises(ValueError, match="id 'd1' is not allowed twice"):
        Reader((*DOCUMENTS, DOCUMENTS[1]))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("3 * (4 + 5) / 7", "27/7 (about 3.85714285714)"),
        ("0.1 + 0.2", "0.3"),
        ("-1/8", "-0.125"),
        ("2^10 % 7", "2"),
        ("7 // 2", "3"),
        ("sqrt(2)", "about 1.41421356237"),
        ("factorial(5)", "120"),
    ],
)
def test_the_calculator_is_exact_where_numbers_are(expression: str, said: str) -> None:
    assert Calculator()(expression) == said


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9",
        "1/0",
        "(" * 200,
        "__import__('os')",
        "x",
        "1 +",
        "'a' * 10**9",
        "factorial(10**6)",
        "1" * 301,
        "[1][0]",
    ],
)
def test_what_has_no_value_or_is_too_large_is_the_agents_mistake(expression: str) -> None:
    with pytest.raises(ToolError):
        Calculator()(expression)


@given(st.integers(-(10**6), 10**6), st.integers(-(10**6), 10**6), st.integers(1, 10**4))
def test_sums_products_and_quotients_are_those_of_fractions(a: int, b: int, c: int) -> None:
    assert value(f"({a} + {b}) * {c} - {a} / {c}") == (a + b) * c - Fraction(a, c)
    assert told(Fraction(a)) == str(a)


def test_a_failure_of_the_tool_is_a_fault_and_one_of_the_agent_is_not() -> None:
    with pytest.raises(ToolFault, match="tool slow hangs"):
        use(Slow(), "x", seconds=0.05)
    with pytest.raises(ToolFault, match="tool broken is broken: OSError: disk gone"):
        use(Broken(), "x")
    with pytest.raises(ToolFault, match="it returns int, not text"):
        use(Broken(), "number")
    with pytest.raises(ToolError, match="division by zero"):
        use(Calculator(), "1/0")
    assert (
        use(Calculator(), "2 ** 100", characters=10) == cut(str(2**100), 10) == "1267650600... (21 characters left out)"
    )
