"""All policies of an experiment, put together from the settings, and saved and loaded as one checkpoint."""

import copy
import heapq
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

import torch

from marl_llm.adapters import load_adapter
from marl_llm.config import Config, GameConfig, PlayConfig, PlayedGame, PolicyConfig, PolicyKind, load_config
from marl_llm.config.require import require
from marl_llm.engines.base import Engine
from marl_llm.errors import ConfigError
from marl_llm.learning.base import Trainer
from marl_llm.learning.critic import Critic
from marl_llm.learning.learner import Learner
from marl_llm.matchmaking import seat_policy, series, trained_policy
from marl_llm.models import LanguageModel, load_model, make_reader, make_tiny, outline
from marl_llm.play import agents_of, make_game, play
from marl_llm.players import check_player, first_view, make_player, model_policy
from marl_llm.policies.base import Policy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.scripted import make_scripted
from marl_llm.run import Run, checkpoint_of
from marl_llm.seeds import derive
from marl_llm.text import answer_instruction, canonical_reply
from marl_llm.types import Turn

CORPUS_GAMES = 200
"""Games whose texts a tiny model's tokenizer learns."""
RANDOM = PolicyConfig(kind="random")
LONGEST_CHECKED = 32
"""Observations of random games, the longest in characters, whose tokens are counted."""


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where weights are kept that no adapter changes."""

    place: str
    """A folder inside each checkpoint, or one elsewhere, or a name on the hub."""
    inside: bool
    """Whether it is inside each checkpoint: weights that came from elsewhere and stay as they are are not."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """One language model of the team."""

    language_model: LanguageModel
    """The weights that learn; the engine has its own copy."""
    policy: LLMPolicy
    """Plays with the engine."""
    learner: Trainer | None
    """Trains it; None when it does not learn here."""
    home: "Home"
    """Where its base is kept, or all of it if it has no adapter."""
    critic: Critic | None = None
    """Learns what its turns are worth; None: nobody does."""

    def weights(self) -> Mapping[str, torch.Tensor] | None:
        """Those that its learner trains; None: it has none, and its model's tensors are all there is."""
        return None if self.learner is None else self.learner.weights()

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

    @property
    def learners(self) -> dict[str, Trainer]:
        """Policy to its learner, of those that have one."""
        return {name: member.learner for name, member in self.members.items() if member.learner is not None}

    @property
    def critics(self) -> dict[str, Critic]:
        """Policy to its critic, of those that have one."""
        return {name: member.critic for name, member in self.members.items() if member.critic is not None}

    def publish(self) -> None:
        """Give every engine its learner's weights, and an empty cache: what a step plays does not depend on earlier
        ones."""
        for member in self.members.values():
            member.publish()
        for name, policy in self.policies.items():
            if isinstance(policy, LLMPolicy) and (name not in self.members or self.members[name].learner is None):
                policy.engine.forget()

    def save(self, folder: Path) -> None:
        """Write each model with its tokenizer to `folder/NAME`, its learner's state to `folder/NAME-learner`, and its
        critic to `folder/NAME-critic`.

        Of one with an adapter that is the adapter; a base that was made on the spot comes along. A model that was
        loaded and does not change is not written.
        """
        for name, member in self.members.items():
            model, home = member.language_model, member.home
            if model.base is not None:
                self.write(name, folder / name, checkpoint="..")
            if home.inside and home.place.split("/")[0] == name:
                (model.base or model).save(folder / home.place, weights=None if model.base else member.weights())
            if member.learner is not None:
                member.learner.save_state(folder / f"{name}-learner")
            if member.critic is not None:
                member.critic.save_state(folder / f"{name}-critic")

    def write(self, name: str, folder: Path, *, checkpoint: str) -> None:
        """Write what is trained of a policy's model; `checkpoint`: the way from the folder to one with the base."""
        member = self.members[name]
        place = member.home.place
        base = f"{checkpoint}/{place}" if member.home.inside else place
        member.language_model.save(folder, base=base, weights=member.weights())


@dataclass(frozen=True, kw_only=True)
class Makers:
    """How the parts of a team are made that may be in other processes."""

    engine: Callable[[Config, str], Engine] | None = None
    """From the name of a policy; None: an engine in this process."""
    learner: Callable[[Config, str, LanguageModel, Path | None], Trainer] | None = None
    """From the name of a policy, its model and the checkpoint that it is from; None: a learner in this process."""


