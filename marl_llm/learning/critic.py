"""A critic: a model beside the policy's that learns what its turns are worth.

One class for all kinds. They differ in where a turn is read, how many numbers are read there, and what the numbers are
held against (`learning.worth`).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from marl_llm.config import CriticConfig, LearnerConfig
from marl_llm.devices import available_device
from marl_llm.errors import TrainingError
from marl_llm.learning import worth
from marl_llm.learning.batch import MicroBatch, flatten, micro_batches, pack
from marl_llm.learning.forward import Trunk, check_model, keys_per_token, token_values
from marl_llm.learning.state import read_state, read_values, write_state
from marl_llm.learning.worth import Told, Trajectory
from marl_llm.types import Episode, Sample, Span, Tokens

NOTE = "In light of the final answer: {gold}\n"
"""What a privileged critic reads before the prompt."""
COLUMNS = {"value": 1, "prefix": 1, "twin": 4, "progress": 2}
"""Numbers that a head gives; critics of other kinds have no head but that of their language model."""
BETAS = (0.9, 0.95)
Measures = Mapping[tuple[str, int], Mapping[str, float | tuple[float, ...]]]
"""(match id, turn index) -> quantity -> its value for the turn, or for each of its tokens."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Readings:
    """Where the turns of some trajectories are read: N places, in the order of trajectories, turns and tokens."""

    paths: Sequence[Trajectory]
    """The I trajectories."""
    turns: Sequence[Told]
    """Their turns, in order."""
    samples: Sequence[Sample]
    """A sequence per turn, whose spans begin after the tokens where it is read."""
    path_N: torch.Tensor
    """Trajectory of each place (int64)."""
    turn_N: torch.Tensor
    """Turn of each place (int64)."""
    weight_N: torch.Tensor
    """Weight of its turn in the loss (float32)."""
    tokens_N: torch.Tensor
    """Token after each place (int64)."""
    batches: Sequence[MicroBatch]
    """The sequences, packed."""


class Scorer(torch.nn.Module):
    """Numbers at each place that is read: of a head on the last hidden state or, without one, the log-probability of
    the token that follows."""

    def __init__(self, model: PreTrainedModel, columns: int, seed: int) -> None:
        super().__init__()
        self.trunk = Trunk(model.requires_grad_(True))
        self.head: torch.nn.Linear | None = None
        if columns:
            hidden = model.config.get_text_config().hidden_size
            self.head = torch.nn.Linear(hidden, columns, device=model.device)
            with torch.no_grad():  # twins must not begin alike, nor far from 0
                weight = torch.randn(columns, hidden, generator=torch.Generator().manual_seed(seed % 2**63)) / hidden
                self.head.weight.copy_(weight)
                self.head.bias.zero_()

    def forward(self, batch: MicroBatch, targets_N: torch.Tensor) -> torch.Tensor:
        """What is read at the places of a micro-batch (M x C)."""
        if self.head is None:
            values = token_values(self.trunk, batch, targets_N[batch.sampled_M], temperature=1.0)
            return values.logprobs_M[:, None]
        read_MC: torch.Tensor = self.head(self.trunk(batch))[batch.visits_M]
        return read_MC

    def trained(self) -> dict[str, torch.nn.Parameter]:
        """What learns, by name: all that is used."""
        if self.head is None:
            return dict(self.trunk.model.named_parameters())
        body = self.trunk.model.base_model.named_parameters()
        return dict(body) | {f"head.{name}": parameter for name, parameter in self.head.named_parameters()}


