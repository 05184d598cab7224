"""Settings of a benchmark: which teams answer which questions, in which ways."""

from dataclasses import dataclass, field
from typing import Any

from marl_llm.config.matches import PlayConfig
from marl_llm.config.policies import PolicyConfig
from marl_llm.config.require import require


@dataclass(frozen=True, kw_only=True)
class EntrantConfig:
    """A team that answers: the policies of one run or of several seeds of it, or policies of its own."""

    runs: list[str] = field(default_factory=list)
    """Run directories. Of several, which differ by their seed, each answers everything, and the mean counts."""
    step: int | None = None
    """The checkpoint; None: the latest of each run."""
    policies: dict[str, PolicyConfig] = field(default_factory=dict)
    """Where there are no runs: who takes part, by name, as in an experiment."""
    seats: dict[str, str] = field(default_factory=dict)
    """Agent or pattern to policy; empty: as in the run's own game of that kind, else its trained policy in every seat,
    and of policies of its own the first."""
    temperature: float | None = None
    """At which language models here sample; 0: the most probable token; None: as the run, or the policy, says."""

    def __post_init__(self) -> None:
        own = sorted(self.policies)
        require(bool(self.runs) != bool(own), "policies", own, "given where there are no runs, and only there")
        require(self.step is None or bool(self.runs), "step", self.step, "null where there are no runs")
        at = self.temperature
        require(at is None or at >= 0, "temperature", at, "null or 0 or more")
        for policy in self.seats.values() if own else ():
            require(policy in own, "seats", policy, f"one of the policies: {own}")


@dataclass(frozen=True, kw_only=True)
class ProtocolConfig:
    """A way to answer."""

    game: str = ""
    """A pipeline, by the name of its game; empty: the protocol that goes by this name."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Settings of the pipeline, besides the tasks."""


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """Teams that answer benchmarks by protocols."""

    name: str = "benchmark"
    """Name of the folder with the results."""
    dir: str = "runs"
    """Where that folder is."""
    seed: int = 0
    """Fixes all that is sampled."""
    threads: int | None = None
    """Threads for tensor operations; None leaves PyTorch's choice."""
    samples: int = 1
    """Answers to each item (k)."""
    matched: bool = True
    """Whether each protocol is shown beside the majority of as many single answers as have the same tokens."""
    baseline: str | None = None
    """The team that the others are compared with; None: there is none."""
    teams: dict[str, EntrantConfig] = field(default_factory=dict)
    """Who answers, by a name of your choice."""
    benchmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is asked, by a name of your choice: settings of `games.tasks.task_set`, such as `{source: gsm8k}`."""
    protocols: dict[str, ProtocolConfig] = field(default_factory=dict)
    """How it is answered, besides `single`, which is always there."""
    play: PlayConfig | None = None
    """How it is played; None: as in the run, or the default."""

    def __post_init__(self) -> None:
        require("/" not in self.name, "name", self.name, "a name without /; dir says where")
        require(self.samples >= 1, "samples", self.samples, "1 or more")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "null or 1 or more")
        for key in ("teams", "benchmarks"):
            require(bool(getattr(self, key)), key, getattr(self, key), "at least one")
        known = sorted(self.teams)
        require(self.baseline is None or self.baseline in known, "baseline", self.baseline, f"null or one of {known}")
        for name, tasks in self.benchmarks.items():
            require("source" in tasks, f"benchmarks.{name}", tasks, "a mapping with a source, as in {source: gsm8k}")
            require("item" not in tasks, f"benchmarks.{name}.item", tasks.get("item"), "left out: all items are asked")
