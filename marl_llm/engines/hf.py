"""The engine `hf`: continuous batching of a transformers model in this process, on CPU or one GPU."""

import copy
from collections.abc import Callable, Hashable, Mapping, Sequence
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from marl_llm.engines import attention
from marl_llm.engines.attention import TreeStep
from marl_llm.engines.base import Request
from marl_llm.engines.checks import (
    check_flying,
    check_pairs,
    check_policy,
    check_positions,
    check_request,
    check_weights,
)
from marl_llm.engines.kv_cache import CachedStep, Chunks, KVCache
from marl_llm.engines.sampling import draw, uniforms
from marl_llm.engines.scoring import Forest, pack, plant
from marl_llm.engines.slots import Running, Slots
from marl_llm.errors import ModelError
from marl_llm.types import Completion, Stop, Tokens

_PREFILL_TOKENS = 4096
"""Prompt tokens read in one poll: bounds the memory of activations and how long running requests are kept waiting."""
_SCORE_TOKENS = 4096
"""Tokens read in one pass of `score`."""
_SCORE_LOGITS = 2**27
"""Logits computed in one pass of `score`: bounds memory with a large vocabulary."""
_PROBE_TOKENS = 12
"""Length of the sequence on which a new engine is compared with the plain model."""


T = TypeVar("T")
_Look = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], list[T]]
"""From log-probabilities (K, V), and the row (S,) and token (S,) of each that is scored, to what is told of each."""


