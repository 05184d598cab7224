"""The settings of an experiment: typed, checked, one YAML file each.

OmegaConf lives inside `load_config` and `to_yaml` only; everybody else receives frozen dataclasses. Validation
refuses, it never rewrites a value.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal, get_args

from omegaconf import DictConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from marl_llm.errors import ConfigError


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise ConfigError(f"{key}: {value!r} is not allowed; it must be {allowed}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run writes, how long it is and how often it saves."""

    name: str = "run"
    """First part of the run directory's name."""
    dir: str = "runs"
    """Folder in which run directories are made."""
    seed: int = 0
    """Fixes every random draw of the run."""
    steps: int = 100
    """Number of training steps."""
    checkpoint_every: int = 50
    """Steps between checkpoints; the first and the last step are always saved."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints stay on disk, besides that of step 0."""
    tokens: bool = True
    """Log token ids, log-probabilities and versions in the episode files."""
    threads: int | None = None
    """Threads for tensor operations; None leaves PyTorch's choice. Part of what makes runs bit-identical."""

    def __post_init__(self) -> None:
        _require("/" not in self.name, "run.name", self.name, "a name without /; run.dir says where")
        _require(self.steps >= 0, "run.steps", self.steps, "0 or more")
        _require(self.checkpoint_every >= 1, "run.checkpoint_every", self.checkpoint_every, "1 or more")
        _require(self.keep_checkpoints >= 1, "run.keep_checkpoints", self.keep_checkpoints, "1 or more")
        _require(self.threads is None or self.threads >= 1, "run.threads", self.threads, "null or 1 or more")


@dataclass(frozen=True, kw_only=True)
class GameConfig:
    """Which game is played."""

    name: str = "kuhn_poker"
    """A game of ours, or one of the other forms that `marl-llm games list` shows."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of the game."""


@dataclass(frozen=True, kw_only=True)
class PlayedGame(GameConfig):
    """A game of an experiment: how much of it is trained on, and how it is evaluated."""

    name: str = field()
    """As in `GameConfig`."""
    share: float = 1.0
    """Part of a step's groups, relative to the other games'; 0: held out, evaluated and never trained on."""
    training: dict[str, Any] = field(default_factory=dict)
    """Settings of the matches that are trained on, where they differ from `settings`, which are evaluated."""
    seats: dict[str, str] | None = None
    """As `matchmaking.seats`, for this game; None: those."""
    opponents: list[str] | None = None
    """As `evaluation.opponents`, for this game; None: those."""

    def __post_init__(self) -> None:
        _require(0 <= self.share < inf, "games.share", self.share, "0 or more")

    @property
    def trained(self) -> GameConfig:
        """The game of the matches that are trained on."""
        return GameConfig(name=self.name, settings={**self.settings, **self.training})


@dataclass(frozen=True, kw_only=True)
class CurriculumConfig:
    """Games that are being learned get more of the groups (learning progress; arXiv 1707.00183)."""

    floor: float = 0.1
    """Part of the groups that is dealt out by `share` alone, so that no game is forgotten."""
    fast: float = 0.3
    """Weight of the newest step in the quick moving average of a game's returns."""
    slow: float = 0.03
    """Its weight in the slow one; their distance is the progress."""

    def __post_init__(self) -> None:
        _require(0 < self.floor <= 1, "curriculum.floor", self.floor, "more than 0, at most 1")
        _require(0 < self.slow < self.fast <= 1, "curriculum.slow", self.slow, "more than 0 and less than fast")


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """How policies see the game and answer."""

    context: Literal["turn", "dialogue"] = "turn"
    """`turn`: rules and current state only. `dialogue`: the seat's whole conversation, append-only."""
    thinking: bool = False
    """Whether text may stand before the answer tag; it is trained like the rest of the reply."""
    max_reply_tokens: int = 16
    """Limit of sampled tokens per turn."""
    context_tokens: int = 256
    """Limit of prompt and reply tokens together."""
    max_turns: int = 1000
    """Turns after which an episode is cut off as truncated."""
    on_fault: Literal["continue", "stop"] = "continue"
    """What an episode that ends at fault, because an endpoint fails for good, does to training: `continue` leaves it
    out of everything."""
    max_faults: float = 0.1
    """Share of a step's episodes at fault above which training stops all the same."""
    rewards: str | None = None
    """`module:function(Episode) -> {turn index: {part: value}}`: reward parts added to the game's own."""

    def __post_init__(self) -> None:
        _require(self.max_reply_tokens >= 1, "play.max_reply_tokens", self.max_reply_tokens, "1 or more")
        _require(
            self.context_tokens > self.max_reply_tokens,
            "play.context_tokens",
            self.context_tokens,
            f"more than play.max_reply_tokens ({self.max_reply_tokens})",
        )
        _require(self.max_turns >= 1, "play.max_turns", self.max_turns, "1 or more")
        _require(0 <= self.max_faults < 1, "play.max_faults", self.max_faults, "from 0 to less than 1")
        _require(
            self.rewards is None or ":" in self.rewards,
            "play.rewards",
            self.rewards,
            "null or module:function",
        )


