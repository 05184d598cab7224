"""The engine `vllm`: vLLM's scheduler and kernels in this process, on GPUs or on a CPU.

vLLM is imported here only, and when it is needed. The base model and all adapters on it are one engine.
"""

import copy
import gc
import json
import os
import shutil
import warnings
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from transformers import PreTrainedModel

from marl_llm.adapters import is_adapter, plain_name, write_adapter, write_weights
from marl_llm.config import VLLMConfig
from marl_llm.engines.base import Request
from marl_llm.engines.checks import (
    check_flying,
    check_pairs,
    check_policy,
    check_positions,
    check_request,
    check_weights,
)
from marl_llm.engines.scratch import scratch_folder
from marl_llm.errors import ConfigError, ModelError
from marl_llm.types import Completion, Stop, Tokens

_STEP_TOKENS = 8192
"""Tokens that a scheduler step reads at most."""
_CPU_BLOCK = 128
"""Tokens of a block of the cache on a CPU, vLLM's own choice there: prefixes are reused in multiples of it."""
_SCORED_AT_ONCE = 128
"""Tokens that vLLM scores after one context."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks of adapters that vLLM has room for."""
_PROBE = 12
"""Length of the sequence on which a new engine is compared with the plain model."""


class VLLMEngine:
    """Samples from a transformers causal language model with vLLM; see `Engine` for the contract.

    One poll is one step of vLLM's scheduler. Weights are replaced in place, and never touch a disk. Every request has
    a generator of its own, so that its draws do not depend on what else is in the batch; logits do, by rounding.
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
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        settings: VLLMConfig | None = None,
        ranks: Sequence[int] = (),
        sleeps: bool = False,
    ) -> None:
        """Give the model's weights to a new vLLM engine; the model stays as it is, and is not needed later on.

        Args:
            model: any causal language model that vLLM knows, with or without an adapter.
            policy: the name that requests use. It owns the base: `load_weights` under this name may replace it.
            slots: sequences that are sampled together.
            cache_slots: further sequences whose keys and values a CPU has room for.
            context_tokens: most tokens of prompt and completion together.
            eos_token_id: ends a completion.
            version: of the weights in `model`.
            device: `cpu`, or the first GPU.
            dtype: precision of weights and cache.
            settings: what only this engine needs.
            ranks: of all adapters that there will be, that of `model` included.
            sleeps: whether `sleep` will be called.

        Raises:
            ConfigError: vLLM is not installed, or is one for other devices.
            ModelError: vLLM cannot run the model, or computes something else than transformers does.
        """
        check_positions(model.config.get_text_config(), context_tokens)
        self.policies: tuple[str, ...] = ()
        self.context_tokens = context_tokens
        self._asleep = False
        self._vllm = _import(torch.device(device).type)
        self._eos = eos_token_id
        # vLLM refuses an end that the model cannot say, with which a caller means: none.
        self._ends = [eos_token_id] if eos_token_id < model.config.get_text_config().vocab_size else []
        self._owner = policy
        self._versions: dict[str, int] = {}
        self._parameters: dict[str, dict[str, torch.Tensor]] = {}
        self._adapters: dict[str, Any] = {}
        self._tickets: dict[Hashable, str] = {}
        self._asked: dict[str, Request] = {}
        self._scoring: dict[str, Callable[[dict[int, float]], None]] = {}
        """Takes the log-probabilities that a request brings, by token."""
        self._done: list[tuple[Hashable, Completion]] = []
        self._sent = 0
        self._folder = scratch_folder()
        arguments = engine_arguments(
            settings or VLLMConfig(),
            model,
            slots=slots,
            cache_slots=cache_slots,
            context_tokens=context_tokens,
            dtype=dtype,
            cpu=torch.device(device).type == "cpu",
            ranks=ranks,
            sleeps=sleeps,
        )
        made: list[Any] = []
        _LIVE.add(self._folder)
        self.close = weakref.finalize(self, _close, self._folder, made)
        try:
            self._engine = self._start(model, arguments, torch.device(device))
            made.append(self._engine)
            self.add(policy, model, version)
            self._check_against(model, dtype)
        except (ValueError, RuntimeError, NotImplementedError) as error:
            self.close()
            reason = " ".join(str(error).split())[:300]
            raise ModelError(f"engine vllm cannot run {type(model).__name__}: {reason}") from error

    def add(self, policy: str, model: PreTrainedModel, version: int = 0) -> None:
        """Another policy, whose model has an adapter on this engine's base.

        Raises:
            ModelError: the model has no adapter, or one on another base.
        """
        meta = {id(p): p.detach().to("meta") for p in model.parameters()}
        every = {name: meta[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
        adapter = {name: tensor for name, tensor in every.items() if is_adapter(name)}
        if policy != self._owner:
            if not adapter or _base_shapes(every) != _base_shapes(self._parameters[self._owner]):
                raise ModelError(f"policy {policy}: its model has no adapter on that of {self._owner}")
            every = adapter
        self._parameters[policy] = every
        if adapter:
            number = len(self._adapters) + 1
            folder = self._folder / str(number)
            write_adapter(model, folder, base="")
            self._adapters[policy] = self._vllm.lora.request.LoRARequest(policy, number, str(folder))
        self.policies += (policy,)
        weights = model.state_dict()
        self.load_weights(policy, {name: weights[name] for name in every}, version)

    def submit(self, request: Request) -> None:
        """Queue a request; see `Engine.submit`."""
        check_policy(request.policy, self.policies)
        check_request(request, self.context_tokens, self._tickets)
        room = self.context_tokens - len(request.prompt)
        sampling = {"max_tokens": min(request.max_tokens, room), "seed": request.seed, "logprobs": 0}
        number = self._send(request.policy, request.prompt, request.temperature, **sampling)
        self._tickets[request.ticket], self._asked[number] = number, request

    def poll(self) -> list[tuple[Hashable, Completion]]:
        """One step of the scheduler, unless something is ready already; see `Engine.poll`."""
        if self._asked and not self._done:
            self._step()
        done, self._done = self._done, []
        return done

    def sampled(self, ticket: Hashable) -> Tokens:
        """What a request has sampled so far; see `Engine.sampled`."""
        check_flying(ticket, self._tickets)
        outputs = self._engine.output_processor
        (number,) = outputs.external_req_ids[self._tickets[ticket]]
        return tuple(outputs.request_states[number].detokenizer.output_token_ids)

    def cancel(self, ticket: Hashable) -> None:
        """Drop a request; see `Engine.cancel`."""
        check_flying(ticket, self._tickets)
        number = self._tickets.pop(ticket)
        del self._asked[number]
        self._engine.abort_request([number])

    def score(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[float, ...]]:
        """Log-probabilities of continuations; see `Engine.score`.

        One request for each context after which a token is scored, so that what many continuations begin with is read
        once, from the cache where it is long, and the temperature is applied as in sampling. (vLLM's log-probabilities
        of prompts know no temperature, need no cache and read everything anew.) Those in flight advance meanwhile.
        """
        check_policy(policy, self.policies)
        check_pairs(pairs, self.context_tokens, temperature)
        found: dict[Tokens, dict[int, float]] = {}
        for prompt, continuation in pairs:
            for place, token in enumerate(continuation):
                found.setdefault(prompt + continuation[:place], {})[token] = 0.0
        for context in sorted(found):
            wanted = sorted(found[context])
            for start in range(0, len(wanted), _SCORED_AT_ONCE):
                tokens = wanted[start : start + _SCORED_AT_ONCE]
                number = self._send(policy, context, temperature, max_tokens=1, logprob_token_ids=tokens)
                self._scoring[number] = partial(_fill, found[context])
        self._finish_scoring()
        return [
            tuple(found[prompt + continuation[:place]][token] for place, token in enumerate(continuation))
            for prompt, continuation in pairs
        ]

    def best(
        self, policy: str, pairs: Sequence[tuple[Tokens, Tokens]], temperature: float = 1.0
    ) -> list[tuple[tuple[int, float], ...]]:
        """The most probable tokens; see `Engine.best`."""
        check_policy(policy, self.policies)
        check_pairs(pairs, self.context_tokens, temperature)
        found: dict[Tokens, dict[int, float]] = {}
        for prompt, continuation in pairs:
            for place in range(len(continuation)):
                found.setdefault(prompt + continuation[:place], {})
        for context in sorted(found):
            number = self._send(policy, context, temperature, max_tokens=1, logprobs=1)
            self._scoring[number] = found[context].update
        self._finish_scoring()
        best = {context: max(told.items(), key=lambda item: (item[1], -item[0])) for context, told in found.items()}
        return [
            tuple(best[prompt + continuation[:place]] for place in range(len(continuation)))
            for prompt, continuation in pairs
        ]

    def forget(self) -> None:
        """Drop all keys and values; see `Engine.forget`. Requests in flight are read again."""
        self._engine.reset_prefix_cache(reset_running_requests=True)

    def load_weights(self, policy: str, weights: Mapping[str, torch.Tensor], version: int) -> None:
        """Replace the weights in place; see `Engine.load_weights`.

        The base is handed over as tensors of this process, an adapter as a file in shared memory. All keys and values
        are dropped, and requests in flight are read again, as in the engine `hf`.
        """
        check_policy(policy, self.policies)
        mine = self._parameters[policy]
        base = {name for name in mine if not is_adapter(name)}
        adapter = mine.keys() - base
        given = base & weights.keys()
        check_weights(mine, weights, adapter | base if given or not adapter else adapter)
        if given:
            self._engine.collective_rpc("replace_base", args=(self._canonical(mine, weights),))
        if adapter:
            request = self._adapters[policy]
            write_weights({name: weights[name] for name in adapter}, Path(request.lora_path))
            self._engine.add_lora(_in_place(request))
        self._versions[policy] = version
        self._engine.set_weight_version(json.dumps(self._versions))
        self.forget()

    def sleep(self) -> None:
        """Give the memory of a GPU back until `wake`, keeping the weights in the machine's; on a CPU, nothing."""
        if not self._asleep:
            self._engine.sleep(level=1, mode="keep")
            self._asleep = True

    def wake(self) -> None:
        """Take the memory again; requests in flight go on."""
        if self._asleep:
            self._engine.wake_up()
            self._asleep = False

    def _start(self, model: PreTrainedModel, arguments: Mapping[str, Any], device: torch.device) -> Any:
        config = copy.deepcopy(model.config)
        config.architectures = [type(model).__name__]
        config.save_pretrained(self._folder)
        with _own_business():
            made = self._vllm.EngineArgs(model=str(self._folder), **arguments).create_engine_config()
            if device.index:
                made.device_config.device = device
            return self._vllm.v1.engine.llm_engine.LLMEngine.from_vllm_config(made, disable_log_stats=True)

    def _send(self, policy: str, prompt: Tokens, temperature: float, **sampling: Any) -> str:
        self._sent += 1
        number = str(self._sent)
        params = self._vllm.SamplingParams(
            temperature=temperature,
            stop_token_ids=self._ends,
            detokenize=False,
            flat_logprobs=True,
            output_kind=self._vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
            **sampling,
        )
        prompt_ids = {"type": "token", "prompt_token_ids": list(prompt)}
        self._engine.add_request(number, prompt_ids, params, lora_request=self._adapters.get(policy))
        return number

    def _finish_scoring(self) -> None:
        while self._scoring:
            self._step()

    def _step(self) -> None:
        for output in self._engine.step():
            (sampled,) = output.outputs
            if output.request_id in self._scoring:
                take = self._scoring.pop(output.request_id)
                take(dict(zip(sampled.logprobs.token_ids, sampled.logprobs.logprobs)))
            else:
                request = self._asked.pop(output.request_id)
                del self._tickets[request.ticket]
                self._done.append((request.ticket, self._completion(request, sampled)))

    def _completion(self, request: Request, sampled: Any) -> Completion:
        tokens = tuple(sampled.token_ids)
        versions: list[int] = []
        for span in sampled.weight_versions:
            versions += [json.loads(span.version)[request.policy]] * (span.end - span.start)
        return Completion(
            tokens=tokens,
            logprobs=tuple(sampled.logprobs.logprobs[start] for start in sampled.logprobs.start_indices),
            stop=self._stop(request, tokens),
            versions=tuple(versions),
        )

    def _stop(self, request: Request, tokens: Tokens) -> Stop:
        if tokens[-1] == self._eos:
            return "eos"
        return "length" if len(tokens) == request.max_tokens else "context"

    def _canonical(
        self, mine: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]
    ) -> list[tuple[str, torch.Tensor]]:
        """The base's tensors by the names that a checkpoint has; of tied names, the first."""
        first: dict[int, str] = {}
        for name, tensor in mine.items():
            first.setdefault(id(tensor), name)
        named = {first[id(mine[name])]: tensor for name, tensor in weights.items() if not is_adapter(name)}
        return [(plain_name(name), tensor.detach()) for name, tensor in named.items()]

    def _check_against(self, model: PreTrainedModel, dtype: torch.dtype) -> None:
        """Score a probe; what does not come out as the plain model says is refused."""
        probe = tuple((7 * i + 1) % model.config.get_text_config().vocab_size for i in range(_PROBE))
        (ours,) = self.score(self._owner, [(probe[:1], probe[1:])])
        with torch.inference_mode():
            logits_TV = model(input_ids=torch.tensor([probe], device=model.device)).logits[0, :-1].float()
        plain_TV = logits_TV.log_softmax(-1).cpu()
        gap = (plain_TV[range(_PROBE - 1), probe[1:]] - torch.tensor(ours)).abs().max().item()
        if not gap < (1e-3 if dtype == torch.float32 else 0.5):
            raise ModelError(f"its log-probabilities differ by {gap:.2g} from the plain model's")


