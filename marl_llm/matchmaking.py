"""Who plays whom, on which seed, how often."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from marl_llm.config import Config, GameConfig
from marl_llm.errors import ConfigError
from marl_llm.seeds import derive
from marl_llm.types import Match


def schedule(config: Config, step: int) -> list[Match]:
    """The matches of one training step: `groups` deals, each played `group_size` times.

    Pure: the seeds depend on the run's seed, the step and the group only, so a resumed run plays the same matches.
    """
    making, game = config.matchmaking, config.training_game
    return [
        Match(
            id=f"s{step}/g{group}/m{member}",
            game=game.name,
            settings=game.settings,
            seed=derive(config.run.seed, "train", step, group),
            group=f"s{step}/g{group}",
            member=member,
            seats=making.seats,
        )
        for group in range(making.groups)
        for member in range(making.group_size)
    ]


def series(game: GameConfig, seats: Mapping[str, str], *, name: str, games: int, seed: int) -> list[Match]:
    """Independent matches with fixed seats, each with a seed of its own: what evaluations and teachers play."""
    return [
        Match(
            id=f"{name}/{number}",
            game=game.name,
            settings=game.settings,
            seed=derive(seed, name, number),
            group=f"{name}/{number}",
            seats=seats,
        )
        for number in range(games)
    ]


def seat_policy(seats: Mapping[str, str], agent: str) -> str:
    """The policy that sits in the agent's seat: under its own name, else under the first pattern that fits.

    The name comes first so that `matchmaking.seats.player_0=random` seats somebody beside `"*": agent`.

    Raises:
        ConfigError: no pattern fits.
    """
    if agent in seats:
        return seats[agent]
    for pattern, policy in seats.items():
        if fnmatchcase(agent, pattern):
            return policy
    raise ConfigError(f"matchmaking.seats: nobody sits at {agent!r}; patterns are {list(seats)}")


def one_against(agents: Sequence[str], seat: str, policy: str, opponent: str) -> dict[str, str]:
    """Seats with `policy` at one agent and `opponent` at all others."""
    return {agent: policy if agent == seat else opponent for agent in agents}
