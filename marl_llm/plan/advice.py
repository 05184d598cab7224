"""What a forecast for a cluster says in words: the order in time, what waits for what, and what to change."""

from collections.abc import Mapping
from dataclasses import dataclass

from marl_llm.config import Config, MachinesConfig
from marl_llm.plan.cluster import OnCluster, Playing, games
from marl_llm.plan.placement import expanded
from marl_llm.plan.tokens import Load

EVEN = 0.1
"""Of the longer one: play and learning that differ by less are told as even."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """A step's parts in time."""

    mode: str
    """As `cluster.mode`."""
    play_s: float
    """Seconds of play."""
    learn_s: float
    """Seconds of learning."""
    move_s: float
    """Seconds until the engines have the new weights."""

    def step_s(self, mode: str) -> float:
        """Seconds a step, in that mode: one after the other, or play and the way of the weights beside learning."""
        if mode == "sync":
            return self.play_s + self.learn_s + self.move_s
        return max(self.play_s + self.move_s, self.learn_s)

    @property
    def total_s(self) -> float:
        """Seconds a step."""
        return self.step_s(self.mode)

    @property
    def engines_wait(self) -> float:
        """Share of a step in which nothing is played."""
        return 1 - self.play_s / self.total_s if self.total_s else 0.0

    @property
    def learners_wait(self) -> float:
        """Share of a step in which nothing is learned."""
        return 1 - self.learn_s / self.total_s if self.total_s else 0.0


def advice(config: Config, found: OnCluster, timing: Timing, loads: Mapping[str, Load]) -> list[str]:
    """Lines for people."""
    step = timing.total_s
    sampled = sum(load.sampled for load in loads.values())
    lines = [
        f"on the cluster: a step plays {games(config)} games in {_s(timing.play_s)}, learns in {_s(timing.learn_s)} "
        f"and has the weights in the engines in {_s(timing.move_s)}; {_order(timing)}: {_s(step)}",
        f"throughput: {games(config) / step:.3g} games/s, {sampled / step:,.0f} sampled tokens/s",
        f"bottleneck: {_bottleneck(config, found, timing)}",
    ]
    lines += [_playing(name, one, found) for name, one in found.playing.items()]
    return [*lines, _staleness(config)]


def _order(timing: Timing) -> str:
    return "one after the other" if timing.mode == "sync" else "learning beside the other two"


def _bottleneck(config: Config, found: OnCluster, timing: Timing) -> str:
    learner = max(found.learning, key=lambda name: found.learning[name], default="")
    waits = f"learners wait {timing.learners_wait:.0%} of the time and engines {timing.engines_wait:.0%}"
    more_play = f"more engines ({_engines(config)}) or fewer GPUs for learners ({_processes(learner)})"
    more_learning = (
        f"more GPUs for the learner of {learner} ({_processes(learner)}) or fewer engines ({_engines(config)})"
    )
    move, learn = timing.move_s, timing.learn_s
    play = timing.play_s + (move if timing.mode != "sync" else 0.0)
    if move > max(timing.play_s, learn):
        return f"the way of the weights; {waits}: a faster network, an adapter (lora), or more games a step"
    even = abs(play - learn) <= EVEN * max(play, learn)
    longer = "play and learning take as long as each other" if even else "play" if play > learn else "learning"
    if timing.mode == "sync":
        other = f"cluster.mode=one_step_off would take {_s(timing.step_s('one_step_off'))} a step"
        remedy = "both have all of it in turn" if config.cluster.colocate else other
        more = "" if even else f", or {more_play}" if play > learn else f", or {more_learning}"
        return f"{longer}; {waits}: {remedy}{more}"
    return f"{longer}; {waits}" + ("" if even else f": {more_play}" if play > learn else f": {more_learning}")


def _engines(config: Config) -> str:
    return "cluster.engines" if config.cluster.engines else "cluster.workers"


def _processes(learner: str) -> str:
    return f"policies.{learner}.learner.processes"


def _playing(name: str, playing: Playing, found: OnCluster) -> str:
    decoding = playing.decoding
    told = (
        f"{name} in each of {found.engines} engines: {_s(playing.reading_s)} for prompts, {_s(playing.sampling_s)} of "
        f"sampling, {decoding.batch:.0f} sequences at a time, {decoding.batch / decoding.token_s:,.0f} tokens/s, bound "
        f"by {decoding.bound}"
    )
    if playing.limit:
        return f"{told}; {playing.limit} allows no more sequences"
    if decoding.bound == "reading weights":
        return f"{told}: more games at a time (matchmaking.groups) or fewer engines make tokens cheaper"
    return told


def _staleness(config: Config) -> str:
    cluster = config.cluster
    if cluster.mode == "sync":
        return "staleness: none; what is learned from was sampled by the newest weights"
    updates = f"up to {cluster.ahead} update{'s' * (cluster.ahead > 1)} old"
    loose = [n for n, policy in config.policies.items() if policy.learns and policy.objective.importance_cap is None]
    told = f"staleness: tokens are {updates} when they are learned from, each of as many optimizer steps as minibatches"
    if loose:
        return f"{told}; policies.{loose[0]}.objective.importance_cap is null: nothing corrects for it"
    return f"{told}; objective.importance_cap corrects for it"


def assumptions(config: Config, machines: MachinesConfig, *, described: bool) -> list[str]:
    """What the formulas take for granted."""
    assumed, cluster = machines.assumed, config.cluster
    sizes: dict[str, int] = {}
    for node in expanded(machines):
        text = f"{node.cores} cores, {node.memory_gb:g} GB" + (f", {node.gpus} {node.gpu}" if node.gpus else "")
        sizes[text] = sizes.get(text, 0) + 1
    nodes = "; ".join(f"{count} x ({text})" for text, count in sizes.items())
    return [
        f"machines: {nodes}; {machines.network_gb_s:g} GB/s from and to each"
        + ("" if described else " (this machine; --cluster FILE describes others)"),
        f"of what makers state: {assumed.mfu:.0%} of the operations in learning (assumed.mfu), {assumed.prefill:.0%} "
        f"in reading prompts, {assumed.decode:.0%} of the bandwidth in sampling, {assumed.network:.0%} of links; "
        "none of it measured"
        + ("" if any(node.gpus for node in machines.nodes) else f"; a core: {assumed.core_gflops:g} GFLOP/s"),
        f"games: alike and spread evenly over {cluster.workers} workers, {cluster.live} at a time in each at most; "
        "their own time, tools and judges are not counted",
        "engines: every one has all models, and reads a mixture's experts as if chosen by lot; learners: side by side",
        "new weights: through the hosts' memory, to one node after the other, then to all engines at once",
    ]


def _s(seconds: float) -> str:
    return f"{seconds:.3g} s"
