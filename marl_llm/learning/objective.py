"""The loss as pure functions on flat vectors: one entry per sampled token."""

import math
from dataclasses import dataclass

import torch

from marl_llm.config import Aggregation, ObjectiveConfig
from marl_llm.learning.selection import TokenPlan, hapo

NO_PLAN = TokenPlan()


def aggregation_weights(
    mode: Aggregation,
    sequence_N: torch.Tensor,
    turn_N: torch.Tensor,
    role_N: torch.Tensor,
    episode_N: torch.Tensor,
    turn_weight_N: torch.Tensor,
    constant: float,
) -> torch.Tensor:
    """Weights with which `loss = sum(weights * token losses)`, over the whole optimizer batch.

    They are computed before the batch is cut into micro-batches, so the cut changes nothing. The first four
    vectors number sequences, turns, roles and episodes (int64). A turn's weight multiplies its tokens; the
    divisors do not know it. `nested` is the mean over roles, episodes, turns, tokens (MARS, arXiv
    2510.15414).
    """
    if mode == "constant":
        share_N = torch.full_like(turn_weight_N, 1.0 / (len(torch.unique(sequence_N)) * constant))
    else:
        levels = {
            "token": (),
            "sequence": (sequence_N,),
            "turn": (turn_N,),
            "nested": (role_N, episode_N, turn_N),
        }[mode]
        share_N = _nested_mean(levels, turn_weight_N)
    return share_N * turn_weight_N


