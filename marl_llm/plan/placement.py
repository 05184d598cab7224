"""Which process is on which node and GPU of a described cluster, and what it can do there."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from marl_llm.config import (
    Config,
    DeviceConfig,
    EngineConfig,
    MachinesConfig,
    NodeConfig,
    PlacementConfig,
)
from marl_llm.config.machines import KINDS
from marl_llm.errors import ConfigError
from marl_llm.plan.memory import available

SHARE = 1e-9
"""Of a GPU or resource: less than that is rounding."""


@dataclass(frozen=True, kw_only=True)
class Process:
    """One process of a run, before it is anywhere."""

    role: str
    """engine, worker, evaluator or learner."""
    policy: str
    """Whose learner it is; else empty."""
    index: int
    """Among those of its role and policy."""
    need: PlacementConfig
    """Of a node."""
    setting: str
    """Where the settings say so."""
    number: str
    """Which setting says how many there are."""
    kind: str
    """Device that its engines or its learner run on: cpu or cuda; empty: it has none."""

    @property
    def label(self) -> str:
        """As people read it: `engine`, `learner of agent`."""
        return f"{self.role} of {self.policy}" if self.policy else self.role


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A process on its node."""

    process: Process
    """Which."""
    node: int
    """Number of the node, counted through the description."""
    gpu: str
    """Kind of the GPUs of that node; cpu: it runs on cores."""
    cards: tuple[int, ...]
    """Which GPUs of the node it uses."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What one process reaches, in operations and bytes a second."""

    train: float
    """Operations where it learns."""
    prefill: float
    """Operations where it reads prompts."""
    decode: float
    """Operations where it samples."""
    bandwidth: float
    """Bytes of weights and cache where it samples."""
    link: float
    """Bytes from or to the host."""

    @staticmethod
    def of(placed: Placed, machines: MachinesConfig, *, gpus: int = 1, alone: bool = False) -> "Rates":
        """Those of a process.

        `gpus`: over how many its model is split; `alone`: it has a shared GPU for itself while it works.
        """
        assumed = machines.assumed
        if not placed.cards:
            cores = max(1.0, placed.process.need.cpus)
            flops, bandwidth = cores * assumed.core_gflops * 1e9, cores * assumed.core_gb_s * 1e9
            return Rates(train=flops, prefill=flops, decode=flops, bandwidth=bandwidth, link=bandwidth)
        device, used = machines.device(placed.gpu), min(gpus, len(placed.cards))
        share = used if alone else min(used, placed.process.need.gpus)
        flops = share * device.tflops * 1e12
        return Rates(
            train=flops * assumed.mfu,
            prefill=flops * assumed.prefill,
            decode=flops * assumed.decode,
            bandwidth=share * device.bandwidth_gb_s * 1e9 * assumed.decode,
            link=used * device.link_gb_s * 1e9 * assumed.network,
        )


def here() -> MachinesConfig:
    """This machine alone.

    Raises:
        ConfigError: its GPUs are of a kind that is not known.
    """
    gpus, size = torch.cuda.device_count(), (available("cpu") or 0) / 1e9
    if not gpus:
        return MachinesConfig(nodes=[NodeConfig(cores=os.cpu_count() or 1, memory_gb=size)])
    kind = kind_of(torch.cuda.get_device_name(0))
    own = replace(KINDS[kind], memory_gb=torch.cuda.mem_get_info(0)[1] / 1e9)
    node = NodeConfig(cores=os.cpu_count() or 1, memory_gb=size, gpus=gpus, gpu=kind)
    return MachinesConfig(nodes=[node], kinds={kind: own})


def kind_of(name: str) -> str:
    """The kind of a GPU that CUDA calls so.

    Raises:
        ConfigError: it is not known.
    """
    kind = next((kind for kind in KINDS if kind in name.lower()), None)
    if kind is None:
        raise ConfigError(f"--cluster: is needed, since {name} is none of the known GPUs: {sorted(KINDS)}")
    return kind


def split(engine: EngineConfig) -> int:
    """GPUs over which an engine splits a model."""
    return engine.vllm.tensor_parallel if engine.kind == "vllm" else 1


def processes(config: Config) -> list[Process]:
    """Everything that `cluster` asks for, the driver left out."""
    cluster = config.cluster
    models = [policy for policy in config.policies.values() if policy.kind in ("llm", "checkpoint")]
    engines = sorted({policy.engine.device.partition(":")[0] for policy in models}, reverse=True)[:1]
    own = "" if cluster.engines or not engines else engines[0]
    shared = engines[0] if engines else ""
    found = [*_alike("engine", cluster.engines, cluster.engine, "cluster.engine", "cluster.engines", shared)]
    found += _alike("worker", cluster.workers, cluster.worker, "cluster.worker", "cluster.workers", own)
    found += _alike(
        "evaluator", cluster.evaluators, cluster.evaluator, "cluster.evaluator", "cluster.evaluators", shared
    )
    width = max((split(policy.engine) for policy in models), default=1)
    for one in found:
        if one.kind == "cuda" and 1 < width > one.need.gpus:
            raise ConfigError(
                f"{one.setting}.gpus: {one.need.gpus:g} is not allowed; it must be at least "
                f"engine.vllm.tensor_parallel ({width})"
            )
    for name, policy in config.policies.items():
        if policy.learns:
            setting = f"cluster.learners.{name}" if name in cluster.learners else "cluster.learner"
            need = cluster.learners.get(name, cluster.learner)
            count, kind = policy.learner.processes, policy.learner.device.partition(":")[0]
            found += _alike("learner", count, need, setting, f"policies.{name}.learner.processes", kind, policy=name)
    return found


