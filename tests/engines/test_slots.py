from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from marl_llm.engines.base import Request
from marl_llm.engines.slots import Copy, PrefixIndex, Slots, pack_tokens, shared_prefix
from marl_llm.types import Tokens

PROMPT = tuple(range(100, 140))
SEQUENCES = st.lists(st.lists(st.integers(0, 2), max_size=6).map(tuple), max_size=12)


def ask(slots: Slots, ticket: str, prompt: Tokens) -> None:
    slots.submit(Request(ticket=ticket, policy="p", prompt=prompt, max_tokens=5, seed=0))


def read(slots: Slots) -> None:
    """As if the model had read everything and one token had been sampled everywhere."""
    for run in slots.running.values():
        run.filled = len(run.tokens)
        run.tokens.append(1)


def common(a: Tokens, b: Tokens) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a, b)))


@given(SEQUENCES, st.lists(st.integers(0, 2), max_size=6).map(tuple))
def test_the_longest_shared_prefix_is_found_among_neighbours(held: list[Tokens], wanted: Tokens) -> None:
    index = PrefixIndex()
    for row, tokens in enumerate(held):
        index.add(row, pack_tokens(tokens))
    row, shared = index.longest(pack_tokens(wanted))
    assert shared == max((common(wanted, tokens) for tokens in held), default=0)
    assert (row == -1) == (shared == 0)
    for row in range(0, len(held), 2):
        assert index.remove(row) == pack_tokens(held[row])
    assert index.longest(pack_tokens(wanted))[1] == max((common(wanted, tokens) for tokens in held[1::2]), default=0)


@given(st.lists(st.integers(0, 2**32 - 1), max_size=4), st.lists(st.integers(0, 2**32 - 1), max_size=4))
def test_packed_tokens_compare_as_tokens_do(a: list[int], b: list[int]) -> None:
    assert (pack_tokens(a) < pack_tokens(b)) == (a < b)
    assert shared_prefix(pack_tokens(a), pack_tokens(b)) == common(tuple(a), tuple(b))
    assert shared_prefix(pack_tokens(a + b), pack_tokens(a)) == len(a)


def test_group_members_wait_for_the_first_to_be_read_and_then_copy_it() -> None:
    slots = Slots(slots=4, cache_slots=0)
    for ticket in "abc":
        ask(slots, ticket, PROMPT)
    admitted, copies = slots.admit()
    assert [run.request.ticket for run in admitted] == ["a"]
    assert copies == []
    read(slots)
    admitted, copies = slots.admit()
    assert [(run.request.ticket, run.row, run.filled) for run in admitted] == [("b", 1, 39), ("c", 2, 39)]
    assert copies == [Copy(0, (1, 2), 0, 39)]


def test_a_request_with_nothing_to_share_overtakes_those_that_wait() -> None:
    slots = Slots(slots=4, cache_slots=0)
    for ticket, prompt in (("a", PROMPT), ("b", PROMPT), ("c", (1, 2, 3))):
        ask(slots, ticket, prompt)
    admitted, _ = slots.admit()
    assert [run.request.ticket for run in admitted] == ["a", "c"]
    assert [request.ticket for request, _ in slots.waiting] == ["b"]


def test_a_conversation_takes_its_row_over_without_a_copy() -> None:
    slots = Slots(slots=2, cache_slots=2)
    ask(slots, "a", PROMPT)
    (run,), _ = slots.admit()
    read(slots)
    slots.release(run)
    ask(slots, "a", (*PROMPT, 1, 7, 7))
    (run,), copies = slots.admit()
    assert (run.row, run.filled, run.pending, copies) == (0, 40, 3, [])


def test_a_fork_copies_and_leaves_the_original() -> None:
    slots = Slots(slots=2, cache_slots=2)
    ask(slots, "a", PROMPT)
    (run,), _ = slots.admit()
    read(slots)
    slots.release(run)
    ask(slots, "fork", (*PROMPT[:30], 7))
    (run,), copies = slots.admit()
    assert (run.row, run.filled, copies) == (1, 30, [Copy(0, (1,), 0, 30)])


def test_the_row_unused_for_longest_goes_first() -> None:
    slots = Slots(slots=1, cache_slots=1)
    for number in (1, 2):
        ask(slots, "x", (number,) * 20)
        (run,), _ = slots.admit()
        read(slots)
        slots.release(run)
    ask(slots, "x", (3,) * 20)
    (run,), _ = slots.admit()
    assert run.row == 0
    read(slots)
    slots.release(run)
    ask(slots, "x", (*(2,) * 20, 1))
    (run,), _ = slots.admit()
    assert (run.row, run.filled) == (1, 20)


def test_forgetting_makes_running_rows_read_again_and_frees_the_others() -> None:
    slots = Slots(slots=2, cache_slots=0)
    for ticket, prompt in (("a", PROMPT), ("b", (1, 2, 3))):
        ask(slots, ticket, prompt)
    (a, b), _ = slots.admit()
    read(slots)
    slots.release(a)
    slots.forget()
    assert (b.filled, b.pending) == (0, 4)
    ask(slots, "a", PROMPT)
    (a,), copies = slots.admit()
    assert (a.row, a.filled, copies) == (0, 0, [])


def test_being_copied_counts_as_use() -> None:
    slots = Slots(slots=1, cache_slots=2)
    rows = []
    for prompt in ((1,) * 20, (2,) * 20, (*(1,) * 10, 5), (3,) * 20):
        ask(slots, "x", prompt)
        (run,), _ = slots.admit()
        rows.append(run.row)
        read(slots)
        slots.release(run)
    assert rows == [0, 1, 2, 1]
