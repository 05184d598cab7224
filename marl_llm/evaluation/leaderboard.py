"""Results of tournaments in a file, and what the files of many people say together.

A file is data of somebody else's: no game, model or address in it is ever made, loaded or asked.
"""

import fcntl
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

from marl_llm.config import GameConfig
from marl_llm.config.policies import NAME_LENGTH
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.meetings import Deal, Meeting
from marl_llm.evaluation.tournament import Tournament, tally
from marl_llm.files import replace, writing

FORMAT = "marl-llm leaderboard, version 1"
FIELDS = {"game", "settings", "seed", "players", "episodes", "faults", "deals"}
LARGEST = 1e12
"""Payoffs are not further from 0, so that sums and squares of them stay finite."""
SHOWN = 100
"""Characters of somebody else's text that an error shows."""
DEEPEST = 20
"""How deeply a game's settings may be nested."""

Key = tuple[str, str, int, tuple[str, str]]
"""Game, its settings as JSON, seed, players: what is the same is known once."""


def merge(*boards: Iterable[Meeting]) -> list[Meeting]:
    """All meetings in the order of their keys, each once; neither the order of the boards nor of their parts matters.

    Raises:
        RunError: two have the same key and differ in what came out; it is named.
    """
    known: dict[Key, Meeting] = {}
    for meeting in (meeting for board in boards for meeting in board):
        other = known.setdefault(_key(meeting), meeting)
        if _outcome(other) != _outcome(meeting):
            one, two = meeting.players
            game = f"{meeting.game.name} {settings_text(meeting.game)}".strip()[:SHOWN]
            raise RunError(
                f"game {game!r}, seed {meeting.seed}, {one!r} against {two!r}: known with other "
                "results; whoever plays again needs another seed, another player another name"
            )
    return [known[key] for key in sorted(known)]


def tallies(meetings: Iterable[Meeting]) -> list[Tournament]:
    """The standings of each game with its settings over all that is known; players in alphabetical order."""

    def same(meeting: Meeting) -> tuple[str, str]:
        return _key(meeting)[:2]

    found = []
    for _, group in groupby(merge(meetings), key=same):
        together = list(group)
        faults = {" against ".join(meeting.players): 0 for meeting in together}
        for meeting in together:
            faults[" against ".join(meeting.players)] += meeting.faults
        players = sorted({player for meeting in together for player in meeting.players})
        at_fault = {pair: count for pair, count in faults.items() if count}
        found.append(tally(together[0].game, players, together, faults=at_fault))
    return found


def read(path: Path) -> list[Meeting]:
    """The meetings that a file holds.

    Raises:
        RunError: there is no such file, or it is damaged or of another version; the line says what is wrong.
    """
    try:
        return list(_meetings(json.loads(path.read_bytes())))
    except FileNotFoundError as error:
        raise RunError(f"{path}: no such file") from error
    except OSError as error:
        raise RunError(f"could not read {path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise RunError(f"{path}: not a leaderboard: nested too deeply") from error
    except ValueError as error:  # JSON's own errors among them
        raise RunError(f"{path}: {error}") from error


def read_all(paths: Iterable[Path]) -> list[Meeting]:
    """What several files say together.

    Raises:
        RunError: see `read` and `merge`; the file is named.
    """
    known: list[Meeting] = []
    for path in paths:
        known = _merged(path, known, read(path))
    return known


def add(path: Path, meetings: Iterable[Meeting]) -> list[Meeting]:
    """Add to what a file holds, which is made if it is not there; returns all of it.

    Several processes may do so at once. Whatever happens, the file is as before or whole.

    Raises:
        RunError: see `read` and `merge`, or it could not be written.
    """
    path = path.resolve()  # a link stays one
    with writing(path), _alone(path):
        known = _merged(path, read(path) if path.exists() else [], meetings)
        replace(path, _text(path, known).encode())
    return known


def require_fit(game: GameConfig, players: Iterable[str]) -> None:
    """Refuse what no leaderboard could hold, before it is played.

    Raises:
        ConfigError: a name is too long, or the game's settings are no JSON.
    """
    for player in players:
        if len(player) > NAME_LENGTH:
            allowed = f"at most {NAME_LENGTH} characters long in a leaderboard; NAME=SPEC gives it a name"
            raise ConfigError(f"player {player!r}: the name is not allowed; it must be {allowed}")
    try:
        _settings_fit(game)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"a leaderboard cannot hold the settings {game.settings}: {error}") from error


