"""Who plays whom, on which seed, how often."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import accumulate

from marl_llm.config import Config, GameConfig
from marl_llm.errors import ConfigError
from marl_llm.league import Duel, League, draw
from marl_llm.metrics import win_rates
from marl_llm.seeds import derive, generator
from marl_llm.types import Episode, Match

Seats = Mapping[str, str]
"""Agent, or a pattern, to the name of the policy that sits there."""
Pair = tuple[str, str]
"""Who sits alone in a seat, and who has all others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """What the matches of one group have in common."""

    number: int
    """In its step."""
    label: str
    """What the experiment calls the game."""
    pair: Pair | None
    """Who meets whom; None: everybody sits where the settings say."""
    seed: int
    """Of the game."""
    deal: str = ""
    """By what the deal is known when it comes again; empty where none does."""


def schedule(
    config: Config, step: int, parts: Mapping[str, float], agents: Mapping[str, Sequence[str]], league: League
) -> list[Match]:
    """The matches of one training step: `groups` deals, each played `group_size` times; a budget may change that.

    `parts`: game to its part of the groups. All that is scheduled is played to its end, so that no game gets more
    weight because it is short. `agents`: of each game; needed to swap seats and by a league. Pure: all follows from the
    settings, the step and what the league knows, so a resumed run plays the same matches; seeds depend on the run's
    seed, the step and the group only, or with `deals` on which deal it is.
    """
    members = range(config.matchmaking.group_size)
    return [
        match
        for group in groups(config, step, parts, league)
        for match in matches(config, step, group, members, agents.get(group.label, ()))
    ]


def groups(
    config: Config, step: int, parts: Mapping[str, float], league: League, *, first: int = 0, count: int | None = None
) -> list[Group]:
    """Groups of a step, from number `first` on: the step's `groups`, or `count`.

    With `deals` the groups of all steps go through them one by one. What is beyond a step's `groups` is what the next
    step begins with.
    """
    making = config.matchmaking
    counts = quotas(parts, making.groups if count is None else count, step + first)
    drawn = [(label, pair) for label, share in counts.items() for pair in pairs(config, step, label, share, league)]
    if making.deals is None:
        return [
            Group(number=number, label=label, pair=pair, seed=derive(config.run.seed, "train", step, number))
            for number, (label, pair) in enumerate(drawn, start=first)
        ]
    passes: dict[tuple[str, int], Sequence[int]] = {}
    found = []
    for number, (label, pair) in enumerate(drawn, start=first):
        turn, place = divmod((step - 1) * making.groups + number, making.deals)
        if (label, turn) not in passes:
            passes[label, turn] = generator(config.run.seed, "deals", label, turn).permutation(making.deals).tolist()
        deal = passes[label, turn][place]
        seed = derive(config.run.seed, "deal", label, deal)
        found.append(Group(number=number, label=label, pair=pair, seed=seed, deal=f"{label}/{deal}"))
    return found


def matches(config: Config, step: int, group: Group, members: Sequence[int], agents: Sequence[str]) -> list[Match]:
    """These members of a group. A deal that comes again is replied to anew."""
    game = config.games[group.label].trained
    name, label = f"s{step}/g{group.number}", group.label if len(config.trained_games) > 1 else ""
    return [
        Match(
            id=f"{name}/m{member}",
            game=game.name,
            settings=game.settings,
            seed=group.seed,
            group=name,
            member=derive(member, "visit", step, group.number) if group.deal else member,
            label=label,
            seats=seats,
        )
        for member, seats in zip(
            members, seatings(config, group.label, agents, step + group.number, group.pair, members), strict=True
        )
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


def pairs(config: Config, step: int, label: str, groups: int, league: League) -> list[Pair | None]:
    """Who meets whom in each of a game's groups in a step; None: everybody sits where the settings say.

    Those come first, then the trained policy against the pool, then each exploiter. All games of a step have the same
    opponents. Shares that leave a rest are rounded at random, so that they are right over many steps.
    """
    settings = config.matchmaking.league
    if settings is None:
        return [None] * groups
    main, seed = trained_policy(config), derive(config.run.seed, "league", step)
    shares = [settings.share, *(exploiter.share for exploiter in settings.exploiters.values())]
    rest = generator(seed, "rest", label).random()
    ends = [int(groups * share + rest) for share in accumulate(shares)]
    numbers = [end - begin for begin, end in zip([0, *ends], ends)]
    found: list[Pair | None] = [None] * (groups - ends[-1])
    found += [(main, other) for other in draw(settings, league, main, groups=numbers[0], seed=seed)]
    for (name, exploiter), number in zip(settings.exploiters.items(), numbers[1:], strict=True):
        against = draw(settings, league, name, groups=number, seed=seed)
        found += [(name, main if exploiter.against == "main" else other) for other in against]
    return found


def seatings(
    config: Config, label: str, agents: Sequence[str], turn: int, pair: Pair | None, members: Sequence[int]
) -> tuple[Seats, ...]:
    """The seats of these members of a group, which has one opponent, in the game called `label`.

    Whoever is alone sits in the seat number `turn` (modulo their number); with `swap_seats` it moves on with every
    member, as everybody does.
    """
    making, settled = config.matchmaking, config.seats(label)
    if pair is None and not making.swap_seats:
        return (settled,) * len(members)
    if pair is None:
        seated, turn = [seat_policy(settled, agent) for agent in agents], 0
    else:
        seated = list(one_against(agents, agents[0], *pair).values())
    moves = [(turn + member * making.swap_seats) % len(agents) for member in members]
    return tuple(dict(zip(agents, seated[-move:] + seated[:-move], strict=True)) for move in moves)


def duels(episodes: Iterable[Episode]) -> list[Duel]:
    """What the games of each group say about two policies that met in it, in the order of groups.

    Games at fault say nothing, nor do those in which nobody sat alone.
    """
    shares: dict[tuple[str, Pair], list[float]] = defaultdict(list)
    for episode in episodes:
        if episode.status == "fault":
            continue
        seated = {agent: seat_policy(episode.match.seats, agent) for agent in episode.returns}
        names = list(seated.values())
        alone = [agent for agent, name in seated.items() if names.count(name) == 1]
        if len(set(names)) == 2 and alone:
            one = min(alone, key=lambda agent: seated[agent])
            (other,) = set(names) - {seated[one]}
            shares[episode.match.group, (seated[one], other)].append(win_rates(episode)[one])
    return [Duel(*pair, sum(won) / len(won), len(won)) for (_, pair), won in shares.items()]


def series(game: GameConfig, seats: Seats, *, name: str, games: int, seed: int) -> list[Match]:
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


def seat_policy(seats: Seats, agent: str) -> str:
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


def trained_policy(config: Config) -> str:
    """The policy that evaluations and the league are about: the first that learns and has a seat.

    Raises:
        ConfigError: nobody learns.
    """
    for game in config.trained_games:
        for policy in config.seats(game).values():
            if config.policies[policy].learns:
                return policy
    seats = [dict(config.seats(game)) for game in config.trained_games]
    raise ConfigError(f"matchmaking.seats: {', '.join(map(str, seats))} seats no trainable policy of kind llm")


def one_against(agents: Sequence[str], seat: str, policy: str, opponent: str) -> dict[str, str]:
    """Seats with `policy` at one agent and `opponent` at all others."""
    return {agent: policy if agent == seat else opponent for agent in agents}
