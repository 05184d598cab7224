"""All policies of an experiment, put together from the settings, and saved and loaded as one checkpoint."""

import heapq
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from marl_llm.config import Config, GameConfig, PlayedGame, PolicyConfig
from marl_llm.devices import available_device
from marl_llm.engines.hf import HFEngine
from marl_llm.errors import ConfigError
from marl_llm.learning.learner import Learner
from marl_llm.matchmaking import seat_policy, series
from marl_llm.models import LanguageModel, load_model, make_tiny
from marl_llm.play import Table, make_game, play
from marl_llm.policies.base import Policy, View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.scripted import make_scripted
from marl_llm.seeds import derive
from marl_llm.text import Chat, answer_instruction, canonical_reply
from marl_llm.types import Turn

CORPUS_GAMES = 200
"""Random games whose texts a tiny model's tokenizer learns."""
LONGEST_CHECKED = 32
"""Observations of random games, the longest in characters, whose tokens are counted."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One language model of the team."""

    language_model: LanguageModel
    """The weights that learn; the engine has its own copy."""
    policy: LLMPolicy
    """Plays with the engine."""
    engine: HFEngine
    """Runs the model for play."""
    learner: Learner | None
    """Trains it; None when it does not learn here."""

    def publish(self) -> None:
        """Give the learner's weights to the engine."""
        if self.learner is not None:
            self.engine.load_weights(self.policy.name, self.learner.weights(), self.learner.version)


