"""Programs as answers: what is run, when it is right, and what happens where nothing can be run."""

import time
from typing import Any

import pytest

from games.tasks import Task, check
from games.tasks import code_answers as code
from games.tasks.answers import alike, validate
from games.tools.base import ToolFault
from games.tools.sandbox import NoIsolation, Sandbox

DOUBLE = "def double(x):\n    return 2 * x"


def doubling(**metadata: Any) -> Task:
    tests = "assert double(3) == 6\nassert double(0) == 0"
    return Task(id="t", prompt="Double.", answer=DOUBLE, check="code", metadata={"tests": tests, **metadata})


@pytest.mark.parametrize(
    "reply",
    [
        DOUBLE,
        f"```python\n{DOUBLE}\n```",
        f"First try:\n```python\ndef double(x): return x\n```\nBetter:\n```py\n{DOUBLE}\n```\nDone.",
        f"<answer>\n```\n{DOUBLE}\n```\n</answer>",
        f"```python\n{DOUBLE}",
        f"Run it:\n```bash\npython double.py\n```\nThen:\n```Python\n{DOUBLE}\n```\nIt prints:\n```text\n6\n```\n",
        f"```python\r\n{DOUBLE}\r\n```".replace("\n    ", "\r\n    "),
        f"  ```python\n{DOUBLE}\n  ```",
        "def double(x):\n    '''As \\boxed{2x}, or <b>.'''\n    return x + x",
    ],
)
def test_the_last_fence_or_the_whole_reply_is_run_with_the_tests(reply: str) -> None:
    assert check(doubling(), reply) == 1.0


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "I cannot do that.",
        "def double(x):\n    return x",
        f"{DOUBLE}\nimport sys\nsys.exit(0)",
        f"{DOUBLE}\nimport os\nos._exit(0)",
        f'{DOUBLE}\n"""',
        f"{DOUBLE}\nif False:",
        "def double(x):\n    raise SystemExit",
        f"{DOUBLE}\nopen('/etc/passwd')",
    ],
)
def test_a_program_that_does_not_get_past_its_tests_is_wrong(reply: str) -> None:
    assert check(doubling(), reply) == 0.0


def test_limits_are_settings_and_what_goes_beyond_them_is_wrong() -> None:
    endless = "def double(x):\n    while True:\n        pass"
    assert check(doubling(sandbox={"cpu_seconds": 1, "wall_seconds": 2.0}), endless) == 0.0
    large = f"x = bytearray(200 << 20)\n{DOUBLE}"
    assert check(doubling(), large) == 1.0
    assert check(doubling(sandbox={"memory_mb": 100}), large) == 0.0


def test_what_stands_before_is_run_first() -> None:
    reply = "def double(x):\n    return twice * x"
    assert check(doubling(), reply) == 0.0
    assert check(doubling(before="twice = 2"), reply) == 1.0


def test_a_program_is_run_once_however_often_it_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    run = Sandbox.run
    monkeypatch.setattr(Sandbox, "run", lambda self, text: (ran.append(text), run(self, text))[1])
    reply = f"{DOUBLE}\n# once"
    assert [check(doubling(), reply) for _ in range(3)] == [1.0] * 3
    assert len(ran) == 1
    check(doubling(tests="assert double(1) == 2"), reply)
    assert len(ran) == 2


def test_where_nothing_isolates_programs_the_task_is_refused_and_nothing_counts_as_wrong() -> None:
    task = doubling(sandbox={"isolation": "bubblewrap", "cpu_seconds": 3})
    if not _works("bubblewrap"):
        with pytest.raises(NoIsolation, match="isolation='bubblewrap' is not possible here"):
            validate(task)
        with pytest.raises(NoIsolation):
            check(task, DOUBLE)
    else:
        assert check(task, DOUBLE) == 1.0


def test_a_sandbox_that_fails_to_start_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Sandbox, text: str) -> None:
        raise ToolFault("out of processes")

    monkeypatch.setattr(Sandbox, "run", fail)
    with pytest.raises(ToolFault, match="out of processes"):
        check(doubling(), f"{DOUBLE}\n# never run before")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"tests": " "}, "metadata.tests=' ' is not allowed; it must be a text: the program that tests the code"),
        ({"before": 3}, "metadata.before=3 is not allowed"),
        ({"sandbox": 3}, "metadata.sandbox=3 is not allowed; it must be a mapping"),
        ({"sandbox": {"cpu_seconds": 0}}, "sandbox: cpu_seconds=0 is not allowed"),
        ({"sandbox": {"speed": 1}}, "sandbox: .*unexpected keyword argument 'speed'"),
    ],
)
def test_a_task_that_cannot_be_run_is_refused(metadata: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        validate(doubling(**metadata))


@pytest.mark.parametrize("part", ["a", "`", " ", "\t", "```", "```a", "```\n", " ```a\n", "+-", "a ", "\n"])
def test_a_long_reply_that_repeats_itself_is_read_in_no_time(part: str) -> None:
    begin = time.process_time()
    code.read_code("```" + part * (100_000 // len(part)))
    assert time.process_time() - begin < 1


def test_votes_are_counted_by_the_code() -> None:
    assert alike(doubling(), f"Here:\n```python\n{DOUBLE}\n```") == alike(doubling(), DOUBLE) == code.read_code(DOUBLE)


def _works(isolation: Any) -> bool:
    try:
        Sandbox(isolation=isolation)
    except NoIsolation:
        return False
    return True
