"""How many workers the coordinator keeps busy: real coordinator, real transport, real episodes, and engines that sleep.

Simulated workers are tasks in a few processes (Ray actors, as the real ones). Each plays one match at a time, which
takes as long as a draw from a lognormal distribution says, has the next one in hand as real workers have, and returns
an episode of 500 sampled tokens for it. Efficiency is the seconds of play that came out, over all that the workers had:
1 means that nobody ever waited. `--transport here` leaves Ray out: the workers are then in a thread of this process.

    python scripts/bench/scale.py [--workers 1,16,256,1024] [--seconds 25] [--plot docs/scale.png] [--json]
"""

import argparse
import json
import random
import sys
import time
from asyncio import (
    AbstractEventLoop,
    Event,
    all_tasks,
    current_task,
    gather,
    get_running_loop,
    new_event_loop,
    run_coroutine_threadsafe,
    timeout_at,
)
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from math import exp, log
from os import sysconf
from pathlib import Path
from threading import Thread
from typing import Any

from marl_llm.config import ClusterConfig, Config, PlacementConfig
from marl_llm.runtime.coordinator import SLICE_S, Coordinator, Order, Report
from marl_llm.runtime.watchdog import Signs
from marl_llm.runtime.worker import Effort, Played
from marl_llm.types import Completion, Episode, Match, Turn

TURNS, TOKENS = 5, 100
"""Of each episode: 500 sampled tokens, beside prompts of the same length."""
SIGMA = 0.5
"""Of the logarithm of a match's seconds."""


@dataclass(frozen=True, kw_only=True)
class Played1:
    """A match that a simulated worker has played."""

    began: float
    ended: float
    """By the machine's clock."""
    seconds: float
    """That it was to take."""
    waited: float
    """Seconds from the worker's last match to this one."""


class SimulatedWorker:
    """Plays one match at a time, by a clock."""

    def __init__(self, crew: "Crew") -> None:
        self._crew = crew
        self._waiting: deque[Match] = deque()
        self._over: list[Played] = []
        self._free = time.monotonic()
        self._running: tuple[Match, float, float, float] | None = None
        """Match, its beginning, its seconds, and those before it."""
        self._news = Event()

    async def play(self, order: Order) -> Report:
        """As a real one's: until its slice is over, or nothing is left to do."""
        loop, began = get_running_loop(), time.monotonic()
        self._waiting.extend(order.matches)
        if self._running is None and self._waiting:
            self._begin(loop)
        while self._running is not None:
            short = bool(self._over) and not self._waiting
            if order.due(time.monotonic() - began, short=short):
                break
            self._news.clear()
            with suppress(TimeoutError):
                async with timeout_at(loop.time() + began - time.monotonic() + (SLICE_S if short else order.slice_s)):
                    await self._news.wait()
        played, self._over = self._over, []
        return Report(played=tuple(played), effort=Effort(busy_s=time.monotonic() - began))

    @property
    def going(self) -> Played1 | None:
        """What is being played, as if it ended now."""
        if self._running is None:
            return None
        (_, began, seconds, waited), now = self._running, time.monotonic()
        return Played1(began=began, ended=now, seconds=min(seconds, now - began), waited=waited)

    def _begin(self, loop: AbstractEventLoop) -> None:
        now = time.monotonic()
        match = self._waiting.popleft()
        seconds = self._crew.draw(match)
        self._running = (match, now, seconds, now - self._free)
        loop.call_later(seconds, self._end, loop)

    def _end(self, loop: AbstractEventLoop) -> None:
        assert self._running is not None
        (match, began, seconds, waited), self._running, self._free = self._running, None, time.monotonic()
        self._crew.played.append(Played1(began=began, ended=self._free, seconds=seconds, waited=waited))
        turns = self._crew.turns[match.seed % len(self._crew.turns)]
        hidden = {"ended": self._free}
        over = Episode(match=match, turns=turns, returns={"player_0": 1.0, "player_1": -1.0}, hidden=hidden)
        self._over.append(Played(group=match.group, episodes=(over,)))
        if self._waiting:
            self._begin(loop)
        self._news.set()


class Crew:
    """Simulated workers in one process."""

    def __init__(self, median: float) -> None:
        """`median`: seconds of a match."""
        self.played: list[Played1] = []
        self.turns = [replies(number) for number in range(64)]
        self._median = median
        self._workers: dict[int, SimulatedWorker] = {}

    def draw(self, match: Match) -> float:
        """Seconds that the match takes."""
        return random.Random(match.seed).lognormvariate(log(self._median), SIGMA)

    async def play(self, number: int, order: Order) -> Report:
        """Of one worker; see `Handle.play`."""
        if number not in self._workers:
            self._workers[number] = SimulatedWorker(self)
        return await self._workers[number].play(order)

    async def told(self) -> tuple[list[Played1], float]:
        """What was played, as far as it came in what is in play, and the processor seconds of this process."""
        going = [worker.going for worker in self._workers.values() if worker.going is not None]
        return self.played + going, time.process_time()