@dataclass(frozen=True, kw_only=True)
class ExploiterConfig:
    """A policy that only learns to beat: its snapshots join the pool, then it begins anew."""

    share: float = 0.25
    """Share of a step's groups that it plays; the trained policy, where it meets that, learns from them too."""
    against: Literal["main", "league"] = "main"
    """`main`: the trained policy as it is now. `league`: a member of the pool."""
    reset_every: int = 50
    """Steps after which a snapshot of it joins the pool and it goes back to its weights of step 0."""

    def __post_init__(self) -> None:
        _require(0 <= self.share <= 1, "exploiter.share", self.share, "between 0 and 1")
        _require(self.reset_every >= 1, "exploiter.reset_every", self.reset_every, "1 or more")


@dataclass(frozen=True, kw_only=True)
class LeagueConfig:
    """A pool of opponents that do not learn, drawn by how they fare against the trained policy (PFSP)."""

    every: int = 25
    """Steps between snapshots of the trained policy that join the pool; the first is that of step 0."""
    keep: int = 16
    """Most snapshots in the pool: whom the trained policy beats most easily leaves first, of equals the oldest. Their
    weights stay in the run directory."""
    members: list[str] = field(default_factory=list)
    """Policies that are always in the pool, by name."""
    share: float = 0.5
    """Share of a step's groups that are played against the pool; the rest is played as `matchmaking.seats` says."""
    weighting: Literal["hard", "even", "uniform"] = "hard"
    """How likely a member is met whom one beats with probability p: (1 - p)^2, p (1 - p), or all alike."""
    per_step: int = 2
    """Most members met in a step, by each policy that meets the pool: so many engines for snapshots are needed."""
    memory: float = 256.0
    """Games after which a result counts half in the win rates."""
    exploiters: dict[str, ExploiterConfig] = field(default_factory=dict)
    """Further policies that learn, by name; they have no seat in `matchmaking.seats`."""

    def __post_init__(self) -> None:
        for name in ("every", "keep", "per_step"):
            _require(getattr(self, name) >= 1, f"league.{name}", getattr(self, name), "1 or more")
        _require(0 <= self.share <= 1, "league.share", self.share, "between 0 and 1")
        _require(self.memory > 0, "league.memory", self.memory, "more than 0")
        shares = self.share + sum(exploiter.share for exploiter in self.exploiters.values())
        _require(shares <= 1, "league.share", self.share, "at most 1 together with the shares of the exploiters")


@dataclass(frozen=True, kw_only=True)
class MatchmakingConfig:
    """Who plays whom, on which seed, how often."""

    groups: int = 32
    """Groups (deals) per step, over all games."""
    group_size: int = 8
    """Matches per group; all share the game seed."""
    seats: dict[str, str] = field(default_factory=lambda: {"*": "agent"})
    """Agent id or pattern to the name of a policy; the agent's own id decides, else the first pattern that fits."""
    swap_seats: bool = False
    """Whether the members of a group move on by one seat each, so that everybody has every seat equally often."""
    league: LeagueConfig | None = None
    """Opponents besides those in `seats`; None: none."""
    curriculum: CurriculumConfig | None = None
    """How the games' parts follow what is being learned; None: they are the games' shares throughout."""

    def __post_init__(self) -> None:
        _require(self.groups >= 1, "matchmaking.groups", self.groups, "1 or more")
        _require(self.group_size >= 1, "matchmaking.group_size", self.group_size, "1 or more")
        _require(bool(self.seats), "matchmaking.seats", self.seats, "at least one seat")


