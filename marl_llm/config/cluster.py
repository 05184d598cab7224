"""Settings of a cluster: what plays, what learns, where, and how far one may run ahead of the other."""

from dataclasses import dataclass, field
from math import inf
from typing import Literal

from marl_llm.config.require import require


@dataclass(frozen=True, kw_only=True)
class PlacementConfig:
    """What one process needs of the node that it is put on."""

    cpus: float = 1.0
    """Cores."""
    gpus: float = 0.0
    """GPUs, or a part of one: two processes with 0.5 each share a card."""
    resources: dict[str, float] = field(default_factory=dict)
    """Ray's custom resources, as nodes are started with (`ray start --resources`): ties a process to some nodes."""

    def __post_init__(self) -> None:
        require(self.cpus >= 0, "cluster.cpus", self.cpus, "0 or more")
        require(self.gpus >= 0, "cluster.gpus", self.gpus, "0 or more")
        whole = self.gpus < 1 or self.gpus == int(self.gpus)
        require(whole, "cluster.gpus", self.gpus, "a whole number, or less than 1")
        for name, amount in self.resources.items():
            require(0 < amount < inf, f"cluster.resources.{name}", amount, "more than 0")


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Processes of a run with `runtime: ray`, and their order in time."""

    address: str | None = None
    """`auto` or HOST:PORT of a Ray cluster that is there; None: one is started on this machine."""
    mode: Literal["sync", "one_step_off", "async"] = "sync"
    """`sync`: a step is played, then learned from. `one_step_off`: the next step is played meanwhile, with the weights
    from before. `async`: up to `max_staleness` steps are played ahead, and new weights reach games in progress."""
    max_staleness: int = 2
    """With `async`: most updates that a learner may have had since a token that it learns from was sampled."""
    workers: int = 2
    """Processes that play."""
    live: int = 1024
    """Most games that a worker plays side by side."""
    engines: int = 0
    """Processes with an engine that all workers share; 0: every worker has engines of its own."""
    evaluators: int = 1
    """Processes that only measure, 0 or 1; with 0 the first worker does it."""
    colocate: bool = False
    """Whether engines leave a GPU's memory to the learner while it learns (`sync` only)."""
    worker: PlacementConfig = field(default_factory=PlacementConfig)
    """What a worker needs, with its own engines if there are no shared ones."""
    engine: PlacementConfig = field(default_factory=lambda: PlacementConfig(gpus=1))
    """What a shared engine needs."""
    evaluator: PlacementConfig = field(default_factory=lambda: PlacementConfig(cpus=0))
    """What an evaluator needs."""
    learner: PlacementConfig = field(default_factory=lambda: PlacementConfig(cpus=0))
    """What each process of a learner needs."""
    learners: dict[str, PlacementConfig] = field(default_factory=dict)
    """The same for the learners of single policies, by name."""
    restarts: int = 20
    """How often lost processes are replaced before the run gives up; its last checkpoint stays."""
    hung_s: float = 120.0
    """Seconds after which a seat, game or call that does not answer is named; with `runtime: local` too."""
    lost_s: float | None = None
    """Seconds after which a worker that does not answer is replaced, and its games played again; None: never."""

    def __post_init__(self) -> None:
        for name in ("workers", "live", "max_staleness"):
            require(getattr(self, name) >= 1, f"cluster.{name}", getattr(self, name), "1 or more")
        for name in ("engines", "restarts"):
            require(getattr(self, name) >= 0, f"cluster.{name}", getattr(self, name), "0 or more")
        require(self.evaluators in (0, 1), "cluster.evaluators", self.evaluators, "0 or 1")
        require(self.hung_s > 0, "cluster.hung_s", self.hung_s, "more than 0")
        require(self.lost_s is None or self.lost_s > 0, "cluster.lost_s", self.lost_s, "null or more than 0")
        require(
            not self.colocate or self.mode == "sync",
            "cluster.colocate",
            self.colocate,
            f"false with cluster.mode {self.mode}",
        )

    @property
    def ahead(self) -> int:
        """Steps that may be in play beyond the one that is learned from next."""
        return {"sync": 0, "one_step_off": 1, "async": self.max_staleness}[self.mode]
