"""What a loss may do besides: sections of `objective` that are null unless a method asks for them."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from marl_llm.config.require import require


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """Learn once more from what was good a few steps ago (SPEAR, arXiv 2509.22601).

    Turns with an advantage above 0 wait. Those that are still above the median of earlier groups' means, as recipe
    spear_recalibrated has it, are learned from once there are enough sequences of them; then all that waits is dropped.
    """

    size: int = 2048
    """Sequences that are learned from together, at most: as many as the largest power of two, drawn at random."""
    trigger: float = 1.5
    """They are once there are more than this times `size`. With few games a step that takes a smaller `size`."""
    steps: int = 5
    """Updates for which a turn may wait; 10 at most."""
    coef: float = 1.0
    """Weight of their loss beside that of the new samples, each normalised by itself."""
    rise: int = 200
    """Updates in which the weight rises from 0, half a cosine; then it stays."""

    def __post_init__(self) -> None:
        for name in ("size", "rise"):
            require(getattr(self, name) >= 1, f"learner.replay.{name}", getattr(self, name), "1 or more")
        for name in ("trigger", "coef"):
            require(0 < getattr(self, name) < inf, f"learner.replay.{name}", getattr(self, name), "more than 0")
        require(1 <= self.steps <= 10, "learner.replay.steps", self.steps, "from 1 to 10")


@dataclass(frozen=True, kw_only=True)
class CovarianceConfig:
    """Hold back the tokens of an optimizer batch whose likelihood goes together with their advantage
    (arXiv 2505.22617)."""

    kind: Literal["clip", "kl"] = "clip"
    """`clip`: some tokens, drawn from those whose covariance is between `low` and `high`, have no policy loss. `kl`: no
    ratio is clipped, and the tokens with the largest covariance are pulled back to what they were."""
    share: float = 2e-4
    """How many tokens of the batch, at least one."""
    low: float = 1.0
    """Of `clip`."""
    high: float = 5.0
    """Of `clip`."""
    coef: float = 1.0
    """Of `kl`: weight of the absolute change in log-probability."""

    def __post_init__(self) -> None:
        require(0 < self.share <= 1, "objective.covariance.share", self.share, "more than 0, at most 1")
        require(self.low < self.high, "objective.covariance.low", self.low, "less than objective.covariance.high")
        require(self.coef >= 0, "objective.covariance.coef", self.coef, "0 or more")


@dataclass(frozen=True, kw_only=True)
class HapoConfig:
    """Bounds and advantages that go by h, the entropy of a token among those of the optimizer batch: -1 at the
    surest, 1 at the least sure (HAPO, arXiv 2509.16591)."""

    clip: float = 1.0
    """clip_low grows by this times -h where h is below 0, clip_high by this times h where it is above."""
    redistribute: float = 1.0
    """Advantages are multiplied by 1 + this times h: above 0 where the ratio has left the middle half of its bounds,
    below 0 where it is in it."""
    quantile: float = 0.8
    """Share of tokens whose h is below 0."""
    signed: bool = True
    """False: h without its sign, as in the release."""

    def __post_init__(self) -> None:
        require(0 <= self.clip < inf, "objective.hapo.clip", self.clip, "0 or more")
        require(0 <= self.redistribute <= 1, "objective.hapo.redistribute", self.redistribute, "between 0 and 1")
        require(0 <= self.quantile <= 1, "objective.hapo.quantile", self.quantile, "between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class SmoothConfig:
    """Keep the entropy of each turn near its mean of earlier training steps; goes with `objective.entropy`, and is
    worth this much of it (EPO, arXiv 2509.22576)."""

    low: float = 0.8
    """Times the earlier mean: the least entropy that costs nothing."""
    high: float = 1.2
    """Times the earlier mean: the most."""
    penalty: float = 0.1
    """Per nat out of these bounds; of `indicator`, of being out of them."""
    weight: float = 1.0
    """Of the penalty, times a factor that falls from 1 to 0.04 over the run."""
    form: Literal["hinge", "indicator"] = "hinge"
    """`indicator`: as released; it has no gradient, so that only metrics tell of it."""
    level: Literal["token", "turn"] = "token"
    """Whose entropy is held against the bounds: each token's, or their mean over the turn."""
    turns: int = 50
    """Turns of an episode that have a mean of their own; later ones share that of the last."""

    def __post_init__(self) -> None:
        require(0 <= self.low <= self.high, "objective.smooth.low", self.low, "from 0 to objective.smooth.high")
        require(self.high < inf, "objective.smooth.high", self.high, "a number")
        require(self.penalty >= 0, "objective.smooth.penalty", self.penalty, "0 or more")
        require(self.weight >= 0, "objective.smooth.weight", self.weight, "0 or more")
        require(self.turns >= 1, "objective.smooth.turns", self.turns, "1 or more")


@dataclass(frozen=True, kw_only=True)
class DiscriminateConfig:
    """Tell right replies to a prompt from wrong ones, the shorter right ones the more (DRPO, arXiv 2510.04474)."""

    tau: float = 10.0
    """How alike wrong replies weigh: the likelier ones more, the smaller it is."""
    lam: float = 0.1
    """How alike right replies weigh: the shorter ones more, the smaller it is."""
    longest: int = 8192
    """Tokens of the longest reply."""
    threshold: float = 0.5
    """Value, as the credit recipe gives it, above which a reply is right."""
    drift: float = 1e-4
    """How far (nats per token) the policy may move from where the update began, at no cost."""
    drift_coef: float = 1000.0
    """Weight of what it moves beyond."""

    def __post_init__(self) -> None:
        for name in ("tau", "lam"):
            require(getattr(self, name) > 0, f"objective.discriminate.{name}", getattr(self, name), "more than 0")
        require(self.longest >= 1, "objective.discriminate.longest", self.longest, "1 or more")
        for name in ("drift", "drift_coef"):
            require(getattr(self, name) >= 0, f"objective.discriminate.{name}", getattr(self, name), "0 or more")
