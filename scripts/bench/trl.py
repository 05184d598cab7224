"""A whole training step of ours against one of TRL's GRPOTrainer: generation, reward, update.

    python scripts/bench/trl.py [--install] [--steps 4] [--threads 1] [--json]

The same model folder, the same prompts (32 of about 100 tokens, none alike), 8 replies each of up to 32 tokens at
temperature 1, the same trivial reward, one optimizer step on all of them, float32. Ours goes through the game, the play
loop and the credit recipe `grpo`; the learner's update has no KL term, as TRL's default. TRL runs without gradient
checkpointing, logging and saving, in several settings, of which the best counts: transformers' `generate` or its
continuous batching, and micro-batches of all replies or fewer. The first step of each is not counted.

TRL has an environment of its own, .venv-trl, which `--install` makes and the first run too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import parse_step_arguments
from step import count_cpu_seconds

from marl_llm.config import (
    Config,
    EngineConfig,
    EvaluationConfig,
    LearnerConfig,
    MatchmakingConfig,
    PlayConfig,
    PlayedGame,
    PolicyConfig,
    RunConfig,
)
from marl_llm.runtime.rollouts import LocalRollouts
from marl_llm.team import found
from marl_llm.train import Progress, advance, prepare
from marl_llm.types import Episode

ROOT = Path(__file__).parents[2]
VENV = ROOT / ".venv-trl"
PYTHON = VENV / "bin" / "python"
PACKAGES = ("torch", "transformers", "trl==1.16.*")
GROUP = 8
MAX_TOKENS = 32
LR = 1e-4


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How TRL is run."""

    continuous: bool
    """Whether transformers' continuous batching generates; otherwise `generate` does, on all prompts at once."""
    micro_batch: int
    """Replies per forward and backward pass."""

    @property
    def name(self) -> str:
        return f"TRL, {'continuous batching' if self.continuous else 'generate'}, micro-batch {self.micro_batch}"


def settings(replies: int) -> list[Setting]:
    """The settings that are tried."""
    small = min(32, replies)
    return [
        Setting(continuous=False, micro_batch=replies),
        *([Setting(continuous=False, micro_batch=small)] if small < replies else []),
        Setting(continuous=True, micro_batch=small),
    ]


def install() -> None:
    """Make TRL's environment, with the versions of torch and transformers that we use."""
    subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(ROOT / "constraints.txt"), *PACKAGES], check=True)


def make_config(*, groups: int, steps: int, threads: int) -> Config:
    """Our side."""
    return Config(
        run=RunConfig(steps=steps, threads=threads),
        games={"game": PlayedGame(name="one_turn:env")},
        play=PlayConfig(max_reply_tokens=MAX_TOKENS, context_tokens=256, rewards="one_turn:rewards"),
        policies={
            "agent": PolicyConfig(
                engine=EngineConfig(slots=groups * GROUP), learner=LearnerConfig(lr=LR, schedule="constant")
            )
        },
        matchmaking=MatchmakingConfig(groups=groups, group_size=GROUP),
        credit="grpo",
        evaluation=EvaluationConfig(every=0, exploitability=False),
    )


def run_ours(config: Config, folder: Path) -> tuple[dict[str, float], list[str]]:
    """Save the untrained model, train it, and return what was measured and the prompts in the order of groups."""
    recipe, rewards = prepare(config)
    team = found(config)
    member = team.members["agent"]
    member.language_model.save(folder / "model")
    progress = Progress(step=0, credit={})
    rollouts = LocalRollouts(config, team, folder, rewards)
    prompts: list[str] = []
    rows: list[dict[str, float]] = []
    for _ in range(config.run.steps):
        metrics, episodes = advance(config, team, recipe, rollouts, progress)
        by_group = {episode.match.group: episode for episode in episodes}
        prompts += [member.policy.chat.decode(prompt_of(episode)) for episode in by_group.values()]
        sampled = metrics["play/sampled_tokens"]
        rows.append(
            {
                "step_s": metrics["time/step_s"],
                "learn_s": metrics["time/learn_s"],
                "sampled_tokens": sampled,
                "prompt_tokens": sum(len(prompt_of(episode)) for episode in episodes),
            }
        )
    return summary(rows[1:]), prompts


