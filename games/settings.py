"""Settings that several games share, and how a bad one is refused."""

from typing import Any, Literal, get_args

OnIllegal = Literal["forfeit", "default_action"]
"""`forfeit`: the offender ends at the least legal utility minus 1, the others get nothing more, and the game ends.
`default_action`: an action that the game names, as a rule the first legal one, is played instead."""


def refused(game: str, setting: str, value: object, allowed: str) -> ValueError:
    """The error that names the game, the setting, its value and what is allowed."""
    return ValueError(f"game {game}: {setting}={value!r} is not allowed; it must be {allowed}")


def check_on_illegal(game: str, on_illegal: str) -> None:
    """Refuse a value that is not an `OnIllegal`.

    Raises:
        ValueError: see above.
    """
    check_choice(game, OnIllegal, on_illegal=on_illegal)


def check_whole(game: str, *, least: int = 1, **settings: object) -> None:
    """Refuse values that are not whole numbers, or less than `least`.

    Raises:
        ValueError: names the first of them.
    """
    for setting, value in settings.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise refused(game, setting, value, f"a whole number, {least} or more")


def check_flag(game: str, **settings: object) -> None:
    """Refuse values that are neither true nor false.

    Raises:
        ValueError: names the first of them.
    """
    for setting, value in settings.items():
        if not isinstance(value, bool):
            raise refused(game, setting, value, "true or false")


def check_choice(game: str, choices: Any, **settings: object) -> None:
    """Refuse values that are none of those of `choices`, a `Literal`.

    Raises:
        ValueError: names the first of them.
    """
    for setting, value in settings.items():
        if value not in get_args(choices):
            raise refused(game, setting, value, " or ".join(get_args(choices)))


def check_positive(game: str, **settings: object) -> None:
    """Refuse values that are no numbers above 0.

    Raises:
        ValueError: names the first of them.
    """
    for setting, value in settings.items():
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not value > 0:
            raise refused(game, setting, value, "more than 0")
