"""Spaces of text."""

import string
from typing import Any

from gymnasium import spaces


class AnyText(spaces.Text):
    """Any Unicode text of at most `max_length` characters; samples are printable ASCII.

    Gymnasium's own `Text` holds only texts over a fixed set of characters: it would reject an observation in
    Greek.
    """

    def __init__(self, max_length: int) -> None:
        super().__init__(max_length, min_length=0, charset=string.printable)

    def contains(self, x: Any) -> bool:
        return isinstance(x, str) and len(x) <= self.max_length