HERE = Makers()
"""All in this process."""


def found(config: Config, checkpoint: Path | None = None, *, learn: bool = True, makers: Makers = HERE) -> Team:
    """Make or load every policy of the experiment.

    `checkpoint`: folder written by `Team.save`; None: start anew. `learn`: whether to build learners.

    Raises:
        ModelError: a model cannot be loaded.
        ConfigError: a setting does not fit the game or the model.
    """
    policies: dict[str, Policy] = {}
    members: dict[str, Member] = {}
    for name in bases_first(config):
        settings = config.policies[name]
        if settings.kind == "llm":
            members[name] = _member(config, name, checkpoint, members, learn=learn, makers=makers)
            policies[name] = members[name].policy
        else:
            policies[name] = make_player(settings, called=name)
    return Team(
        policies={name: policies[name] for name in config.policies},
        members={name: members[name] for name in config.policies if name in members},
    )


def policies_of(
    path: str | Path,
    *,
    step: int | None = None,
    temperature: float | None = None,
    play: PlayConfig | None = None,
) -> tuple[Config, Mapping[str, Policy]]:
    """All policies of a run, as they were at a checkpoint, with the run's settings; nobody learns.

    `path`: a run directory, or the YAML file of an experiment, whose policies are then as it would begin, without
    a warm-up. `step`: None is the latest checkpoint. `temperature`, of all language models, and `play`: None is as the
    run has it.

    Raises:
        ConfigError: a setting of the file is wrong, or it has no checkpoints.
        RunError, ModelError: there is no such run or checkpoint, or it cannot be loaded.
    """
    begun = not Path(path).is_file()
    require(begun or step is None, "step", step, f"left out: {path} is no run, and has no checkpoints")
    config = config_of(path)
    config = config if play is None else replace(config, play=play)
    policies = found(config, checkpoint_of(path, step)[1] if begun else None, learn=False).policies
    if temperature is not None:
        set_temperature(policies, temperature)
    return config, policies


def config_of(path: str | Path) -> Config:
    """The settings of a run directory, or of an experiment's YAML file.

    Raises:
        ConfigError, RunError: see `load_config` and `Run.config`.
    """
    return load_config(path) if Path(path).is_file() else Run.config(path)


def set_temperature(policies: Mapping[str, Policy], temperature: float) -> None:
    """Let all language models among them sample at this temperature from now on."""
    for policy in policies.values():
        if isinstance(policy, LLMPolicy):
            policy.temperature = temperature


def bases_first(config: Config) -> list[str]:
    """All policies, those on whose models others have adapters before these."""
    return sorted(config.policies, key=lambda name: config.policies[name].base is not None)


def restore(team: Team, checkpoint: Path) -> None:
    """Load the learners' optimizers and references, and the critics, from a checkpoint that `Team.save` wrote."""
    for name, member in team.members.items():
        if member.learner is not None:
            member.learner.load_state(checkpoint / f"{name}-learner")
        if member.critic is not None:
            member.critic.load_state(checkpoint / f"{name}-critic")


def begin_critics(team: Team) -> None:
    """Let critics that are copies begin where the policies do, which have been warmed up."""
    for member in team.members.values():
        plain = member.language_model.base or member.language_model
        if member.critic is not None and member.critic.config.tiny is None:
            member.critic.begin(plain.model.state_dict())


def _home(config: Config, name: str) -> Home:
    root = config.policies[name].base or name
    settings = config.policies[root]
    changes = settings.lora is None and (settings.learns or settings.warmup is not None)
    if settings.model is not None and not changes:
        folder = Path(settings.model)
        return Home(place=str(folder.resolve()) if folder.is_dir() else settings.model, inside=False)
    return Home(place=root if settings.lora is None else f"{root}/base", inside=True)