@dataclass(frozen=True, kw_only=True)
class TinyModelConfig:
    """A small chat model that is made on the spot: byte-level BPE tokenizer and Qwen3 architecture."""

    hidden: int = 128
    """Width."""
    layers: int = 4
    """Number of layers."""
    heads: int = 4
    """Number of attention heads; each has hidden / heads dimensions."""
    mlp: int = 256
    """Inner width of the feed-forward part."""
    vocabulary: int = 512
    """Upper limit of the vocabulary."""

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "mlp"):
            _require(getattr(self, name) >= 1, f"tiny.{name}", getattr(self, name), "1 or more")
        _require(self.hidden % (2 * self.heads) == 0, "tiny.hidden", self.hidden, f"a multiple of {2 * self.heads}")
        _require(self.vocabulary >= 280, "tiny.vocabulary", self.vocabulary, "280 or more (256 bytes and the tags)")


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """Supervised imitation of a scripted player before self-play, so that the model can read and answer."""

    teacher: str = "random"
    """Name of the policy to imitate."""
    teachers: dict[str, str] = field(default_factory=dict)
    """Game (by its name in `games`) to whom to imitate there instead. Held-out games are imitated only if they are
    here, so that a model that cannot read yet learns the form of all games' answers."""
    games: int = 512
    """Games that a teacher plays against itself, of each game that is imitated."""
    steps: int = 100
    """Gradient steps."""
    batch: int = 128
    """Turns per gradient step."""
    lr: float = 3e-3
    """Learning rate; it decays linearly to zero."""

    def __post_init__(self) -> None:
        for name in ("games", "batch"):
            _require(getattr(self, name) >= 1, f"warmup.{name}", getattr(self, name), "1 or more")
        _require(self.steps >= 0, "warmup.steps", self.steps, "0 or more")
        _require(self.lr >= 0, "warmup.lr", self.lr, "0 or more")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a model is run for play."""

    kind: Literal["hf"] = "hf"
    """Which engine."""
    slots: int = 256
    """Sequences that are decoded together."""
    cache_slots: int = 64
    """Further sequences whose keys and values are kept for reuse."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the engine's weights and cache."""

    def __post_init__(self) -> None:
        _require(self.slots >= 1, "engine.slots", self.slots, "1 or more")
        _require(self.cache_slots >= 0, "engine.cache_slots", self.cache_slots, "0 or more")


@dataclass(frozen=True, kw_only=True)
class KLConfig:
    """The pull towards a reference policy."""

    reference: Literal["none", "frozen", "ema", "snapshot"] = "none"
    """`frozen`: the initial weights; `ema`: their moving average; `snapshot`: a copy taken every `every` steps."""
    kind: Literal["k1", "k2", "k3", "full"] = "full"
    """Estimator from the sampled token, or the exact sum over the vocabulary."""
    coef: float = 0.0
    """Weight in the loss."""
    decay: float = 0.99
    """Of the moving average, per optimizer step."""
    every: int = 25
    """Training steps between snapshots."""

    def __post_init__(self) -> None:
        _require(self.coef >= 0, "objective.kl.coef", self.coef, "0 or more")
        _require(0 <= self.decay <= 1, "objective.kl.decay", self.decay, "between 0 and 1")
        _require(self.every >= 1, "objective.kl.every", self.every, "1 or more")
        _require(
            self.coef == 0 or self.reference != "none",
            "objective.kl.reference",
            self.reference,
            "frozen, ema or snapshot when objective.kl.coef is not 0",
        )


