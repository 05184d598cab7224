"""One learner in several processes: what it computes is what one process computes."""

import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_llm.checkpoints import write_whole
from marl_llm.config import KLConfig, LearnerConfig, LoraConfig, ObjectiveConfig, PreferenceConfig
from marl_llm.errors import ConfigError, RunError, TrainingError
from marl_llm.files import writing
from marl_llm.learning.batch import pack, shared_micro_batches
from marl_llm.learning.learner import Learner
from marl_llm.models import LanguageModel, load_model
from tests.learning.small import make_experts, make_qwen3, together
from tests.learning.test_learner import EMA, PLAIN, make_learner, make_samples, same, spoiled, timeless
from tests.test_run import file_size_limit

SNAPSHOT = ObjectiveConfig(ratio="sequence", kl=KLConfig(reference="snapshot", kind="k2", coef=0.3, every=2))
PAIRS = ObjectiveConfig(kl=KLConfig(reference="frozen"), preference=PreferenceConfig(threshold=0.0, imitation=0.5))
PACKING = ("packed_tokens", "padding_share")
"""Metrics that tell how work was cut, which depends on who does it."""


def copies(tensors: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def model_of(kind: str) -> Any:
    """`lora`: with an adapter of which one process has nothing."""
    if kind == "experts":
        return make_experts()
    model = make_qwen3(tied=kind == "tied")
    if kind == "lora":
        base = LanguageModel(model=model, tokenizer=None)
        return base.adapted(LoraConfig(rank=1, alpha=4.0, targets=["q_proj", "down_proj"]), seed=0).model
    return model


def same_prompt(samples: Any) -> Any:
    """Samples that all answer the same prompt, so that there are pairs."""
    spans = [replace(sample.spans[0], start=3) for sample in samples]
    return [replace(s, tokens=(*s.tokens[:3], *s.tokens[-3:]), spans=(span,)) for s, span in zip(samples, spans)]


def trained(processes: int, kind: str, objective: ObjectiveConfig, settings: dict[str, Any]) -> Any:
    """Metrics, weights and state of a learner that has imitated and then learned twice."""
    learner = make_learner(model_of(kind), objective, processes=processes, **settings)
    losses = [learner.imitate(make_samples(), lr=0.01)]
    change = same_prompt if objective.preference else list
    metrics = [timeless(learner.update(change(make_samples(step)))) for step in range(2)]
    return losses, metrics, copies(learner.weights()), learner.state()


def close(one: Any, two: Any, *, rtol: float = 1e-4, atol: float = 1e-5) -> None:
    assert one.keys() == two.keys()
    for name in one:
        torch.testing.assert_close(
            torch.as_tensor(two[name]), torch.as_tensor(one[name]), rtol=rtol, atol=atol, msg=name
        )


@pytest.mark.parametrize(
    ("processes", "kind", "objective", "settings"),
    [
        (2, "plain", EMA, {"epochs": 2, "minibatches": 2, "row_tokens": 1}),
        (3, "tied", SNAPSHOT, {"checkpoint_activations": True, "logit_tokens": 2}),
        (2, "lora", EMA, {"micro_batch_tokens": 10_000, "row_tokens": 10_000}),
        (2, "plain", PAIRS, {}),
        (2, "experts", EMA, {"row_tokens": 1, "micro_batch_tokens": 1}),
    ],
    ids=["ema", "tied", "lora", "pairs", "experts"],
)
def test_several_processes_compute_what_one_does(processes, kind, objective, settings) -> None:
    losses, metrics, weights, (tensors, values) = trained(1, kind, objective, settings)
    first, *others = together(processes, trained, kind, objective, settings)
    assert first[0] == pytest.approx(losses, rel=1e-5)
    for one, two in zip(metrics, first[1]):
        close(*({k: v for k, v in m.items() if k not in PACKING} for m in (one, two)))
    close(weights, first[2])
    close(tensors, first[3][0])
    assert first[3][1] == values
    for other in others:
        assert other == (first[0], first[1], {}, ({}, values)), "the same numbers, and no tensors"


def work(processes: int) -> Any:
    learner = make_learner(make_qwen3(), EMA, processes=processes, dtype="bfloat16", grad_clip=1e9)
    metrics = learner.update(make_samples())
    return metrics, {str(p.dtype) for p in learner.model.parameters()}, copies(learner.weights())


def test_passes_in_bfloat16_leave_weights_in_float32() -> None:
    """As near to one process in float32 as one process in bfloat16 is, or about."""
    exact = make_learner(make_qwen3(), EMA).update(make_samples())
    metrics, types, weights = together(2, work)[0]
    assert types == {"torch.float32"}
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    assert metrics["gap_mean"] == pytest.approx(exact["gap_mean"], rel=0.05)
    assert metrics["grad_norm"] == pytest.approx(exact["grad_norm"], rel=0.1)
    assert metrics["grad_norm"] != pytest.approx(exact["grad_norm"], rel=1e-5)


def share_held(processes: int) -> list[int]:
    learner = make_learner(make_qwen3(), EMA, processes=processes)
    learner.update(make_samples())
    tensors = [*learner.model.parameters(), *learner._tensors().values()]
    return [sum(getattr(t, "to_local", lambda t=t: t)().numel() for t in tensors), sum(t.numel() for t in tensors)]


def test_each_process_holds_its_part_of_weights_optimizer_and_reference() -> None:
    for held, everything in together(2, share_held):
        assert held == pytest.approx(everything / 2, rel=0.02)


def failing(processes: int) -> Any:
    learner = make_learner(make_qwen3(), EMA, processes=processes, row_tokens=1, micro_batch_tokens=1)
    learner.update(make_samples())
    before, told = copies(learner.weights()), []
    for field, value in (("advantages", math.nan), ("logprobs", -math.inf), ("advantages", 3e38)):
        with pytest.raises(TrainingError) as caught:
            learner.update(spoiled(field, value))
        told.append(str(caught.value))
    unchanged = same(before, copies(learner.weights()))
    with pytest.raises(TrainingError, match="no sample"):
        learner.update([])
    metrics = timeless(learner.update(make_samples(1)))
    return told, unchanged, learner.version, metrics, copies(learner.weights())


def test_what_is_not_finite_in_one_process_is_an_error_in_all_and_they_go_on() -> None:
    first, other = together(2, failing)
    told, unchanged, version, metrics, weights = first
    assert (other[0], other[1], other[2], other[3]) == (told, True, version, metrics)
    assert unchanged
    assert version == 2
    assert told[0].startswith("step 1: not finite: policy loss")
    assert told[1].startswith("step 1: not finite: gap between engine and learner")
    assert all(text.endswith("episode e3, agent player_1, turn 1") for text in told)
    assert "the gradient's norm is inf; no step was taken" in told[2]
    alone = failing(1)
    assert told == alone[0]
    close(alone[4], weights)


def test_work_is_shared_by_tokens_and_who_has_less_joins_with_nothing() -> None:
    rows = pack(make_samples(episodes=40), row_tokens=1)
    parts = [shared_micro_batches(rows, 60, rank=rank, processes=3) for rank in range(3)]
    loads = [sum(batch.num_nodes for batch in part) for part in parts]
    assert max(loads) - min(loads) <= max(len(row.tokens) for row in rows)
    assert len({len(part) for part in parts}) == 1
    indices = torch.cat([batch.sampled_M for part in parts for batch in part])
    assert sorted(indices.tolist()) == list(range(240))
    one, two = (shared_micro_batches(rows[:1], 60, rank=rank, processes=2) for rank in (0, 1))
    assert (len(one), len(two)) == (1, 1)
    assert len(two[0].sampled_M) == 0


KEPT = {"objective": EMA, "schedule": "cosine", "minibatches": 2}


def begun(processes: int, kind: str, folder: Path) -> dict[str, torch.Tensor]:
    """Writes the state after an update; returns the weights."""
    learner = make_learner(model_of(kind), processes=processes, **KEPT)
    learner.update(make_samples(0))
    learner.save_state(folder)
    return copies(learner.weights())


def continued(processes: int, kind: str, folder: Path, weights: dict[str, torch.Tensor]) -> Any:
    model = model_of(kind)
    model.load_state_dict(model.state_dict() | weights)
    learner = make_learner(model, processes=processes, **KEPT)
    learner.load_state(folder)
    metrics = timeless(learner.update(make_samples(1)))
    return learner.version, {k: v for k, v in metrics.items() if k not in PACKING}, copies(learner.weights())


@pytest.mark.parametrize("kind", ["plain", "lora"])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2), (3, 2)])
def test_another_number_of_processes_goes_on_from_a_saved_state(tmp_path, kind, before, after) -> None:
    def run(processes: int, act: Any, *arguments: Any) -> Any:
        return act(1, *arguments) if processes == 1 else together(processes, act, *arguments)[0]

    weights = run(before, begun, kind, tmp_path / "state")
    assert len(list((tmp_path / "state").glob("*.safetensors"))) == before
    whole = make_learner(model_of(kind), **KEPT)
    whole.update(make_samples(0))
    expected = timeless(whole.update(make_samples(1)))
    version, metrics, later = run(after, continued, kind, tmp_path / "state", weights)
    assert version == 2
    close({k: v for k, v in expected.items() if k not in PACKING}, metrics)
    close(dict(whole.weights()), later)


