"""Where the seconds of a training step go, and how many are spent outside the models: play, credit, learn, log.

    python scripts/bench/step.py [--load kuhn tic_tac_toe] [--groups 32] [--steps 5] [--threads 1] [--json]

Self-play of one model of about a million parameters, in groups of 8 on the same deal, through the real `advance`, and
its episodes and metrics are written to a run directory as in training. Two loads:

kuhn         configs/kuhn.yaml with four layers: one-turn prompts, which the whole batch shares, and replies of four
             tokens. Nearly everything repeats, so the model has little to do: the hardest load for the rest. A short
             warm-up comes first, so that games last several turns.
tic_tac_toe  growing dialogues and replies of up to 32 tokens, of which no two are alike, as with models that think.
             The model is untrained and its replies mean nothing; the game plays its default move for them, and
             lasts 7 turns.

In the model: its forward pass in the engine; in the learner forward, backward and optimizer step, and the reference's
forward pass. Everything else is outside, sampling from the logits and packing included. The first step is not counted.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from common import parse_step_arguments

from marl_llm import train
from marl_llm.config import (
    Config,
    EvaluationConfig,
    MatchmakingConfig,
    PlayConfig,
    PlayedGame,
    PolicyConfig,
    RunConfig,
    load_config,
)
from marl_llm.engines import hf
from marl_llm.engines.hf import HFEngine
from marl_llm.learning import learner
from marl_llm.run import Run
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.team import Team, found
from marl_llm.train import Clock, Progress, advance, prepare, rare_collections
from marl_llm.warmup import warm_up

KUHN = Path(__file__).parents[2] / "configs" / "kuhn.yaml"
LOADS = ("kuhn", "tic_tac_toe")


def make_config(load: str, *, groups: int, steps: int, threads: int, folder: str) -> Config:
    """The experiment of a load; nothing is evaluated."""
    if load == "kuhn":
        agent = "policies.agent"
        changes = (
            f"{agent}.tiny.layers=4",
            f"{agent}.warmup.games={groups * 4}",
            f"{agent}.warmup.steps=60",
            f"{agent}.warmup.batch={groups * 2}",
            f"matchmaking.groups={groups}",
            "evaluation.every=0",
            f"run.steps={steps}",
            f"run.threads={threads}",
            f"run.dir={folder}",
        )
        return load_config(KUHN, changes)
    return Config(
        run=RunConfig(name=load, dir=folder, steps=steps, threads=threads),
        games={"game": PlayedGame(name="tic_tac_toe", settings={"on_illegal": "default_action"})},
        play=PlayConfig(context="dialogue", thinking=True, max_reply_tokens=32, context_tokens=640),
        policies={"agent": PolicyConfig()},
        matchmaking=MatchmakingConfig(groups=groups, group_size=8),
        evaluation=EvaluationConfig(every=0, exploitability=False),
    )


def count_cpu_seconds() -> None:
    """Let every clock that is read here count this process's CPU seconds."""
    for module in (train, hf, learner):
        setattr(module, "perf_counter", time.process_time)  # noqa: B010  # they import it by name


def engine_seconds(team: Team) -> tuple[float, float]:
    """So far: in the model's forward pass, and in the engine as a whole."""
    engines = [member.policy.engine for member in team.members.values()]
    stats = [engine.stats() for engine in engines if isinstance(engine, HFEngine)]
    return sum(s["forward_s"] for s in stats), sum(s["total_s"] for s in stats)


def measure(config: Config) -> dict[str, float]:
    """Seconds per part of a step (medians over the steps after the first), and what the step did."""
    recipe, rewards = prepare(config)
    team = found(config)
    warm_up(config, team, lambda *_: None)
    progress = Progress(step=0, credit={})
    rows: list[dict[str, float]] = []
    with Run.create(config) as run, rare_collections():
        rollouts = LocalRollouts(config, team, run.path, rewards)
        for _ in range(config.run.steps):
            forward_before, total_before = engine_seconds(team)
            metrics, episodes = advance(config, team, recipe, rollouts, progress)
            forward_after, total_after = engine_seconds(team)
            clock = Clock()
            with clock("log"):
                run.episodes(progress.step, episodes, tokens=config.run.tokens)
                run.step(progress.step, metrics)
            forward, engine = forward_after - forward_before, total_after - total_before
            log = clock.metrics()["time/log_s"]
            rows.append(step_parts(metrics, forward=forward, engine=engine, log=log))
    return {name: statistics.median(row[name] for row in rows[1:]) for name in rows[0]}


def step_parts(metrics: dict[str, float], *, forward: float, engine: float, log: float) -> dict[str, float]:
    """The parts of one step, from its metrics, the engine's seconds in it and those of its log."""
    model = metrics["learn/agent/model_s"]
    step = metrics["time/step_s"] + log
    return {
        "step_s": step,
        "play_forward_s": forward,
        "play_engine_s": engine - forward,
        "play_games_s": metrics["time/play_s"] - engine,
        "credit_s": metrics["time/credit_s"],
        "learn_model_s": model,
        "learn_other_s": metrics["time/learn_s"] - model,
        "metrics_s": step - log - sum(metrics[f"time/{part}_s"] for part in ("play", "credit", "learn")),
        "log_s": log,
        "outside": 1 - (forward + model) / step,
        "turns": metrics["play/turns"],
        "sampled_tokens": metrics["play/sampled_tokens"],
        "tokens": metrics["learn/agent/tokens"],
        "packed_tokens": metrics["learn/agent/packed_tokens"],
    }


def show(load: str, row: dict[str, float]) -> None:
    print(
        f"{load}: {row['step_s']:.3f} s a step; {row['turns']:.0f} turns, {row['sampled_tokens']:.0f} sampled tokens, "
        f"{row['tokens']:.0f} to learn from, packed into {row['packed_tokens']:.0f}"
    )
    for label, names in (
        ("play:  model forward", ["play_forward_s"]),
        ("       engine, rest", ["play_engine_s"]),
        ("       games and play loop", ["play_games_s"]),
        ("credit", ["credit_s"]),
        ("learn: model and optimizer", ["learn_model_s"]),
        ("       rest", ["learn_other_s"]),
        ("metrics", ["metrics_s"]),
        ("log", ["log_s"]),
    ):
        seconds = sum(row[name] for name in names)
        print(f"  {label:28s} {seconds * 1000:9.1f} ms {seconds / row['step_s']:6.1%}")
    print(f"  {'outside the model':28s} {'':12s} {row['outside']:6.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--load", nargs="+", choices=LOADS, default=LOADS)
    args = parse_step_arguments(parser, steps=5)
    if args.cpu_time:
        count_cpu_seconds()
    results = {}
    for load in args.load:
        with tempfile.TemporaryDirectory() as folder:
            config = make_config(load, groups=args.groups, steps=args.steps, threads=args.threads, folder=folder)
            results[load] = measure(config)
        if not args.json:
            show(load, results[load])
    if args.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