Aggregation = Literal["token", "sequence", "turn", "constant", "nested"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """The loss."""

    ratio: Literal["token", "turn", "sequence"] = "token"
    """Over which tokens the importance ratio is taken (turn and sequence: exponential of the mean log-ratio)."""
    clip_low: float = 0.2
    """The ratio is clipped at 1 - clip_low."""
    clip_high: float = 0.2
    """The ratio is clipped at 1 + clip_high."""
    dual_clip: float | None = None
    """Upper bound c > 1 of the loss per |advantage| where the advantage is negative; None: no bound."""
    aggregation: Aggregation = "token"
    """What is averaged: tokens; sequences, turns (each a mean over its tokens); a sum over `constant`; or the mean
    over roles, episodes, turns and tokens, each level weighing its members equally (MARS)."""
    constant: float = 1.0
    """Divisor of `aggregation: constant`, per sequence."""
    entropy: float = 0.0
    """Weight of the entropy bonus, at the first step."""
    entropy_final: float | None = None
    """Its weight at the last step, with a straight line in between; None: it stays."""
    importance_cap: float | None = 2.0
    """Truncation of the importance weight that corrects the gap between engine and learner; None: no correction."""
    kl: KLConfig = field(default_factory=KLConfig)
    """The pull towards a reference policy."""

    def __post_init__(self) -> None:
        _require(0 <= self.clip_low <= 1, "objective.clip_low", self.clip_low, "between 0 and 1")
        _require(self.clip_high >= 0, "objective.clip_high", self.clip_high, "0 or more")
        _require(
            self.dual_clip is None or self.dual_clip > 1,
            "objective.dual_clip",
            self.dual_clip,
            "null or more than 1",
        )
        _require(self.constant > 0, "objective.constant", self.constant, "more than 0")
        _require(self.entropy >= 0, "objective.entropy", self.entropy, "0 or more")
        _require(
            self.entropy_final is None or self.entropy_final >= 0,
            "objective.entropy_final",
            self.entropy_final,
            "null or 0 or more",
        )
        _require(
            self.importance_cap is None or self.importance_cap >= 1,
            "objective.importance_cap",
            self.importance_cap,
            "null or 1 or more",
        )


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """The optimizer and how a batch is cut."""

    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    """Decay over the run's steps; linear and cosine end at lr * final."""
    final: float = 0.0
    """Share of the learning rate that is left at the end."""
    warmup_steps: int = 0
    """Training steps over which the learning rate rises from 0."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Of AdamW."""
    weight_decay: float = 0.0
    """Of AdamW."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    minibatches: int = 1
    """Optimizer steps per pass over a step's samples; whole episodes stay together."""
    epochs: int = 1
    """Passes over a step's samples."""
    micro_batch_tokens: int = 2048
    """Packed tokens per forward and backward pass; about 2048 keeps a CPU's caches warm, a GPU likes more."""
    row_tokens: int = 512
    """Packed tokens per row; a longer sequence gets a row of its own."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward and backward; master weights are float32."""

    def __post_init__(self) -> None:
        _require(self.lr >= 0, "learner.lr", self.lr, "0 or more")
        _require(0 <= self.final <= 1, "learner.final", self.final, "between 0 and 1")
        _require(self.warmup_steps >= 0, "learner.warmup_steps", self.warmup_steps, "0 or more")
        _require(all(0 <= beta < 1 for beta in self.betas), "learner.betas", self.betas, "from 0 to less than 1, both")
        _require(self.weight_decay >= 0, "learner.weight_decay", self.weight_decay, "0 or more")
        _require(self.grad_clip > 0, "learner.grad_clip", self.grad_clip, "more than 0")
        for name in ("minibatches", "epochs", "micro_batch_tokens", "row_tokens"):
            _require(getattr(self, name) >= 1, f"learner.{name}", getattr(self, name), "1 or more")


ScriptedKind = Literal["random", "noisy", "cfr", "minimax", "mcts", "tit_for_tat"]
PolicyKind = Literal["llm", "checkpoint", "remote", "human", ScriptedKind]
UNTOLD: tuple[PolicyKind, ...] = ("remote", "human")
"""Kinds whose probabilities nobody can tell."""


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """One policy: a model, here or elsewhere, a person, or a scripted player."""

    kind: PolicyKind = "llm"
    """`llm`: a model, made or loaded as below; the only kind that can learn. `checkpoint`: the trained policy of a run
    directory. `remote`: a model behind an OpenAI-compatible endpoint; its key is read from OPENAI_API_KEY. `human`: a
    person at this terminal. Else how a scripted player decides."""
    model: str | None = None
    """Folder or hub name of a Hugging Face causal language model; None: make a tiny one."""
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)
    """The model to make when `model` is None."""
    warmup: WarmupConfig | None = None
    """Imitation before training; None: none."""
    trainable: bool = True
    """Whether an `llm` learns."""
    temperature: float = 1.0
    """Of sampling, and of the learner."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Runs the model for play."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Trains the model."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What it is trained on."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the other kinds: `checkpoint: {path, step}` (step: the latest), `remote: {url, model, retries, backoff_s,
    timeout_s, workers}`, `cfr: {iterations}`, `mcts: {simulations}`, `noisy: {temperature}`."""

    @property
    def learns(self) -> bool:
        """Whether training changes it."""
        return self.kind == "llm" and self.trainable

    def __post_init__(self) -> None:
        _require(self.temperature > 0, "policy.temperature", self.temperature, "more than 0")