def _alike(
    role: str, count: int, need: PlacementConfig, setting: str, number: str, kind: str, *, policy: str = ""
) -> Iterator[Process]:
    if count and kind == "cuda" and not need.gpus:
        raise ConfigError(f"{setting}.gpus: 0 is not allowed; it must be more than 0, since a model there is on cuda")
    for index in range(count):
        yield Process(role=role, policy=policy, index=index, need=need, setting=setting, number=number, kind=kind)


class _Node:
    """What is left of a node."""

    def __init__(self, number: int, settings: NodeConfig) -> None:
        self.number, self.kind = number, settings.gpu
        self.cores = float(settings.cores)
        self.cards = [1.0] * settings.gpus
        self.resources = dict(settings.resources)

    def lacks(self, need: PlacementConfig) -> str:
        """The part of the need that is not there; empty: it fits."""
        if need.gpus and self._cards(need.gpus) is None:
            return "gpus"
        if need.cpus > self.cores + SHARE:
            return "cpus"
        short = (name for name, size in need.resources.items() if size > self.resources.get(name, 0.0) + SHARE)
        return next((f"resources.{name}" for name in short), "")

    def _cards(self, gpus: float) -> list[int] | None:
        """A shared GPU is one that is in use, if it has as much left; several are whole ones."""
        if gpus < 1:
            fitting = [index for index, left in enumerate(self.cards) if left >= gpus - SHARE]
            return [min(fitting, key=lambda index: self.cards[index])] if fitting else None
        free = [index for index, left in enumerate(self.cards) if left == 1.0][: int(gpus)]
        return free if len(free) == gpus else None

    def take(self, process: Process) -> Placed:
        need = process.need
        cards = (self._cards(need.gpus) or []) if need.gpus else []
        for card in cards:
            self.cards[card] -= min(1.0, need.gpus)
        self.cores -= need.cpus
        for name, size in need.resources.items():
            self.resources[name] -= size
        used = cards if process.kind == "cuda" else []
        return Placed(process=process, node=self.number, gpu=self.kind if used else "cpu", cards=tuple(used))


def place(asked: Sequence[Process], machines: MachinesConfig) -> list[Placed]:
    """Each process on the first node that has room: those tied to nodes first, then whole GPUs, then shared ones.

    Raises:
        ConfigError: there are not so many GPUs, or no node has what a process needs.
    """
    _check_gpus(asked, machines)
    nodes = [_Node(number, node) for number, node in enumerate(expanded(machines))]
    order = sorted(asked, key=lambda one: (not one.need.resources, -int(one.need.gpus), -one.need.gpus, one.index))
    placed = []
    for process in order:
        missing = [node.lacks(process.need) for node in nodes]
        if all(missing):
            (what, _), *_ = Counter(missing).most_common(1)
            need = process.need.resources[what[10:]] if what.startswith("res") else getattr(process.need, what)
            raise ConfigError(
                f"{process.setting}.{what}: {need:g} is not allowed; it must be what a node still has when it comes to "
                f"{process.label} {process.index} (of {process.number})"
            )
        placed.append(nodes[missing.index("")].take(process))
    return placed


def expanded(machines: MachinesConfig) -> list[NodeConfig]:
    """Every node by itself."""
    return [node for node in machines.nodes for _ in range(node.count)]


def _check_gpus(asked: Sequence[Process], machines: MachinesConfig) -> None:
    has = sum(node.gpus for node in expanded(machines))
    wanted: Mapping[tuple[str, str], float] = Counter()
    counts = Counter((process.number, process.setting) for process in asked)
    wanted = {key: count * _need(asked, key).gpus for key, count in counts.items()}
    total = sum(wanted.values())
    if total > has + SHARE:
        number, setting = max(wanted, key=lambda key: wanted[key])
        raise ConfigError(
            f"{number}: {counts[number, setting]} with {_need(asked, (number, setting)).gpus:g} GPUs each "
            f"({setting}.gpus) is not allowed; all processes together ask for {total:g} GPUs, and there are {has}"
        )


def _need(asked: Sequence[Process], key: tuple[str, str]) -> PlacementConfig:
    return next(process.need for process in asked if (process.number, process.setting) == key)


def memory_of(placed: Placed, machines: MachinesConfig) -> int:
    """Bytes of one GPU that the process uses."""
    device: DeviceConfig = machines.device(placed.gpu)
    return int(device.memory_gb * 1e9)
