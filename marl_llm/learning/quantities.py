"""What a learner can tell of sampled tokens besides what its loss needs: for credit methods that look at them."""

from collections.abc import Collection
from itertools import pairwise

import torch

from marl_llm.learning.batch import MicroBatch
from marl_llm.learning.forward import Trunk, parts, positions_at_a_time

RANKS = ("er", "erv", "era")
"""Quantities of a whole turn, which each of its tokens has: effective rank of its last hidden states, how that varies
along the turn, and how that changes (VERL, arXiv 2509.23808)."""
MEASURED = ("entropy", "certainty", "logit", "logprob_now", "reference", *RANKS)
"""What a learner can tell. `entropy` (nats) of the distribution that a token comes from; `certainty`: log-sum-exp less
mean of the logits at the policy's temperature (UCAS, arXiv 2510.10649); `logit`: the token's own, before temperature;
`logprob_now`: its log-probability under the present weights; `reference`: that under the reference's; and `RANKS`."""
RANK_TOKENS = 512
"""Of how many last tokens of a turn the ranks are."""
RANK_STRIDE = 40
"""Tokens from prefix to prefix."""


@torch.no_grad()
def quantities(
    trunk: Trunk,
    batch: MicroBatch,
    targets_M: torch.Tensor,
    turns_M: torch.Tensor,
    names: Collection[str],
    *,
    temperature: float,
    reference: Trunk | None = None,
    logit_tokens: int | None = None,
) -> dict[str, torch.Tensor]:
    """Of each sampled token of a micro-batch what `names`, of `MEASURED`, ask for. `turns_M` numbers their turns.

    As in `token_values` the logits of `logit_tokens` positions exist at a time. The hidden states of a turn are those
    that its tokens were predicted from.
    """
    states_KH = trunk(batch)
    found = {}
    if set(names) - {"reference", *RANKS}:
        found = _of_logits(trunk, batch, states_KH, targets_M, temperature, logit_tokens)
    if "reference" in names:
        assert reference is not None, "no learner without a reference offers it"
        other = _of_logits(reference, batch, reference(batch), targets_M, temperature, logit_tokens)
        found["reference"] = other["logprob_now"]
    if set(names) & set(RANKS):
        found |= _ranks(states_KH, batch, turns_M)
    return {name: found[name] for name in names}


def _of_logits(
    trunk: Trunk,
    batch: MicroBatch,
    states_KH: torch.Tensor,
    targets_M: torch.Tensor,
    temperature: float,
    logit_tokens: int | None,
) -> dict[str, torch.Tensor]:
    rows = []
    for nodes, visits in parts(batch, positions_at_a_time(trunk, logit_tokens)):
        logits_kV = trunk.head(states_KH[nodes])
        logits_kV = logits_kV.to(torch.promote_types(logits_kV.dtype, torch.float32))
        visits_m, targets_m = batch.visits_M[visits] - nodes.start, targets_M[visits]
        logit_m = logits_kV[visits_m, targets_m]
        logits_kV = logits_kV / temperature
        total_k = torch.logsumexp(logits_kV, dim=-1)
        entropy_k = total_k - (torch.softmax(logits_kV, dim=-1) * logits_kV).sum(-1)
        certainty_k = total_k - logits_kV.mean(-1)
        now_m = logits_kV[visits_m, targets_m] - total_k[visits_m]
        rows.append(torch.stack([entropy_k[visits_m], certainty_k[visits_m], logit_m, now_m]))
    names = ("entropy", "certainty", "logit", "logprob_now")
    together = torch.cat(rows, dim=1) if rows else torch.zeros(len(names), 0, device=states_KH.device)
    return dict(zip(names, together, strict=True))


def _ranks(states_KH: torch.Tensor, batch: MicroBatch, turns_M: torch.Tensor) -> dict[str, torch.Tensor]:
    order_M = torch.argsort(batch.sampled_M)
    result_3M = torch.zeros(3, len(order_M), device=states_KH.device)
    for turn in torch.unique(turns_M).tolist():
        mine_T = order_M[turns_M[order_M] == turn]
        states_TH = states_KH[batch.visits_M[mine_T[-RANK_TOKENS:]]]
        result_3M[:, mine_T] = result_3M.new_tensor(ranks(states_TH))[:, None]
    return dict(zip(RANKS, result_3M, strict=True))


def ranks(states_TH: torch.Tensor, stride: int = RANK_STRIDE) -> tuple[float, float, float]:
    """Effective rank of hidden states, how the ranks of prefixes exceed the mean of earlier ones, and how that changes.

    Prefixes end every `stride` tokens; with fewer than two (or three) of them the second (and third) is 0.
    """
    prefixes = [effective_rank(states_TH[: t + 1]) for t in range(stride, len(states_TH), stride)]
    gains = [value - sum(prefixes[:j]) / j for j, value in enumerate(prefixes) if j]
    changes = [after - before for before, after in pairwise(gains)]
    return effective_rank(states_TH), _mean(gains), _mean(changes)


def effective_rank(states_TH: torch.Tensor) -> float:
    """Exponential of the entropy of the singular values of the centred states, as shares; 0 without a spread."""
    wide = states_TH.to(torch.promote_types(states_TH.dtype, torch.float32))
    values = torch.linalg.svdvals(wide - wide.mean(0))
    total = values.sum()
    if len(wide) < 2 or total <= 1e-9:
        return 0.0
    return float(torch.exp(torch.special.entr(values / total).sum()))


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else 0.0