def _nested_mean(levels: tuple[torch.Tensor, ...], like_N: torch.Tensor) -> torch.Tensor:
    """1 / (members of the outermost level * members of the next within it * ... * tokens within the last)."""
    divisor_N = torch.ones_like(like_N)
    outer_N = torch.zeros(len(like_N), dtype=torch.int64, device=like_N.device)
    for level_N in (*levels, torch.arange(len(like_N), device=like_N.device)):
        pair_N = outer_N * (level_N.max() + 1) + level_N
        pairs, inner_N = torch.unique(pair_N, return_inverse=True)
        members = torch.bincount(pairs // (level_N.max() + 1))
        divisor_N = divisor_N * members[outer_N]
        outer_N = inner_N
    return 1.0 / divisor_N


def group_mean(values_M: torch.Tensor, groups_M: torch.Tensor | None) -> torch.Tensor:
    """Replace each value by the mean of its group; None: every token is a group of its own."""
    if groups_M is None:
        return values_M
    groups, inverse_M = torch.unique(groups_M, return_inverse=True)
    sums = torch.zeros(len(groups), dtype=values_M.dtype, device=values_M.device).index_add(0, inverse_M, values_M)
    return (sums / torch.bincount(inverse_M))[inverse_M]


def clipped_loss(
    ratio_M: torch.Tensor,
    advantages_M: torch.Tensor,
    clip_low: float | torch.Tensor,
    clip_high: float | torch.Tensor,
    dual_clip: float | None,
) -> torch.Tensor:
    """PPO's clipped loss (arXiv 1707.06347) with separate bounds (2503.14476) and dual clip (1912.09729)."""
    clipped_M = ratio_M.clamp(1 - clip_low, 1 + clip_high)  # type: ignore[arg-type]  # both numbers or both tensors
    loss_M = torch.maximum(-advantages_M * ratio_M, -advantages_M * clipped_M)
    if dual_clip is None:
        return loss_M
    return torch.where(advantages_M < 0, torch.minimum(loss_M, -advantages_M * dual_clip), loss_M)


def kl_estimate(kind: str, logprobs_M: torch.Tensor, reference_M: torch.Tensor) -> torch.Tensor:
    """KL(policy || reference) per token, estimated from the sampled token: k1 = d, k2 = d^2 / 2, k3 = exp(-d)
    + d - 1.

    d is the policy's log-probability minus the reference's. As a loss on the policy's own samples, k2 has the
    gradient of this KL in expectation; k1's has mean zero and pulls nowhere; k3's is that of KL(reference ||
    policy).
    """
    d_M = logprobs_M - reference_M
    if kind == "k1":
        return d_M
    if kind == "k2":
        return d_M.square() / 2
    assert kind == "k3", kind
    return torch.exp(-d_M) + d_M - 1


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenLosses:
    """The parts of the loss per token, and what they were made of."""

    policy_M: torch.Tensor
    """Clipped loss times importance weight."""
    ratio_M: torch.Tensor
    """Policy now over the proximal policy; without gradient."""
    clipped_M: torch.Tensor
    """Whether clipping took the gradient away (bool)."""
    masked_M: torch.Tensor
    """Whether the importance weight took the token out (bool)."""


def policy_losses(
    objective: ObjectiveConfig,
    now_M: torch.Tensor,
    proximal_M: torch.Tensor,
    behaviour_M: torch.Tensor,
    advantages_M: torch.Tensor,
    groups_M: torch.Tensor | None,
    plan: TokenPlan = NO_PLAN,
) -> TokenLosses:
    """The policy loss of each sampled token.

    `now_M` carries the gradient. `proximal_M` is the learner before the first optimizer step of the update,
    `behaviour_M` the engine. The ratio now / proximal is clipped; proximal / behaviour corrects the gap
    between engine and learner, without gradient: truncated from above at `importance_cap`, or taken as it is where
    it is within [1 / cap, cap] and as 0 elsewhere (IcePop, arXiv 2510.18855). With `importance_cap: None` the ratio
    is taken against the behaviour directly (plain PPO). Both are exponentials of the mean log-ratio over
    `groups_M`: the turn (ReMA, arXiv 2503.09501), the sequence (GSPO, 2507.18071), or None for the token itself.
    The groups must be complete. `plan` is that of these tokens: with KL-Cov no ratio is clipped.
    """
    cap, covariance = objective.importance_cap, objective.covariance
    origin_M = behaviour_M if cap is None else proximal_M.detach()
    log_M = now_M - origin_M
    if objective.log_ratio_bound is not None:  # StableReinforce, arXiv 2505.02835
        log_M = log_M.clamp(-objective.log_ratio_bound, objective.log_ratio_bound)
    ratio_M = torch.exp(group_mean(log_M, groups_M))
    clip_low: float | torch.Tensor = objective.clip_low
    clip_high: float | torch.Tensor = objective.clip_high
    if plan.h_N is not None and objective.hapo is not None:
        bounds = objective.clip_low, objective.clip_high
        advantages_M, clip_low, clip_high = hapo(objective.hapo, plan.h_N, ratio_M.detach(), advantages_M, *bounds)
    if covariance is not None and covariance.kind == "kl":
        clip_low = clip_high = math.inf
    loss_M = clipped_loss(ratio_M, advantages_M, clip_low, clip_high, objective.dual_clip)
    if plan.left_out_N is not None:
        loss_M = loss_M.masked_fill(plan.left_out_N, 0.0)
    if plan.pulled_N is not None and covariance is not None:
        loss_M = loss_M + covariance.coef * plan.pulled_N * (now_M - origin_M).abs()
    with torch.no_grad():
        low_M = (advantages_M < 0) & (ratio_M < 1 - clip_low)
        high_M = (advantages_M > 0) & (ratio_M > 1 + clip_high)
        dual = objective.dual_clip
        over_M = (advantages_M < 0) & (ratio_M > dual) if dual is not None else torch.zeros_like(low_M)
        masked_M = torch.zeros_like(low_M)
        if cap is not None:
            importance_M = torch.exp(group_mean(origin_M - behaviour_M, groups_M))
            if objective.importance == "mask":
                masked_M = (importance_M < 1 / cap) | (importance_M > cap)
                importance_M = importance_M.masked_fill(masked_M, 0.0)
            importance_M = importance_M.clamp(max=cap)
    if cap is not None:
        loss_M = loss_M * importance_M
    return TokenLosses(policy_M=loss_M, ratio_M=ratio_M.detach(), clipped_M=low_M | high_M | over_M, masked_M=masked_M)
