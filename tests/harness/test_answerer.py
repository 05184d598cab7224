"""A team as one model, alone and in the lm-evaluation-harness."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from games.tasks import task_set
from marl_llm.config import load_config
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.answers import read_answers
from marl_llm.evaluation.benchmark import ANSWERS
from marl_llm.harness.answerer import Answerer
from marl_llm.train import train
from tests.test_cli import marl
from tests.test_train import SMALL, Silent

ROOT = Path(__file__).parents[2]
SUMS = {"source": "arithmetic", "level": 1, "size": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was taught for a moment to answer sums, alone and in a debate of two that the run calls `pair`."""
    pair = "pair: {name: debate, settings: {debaters: 2, rounds: 1, tasks: {source: arithmetic, level: 1}}}"
    config = load_config(
        SMALL,
        [
            f"games={{alone: {{name: workflow, settings: {{tasks: {{source: arithmetic, level: 1}}}}}}, {pair}}}",
            "play={max_reply_tokens: 12, context_tokens: 320}",
            "policies.agent.warmup={teacher: informed, games: 64, steps: 120, batch: 64, lr: 0.01}",
            "policies.informed={kind: informed}",
            "evaluation={every: 0, games: 0, exploitability: false}",
            "run.steps=1",
        ],
    )
    return train(config, Silent(), path=tmp_path_factory.mktemp("runs") / "run")


def test_a_team_answers_each_question_whatever_else_is_asked(run: Path) -> None:
    questions = [task.prompt for task in task_set(**SUMS)]
    answerer = Answerer(run, way="debate", temperature=0.0)
    answers = answerer.answers(questions)
    assert len(set(answers)) > 1
    assert answerer.answers(questions[::-1]) == answers[::-1]
    assert Answerer(run, way="debate", temperature=0.0, seed=9).answers(questions[2:3]) == answers[2:3]


def test_a_pipeline_of_the_run_goes_by_its_name_there(run: Path) -> None:
    (answer,) = Answerer(run, way="pair", temperature=0.0).answers(["1 + 1"])
    assert answer


def test_a_question_without_words_and_an_unknown_protocol_or_run_are_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="question 1: ' ' is not allowed"):
        Answerer(run).answers(["1 + 1", " "])
    with pytest.raises(ConfigError, match="protocol 'debat' is unknown; nearest valid name: debate"):
        Answerer(run, way="debat")
    with pytest.raises(RunError, match="none"):
        Answerer(tmp_path / "none")


def test_the_harness_and_our_benchmark_agree_item_by_item(run: Path, tmp_path: Path) -> None:
    questions = "\n".join(
        json.dumps({"id": task.id, "prompt": task.prompt, "answer": task.answer, "check": task.check})
        for task in task_set(**SUMS)
    )
    (tmp_path / "questions.jsonl").write_text(questions)
    (tmp_path / "sums.yaml").write_text(
        f"{{name: sums, dir: {tmp_path}, matched: false, benchmarks: {{sums: {{source: {tmp_path}/questions.jsonl}}}}, "
        f"teams: {{ours: {{runs: [{run}], temperature: 0}}}}, protocols: {{debate: {{}}}}}}"
    )
    code, _, err = marl("benchmark", str(tmp_path / "sums.yaml"))
    assert code == 0, err
    ours = {
        answer.key.item: answer
        for answer in read_answers(tmp_path / "sums" / ANSWERS)
        if answer.key.protocol == "debate"
    }
    command = [sys.executable, "-m", "marl_llm.cli", "lm-eval", "--model", "marl_llm", "--tasks", "questions"]
    command += ["--model_args", f"run={run},protocol=debate", "--include_path", str(ROOT / "configs" / "lm_eval")]
    command += ["--log_samples", "--output_path", str(tmp_path / "out")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    ran = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **offline, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    (samples,) = (tmp_path / "out").rglob("samples_questions*.jsonl")
    theirs = {row["doc_id"]: row for row in map(json.loads, samples.read_text().splitlines())}
    assert {item: answer.answer for item, answer in ours.items()} == {
        item: row["resps"][0][0] for item, row in theirs.items()
    }
    assert {item: answer.correct for item, answer in ours.items()} == {
        item: row["right"] for item, row in theirs.items()
    }


INSPECT = """
import asyncio, json, sys
from inspect_ai.model import get_model

async def main(run, questions):
    model = get_model(f"marl_llm/{run}", protocol="debate")
    outputs = await asyncio.gather(*[model.generate(question) for question in questions])
    print(json.dumps([output.completion for output in outputs]))
    try:
        get_model(f"marl_llm/{run}", protocl="debate")
    except ValueError as error:
        print(error)

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


def test_inspect_hears_the_same_answers(run: Path) -> None:
    questions = [task.prompt for task in task_set(**SUMS)]
    command = [sys.executable, "-c", INSPECT, str(run), json.dumps(questions)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    said, refusal = ran.stdout.splitlines()
    assert json.loads(said) == Answerer(run, way="debate", temperature=0.0).answers(questions)
    assert refusal == "-M protocl: not allowed; it must be one of protocol, step, temperature, seed"


LEAVING = """
import asyncio, sys, threading, time
from marl_llm.harness.inspect import TeamAPI
from inspect_ai.model import ChatMessageUser, GenerateConfig

class Slow:
    def __init__(self):
        self.inside, self.begun, self.batches = threading.Lock(), threading.Event(), []

    def answers(self, questions):
        assert self.inside.acquire(blocking=False), "two batches at a time"
        self.batches.append(questions)
        self.begun.set()
        time.sleep(0.3)
        self.inside.release()
        return [question.upper() for question in questions]

async def main(run):
    api = TeamAPI(run)
    api._answerer = slow = Slow()

    def ask(text):
        return asyncio.create_task(api.generate([ChatMessageUser(content=text)], [], "none", GenerateConfig()))

    first = ask("first")
    await asyncio.to_thread(slow.begun.wait)
    slow.begun.clear()
    leaving, staying = ask("leaves"), ask("stays")
    await asyncio.to_thread(slow.begun.wait)
    leaving.cancel()
    outputs = await asyncio.wait_for(asyncio.gather(first, staying, ask("late")), 20)
    print(*[output.completion for output in outputs])
    print(slow.batches)

asyncio.run(main(sys.argv[1]))
"""


def test_a_sample_of_inspect_that_leaves_takes_no_other_with_it(run: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", LEAVING, str(run)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["FIRST STAYS LATE", "[['first'], ['leaves', 'stays'], ['late']]"]


def test_what_a_team_cannot_do_in_the_harness_is_one_line(run: Path) -> None:
    command = [sys.executable, "-m", "marl_llm.cli", "lm-eval", "--model", "marl_llm", "--tasks", "questions"]
    command += ["--model_args", f"run={run},protocol=debat", "--include_path", str(ROOT / "configs" / "lm_eval")]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1].startswith("error: protocol 'debat' is unknown")
