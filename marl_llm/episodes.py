"""The JSON form of an episode: one line of a file, exact in both directions.

Fields that hold their default are left out, so that a line shows what happened and nothing else. Floats have as
many digits as it takes to read back the same number. `settings` and `hidden` hold JSON values; a tuple inside
them comes back as a list.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from marl_llm.errors import RunError
from marl_llm.types import Branch, Completion, Episode, Match, Turn

Json = dict[str, Any]
GREATEST = 1e100
"""What is further from 0 was not measured: its square would not be a number."""


def episode_to_json(episode: Episode, *, tokens: bool = True) -> str:
    """One line without its newline; `tokens=False` leaves out prompts and completions.

    Raises:
        ValueError: a number is not finite.
        TypeError: `settings` or `hidden` hold something that JSON cannot express.
    """
    fields: Json = {"match": _match_fields(episode.match), "returns": episode.returns, "status": episode.status}
    if episode.note:
        fields["note"] = episode.note
    if episode.hidden:
        fields["hidden"] = episode.hidden
    turns = ",".join(_turn_to_json(turn, tokens) for turn in episode.turns)
    return f'{_encode(fields)[:-1]},"turns":[{turns}]}}'


def episode_from_json(line: str | bytes) -> Episode:
    """The episode of one line.

    Raises:
        ValueError: the line is not an episode; the message says what is wrong.
    """
    try:
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("it is not an object")
        match = _match(fields.pop("match"))
        turns = tuple(map(_turn, fields.pop("turns")))
        return Episode(match=match, turns=turns, **fields)
    except KeyError as error:
        raise ValueError(f"{error.args[0]!r} is missing") from error
    except (TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error


def read_episodes(path: str | Path) -> Iterator[Episode]:
    """The episodes of one file, or of all steps of a run directory in order.

    Raises:
        RunError: there is no such file, or, while iterating, a line is not an episode (it is named).
    """
    files = batch_files(path)
    return (episode for file in files for episode in _read(file))


def batch_files(path: str | Path) -> list[Path]:
    """The files that hold one training step each: those of a run directory in order, or the one that is named.

    Raises:
        RunError: there is no such file, or the folder is not a run directory.
    """
    path = Path(path)
    if not path.exists():
        raise RunError(f"{path}: no such file or run directory")
    folder = path / "episodes"
    if path.is_dir() and not folder.is_dir():
        raise RunError(f"{path}: not a run directory, since it has no folder episodes")
    return [file for _, file in episode_files(folder)] if path.is_dir() else [path]


def episode_files(folder: Path) -> list[tuple[int, Path]]:
    """Step and file of what is called `step_000012.jsonl` in a folder, in the order of steps; the rest is not ours."""
    named = ((re.fullmatch(r"step_(\d+)\.jsonl", file.name), file) for file in folder.glob("step_*.jsonl"))
    return sorted((int(match[1]), file) for match, file in named if match)


def checked_from_json(line: str | bytes) -> Episode:
    """The episode of a line that anybody may have written.

    Raises:
        ValueError: it is none, or something in it has another type; the message says what is wrong.
    """
    try:
        return checked(episode_from_json(line))
    except RecursionError as error:
        raise ValueError(str(error)) from error


def checked(episode: Episode) -> Episode:
    """The episode, if its texts are texts and its numbers numbers.

    Raises:
        ValueError: something in it has another type.
    """
    for index, turn in enumerate(episode.turns):
        maybe = tuple(text for text in (turn.action, turn.state_key) if text is not None)
        texts = (turn.agent, turn.role, turn.policy, turn.observation, turn.reply, *maybe)
        if not _texts((*texts, *(turn.legal_actions or ()))):
            raise ValueError("a turn has something else where a text belongs")
        if not _numbers(turn.rewards, is_number_or_none) or not _numbers(turn.probes, is_number):
            raise ValueError("a reward or a probe is no number")
        if not is_number(turn.weight) or type(turn.begun) is not int or turn.legal not in (True, False, None):
            raise ValueError("a turn has something else where a number belongs")
        done = turn.completion
        if done is not None and not (_all_numbers(done.tokens) and _all_numbers(done.logprobs)):
            raise ValueError("what was sampled is no row of numbers")
        if done is not None and not (_tokens(done.tokens) and len(done.tokens) == len(done.logprobs)):
            raise ValueError("what was sampled is no row of tokens with a log-probability each")
        if done is not None and not (_all_numbers(done.versions) and len(done.tokens) == len(done.versions)):
            raise ValueError("what was sampled does not have a version for each token")
        if not _tokens(turn.prompt or ()) or not _numbers(turn.token_probes, _is_row):
            raise ValueError("a prompt or a probe is no row of numbers")
        if turn.parent is not None and not (type(turn.parent) is int and 0 <= turn.parent < index):
            raise ValueError("a turn is called by one that is not before it")
    match = episode.match
    if type(match.seed) is not int or type(match.member) is not int:
        raise ValueError("its seed or member is no whole number")
    if not isinstance(match.settings, dict) or not isinstance(episode.hidden, dict):
        raise ValueError("its settings or what is hidden are no mapping")
    if not _texts((match.id, match.game, match.group, match.label, episode.status, episode.note)):
        raise ValueError("its match has something else where a text belongs")
    if not isinstance(match.seats, dict) or not _texts(tuple(match.seats.values())):
        raise ValueError("its seats are no policies")
    if type(match.begins) is not int or (match.branch is not None and not _texts((match.branch.episode,))):
        raise ValueError("its branch is none")
    if match.branch is not None and match.branch.episode == match.id:
        raise ValueError("it is forked from itself")
    if not _numbers(episode.returns, is_number):
        raise ValueError("a return is no number")
    return episode


def _texts(values: tuple[object, ...]) -> bool:
    return all(isinstance(value, str) for value in values)


def _numbers(values: object, right: Callable[[object], bool]) -> bool:
    return isinstance(values, dict) and all(map(right, values.values()))


def _tokens(values: tuple[object, ...]) -> bool:
    return all(type(value) is int and 0 <= value < 2**31 for value in values)


def _is_row(values: object) -> bool:
    """Whether it is a row of numbers; NaN is what was not measured."""
    return isinstance(values, tuple) and all(type(value) in (int, float) for value in values)


def _all_numbers(values: tuple[object, ...]) -> bool:
    return all(map(is_number, values))


def is_number(value: object) -> bool:
    """Whether it is a number, and one that may have been measured."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -GREATEST < value < GREATEST


