"""Names of playing cards."""

_RANKS = ("2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K", "A")


def rank_names(count: int) -> tuple[str, ...]:
    """The names of `count` ranks (3 to 13), lowest first: J, Q, K, or the highest ones up to the ace."""
    return ("J", "Q", "K") if count == 3 else _RANKS[len(_RANKS) - count :]
