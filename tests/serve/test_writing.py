"""A reply as text while its tokens come in: the same whatever the pieces, up to a stop text and no further."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from marl_llm.serve.writing import Writing

WORDS = [b"a", b"b", b"ab", b"stop", b"st", b"op", b"\xc3", b"\xa9", "é".encode(), b" ", b"\xe2\x82"]


def decode(tokens: Sequence[int]) -> str:
    """Tokens are bytes, as in a byte-level tokenizer."""
    return b"".join(WORDS[token] for token in tokens).decode(errors="replace")


def written(tokens: Sequence[int], cuts: Sequence[int], stops: Sequence[str]) -> tuple[Writing, list[str]]:
    writing, shown = Writing(decode, stops), []
    for cut in sorted({min(cut, len(tokens)) for cut in cuts}):
        writing.add(tuple(tokens[:cut]))
        shown.append(writing.news())
    writing.add(tuple(tokens), last=True)
    return writing, [*shown, writing.rest()]


def tokens_of(text: str) -> tuple[int, ...]:
    return tuple(WORDS.index(bytes([byte])) for byte in text.encode())


@given(st.lists(st.integers(0, len(WORDS) - 1)), st.lists(st.integers(0, 40)), st.sampled_from([(), ("stop", "ba")]))
def test_text_does_not_depend_on_when_its_tokens_are_told(
    tokens: list[int], cuts: list[int], stops: tuple[str, ...]
) -> None:
    writing, shown = written(tokens, cuts, stops)
    whole, _ = written(tokens, [], stops)
    assert "".join(shown) == writing.text == whole.text
    assert writing.used == whole.used
    assert writing.stopped == whole.stopped == any(stop in decode(tokens) for stop in stops)
    if not writing.stopped:
        assert (writing.text, writing.used) == (decode(tokens), len(tokens))


def test_half_a_character_waits_for_its_other_half() -> None:
    _, shown = written([0, 6, 7, 1], [1, 2, 3, 4], ())
    assert shown == ["a", "", "é", "b", ""]


def test_what_may_become_a_stop_text_waits_until_it_is_clear() -> None:
    _, shown = written([0, 4, 1, 4, 5, 0], [1, 2, 3, 4, 5, 6], ("stop",))
    assert shown == ["a", "", "stb", "", "", "", ""]


def test_the_stop_text_that_ends_first_counts() -> None:
    writing, _ = written([2, 3], [], ("abs", "b", "st"))
    assert (writing.text, writing.used) == ("a", 1)
    longer, _ = written([2, 3], [], ("st", "abst"))
    assert (longer.text, longer.used) == ("", 2)