def is_number_or_none(value: object) -> bool:
    """The same; None is what could not be measured."""
    return value is None or is_number(value)


def _read(file: Path) -> Iterator[Episode]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                episode = episode_from_json(line)
            except ValueError as error:
                raise RunError(f"{file}:{number}: not an episode: {error}") from error
            yield episode


def _match_fields(match: Match) -> Json:
    fields: Json = {"id": match.id, "game": match.game}
    if match.settings:
        fields["settings"] = match.settings
    fields |= {"seed": match.seed, "group": match.group, "seats": match.seats}
    if match.member:
        fields["member"] = match.member
    if match.label:
        fields["label"] = match.label
    if match.branch is not None:
        fields["branch"] = asdict(match.branch)
    return fields


def _match(fields: Json) -> Match:
    if "branch" in fields:
        fields["branch"] = Branch(**fields["branch"])
    return Match(**fields)


def _turn_to_json(turn: Turn, tokens: bool) -> str:
    line = _encode(_turn_fields(turn, tokens))
    return f'{line[:-1]},"prompt":{_encode_prompt(turn.prompt)}}}' if tokens and turn.prompt is not None else line


def _turn_fields(turn: Turn, tokens: bool) -> Json:
    fields: Json = {
        "agent": turn.agent,
        "role": turn.role,
        "policy": turn.policy,
        "observation": turn.observation,
        "reply": turn.reply,
        "action": turn.action,
        "legal": turn.legal,
    }
    if turn.legal_actions is not None:
        fields["legal_actions"] = turn.legal_actions
    if tokens and turn.completion is not None:
        fields["completion"] = _completion_fields(turn.completion)
    if turn.rewards:
        fields["rewards"] = turn.rewards
    if turn.parent is not None:
        fields["parent"] = turn.parent
    if turn.state_key is not None:
        fields["state_key"] = turn.state_key
    if turn.weight != 1.0:
        fields["weight"] = turn.weight
    if turn.begun:
        fields["begun"] = turn.begun
    if turn.probes:
        fields["probes"] = turn.probes
    if tokens and turn.token_probes:
        fields["token_probes"] = {name: _nulls(values) for name, values in turn.token_probes.items()}
    return fields


def _nulls(values: tuple[float, ...]) -> tuple[float | None, ...]:
    """JSON has no NaN, which here says that a token was not measured."""
    return tuple(None if math.isnan(value) else value for value in values)


def _completion_fields(completion: Completion) -> Json:
    return {
        "tokens": completion.tokens,
        "logprobs": completion.logprobs,
        "stop": completion.stop,
        "versions": completion.versions,
    }


def _turn(fields: Json) -> Turn:
    for name in ("legal_actions", "prompt"):
        if name in fields:
            fields[name] = tuple(fields[name])
    if "token_probes" in fields:
        fields["token_probes"] = {
            name: tuple(math.nan if value is None else value for value in values)
            for name, values in fields["token_probes"].items()
        }
    if "completion" in fields:
        parts = fields["completion"]
        for name in ("tokens", "logprobs", "versions"):
            parts[name] = tuple(parts[name])
        fields["completion"] = Completion(**parts)
    return Turn(**fields)


def _plain(value: object) -> dict[Any, Any]:
    if isinstance(value, Mapping):  # read-only views, which the json module does not know
        return dict(value)
    raise TypeError(f"an episode holds {value!r}, which JSON cannot express")


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False, default=_plain).encode
_encode_prompt = lru_cache(maxsize=1024)(_encode)
"""Prompts are long, and those of a group are the same."""
