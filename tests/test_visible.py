"""Text of somebody else's that cannot act or hide on a screen."""

import unicodedata

import pytest

from marl_llm.visible import cut, shortened, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a\nb\tc", "a\nb\tc"),
        ("é 漢 🙂 ±", "é 漢 🙂 ±"),
        ("\x00\x1b[31m\r", "⟨U+0000⟩⟨U+001B⟩[31m⟨U+000D⟩"),
        ("\x7f\x85", "⟨U+007F⟩⟨U+0085⟩"),
        ("a\u202eb\u2066c", "a⟨U+202E⟩b⟨U+2066⟩c"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("\u2028\u2029", "⟨U+2028⟩⟨U+2029⟩"),
        ("\ud800", "⟨U+D800⟩"),
        ("\U000e0041\ue000", "⟨U+E0041⟩⟨U+E000⟩"),
        ("<b>&", "<b>&"),
    ],
)
def test_what_acts_or_hides_is_shown_as_a_sign(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_whatever_there_is_can_be_encoded_and_hides_nothing() -> None:
    text = visible("".join(map(chr, range(0x110000))))
    text.encode()
    kinds = {unicodedata.category(char) for char in text if char not in "\n\t"}
    assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def test_texts_are_cut_with_how_much_is_missing() -> None:
    assert cut("abcdef", 4) == ("abcd", 2)
    assert cut("abc", 4) == ("abc", 0)
    assert shortened("a  b\n c", 10) == "a b c"
    assert shortened("abcdefghij" * 100, 10) == "abcdefghi…"
    assert shortened("ab\x00", 10) == "ab⟨U+0000⟩"
    assert shortened(" " * 100 + "hidden", 10) == "…"