@dataclass(frozen=True, kw_only=True)
class Team:
    """Everybody who can sit in a seat."""

    policies: Mapping[str, Policy]
    """All policies, scripted ones included."""
    members: Mapping[str, Member]
    """The language models among them."""

    def learner_states(self) -> dict[str, tuple[Mapping[str, torch.Tensor], Any]]:
        """Tensors and JSON-able values of every learner besides its weights, by policy."""
        return {name: member.learner.state() for name, member in self.members.items() if member.learner is not None}

    def save(self, folder: Path, optimizers: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
        """Write each model with its tokenizer to `folder/NAME`, and its learner's tensors beside it."""
        for name, member in self.members.items():
            member.language_model.save(folder / name)
        for name, tensors in optimizers.items():
            whole = {key: tensor.contiguous() for key, tensor in tensors.items()}
            save_file(whole, folder / f"{name}-optimizer.safetensors")


def found(config: Config, checkpoint: Path | None = None, *, learn: bool = True) -> Team:
    """Make or load every policy of the experiment.

    `checkpoint`: folder written by `Team.save`; None: start anew. `learn`: whether to build learners.

    Raises:
        ModelError: a model cannot be loaded.
        ConfigError: a setting does not fit the game or the model.
    """
    policies: dict[str, Policy] = {}
    members: dict[str, Member] = {}
    for name, settings in config.policies.items():
        if settings.kind == "llm":
            language_model = _language_model(config, name, settings, checkpoint)
            members[name] = _member(config, name, settings, language_model, learn=learn)
            policies[name] = members[name].policy
        else:
            policies[name] = make_scripted(settings.kind, settings.options)
    return Team(policies=policies, members=members)


def restore(team: Team, checkpoint: Path, values: Mapping[str, Any]) -> None:
    """Load the learners' optimizers and references from a checkpoint that `Team.save` wrote."""
    for name, member in team.members.items():
        if member.learner is not None:
            member.learner.load_state(load_file(checkpoint / f"{name}-optimizer.safetensors"), values[name])


def frozen_copy(config: Config, name: str, checkpoint: Path, *, called: str) -> Policy:
    """The policy `name` as it was at a checkpoint, under another name."""
    settings = config.policies[name]
    language_model = load_model(checkpoint / name)
    return _member(config, called, settings, language_model, learn=False).policy


def trained_policy(config: Config) -> str:
    """The policy that evaluations are about: the first trainable language model that has a seat.

    Raises:
        ConfigError: nobody learns.
    """
    for game in config.trained_games:
        for policy in config.seats(game).values():
            if config.policies[policy].kind == "llm" and config.policies[policy].trainable:
                return policy
    seats = [dict(config.seats(game)) for game in config.trained_games]
    raise ConfigError(f"matchmaking.seats: {', '.join(map(str, seats))} seats no trainable policy of kind llm")


def _language_model(config: Config, name: str, settings: PolicyConfig, checkpoint: Path | None) -> LanguageModel:
    if checkpoint is not None:
        return load_model(checkpoint / name)
    if settings.model is not None:
        return load_model(settings.model)
    seed = derive(config.run.seed, "model", name)
    texts = [
        text
        for game in config.games.values()  # held-out games too: their words must be read
        for text in game_texts(game.trained, seed=config.run.seed, thinking=config.play.thinking)
    ]
    return make_tiny(settings.tiny, texts, context_tokens=config.play.context_tokens, seed=seed)


def _member(config: Config, name: str, settings: PolicyConfig, model: LanguageModel, *, learn: bool) -> Member:
    chat = Chat(model.tokenizer, thinking=config.play.thinking)
    engine = HFEngine(
        model.model,
        policy=name,
        slots=settings.engine.slots,
        cache_slots=settings.engine.cache_slots,
        context_tokens=config.play.context_tokens,
        eos_token_id=chat.eos_token_id,
        device=str(available_device("engine.device", settings.engine.device)),
        dtype=getattr(torch, settings.engine.dtype),
    )
    policy = LLMPolicy(
        name=name,
        engine=engine,
        chat=chat,
        play=config.play,
        temperature=settings.temperature,
        samples=config.evaluation.samples,
    )
    learner = None
    if learn and settings.trainable:
        learner = Learner(
            model.model,
            settings.learner,
            settings.objective,
            temperature=settings.temperature,
            total_steps=config.run.steps,
            seed=derive(config.run.seed, "learner", name),
        )
    return Member(language_model=model, policy=policy, engine=engine, learner=learner)


def game_texts(game: GameConfig, *, seed: int, thinking: bool) -> list[str]:
    """What a model reads and writes in random games: rules, observations, replies, and the words of the template."""
    agents = make_game(game.name, game.settings).unwrapped
    texts = [agents.metadata.get("rules", ""), answer_instruction(thinking), "system user assistant"]
    for turn in _random_turns(game, seed):
        texts += [turn.observation, canonical_reply(turn.action or "")]
    return texts


def _random_turns(game: GameConfig, seed: int) -> tuple[Turn, ...]:
    """The turns of random games; kept, since every tokenizer and the check of the prompts look at the same."""
    return _turns_of(game.name, json.dumps(game.settings, sort_keys=True), seed)


@lru_cache(maxsize=16)
def _turns_of(name: str, settings: str, seed: int) -> tuple[Turn, ...]:
    game = GameConfig(name=name, settings=json.loads(settings))
    matches = series(game, {"*": "random"}, name="corpus", games=CORPUS_GAMES, seed=seed)
    episodes = play(matches, {"random": make_scripted("random", {})})
    return tuple(turn for episode in episodes for turn in episode.turns)


def check_seats(config: Config) -> None:
    """Refuse an experiment in which somebody has no seat, or nobody learns.

    Raises:
        ConfigError: see above.
    """
    seated = {
        seat_policy(config.seats(label), agent)
        for label, game in config.trained_games.items()
        for agent in make_game(game.name, game.settings).unwrapped.possible_agents
    }
    trained_policy(config)
    for name, policy in config.policies.items():
        if policy.kind == "llm" and policy.trainable and name not in seated:
            raise ConfigError(f"policies.{name}: it is trainable and has no seat in {dict(config.matchmaking.seats)}")


def check_prompts(config: Config, team: Team) -> None:
    """Refuse rules and observations that leave no room for a reply in a model's context, and actions too long to say.

    In context `turn` these are the first observation and the longest ones met in random games; in a dialogue, which
    may outgrow the context, the first one. Actions are those that were legal in random games.

    Raises:
        ConfigError: names the setting and the tokens needed.
    """
    for game in config.games.values():
        _check_prompts(config, game, team)


def _check_prompts(config: Config, game: PlayedGame, team: Team) -> None:
    views = [_first_view(config, game)]
    turns = [turn for settings in (game, game.trained) for turn in _random_turns(settings, config.run.seed)]
    actions = sorted({action for turn in turns for action in turn.legal_actions or ()})
    if config.play.context == "turn":
        agents = {turn.observation: turn.agent for turn in turns}
        longest = heapq.nlargest(LONGEST_CHECKED, agents, key=len)
        views += [replace(views[0], observation=text, agent=agents[text]) for text in longest]
    for member in team.members.values():
        needs = {len(member.policy.prompt(view)): view for view in views}
        member.policy.check_fits(needs[max(needs)])
        member.policy.check_says(actions)


def check_scripted(config: Config) -> None:
    """Refuse a scripted policy that teaches, sits in a seat or is met in evaluations, and cannot play the game.

    Raises:
        ConfigError: names the policy and the reason.
    """
    for label, game in config.games.items():
        needed = set(config.opponents(label))
        if game.share:
            needed |= set(config.seats(label).values())
        needed |= {config.teachers(name).get(label, "") for name in config.policies}
        view = _first_view(config, game)
        for name, policy in config.policies.items():
            if policy.kind != "llm" and name in needed:
                try:
                    make_scripted(policy.kind, policy.options).strategies([view])
                except ValueError as error:  # ConfigError is one, and so is that there are no legal actions
                    raise ConfigError(f"policies.{name}: {error}") from error


def _first_view(config: Config, game: GameConfig) -> View:
    """What the first seat to decide sees in a game."""
    (match,) = series(game, {}, name="check", games=1, seed=config.run.seed)
    return Table(match, config.play.max_turns).view