class HFEngine:
    """Samples from a transformers causal language model; see `Engine` for the contract.

    One poll admits waiting requests to rows of the key/value cache, reads all their unread tokens in one packed
    forward pass and samples a token wherever a sequence is read to its end. Keys and values of finished sequences stay
    until their row is needed: the next turn of a conversation, and others with the same beginning, reuse them.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        policy: str,
        slots: int,
        cache_slots: int,
        context_tokens: int,
        eos_token_id: int,
        version: int = 0,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        shared: Mapping[str, torch.nn.Parameter] | None = None,
    ) -> None:
        """Copy the model, which stays as it is. What is frozen in it needs no weights later on.

        Args:
            model: any causal language model whose layers all have full attention.
            policy: the name that requests use.
            slots: sequences that are sampled together.
            cache_slots: further sequences whose keys and values are kept.
            context_tokens: most tokens of prompt and completion together.
            eos_token_id: ends a completion.
            version: of the weights in `model`.
            device: where the copy goes; None: where the model is.
            dtype: precision of the copy and of the cache; None: the model's.
            shared: by name in the model, frozen parameters of another engine to be read in place of copies; they must
                be on this device, of this precision. Keys and values are never shared.

        Raises:
            ModelError: the model has other than full attention, cannot be run by this engine, or does not know
                `context_tokens` positions.
        """
        self.policies: tuple[str, ...] = (policy,)
        self.context_tokens = context_tokens
        self._eos = eos_token_id
        self._version = version
        shared = shared or {}
        theirs: dict[int, Any] = {id(p): shared[name] for name, p in model.named_parameters() if name in shared}
        self._model = copy.deepcopy(model, theirs).to(device=device, dtype=dtype).eval().requires_grad_(False)
        self._shared = frozenset(shared)
        learning = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
        self._needed = learning or frozenset(name for name, _ in model.named_parameters())
        self._config = self._model.config.get_text_config()
        self._device: torch.device = self._model.device
        self._dtype: torch.dtype = self._model.dtype
        check_positions(self._config, context_tokens)
        with torch.inference_mode():
            logits_TV, shapes = self._probe_plain()
            self._cache = KVCache(shapes, rows=slots + cache_slots, dtype=self._dtype, device=self._device)
            self._model.set_attn_implementation(attention.NAME)
            self._stats = dict.fromkeys(_COUNTERS, 0.0)
            self._check_against(logits_TV)
        self._stats = dict.fromkeys(_COUNTERS, 0.0)
        self._slots = Slots(slots=slots, cache_slots=cache_slots)
        self._tickets: dict[Hashable, Request | Running] = {}
        """All in flight; a request while it waits for a row."""

    def submit(self, request: Request) -> None:
        """Queue a request; see `Engine.submit`."""
        check_policy(request.policy, self.policies)
        check_request(request, self.context_tokens, self._tickets)
        self._tickets[request.ticket] = request
        self._slots.submit(request)

    def poll(self) -> list[tuple[Hashable, Completion]]:
        """Read every unread token of the running requests, up to a budget, and sample where a sequence is complete."""
        if not self._tickets:
            return []
        began = perf_counter()
        with torch.inference_mode():
            admitted, copies = self._slots.admit()
            self._tickets.update((run.request.ticket, run) for run in admitted)
            running = list(self._slots.running.values())
            self._cache.reserve(max(len(run.tokens) for run in running))
            self._cache.copy(copies)
            singles, prompts = _schedule(running)
            ready = singles + [run for run, count in prompts if count == run.pending]
            logits_BV = self._read(singles, prompts)
            if ready:
                self._sample(ready, logits_BV)
        finished = [(run, stop) for run in ready if (stop := self._stop(run))]
        for run, _ in finished:
            self._slots.release(run)
            del self._tickets[run.request.ticket]
        self._count(
            prompt_tokens=sum(len(run.request.prompt) for run in admitted),
            reused_tokens=sum(run.reused for run in admitted),
            prefilled_tokens=sum(count for _, count in prompts),
            sampled_tokens=len(ready),
            total_s=perf_counter() - began,
        )
        return [(run.request.ticket, _completion(run, stop)) for run, stop in finished]

    def sampled(self, ticket: Hashable) -> Tokens:
        """What a request has sampled so far; see `Engine.sampled`."""
        check_flying(ticket, self._tickets)
        run = self._tickets[ticket]
        return () if isinstance(run, Request) else tuple(run.tokens[len(run.request.prompt) :])

    def cancel(self, ticket: Hashable) -> None:
        """Drop a request; see `Engine.cancel`. Keys and values of what it has read stay, as of one that is finished."""
        check_flying(ticket, self._tickets)
        run = self._tickets.pop(ticket)
        if isinstance(run, Request):
            self._slots.withdraw(run)
        else:
            self._slots.release(run)

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of continuations; see `Engine.score`.

        A prompt is read once for all its continuations, and what sorted neighbours share is read once for all.
        """
        return self._score(policy, pairs, temperature, _given)

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[tuple[int, float], ...]]:
        """The most probable tokens; see `Engine.best`."""
        return self._score(policy, pairs, temperature, _best)

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Replace the weights in place; see `Engine.load_weights`.

        All keys and values are dropped. Requests in flight read their tokens again, so that every later token is drawn
        from exactly what the new weights say about the sequence so far. A tied tensor may go by any of its names.
        """
        check_policy(policy, self.policies)
        every = self._model.named_parameters(remove_duplicate=False)
        parameters = {name: parameter for name, parameter in every if name not in self._shared}
        check_weights(parameters, weights, self._needed)
        with torch.no_grad():
            for name, tensor in weights.items():
                parameters[name].copy_(tensor)
        self._version = version
        self.forget()

    def forget(self) -> None:
        """Drop all keys and values; see `Engine.forget`."""
        self._slots.forget()

    def sleep(self) -> None:
        """Nothing: it keeps its memory."""

    def wake(self) -> None:
        """Nothing."""

    def parameters(self) -> dict[str, torch.nn.Parameter]:
        """The engine's own weights, to be read by engines that share them."""
        return dict(self._model.named_parameters())

    @property
    def shares(self) -> bool:
        """Whether it reads another engine's weights in place of copies."""
        return bool(self._shared)

    @property
    def precision(self) -> tuple[torch.device, torch.dtype]:
        """Where the weights are, and of which type."""
        return self._device, self._dtype

    def stats(self) -> dict[str, float]:
        """Totals since the start, for metrics.

        `prompt_tokens` of admitted requests, of which `reused_tokens` came from the cache; `prefilled_tokens` read in
        chunks of two and more, `sampled_tokens`, `scored_tokens`; `forward_s` in the model's forward pass,
        of `total_s` in `poll` and `score`.
        """
        return dict(self._stats)

    def _score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float, look: _Look[T]
    ) -> list[tuple[T, ...]]:
        check_policy(policy, self.policies)
        check_pairs(pairs, self.context_tokens, temperature)
        began = perf_counter()
        scores: list[tuple[T, ...]] = [()] * len(pairs)
        budget = min(_SCORE_TOKENS, max(_SCORE_LOGITS // self._config.vocab_size, 1))
        with torch.inference_mode():
            for forest in plant(pairs, budget):
                for place, found in self._score_forest(forest, temperature, look):
                    scores[place] = found
        self._count(scored_tokens=sum(map(len, scores)), total_s=perf_counter() - began)
        return scores

    def _read(self, singles: Sequence[Running], prompts: Sequence[tuple[Running, int]]) -> torch.Tensor:
        """Run the model on the last token of each of `singles` and on the next `count` tokens of each of `prompts`.

        Logits (B, V) of the B runs that are now complete, in this order.
        """
        tokens = [run.tokens[-1] for run in singles]
        keep = list(range(len(singles)))
        for run, count in prompts:
            tokens += run.tokens[run.filled : run.filled + count]
            if count == run.pending:
                keep.append(len(tokens) - 1)
        reading = [*singles, *(run for run, _ in prompts)]
        chunks = Chunks(
            rows=np.array([run.row for run in reading]),
            starts=np.array([run.filled for run in reading]),
            counts=np.array([1] * len(singles) + [count for _, count in prompts]),
        )
        logits_BV = self._forward_cached(tokens, chunks, keep)
        for run in singles:
            run.filled += 1
        for run, count in prompts:
            run.filled += count
        return logits_BV

    def _sample(self, ready: Sequence[Running], logits_BV: torch.Tensor) -> None:
        requests = [run.request for run in ready]
        uniforms_B = uniforms(
            np.array([request.seed for request in requests], dtype=np.uint64),
            np.array([len(run.logprobs) for run in ready], dtype=np.uint64),
        )
        temperatures_B = torch.tensor([request.temperature or 1.0 for request in requests], device=self._device)
        logprobs_BV = (logits_BV / temperatures_B[:, None]).log_softmax(-1)
        tokens_B = draw(logprobs_BV, torch.from_numpy(uniforms_B).to(self._device))
        greedy = [place for place, request in enumerate(requests) if request.temperature == 0]
        if greedy:
            tokens_B[greedy] = logits_BV[greedy].argmax(-1)
        logprobs_B = logprobs_BV.gather(1, tokens_B[:, None])[:, 0]
        for run, token, logprob in zip(ready, tokens_B.tolist(), logprobs_B.tolist()):
            run.tokens.append(token)
            run.logprobs.append(logprob)
            run.versions.append(self._version)

    def _stop(self, run: Running) -> Stop | None:
        if run.tokens[-1] == self._eos:
            return "eos"
        if len(run.logprobs) == run.request.max_tokens:
            return "length"
        return "context" if len(run.tokens) == self.context_tokens else None

    def _score_forest(self, forest: Forest, temperature: float, look: _Look[T]) -> list[tuple[int, tuple[T, ...]]]:
        """What is looked for at all tokens of a forest's continuations, each of these with its place."""
        prefix = self._keep_prefix(forest.trees[0].prompt[: forest.prefix])
        packed = pack(forest)
        keep, inverse = np.unique(packed.predictors, return_inverse=True)
        positions_N = torch.tensor(packed.positions, device=self._device)
        step = self._tree_step(packed.branches, prefix)
        logits_KV = self._forward(packed.tokens, positions_N, step, keep.tolist())
        logprobs_KV = (logits_KV / temperature).log_softmax(-1)
        targets_S = torch.tensor(packed.targets, device=self._device)
        values = iter(look(logprobs_KV, torch.from_numpy(inverse).to(self._device), targets_S))
        return [
            (place, tuple(next(values) for _ in continuation))
            for tree in forest.trees
            for place, continuation in tree.continuations
        ]

    def _keep_prefix(self, prefix: Tokens) -> list[tuple[torch.Tensor, torch.Tensor]]:
        if not prefix:
            return []
        step = self._tree_step([[0] * len(prefix)], [])
        self._forward(prefix, torch.arange(len(prefix), device=self._device), step, [])
        return step.kept

    def _tree_step(
        self, branches: Sequence[Sequence[int]], prefix: Sequence[tuple[torch.Tensor, torch.Tensor]]
    ) -> TreeStep:
        groups = self._config.num_attention_heads // self._cache.heads
        return TreeStep(branches, prefix, groups=groups, dtype=self._dtype, device=self._device)

    def _forward_cached(self, tokens: Sequence[int], chunks: Chunks, keep: Sequence[int]) -> torch.Tensor:
        step = CachedStep(self._cache, chunks, query_heads=self._config.num_attention_heads)
        return self._forward(tokens, step.positions_N, step, keep)

    def _forward(
        self, tokens: Sequence[int], positions_N: torch.Tensor, plan: attention.Plan, keep: Sequence[int]
    ) -> torch.Tensor:
        """Float32 logits (B, V) at the packed places `keep`."""
        tokens_1N = torch.tensor([tokens], device=self._device)
        keep_B = torch.tensor(keep, dtype=torch.int64, device=self._device)
        began = perf_counter()
        logits_1BV: torch.Tensor = self._model(
            input_ids=tokens_1N, position_ids=positions_N[None], use_cache=False, logits_to_keep=keep_B, plan=plan
        ).logits
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._count(forward_s=perf_counter() - began)
        return logits_1BV[0].float()

    def _probe_plain(self) -> tuple[torch.Tensor, list[tuple[int, int, int]]]:
        """Logits of the probe from the model as it came, and the shapes of its cache."""
        output = self._model(input_ids=torch.tensor([self._probe()], device=self._device), use_cache=True)
        layers = output.past_key_values.layers
        if any(type(layer) is not DynamicLayer for layer in layers):
            kinds = sorted({type(layer).__name__ for layer in layers} - {DynamicLayer.__name__})
            raise ModelError(f"engine hf needs full attention in every layer; this model has {', '.join(kinds)}")
        shapes = [(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in layers]
        if len({heads for heads, _, _ in shapes}) > 1:
            raise ModelError("engine hf needs the same number of key/value heads in every layer")
        return output.logits[0].float(), shapes

    def _check_against(self, plain_TV: torch.Tensor) -> None:
        """Read the probe through the cache, in pieces as play does; what does not come out the same is refused."""
        probe = self._probe()
        self._cache.reserve(len(probe))
        pieces = [(0, 5), (5, 6), (6, 7), (7, len(probe))]
        ours_TV = torch.cat(
            [
                self._forward_cached(
                    probe[a:b],
                    Chunks(rows=np.array([0]), starts=np.array([a]), counts=np.array([b - a])),
                    range(b - a),
                )
                for a, b in pieces
            ]
        )
        gap = (ours_TV.log_softmax(-1) - plain_TV.log_softmax(-1)).abs().max().item()
        tolerance = 1e-3 if self._dtype == torch.float32 else 0.5
        if not gap < tolerance:
            raise ModelError(
                f"engine hf cannot run {type(self._model).__name__}: its log-probabilities differ by {gap:.2g} "
                "from the plain model's"
            )

    def _probe(self) -> list[int]:
        return [(7 * i + 1) % self._config.vocab_size for i in range(_PROBE_TOKENS)]

    def _count(self, **amounts: float) -> None:
        for name, amount in amounts.items():
            self._stats[name] += amount


def _given(logprobs_KV: torch.Tensor, rows_S: torch.Tensor, targets_S: torch.Tensor) -> list[float]:
    scored: list[float] = logprobs_KV[rows_S, targets_S].tolist()
    return scored


def _best(logprobs_KV: torch.Tensor, rows_S: torch.Tensor, targets_S: torch.Tensor) -> list[tuple[int, float]]:
    logprobs_K, tokens_K = logprobs_KV.max(-1)
    return list(zip(tokens_K[rows_S].tolist(), logprobs_K[rows_S].tolist()))


_COUNTERS = (
    "prompt_tokens",
    "reused_tokens",
    "prefilled_tokens",
    "sampled_tokens",
    "scored_tokens",
    "forward_s",
    "total_s",
)


def _schedule(running: Sequence[Running]) -> tuple[list[Running], list[tuple[Running, int]]]:
    """Who reads one token and then samples, by row; and prompts with how much they read now, by falling length.

    Never a single token of a longer prompt, and no more tokens of prompts than the budget.
    """
    singles: list[Running] = []
    prompts: list[tuple[Running, int]] = []
    budget = _PREFILL_TOKENS
    for run in running:
        unread = run.pending
        if unread == 1:
            singles.append(run)
        elif budget > 1:
            count = min(unread, budget)
            budget -= count
            prompts.append((run, count))
    singles.sort(key=lambda run: run.row)
    prompts.sort(key=lambda item: -item[1])
    return singles, prompts


def _completion(run: Running, stop: Stop) -> Completion:
    return Completion(
        tokens=tuple(run.tokens[len(run.request.prompt) :]),
        logprobs=tuple(run.logprobs),
        stop=stop,
        versions=tuple(run.versions),
    )
