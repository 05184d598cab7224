"""Which of OpenSpiel's games can be played here: random games of every one that needs no parameters.

Ends with how many are fine, refused with a reason, and wrong; exit code 1 if any is wrong.

    python scripts/openspiel_survey.py --games 50
"""

from collections.abc import Iterator

import pyspiel
from survey import main, verdict


def survey(name: str, count: int) -> Iterator[tuple[str, str]]:
    """The verdict on one game."""
    yield name, verdict(f"openspiel:{name}", count, {})


if __name__ == "__main__":
    main(__doc__, __file__, [game.short_name for game in pyspiel.registered_games() if game.default_loadable], survey)