def settings_text(game: GameConfig) -> str:
    """The settings as one would type them, in one line."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in sorted(game.settings.items()))


def _merged(path: Path, *boards: Iterable[Meeting]) -> list[Meeting]:
    try:
        return merge(*boards)
    except RunError as error:
        raise RunError(f"{path}: {error}") from error


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time reads, merges and writes; whoever dies lets go."""
    with path.with_name(f".{path.name}.lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key(meeting: Meeting) -> Key:
    return meeting.game.name, _settings(meeting.game), meeting.seed, meeting.players


def _settings(game: GameConfig) -> str:
    return json.dumps(game.settings, sort_keys=True, allow_nan=False)


def _outcome(meeting: Meeting) -> tuple[object, ...]:
    return meeting.deals, meeting.episodes, meeting.faults


def _text(path: Path, meetings: Iterable[Meeting]) -> str:
    """One line for each meeting; what could not be read again is not written."""
    try:
        rows = [json.dumps(_row(meeting), sort_keys=True, allow_nan=False) for meeting in meetings]
        text = f'{{"format": {json.dumps(FORMAT)}, "meetings": [\n' + ",\n".join(rows) + "\n]}\n"
        list(_meetings(json.loads(text)))
    except ValueError as error:
        raise RunError(f"{path} cannot hold this: {error}") from error
    return text


def _row(meeting: Meeting) -> dict[str, Any]:
    return {
        "game": meeting.game.name,
        "settings": meeting.game.settings,
        "seed": meeting.seed,
        "players": list(meeting.players),
        "episodes": meeting.episodes,
        "faults": meeting.faults,
        "deals": [None if deal is None else [*deal.payoffs, *deal.wins, deal.advantage] for deal in meeting.deals],
    }


def _meetings(data: Any) -> Iterator[Meeting]:
    """What a file says, checked.

    Raises:
        ValueError: what is wrong.
    """
    told = data.get("format") if isinstance(data, Mapping) else None
    if not isinstance(told, str) or data.keys() != {"format", "meetings"} or not isinstance(data["meetings"], list):
        raise ValueError("not a leaderboard: it must be an object with a format and meetings")
    if told != FORMAT:
        raise ValueError(f"its format is {told[:SHOWN]!r}; this program knows {FORMAT!r}")
    for number, row in enumerate(data["meetings"], start=1):
        try:
            yield _meeting(row)
        except ValueError as error:
            raise ValueError(f"meeting {number}: {error}") from error


def _meeting(row: Any) -> Meeting:
    if not isinstance(row, dict) or row.keys() != FIELDS:
        raise ValueError(f"it must be an object of {', '.join(sorted(FIELDS))}")
    game, settings, players, deals = row["game"], row["settings"], row["players"], row["deals"]
    _need(isinstance(game, str) and game != "", "game", game, "a name")
    _need(isinstance(settings, dict), "settings", settings, "an object")
    _settings_fit(GameConfig(name=game, settings=settings))
    named = isinstance(players, list) and len(players) == 2 and all(map(_is_name, players))
    allowed = f"two names of 1 to {NAME_LENGTH} characters in alphabetical order"
    _need(named and players == sorted(players), "players", players, allowed)
    for name in ("seed", "episodes", "faults"):
        _need(type(row[name]) is int, name, row[name], "a whole number")
    _need(0 <= row["faults"] <= row["episodes"], "faults", row["faults"], "0 or more, and no more than episodes")
    _need(isinstance(deals, list) and bool(deals), "deals", deals, "a list of one or more")
    return Meeting(
        game=GameConfig(name=game, settings=settings),
        seed=row["seed"],
        players=(players[0], players[1]),
        deals=tuple(_deal(told, alone=players[0] == players[1]) for told in deals),
        episodes=row["episodes"],
        faults=row["faults"],
    )


def _deal(told: Any, *, alone: bool) -> Deal | None:
    """`alone`: of a player with itself."""
    if told is None:
        return None
    numbers = isinstance(told, list) and len(told) == 5 and all(map(_is_number, told))
    _need(numbers, "deals", told, f"null or five numbers of at most {LARGEST:g}")
    mine, theirs, won, lost, advantage = (float(value) + 0.0 for value in told)  # -0.0 becomes 0.0
    _need(0 <= min(won, lost) <= max(won, lost) <= 1, "deals", told, "two payoffs, two shares and an advantage")
    even = (mine, won, advantage) == (theirs, lost, 0)
    _need(even or not alone, "deals", told, "even where a player meets itself")
    return Deal(payoffs=(mine, theirs), wins=(won, lost), advantage=advantage)


def _settings_fit(game: GameConfig) -> None:
    """Raise a ValueError where settings are no JSON, or nested so deeply that programs stumble over them."""
    _settings(game)
    _need(_depth(game.settings) <= DEEPEST, "settings", game.settings, f"nested at most {DEEPEST} deep")


def _depth(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inside), default=0)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_LENGTH


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and type(value) is not bool and abs(value) <= LARGEST


def _need(fine: bool, name: str, value: object, allowed: str) -> None:
    if not fine:
        raise ValueError(f"{name}: {repr(value)[:SHOWN]} is not allowed; it must be {allowed}")
