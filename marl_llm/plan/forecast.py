"""The forecast of an experiment, and whether it fits this machine."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from rich.table import Table

from marl_llm.adapters import adapt
from marl_llm.config import Config, MachinesConfig, PolicyConfig
from marl_llm.errors import ConfigError, ModelError
from marl_llm.matchmaking import trained_policy
from marl_llm.models import LanguageModel, outline, outline_like, outline_tiny
from marl_llm.plan.advice import Timing, advice, assumptions
from marl_llm.plan.cluster import on_cluster
from marl_llm.plan.described import DESCRIBED, VOCABULARY
from marl_llm.plan.memory import CUDA_CONTEXT, RESERVE, Part, Shape, available, parts, resident
from marl_llm.plan.placement import here, place, processes
from marl_llm.plan.times import passes
from marl_llm.plan.tokens import LAST_STEPS, Load, Measured, measured, random_play
from marl_llm.policies.llm import Reader
from marl_llm.run import Run, checkpoint_of
from marl_llm.team import bases_first, check_seats, corpus
from marl_llm.text import Chat

BENCHMARK_S = 0.1
"""Seconds for which matrices are multiplied to learn how fast a device is."""


@dataclass(frozen=True, kw_only=True)
class PolicyPlan:
    """One policy's part of the forecast."""

    kind: str
    """As in the settings."""
    parameters: int
    """Of its model, adapter included; 0 if there is no model here."""
    trained: int
    """Of these, how many training changes."""
    load: Load
    """What a step is for it."""
    play_s: float | None
    """Seconds a step in its engine; None: measured for all together."""
    learn_s: float | None
    """Seconds a step in its learner; None: measured for all together."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The whole forecast."""

    policies: Mapping[str, PolicyPlan]
    """By name."""
    memory: tuple[Part, ...]
    """What everything needs."""
    has: Mapping[str, int | None]
    """Device to its free bytes; None: there is no such device here."""
    step_s: float
    """Seconds of play and learning a step."""
    steps: int
    """Of the experiment."""
    assumed: tuple[str, ...]
    """What the numbers come from."""
    timing: Timing | None = None
    """A step's parts in time, on a cluster."""
    advice: tuple[str, ...] = ()
    """On a cluster: what waits for what, and what to change."""

    @property
    def needs(self) -> dict[str, int]:
        """Bytes by device."""
        sums: dict[str, int] = defaultdict(int)
        for part in self.memory:
            sums[part.device] += part.bytes
        return dict(sums)

    @property
    def verdicts(self) -> list[str]:
        """One line for each device."""
        return [self._verdict(device, need) for device, need in sorted(self.needs.items())]

    @property
    def fits(self) -> bool:
        """Whether every device has what is needed."""
        return all(need <= (self.has[device] or 0) for device, need in self.needs.items())

    def _verdict(self, device: str, need: int) -> str:
        has = self.has[device]
        if has is None:
            return f"{device}: needs {_gib(need)}; does not fit: this machine has no {device} (--memory {device}=GIB)"
        if need <= has:
            return f"{device}: needs {_gib(need)} of {_gib(has)} free; fits"
        told = f"{device}: needs {_gib(need)} of {_gib(has)} free; does not fit"
        ours = [part for part in self.memory if part.device == device and part.remedy]
        if not ours:
            return f"{told}: the program itself needs as much"
        largest = max(ours, key=lambda part: part.bytes)
        return f"{told}: most is {largest.policy}'s {largest.what}, {_gib(largest.bytes)}; change {largest.remedy}"

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON values; bytes and seconds."""
        return {
            "fits": self.fits,
            "verdicts": self.verdicts,
            "needs": self.needs,
            "has": dict(self.has),
            "policies": {name: asdict(policy) for name, policy in self.policies.items()},
            "memory": [asdict(part) for part in self.memory],
            "step_s": self.step_s,
            "steps": self.steps,
            "assumed": list(self.assumed),
            "timing": None if self.timing is None else asdict(self.timing),
            "advice": list(self.advice),
        }

    def tables(self) -> list[Table]:
        """Who there is, tokens and time of a step, and memory by purpose."""
        who = Table("policy", "kind", "parameters", "of them trained")
        steps = Table("a step of", "turns", "prompt", "read", "sampled", "learned", "play", "learn")
        for name, plan in self.policies.items():
            who.add_row(name, plan.kind, f"{plan.parameters:,}", f"{plan.trained:,}")
            load = plan.load
            numbers = [load.turns, load.prompt, load.read, load.sampled, load.packed]
            times = ["-" if time is None else f"{time:.3g} s" for time in (plan.play_s, plan.learn_s)]
            if load.turns:
                steps.add_row(name, *(f"{number:,.0f}" for number in numbers), *times)
        memory = Table("memory", "of", "on", "MiB")
        for part in self.memory:
            memory.add_row(part.what, part.policy or "-", part.device, f"{part.bytes / 2**20:,.1f}")
        return [who, steps, memory]


def forecast(
    config: Config,
    *,
    like: Path | None = None,
    flops: float | None = None,
    has: Mapping[str, int] | None = None,
    machines: MachinesConfig | None = None,
) -> Plan:
    """What a run of these settings will need; no weights are loaded.

    `like`: an earlier run whose tokens and times are taken. `flops`: floating-point operations per second; None:
    matrices of each model's widths are multiplied for a moment. `has`: bytes by device, in place of what is free here.
    `machines`: a cluster that the processes of `cluster` are put on; None: this machine, with `runtime: ray` as a
    cluster of one node.

    Raises:
        ConfigError: a seat or a setting is wrong, or the cluster has no room for a process.
        ModelError, RunError: a model's or a run's files cannot be read.
    """
    if flops is not None and not 0 < flops < inf:
        raise ConfigError(f"--flops: {flops:g} is not allowed; it must be more than 0")
    check_seats(config)
    scaled = machines is not None or config.runtime == "ray"
    if scaled and (flops is not None or has):
        raise ConfigError("--flops, --memory: a description of the cluster says what there is (--cluster FILE)")
    if scaled:
        place(processes(config), machines or here())  # refused before games are played
    stood_for: list[str] = []
    models = _outlines(config, stood_for)
    shapes = {name: _shape(config, name, model) for name, model in models.items()}
    llm = {name: model for name, model in models.items() if config.policies[name].kind == "llm"}
    readers = {name: _reader(config, model) for name, model in llm.items()}
    loads = random_play(config, readers)
    told = None if like is None else measured(like, config, loads)
    loads = dict(told.loads) if told else loads
    assumed = [*_assumed(like), *(() if like or scaled else _speed(flops)), *stood_for]
    if config.play.replays and not told:
        assumed.append("replays: not counted")
    if scaled:
        return _scaled(config, shapes, loads, told, machines, assumed)
    policies = {}
    for name, settings in config.policies.items():
        shape = shapes.get(name)
        times = (
            (None, None) if told or shape is None or name not in llm else _seconds(settings, shape, loads[name], flops)
        )
        policies[name] = _policy(settings, shape, loads[name], *times)
    memory = _memory(config, shapes, loads)
    spent = sum((plan.play_s or 0.0) + (plan.learn_s or 0.0) for plan in policies.values())
    devices = dict.fromkeys(part.device for part in memory)
    for device in has or {}:
        if device not in devices:
            raise ConfigError(f"--memory: {device!r} is not allowed; it must be one that is used: {list(devices)}")
    return Plan(
        policies=policies,
        memory=memory,
        has={device: (has or {}).get(device, available(device)) for device in devices},
        step_s=told.play_s + told.learn_s if told else spent,
        steps=config.run.steps,
        assumed=tuple(assumed),
    )


def _policy(
    settings: PolicyConfig, shape: Shape | None, load: Load, play_s: float | None, learn_s: float | None
) -> PolicyPlan:
    total = 0 if shape is None else shape.parameters + shape.adapter
    trained = 0 if shape is None or not settings.learns else shape.adapter or shape.parameters
    return PolicyPlan(kind=settings.kind, parameters=total, trained=trained, load=load, play_s=play_s, learn_s=learn_s)


def _scaled(
    config: Config,
    shapes: Mapping[str, Shape],
    loads: Mapping[str, Load],
    told: Measured | None,
    machines: MachinesConfig | None,
    assumed: Sequence[str],
) -> Plan:
    """On a cluster; what was measured goes before the formulas."""
    cluster = machines or here()
    found = on_cluster(config, shapes, loads, cluster, {name: _copies(config, name) for name in shapes})
    timing = Timing(
        mode=config.cluster.mode,
        play_s=told.play_s if told else found.play_s,
        learn_s=told.learn_s if told else found.learn_s,
        move_s=found.move_s,
    )
    policies = {}
    for name, settings in config.policies.items():
        playing = None if told else found.playing.get(name)
        play_s = None if playing is None else playing.seconds
        learn_s = None if told else found.learning.get(name)
        policies[name] = _policy(settings, shapes.get(name), loads[name], play_s, learn_s)
    return Plan(
        policies=policies,
        memory=found.memory,
        has=found.has,
        step_s=timing.total_s,
        steps=config.run.steps,
        assumed=(*assumed, *assumptions(config, cluster, described=machines is not None)),
        timing=timing,
        advice=tuple(advice(config, found, timing, loads)),
    )


def _outlines(config: Config, stood_for: list[str]) -> dict[str, LanguageModel]:
    """The models that will be loaded, by policy, without their weights; adds to the list whose files were not there."""
    models: dict[str, LanguageModel] = {}
    for name in bases_first(config):
        settings = config.policies[name]
        if settings.kind == "llm" and settings.base is not None:
            models[name] = models[settings.base]
        elif settings.kind == "llm":
            models[name] = _outline(config, name, stood_for)
        elif settings.kind == "checkpoint":
            models[name] = _played(name, settings.options.get("path"))
    return models


def _outline(config: Config, name: str, stood_for: list[str]) -> LanguageModel:
    settings = config.policies[name]
    if settings.model is not None:
        try:
            return outline(settings.model)
        except ModelError:
            if settings.model not in DESCRIBED:
                raise
        stood_for.append(
            f"{name}: {settings.model} is not here; its sizes are known, its tokens are counted with a tokenizer that "
            f"has learned the games' texts ({VOCABULARY} entries at most)"
        )
        return outline_like(*DESCRIBED[settings.model], corpus(config, name), vocabulary=VOCABULARY)
    return outline_tiny(settings.tiny, corpus(config, name), context_tokens=config.play.context_tokens)


def _played(name: str, run: Any) -> LanguageModel:
    if not isinstance(run, str):
        raise ConfigError(f"policies.{name}.options.path: {run!r} is not allowed; it must be the directory of a run")
    return outline(checkpoint_of(run, None)[1] / trained_policy(Run.config(run)))


def _shape(config: Config, name: str, model: LanguageModel) -> Shape:
    lora = config.policies[name].lora
    if lora is None:
        return Shape.of(model.model)
    try:
        with torch.device("meta"):
            adapted = adapt(model.model, lora, seed=0)
    except ConfigError as error:
        raise ConfigError(f"policies.{name}.{error}") from error
    adapter = sum(p.numel() for n, p in adapted.named_parameters() if p.requires_grad)
    return Shape.of(model.model, adapter)


def _reader(config: Config, model: LanguageModel) -> Reader:
    return Reader(Chat(model.tokenizer, thinking=config.play.thinking), config.play)


def _memory(config: Config, shapes: Mapping[str, Shape], loads: Mapping[str, Load]) -> tuple[Part, ...]:
    found = [Part(policy="", what="program", device="cpu", bytes=resident())]
    most = max((load.longest for load in loads.values()), default=0) or config.play.context_tokens
    for name, shape in shapes.items():
        settings, load = config.policies[name], loads[name]
        base = settings.base
        shared = None if base is None else config.policies[base]
        own = parts(
            name,
            settings,
            shape,
            longest=load.longest or most,
            context=config.play.context_tokens,
            packed=int(load.packed),
            copies=_copies(config, name),
            shared=shared,
        )
        found += own if settings.kind == "llm" else [part for part in own if part.what.startswith("engine")]
    cuda = sorted({part.device for part in found if part.device != "cpu"})
    found += [Part(policy="", what="CUDA itself", device=device, bytes=CUDA_CONTEXT) for device in cuda]
    sums: dict[str, int] = defaultdict(int)
    for part in found:
        sums[part.device] += part.bytes
    found += [
        Part(policy="", what="games, allocator", device=device, bytes=int(RESERVE * size))
        for device, size in sums.items()
    ]
    return tuple(found)


def _copies(config: Config, name: str) -> int:
    """Engines for former selves: those of a league, or the one of step 0 while the policy is measured."""
    league = config.matchmaking.league
    met = league.per_step if league is not None and name == trained_policy(config) else 0
    start = name == trained_policy(config) and any("start" in config.opponents(game) for game in config.games)
    return max(met, int(start))


def _seconds(settings: PolicyConfig, shape: Shape, load: Load, flops: float | None) -> tuple[float, float]:
    """Play and learning: two operations per parameter and token forward, four backward (two if it is frozen).

    Layers that keep only what goes into them run forward once more, and each GPU of a learner adds its speed.
    """
    learner, engine = settings.learner, settings.engine
    play = 2 * shape.multiplied * (load.read + load.sampled)
    play_s = play / (flops or speed(engine.device, engine.dtype, engine.slots, shape))
    if not settings.learns:
        return play_s, 0.0
    work = 2 * shape.multiplied * passes(settings, adapter=bool(shape.adapter)) * load.packed
    at_once = 1 if learner.device == "cpu" else learner.processes
    rate = flops or speed(learner.device, learner.dtype, learner.micro_batch_tokens, shape)
    return play_s, work / (rate * at_once)


def speed(device: str, dtype: str, rows: int, shape: Shape) -> float:
    """Operations per second in products of `rows` tokens with a matrix of the model's widths."""
    try:
        a = torch.ones(rows, shape.hidden, device=device, dtype=getattr(torch, dtype))
        b = torch.ones(shape.hidden, shape.inner, device=device, dtype=getattr(torch, dtype))
    except (RuntimeError, AssertionError) as error:  # how PyTorch reports missing devices
        raise ConfigError(
            f"--flops: is needed, since this machine has no {device} whose speed could be measured"
        ) from error
    done, began = 0, perf_counter()
    while not done or perf_counter() - began < BENCHMARK_S:
        a @ b
        if a.is_cuda:
            torch.cuda.synchronize(a.device)
        done += 1
    return done * 2 * rows * shape.hidden * shape.inner / (perf_counter() - began)


def _assumed(like: Path | None) -> list[str]:
    if like is not None:
        return [
            f"tokens sampled and learned, and seconds: means of the last {LAST_STEPS} steps of {like}, by game",
            "prompts: those of random games",
        ]
    return [
        "turns and prompts: those of a step of random games; learned: one pass, prompts as the prefix tree holds them",
        "replies: each as long as play.max_reply_tokens allows, so that tokens are an upper bound",
    ]


def _speed(flops: float | None) -> list[str]:
    measured = "products of matrices of the models' widths, measured now"
    rate = measured if flops is None else f"{flops:.3g} operations a second"
    return [f"seconds: {rate}; what is not a product of matrices comes on top, and in small models that is most of it"]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
