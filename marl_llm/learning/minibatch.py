"""One optimizer batch: its flat vectors, its loss, and what is measured on the way."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from marl_llm.config import ObjectiveConfig
from marl_llm.learning.batch import MicroBatch, SampledTokens, behaviour
from marl_llm.learning.forward import TokenValues
from marl_llm.learning.objective import (
    NO_PLAN,
    TokenLosses,
    aggregation_weights,
    group_mean,
    kl_estimate,
    policy_losses,
)
from marl_llm.learning.selection import TokenPlan, drawn_between, entropy_penalty, entropy_rank, largest
from marl_llm.learning.selection import covariance as cov
from marl_llm.learning.sharding import Processes
from marl_llm.types import Sample


@dataclass(frozen=True, kw_only=True, slots=True)
class LossTerms:
    """The loss of one micro-batch, per sampled token; the three parts are weighted."""

    policy_M: torch.Tensor
    """Clipped policy loss."""
    kl_loss_M: torch.Tensor
    """Divergence times its coefficient; 0 without a reference."""
    entropy_loss_M: torch.Tensor
    """Negative entropy, and what it costs to have left the usual, times the coefficient."""
    kl_M: torch.Tensor
    """Divergence from the reference (nats), without gradient."""
    entropy_M: torch.Tensor
    """Entropy (nats), without gradient."""
    ratio_M: torch.Tensor
    """Policy now over the proximal policy, without gradient."""
    clipped_M: torch.Tensor
    """Whether clipping took the gradient away (bool)."""
    masked_M: torch.Tensor
    """Whether the importance weight took the token out of the policy loss (bool)."""
    gap_M: torch.Tensor
    """Learner before the update minus engine, in log-probability, without gradient."""

    @property
    def loss(self) -> torch.Tensor:
        """What is differentiated."""
        return (self.policy_M + self.kl_loss_M + self.entropy_loss_M).sum()


@dataclass(frozen=True, kw_only=True, slots=True)
class Minibatch:
    """The samples of one optimizer step, as flat vectors over their N sampled tokens."""

    samples: Sequence[Sample]
    """Every sample has a sampled token."""
    objective: ObjectiveConfig
    """The loss."""
    tokens_N: torch.Tensor
    """Sampled token ids."""
    behaviour_N: torch.Tensor
    """Log-probabilities by the engine."""
    proximal_N: torch.Tensor | None
    """Log-probabilities before the update's first optimizer step; None if this is it, and the only one."""
    advantages_N: torch.Tensor
    """Advantages."""
    weights_N: torch.Tensor
    """Weight of each token in the loss."""
    groups_N: torch.Tensor | None
    """Number of the turn or sequence over which the ratio is taken; None for the token itself."""
    turns_N: torch.Tensor
    """Number of the turn of each token."""
    plan: TokenPlan = NO_PLAN
    """What is special about each token; see `planned`."""
    usual_N: torch.Tensor | None = None
    """Mean entropy in earlier steps of the token's turn in its episode, NaN where there was none; None: no matter."""
    smoothing: float = 1.0
    """Factor of the penalty for leaving it, in this training step."""

    @classmethod
    def make(
        cls,
        samples: Sequence[Sample],
        table: SampledTokens,
        objective: ObjectiveConfig,
        proximal_N: torch.Tensor | None,
        device: torch.device,
        *,
        fresh: int | None = None,
    ) -> "Minibatch":
        """Weigh the tokens of the samples, of which `table` is what `flatten` makes, over the whole batch: the first
        `fresh` samples by themselves, and so the others, that are replayed; None: there are no others."""
        behaviour_N, advantages_N = behaviour(samples)
        weights_N = _weights(table, objective, len(samples) if fresh is None else fresh)
        groups_N = {"token": None, "turn": table.turns_N, "sequence": table.sequences_N}[objective.ratio]
        return cls(
            samples=samples,
            objective=objective,
            tokens_N=table.tokens_N.to(device),
            behaviour_N=behaviour_N.to(device),
            proximal_N=proximal_N,
            advantages_N=advantages_N.to(device),
            weights_N=weights_N.float().to(device),
            groups_N=None if groups_N is None else groups_N.to(device),
            turns_N=table.turns_N.to(device),
        )

    @torch.no_grad()
    def planned(self, now_N: torch.Tensor, entropy_N: torch.Tensor, draws: np.random.Generator) -> "Minibatch":
        """The batch with the plan that its objective makes of the present log-probabilities and entropies.

        The draws are those of Clip-Cov (arXiv 2505.22617).
        """
        covariance, hapo = self.objective.covariance, self.objective.hapo
        plan = TokenPlan()
        if hapo is not None:
            plan = replace(plan, h_N=entropy_rank(entropy_N, quantile=hapo.quantile, signed=hapo.signed))
        if covariance is not None:
            cov_N = cov(now_N, self.advantages_N)
            if covariance.kind == "kl":
                plan = replace(plan, pulled_N=largest(cov_N, covariance.share))
            else:
                clipped_N = self._policy(now_N, slice(None), plan).clipped_M
                between = {"low": covariance.low, "high": covariance.high}
                left_out_N = drawn_between(cov_N, clipped_N, share=covariance.share, **between, draws=draws)
                plan = replace(plan, left_out_N=left_out_N)
        return replace(self, plan=plan)

    def _policy(self, now_M: torch.Tensor, which: torch.Tensor | slice, plan: TokenPlan) -> TokenLosses:
        proximal_M = now_M.detach() if self.proximal_N is None else self.proximal_N[which]
        groups_M = None if self.groups_N is None else self.groups_N[which]
        known = proximal_M, self.behaviour_N[which], self.advantages_N[which]
        return policy_losses(self.objective, now_M, *known, groups_M, plan)

    def terms(self, values: TokenValues, batch: MicroBatch) -> LossTerms:
        """The loss of the tokens of one micro-batch, which holds whole samples."""
        objective, sampled_M = self.objective, batch.sampled_M
        now_M, behaviour_M = values.logprobs_M, self.behaviour_N[sampled_M]
        proximal_M = now_M.detach() if self.proximal_N is None else self.proximal_N[sampled_M]
        policy = self._policy(now_M, sampled_M, self.plan.of(sampled_M))
        kl_M = torch.zeros_like(now_M) if values.kl_M is None else values.kl_M
        if values.reference_M is not None and objective.kl.kind != "full":
            kl_M = kl_estimate(objective.kl.kind, now_M, values.reference_M)
        weights_M = self.weights_N[sampled_M]
        return LossTerms(
            policy_M=weights_M * policy.policy_M,
            kl_loss_M=weights_M * objective.kl.coef * kl_M,
            entropy_loss_M=weights_M * objective.entropy * (self._strayed(values.entropy_M, batch) - values.entropy_M),
            kl_M=kl_M.detach(),
            entropy_M=values.entropy_M.detach(),
            ratio_M=policy.ratio_M,
            clipped_M=policy.clipped_M,
            masked_M=policy.masked_M,
            gap_M=proximal_M - behaviour_M,
        )

    def _strayed(self, entropy_M: torch.Tensor, batch: MicroBatch) -> torch.Tensor | float:
        """What it costs that entropies have left what is usual, in units of the entropy bonus."""
        smooth = self.objective.smooth
        if smooth is None or self.usual_N is None:
            return 0.0
        sampled_M = batch.sampled_M
        held_M = group_mean(entropy_M, self.turns_N[sampled_M]) if smooth.level == "turn" else entropy_M
        return smooth.weight * self.smoothing * entropy_penalty(smooth, held_M, self.usual_N[sampled_M])