def prompt_of(episode: Episode) -> tuple[int, ...]:
    prompt = episode.turns[0].prompt
    assert prompt is not None
    return prompt


def run_theirs(task: dict[str, Any], setting: Setting, folder: Path) -> dict[str, float]:
    """Train the same model with TRL, in a process of its environment."""
    result = folder / "result.json"
    task |= {"continuous": setting.continuous, "micro_batch": setting.micro_batch}
    task |= {"folder": str(folder), "result": str(result)}
    # -P: a script's folder comes first on the path, and there `trl` is this file.
    command = [str(PYTHON), "-P", "-W", "ignore", str(Path(__file__).with_name("trl_side.py"))]
    subprocess.run(command, input=json.dumps(task), text=True, check=True, stdout=subprocess.DEVNULL)
    columns = json.loads(result.read_text())
    rows = [dict(zip(columns, values)) for values in zip(*columns.values())]
    return summary([{**row, "learn_s": row["step_s"] - row["generate_s"]} for row in rows])


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the counted steps, and rates; `learn_s` is all but generation with TRL, the update with us."""
    row = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
    tokens = row["prompt_tokens"] + row["sampled_tokens"]
    return row | {
        "sampled_tokens_per_s": row["sampled_tokens"] / row["step_s"],
        "learned_tokens_per_s": tokens / row["learn_s"],
    }


def ratios(ours: dict[str, float], theirs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Sampled tokens per second of the whole step against TRL's best setting, and tokens of the update alone."""
    best = max(theirs, key=lambda name: theirs[name]["sampled_tokens_per_s"])
    learn = max(row["learned_tokens_per_s"] for row in theirs.values())
    return {
        "best": best,
        "step": ours["sampled_tokens_per_s"] / theirs[best]["sampled_tokens_per_s"],
        "learn": ours["learned_tokens_per_s"] / learn,
    }


def show(name: str, row: dict[str, float]) -> None:
    print(
        f"{name:44s} {row['step_s']:7.2f} s a step, {row['sampled_tokens_per_s']:6.0f} sampled tokens/s; "
        f"update alone {row['learned_tokens_per_s']:7.0f} tokens/s",
        flush=True,
    )


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Run ours, then every setting of TRL's."""
    report = (lambda *_: None) if args.json else show
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = make_config(groups=args.groups, steps=args.steps, threads=args.threads)
        ours, prompts = run_ours(config, folder)
        report("marl-llm", ours)
        task = {
            "prompts": prompts,
            "groups": args.groups,
            "group_size": GROUP,
            "max_tokens": MAX_TOKENS,
            "lr": LR,
            "steps": args.steps,
            "threads": args.threads,
            "cpu_time": args.cpu_time,
        }
        theirs = {}
        for setting in settings(args.groups * GROUP):
            theirs[setting.name] = run_theirs(task, setting, folder)
            report(setting.name, theirs[setting.name])
            assert theirs[setting.name]["prompt_tokens"] == ours["prompt_tokens"], "TRL read other prompts"
    return {"ours": ours, "theirs": theirs, "ratios": ratios(ours, theirs)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="make .venv-trl and stop")
    args = parse_step_arguments(parser, steps=4)
    try:
        if args.install or not PYTHON.exists():
            install()
        if args.install:
            return
        if args.cpu_time:
            count_cpu_seconds()
        result = compare(args)
    except subprocess.CalledProcessError as error:
        sys.exit(f"error: this failed: {' '.join(map(str, error.cmd))}")
    if args.json:
        print(json.dumps(result))
        return
    ratio = result["ratios"]
    print(f"ratio to {ratio['best']}: {ratio['step']:.2f} for a step; {ratio['learn']:.2f} for the update alone")


if __name__ == "__main__":
    main()
