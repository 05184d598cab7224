"""Episodes from files that may have been damaged, or written by anybody."""

from pathlib import Path

from marl_llm.episodes import checked_from_json
from marl_llm.errors import RunError
from marl_llm.lines import Mark, finished_lines
from marl_llm.types import Episode


def read_whole(file: Path) -> list[Episode]:
    """The episodes of one file; damaged lines, which the index names, are passed over.

    Raises:
        OSError: the file cannot be read.
    """
    episodes = []
    for _, line in finished_lines(file):
        try:
            episodes.append(checked_from_json(line))
        except ValueError:
            continue
    return episodes


def read_one(file: Path, offset: int) -> Episode:
    """The episode whose line begins there.

    Raises:
        RunError: there is none any more.
    """
    try:
        _, line = next(finished_lines(file, Mark(offset=offset)))
        return checked_from_json(line)
    except (OSError, StopIteration) as error:
        raise RunError(
            f"{file}: there is no episode at byte {offset} any more; the run has been resumed or damaged"
        ) from error
    except ValueError as error:
        raise RunError(f"{file}: what begins at byte {offset} is no episode: {error}") from error
