"""What the loss does to single tokens, decided over the whole optimizer batch before it is cut into micro-batches."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from marl_llm.config import HapoConfig, SmoothConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPlan:
    """Of N sampled tokens what is special about each; None: nothing."""

    left_out_N: torch.Tensor | None = None
    """Whether it has no policy loss (bool)."""
    pulled_N: torch.Tensor | None = None
    """Whether it is pulled back to what it was (bool)."""
    h_N: torch.Tensor | None = None
    """Its entropy among the others', from -1 to 1."""

    def of(self, sampled_M: torch.Tensor) -> "TokenPlan":
        """The plan of some of them."""
        parts = (self.left_out_N, self.pulled_N, self.h_N)
        left_out_M, pulled_M, h_M = (None if values_N is None else values_N[sampled_M] for values_N in parts)
        return TokenPlan(left_out_N=left_out_M, pulled_N=pulled_M, h_N=h_M)


def covariance(now_N: torch.Tensor, advantages_N: torch.Tensor) -> torch.Tensor:
    """Each token's part of the covariance of log-probability and advantage (arXiv 2505.22617)."""
    return (advantages_N - advantages_N.mean()) * (now_N - now_N.mean())


def drawn_between(
    cov_N: torch.Tensor,
    clipped_N: torch.Tensor,
    *,
    share: float,
    low: float,
    high: float,
    draws: np.random.Generator,
) -> torch.Tensor:
    """Draw max(1, share N) tokens of those between `low` and `high` that are not clipped; all where there are fewer."""
    candidates = torch.nonzero((cov_N > low) & (cov_N < high) & ~clipped_N)[:, 0]
    order = torch.from_numpy(draws.permutation(len(candidates))).to(cov_N.device)
    chosen_N = torch.zeros_like(clipped_N)
    chosen_N[candidates[order[: max(1, int(share * len(cov_N)))]]] = True
    return chosen_N


def largest(cov_N: torch.Tensor, share: float) -> torch.Tensor:
    """The max(1, share N) tokens with the largest value, the first of equal ones."""
    chosen_N = torch.zeros_like(cov_N, dtype=torch.bool)
    chosen_N[torch.argsort(cov_N, descending=True, stable=True)[: max(1, int(share * len(cov_N)))]] = True
    return chosen_N


def entropy_rank(entropy_N: torch.Tensor, *, quantile: float = 0.8, signed: bool = True) -> torch.Tensor:
    """h of HAPO (arXiv 2509.16591): the log of the entropy less its quantile, each side divided by its extreme.

    `signed: False` divides what is below the quantile by its extreme with the sign, so that all are 0 or more, as the
    release does. Where all are equal h is 0.
    """
    log_N = torch.log(entropy_N.clamp(min=1e-8))
    pivot = torch.sort(log_N).values[round(quantile * (len(log_N) - 1))]
    above_N = log_N - pivot
    most, least = above_N.max().clamp(min=1e-8), above_N.min().clamp(max=-1e-8)
    return torch.where(above_N > 0, above_N / most, above_N / (least.abs() if signed else least))


def entropy_bounds(
    h_M: torch.Tensor, clip_low: float, clip_high: float, alpha: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """HAPO's bounds: the lower one is wider for sure tokens, the upper one for unsure ones."""
    return clip_low * (1 + alpha * (-h_M).clamp(min=0)), clip_high * (1 + alpha * h_M.clamp(min=0))


def redistributed(
    advantages_M: torch.Tensor,
    h_M: torch.Tensor,
    ratio_M: torch.Tensor,
    bounds: tuple[torch.Tensor, torch.Tensor],
    beta: float,
) -> torch.Tensor:
    """A (1 + beta h): where h is above 0 and the ratio outside the middle half of its bounds, or not and within it."""
    low_M, high_M = bounds
    outside_M = (ratio_M < 1 - low_M / 2) | (ratio_M > 1 + high_M / 2)
    return torch.where((h_M > 0) == outside_M, advantages_M * (1 + beta * h_M), advantages_M)


def hapo(
    config: HapoConfig,
    h_M: torch.Tensor,
    ratio_M: torch.Tensor,
    advantages_M: torch.Tensor,
    clip_low: float,
    clip_high: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Advantages, lower and upper bounds of tokens with these h and ratios (without gradient)."""
    bounds = entropy_bounds(h_M, clip_low, clip_high, config.clip)
    return redistributed(advantages_M, h_M, ratio_M, bounds, config.redistribute), *bounds


def entropy_penalty(config: SmoothConfig, entropy_M: torch.Tensor, usual_M: torch.Tensor) -> torch.Tensor:
    """What it costs not to be within [low, high] times the usual entropy; nothing where that is unknown (NaN).

    With `indicator` the bounds themselves are outside, and the cost has no gradient.
    """
    low_M, high_M = config.low * usual_M, config.high * usual_M
    if config.form == "indicator":
        inside_M = (entropy_M > low_M) & (entropy_M < high_M)
        return torch.where(inside_M | usual_M.isnan(), 0.0, config.penalty).to(entropy_M.dtype)
    known_M = ~usual_M.isnan()
    low_M, high_M = low_M.nan_to_num(), high_M.nan_to_num()
    out_M = torch.relu(low_M - entropy_M) + torch.relu(entropy_M - high_M)
    return config.penalty * torch.where(known_M, out_M, torch.zeros_like(out_M))


def smoothing(step: int, total: int) -> float:
    """Factor of the penalty in training step `step`, from 0: it falls from 1 to 0.83 in the first half of the run,
    and from 0.77 to 0.04 in the second (EPO, arXiv 2509.22576)."""
    half = max(total, 1) / 2
    if step <= half:
        return 1 - 0.2 * (1 - math.exp(-2 * step / half))
    return 0.8 * math.exp(-3 * (step - half) / half)