def _fill(wanted: dict[int, float], told: dict[int, float]) -> None:
    wanted.update((token, told[token]) for token in wanted.keys() & told.keys())


class Extension:
    """What vLLM's worker can do besides, by `collective_rpc`; it becomes a base class of the worker."""

    def replace_base(self, named: Sequence[tuple[str, torch.Tensor]]) -> None:
        """Replace all weights of the base, in place."""
        worker: Any = self
        worker.reload_weights(weights_iterator=iter(named))
        if worker.device.type != "cpu":
            return
        # On a CPU a tied head keeps a copy of the embedding in the kernel's layout, which is not made anew.
        for module in worker.model_runner.get_model().modules():
            if type(module).__name__ == "ParallelLMHead":
                module.quant_method.process_weights_after_loading(module)


def engine_arguments(
    settings: VLLMConfig,
    model: PreTrainedModel,
    *,
    slots: int,
    cache_slots: int,
    context_tokens: int,
    dtype: torch.dtype,
    cpu: bool,
    ranks: Sequence[int] = (),
    sleeps: bool = False,
) -> dict[str, Any]:
    """vLLM's arguments for these settings; see `VLLMEngine`."""
    cache = None if settings.cache_gib is None else int(settings.cache_gib * 2**30)
    if cache is None and cpu:
        config = model.config.get_text_config()
        dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        blocks = (slots + cache_slots) * -(-context_tokens // _CPU_BLOCK) + 1
        cache = blocks * _CPU_BLOCK * 2 * config.num_hidden_layers * heads * dim * dtype.itemsize
    arguments: dict[str, Any] = {
        "skip_tokenizer_init": True,
        "load_format": "dummy",
        "generation_config": "vllm",
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": context_tokens,
        "max_num_seqs": slots,
        "max_num_batched_tokens": max(_STEP_TOKENS, slots, context_tokens if cpu else 0),
        # After a part of a prompt vLLM turns the request's generator back, which a CPU's cannot do: it would stop.
        "enable_chunked_prefill": not cpu,
        "enable_prefix_caching": True,
        # Those of the distribution drawn from, that is, with the temperature.
        "logprobs_mode": "processed_logprobs",
        # Else a step would begin before the last one's tokens are known, and with weights of its own.
        "async_scheduling": False,
        "enforce_eager": cpu or not settings.compile,
        "tensor_parallel_size": settings.tensor_parallel,
        "distributed_executor_backend": "uni" if settings.tensor_parallel == 1 else "mp",
        "gpu_memory_utilization": settings.memory_share,
        "kv_cache_memory_bytes": cache,
        "worker_extension_cls": f"{Extension.__module__}.{Extension.__qualname__}",
        "enable_sleep_mode": sleeps and not cpu,
    }
    if ranks:
        rank = min((room for room in _RANKS if room >= max(ranks)), default=max(ranks))
        # On a CPU a sequence without an adapter gets the one in the last place, so that must stay empty.
        places = len(ranks) + cpu
        arguments |= {"enable_lora": True, "max_loras": places, "max_lora_rank": rank}
    return arguments


def _import(device: str) -> ModuleType:
    """vLLM, told to stay in this process.

    Raises:
        ConfigError: it is not installed, or runs on other devices.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    try:
        with _own_business():
            import vllm
            import vllm.lora.request
            import vllm.platforms
            import vllm.v1.engine.llm_engine
    except ImportError as error:
        raise ConfigError(
            f"engine.kind: 'vllm' needs vLLM ({error}): pip install 'marl-llm[vllm]' on a GPU; without one, "
            "make setup-vllm"
        ) from error
    runs_on = vllm.platforms.current_platform.device_type
    if runs_on != device:
        raise ConfigError(
            f"engine.device: {device!r} is not allowed; the vLLM that is installed runs on {runs_on} "
            "(pip install 'marl-llm[vllm]' for a GPU, make setup-vllm for a CPU)"
        )
    module: ModuleType = vllm
    return module


@contextmanager
def _own_business() -> Iterator[None]:
    """Keeps to itself what vLLM warns of, and undoes what it does to PyTorch's threads."""
    set_num_threads = torch.set_num_threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.set_num_threads = set_num_threads


def _in_place(request: Any) -> Any:
    loading = copy.copy(request)
    loading.load_inplace = True
    return loading


def _base_shapes(parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {plain_name(name): tensor.shape for name, tensor in parameters.items() if not is_adapter(name)}


_LIVE: set[Path] = set()
"""Folders of the engines of this process that are not closed, those in the making included."""


def _close(folder: Path, made: Sequence[Any]) -> None:
    """Also when an engine is forgotten, which may be noticed while another is being made."""
    shutil.rmtree(folder, ignore_errors=True)
    _LIVE.discard(folder)
    if not made:
        return
    client = made[0].engine_core
    if not _LIVE:
        client.shutdown()
        return
    # The whole shutdown would take from the others the process group that all engines of a process have in common.
    client._finalizer.detach()
    client.engine_core.model_executor.shutdown()
    client.engine_core.scheduler.shutdown()
    gc.unfreeze()