def _language_model(
    config: Config,
    name: str,
    home: Home,
    checkpoint: Path | None,
    shared: LanguageModel | None,
    *,
    outlined: bool = False,
) -> LanguageModel:
    """`shared`: the model of the policy that this one is based on. `outlined`: without weights, where that can be."""
    settings = config.policies[name]
    if outlined and checkpoint is not None and home.place == name and name not in _bases(config):
        return outline(checkpoint / name)
    base = _own_model(config, name, home, checkpoint) if shared is None else shared.base or shared
    if settings.lora is None:
        return base
    try:
        model = base.adapted(settings.lora, seed=derive(config.run.seed, "adapter", name))
    except ConfigError as error:
        raise ConfigError(f"policies.{name}.{error}") from error
    if checkpoint is not None:
        load_adapter(model.model, checkpoint / name)
    return model


def language_model(config: Config, name: str, checkpoint: Path | None) -> LanguageModel:
    """The model of one policy, as `found` makes it, and nothing else of the team.

    Raises:
        ModelError, ConfigError: see `found`.
    """
    base = config.policies[name].base
    shared = None if base is None else _language_model(config, base, _home(config, base), checkpoint, None)
    return _language_model(config, name, _home(config, name), checkpoint, shared)


def one_learner(config: Config, name: str, checkpoint: Path | None) -> Learner:
    """The learner of one policy, as `found` makes it.

    Raises:
        ModelError, ConfigError: see `found`.
    """
    return make_learner(config, name, language_model(config, name, checkpoint))


def _own_model(config: Config, name: str, home: Home, checkpoint: Path | None) -> LanguageModel:
    settings = config.policies[name]
    if checkpoint is not None and home.inside:
        return load_model(checkpoint / home.place)
    if settings.model is not None:
        return load_model(settings.model)
    seed = derive(config.run.seed, "model", name)
    return make_tiny(settings.tiny, corpus(config, name), context_tokens=config.play.context_tokens, seed=seed)


def corpus(config: Config, policy: str) -> list[str]:
    """What the tokenizer of the policy's tiny model learns: all games' texts; held-out ones are read too."""
    teachers = config.teachers(policy) if config.policies[policy].tiny.texts == "teacher" else {}
    return [
        text
        for label, game in config.games.items()
        for text in game_texts(
            game.trained,
            seed=config.run.seed,
            thinking=config.play.thinking,
            player=config.policies[teachers[label]] if label in teachers else RANDOM,
        )
    ]


def _member(
    config: Config, name: str, checkpoint: Path | None, others: Mapping[str, Member], *, learn: bool, makers: Makers
) -> Member:
    settings, home = config.policies[name], _home(config, name)
    based = None if settings.base is None else others[settings.base]
    shared = None if based is None else based.language_model
    away = (makers.learner is not None and settings.learns) if learn else makers.engine is not None
    model = _language_model(config, name, home, checkpoint, shared, outlined=away)
    beside = None if based is None else based.policy.engine
    made = makers.engine(config, name) if makers.engine is not None else None
    policy = model_policy(config, settings, model, called=name, beside=beside, engine=made)
    learner: Trainer | None = None
    if learn and settings.learns:
        elsewhere = makers.learner
        learner = elsewhere(config, name, model, checkpoint) if elsewhere else make_learner(config, name, model)
    critic = _critic(config, name, model) if learn and settings.critic is not None else None
    return Member(language_model=model, policy=policy, learner=learner, home=home, critic=critic)


def _critic(config: Config, name: str, policy: LanguageModel) -> Critic:
    settings, seed = config.policies[name], derive(config.run.seed, "critic", name)
    assert settings.critic is not None
    tiny, context = settings.critic.tiny, config.play.context_tokens
    if tiny is None:
        model = copy.deepcopy((policy.base or policy).model)
    else:
        model = make_reader(tiny, policy, context_tokens=context, seed=seed)
    return Critic(
        model,
        settings.critic,
        settings.learner,
        policy=name,
        seed=seed,
        encode=lambda text: tuple(policy.tokenizer.encode(text, add_special_tokens=False)),
        end=(policy.tokenizer.eos_token_id,),
    )


def make_learner(config: Config, name: str, model: LanguageModel) -> Learner:
    """Trains the policy's model, or its adapter if it has one."""
    settings = config.policies[name]
    return Learner(
        model.model,
        settings.learner,
        settings.objective,
        temperature=settings.temperature,
        total_steps=config.updates(name),
        seed=derive(config.run.seed, "learner", name),
    )


