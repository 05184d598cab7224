"""Preference pairs: of two replies to the same prompt, the one that led further is made more likely than the other."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from marl_llm.config import PreferenceConfig
from marl_llm.learning.batch import SampledTokens
from marl_llm.types import Sample, Tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferences:
    """P pairs among T turns with N sampled tokens."""

    config: PreferenceConfig
    """Weights of the two losses."""
    turns_N: torch.Tensor
    """Turn of each token (int64), from 0 to T - 1."""
    chosen_P: torch.Tensor
    """Turn that is preferred (int64)."""
    rejected_P: torch.Tensor
    """Turn that it is preferred to (int64)."""
    good_T: torch.Tensor
    """Whether the turn is good, by the rule (bool)."""

    @classmethod
    def make(cls, samples: Sequence[Sample], table: SampledTokens, config: PreferenceConfig) -> "Preferences":
        """All pairs of a good reply and a bad one to the same prompt, by `config.rule`; the values of turns are in
        place of their advantages.

        Replies that are equal make no pair, whatever they led to, nor do equal values. `table` is that of `samples`.
        """
        prompts: dict[Tokens, list[tuple[int, Tokens, float]]] = defaultdict(list)
        spans = [(sample, span) for sample in samples for span in sample.spans if span.length]
        for number, (sample, span) in enumerate(spans):
            assert span.advantages is not None, "a demonstration has no value"
            reply = sample.tokens[span.start : span.start + span.length]
            prompts[sample.tokens[: span.start]].append((number, reply, span.advantages[0]))
        good = [False] * len(spans)
        pairs = []
        for replies in prompts.values():
            bad_ones, good_ones = _sides([value for *_, value in replies], config)
            for one, said, value in (replies[place] for place in good_ones):
                good[one] = True
                others = (replies[place] for place in bad_ones)
                pairs += [(one, other) for other, instead, less in others if said != instead and value > less]
        lengths = torch.tensor([span.length for _, span in spans], dtype=torch.int64)
        device = table.tokens_N.device
        chosen, rejected = torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2).unbind(1)
        return cls(
            config=config,
            turns_N=torch.repeat_interleave(torch.arange(len(spans)), lengths).to(device),
            chosen_P=chosen,
            rejected_P=rejected,
            good_T=torch.tensor(good, dtype=torch.bool, device=device),
        )

    def coefficients(self, now_N: torch.Tensor, reference_N: torch.Tensor) -> tuple[torch.Tensor, dict[str, float]]:
        """What each token's log-probability is multiplied by, to be summed as the loss's gradient; and metrics.

        The loss is the mean over pairs of -log sigmoid(beta (d_chosen - d_rejected)), d being the turn's
        log-probability less the reference's (DPO, arXiv 2305.18290), plus `imitation` times the mean negative
        log-probability per token of the good turns, each turn counting the same. Both vectors are
        log-probabilities without gradient; metrics: `preference_loss`, `imitation_loss`, `pairs`, `preferred` (share of
        pairs whose margin is above 0) and `margin` (mean, nats).
        """
        config, turns = self.config, len(self.good_T)
        zeros_T = torch.zeros(turns, dtype=now_N.dtype, device=now_N.device)
        gain_T = zeros_T.index_add(0, self.turns_N, now_N - reference_N)
        margin_P = gain_T[self.chosen_P] - gain_T[self.rejected_P]
        push_P = config.beta * torch.sigmoid(-config.beta * margin_P) / max(1, len(margin_P))
        coefficient_T = zeros_T.index_add(0, self.chosen_P, -push_P).index_add(0, self.rejected_P, push_P)
        length_T = torch.bincount(self.turns_N, minlength=turns)
        number = max(1, int(self.good_T.sum()))
        imitated_T = self.good_T / (length_T * number)
        coefficient_N = (coefficient_T - config.imitation * imitated_T)[self.turns_N]
        pairs = len(margin_P)
        return coefficient_N, {
            "preference_loss": float(-torch.nn.functional.logsigmoid(config.beta * margin_P).mean()) if pairs else 0.0,
            "imitation_loss": float(-(imitated_T[self.turns_N] * now_N).sum()),
            "pairs": float(pairs),
            "preferred": float((margin_P > 0).double().mean()) if pairs else 0.0,
            "margin": float(margin_P.mean()) if pairs else 0.0,
        }


def _sides(values: Sequence[float], config: PreferenceConfig) -> tuple[list[int], list[int]]:
    """Places of bad and of good replies to one prompt. Of halves, the middle one of an odd number is neither."""
    places = range(len(values))
    if config.rule == "threshold":
        above = [value > config.threshold for value in values]
        return [place for place in places if not above[place]], [place for place in places if above[place]]
    ranked = sorted(places, key=lambda place: values[place])  # of equals the first is the worse
    half = len(ranked) // 2
    better = [place for place in reversed(ranked[len(ranked) - half :]) if values[place] > values[ranked[0]]]
    return ranked[:half], better