def refused(processes: int, folder: Path) -> str:
    """What the user is told when the disk of the last process is full."""
    learner = make_learner(make_qwen3(), EMA, processes=processes)
    learner.update(make_samples())
    last = processes == 1 or torch.distributed.get_rank() == processes - 1

    def save() -> None:
        if processes == 1:
            write_whole(folder / "step_1", lambda unfinished: learner.save_state(unfinished / "p-learner"), {})
            return
        with writing(folder / "step_1"):
            learner.save_state(folder / "p-learner")

    with pytest.raises(RunError) as caught, file_size_limit(1000) if last else nullcontext():
        save()
    return str(caught.value)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_disk_that_is_full_is_said_in_one_line_by_all(tmp_path, processes) -> None:
    told = [refused(1, tmp_path)] if processes == 1 else together(2, refused, tmp_path)
    assert told == [f"could not write {tmp_path}/step_1: File too large"] * processes
    assert processes == 2 or not list(tmp_path.iterdir())


def restarted(processes: int, weights: dict[str, torch.Tensor], folder: Path) -> Any:
    learner = make_learner(make_qwen3(seed=1), EMA, processes=processes)
    learner.update(make_samples())
    learner.restart(weights)
    with pytest.raises(RuntimeError, match="Missing key"):
        learner.restart({})
    with pytest.raises(RuntimeError, match="size mismatch"):
        learner.restart({name: weight[:3] for name, weight in weights.items()})
    tensors, values = learner.state()
    with pytest.raises(RunError, match="missing"):
        learner.load_state(folder / "nowhere")
    return copies(learner.weights()), copies(tensors), values


