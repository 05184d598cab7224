"""Bytes of everything that a policy holds, by arithmetic on the outline of its model; and what a device has."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from marl_llm.config import PolicyConfig
from marl_llm.errors import ConfigError
from marl_llm.learning.forward import CHUNK_LOGITS, layers_of

FLOAT = 4
"""Bytes of a float32, which is what the learner's weights, gradients, moments and reference are."""
PREFILL_TOKENS = 4096
"""Tokens that the engine reads in one pass at most."""
RESERVE = 0.2
"""On top of everything, for games, episodes and what allocators waste; what was missing in `configs/kuhn.yaml`."""
VLLM_BLOCK = 128
"""Positions of a block of vLLM's cache on a CPU."""
CUDA_CONTEXT = 600 * 2**20
"""What CUDA takes on a device before any tensor."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes of a model that memory and time depend on."""

    parameters: int
    """Of the model without adapter."""
    adapter: int
    """Of the adapter; 0 without one."""
    multiplied: int
    """Parameters that every token is multiplied with: all but the embedding, which is looked up, unless it is tied, and
    but the experts that a token is not sent to."""
    hidden: int
    """Width."""
    inner: int
    """Inner width of the feed-forward part."""
    layers: int
    """Number of layers."""
    layered: int
    """Parameters in layers: the others, of the embedding, the last norm and the head, are gathered together."""
    queries: int
    """Heads times head dim."""
    keys: int
    """Key/value heads times head dim, for keys and values together."""
    vocabulary: int
    """Number of tokens."""
    experts: int = 0
    """Of the parameters, those of a mixture's experts."""
    chosen: float = 1.0
    """Share of a layer's experts that a token is sent to."""

    def touched(self, tokens: float) -> float:
        """Parameters that a pass over so many tokens reads; each is taken to choose its experts by lot."""
        others: float = 1 - self.chosen
        return self.multiplied + self.experts * (others - float(others**tokens))

    @staticmethod
    def of(model: Any, adapter: int = 0) -> "Shape":
        """That of a transformers model, with or without weights."""
        config = model.config.get_text_config()
        heads = config.num_attention_heads
        dim = getattr(config, "head_dim", None) or config.hidden_size // heads
        parameters = sum(p.numel() for p in model.parameters())
        embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
        experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
        chosen = _chosen(config) if experts else 1.0
        looked_up = 0 if embedding is head else embedding.numel()
        return Shape(
            parameters=parameters,
            adapter=adapter,
            multiplied=parameters - looked_up - round(experts * (1 - chosen)) + adapter,
            hidden=config.hidden_size,
            inner=_inner(config) if experts else getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
            layers=config.num_hidden_layers,
            layered=sum(p.numel() for p in layers_of(model).parameters()),
            queries=heads * dim,
            keys=2 * (getattr(config, "num_key_value_heads", None) or heads) * dim,
            vocabulary=config.vocab_size,
            experts=experts,
            chosen=chosen,
        )


def _inner(config: Any) -> int:
    """Inner width that a token passes in a mixture's layer, over all its experts."""
    each = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_k", None) or 1
    return int(each * (getattr(config, "moe_intermediate_size", None) or config.intermediate_size))


def _chosen(config: Any) -> float:
    """Share of its experts that a mixture's layer sends a token to, under the names that transformers has for both."""
    names = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
    known = next((getattr(config, name) for name in names if getattr(config, name, None)), None)
    each = getattr(config, "num_experts_per_tok", None) or getattr(config, "moe_k", None)
    return 1.0 if known is None or each is None else min(1.0, float(each / known))


@dataclass(frozen=True, kw_only=True)
class Part:
    """Memory for one purpose."""

    policy: str
    """Whose it is; empty: the program's."""
    what: str
    """What it is for."""
    device: str
    """Where it is."""
    bytes: int
    """How much."""
    remedy: str = ""
    """Settings that make it smaller."""


