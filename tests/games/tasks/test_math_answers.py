"""Mathematical answers: what is equal, and what takes too long."""

import sys
import threading

import pytest

from games.tasks import Task, check, task_set
from games.tasks.math_answers import Worker


def score(gold, reply):
    return check(Task(id="t", prompt="?", answer=gold, check="math"), reply)


@pytest.mark.parametrize(
    ("gold", "reply", "right"),
    [
        ("\\frac{1}{2}", "So it is $\\boxed{0.5}$.", True),
        ("\\frac12", "<answer>1/2</answer>", True),
        ("x+1", "\\boxed{1+x}", True),
        ("\\sqrt{8}", "\\boxed{2\\sqrt{2}}", True),
        ("\\{1, 2\\}", "\\boxed{\\{2, 1\\}}", True),
        ("[0, 1)", "\\boxed{[0,1)}", True),
        ("[0, 1)", "\\boxed{[0,1]}", False),
        ("12", "The answer is $12$.", True),
        ("1000", "1,000", True),
        ("3", "1, 2, 3", False),
        ("3", "$3$ or $4$", False),
        ("3", "", False),
        ("3", "((((((", False),
        ("3", "three\n4", False),
    ],
)
def test_answers_are_compared_as_mathematics(gold, reply, right):
    assert score(gold, reply) == float(right)


def test_any_thread_may_check():
    scores = []
    threads = [threading.Thread(target=lambda n=n: scores.append(score(str(n), f"{n}.0"))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores == [1.0] * 4


def test_an_answer_that_takes_too_long_is_wrong_and_the_next_one_is_checked_again():
    worker = Worker()
    assert worker.compare("5", "5")
    assert not worker.compare("5", "9^{9^{9^9}}", timeout_s=0.5)
    assert worker.compare("5", "5")
    worker.close()


def test_without_math_verify_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    first, second = tmp_path / "m.jsonl", tmp_path / "n.jsonl"
    for path in (first, second):
        path.write_text('{"prompt": "?", "answer": "1", "check": "math"}\n')
    assert task_set(str(first))[0].check == "math"
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    monkeypatch.delitem(sys.modules, "math_verify", raising=False)
    with pytest.raises(ValueError, match=r"line 1: .* needs the package math-verify: pip install 'marl-llm\[tasks\]'"):
        task_set(str(second))