def replies(seed: int) -> tuple[Turn, ...]:
    """An episode's turns: 500 sampled tokens."""
    rng = random.Random(seed)
    turns = []
    for number in range(TURNS):
        tokens = tuple(rng.choices(range(150_000), k=TOKENS))
        logprobs = tuple(-rng.random() for _ in range(TOKENS))
        turns.append(
            Turn(
                agent=f"player_{number % 2}",
                role="player",
                policy="agent",
                observation="You hold a king. It is your turn.",
                legal_actions=("bet", "pass"),
                prompt=tokens,
                completion=Completion(tokens=tokens, logprobs=logprobs, stop="eos", versions=(1,) * TOKENS),
                reply="<answer>bet</answer>",
                action="bet",
                legal=True,
                rewards={"outcome": 1.0},
            )
        )
    return tuple(turns)


@dataclass(frozen=True)
class Handle:
    """A simulated worker, as the coordinator knows it."""

    call: Callable[[Order], "Future[Report]"]

    def play(self, order: Order) -> "Future[Report]":
        """See `Handle` of the coordinator, as the rest."""
        return self.call(order)

    def signs(self) -> "Future[Signs]":
        """Nothing to be seen."""
        told: Future[Signs] = Future()
        told.set_result(Signs())
        return told

    def end(self) -> None:
        """It ends with its process."""


Play = Callable[[int, Order], "Future[Report]"]
Told = Callable[[], list[tuple[list[Played1], float]]]
Called = tuple[Play, Told]
"""How a worker is called by its number, and how all crews are asked what they did."""
Crews = Callable[[float, int], AbstractContextManager[Called]]
"""Makes crews, from the median of a match's seconds and the number of processes."""


