"""A run on a described cluster: its seconds a step, what waits for what, and the memory of every GPU and node."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from marl_llm.config import Config, MachinesConfig
from marl_llm.plan import times
from marl_llm.plan.memory import CUDA_CONTEXT, FLOAT, RESERVE, Part, Shape, gathered, parts, reading, resident, rounded
from marl_llm.plan.placement import Placed, Rates, expanded, memory_of, place, processes, split
from marl_llm.plan.times import Decoding
from marl_llm.plan.tokens import Load

SPLIT = ("weights", "gradients", "optimizer", "reference")
"""What the processes of a learner share out."""


@dataclass(frozen=True, kw_only=True)
class Playing:
    """A policy in one of the engines."""

    decoding: Decoding
    """How it samples."""
    sampling_s: float
    """Seconds a step."""
    reading_s: float
    """Seconds a step for prompts."""
    limit: str
    """The setting that keeps the batch this small; empty: there are no more games."""

    @property
    def seconds(self) -> float:
        """Both."""
        return self.sampling_s + self.reading_s


@dataclass(frozen=True, kw_only=True)
class OnCluster:
    """What a step is there."""

    engines: int
    """Processes with engines."""
    playing: Mapping[str, Playing]
    """By policy that has a model and plays."""
    learning: Mapping[str, float]
    """Seconds of each learner; they run side by side."""
    play_s: float
    """Seconds of play."""
    learn_s: float
    """Seconds of the slowest learner."""
    move_s: float
    """Seconds until all engines have the new weights."""
    memory: tuple[Part, ...]
    """Of every GPU and node, those with the same processes as one."""
    has: Mapping[str, int]
    """Bytes of each of these."""


def on_cluster(
    config: Config,
    shapes: Mapping[str, Shape],
    loads: Mapping[str, Load],
    machines: MachinesConfig,
    copies: Mapping[str, int],
) -> OnCluster:
    """The forecast by formulas. `copies`: policy to engines for its former selves.

    Raises:
        ConfigError: there is no room for a process.
    """
    placed = place(processes(config), machines)
    role = "engine" if config.cluster.engines else "worker"
    engines = [one for one in placed if one.process.role == role]
    models = {name: shape for name, shape in shapes.items() if config.policies[name].kind == "llm"}
    playing = _playing(config, models, loads, machines, engines)
    learning, move_s = {}, 0.0
    for name, shape in models.items():
        if config.policies[name].learns:
            mine = [one for one in placed if one.process.policy == name]
            learning[name] = _learning_s(config, name, shape, loads[name], machines, mine)
            move_s += _moving_s(config, name, shape, machines, mine, engines)
    memory, has = _memory(config, shapes, loads, machines, placed, engines, copies)
    return OnCluster(
        engines=len(engines),
        playing=playing,
        learning=learning,
        play_s=sum(one.seconds for one in playing.values()),
        learn_s=max(learning.values(), default=0.0),
        move_s=move_s,
        memory=memory,
        has=has,
    )


def games(config: Config) -> int:
    """Games that a step begins with."""
    return config.matchmaking.groups * config.matchmaking.group_size


def _playing(
    config: Config,
    models: Mapping[str, Shape],
    loads: Mapping[str, Load],
    machines: MachinesConfig,
    engines: Sequence[Placed],
) -> dict[str, Playing]:
    """Each policy in the slowest engine, of which every one has the same part of the games."""
    live = min(games(config), config.cluster.workers * config.cluster.live) / len(engines)
    sampled = sum(loads[name].sampled for name in models)
    found = {}
    for name, shape in models.items():
        policy, load = config.policies[name], loads[name]
        if not load.sampled:
            continue
        gpus, share = split(policy.engine), load.sampled / sampled
        rates = min((_rates(config, one, machines, gpus) for one in engines), key=lambda rates: rates.bandwidth)
        limits = {"": live * share, f"policies.{name}.engine.slots": float(policy.engine.slots)}
        if engines[0].cards and _paged(config, name):
            room = gpus * _room(config, models, memory_of(engines[0], machines)) * share
            limits["memory"] = room / (_token_bytes(config, name, shape) * times.context(load))
        limit = min(limits, key=lambda key: limits[key])
        decoding = times.decoding(policy, shape, load, max(1.0, limits[limit]), rates)
        found[name] = Playing(
            decoding=decoding,
            sampling_s=load.sampled / len(engines) / decoding.batch * decoding.token_s,
            reading_s=times.reading_s(shape, load, len(engines), rates),
            limit=limit,
        )
    return found


def _rates(config: Config, placed: Placed, machines: MachinesConfig, gpus: int = 1) -> Rates:
    return Rates.of(placed, machines, gpus=gpus, alone=config.cluster.colocate)


def _paged(config: Config, name: str) -> bool:
    """Whether the engine takes what memory there is for its cache, by the block."""
    return config.policies[name].engine.kind == "vllm"


def _token_bytes(config: Config, name: str, shape: Shape) -> int:
    return times.width(config.policies[name]) * shape.layers * shape.keys


def _room(config: Config, models: Mapping[str, Shape], memory: int) -> float:
    """Bytes for keys and values of all policies, on one GPU of an engine."""
    taken = 0.0
    for name, shape in models.items():
        policy = config.policies[name]
        taken += times.width(policy) * shape.parameters / split(policy.engine)
        taken += reading(policy, shape, times.width(policy))
    return max(0.0, memory / (1 + RESERVE) - CUDA_CONTEXT - taken)


def _learning_s(
    config: Config, name: str, shape: Shape, load: Load, machines: MachinesConfig, mine: Sequence[Placed]
) -> float:
    rates = [_rates(config, one, machines).train for one in mine]
    policy = config.policies[name]
    seconds = times.learning_s(policy, shape, load, len(rates) * min(rates))
    nodes = len({one.node for one in mine})
    return max(seconds, times.gathering_s(policy, shape, load, nodes, _network(machines)))


def _network(machines: MachinesConfig) -> float:
    return machines.network_gb_s * 1e9 * machines.assumed.network


def _moving_s(
    config: Config, name: str, shape: Shape, machines: MachinesConfig, mine: Sequence[Placed], engines: Sequence[Placed]
) -> float:
    further = {one.node for one in engines} - {mine[0].node}
    gpus = split(config.policies[name].engine)
    out = min(_rates(config, one, machines).link for one in mine)
    into = min(_rates(config, one, machines, gpus).link for one in engines)
    return times.moving_s(shape, out, into, len(further), _network(machines))


Holding = tuple[str, tuple[int, ...], list[Part]]
"""A process's name, the GPUs it uses, and what it holds on each of them (or on its node)."""


