"""Which of TextArena's environments can be played here: random games of every id that it has but for the raw ones.

Full numbers of games for the first id of an environment; a tenth of them (1 at least) for other numbers of players, and
for its other ids, no longer than `SHORT` moves. Ends with how many are fine, refused with a reason, and wrong; exit
code 1 if any is wrong. One of `--games` is three games: one to leave traces, one to look at, one to compare with it.

    python scripts/textarena_survey.py --games 17 --limit 3000
"""

from collections.abc import Iterator

from survey import main, verdict
from textarena.envs.registration import ENV_REGISTRY

from games.textarena_table import ALLOWED

SHORT = 20


def ids(environment: str) -> list[str]:
    """The ids of an environment, with `-v0` alone first where there is one."""
    found = [name for name in ENV_REGISTRY if name.partition("-v0")[0] == environment and not name.endswith("-raw")]
    return sorted(found, key=lambda name: name != f"{environment}-v0")


def survey(environment: str, count: int) -> Iterator[tuple[str, str]]:
    """The verdicts on all ids of an environment, and on its first one with other numbers of players."""
    few = max(1, count // 10)
    first, *others = ids(environment)
    yield first, verdict(f"textarena:{first}", count, {})
    if environment in ALLOWED:
        players = ALLOWED[environment].players
        for number in sorted({*players[1:2], *players[-1:]} - {players[0]}):
            yield f"{first},num_players={number}", verdict(f"textarena:{first}", few, {"num_players": number})
    for other in others:
        yield other, verdict(f"textarena:{other}", few, {"max_turns": SHORT})


if __name__ == "__main__":
    main(__doc__, __file__, list(dict.fromkeys(name.partition("-v0")[0] for name in ENV_REGISTRY)), survey)