@dataclass(frozen=True, kw_only=True)
class EvaluationConfig:
    """What is measured, and when."""

    every: int = 25
    """Steps between evaluations during training; 0: only before and after."""
    exploitability: bool = True
    """Whether to compute it; only for two-player zero-sum games whose information states can be listed."""
    samples: int = 64
    """Sampled replies per information state where the policy thinks first (an estimate)."""
    best_response: int = 0
    """Simulations per seat of the search for a response that beats the policy, before and after; 0: none. What it
    wins is a lower bound of the exploitability, or exactly that where the positions of the game can be listed."""
    games: int = 1000
    """Games per opponent and seat, before and after."""
    games_during: int = 0
    """Games per opponent and seat every `every` steps, held-out games included; 0: none."""
    opponents: list[str] = field(default_factory=list)
    """Policies to meet, by name; `start` is the policy as it was at step 0."""

    def __post_init__(self) -> None:
        for name in ("every", "best_response", "games", "games_during"):
            _require(getattr(self, name) >= 0, f"evaluation.{name}", getattr(self, name), "0 or more")
        _require(self.samples >= 1, "evaluation.samples", self.samples, "1 or more")


@dataclass(frozen=True, kw_only=True)
class AlarmConfig:
    """Thresholds on the means of a run's last steps, past which a person is told; None turns that alarm off."""

    window: int = 10
    """Steps whose mean is looked at; before there are so many, there are no alarms."""
    illegal_moves: float | None = 0.1
    """Largest share of turns with an illegal move."""
    role_skew: float | None = 0.9
    """Largest difference between the win rates of two roles (a draw is half a win); 1: one of them wins every game."""
    reply_collapse: float | None = 0.5
    """Smallest mean length of a reply, as a multiple of that of the run's first `window` steps."""
    reply_explosion: float | None = 3.0
    """Largest mean length of a reply, as a multiple of that of the run's first `window` steps."""
    entropy_collapse: float | None = 0.001
    """Smallest mean entropy (nats per sampled token) of a policy that learns."""
    identical_replies: float | None = 0.9
    """Largest share of replies, over different observations with a choice, that is one and the same text. For None in
    a game where one action is best everywhere, such as cooperation in a repeated dilemma."""

    def __post_init__(self) -> None:
        _require(self.window >= 1, "alarms.window", self.window, "1 or more")
        for name, low, high, allowed in (
            ("illegal_moves", 0, 1, "null or between 0 and 1"),
            ("role_skew", 0, 1, "null or between 0 and 1"),
            ("reply_collapse", 0, 1, "null or between 0 and 1"),
            ("reply_explosion", 1, inf, "null or 1 or more"),
            ("entropy_collapse", 0, inf, "null or 0 or more"),
            ("identical_replies", 0, 1, "null or between 0 and 1"),
        ):
            value = getattr(self, name)
            _require(value is None or low <= value <= high, f"alarms.{name}", value, allowed)


@dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment."""

    run: RunConfig = field(default_factory=RunConfig)
    """Where and how long."""
    games: dict[str, PlayedGame] = field(default_factory=lambda: {"game": PlayedGame(name="kuhn_poker")})
    """All games, by a name of your choice that metrics and results use. The first is the one that a person plays."""
    play: PlayConfig = field(default_factory=PlayConfig)
    """How it is played."""
    matchmaking: MatchmakingConfig = field(default_factory=MatchmakingConfig)
    """Who plays whom."""
    policies: dict[str, PolicyConfig] = field(default_factory=lambda: {"agent": PolicyConfig()})
    """All policies, by name."""
    credit: Any = "mars"
    """Credit recipe: a name in `configs/credit/`, the path of a YAML file, or the recipe itself."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured."""
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    """When a person is told."""

    @property
    def trained_games(self) -> dict[str, PlayedGame]:
        """The games that are trained on."""
        return {name: game for name, game in self.games.items() if game.share}

    def seats(self, game: str) -> Mapping[str, str]:
        """Who sits where in the game: agent id or pattern to policy."""
        own = self.games[game].seats
        return self.matchmaking.seats if own is None else own

    def opponents(self, game: str) -> Sequence[str]:
        """Whom the trained policy meets in evaluations of the game."""
        own = self.games[game].opponents
        return self.evaluation.opponents if own is None else own

    def __post_init__(self) -> None:
        known = sorted(self.policies)
        _require(bool(self.trained_games), "games", sorted(self.games), "at least one game with a share above 0")
        self._check_seats("matchmaking.seats", self.matchmaking.seats)
        self._check_opponents("evaluation.opponents", self.evaluation.opponents)
        for game, played in self.games.items():
            self._check_seats(f"games.{game}.seats", played.seats or {})
            self._check_opponents(f"games.{game}.opponents", played.opponents or [])
        if self.matchmaking.league is not None:
            self._check_league(self.matchmaking.league)
        for name, policy_config in self.policies.items():
            warmup = policy_config.warmup
            if warmup is not None:
                scripted = [k for k in known if self.policies[k].kind in get_args(ScriptedKind)]
                allowed = f"one of the scripted policies: {scripted}"
                _require(warmup.teacher in scripted, f"policies.{name}.warmup.teacher", warmup.teacher, allowed)
                for game, teacher in warmup.teachers.items():
                    key = f"policies.{name}.warmup.teachers.{game}"
                    _require(game in self.games, key, game, f"about one of games: {sorted(self.games)}")
                    _require(teacher in scripted, key, teacher, allowed)
                if not policy_config.learns:
                    raise ConfigError(f"policies.{name}.warmup: only a trainable policy of kind llm is warmed up")

    def teachers(self, policy: str) -> dict[str, str]:
        """Game to whom the policy imitates there in its warm-up; empty without one."""
        warmup = self.policies[policy].warmup
        return {} if warmup is None else dict.fromkeys(self.trained_games, warmup.teacher) | warmup.teachers

    def _check_seats(self, key: str, seats: Mapping[str, str]) -> None:
        for seat, policy in seats.items():
            _require(policy in self.policies, f"{key}.{seat}", policy, f"one of policies: {sorted(self.policies)}")

    def _check_opponents(self, key: str, opponents: Sequence[str]) -> None:
        for policy in opponents:
            allowed = f"one of policies: {sorted(self.policies)}, or start"
            _require(policy in self.policies or policy == "start", key, policy, allowed)

    def _check_league(self, league: LeagueConfig) -> None:
        learning = [name for name, policy in self.policies.items() if policy.learns]
        seats = {policy for game in self.trained_games for policy in self.seats(game).values()}
        seated = sorted(seats & set(learning))
        _require(len(seated) == 1, "matchmaking.seats", seated, "one policy that learns, where there is a league")
        others = sorted(self.policies.keys() - learning)
        for name in league.members:
            _require(name in others, "matchmaking.league.members", name, f"one of those that do not learn: {others}")
        free = sorted({*learning} - {*seated})
        for name in league.exploiters:
            allowed = f"one of those that learn and have no seat: {free}"
            _require(name in free, "matchmaking.league.exploiters", name, allowed)
        for name in learning:  # snapshots are called NAME@STEP, as folders too
            _require(not {"@", "/"} & set(name), "policies", name, "a name without @ and /, where there is a league")


