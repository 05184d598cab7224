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
from marl_llm.errors import ConfigError
from marl_llm.learning.learner import Learner
from marl_llm.matchmaking import seat_policy, series, trained_policy
from marl_llm.models import LanguageModel, load_model, make_tiny
from marl_llm.play import agents_of, make_game, play
from marl_llm.players import check_player, first_view, make_player, model_policy
from marl_llm.policies.base import Policy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.scripted import make_scripted
from marl_llm.seeds import derive
from marl_llm.text import answer_instruction, canonical_reply
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
    learner: Learner | None
    """Trains it; None when it does not learn here."""

    def publish(self) -> None:
        """Give the learner's weights to the engine."""
        if self.learner is not None:
            self.policy.engine.load_weights(self.policy.name, self.learner.weights(), self.learner.version)


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
            policies[name] = make_player(settings, called=name)
    return Team(policies=policies, members=members)


def restore(team: Team, checkpoint: Path, values: Mapping[str, Any]) -> None:
    """Load the learners' optimizers and references from a checkpoint that `Team.save` wrote."""
    for name, member in team.members.items():
        if member.learner is not None:
            member.learner.load_state(load_file(checkpoint / f"{name}-optimizer.safetensors"), values[name])


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
    policy = model_policy(config, settings, model, called=name)
    learner = None
    if learn and settings.learns:
        learner = Learner(
            model.model,
            settings.learner,
            settings.objective,
            temperature=settings.temperature,
            total_steps=config.updates(name),
            seed=derive(config.run.seed, "learner", name),
        )
    return Member(language_model=model, policy=policy, learner=learner)


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
    """Refuse an experiment in which somebody has no seat, nobody learns, or seats cannot be shared evenly.

    Raises:
        ConfigError: see above.
    """
    making = config.matchmaking
    agents = {label: agents_of(game) for label, game in config.trained_games.items()}
    seated = {seat_policy(config.seats(label), agent) for label, names in agents.items() for agent in names}
    trained_policy(config)
    if making.league is not None:
        seated |= making.league.exploiters.keys()
    for name, policy in config.policies.items():
        if policy.learns and name not in seated:
            raise ConfigError(f"policies.{name}: it is trainable and has no seat in {dict(making.seats)}")
    for label, names in agents.items():
        if making.league is not None and len(names) < 2:
            raise ConfigError(f"matchmaking.league: game {label} has one seat only, so that nobody can meet there")
        if making.swap_seats and making.group_size % len(names):
            raise ConfigError(
                f"matchmaking.group_size: {making.group_size} is not allowed; with matchmaking.swap_seats it must be a "
                f"multiple of the {len(names)} seats of game {label}"
            )


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
    views = [first_view(game, config.play.max_turns)]
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


def check_players(config: Config) -> None:
    """Refuse who teaches, sits in a seat, is in the league or is met in evaluations, and cannot play the game.

    Raises:
        ConfigError: names the policy and the reason.
        RunError, ModelError: the checkpoint of another run cannot be loaded.
    """
    league = config.matchmaking.league
    members = set(league.members if league else ())
    for label, game in config.games.items():
        needed = set(config.opponents(label))
        if game.share:
            needed |= set(config.seats(label).values()) | members
        needed |= {config.teachers(name).get(label, "") for name in config.policies}
        view = first_view(game, config.play.max_turns)
        for name, policy in config.policies.items():
            if policy.kind != "llm" and name in needed:
                try:
                    player = make_player(policy, called=name)
                except ConfigError as error:
                    raise ConfigError(f"policies.{name}: {error}") from error
                check_player(f"policies.{name}", player, view)