class Critic:
    """Learns from the episodes of one policy, and tells `CriticConfig.quantities` of its turns.

    The model is moved to the learner's device and to float32, and from then on belongs to the critic; it stays in
    evaluation mode. How sequences are packed says the learner's settings. All that is random follows from `seed`.

    `encode`: from a text to tokens, for what a privileged critic is told, and for a reply that does nothing, which
    `end` ends.

    Raises:
        ConfigError: the device is not available.
        ModelError: the model's attention cannot be trained on packed sequences.
    """

    version: int
    """Number of updates so far."""

    def __init__(
        self,
        model: PreTrainedModel,
        config: CriticConfig,
        learner: LearnerConfig,
        *,
        policy: str,
        seed: int,
        encode: Callable[[str], Tokens],
        end: Tokens = (),
    ) -> None:
        self._device = available_device("learner.device", learner.device)
        own = model.to(device=self._device, dtype=torch.float32).eval()
        check_model(own)
        self.version = 0
        self.config = config
        self._learner = learner
        self._policy = policy
        self._encode = encode
        self._wait = (*encode(config.wait), *end) if config.wait is not None else None
        self._keys_per_token = keys_per_token(own)
        self._scorer = Scorer(own, COLUMNS.get(config.kind, 0), seed)
        # A twin's targets are a copy's that follows it; log-probabilities are measured from where they began.
        self._other = self._copied() if config.copied else None
        self._optimizer = self._make_optimizer()

    def begin(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Take over a model's weights before anything was learned; the head stays.

        Raises:
            RuntimeError: a weight is missing or has another shape.
        """
        assert self.version == 0, "it has learned already"
        self._scorer.trunk.model.load_state_dict(dict(weights))
        self._other = None if self._other is None else self._copied()

    def measure(self, episodes: Sequence[Episode]) -> Measures:
        """What it tells of the policy's turns with tokens, under the present weights; not of episodes at fault.

        Without a gold answer in `Episode.hidden`, a privileged critic tells nothing.
        """
        read = self._readings(self._paths(episodes))
        if not read.turns:
            return {}
        values_NC = self._read(self._scorer, read)
        if self._wait is not None:
            waiting = self._readings([path.replying(self._wait) for path in read.paths])
            values_NC = torch.cat([values_NC, self._read(self._scorer, waiting)], dim=1)
        if self._other is not None and self.config.kind != "twin":
            values_NC = torch.cat([values_NC, self._read(self._other, read)], dim=1)
        if self.config.kind == "implicit":
            values_N = worth.implicit_rewards(values_NC[:, 0], values_NC[:, 1], self.config.beta)
            values_N[torch.from_numpy(_last(read.path_N.numpy())).to(self._device)] = 0.0  # where the outcome stands
            values_NC = values_N[:, None]
        parts = torch.split(values_NC.double().cpu(), torch.bincount(read.turn_N, minlength=len(read.turns)).tolist())
        return {
            (turn.episode, turn.index): _told(self.config.kind, self.config.at, part)
            for turn, part in zip(read.turns, parts, strict=True)
        }

    def update(self, episodes: Sequence[Episode]) -> dict[str, float]:
        """`epochs` optimizer steps on the policy's turns; mutates the weights and increments `version`.

        The loss is one of all readings together: its gradient with respect to them is found first, and then led through
        the model in micro-batches, so that how these are cut changes nothing. Returns metrics: `loss` (before the first
        step), `grad_norm` (largest, before clipping), `turns`, and of values `explained`, the share of the targets'
        variance that was foreseen. Where no episode ended by the rules, nothing is learned.

        Raises:
            TrainingError: the loss or its gradient is not finite; the weights are those after the last good step.
        """
        read = self._readings(self._paths(episodes))
        if not any(turn.weight for turn in read.turns):
            return {"loss": 0.0, "grad_norm": 0.0, "turns": 0.0}
        before_NC, metrics = self._read(self._scorer, read), dict[str, float]()
        loss_of = self._losses(read, before_NC)
        norms = []
        for epoch in range(self.config.epochs):
            now_NC = (self._read(self._scorer, read) if epoch else before_NC).clone().requires_grad_(True)
            loss = loss_of(now_NC)
            if not loss.isfinite():
                raise TrainingError(f"critic of {self._policy}, update {self.version}: its loss is {loss.item():g}")
            metrics.setdefault("loss", loss.item())
            (pull_NC,) = torch.autograd.grad(loss, now_NC)
            norms.append(self._step(pull_NC, read))
        self.version += 1
        known = sum(1 for turn in read.turns if turn.weight)
        metrics |= {"grad_norm": max(norms), "turns": float(known)}
        return metrics | self._explained(read, before_NC)

    def save_state(self, folder: Path) -> None:
        """Write all that resuming needs, its weights included, to a new folder.

        Raises:
            OSError: it could not be written.
        """
        values = {"version": self.version, "stepped": bool(self._optimizer.state)}
        write_state(folder, self._tensors(self._optimizer), values, rank=0, processes=1)

    def load_state(self, folder: Path) -> None:
        """Continue from what `save_state` wrote, bit for bit.

        Raises:
            RunError: a tensor is missing or has another shape.
        """
        values = read_values(folder)
        optimizer = self._make_optimizer()
        for parameter in self._scorer.trained().values() if values["stepped"] else ():
            moments = {key: torch.zeros_like(parameter).detach() for key in ("exp_avg", "exp_avg_sq")}
            optimizer.state[parameter] = {"step": torch.zeros(())} | moments
        read_state(folder, self._tensors(optimizer), processes=1)
        self.version, self._optimizer = int(values["version"]), optimizer

    def _tensors(self, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
        """The tensors of the state, not copied."""
        trained = self._scorer.trained()
        tensors = {f"weight.{name}": parameter.detach() for name, parameter in trained.items()}
        if self._other is not None:
            tensors |= {f"other.{name}": parameter.detach() for name, parameter in self._other.trained().items()}
        for name, parameter in trained.items():
            tensors |= {f"optimizer.{name}.{key}": value for key, value in optimizer.state.get(parameter, {}).items()}
        return tensors

    def _make_optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self._scorer.trained().values(), lr=self.config.lr, betas=BETAS, weight_decay=0.0)

    def _copied(self) -> Scorer:
        copied: Scorer = copy.deepcopy(self._scorer).requires_grad_(False)
        return copied

    def _paths(self, episodes: Sequence[Episode]) -> list[Trajectory]:
        paths = worth.trajectories(episodes, self._policy)
        told = self.config.kind != "privileged"
        return [path for path in paths if told or all(turn.gold is not None for turn in path.turns)]

    def _readings(self, paths: Sequence[Trajectory]) -> Readings:
        rows = [(place, turn) for place, path in enumerate(paths) for turn in path.turns]
        samples = [self._sample(turn) for _, turn in rows]
        places = [sum(span.length for span in sample.spans) for sample in samples]
        repeats = torch.tensor(places, dtype=torch.int64)
        packed = pack(samples, self._learner.row_tokens, keys_per_token=self._keys_per_token)
        return Readings(
            paths=paths,
            turns=[turn for _, turn in rows],
            samples=samples,
            path_N=torch.tensor([place for place, _ in rows], dtype=torch.int64).repeat_interleave(repeats),
            turn_N=torch.arange(len(rows)).repeat_interleave(repeats),
            weight_N=torch.tensor([t.weight for _, t in rows], dtype=torch.float32).repeat_interleave(repeats),
            tokens_N=flatten(samples).tokens_N.to(self._device),
            batches=[batch.to(self._device) for batch in micro_batches(packed, self._learner.micro_batch_tokens)],
        )

    def _sample(self, turn: Told) -> Sample:
        """The turn as a sequence; a span of n tokens reads at the n tokens before each, so that one more token, which
        nobody reads, lets the last of the reply be read at."""
        noted = self._encode(NOTE.format(gold=turn.gold)) if self.config.kind == "privileged" else ()
        prompt, size = noted + turn.prompt, len(turn.reply)
        each, before, after = (0, size), (0, 1), (size, 1)
        spans = {
            "value": (each if self.config.at == "token" else before,),
            "prefix": (before, after),
            "twin": (before, after),
            "progress": (before, after),
            "privileged": (each,),
            "implicit": (each,),
        }[self.config.kind]
        return Sample(
            policy=self._policy,
            game="",
            episode=turn.episode,
            agent="",
            tokens=(*prompt, *turn.reply, 0),
            spans=tuple(Span(start=len(prompt) + at, length=n, role="", turn=turn.index) for at, n in spans),
        )

    @torch.no_grad()
    def _read(self, scorer: Scorer, read: Readings) -> torch.Tensor:
        """What a scorer reads at all places (N x C), without gradient."""
        values_NC = torch.zeros(len(read.tokens_N), COLUMNS.get(self.config.kind, 1), device=self._device)
        for batch in read.batches:
            values_NC[batch.sampled_M] = scorer(batch, read.tokens_N)
        return values_NC

    def _step(self, pull_NC: torch.Tensor, read: Readings) -> float:
        """One optimizer step down the readings times `pull_NC`; the gradient's norm."""
        if not pull_NC.any():
            return 0.0
        self._optimizer.zero_grad(set_to_none=True)
        for batch in read.batches:
            (pull_NC[batch.sampled_M] * self._scorer(batch, read.tokens_N)).sum().backward()
        trained = list(self._scorer.trained().values())
        norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if not norm.isfinite():
            raise TrainingError(f"critic of {self._policy}, update {self.version}: its gradient's norm is {norm:g}")
        torch.nn.utils.clip_grads_with_norm_(trained, self.config.grad_clip, norm)
        self._optimizer.step()
        if self.config.kind == "twin" and self._other is not None:
            with torch.no_grad():
                theirs = list(self._other.trained().values())
                torch._foreach_lerp_([p.detach() for p in theirs], [p.detach() for p in trained], self.config.tau)
        return norm.item()

    def _losses(self, read: Readings, before_NC: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """From all readings to the loss of one step."""
        path_N, weight_N = read.path_N.to(self._device), read.weight_N.to(self._device)
        config = self.config
        if config.kind in ("value", "prefix"):
            targets_N, before_N = self._tensor(self._value_targets(read, before_NC)), before_NC[:, 0]
            return lambda now_NC: worth.squared_error(
                now_NC[:, 0], targets_N, weight_N, before_N=before_N, clip=config.clip
            )
        if config.kind == "twin":
            return lambda now_NC: self._twin_loss(read, now_NC, weight_N)
        if config.kind == "progress":
            return lambda now_NC: self._progress_loss(read, now_NC, path_N, weight_N)
        assert self._other is not None
        reference_N = self._read(self._other, read)[:, 0]
        if config.kind == "implicit":
            labels_I = self._tensor(worth.successes(read.paths, config.above))
            return lambda now_NC: worth.outcome_loss(
                worth.implicit_rewards(now_NC[:, 0], reference_N, config.beta), path_N, labels_I
            )
        pairs_P2 = torch.tensor(worth.better_and_worse(read.paths), dtype=torch.int64, device=self._device)
        length_N = self._tensor([len(turn.reply) for turn in read.turns])[read.turn_N.to(self._device)]
        return lambda now_NC: worth.pair_loss(
            (now_NC[:, 0] - reference_N) / length_N, path_N, pairs_P2.reshape(-1, 2), config.beta, len(read.paths)
        )

    def _value_targets(self, read: Readings, before_NC: torch.Tensor) -> worth.Floats:
        """A target per place; of a prefix critic, before and after a turn are worth the same, which comes of both."""
        values_N, turn_N = before_NC[:, 0].double().cpu().numpy(), read.turn_N.numpy()
        step = 2 if self.config.kind == "prefix" else 1
        turn_N, last_N = turn_N[::step], _last(read.path_N.numpy()[::step])
        rewards_N = np.where(_last(turn_N), np.array([turn.reward for turn in read.turns])[turn_N], 0.0)
        targets_N = worth.value_targets(rewards_N, values_N[::step], last_N, self.config.gamma, self.config.lam)
        return np.repeat(targets_N, step)

    def _progress_loss(
        self, read: Readings, now_NC: torch.Tensor, path_N: torch.Tensor, weight_N: torch.Tensor
    ) -> torch.Tensor:
        """Of the parts, read after each turn, and of what they say is to come, read before it."""
        totals_I = self._tensor([path.outcome for path in read.paths])
        parts_N = now_NC[1::2, 0]
        legal_N = np.array([turn.legal for turn in read.turns], dtype=np.float64)
        paid_N = parts_N.detach().double().cpu().numpy() + self.config.ground * legal_N
        to_come_N = worth.value_targets(paid_N, np.zeros_like(paid_N), _last(read.path_N.numpy()[::2]), 1.0, 1.0)
        loss = worth.progress_loss(parts_N, path_N[1::2], totals_I)
        return loss + worth.squared_error(now_NC[::2, 1], self._tensor(to_come_N), weight_N[::2])

    def _twin_loss(self, read: Readings, now_NC: torch.Tensor, weight_N: torch.Tensor) -> torch.Tensor:
        """Of both twins, each held against its own target copy; places alternate between before and after a turn."""
        assert self._other is not None
        target_NC = self._read(self._other, read).double().cpu().numpy()
        last_N = _last(read.path_N.numpy()[::2])
        rewards_N = np.array([turn.reward for turn in read.turns])
        loss = now_NC.new_zeros(())
        for q, v in ((0, 2), (1, 3)):
            quality_N, value_N = worth.twin_targets(
                rewards_N, last_N, target_NC[::2, v], target_NC[1::2, q], self.config.gamma
            )
            loss = loss + worth.squared_error(now_NC[1::2, q], self._tensor(quality_N), weight_N[1::2])
            loss = loss + worth.squared_error(now_NC[::2, v], self._tensor(value_N), weight_N[::2])
        return loss

    def _explained(self, read: Readings, before_NC: torch.Tensor) -> dict[str, float]:
        if self.config.kind != "value":
            return {}
        targets_N, values_N = self._value_targets(read, before_NC), before_NC[:, 0].double().cpu().numpy()
        known_N = ~np.isnan(targets_N) & (read.weight_N.numpy() > 0)
        spread = float(np.var(targets_N[known_N])) if known_N.any() else 0.0
        left = float(np.var((targets_N - values_N)[known_N])) if known_N.any() else 0.0
        return {"explained": 1 - left / spread if spread > 1e-12 else 0.0}

    def _tensor(self, values: Sequence[float] | worth.Floats) -> torch.Tensor:
        return torch.tensor(np.asarray(values), dtype=torch.float32, device=self._device)


def _last(codes_N: worth.Ints) -> NDArray[np.bool_]:
    """Which rows are the last of a run of equal codes."""
    last_N: NDArray[np.bool_] = np.append(codes_N[1:] != codes_N[:-1], True)
    return last_N


def _told(kind: str, at: str, part_nC: torch.Tensor) -> Mapping[str, float | tuple[float, ...]]:
    """The quantities of one turn, from what was read of it."""
    first_n = part_nC[:, 0].tolist()
    if kind == "value":
        return {"value": tuple(first_n) if at == "token" else first_n[0]}
    if kind == "implicit":
        return {"implicit": tuple(first_n)}
    if kind == "prefix":
        waited = {"wait": part_nC[1, 1].item()} if part_nC.shape[1] > 1 else {}
        return {"value": first_n[0], "q": first_n[1], **waited}
    if kind == "progress":
        return {"progress": part_nC[1, 0].item(), "value": part_nC[0, 1].item()}
    if kind == "privileged":
        informed, before = part_nC.mean(dim=0).tolist()
        return {"informed": informed, "informed_before": before}
    (_, _, v1, v2), (q1, q2, _, _) = part_nC.tolist()
    return {"q1": q1, "q2": q2, "v1": v1, "v2": v2}