def _weights(table: SampledTokens, objective: ObjectiveConfig, fresh: int) -> torch.Tensor:
    """Weight of each token in the loss (float64): the first `fresh` samples are averaged, and so are the others."""
    new_N = table.sequences_N < fresh
    weights_N = torch.zeros_like(table.turn_weights_N, dtype=torch.float64)
    for part_N in (new_N, ~new_N):
        if part_N.any():
            weights_N[part_N] = aggregation_weights(
                objective.aggregation,
                table.sequences_N[part_N],
                table.turns_N[part_N],
                table.roles_N[part_N],
                table.episodes_N[part_N],
                table.turn_weights_N[part_N].double(),
                objective.constant,
            )
    return weights_N


@dataclass(kw_only=True, slots=True)
class Tally:
    """Adds up the metrics of one training step."""

    optimizer_steps: int = 0
    grad_norm: float = 0.0
    visits: int = 0
    nodes: int = 0
    padded: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 9)
    ratio_max: float = 0.0
    gap_max: float = 0.0

    def add(self, stats: Sequence[float], batch: MicroBatch) -> None:
        """Add the `stats` of a micro-batch's terms."""
        *sums, ratio_max, gap_max = stats
        self.sums = [total + value for total, value in zip(self.sums, sums)]
        self.ratio_max, self.gap_max = max(self.ratio_max, ratio_max), max(self.gap_max, gap_max)
        self.visits += len(batch.sampled_M)
        self.nodes += batch.num_nodes
        self.padded += batch.tokens_BT.numel()

    def combine(self, processes: Processes) -> None:
        """Take in what the other processes have added up."""
        *self.sums, visits, nodes, padded = processes.sums([*self.sums, self.visits, self.nodes, self.padded])
        self.visits, self.nodes, self.padded = int(visits), int(nodes), int(padded)
        self.ratio_max, self.gap_max = processes.largest([self.ratio_max, self.gap_max])

    def metrics(self) -> dict[str, float]:
        """Losses as means over optimizer steps, token values as means over tokens."""
        losses = [value / self.optimizer_steps for value in self.sums[:4]]
        means = [value / self.visits for value in self.sums[4:]]
        return {
            **dict(zip(("loss", "policy_loss", "kl_loss", "entropy_loss"), losses)),
            **dict(zip(("kl", "entropy", "clip_fraction", "masked_fraction", "gap_mean"), means)),
            "ratio_max": self.ratio_max,
            "gap_max": self.gap_max,
            "grad_norm": self.grad_norm,
            "packed_tokens": float(self.nodes),
            "padding_share": 1 - self.nodes / self.padded,
        }


@torch.no_grad()
def stats(terms: LossTerms, loss: torch.Tensor) -> list[float]:
    """The numbers that `Tally.add` takes, fetched from the device at once."""
    gap_M = terms.gap_M.abs()
    sums = (
        terms.policy_M,
        terms.kl_loss_M,
        terms.entropy_loss_M,
        terms.kl_M,
        terms.entropy_M,
        terms.clipped_M,
        terms.masked_M,
        gap_M,
    )
    numbers = [loss, *(values.sum(dtype=loss.dtype) for values in sums), terms.ratio_M.max(), gap_M.max()]
    result: list[float] = torch.stack(numbers).tolist()
    return result
