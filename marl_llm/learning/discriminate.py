"""Right replies to a prompt against wrong ones: each is made likelier or less likely by a weight of its own."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from marl_llm.config import DiscriminateConfig
from marl_llm.learning.batch import SampledTokens
from marl_llm.types import Sample, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Discrimination:
    """Q prompts with right and wrong replies, among T turns with N sampled tokens."""

    config: DiscriminateConfig
    """Of the loss."""
    turns_N: torch.Tensor
    """Turn of each token (int64), from 0 to T - 1."""
    replies: Sequence[tuple[torch.Tensor, torch.Tensor]]
    """Of each prompt with both: the turns that are right, and those that are wrong (int64)."""
    length_T: torch.Tensor
    """Tokens of each turn."""

    @classmethod
    def make(cls, samples: Sequence[Sample], table: SampledTokens, config: DiscriminateConfig) -> "Discrimination":
        """By prompt, the replies whose value is above the threshold and the others; the values of turns are in place of
        their advantages. `table` is that of `samples`."""
        device = table.tokens_N.device
        prompts: dict[Tokens, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        spans = [(sample, span) for sample in samples for span in sample.spans if span.length]
        for number, (sample, span) in enumerate(spans):
            assert span.advantages is not None, "a demonstration has no value"
            wrong = span.advantages[0] <= config.threshold
            prompts[sample.tokens[: span.start]][wrong].append(number)
        lengths = torch.tensor([span.length for _, span in spans], dtype=torch.int64)
        return cls(
            config=config,
            turns_N=torch.repeat_interleave(torch.arange(len(spans)), lengths).to(device),
            replies=[
                (torch.tensor(right, device=device), torch.tensor(wrong, device=device))
                for right, wrong in prompts.values()
                if right and wrong
            ],
            length_T=lengths.to(device),
        )

    def coefficients(self, now_N: torch.Tensor, begun_N: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """What each token's log-probability is multiplied by, to be summed as the loss's gradient; and metrics.

        With s a reply's mean log-probability per token, the loss is the mean over prompts with both kinds of
        tau log sum_wrong exp(s / tau) - sum_right w s, w the softmax of (1 - length / longest) / lam; plus drift_coef
        times the drift squared, as far as it exceeds `drift`, the drift being the mean of `begun_N`, the
        log-probabilities before the update, less `now_N`. Both are without gradient; metrics: `discriminative_loss`,
        `prompts` (with both kinds) and `moved` (nats per token).
        """
        config, number = self.config, max(1, len(self.replies))
        zeros_T = torch.zeros(len(self.length_T), dtype=now_N.dtype, device=now_N.device)
        score_T = zeros_T.index_add(0, self.turns_N, now_N) / self.length_T
        coefficient_T, loss = zeros_T.clone(), 0.0
        for right, wrong in self.replies:
            short = torch.softmax((1 - self.length_T[right].to(now_N.dtype) / config.longest) / config.lam, 0)
            likely = torch.softmax(score_T[wrong] / config.tau, 0)
            coefficient_T[right], coefficient_T[wrong] = -short / number, likely / number
            spread = config.tau * torch.logsumexp(score_T[wrong] / config.tau, 0)
            loss += float(spread - (short * score_T[right]).sum()) / number
        moved = (begun_N - now_N).mean()
        excess = (moved - config.drift).clamp(min=0)
        coefficient_N = (coefficient_T / self.length_T)[self.turns_N] - config.drift_coef * excess / len(now_N)
        told = {"discriminative_loss": loss, "prompts": float(len(self.replies)), "moved": float(moved)}
        return coefficient_N, told
