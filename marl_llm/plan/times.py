"""Seconds of a step on a described cluster, by arithmetic: what is multiplied, read and sent, over how fast that goes.

Decoding reads all weights and every sequence's keys and values for each token, and is bound by that until many
sequences are decoded together; prompts and learning are bound by products. Attention is counted: a token's scores and
mix are two products with the keys and values before it.
"""

from dataclasses import dataclass

from marl_llm.config import PolicyConfig
from marl_llm.plan.memory import FLOAT, Shape
from marl_llm.plan.placement import Rates
from marl_llm.plan.tokens import Load

HALF = 2
"""Bytes of a bfloat16."""


def forward(shape: Shape, positions: float) -> float:
    """Operations of one token's forward pass, with so many positions before it."""
    return 2.0 * shape.multiplied + 4.0 * shape.layers * shape.queries * positions


def passes(policy: PolicyConfig, *, adapter: bool) -> float:
    """Forward passes that learning from a token costs: a backward pass is two (one if the weights are frozen)."""
    learner, moving = policy.learner, policy.objective.kl.reference != "none"
    each = (2 if adapter else 3) + moving + learner.checkpoint_activations
    return float(learner.epochs * each + (learner.epochs * learner.minibatches > 1))


def context(load: Load) -> float:
    """Tokens that the middle of a reply has before it, on average."""
    return (load.prompt + load.sampled / 2) / load.turns if load.turns else 0.0


def width(policy: PolicyConfig) -> int:
    """Bytes of a number in the policy's engine."""
    return FLOAT if policy.engine.dtype == "float32" else HALF


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Sampling in one engine."""

    batch: float
    """Sequences at a time."""
    weights_s: float
    """Seconds a token of each, if weights were all that is read."""
    cache_s: float
    """Further seconds for keys and values."""
    products_s: float
    """Seconds, if products were all."""

    @property
    def token_s(self) -> float:
        """Seconds in which every sequence gets one token."""
        return max(self.weights_s + self.cache_s, self.products_s)

    @property
    def bound(self) -> str:
        """What the time goes to."""
        if self.products_s > self.weights_s + self.cache_s:
            return "products"
        return "reading weights" if self.weights_s > self.cache_s else "reading keys and values"


def decoding(policy: PolicyConfig, shape: Shape, load: Load, batch: float, rates: Rates) -> Decoding:
    """How an engine samples for so many sequences at a time."""
    size, before = width(policy), context(load)
    return Decoding(
        batch=batch,
        weights_s=size * shape.touched(batch) / rates.bandwidth,
        cache_s=size * batch * before * shape.layers * shape.keys / rates.bandwidth,
        products_s=batch * forward(shape, before) / rates.decode,
    )


def reading_s(shape: Shape, load: Load, engines: int, rates: Rates) -> float:
    """Seconds in which one of the engines reads its part of the prompts; what many begin with is read by each."""
    tokens = min(load.read * engines, load.prompt) / engines
    return tokens * forward(shape, context(load) / 2) / rates.prefill


def learning_s(policy: PolicyConfig, shape: Shape, load: Load, flops: float) -> float:
    """Seconds of a learner whose processes reach so many operations a second together."""
    work = load.packed * forward(shape, context(load) / 2)
    return work * passes(policy, adapter=bool(shape.adapter)) / flops


def gathering_s(policy: PolicyConfig, shape: Shape, load: Load, nodes: int, bandwidth: float) -> float:
    """Seconds that a learner on several nodes sends: in each micro-batch a node gets the others' part of the weights
    forward and backward, and sends as many gradients (bfloat16)."""
    learner = policy.learner
    batches = load.packed / (learner.micro_batch_tokens * learner.processes) * learner.epochs
    return batches * 3 * HALF * shape.parameters * (nodes - 1) / nodes / bandwidth


def moving_s(shape: Shape, out: float, into: float, nodes: int, bandwidth: float) -> float:
    """Seconds in which what was learned reaches the engines (float32): from a GPU to the host, to each further node in
    turn, and into each engine's GPUs."""
    size = FLOAT * (shape.adapter or shape.parameters)
    return size / out + nodes * size / bandwidth + size / into
