"""Settings of one policy: its model, its warm-up, its engine, its learner and its loss."""

from dataclasses import dataclass, field, fields
from math import inf, isfinite
from typing import Any, Literal

from marl_llm.config.losses import CovarianceConfig, DiscriminateConfig, HapoConfig, ReplayConfig, SmoothConfig
from marl_llm.config.require import require


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
    texts: Literal["random", "teacher"] = "random"
    """Whose games the tokenizer learns: random play, or the teacher of the warm-up, who in a pipeline says more."""

    def __post_init__(self) -> None:
        for name in ("hidden", "layers", "heads", "mlp"):
            require(getattr(self, name) >= 1, f"tiny.{name}", getattr(self, name), "1 or more")
        require(self.hidden % (2 * self.heads) == 0, "tiny.hidden", self.hidden, f"a multiple of {2 * self.heads}")
        require(self.vocabulary >= 280, "tiny.vocabulary", self.vocabulary, "280 or more (256 bytes and the tags)")


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """An adapter of low rank beside each of a model's linear layers; it alone is trained (LoRA, arXiv 2106.09685)."""

    rank: int = 8
    """Inner width."""
    alpha: float = 16.0
    """What an adapter adds is scaled by alpha / rank."""
    targets: list[str] = field(default_factory=list)
    """Which linear layers, by the last part of their names, for example [q_proj, v_proj]; empty: all but the head."""

    def __post_init__(self) -> None:
        require(self.rank >= 1, "lora.rank", self.rank, "1 or more")
        require(0 < self.alpha < inf, "lora.alpha", self.alpha, "more than 0")


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """Supervised imitation of a scripted player before self-play, so that the model can read and answer."""

    teacher: str = "random"
    """Name of the policy to imitate."""
    teachers: dict[str, str] = field(default_factory=dict)
    """Game (by its name in `games`) to whom to imitate there instead. Held-out games are imitated only if they are
    here, so that a model that cannot read yet learns the form of all games' answers."""
    shares: dict[str, float] = field(default_factory=dict)
    """Game to its part of the turns that are imitated, relative to the others', which have 1 each."""
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
            require(getattr(self, name) >= 1, f"warmup.{name}", getattr(self, name), "1 or more")
        require(self.steps >= 0, "warmup.steps", self.steps, "0 or more")
        require(self.lr >= 0, "warmup.lr", self.lr, "0 or more")
        for game, share in self.shares.items():
            require(0 < share < inf, f"warmup.shares.{game}", share, "more than 0")


@dataclass(frozen=True, kw_only=True)
class VLLMConfig:
    """What the engine `vllm` is told besides."""

    memory_share: float = 0.9
    """Of a GPU's memory, for weights and cache; less where a learner is on the same card. A CPU has no use for it."""
    cache_gib: float | None = None
    """Memory for keys and values; None: what memory_share leaves of a GPU, and on a CPU as much as slots + cache_slots
    sequences of full length need."""
    tensor_parallel: int = 1
    """GPUs of this machine that share the model."""
    compile: bool = True
    """Compile the model and record CUDA graphs: slower to start, faster to play. A CPU does neither."""

    def __post_init__(self) -> None:
        require(0 < self.memory_share <= 1, "engine.vllm.memory_share", self.memory_share, "more than 0, at most 1")
        require(
            self.cache_gib is None or 0 < self.cache_gib < inf,
            "engine.vllm.cache_gib",
            self.cache_gib,
            "null or more than 0",
        )
        require(self.tensor_parallel >= 1, "engine.vllm.tensor_parallel", self.tensor_parallel, "1 or more")


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """How a model is run for play."""

    kind: Literal["hf", "vllm"] = "hf"
    """`hf`: transformers in this process; `vllm`: vLLM, which is an extra to install."""
    slots: int = 256
    """Sequences that are decoded together."""
    cache_slots: int = 64
    """Further sequences whose keys and values are kept for reuse; with vLLM on a GPU, memory alone decides."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of the engine's weights and cache."""
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    """For `kind: vllm` alone."""

    def __post_init__(self) -> None:
        require(self.slots >= 1, "engine.slots", self.slots, "1 or more")
        require(self.cache_slots >= 0, "engine.cache_slots", self.cache_slots, "0 or more")
        require(
            self.kind == "vllm" or self.vllm == VLLMConfig(),
            "engine.vllm",
            "a section",
            f"left out in kind {self.kind}",
        )


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
        require(self.coef >= 0, "objective.kl.coef", self.coef, "0 or more")
        require(0 <= self.decay <= 1, "objective.kl.decay", self.decay, "between 0 and 1")
        require(self.every >= 1, "objective.kl.every", self.every, "1 or more")
        require(
            self.coef == 0 or self.reference != "none",
            "objective.kl.reference",
            self.reference,
            "frozen, ema or snapshot when objective.kl.coef is not 0",
        )


@dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
    """Learning from pairs of replies to one prompt (DPO, arXiv 2305.18290; MALT, 2412.01928)."""

    beta: float = 0.1
    """Of the pairs' loss: how far the reference may be left; 0: pairs are not learned from."""
    imitation: float = 0.0
    """Weight of imitating the good replies."""
    rule: Literal["threshold", "halves"] = "threshold"
    """Which replies to one prompt are good: those whose value is above the threshold, which are preferred to those that
    are not; or the better half of them, preferred to the other half (SWEET-RL, arXiv 2503.15478)."""
    threshold: float = 0.5
    """Value, as the credit recipe gives it, above which a reply is good; for `rule: threshold`."""

    def __post_init__(self) -> None:
        require(
            self.rule == "threshold" or self.threshold == 0.5,
            "objective.preference.threshold",
            self.threshold,
            f"left out with rule {self.rule}",
        )
        require(self.beta >= 0, "objective.preference.beta", self.beta, "0 or more")
        require(self.imitation >= 0, "objective.preference.imitation", self.imitation, "0 or more")
        require(
            self.beta + self.imitation > 0,
            "objective.preference.beta",
            self.beta,
            "more than 0, unless imitation is",
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
    """Bound of the importance weight that corrects the gap between engine and learner; None: no correction."""
    importance: Literal["truncate", "mask"] = "truncate"
    """`truncate`: a weight above the cap is cut to it. `mask`: a token whose weight is not within [1/cap, cap] has no
    policy loss, and still counts in what is averaged over (IcePop)."""
    kl: KLConfig = field(default_factory=KLConfig)
    """The pull towards a reference policy."""
    preference: PreferenceConfig | None = None
    """Learn from pairs, with `kl.reference` as the reference, and from nothing else here; None: from advantages."""
    discriminate: DiscriminateConfig | None = None
    """Learn from right and wrong replies to the same prompt, and from nothing else here; None: from advantages."""
    covariance: CovarianceConfig | None = None
    """Hold back tokens whose likelihood and advantage go together; needs one more pass per optimizer step."""
    hapo: HapoConfig | None = None
    """Bounds and advantages go by the entropy of tokens; needs one more pass per optimizer step."""
    smooth: SmoothConfig | None = None
    """Keep entropies near those of earlier steps; needs one more pass per step."""
    log_ratio_bound: float | None = None
    """The log of a token's ratio is cut to within this, either way, before anything else; None: it is not.
    StableReinforce has 6.9, the log of 1000."""

    @property
    def compares(self) -> bool:
        """Whether it compares the values of turns, instead of going by advantages."""
        return self.preference is not None or self.discriminate is not None

    def __post_init__(self) -> None:
        require(
            self.preference is None or self.discriminate is None,
            "objective.discriminate",
            "a section",
            "null where there is objective.preference",
        )
        require(
            self.smooth is None or max(self.entropy, self.entropy_final or 0.0) > 0,
            "objective.entropy",
            self.entropy,
            "more than 0 where there is objective.smooth",
        )
        require(
            self.log_ratio_bound is None or 0 < self.log_ratio_bound < inf,
            "objective.log_ratio_bound",
            self.log_ratio_bound,
            "null or more than 0",
        )
        require(
            self.covariance is None or self.covariance.kind == "clip" or self.dual_clip is None,
            "objective.dual_clip",
            self.dual_clip,
            "null where objective.covariance.kind is kl, which clips nothing",
        )
        require(
            self.preference is None or self.kl.reference != "none",
            "objective.kl.reference",
            self.kl.reference,
            "frozen, ema or snapshot where there is objective.preference",
        )
        require(0 <= self.clip_low <= 1, "objective.clip_low", self.clip_low, "between 0 and 1")
        require(self.clip_high >= 0, "objective.clip_high", self.clip_high, "0 or more")
        require(
            self.dual_clip is None or self.dual_clip > 1,
            "objective.dual_clip",
            self.dual_clip,
            "null or more than 1",
        )
        require(self.constant > 0, "objective.constant", self.constant, "more than 0")
        require(self.entropy >= 0, "objective.entropy", self.entropy, "0 or more")
        require(
            self.entropy_final is None or self.entropy_final >= 0,
            "objective.entropy_final",
            self.entropy_final,
            "null or 0 or more",
        )
        require(
            self.importance_cap is None or self.importance_cap >= 1,
            "objective.importance_cap",
            self.importance_cap,
            "null or 1 or more",
        )
        require(
            self.importance == "truncate" or (self.importance_cap or 1) > 1,
            "objective.importance_cap",
            self.importance_cap,
            "more than 1 where objective.importance is mask",
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
    groups: int | None = None
    """Complete groups, of those in which the policy had a turn, that one update takes from the store; None: all that
    are there after a step. Needs `store`. The schedule counts updates then, as many as these groups allow for."""
    replay: ReplayConfig | None = None
    """Learn from good turns of earlier steps once more; None: never."""
    micro_batch_tokens: int = 2048
    """Packed tokens per forward and backward pass; about 2048 keeps a CPU's caches warm, a GPU likes more."""
    row_tokens: int = 512
    """Packed tokens per row; a longer sequence gets a row of its own."""
    logit_tokens: int | None = None
    """Positions whose logits exist at a time; with more they are computed again for the backward pass. None: as many as
    have 2^25 logits together (128 MiB), 220 with a vocabulary of 150,000."""
    checkpoint_activations: bool = False
    """Keep only what goes into each layer, and compute the rest again for the backward pass: slower by a third, with
    far less memory."""
    processes: int = 1
    """Processes among which weights, gradients, optimizer and reference are split, and the work is shared out (FSDP2).
    On GPUs each has one of its own."""
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of forward and backward; master weights are float32."""

    def __post_init__(self) -> None:
        require(self.lr >= 0, "learner.lr", self.lr, "0 or more")
        require(0 <= self.final <= 1, "learner.final", self.final, "between 0 and 1")
        require(self.warmup_steps >= 0, "learner.warmup_steps", self.warmup_steps, "0 or more")
        require(all(0 <= beta < 1 for beta in self.betas), "learner.betas", self.betas, "from 0 to less than 1, both")
        require(self.weight_decay >= 0, "learner.weight_decay", self.weight_decay, "0 or more")
        require(self.grad_clip > 0, "learner.grad_clip", self.grad_clip, "more than 0")
        for name in ("minibatches", "epochs", "micro_batch_tokens", "row_tokens", "processes"):
            require(getattr(self, name) >= 1, f"learner.{name}", getattr(self, name), "1 or more")
        for name in ("groups", "logit_tokens"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"learner.{name}", value, "null or 1 or more")
        require(
            self.processes == 1 or self.device in ("cpu", "cuda"),
            "learner.device",
            self.device,
            "cpu or cuda (each process has the GPU that it sees first) where learner.processes is more than 1",
        )


CriticKind = Literal["value", "prefix", "twin", "progress", "privileged", "implicit"]
_READS: dict[CriticKind, tuple[str, ...]] = {
    "value": ("value",),
    "prefix": ("value", "q"),
    "twin": ("q1", "q2", "v1", "v2"),
    "progress": ("progress", "value"),
    "privileged": ("informed", "informed_before"),
    "implicit": ("implicit",),
}
_TUNES: dict[CriticKind, tuple[str, ...]] = {
    "value": ("at", "gamma", "lam", "clip"),
    "prefix": ("gamma", "lam", "clip", "wait"),
    "twin": ("gamma", "tau"),
    "progress": ("ground",),
    "privileged": ("beta",),
    "implicit": ("beta", "above"),
}


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """A model beside the policy's that learns what its turns are worth, for recipes that ask for it.

    It learns from episodes that were played to their end, after credit, and is on the learner's device.
    """

    kind: CriticKind = "value"
    """`value`: what is still to come (PPO). `prefix`: the same before a turn and, as `q`, after it (ReAd, arXiv
    2405.14314). `twin`: two estimates each of that after a turn (`q1`, `q2`) and before it (`v1`, `v2`; ArCHer,
    2402.19446). `progress`: parts of the episode's return that sum to it, and as `value` how much of it is to come
    (SPA-RL, 2505.20732). `privileged`: log-probability per token of a reply to one who knows the gold answer and learns
    what better episodes said, now and before it learned (`informed`, `informed_before`; SWEET-RL, 2503.15478).
    `implicit`: beta times how much likelier each token has become to one who learns from outcomes alone that these,
    summed over an episode, tell a success from a failure (PRIME, 2502.01456); 0 for the last, where the outcome is."""
    at: Literal["token", "turn"] = "token"
    """Of `value`: before every sampled token, or before every turn."""
    tiny: TinyModelConfig | None = None
    """Make a small model of this size that reads the policy's tokens; None: begin as the policy does, after its warm-up
    (with `lora`: as its base)."""
    lr: float = 1e-3
    """Learning rate of AdamW, constant."""
    epochs: int = 1
    """Optimizer steps per training step, on all its turns each."""
    grad_clip: float = 1.0
    """Largest norm of the gradient."""
    gamma: float = 1.0
    """Discount from one turn to the next, with `at: token` from one token to the next."""
    lam: float = 1.0
    """Of the targets, GAE(lam) plus the value before; 1: what really came (Monte Carlo)."""
    clip: float | None = None
    """How far a value may move from that before the step before its error is held against it; None: any way (PPO)."""
    tau: float = 0.1
    """Share of the way that the target copy goes towards the critic after every optimizer step."""
    beta: float = 0.1
    """Of `privileged`: factor of the difference between two episodes in the loss of their pair. Of `implicit`: factor
    of a token's log-ratio in its reward."""
    wait: str | None = None
    """Of `prefix`: a reply that does nothing in the game; what would be worth `q` after it is `wait` (ReAd-J). None: no
    such reply is asked about."""
    above: float = 0.0
    """Of `implicit`: an episode is a success for an agent that earned more than this in it, all rewards summed."""
    ground: float = 0.5
    """What a legal action counts in the `value` of `progress`, as it does in recipe spa."""

    @property
    def by_token(self) -> bool:
        """Whether it tells of tokens, not of turns."""
        return self.kind == "implicit" or (self.kind == "value" and self.at == "token")

    @property
    def copied(self) -> bool:
        """Whether a second copy is kept: the targets of twins, or where a language model began that is compared."""
        return self.kind in ("twin", "privileged", "implicit")

    @property
    def quantities(self) -> tuple[str, ...]:
        """What it tells."""
        return (*_READS[self.kind], "wait") if self.wait is not None else _READS[self.kind]

    def __post_init__(self) -> None:
        defaults = {item.name: item.default for item in fields(self)}
        tuned = {name for names in _TUNES.values() for name in names}
        for name in sorted(tuned - set(_TUNES[self.kind])):
            require(
                getattr(self, name) == defaults[name],
                f"critic.{name}",
                getattr(self, name),
                f"left out in kind {self.kind}",
            )
        require(
            self.kind != "privileged" or self.tiny is None,
            "critic.tiny",
            "a section",
            "null in kind privileged, which is a policy that knows more",
        )
        require(0 <= self.lr < inf, "critic.lr", self.lr, "0 or more")
        require(self.epochs >= 1, "critic.epochs", self.epochs, "1 or more")
        require(self.grad_clip > 0, "critic.grad_clip", self.grad_clip, "more than 0")
        for name in ("gamma", "lam"):
            require(0 <= getattr(self, name) <= 1, f"critic.{name}", getattr(self, name), "between 0 and 1")
        require(0 < self.tau <= 1, "critic.tau", self.tau, "more than 0, at most 1")
        require(self.clip is None or self.clip > 0, "critic.clip", self.clip, "null or more than 0")
        require(0 < self.beta < inf, "critic.beta", self.beta, "more than 0")
        require(0 <= self.ground < inf, "critic.ground", self.ground, "0 or more")
        require(isfinite(self.above), "critic.above", self.above, "a finite number")
        require(self.wait != "", "critic.wait", self.wait, "null or a reply")


NAME_LENGTH = 100
"""Characters that the name of a player may have, where somebody gives it one."""
ScriptedKind = Literal["random", "noisy", "cfr", "minimax", "mcts", "tit_for_tat", "bargainer", "informed"]
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
    base: str | None = None
    """Another policy of kind llm, whose model this one shares and has an adapter on; None: a model of its own."""
    lora: LoraConfig | None = None
    """The adapter that is trained in place of the model's weights; None: none."""
    warmup: WarmupConfig | None = None
    """Imitation before training; None: none. Whom others are based on is warmed up first."""
    trainable: bool = True
    """Whether an `llm` learns after its warm-up."""
    temperature: float = 1.0
    """Of sampling, and of the learner. 0, the most probable token, is for policies that do not learn."""
    engine: EngineConfig = field(default_factory=EngineConfig)
    """Runs the model for play."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    """Trains the model."""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """What it is trained on."""
    critic: CriticConfig | None = None
    """Learns what its turns are worth, for recipes such as ppo; None: nobody does."""
    options: dict[str, Any] = field(default_factory=dict)
    """Of the other kinds: `checkpoint: {path, step}` (step: the latest), `remote: {url, model, retries, backoff_s,
    timeout_s, workers, answers}`, `cfr: {iterations}`, `mcts: {simulations}`, `noisy: {temperature, foresight}`,
    `informed: {accuracy}`."""

    @property
    def learns(self) -> bool:
        """Whether training changes it."""
        return self.kind == "llm" and self.trainable

    def __post_init__(self) -> None:
        greedy = self.temperature == 0 and not self.learns
        require(
            0 < self.temperature < inf or greedy,
            "policy.temperature",
            self.temperature,
            "more than 0" + ("" if self.learns else ", or 0, which takes the most probable token"),
        )
        require(
            not self.objective.compares or self.learner.minibatches == 1,
            "learner.minibatches",
            self.learner.minibatches,
            "1 where there is objective.preference or discriminate, since what is compared stays together",
        )
        require(
            not self.objective.compares or self.learner.replay is None,
            "learner.replay",
            "a section",
            "null where there is objective.preference or discriminate, which know no advantages",
        )
        require(
            self.critic is None or self.learns,
            "policy.critic",
            "a section",
            "null in a policy that does not learn",
        )
        require(
            self.critic is None or self.learner.processes == 1,
            "learner.processes",
            self.learner.processes,
            "1 where there is a critic",
        )
        if self.kind != "llm":
            require(self.lora is None, "policy.lora", "a section", f"null in a policy of kind {self.kind}")
            require(self.base is None, "policy.base", self.base, f"null in a policy of kind {self.kind}")
        if self.base is not None:
            require(self.lora is not None, "policy.lora", None, f"a section, with base: {self.base}")
            require(self.model is None, "policy.model", self.model, f"null, with base: {self.base}")
            require(self.tiny == TinyModelConfig(), "policy.tiny", "a section", f"left out, with base: {self.base}")