def parts(
    name: str,
    policy: PolicyConfig,
    shape: Shape,
    *,
    longest: int,
    context: int = 0,
    packed: int,
    copies: int,
    shared: PolicyConfig | None,
) -> list[Part]:
    """Everything that the policy `name` with a model holds.

    Of a learner's processes it is what they hold together if they share this machine's CPU, and else one GPU's part.
    `longest`: tokens of its longest sequence; `context`: the most there may be (0: the same), for which vLLM has room;
    `packed`: tokens that its learner computes in a step; `copies`: further engines, of opponents that play with its
    former weights; `shared`: the policy whose model it has an adapter on.
    """
    learner, engine = policy.learner, policy.engine
    trains = policy.learns or policy.warmup is not None
    device = learner.device if trains else "cpu"
    trained = (shape.adapter or shape.parameters) if trains else 0
    own = shape.adapter + (0 if shared else shape.parameters)
    beside = shared is not None and (shared.engine.device, shared.engine.dtype) == (engine.device, engine.dtype)
    width = FLOAT if engine.dtype == "float32" else 2
    weights = width * (shape.adapter + (0 if beside else shape.parameters))
    cache = width * _kept(policy, context or longest, longest) * shape.layers * shape.keys
    if engine.kind == "vllm" and engine.vllm.cache_gib is not None:
        cache = int(engine.vllm.cache_gib * 2**30)
    passing = reading(policy, shape, width)
    if beside and engine.kind == "vllm":  # one engine plays the base and all its adapters
        cache = passing = 0
    own_keys, smaller = f"policies.{name}", f"policies.{name}.lora={{}} (an adapter), or a smaller model"
    fewer = f"{own_keys}.engine.slots, {own_keys}.engine.cache_slots, play.max_reply_tokens"
    if engine.kind == "vllm":
        fewer = f"{own_keys}.engine.vllm.cache_gib, {own_keys}.engine.slots, play.context_tokens"
    met = "evaluation.opponents (start), matchmaking.league.per_step"
    moving = policy.objective.kl.reference != "none"
    several = learner.processes > 1 and trains
    here = learner.processes if several and device == "cpu" else 1
    part = here / learner.processes if several else 1.0
    if several:
        own = shape.adapter + shape.parameters  # each process loads the model for itself, and keeps its part
    followed = shape.adapter + shape.parameters if several else trained  # then nothing is shared with the model
    found = [
        ("weights", device, int(part * FLOAT * own), "policies: a smaller model"),
        ("gradients", device, int(part * FLOAT * trained), smaller),
        ("optimizer", device, int(part * 2 * FLOAT * trained), smaller),
        ("reference", device, int(part * FLOAT * followed * moving), f"{own_keys}.objective.kl.reference=none"),
        ("critic", device, _critic(policy, shape), f"{own_keys}.critic.tiny={{}}, or a recipe without a critic"),
        ("gathered weights", device, here * gathered(policy, shape) if several else 0, "policies: a smaller model"),
        (
            "activations",
            device,
            here * _learning(policy, shape, packed) if trains else 0,
            f"{own_keys}.learner.micro_batch_tokens, {own_keys}.learner.checkpoint_activations=true",
        ),
        ("engine weights", engine.device, weights, f"{own_keys}.engine.dtype=bfloat16"),
        ("engine cache", engine.device, cache, fewer),
        ("engine activations", engine.device, passing, f"{own_keys}.engine.slots"),
        ("former selves' weights", engine.device, copies * width * shape.parameters, met),
        ("former selves' cache", engine.device, copies * cache, fewer),
    ]
    return [
        Part(policy=name, what=what, device=place, bytes=size, remedy=remedy)
        for what, place, size, remedy in found
        if size
    ]


def _critic(policy: PolicyConfig, shape: Shape) -> int:
    """Weights, gradients, two moments and, where one is kept, a copy."""
    critic = policy.critic
    if critic is None:
        return 0
    copies = 5 if critic.copied else 4
    tiny = critic.tiny
    if tiny is None:
        return copies * FLOAT * shape.parameters
    layer = 4 * tiny.hidden**2 + 3 * tiny.hidden * tiny.mlp
    return copies * FLOAT * (2 * shape.vocabulary * tiny.hidden + tiny.layers * layer)


