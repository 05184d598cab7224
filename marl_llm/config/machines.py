"""The machines of a cluster that a forecast is for, what their parts can do, and what is assumed of them."""

from dataclasses import dataclass, field
from math import inf

from marl_llm.config.require import require


@dataclass(frozen=True, kw_only=True)
class DeviceConfig:
    """What one GPU can do, as its maker states it."""

    memory_gb: float
    """10^9 bytes of memory."""
    bandwidth_gb_s: float
    """10^9 bytes a second between memory and cores."""
    tflops: float
    """10^12 operations a second in dense products of bfloat16 matrices."""
    link_gb_s: float
    """10^9 bytes a second from and to the host, one way."""

    def __post_init__(self) -> None:
        for name in ("memory_gb", "bandwidth_gb_s", "tflops", "link_gb_s"):
            value = getattr(self, name)
            require(0 < value < inf, f"kinds.{name}", value, "more than 0")


KINDS = {  # data sheets of NVIDIA; products of matrices dense, which is half of what is printed "with sparsity"
    "a100": DeviceConfig(memory_gb=80, bandwidth_gb_s=2039, tflops=312, link_gb_s=32),
    "h100": DeviceConfig(memory_gb=80, bandwidth_gb_s=3350, tflops=989, link_gb_s=64),
    "h200": DeviceConfig(memory_gb=141, bandwidth_gb_s=4800, tflops=989, link_gb_s=64),
    "l40s": DeviceConfig(memory_gb=48, bandwidth_gb_s=864, tflops=362, link_gb_s=32),
}
"""GPUs that are known by name: A100 SXM with 80 GB, H100 SXM, H200 SXM, L40S."""


@dataclass(frozen=True, kw_only=True)
class NodeConfig:
    """Machines that are all alike."""

    count: int = 1
    """How many."""
    cores: int = 1
    """Of each."""
    memory_gb: float = 16.0
    """10^9 bytes of each."""
    gpus: int = 0
    """Of each."""
    gpu: str = "cpu"
    """Their kind: a100, h100, h200, l40s or one of `kinds`; cpu: there are none, and models run on cores."""
    resources: dict[str, float] = field(default_factory=dict)
    """Ray's custom resources of each (`ray start --resources`)."""

    def __post_init__(self) -> None:
        for name in ("count", "cores"):
            require(getattr(self, name) >= 1, f"nodes.{name}", getattr(self, name), "1 or more")
        require(0 < self.memory_gb < inf, "nodes.memory_gb", self.memory_gb, "more than 0")
        require(self.gpus >= 0, "nodes.gpus", self.gpus, "0 or more")
        require((self.gpu == "cpu") == (self.gpus == 0), "nodes.gpus", self.gpus, "0 with gpu: cpu, else 1 or more")


@dataclass(frozen=True, kw_only=True)
class AssumedConfig:
    """Shares of what is stated that programs reach. Not measured here: put in what you have measured."""

    mfu: float = 0.4
    """Of a device's operations, where a learner multiplies."""
    prefill: float = 0.5
    """Of a device's operations, where an engine reads prompts."""
    decode: float = 0.6
    """Of a device's bandwidth (and of its operations), where an engine samples."""
    network: float = 0.7
    """Of the bandwidth between nodes, and of that between GPU and host."""
    core_gflops: float = 30.0
    """10^9 operations a second of one core, where models run on cores."""
    core_gb_s: float = 8.0
    """10^9 bytes a second of one core, likewise."""

    def __post_init__(self) -> None:
        for name in ("mfu", "prefill", "decode", "network"):
            require(0 < getattr(self, name) <= 1, f"assumed.{name}", getattr(self, name), "more than 0, at most 1")
        for name in ("core_gflops", "core_gb_s"):
            require(0 < getattr(self, name) < inf, f"assumed.{name}", getattr(self, name), "more than 0")


@dataclass(frozen=True, kw_only=True)
class MachinesConfig:
    """A cluster, as `marl-llm plan --cluster FILE` reads it."""

    nodes: list[NodeConfig] = field(default_factory=lambda: [NodeConfig()])
    """Its machines."""
    network_gb_s: float = 1.25
    """10^9 bytes a second from and to each node (10 Gbit/s are 1.25)."""
    kinds: dict[str, DeviceConfig] = field(default_factory=dict)
    """Further kinds of GPU, by name."""
    assumed: AssumedConfig = field(default_factory=AssumedConfig)
    """What programs reach of that."""

    def __post_init__(self) -> None:
        require(bool(self.nodes), "nodes", self.nodes, "at least one")
        require(0 < self.network_gb_s < inf, "network_gb_s", self.network_gb_s, "more than 0")
        known = sorted({*KINDS, *self.kinds})
        for node in self.nodes:
            require(node.gpu == "cpu" or node.gpu in known, "nodes.gpu", node.gpu, f"one of {known}, or cpu")

    def device(self, kind: str) -> DeviceConfig:
        """What a GPU of that kind can do."""
        return self.kinds[kind] if kind in self.kinds else KINDS[kind]