@contextmanager
def here(median: float, processes: int) -> Iterator[Called]:
    """All workers in one thread of this process."""
    loop, crew = new_event_loop(), Crew(median)
    thread = Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield (
            lambda number, order: run_coroutine_threadsafe(crew.play(number, order), loop),
            lambda: [run_coroutine_threadsafe(crew.told(), loop).result()],
        )
    finally:
        run_coroutine_threadsafe(_cancel(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _cancel() -> None:
    """Whatever goes on in this loop."""
    others = all_tasks() - {current_task()}
    for task in others:
        task.cancel()
    await gather(*others, return_exceptions=True)


@contextmanager
def in_ray() -> Iterator[Crews]:
    """Workers in actors, many in each."""
    import ray

    from marl_llm.runtime.processes import future
    from marl_llm.runtime.ray import cluster

    @contextmanager
    def crews(median: float, processes: int) -> Iterator[Called]:
        actor: Any = ray.remote(Crew)
        found = [actor.options(max_concurrency=100_000, num_cpus=0).remote(median) for _ in range(processes)]
        ray.get([crew.told.remote() for crew in found])
        yield (
            lambda number, order: future(found[number % processes].play.remote(number, order)),
            lambda: ray.get([crew.told.remote() for crew in found]),
        )
        for crew in found:
            ray.kill(crew)

    with cluster(Config(runtime="ray", cluster=ClusterConfig(worker=PlacementConfig(cpus=0)))):
        yield crews


class Watched(Coordinator):
    """Counts how long what is over takes to be heard of."""

    def __init__(self, *arguments: Any) -> None:
        self.heard: list[tuple[float, float]] = []
        self.calls = 0
        super().__init__(*arguments)

    def _over(self, slot: Any, played: Played) -> None:
        now = time.monotonic()
        self.heard.append((now, now - played.episodes[0].hidden["ended"]))
        super()._over(slot, replace(played, episodes=()))

    @property
    def cpu_s(self) -> float:
        """Processor seconds of its thread."""
        assert self._thread.ident is not None
        return time.clock_gettime(time.pthread_getcpuclockid(self._thread.ident))


@dataclass(frozen=True, kw_only=True)
class Point:
    """What came out for a number of workers."""

    workers: int
    efficiency: float
    """Seconds of play, over seconds that the workers had."""
    matches_per_s: float
    of_most: float
    """Of `workers / mean seconds of a match`."""
    messages_per_s: float
    """Calls, each with an answer."""
    coordinator_cpu: float
    """Share of a core that the coordinator's thread had."""
    driver_cpu: float
    """The same of the whole process: with the transport's threads, and with `here` the workers'."""
    crews_cpu: float
    """The same of all processes with workers together."""
    others_cpu: float
    """Cores that everything else on this machine took, Ray's own processes included."""
    heard_p50_s: float
    heard_p99_s: float
    """From a match's end to when the coordinator has heard of it."""
    waited_mean_s: float
    waited_p99_s: float
    """From a match's end to the worker's next one."""


def measure(workers: int, crews: Crews, *, seconds: float, warm: float, median: float, processes: int) -> Point:
    """Keep so many workers busy, and look on for a while."""
    mean = median * exp(SIGMA**2 / 2)
    count = int(workers * (warm + seconds) / mean * 1.5) + 4 * workers
    config = Config(runtime="ray", cluster=ClusterConfig(workers=workers, live=1))
    with crews(median, processes) as (play, told):
        calls: dict[int, int] = defaultdict(int)

        def spawn(number: int) -> Handle:
            def call(order: Order) -> "Future[Report]":
                calls[number] += 1
                answer: Future[Report] = play(number, order)
                return answer

            return Handle(call)

        coordinator = Watched(config, spawn, partial(print, file=sys.stderr))
        coordinator.begin(1, [Match(id=f"g{n}/m0", game="none", seed=n, group=f"g{n}", seats={}) for n in range(count)])
        try:
            time.sleep(warm)
            crew_s = sum(cpu for _, cpu in told())
            marks = [(time.monotonic(), coordinator.cpu_s, time.process_time(), machine_s(), sum(calls.values()))]
            time.sleep(seconds)
            marks.append((time.monotonic(), coordinator.cpu_s, time.process_time(), machine_s(), sum(calls.values())))
            found = told()
            crew_s = sum(cpu for _, cpu in found) - crew_s
        finally:
            coordinator.close()  # before Ray, which a later call would start anew
    (start, *before), (end, *after) = marks
    thread, process, machine, messages = ((b - a) / (end - start) for a, b in zip(before, after))
    played = [one for crew, _ in found for one in crew]
    inside = [one for crew, _ in found for one in crew if start <= one.ended < end]
    spent = sum(
        one.seconds * max(0.0, min(one.ended, end) - max(one.began, start)) / (one.ended - one.began) for one in played
    )
    heard = sorted(late for when, late in coordinator.heard if start <= when < end)
    waited = sorted(one.waited for one in inside)
    rate = len(inside) / (end - start)
    return Point(
        workers=workers,
        efficiency=spent / (workers * (end - start)),
        matches_per_s=rate,
        of_most=rate * mean / workers,
        messages_per_s=messages,
        coordinator_cpu=thread,
        driver_cpu=process,
        crews_cpu=crew_s / seconds,
        others_cpu=machine - process - (0.0 if crews is here else crew_s / seconds),
        heard_p50_s=_part(heard, 0.5),
        heard_p99_s=_part(heard, 0.99),
        waited_mean_s=sum(waited) / max(1, len(waited)),
        waited_p99_s=_part(waited, 0.99),
    )


def machine_s() -> float:
    """Processor seconds of this machine since it was started, without those of waiting."""
    user, nice, system, _, _, irq, softirq, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + irq + softirq) / sysconf("SC_CLK_TCK")


def _part(ordered: Sequence[float], part: float) -> float:
    return ordered[int(part * (len(ordered) - 1))] if ordered else 0.0


def plot(points: Sequence[Point], path: Path) -> None:
    """Efficiency, and what the coordinator takes of a core, by number of workers."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.5), layout="constrained")
    workers = [point.workers for point in points]
    axes.plot(workers, [point.efficiency for point in points], "o-", label="efficiency")
    axes.plot(workers, [point.coordinator_cpu for point in points], "s--", label="coordinator's thread, cores")
    axes.plot(workers, [point.driver_cpu for point in points], "^:", label="its whole process, cores")
    axes.set(xscale="log", xlabel="simulated workers", ylim=(0, None))
    axes.set_xticks(workers, [str(number) for number in workers])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", default="1,4,16,64,256,512,1024,2048,4096")
    parser.add_argument("--seconds", type=float, default=25.0, help="that are counted for each number of workers")
    parser.add_argument("--warm", type=float, default=5.0, help="seconds before the count begins")
    parser.add_argument("--median", type=float, default=2.0, help="seconds of a match")
    parser.add_argument("--processes", type=int, default=2, help="that the workers are in")
    parser.add_argument("--transport", choices=("ray", "here"), default="ray")
    parser.add_argument("--threads", type=int, default=1, help="no meaning here")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    points = []
    with in_ray() if args.transport == "ray" else nullcontext(here) as crews:
        for number in map(int, args.workers.split(",")):
            processes = min(args.processes, number)
            point = measure(
                number, crews, seconds=args.seconds, warm=args.warm, median=args.median, processes=processes
            )
            points.append(point)
            if not args.json:
                print(" ".join(f"{name}={value:.4g}" for name, value in asdict(point).items()), flush=True)
    if args.plot is not None:
        plot(points, args.plot)
    if args.json:
        print(json.dumps({"transport": args.transport, "points": [asdict(point) for point in points]}))


if __name__ == "__main__":
    main()