def _kept(policy: PolicyConfig, context: int, longest: int) -> int:
    """Positions of the engine's cache: vLLM's on a CPU has room for whole contexts; on a GPU it takes what it gets, and
    this is what it needs."""
    engine = policy.engine
    rows = engine.slots + engine.cache_slots
    if engine.kind == "hf":
        return rows * rounded(longest)
    return rows * -(-context // VLLM_BLOCK) * VLLM_BLOCK


def rounded(tokens: int) -> int:
    """Positions of the engine's cache for sequences of that many tokens."""
    return -(-tokens // 64) * 64


def _learning(policy: PolicyConfig, shape: Shape, packed: int) -> int:
    """What a micro-batch leaves for its backward pass: an estimate, about what Llama-like layers keep.

    Per token and layer: twelve times the width, four times the inner one, six times that of queries, keys and values
    (of one layer only where layers keep what goes into them); of the logits six arrays at once; and the mask.
    """
    learner = policy.learner
    tokens = max(1, min(learner.micro_batch_tokens, packed))
    width = FLOAT if learner.dtype == "float32" else 2
    layer = 12 * shape.hidden + 4 * shape.inner + 6 * (shape.queries + shape.keys)
    chunk = learner.logit_tokens * shape.vocabulary if learner.logit_tokens else CHUNK_LOGITS
    logits = min(tokens * shape.vocabulary, chunk)
    kept = layer + shape.layers * shape.hidden if learner.checkpoint_activations else shape.layers * layer
    return tokens * kept * width + 6 * logits * FLOAT + tokens * learner.row_tokens * FLOAT


def gathered(policy: PolicyConfig, shape: Shape) -> int:
    """What a process has of the others' parts at a time: all outside the layers, and two layers; and their gradients.

    The reference gathers the same, one after the other but for what is outside the layers.
    """
    width = FLOAT if policy.learner.dtype == "float32" else 2
    outside, layer = shape.parameters - shape.layered, shape.layered // shape.layers
    gradients = 0 if shape.adapter else outside + layer
    moving = policy.objective.kl.reference != "none"
    return width * (outside * (1 + moving) + 2 * layer + gradients)


def reading(policy: PolicyConfig, shape: Shape, width: int) -> int:
    """The engine's largest pass; nothing is kept for later."""
    layer = 6 * shape.hidden + 3 * shape.inner + 3 * (shape.queries + shape.keys)
    return PREFILL_TOKENS * layer * width + 3 * policy.engine.slots * shape.vocabulary * FLOAT


def resident() -> int:
    """Bytes of this process in memory; 0 where /proc is not."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return 0


def available(device: str) -> int | None:
    """Bytes that are free on a device, this process's own included; None: there is no such device here."""
    if device == "cpu":
        return min(_numbers()) + resident()
    try:
        return int(torch.cuda.mem_get_info(torch.device(device))[0])
    except (RuntimeError, AssertionError, ValueError):  # how PyTorch reports missing devices
        return None


def _numbers() -> list[int]:
    """Free memory of the machine, and of the control group that this process is in, if it has a limit."""
    found = []
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = ((group / name).read_text().strip() for name in ("memory.max", "memory.current"))
        found += [int(limit) - int(used)] if limit != "max" else []
    except OSError:
        pass
    return found


def stated(given: Sequence[str]) -> dict[str, int]:
    """Bytes by device, from texts such as `cuda=80` (GiB).

    Raises:
        ConfigError: a text is of another form.
    """
    sizes = {}
    for text in given:
        device, _, size = text.partition("=")
        try:
            sizes[device] = int(float(size) * 2**30)
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"--memory: {text!r} is not allowed; it must be DEVICE=GIB, as in cuda=80") from error
    return sizes