def test_all_processes_begin_anew_from_whole_weights(tmp_path) -> None:
    weights = copies(make_qwen3().state_dict())
    (now, tensors, values), other = together(2, restarted, weights, tmp_path)
    assert same(now, weights)
    assert same(tensors, {f"reference.{name}": weight for name, weight in weights.items()})
    assert other[2] == values == {"version": 1, "stepped": False}


def exported(processes: int, kind: str, folder: Path) -> None:
    from tests.tiny import untrained

    language_model = untrained()
    if kind == "lora":
        language_model.save(folder / "base")
        language_model = language_model.adapted(LoraConfig(rank=2), seed=0)
    learner = make_learner(language_model.model, processes=processes, lr=0.1)
    learner.update(make_samples())
    weights = learner.weights()
    if processes == 1 or weights:
        language_model.save(folder / kind, base="../base", weights=weights)


@pytest.mark.parametrize("kind", ["plain", "lora"])
def test_a_sharded_model_is_exported_as_any_other(tmp_path, kind) -> None:
    exported(1, kind, tmp_path / "one")
    together(2, exported, kind, tmp_path / "two")
    one, two = (load_model(tmp_path / name / kind).model.state_dict() for name in ("one", "two"))
    close(one, two)


def test_a_learner_of_more_processes_than_have_joined_is_refused() -> None:
    config = LearnerConfig(processes=2)
    with pytest.raises(
        ConfigError, match=r"learner.processes: 2 is not allowed; it must be as many as there are, .* 1"
    ):
        Learner(make_qwen3(), config, PLAIN, temperature=1.0, total_steps=1, seed=0)
