"""Imitation of a scripted player, so that an untrained model can read the table and answer in the required form."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from marl_llm.config import Config
from marl_llm.engines.hf import HFEngine
from marl_llm.learning.learner import Learner
from marl_llm.matchmaking import seat_policy, series
from marl_llm.play import agents_of, make_game, play
from marl_llm.policies.base import Policy, View
from marl_llm.policies.llm import LLMPolicy, Reader
from marl_llm.seeds import generator
from marl_llm.team import Member, Team, bases_first, make_learner
from marl_llm.types import Episode, Sample, Span


def warm_up(
    config: Config,
    team: Team,
    report: Callable[[str, int, int, float], None],
    *,
    stop: Callable[[], bool] = lambda: False,
) -> bool:
    """Train every policy that has a `warmup` section; `report(policy, step, steps, loss)` is called at each step.

    Those on whose models others have adapters come first, and have their last weights then.

    `stop` is asked after each step. Returns whether all is done; else the weights are of no use.
    """
    for name in bases_first(config):
        warmup = config.policies[name].warmup
        if warmup is None:
            continue
        member = team.members[name]
        learner = member.learner or _apprentice(config, name, member)
        samples = demonstrations(config, member.policy, team.policies)
        chances_N = chances(samples, warmup.shares)
        random = generator(config.run.seed, "warmup", name)
        for step in range(warmup.steps):
            batch = [samples[i] for i in random.choice(len(samples), size=warmup.batch, p=chances_N)]
            loss = learner.imitate(batch, warmup.lr * (1 - step / warmup.steps))
            report(name, step + 1, warmup.steps, loss)
            if stop():
                return False
        member.policy.engine.load_weights(name, learner.weights(), learner.version)
        if member.learner is None:
            member.language_model.model.requires_grad_(False)
            _pass_on(config, name, team)
    return True


def _pass_on(config: Config, base: str, team: Team) -> None:
    """Give what a base has learned to the engines of its adapters, those that have a copy of it."""
    for name, member in team.members.items():
        engine = member.policy.engine
        if config.policies[name].base == base and isinstance(engine, HFEngine) and not engine.shares:
            engine.load_weights(name, member.language_model.model.state_dict(), 0)


def _apprentice(config: Config, name: str, member: Member) -> Learner:
    """Who imitates and then stays as it is: gone after the warm-up, with its optimizer."""
    if member.language_model.base is None:
        member.language_model.model.requires_grad_(True)  # frozen for those who are based on it
    return make_learner(config, name, member.language_model)


def chances(samples: Sequence[Sample], shares: Mapping[str, float]) -> NDArray[np.float64]:
    """How likely each sample is drawn: games by their shares (1 where none is given), whatever their length."""
    turns = Counter(sample.game for sample in samples)
    parts = {game: shares.get(game, 1.0) for game in turns}
    weights_N = np.array([parts[sample.game] / turns[sample.game] for sample in samples])
    return weights_N / sum(parts.values())


def demonstrations(config: Config, policy: LLMPolicy, policies: Mapping[str, Policy]) -> list[Sample]:
    """What the teachers do, against themselves in all games, in the seats that the policy has, as its model would have
    read and written it."""
    warmup = config.policies[policy.name].warmup
    assert warmup is not None
    matches = [
        replace(match, label=label)
        for label, teacher in config.teachers(policy.name).items()
        for match in series(
            config.games[label].trained,
            {"*": teacher},
            name=f"warmup/{label}",
            games=warmup.games,
            seed=config.run.seed,
        )
    ]
    agents = {label: agents_of(config.games[label].trained) for label in config.teachers(policy.name)}
    seats = {label: _seats(config, label, policy.name, agents[label]) for label in agents}
    return [
        sample
        for episode in play(matches, policies, max_turns=config.play.max_turns)
        for sample in as_written(episode, policy.name, policy.reader, seats[episode.match.label])
    ]


def _seats(config: Config, game: str, policy: str, agents: Sequence[str]) -> frozenset[str]:
    """Where the policy sits in the game, and so what it has to learn there; everywhere, if it has no seat."""
    own = frozenset(agent for agent in agents if seat_policy(config.seats(game), agent) == policy)
    return own or frozenset(agents)


def as_written(episode: Episode, policy: str, reader: Reader, seats: Collection[str]) -> list[Sample]:
    """One sample per turn of the agents in `seats`, as the policy's model would have read and written it."""
    match = episode.match
    rules = make_game(match.game, match.settings).unwrapped.metadata.get("rules", "")
    histories: dict[str, tuple[tuple[str, str], ...]] = {}
    samples = []
    for index, turn in enumerate(episode.turns):
        if turn.agent not in seats:
            continue
        assert turn.action is not None, "a scripted player always has an action"
        view = View(
            game=match.game,
            settings=match.settings,
            match=match.id,
            agent=turn.agent,
            rules=rules,
            observation=turn.observation,
            legal_actions=turn.legal_actions,
            state_key=turn.state_key,
            seed=match.seed,
            history=histories.get(turn.agent, ()),
        )
        reply = reader.written(view, turn.action)
        histories[turn.agent] = (*view.history, (turn.observation, reply))
        prompt, written = reader.prompt(view), reader.chat.encode_reply(reply)
        samples.append(
            Sample(
                policy=policy,
                game=match.title,
                episode=match.id,
                agent=turn.agent,
                tokens=prompt + written,
                spans=(Span(start=len(prompt), length=len(written), role=turn.role, turn=index),),
            )
        )
    return samples