def _memory(
    config: Config,
    shapes: Mapping[str, Shape],
    loads: Mapping[str, Load],
    machines: MachinesConfig,
    placed: Sequence[Placed],
    engines: Sequence[Placed],
    copies: Mapping[str, int],
) -> tuple[tuple[Part, ...], dict[str, int]]:
    """What there is on every GPU and node; those that are alike are one line, for each of them."""
    every = {name: _parts(config, name, shapes, loads, copies) for name in shapes}
    cards: dict[tuple[int, int], list[tuple[str, list[Part]]]] = defaultdict(list)
    program = [Part(policy="", what="program", device="", bytes=resident()), *_team(config, shapes)]
    nodes: dict[int, list[tuple[str, list[Part]]]] = {0: [("driver", program)]}
    sizes = {one.node: memory_of(one, machines) for one in placed if one.cards}
    for one in placed:
        role = one.process.role
        held = [*_learner(config, one, every, shapes)] if role == "learner" else []
        if one in engines or role == "evaluator":
            held = [*_engine(config, one, every, shapes, loads, sizes.get(one.node, 0))]
        for card in one.cards:
            cards[one.node, card].append((one.process.label, held))
        here = program if one in engines or role == "evaluator" else program[:1]
        nodes.setdefault(one.node, []).append((one.process.label, here if one.cards else [*here, *held]))
    for node in {one.node for one in engines}:
        nodes[node].append(("", _arriving(config, shapes)))
    told = expanded(machines)
    memory, has = [], {}
    for (kind, names, size), (count, found) in _alike(
        ((told[node].gpu, sizes[node], _apart(config, held)) for (node, _), held in cards.items()),
    ).items():
        label = f"each of {count} {kind} ({names})" if count > 1 else f"{kind} ({names})"
        context = Part(policy="", what="CUDA itself", device="", bytes=CUDA_CONTEXT)
        memory += _labelled(label, [*found, context])
        has[label] = size
    for (_, names, size), (count, found) in _alike(
        (("", int(told[node].memory_gb * 1e9), held) for node, held in nodes.items()),
    ).items():
        label = f"each of {count} nodes ({names})" if count > 1 else f"node ({names})"
        memory += _labelled(label, found)
        has[label] = size
    return tuple(memory), has


def _alike(
    places: Iterable[tuple[str, int, list[tuple[str, list[Part]]]]],
) -> dict[tuple[str, str, int], tuple[int, list[Part]]]:
    """Places by kind, names of their processes and size: how many there are, and what one of them holds."""
    found: dict[tuple[str, str, int], tuple[int, list[Part]]] = {}
    for kind, size, held in places:
        names = Counter(name for name, _ in held if name)
        text = ", ".join(f"{count} x {name}" if count > 1 else name for name, count in sorted(names.items()))
        key = (kind, text, size)
        found[key] = (found.get(key, (0, []))[0] + 1, [part for _, inside in held for part in inside])
    return found