def game_texts(game: GameConfig, *, seed: int, thinking: bool, player: PolicyConfig = RANDOM) -> list[str]:
    """What a model reads and writes in games of a scripted player against itself: rules, observations, replies, and the
    words of the template."""
    agents = make_game(game.name, game.settings).unwrapped
    texts = [agents.metadata.get("rules", ""), answer_instruction(thinking), "system user assistant"]
    for turn in _turns(game, seed, player):
        texts += [turn.observation, canonical_reply(turn.action or "")]
    return texts


def _turns(game: GameConfig, seed: int, player: PolicyConfig = RANDOM) -> tuple[Turn, ...]:
    """The turns of such games; kept, since every tokenizer and the check of the prompts look at the same."""
    options = json.dumps(player.options, sort_keys=True)
    return _turns_of(game.name, json.dumps(game.settings, sort_keys=True), seed, player.kind, options)


@lru_cache(maxsize=16)
def _turns_of(name: str, settings: str, seed: int, kind: PolicyKind, options: str) -> tuple[Turn, ...]:
    game = GameConfig(name=name, settings=json.loads(settings))
    matches = series(game, {"*": kind}, name="corpus", games=CORPUS_GAMES, seed=seed)
    episodes = play(matches, {kind: make_scripted(kind, json.loads(options))})
    return tuple(turn for episode in episodes for turn in episode.turns)


def check_seats(config: Config) -> None:
    """Refuse an experiment in which a seat has no policy, a model no seat or use, nobody learns, or seats cannot be
    shared evenly.

    Raises:
        ConfigError: see above.
    """
    making = config.matchmaking
    agents = {label: agents_of(game) for label, game in config.trained_games.items()}
    seated = {seat_policy(config.seats(label), agent) for label, names in agents.items() for agent in names}
    for label, game in config.games.items() if config.evaluation.team else ():
        for agent in agents_of(game):  # held-out games, and others with more agents than the training
            seat_policy(config.seats(label), agent)
    trained_policy(config)
    if making.league is not None:
        seated |= making.league.exploiters.keys()
    _check_patterns(config, agents)
    idle = _idle(config, seated)
    for name, policy in config.policies.items():
        if policy.learns and name not in seated:
            raise ConfigError(f"policies.{name}: it is trainable and has no seat in {dict(making.seats)}")
        if policy.kind == "llm" and name in idle:
            raise ConfigError(
                f"policies.{name}: it is a model that has no seat in {dict(making.seats)}, is nobody's opponent and "
                "nobody's base; give it a seat, or leave it out"
            )
    for label, names in agents.items():
        if making.league is not None and len(names) < 2:
            raise ConfigError(f"matchmaking.league: game {label} has one seat only, so that nobody can meet there")
        if making.swap_seats and making.group_size % len(names):
            raise ConfigError(
                f"matchmaking.group_size: {making.group_size} is not allowed; with matchmaking.swap_seats it must be a "
                f"multiple of the {len(names)} seats of game {label}"
            )


def _check_patterns(config: Config, agents: Mapping[str, Sequence[str]]) -> None:
    """Refuse a seat that no game has."""
    given = {f"games.{label}.seats": (played.seats, [label]) for label, played in config.trained_games.items()}
    given = {key: value for key, value in given.items() if value[0] is not None}
    others = [label for label, played in config.trained_games.items() if played.seats is None]
    if others:
        given["matchmaking.seats"] = (config.matchmaking.seats, others)
    for key, (seats, labels) in given.items():
        there = list(dict.fromkeys(agent for label in labels for agent in agents[label]))
        for pattern in seats or {}:
            if not any(fnmatchcase(agent, pattern) for agent in there):
                raise ConfigError(f"{key}.{pattern}: no such seat; there are {there}")


def _idle(config: Config, seated: Collection[str]) -> set[str]:
    """Policies that neither play, nor are met or taught from, nor have adapters on them."""
    league = config.matchmaking.league
    met = {name for game in config.games for name in config.opponents(game)} | set(league.members if league else ())
    bases = _bases(config)
    held_out = {name for game in config.games for name in config.seats(game).values()}
    return config.policies.keys() - seated - met - bases - held_out


def _bases(config: Config) -> set[str]:
    """Policies on whose models others are based."""
    return {policy.base for policy in config.policies.values() if policy.base is not None}


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
    turns = [turn for settings in (game, game.trained) for turn in _turns(settings, config.run.seed)]
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
        if game.share or config.evaluation.team:
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
