"""The learner: the only owner of one policy's trainable weights and optimizer."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from marl_llm.config import LearnerConfig, ObjectiveConfig, SmoothConfig
from marl_llm.devices import available_device
from marl_llm.errors import TrainingError
from marl_llm.learning.batch import MicroBatch, SampledTokens, flatten, micro_batches, pack, span_names
from marl_llm.learning.discriminate import Discrimination
from marl_llm.learning.forward import (
    TokenValues,
    Trunk,
    check_model,
    checkpoint_layers,
    keys_per_token,
    token_values,
)
from marl_llm.learning.minibatch import Minibatch, Tally, stats
from marl_llm.learning.preferences import Preferences
from marl_llm.learning.quantities import MEASURED, quantities
from marl_llm.learning.reference import Reference, copy_of
from marl_llm.learning.selection import smoothing
from marl_llm.learning.sharding import Processes, whole
from marl_llm.learning.state import read_state, read_values, write_state
from marl_llm.seeds import generator
from marl_llm.types import Sample

Loss = Callable[[MicroBatch], torch.Tensor]


def learning_rate(config: LearnerConfig, step: int, total_steps: int) -> float:
    """The rate of training step `step` (from 0): a linear rise over `warmup_steps`, then the decay of the
    schedule.

    The decay would reach `lr * final` at step `total_steps`, one after the last.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    left = {
        "constant": 1.0,
        "linear": 1 - progress * (1 - config.final),
        "cosine": config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2,
    }
    return config.lr * left[config.schedule]


