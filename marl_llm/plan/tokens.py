"""How many tokens a step reads, samples and learns from: from games of random players, or from an earlier run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from marl_llm import curriculum
from marl_llm.branches.forks import tree
from marl_llm.config import Config
from marl_llm.engines.slots import pack_tokens, shared_prefix
from marl_llm.errors import RunError
from marl_llm.league import League
from marl_llm.matchmaking import schedule, seat_policy
from marl_llm.play import agents_of, play, played
from marl_llm.policies.llm import Reader
from marl_llm.policies.scripted import make_scripted
from marl_llm.run import Run, read_metrics
from marl_llm.types import Episode, Sample
from marl_llm.warmup import as_written

MOST_GAMES = 256
"""Games that are played for the forecast; of a larger step the rest is taken to be like them."""
LAST_STEPS = 20
"""Steps of an earlier run whose mean is taken."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """What one step is for a policy."""

    turns: float
    """Decisions."""
    prompt: float = 0.0
    """Tokens of all prompts."""
    read: float = 0.0
    """Of these, what nobody else's prompt begins with too: the engine reads only these."""
    sampled: float = 0.0
    """Tokens of replies."""
    packed: float = 0.0
    """Tokens that one pass of the learner computes."""
    longest: int = 0
    """Tokens of the longest prompt and reply."""


def random_play(config: Config, readers: Mapping[str, Reader]) -> dict[str, Load]:
    """Each policy's load if all play at random and every reply is as long as it may be: an upper bound of a reply.

    Matches are those of the first training step, trees of turns included, without a league and other extra play.
    """
    making = config.matchmaking
    groups = min(making.groups, max(1, MOST_GAMES // making.group_size))
    agents = {label: agents_of(game.trained) for label, game in config.trained_games.items()}
    plain = replace(config, matchmaking=replace(making, groups=groups, league=None))
    matches = schedule(plain, 1, curriculum.parts(config, {}), agents, League())
    seats = {match.id: match.seats for match in matches}
    drawn = [replace(match, seats={"*": "random"}) for match in matches]
    turns: dict[str, int] = dict.fromkeys(config.policies, 0)
    samples: dict[str, list[Sample]] = {name: [] for name in readers}
    policies, limits = {"random": make_scripted("random", {})}, {"max_turns": config.play.max_turns}
    episodes: Iterable[Episode] = play(drawn, policies, **limits)
    if config.play.tree is not None:
        wanted = tree(episodes, width=config.play.tree.width, turns=config.play.tree.turns)
        episodes = played(wanted, policies, **limits)
    for episode in episodes:
        match = episode.match
        seats[match.id] = seats[match.branch.episode if match.branch else match.id]
        seated = {turn.agent: seat_policy(seats[match.id], turn.agent) for turn in episode.turns}
        for turn in episode.turns[match.begins :]:
            turns[seated[turn.agent]] += 1
        for name in samples.keys() & set(seated.values()):
            own = {agent for agent, policy in seated.items() if policy == name}
            written = as_written(episode, name, readers[name], own)
            samples[name] += [sample for sample in written if sample.spans[0].turn >= match.begins]
    scale = making.groups / groups
    return {
        name: _load(config, samples[name], scale, config.policies[name].learner.minibatches)
        if samples.get(name)
        else Load(turns=count * scale)
        for name, count in turns.items()
    }


def _load(config: Config, samples: list[Sample], scale: float, minibatches: int) -> Load:
    limit = config.play.max_reply_tokens
    starts = [sample.spans[0].start for sample in samples]
    extra = _replies_before(samples, limit) if config.play.context == "dialogue" else [0] * len(samples)
    most = config.play.context_tokens
    prompts = [min(start + more, most - 1) for start, more in zip(starts, extra)]
    read = _distinct([sample.tokens[:start] for sample, start in zip(samples, starts)])
    return Load(
        turns=len(samples) * scale,
        prompt=sum(prompts) * scale,
        read=read * scale,
        sampled=len(samples) * limit * scale,
        packed=(min(read * minibatches, sum(prompts)) + len(samples) * limit) * scale,
        longest=min(most, max(prompts) + limit),
    )


def _replies_before(samples: list[Sample], limit: int) -> list[int]:
    """By how much earlier replies in a dialogue can be longer than the ones that are in the prompt."""
    longer: dict[tuple[str, str], int] = {}
    result = []
    for sample in samples:
        key = (sample.episode, sample.agent)
        result.append(longer.get(key, 0))
        longer[key] = longer.get(key, 0) + max(0, limit - sample.spans[0].length)
    return result


def _distinct(prompts: list[tuple[int, ...]]) -> int:
    """Nodes of the prefix tree."""
    ordered = sorted(map(pack_tokens, prompts))
    shared = sum(shared_prefix(one, two) for one, two in pairwise(ordered))
    return sum(map(len, prompts)) - shared


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What an earlier run says of one step, scaled to the games of this experiment."""

    loads: Mapping[str, Load]
    """Of the policies that learned in it."""
    play_s: float
    """Seconds of play."""
    learn_s: float
    """Seconds of learning."""


def measured(path: Path, config: Config, loads: Mapping[str, Load]) -> Measured:
    """The mean of an earlier run's last steps, for as many games as a step of this experiment has.

    `loads`: what is taken of prompts, of which a run tells nothing.

    Raises:
        RunError: it is no run, or has no step yet.
    """
    rows = read_metrics(path)[-LAST_STEPS:]
    if not rows:
        raise RunError(f"--like: {path} has no training step yet")
    theirs, ours = Run.config(path).matchmaking, config.matchmaking  # not play/games, which counts forks
    scale = ours.groups * ours.group_size / (theirs.groups * theirs.group_size)

    def mean(key: str) -> float:
        values = [float(row[key] or 0.0) * scale for row in rows if key in row]
        return sum(values) / len(values) if values else 0.0

    found = dict(loads)
    for name, load in loads.items():
        sampled = mean(f"learn/{name}/sampled_tokens")
        if sampled:
            learner = config.policies[name].learner
            found[name] = replace(
                load, sampled=sampled, packed=mean(f"learn/{name}/packed_tokens") / max(1, learner.epochs)
            )
    return Measured(loads=found, play_s=mean("time/play_s"), learn_s=mean("time/learn_s"))