def _apart(config: Config, held: list[tuple[str, list[Part]]]) -> list[tuple[str, list[Part]]]:
    """Where an engine leaves a GPU's memory to the learner, only the one that needs more counts."""
    if not config.cluster.colocate:
        return held
    sizes = dict.fromkeys((True, False), 0)
    for name, inside in held:
        sizes[name.startswith("learner")] += sum(part.bytes for part in inside)
    larger = max(sizes, key=lambda learns: sizes[learns])
    return [(name, inside if name.startswith("learner") == larger else []) for name, inside in held]


def _labelled(label: str, found: Sequence[Part]) -> list[Part]:
    """The same purposes of a policy as one, on that place, and the reserve."""
    sums: dict[tuple[str, str, str], int] = defaultdict(int)
    for part in found:
        sums[part.policy, part.what, part.remedy] += part.bytes
    sums["", "games, allocator", ""] = int(RESERVE * sum(sums.values()))
    return [
        Part(policy=policy, what=what, device=label, bytes=size, remedy=remedy)
        for (policy, what, remedy), size in sums.items()
    ]


def _parts(
    config: Config, name: str, shapes: Mapping[str, Shape], loads: Mapping[str, Load], copies: Mapping[str, int]
) -> list[Part]:
    most = max((load.longest for load in loads.values()), default=0) or config.play.context_tokens
    load, policy = loads[name], config.policies[name]
    base, learner = policy.base, policy.learner
    return parts(
        name,
        replace(policy, learner=replace(learner, processes=1)),  # how it is split is seen to here
        shapes[name],
        longest=load.longest or most,
        context=config.play.context_tokens,
        packed=int(load.packed) // learner.processes,
        copies=copies[name],
        shared=None if base is None else config.policies[base],
    )


def _learner(
    config: Config, placed: Placed, every: Mapping[str, list[Part]], shapes: Mapping[str, Shape]
) -> Iterable[Part]:
    """What one process of a learner holds; with others it puts the weights of two layers together at a time."""
    name = placed.process.policy
    policy, shape = config.policies[name], shapes[name]
    count = policy.learner.processes
    more = f"policies.{name}.learner.processes"
    for part in every[name]:
        if part.what in SPLIT:
            yield Part(policy=name, what=part.what, device="", bytes=part.bytes // count, remedy=more)
        elif part.what == "activations":
            yield part
    if config.policies[name].base is not None:
        yield Part(policy=name, what="base's weights", device="", bytes=FLOAT * shape.parameters // count, remedy=more)
    if count > 1:
        size = gathered(policy, shape)
        yield Part(policy=name, what="gathered weights", device="", bytes=size, remedy="policies: a smaller model")


def _engine(
    config: Config,
    placed: Placed,
    every: Mapping[str, list[Part]],
    shapes: Mapping[str, Shape],
    loads: Mapping[str, Load],
    memory: int,
) -> Iterable[Part]:
    """What a process with engines holds on each of its GPUs."""
    models = {name: shape for name, shape in shapes.items() if config.policies[name].kind == "llm"}
    sampled = sum(loads[name].sampled for name in models) or 1.0
    for name, found in every.items():
        for part in found:
            if not part.what.startswith(("engine", "former")):
                continue
            gpus = split(config.policies[name].engine)
            size = part.bytes // (gpus if part.what.endswith(("weights", "cache")) else 1)
            more = f"policies.{name}.engine.vllm.tensor_parallel, a smaller model"
            remedy = more if part.what == "engine weights" and _paged(config, name) else part.remedy
            if part.what == "engine cache" and placed.cards and _paged(config, name):
                longest = _token_bytes(config, name, shapes[name]) * rounded(loads[name].longest) // gpus
                room = _room(config, models, memory) * loads[name].sampled / sampled
                size = max(longest, min(size, int(room)))
            yield Part(policy=name, what=part.what, device="", bytes=size, remedy=remedy)


def _team(config: Config, shapes: Mapping[str, Shape]) -> list[Part]:
    """Every model once more in the host's memory: the driver, and whoever has engines, loads them all."""
    return [
        Part(
            policy=name,
            what="models as loaded",
            device="",
            bytes=FLOAT * (shape.adapter + (shape.parameters if config.policies[name].base is None else 0)),
            remedy="cluster.engines (shared by workers), or a smaller model",
        )
        for name, shape in shapes.items()
        if config.policies[name].kind == "llm"
    ]


def _arriving(config: Config, shapes: Mapping[str, Shape]) -> list[Part]:
    """Weights on their way to the engines of a node, in Ray's object store."""
    return [
        Part(
            policy=name,
            what="weights on their way",
            device="",
            bytes=FLOAT * (shape.adapter or shape.parameters),
            remedy=f"policies.{name}.lora={{}} (an adapter), or a smaller model",
        )
        for name, shape in shapes.items()
        if config.policies[name].learns
    ]