class Learner:
    """Trains one model on samples of its own play: those parameters that require gradients, as an adapter's do.

    The model is moved to the configured device and to float32 and from then on belongs to the learner. It
    stays in evaluation mode: dropout would make the learner disagree with the engine. Every random choice
    follows from (`seed`, `version`).

    With `processes` above 1, as many processes that have joined (`sharding.join`) make one each, of equal models, and
    hold a part of it each. All make the same calls with the same arguments, in the same order: each computes a part of
    the work, all return the same and raise the same TrainingError.

    Raises:
        ConfigError: the device is not available, or others have not joined.
        ModelError: the model's attention or head cannot be trained on packed samples.
    """

    version: int
    """Number of training steps so far."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: LearnerConfig,
        objective: ObjectiveConfig,
        *,
        temperature: float,
        total_steps: int,
        seed: int,
    ) -> None:
        self._device = available_device("learner.device", config.device)
        self._processes = Processes(config.processes, self._device)
        # What is sharded is moved part by part: a device need not hold it all.
        place = self._device if config.processes == 1 else "cpu"
        self.model: PreTrainedModel = model.to(device=place, dtype=torch.float32).eval()
        check_model(self.model)
        self.version = 0
        self._config = config
        self._objective = objective
        self._temperature = temperature
        self._total_steps = total_steps
        self._seed = seed
        self._keys_per_token = keys_per_token(self.model)
        self._model_s = 0.0
        self._entropies: dict[int, tuple[float, int]] = {}  # turn of an episode -> sum of its mean entropies, how many
        other = None if objective.kl.reference == "none" else Trunk(copy_of(self.model))
        if config.checkpoint_activations:
            checkpoint_layers(self.model)
        self._trunk = Trunk(self.model)
        self._trunks = [self._trunk] if other is None else [self._trunk, other]
        for trunk in self._trunks:
            self._processes.shard(trunk, bfloat16=config.dtype == "bfloat16")
        self._names = {p: name for name, p in self.model.named_parameters() if p.requires_grad}
        self._partial = len(self._names) < len(list(self.model.parameters()))
        self._optimizer = self._make_optimizer()
        self._imitation_optimizer: torch.optim.Optimizer | None = None
        trained = {name: parameter for parameter, name in self._names.items()}
        self._reference = None if other is None else Reference(other, trained, objective.kl)

    @property
    def by_pairs(self) -> bool:
        """Whether it compares the values of turns, instead of going by advantages."""
        return self._objective.compares

    def update(self, samples: Sequence[Sample], replayed: Sequence[Sample] = ()) -> dict[str, float]:
        """One training step: `epochs` passes over the samples, each of `minibatches` optimizer steps.

        A minibatch is made of whole episodes. `replayed`: samples of earlier steps, of which each minibatch has its
        part; their loss is normalised by itself and added, so that that of the others is as without them. Returns
        metrics, of all together: `loss` and its parts (`policy_loss`, `kl_loss`, `entropy_loss`; means over optimizer
        steps), `kl` and `entropy` (nats per token),
        `clip_fraction`, `masked_fraction`, `ratio_max`, `gap_mean` and `gap_max` (absolute log-probability
        difference between engine and learner, before the first optimizer step), `grad_norm` (largest, before
        clipping), `lr`, `sampled_tokens` and `tokens` (of the samples), `packed_tokens` (computed, summed over
        optimizer steps), `padding_share`, `model_s` (seconds in forward, backward and optimizer, of the slowest
        process); where it compares replies, `lr`, tokens, seconds and the metrics of `Preferences.coefficients` or
        `Discrimination.coefficients` alone. Mutates weights, optimizer and reference, and increments `version`.

        Raises:
            TrainingError: there is nothing to train on, or a loss term or the gradient is not finite. The
                weights are those after the last good optimizer step, and `version` stays.
        """
        samples, replayed = _with_tokens(samples), _with_tokens(replayed)
        if not samples:
            raise TrainingError(f"step {self.version}: no sample has a sampled token")
        assert not (replayed and self.by_pairs), "what is compared knows no advantages"
        fresh, samples = len(samples), samples + replayed
        self._imitation_optimizer = None
        self._model_s = 0.0
        lr = learning_rate(self._config, self.version, self._total_steps)
        metrics = self._from_pairs(samples, lr) if self.by_pairs else self._from_advantages(samples, fresh, lr)
        self.version += 1
        if self._reference is not None:
            self._reference.after_training_step(self.version)
        return {
            **metrics,
            "lr": lr,
            "tokens": float(sum(len(sample.tokens) for sample in samples)),
            "sampled_tokens": float(sum(span.length for sample in samples for span in sample.spans)),
            "model_s": self._processes.largest([self._model_s])[0],
        }

    def _from_advantages(self, samples: Sequence[Sample], fresh: int, lr: float) -> dict[str, float]:
        """The first `fresh` samples are new, the others replayed."""
        minibatches = self._minibatches(samples, fresh)
        objective = self._objective_now()
        table = flatten(samples)
        whole = self._micro_batches(samples) if len(minibatches[0]) == len(samples) else None
        proximal = self._proximal(samples, table, whole) if len(minibatches) > 1 else None
        entropies, usual = self._entropies, None
        if objective.smooth is not None:
            entropies, usual = self._usual_entropy(samples, table, objective.smooth)
        tally = Tally()
        for place, chosen in enumerate(minibatches):
            if place == 0 or chosen != minibatches[place - 1]:
                proximal_N = None if proximal is None else torch.cat([proximal[index] for index in chosen])
                part = samples if whole else [samples[index] for index in chosen]
                part_table = table if whole else flatten(part)
                new = sum(index < fresh for index in chosen)
                minibatch = Minibatch.make(part, part_table, objective, proximal_N, self._device, fresh=new)
                batches = whole or self._micro_batches(part)
                if usual is not None:
                    usual_N = torch.cat([usual[index] for index in chosen])
                    minibatch = replace(
                        minibatch, usual_N=usual_N, smoothing=smoothing(self.version, self._total_steps)
                    )
            if objective.covariance is not None or objective.hapo is not None:
                seen = self._measured(batches, part_table, ("logprob_now", "entropy"))
                draws = generator(self._seed, "covariance", self.version, place)
                minibatch = minibatch.planned(seen["logprob_now"], seen["entropy"], draws)
            self._optimizer_step(minibatch, batches, lr, tally)
        tally.combine(self._processes)
        self._entropies = entropies
        return tally.metrics()

    def _from_pairs(self, samples: Sequence[Sample], lr: float) -> dict[str, float]:
        """`epochs` optimizer steps on all replies that are compared; metrics are means over them, those of
        `Preferences.coefficients` or `Discrimination.coefficients`.

        The gradient of their loss is that of its log-probabilities times numbers that a pass before has found, so
        that the two replies of a pair need not lie in one micro-batch. Without pairs or replies to imitate the weights
        stay.
        """
        preference, discriminate = self._objective.preference, self._objective.discriminate
        table, batches = flatten(samples), self._micro_batches(samples)
        targets_N = table.tokens_N.to(self._device)
        placed = replace(table, tokens_N=targets_N)
        if preference is not None:
            compared: Preferences | Discrimination = Preferences.make(samples, placed, preference)
        else:
            assert discriminate is not None
            compared = Discrimination.make(samples, placed, discriminate)
        steps, begun_N = [], None
        for _ in range(self._config.epochs):
            now_N, reference_N = self._logprobs(batches, targets_N, reference=preference is not None)
            begun_N = now_N if begun_N is None else begun_N
            coefficient_N, metrics = compared.coefficients(now_N, begun_N if preference is None else reference_N)
            norm = self._weighted_step(coefficient_N, targets_N, samples, batches, lr) if coefficient_N.any() else 0.0
            steps.append({**metrics, "grad_norm": norm})
        return {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}

    @torch.no_grad()
    def _logprobs(
        self, batches: Sequence[MicroBatch], targets_N: torch.Tensor, *, reference: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities under the present weights and, if wanted, under the reference's, else zeros."""
        now_N, reference_N = torch.zeros(2, len(targets_N), device=self._device)
        for batch in batches:
            values = self._values(batch, targets_N, reference=reference)
            now_N[batch.sampled_M] = values.logprobs_M
            if values.reference_M is not None:
                reference_N[batch.sampled_M] = values.reference_M
        self._processes.rest(*self._trunks)
        return self._processes.add(now_N), self._processes.add(reference_N)

    def _weighted_step(
        self,
        coefficient_N: torch.Tensor,
        targets_N: torch.Tensor,
        samples: Sequence[Sample],
        batches: Sequence[MicroBatch],
        lr: float,
    ) -> float:
        """One optimizer step down the sum of the log-probabilities times coefficients; the gradient's norm."""

        def loss(batch: MicroBatch) -> torch.Tensor:
            terms_M = coefficient_N[batch.sampled_M] * self._values(batch, targets_N, reference=False).logprobs_M
            if not terms_M.isfinite().all():
                raise self._not_finite({"log-probability": terms_M}, batch, samples)
            return terms_M.sum()

        norm = self._descend(self._optimizer, lr, samples, batches, loss)
        if self._reference is not None:
            self._reference.after_optimizer_step()
        return norm

    def imitate(self, samples: Sequence[Sample], lr: float) -> float:
        """One supervised step; returns the mean negative log-probability (nats) of the span tokens before it.

        For warm-up: it has an optimizer of its own, which the first `update` discards, and until then the
        reference follows the weights. `version` stays. The samples are demonstrations: spans need neither
        log-probabilities nor advantages.

        Raises:
            TrainingError: no sample has a span token, or the loss or the gradient is not finite; the
                weights stay.
        """
        samples = _with_tokens(samples)
        if not samples:
            raise TrainingError(f"imitation at step {self.version}: no sample has a span token")
        if self._imitation_optimizer is None:
            self._imitation_optimizer = self._make_optimizer()
        targets_N = flatten(samples).tokens_N.to(self._device)
        total = 0.0

        def loss(batch: MicroBatch) -> torch.Tensor:
            nonlocal total
            nll_M = -self._values(batch, targets_N, reference=False).logprobs_M / len(targets_N)
            part = nll_M.sum()
            if not part.isfinite():
                raise self._not_finite({"log-probability": nll_M}, batch, samples)
            total += part.item()
            return part

        self._descend(self._imitation_optimizer, lr, samples, self._micro_batches(samples), loss)
        if self._reference is not None and self.version == 0:
            self._reference.copy_policy()
        return self._processes.sums([total])[0]

    @torch.no_grad()
    def measure(self, samples: Sequence[Sample], names: Sequence[str]) -> dict[str, list[float]]:
        """Quantities of `MEASURED` by name, one number per sampled token: samples in their order, spans in theirs.

        The weights are the present ones, and stay. Samples need neither advantages nor log-probabilities.
        """
        assert set(names) <= set(MEASURED), f"{names} are not {MEASURED}"
        found = self._measured(self._micro_batches(samples), flatten(samples), names)
        return {name: values_N.tolist() for name, values_N in found.items()}

    @torch.no_grad()
    def _measured(
        self, batches: Sequence[MicroBatch], table: SampledTokens, names: Sequence[str]
    ) -> dict[str, torch.Tensor]:
        """As `measure`, for samples that are packed already."""
        targets_N, turns_N = table.tokens_N.to(self._device), table.turns_N.to(self._device)
        found = {name: torch.zeros(len(targets_N), device=self._device) for name in names}
        for batch in batches:
            with self._passing():
                told = quantities(
                    self._trunk,
                    batch,
                    targets_N[batch.sampled_M],
                    turns_N[batch.sampled_M],
                    names,
                    temperature=self._temperature,
                    reference=None if self._reference is None else self._reference.trunk,
                    logit_tokens=self._config.logit_tokens,
                )
            for name, values_M in told.items():
                found[name][batch.sampled_M] = values_M.float()
        self._processes.rest(*self._trunks)
        return {name: self._processes.add(values_N) for name, values_N in found.items()}

    def _usual_entropy(
        self, samples: Sequence[Sample], table: SampledTokens, config: SmoothConfig
    ) -> tuple[dict[int, tuple[float, int]], list[torch.Tensor]]:
        """Mean entropy in earlier training steps of each token's turn in its episode, one vector per sample; NaN where
        there was none. And what is to be remembered, these samples included, each turn of them counting the same."""
        entropy_N = self._measured(self._micro_batches(samples), table, ("entropy",))["entropy"].tolist()
        after, places, first = dict(self._entropies), [], 0
        for span in (span for sample in samples for span in sample.spans):
            place = min(span.turn, config.turns - 1)
            total, count = after.get(place, (0.0, 0))
            if span.length:
                after[place] = total + sum(entropy_N[first : first + span.length]) / span.length, count + 1
            places += [place] * span.length
            first += span.length
        usual = {place: total / count for place, (total, count) in self._entropies.items()}
        usual_N = torch.tensor([usual.get(place, math.nan) for place in places], device=self._device)
        return after, list(torch.split(usual_N, torch.bincount(table.sequences_N).tolist()))

    def weights(self) -> Mapping[str, torch.Tensor]:
        """What is trained, of the model's state dict: detached, not copied, so that the next `update` changes it.

        Of a sharded model they are whole, on the CPU, in the first process, and there is nothing in the others.
        """
        if self._partial:
            weights = {name: parameter.detach() for parameter, name in self._names.items()}
        else:
            weights = self.model.state_dict(keep_vars=self._processes.count > 1)
        return self._processes.gathered(weights) if self._processes.count > 1 else weights

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """What `save_state` writes: named tensors, of which `weights` says where they are, and JSON values."""
        return self._processes.gathered(self._tensors()), self._values_now()

    def save_state(self, folder: Path) -> None:
        """Write what resuming needs besides the model's weights to a new folder, of which all processes see the same.

        Raises:
            OSError: it could not be written.
        """
        count, rank = self._processes.count, self._processes.rank
        write_state(folder, self._tensors(), self._values_now(), rank=rank, processes=count)

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote, in a learner whose model has the weights of that moment: bit for bit,
        unless the number of processes is another.

        The learning rate needs no state: it follows from `version`.

        Raises:
            RunError: a tensor is missing or has another shape than the model's; this learner is as before.
        """
        values = read_values(folder)
        optimizer, slots = self._make_optimizer(), {}
        for parameter in self._names if values["stepped"] else ():
            moments = {key: torch.zeros_like(parameter).detach() for key in ("exp_avg", "exp_avg_sq")}
            slots[parameter] = {"step": torch.zeros(())} | moments
        optimizer.state.update(slots)
        read_state(folder, self._tensors(optimizer), processes=self._processes.count)
        self.version, self._optimizer, self._imitation_optimizer = int(values["version"]), optimizer, None
        self._entropies = {place: (total, count) for place, total, count in values.get("entropies", ())}

    def restart(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Begin anew from other weights, as `weights` gives them, which are copied; `version`, and with it the learning
        rate, goes on. All processes are given the whole weights.

        Raises:
            RuntimeError: a weight is missing or has another shape.
        """
        own = self.model.state_dict()
        trained = set(self._names.values()) if self._partial else own.keys()
        given = {name: self._processes.like(weight, own.get(name, weight)) for name, weight in weights.items()}
        self.model.load_state_dict({**{name: own[name] for name in own.keys() - trained}, **given})
        self._optimizer, self._entropies = self._make_optimizer(), {}
        if self._reference is not None:
            self._reference.copy_policy()

    def _tensors(self, optimizer: torch.optim.Optimizer | None = None) -> dict[str, torch.Tensor]:
        """The tensors of the state, not copied; `optimizer`: another than the present one."""
        tensors = {
            f"optimizer.{self._names[parameter]}.{key}": value
            for parameter, slots in (optimizer or self._optimizer).state.items()
            for key, value in slots.items()
        }
        if self._reference is not None:
            tensors |= {f"reference.{name}": tensor for name, tensor in self._reference.tensors().items()}
        return tensors

    def _values_now(self) -> dict[str, Any]:
        values: dict[str, Any] = {"version": self.version, "stepped": bool(self._optimizer.state)}
        if self._entropies:
            values["entropies"] = [[place, *counted] for place, counted in sorted(self._entropies.items())]
        return values

    def _objective_now(self) -> ObjectiveConfig:
        """The objective with the entropy bonus of this training step."""
        first, final = self._objective.entropy, self._objective.entropy_final
        if final is None:
            return self._objective
        progress = min(1.0, self.version / max(1, self._total_steps))
        return replace(self._objective, entropy=first + (final - first) * progress)

    def _make_optimizer(self) -> torch.optim.Optimizer:
        config = self._config
        return torch.optim.AdamW(list(self._names), betas=config.betas, weight_decay=config.weight_decay)

    def _minibatches(self, samples: Sequence[Sample], fresh: int) -> list[list[int]]:
        """Sample indices of every optimizer step: whole episodes, reshuffled in every epoch. The first `fresh` are
        dealt out as if there were no others, and come first in each."""
        new, again = samples[:fresh], samples[fresh:]
        count = min(self._config.minibatches, len({sample.episode for sample in new}))
        parts = zip(self._dealt(new, count, "minibatches"), self._dealt(again, count, "replayed"), strict=True)
        return [part + [fresh + index for index in more] for part, more in parts]

    def _dealt(self, samples: Sequence[Sample], count: int, draw: str) -> list[list[int]]:
        """Sample indices of `count` parts for each epoch."""
        episodes = list(dict.fromkeys(sample.episode for sample in samples))
        random = generator(self._seed, draw, self.version)
        result = []
        for _ in range(self._config.epochs):
            shuffled = random.permutation(len(episodes))
            for part in np.array_split(shuffled, count):
                names = {episodes[index] for index in part}
                result.append([index for index, sample in enumerate(samples) if sample.episode in names])
        return result

    def _micro_batches(self, samples: Sequence[Sample]) -> list[MicroBatch]:
        rows = pack(samples, self._config.row_tokens, keys_per_token=self._keys_per_token)
        return [b.to(self._device) for b in self._processes.micro_batches(rows, self._config.micro_batch_tokens)]

    def _values(self, batch: MicroBatch, targets_N: torch.Tensor, *, reference: bool) -> TokenValues:
        """Run the model on a micro-batch, and the reference, if there is one and it is wanted."""
        other = self._reference.trunk if reference and self._reference is not None else None
        with self._passing():
            return token_values(
                self._trunk,
                batch,
                targets_N[batch.sampled_M],
                temperature=self._temperature,
                reference=other,
                full_kl=other is not None and self._objective.kl.kind == "full" and not self.by_pairs,
                entropy_gradient=bool(self._objective.entropy or self._objective.entropy_final),
                logit_tokens=self._config.logit_tokens,
            )

    @torch.no_grad()
    def _proximal(
        self, samples: Sequence[Sample], table: SampledTokens, batches: Sequence[MicroBatch] | None
    ) -> list[torch.Tensor]:
        """Log-probabilities under the present weights, one vector per sample; `batches` if they are packed already."""
        targets_N = table.tokens_N.to(self._device)
        result_N, _ = self._logprobs(batches or self._micro_batches(samples), targets_N, reference=False)
        return list(torch.split(result_N, torch.bincount(table.sequences_N).tolist()))

    def _optimizer_step(self, minibatch: Minibatch, batches: Sequence[MicroBatch], lr: float, tally: Tally) -> None:
        def loss(batch: MicroBatch) -> torch.Tensor:
            terms = minibatch.terms(self._values(batch, minibatch.tokens_N, reference=True), batch)
            total = terms.loss
            if not len(batch.sampled_M):
                return total
            numbers = stats(terms, total)
            if not all(map(math.isfinite, numbers)):
                parts = {
                    "policy loss": terms.policy_M,
                    "kl": terms.kl_M,
                    "entropy": terms.entropy_M,
                    "ratio": terms.ratio_M,
                    "gap between engine and learner": terms.gap_M,
                }
                raise self._not_finite(parts, batch, minibatch.samples)
            tally.add(numbers, batch)
            return total

        norm = self._descend(self._optimizer, lr, minibatch.samples, batches, loss)
        tally.grad_norm = max(tally.grad_norm, norm)
        tally.optimizer_steps += 1
        if self._reference is not None:
            self._reference.after_optimizer_step()

    def _descend(
        self,
        optimizer: torch.optim.Optimizer,
        lr: float,
        samples: Sequence[Sample],
        batches: Sequence[MicroBatch],
        loss: Loss,
    ) -> float:
        """One optimizer step on the samples, packed as `batches`; returns the norm of the gradient before clipping."""
        optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            self._backward(loss, batch)
        norm = self._gradient_norm()
        if not whole(norm).isfinite():
            culprits = self._without_finite_gradient(optimizer, samples, loss)
            raise TrainingError(
                f"step {self.version}: the gradient's norm is {whole(norm):g}; no step was taken; "
                f"not finite alone: {_listed(culprits)}"
            )
        torch.nn.utils.clip_grads_with_norm_(list(self._names), self._config.grad_clip, norm)
        for group in optimizer.param_groups:
            group["lr"] = lr
        with self._in_model():
            optimizer.step()
        return whole(norm).item()

    def _backward(self, loss: Loss, batch: MicroBatch) -> None:
        """Add the gradient of a micro-batch, at the same time as the other processes that of theirs."""
        failure = None
        try:
            part = loss(batch)
        except TrainingError as error:
            failure = error
        try:
            self._processes.agree(failure)
        except TrainingError:
            self._processes.reset(*self._trunks)
            raise
        with self._in_model():
            part.backward()  # type: ignore[no-untyped-call]
        self._processes.rest(*self._trunks)

    @contextmanager
    def _passing(self) -> Iterator[None]:
        """A pass of the models, in their precision."""
        bfloat16 = self._config.dtype == "bfloat16" and self._processes.count == 1  # else its modules see to it
        with self._in_model(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=bfloat16):
            yield

    @contextmanager
    def _in_model(self) -> Iterator[None]:
        """Add the duration of the block, the device's work included, to `model_s`."""
        began = perf_counter()
        yield
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._model_s += perf_counter() - began

    def _gradient_norm(self) -> torch.Tensor:
        return torch.nn.utils.get_total_norm([p.grad for p in self._names if p.grad is not None])

    def _without_finite_gradient(
        self, optimizer: torch.optim.Optimizer, samples: Sequence[Sample], loss: Loss
    ) -> list[str]:
        """The turns of those sequences whose gradient is not finite when they are run alone."""
        culprits: list[int] = []
        for batch in micro_batches(pack(samples, row_tokens=1), micro_batch_tokens=1):
            optimizer.zero_grad(set_to_none=True)
            batch = batch.to(self._device)  # the same in all processes, which need each other's weights
            self._backward(loss, batch)
            if not whole(self._gradient_norm()).isfinite():
                culprits += batch.sampled_M.tolist()
        optimizer.zero_grad(set_to_none=True)
        return span_names(samples, sorted(culprits))

    def _not_finite(
        self, terms: Mapping[str, torch.Tensor], batch: MicroBatch, samples: Sequence[Sample]
    ) -> TrainingError:
        """Say which terms of which turns are not finite."""
        bad_M = torch.stack([~values_M.isfinite() for values_M in terms.values()])
        names = [name for name, bad in zip(terms, bad_M.any(dim=1).tolist()) if bad]
        turns = span_names(samples, sorted(batch.sampled_M[bad_M.any(dim=0)].tolist()))
        terms_named = ", ".join(names) or "the sum of the loss"
        return TrainingError(f"step {self.version}: not finite: {terms_named}; no step was taken; in {_listed(turns)}")


def _with_tokens(samples: Sequence[Sample]) -> list[Sample]:
    return [sample for sample in samples if any(span.length for span in sample.spans)]


def _listed(names: Sequence[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ("; ".join(names[:limit]) or "none") + more
