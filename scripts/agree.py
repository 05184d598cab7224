"""The same team answers the same questions through four doors, and at temperature 0 it must say the same, item by item.

The doors are our benchmark, lm-eval over HTTP, lm-eval with the team as a model class, and the official openai client.

    python scripts/agree.py runs/crew-seed0-1 --protocol debate --count 40 [--json]

Where two differ, the smallest gap between the two most probable tokens in that item's turns is told: below 1e-4 either
of the two is what the model says, and sums in floating point depend on what else is in a batch. Exit code 1: some
differ for no such reason.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from openai import OpenAI

from games.tasks import task_set
from marl_llm.config import BenchmarkConfig, EntrantConfig, ProtocolConfig
from marl_llm.evaluation.benchmark import answer_all
from marl_llm.evaluation.protocols import asking, protocol, seats_for
from marl_llm.play import play
from marl_llm.policies.llm import LLMPolicy
from marl_llm.run import checkpoint_of
from marl_llm.team import language_model, policies_of
from marl_llm.types import Match

ROOT = Path(__file__).parents[1]
GAP = 1e-4
"""Nats between the two most probable tokens, below which either may come first."""

Answers = Mapping[int, str]
"""By the number of the item."""


def by_benchmark(run: Path, way: str, questions: Path, folder: Path) -> Answers:
    """Through `marl-llm benchmark`."""
    config = BenchmarkConfig(
        matched=False,
        threads=1,
        teams={"team": EntrantConfig(runs=[str(run)], temperature=0.0)},
        benchmarks={"questions": {"source": str(questions)}},
        protocols={way: ProtocolConfig()},
    )
    answers = answer_all(config, folder / "benchmark")
    return {answer.key.item: answer.answer or "" for answer in answers if answer.key.protocol == way}


def by_harness(folder: Path, name: str, *arguments: str) -> Answers:
    """Through lm-eval's own command line."""
    out = folder / name
    command = [sys.executable, "-m", "marl_llm.cli", "lm-eval", "--tasks", "questions", "--log_samples"]
    command += ["--include_path", str(ROOT / "configs" / "lm_eval"), "--output_path", str(out), *arguments]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    subprocess.run(command, cwd=folder, env=os.environ | offline, check=True, stdout=sys.stderr)
    (samples,) = out.rglob("samples_questions*.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    return {row["doc_id"]: row["resps"][0][0] for row in rows}


def by_client(address: str, model: str, prompts: list[str]) -> Answers:
    """Through the openai client, one question after the other."""
    client = OpenAI(base_url=f"{address}/v1", api_key="none")
    return {
        number: client.chat.completions.create(
            model=model, temperature=0, messages=[{"role": "user", "content": prompt}]
        )
        .choices[0]
        .message.content
        or ""
        for number, prompt in enumerate(prompts)
    }


@contextmanager
def served(run: Path) -> Iterator[str]:
    """The address of a server of the run, while it is needed."""
    command = [sys.executable, "-m", "marl_llm.cli", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = next(found for line in server.stdout if (found := re.search(r"http://[\d.]+:\d+", line)))
            yield found[0]
        finally:
            server.terminate()


def gap(run: Path, way: str, prompt: str) -> float:
    """The least difference (nats) between the two most probable tokens, over all places of the turns of an item."""
    config, policies = policies_of(run, temperature=0.0)
    game = asking(protocol(way), prompt)
    seats = seats_for(config, game)
    (episode,) = play([Match(id="q", game=game.name, settings=game.settings, seed=0, group="q", seats=seats)], policies)
    least = float("inf")
    for turn in episode.turns:
        policy, completion = policies[turn.policy], turn.completion
        if turn.prompt is None or completion is None or not isinstance(policy, LLMPolicy):
            continue
        vocabulary = len(language_model(config, turn.policy, checkpoint_of(run, None)[1]).tokenizer)
        for place, token in enumerate(completion.tokens):
            read = turn.prompt + completion.tokens[:place]
            others = [(read, (other,)) for other in range(vocabulary) if other != token]
            second = max(score for (score,) in policy.engine.score(turn.policy, others))
            least = min(least, completion.logprobs[place] - second)
    return least


def main() -> None:
    """Ask through all four, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--protocol", default="debate")
    parser.add_argument("--source", default="multihop")
    parser.add_argument("--settings", type=json.loads, default={"documents": 20, "hops": 1, "split": "test"})
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    run, way = arguments.run.resolve(), arguments.protocol
    tasks = task_set(arguments.source, **arguments.settings)[: arguments.count]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [
            json.dumps({"id": task.id, "prompt": task.prompt, "answer": task.answer, "check": task.check})
            for task in tasks
        ]
        (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
        found = {"marl-llm benchmark": by_benchmark(run, way, folder / "questions.jsonl", folder)}
        team = ["--model", "marl_llm", "--model_args", f"run={run},protocol={way}"]
        found["lm-eval, model class"] = by_harness(folder, "class", *team)
        with served(run) as address:
            model = f"team:{way}"
            chat = f"model={model},base_url={address}/v1/chat/completions,num_concurrent=8,tokenizer_backend=None"
            http = ["--model", "local-chat-completions", "--model_args", chat, "--apply_chat_template"]
            found["lm-eval, HTTP"] = by_harness(folder, "http", *http)
            found["openai client"] = by_client(address, model, [task.prompt for task in tasks])
    differing = [item for item in range(len(tasks)) if len({answers[item] for answers in found.values()}) > 1]
    gaps = {item: gap(run, way, tasks[item].prompt) for item in differing}
    report = {
        "items": len(tasks),
        "protocol": way,
        "agree": len(tasks) - len(differing),
        "differ": [
            {"item": item, "gap": gaps[item], **{door: answers[item] for door, answers in found.items()}}
            for item in differing
        ],
    }
    print(json.dumps(report, indent=1) if arguments.json else _told(report))
    sys.exit(any(value >= GAP for value in gaps.values()))


def _told(report: Mapping[str, object]) -> str:
    lines = [
        f"{report['protocol']}: {report['agree']} of {report['items']} items have the same answer through all four"
    ]
    lines += [json.dumps(row) for row in report["differ"]]  # type: ignore[attr-defined]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
