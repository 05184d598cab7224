"""Who plays whom, on which seed, how often."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from marl_llm.config import Config, GameConfig
from marl_llm.errors import ConfigError
from marl_llm.seeds import derive
from marl_llm.types import Match


def schedule(config: Config, step: int, parts: Mapping[str, float]) -> list[Match]:
    """The matches of one training step: `groups` deals, each played `group_size` times.

    `parts`: game to its part of the groups. All that is scheduled is played to its end, so that no game gets more
    weight because it is short. Pure: the seeds depend on the run's seed, the step and the group only, so a resumed run
    plays the same matches.
    """
    making = config.matchmaking
    several = len(config.trained_games) > 1
    counts = quotas(parts, making.groups, step)
    labels = [label for label, count in counts.items() for _ in range(count)]
    games = {label: config.games[label].trained for label in counts}
    return [
        Match(
            id=f"s{step}/g{group}/m{member}",
            game=games[label].name,
            settings=games[label].settings,
            seed=derive(config.run.seed, "train", step, group),
            group=f"s{step}/g{group}",
            member=member,
            label=label if several else "",
            seats=config.seats(label),
        )
        for group, label in enumerate(labels)
        for member in range(making.group_size)
    ]


def quotas(parts: Mapping[str, float], total: int, step: int) -> dict[str, int]:
    """`total` dealt out by parts (which sum to 1) in whole numbers, by largest remainder.

    Equal remainders take turns from step to step.
    """
    counts = {name: int(part * total) for name, part in parts.items()}
    names = list(parts)
    turn = {name: (place - step) % len(names) for place, name in enumerate(names)}
    order = sorted(names, key=lambda name: (counts[name] - parts[name] * total, turn[name]))
    for name in order[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


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
