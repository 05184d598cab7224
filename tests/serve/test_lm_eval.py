"""The lm-evaluation-harness, unchanged, asks the server: texts and log-likelihoods are those of the engine."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marl_llm.policies.llm import LLMPolicy
from marl_llm.run import latest_checkpoint
from marl_llm.team import policies_of
from tests.serve.conftest import Server
from tests.serve.test_server import directly

QUESTIONS = ["What is 2 + 3?", "What is 4 + 4?", "What is 1 + 7?"]
CHOICES = ["5", "</answer>", "no"]
HARNESS = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
url, tokenizer, data = sys.argv[1:]
common = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": data}}, "test_split": "test"}
manager = TaskManager(include_defaults=False)
common |= {"doc_to_text": "{{question}}"}
talk = {**common, "task": "talk", "output_type": "generate_until", "doc_to_target": "5"}
talk |= {"generation_kwargs": {"until": ["zzz"], "max_gen_toks": 12}, "metric_list": [{"metric": "exact_match"}]}
pick = {**common, "task": "pick", "output_type": "multiple_choice", "doc_to_choice": ["5", "</answer>", "no"]}
pick |= {"doc_to_target": 0, "target_delimiter": ""}

def asked(kind, model, path, task, **more):
    arguments = {"model": model, "base_url": f"{url}/{path}", "num_concurrent": 4, "max_retries": 1, **more}
    told = lm_eval.simple_evaluate(
        model=kind, model_args=arguments, tasks=[task], log_samples=True, bootstrap_iters=0, task_manager=manager,
        apply_chat_template=path.startswith("chat"), batch_size=1 if path.startswith("chat") else 2)
    samples = sorted(told["samples"][task["task"]], key=lambda sample: sample["doc_id"])
    return [sample["resps"] for sample in samples]

chat = asked("local-chat-completions", "debater", "chat/completions", talk)
team = asked("local-chat-completions", "team:sums", "chat/completions", talk)
choices = asked("local-completions", "debater", "completions", pick, tokenizer=tokenizer, max_length=400)
texts = asked("local-completions", "debater", "completions", talk, tokenizer=tokenizer, max_length=400)
print("told:" + json.dumps([chat, team, choices, texts]))
"""


@pytest.fixture(scope="module")
def told(server: Server, run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What the harness was told, by kind of task."""
    data = tmp_path_factory.mktemp("harness") / "test.jsonl"
    data.write_text("".join(json.dumps({"question": question}) + "\n" for question in QUESTIONS))
    latest = latest_checkpoint(run)
    assert latest is not None
    own = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OPENAI_API_KEY": "none", "HF_HOME": str(data.parent)}
    command = [sys.executable, "-c", HARNESS, server.url, str(latest[1] / "debater"), str(data)]
    said = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own})
    assert said.returncode == 0, said.stderr[-3000:]
    found: list[Any] = json.loads(said.stdout.rpartition("told:")[2])
    return found


def test_the_harness_is_told_what_the_engine_says(told: list[Any], run: Path) -> None:
    policy = policies_of(run)[1]["debater"]
    assert isinstance(policy, LLMPolicy)
    chat, team, choices, texts = told
    prompts = [policy.chat.prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    expected = [policy.chat.decode(directly(policy, prompt, tokens=12).tokens) for prompt in prompts]
    assert [responses[0][0] for responses in chat] == expected
    assert all(isinstance(responses[0][0], str) and responses[0][0] for responses in team)
    prompts = [policy.chat.encode(question) for question in QUESTIONS]
    expected = [policy.chat.decode(directly(policy, prompt, tokens=12).tokens) for prompt in prompts]
    assert [responses[0][0] for responses in texts] == expected
    assert {str(greedy) for responses in choices for ((_, greedy),) in responses} == {"True", "False"}
    for question, responses in zip(QUESTIONS, choices, strict=True):
        read = policy.chat.encode(question)
        for choice, ((loglikelihood, greedy),) in zip(CHOICES, responses, strict=True):
            said = policy.chat.encode(question + choice)[len(read) :]
            (scored,), (best,) = (ask("debater", [(read, said)]) for ask in (policy.engine.score, policy.engine.best))
            assert float(loglikelihood) == pytest.approx(sum(scored), abs=1e-3)
            assert str(greedy) == str(all(token == top for token, (top, _) in zip(said, best, strict=True)))