WHOLE = ("games", "policies", "matchmaking.seats")
"""What is not merged with what stood there before, but replaces it, where it is given as a whole."""


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read one experiment from a YAML file and apply `key=value` overrides.

    Raises:
        ConfigError: the file is missing or malformed, a key is unknown (the nearest valid name is given), or a
            value is of the wrong type or out of range.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"config {path}: no such file")
    try:
        loaded = OmegaConf.load(path)
    except Exception as error:  # the YAML library has several unrelated error classes
        raise ConfigError(f"config {path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(loaded, DictConfig):
        raise ConfigError(f"config {path}: must be a mapping of settings, not {type(loaded).__name__}")
    given: Any = loaded
    try:
        changes = _parse(overrides)
        for key in WHOLE:  # `games={...}` replaces them all, `games.NAME.share=2` changes one
            changed = OmegaConf.select(changes, key)
            if OmegaConf.is_dict(changed) and any(override.startswith(f"{key}=") for override in overrides):
                OmegaConf.update(loaded, key, changed, merge=False)
        given = OmegaConf.merge(loaded, changes)
        tree = OmegaConf.merge(_defaults(loaded), given)
        # Merging ignores a missing value, so that `tree` would hold the default.
        missing = sorted(OmegaConf.missing_keys(given) | OmegaConf.missing_keys(changes))
        if missing:
            raise ConfigError(f"{missing[0]}: '???' is not allowed; it must be a value")
        config = OmegaConf.to_object(tree)
    except OmegaConfBaseException as error:
        raise ConfigError(f"config {path}: {_explain(error, given)}") from error
    except ConfigError as error:
        raise ConfigError(f"config {path}: {error}") from error
    assert isinstance(config, Config)
    return config


def game_settings(given: Sequence[str]) -> dict[str, Any]:
    """A game's settings from `key=value` texts.

    Raises:
        ConfigError: a text is no setting.
    """
    parsed = OmegaConf.to_container(_parse(given))
    assert isinstance(parsed, dict)
    return {str(key): value for key, value in parsed.items()}


def _parse(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        if "=" not in override[1:]:
            raise ConfigError(f"override {override!r}: must be key=value, for example run.seed=1")
        try:
            OmegaConf.from_dotlist([override])
        except YAMLError as error:
            raise ConfigError(f"override {override!r}: its value is not valid YAML") from error
    return OmegaConf.from_dotlist(list(overrides))


def _defaults(loaded: DictConfig) -> DictConfig:
    """Default settings, without the games, policies or seats that the file replaces: merged in, they would be there
    still."""
    tree: DictConfig = OmegaConf.structured(Config)
    for key in WHOLE:
        if OmegaConf.is_dict(OmegaConf.select(loaded, key)):
            above, _, name = key.rpartition(".")
            parent = OmegaConf.select(tree, above) if above else tree
            with read_write(parent):
                parent[name] = {}
    return tree


def to_yaml(config: Config) -> str:
    """The resolved tree as YAML; `load_config` of it gives an equal tree."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def require_same_settings(wanted: Config, running: Config) -> None:
    """Refuse to resume a run with settings other than those it began with.

    Raises:
        ConfigError: names every key that differs, with both values.
    """
    old, new = _flat(running), _flat(wanted)
    changed = [f"{key} is {old.get(key)!r}, not {new.get(key)!r}" for key in old | new if old.get(key) != new.get(key)]
    if changed:
        raise ConfigError(f"a run goes on with the settings it began with: {'; '.join(changed)}")


def _flat(config: Config) -> dict[str, Any]:
    return dict(_leaves("", OmegaConf.to_container(OmegaConf.structured(config))))


def _leaves(prefix: str, node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else str(key), value)
    else:
        yield prefix, node


def _explain(error: OmegaConfBaseException, given: Any) -> str:
    key = str(error.full_key or error.key or _culprit(OmegaConf.to_container(given), ""))
    reason = _one_line(error)
    known = _known_keys(error.parent_node)
    if known and key.rpartition(".")[2] not in known:
        near = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.0)
        return f"{key}: unknown key; nearest valid name: {near[0]}; allowed: {', '.join(known)}"
    return f"{key}: {reason}" if key else reason


def _culprit(given: Any, prefix: str) -> str:
    """The deepest key that cannot be merged by itself, for the errors that name none; empty if there is no such."""
    for key, value in given.items() if isinstance(given, dict) else ():
        name = f"{prefix}.{key}" if prefix else str(key)
        alone = OmegaConf.create()
        OmegaConf.update(alone, name, value, force_add=True)
        try:
            OmegaConf.merge(OmegaConf.structured(Config), alone)
        except OmegaConfBaseException:
            return _culprit(value, name) or name
    return ""


def _known_keys(node: Any) -> list[str]:
    kind = OmegaConf.get_type(node) if node is not None else None
    return [f.name for f in fields(kind)] if isinstance(kind, type) and is_dataclass(kind) else []


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split("full_key:")[0].split())
