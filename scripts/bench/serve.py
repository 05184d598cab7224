"""The server under load: many clients at once, each with questions of its own, whose answers are checked to be its own.

A model of hidden 256 and 6 layers, untrained, is served by `marl-llm serve`. Every request has a seed of its own at
temperature 1, so that nobody else's answer is right. Afterwards the same requests are one offline batch of the engine:
that gives the answers that were due, and the tokens per second that the server is compared with; on a busy machine
`ratio_in_cpu_time` with `--threads 1` is what says something. With `--vllm` vLLM's
own server gets the same load, without seeds. Clients share the machine's cores with the server.

    python scripts/bench/serve.py [--clients 200] [--seconds 60] [--stream] [--vllm .venv-vllm/bin/python] [--json]
"""

import argparse
import asyncio
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from marl_llm.config import load_config
from marl_llm.engines.base import Request
from marl_llm.live import LiveView
from marl_llm.policies.llm import LLMPolicy
from marl_llm.run import latest_checkpoint
from marl_llm.seeds import derive
from marl_llm.team import policies_of
from marl_llm.train import train

NEW_TOKENS = 128
CONFIG = """
run: {{name: bench, steps: 1, checkpoint_every: 1, threads: {threads}, dir: {folder}}}
games: {{sums: {{name: workflow, settings: {{tasks: {{source: arithmetic, level: 1}}}}}}}}
play: {{context: turn, max_reply_tokens: 4, context_tokens: 512}}
policies:
  agent:
    tiny: {{hidden: 256, layers: 6, heads: 8, mlp: 768, vocabulary: 512}}
    engine: {{slots: {clients}, cache_slots: 32}}
matchmaking: {{groups: 1, group_size: 2}}
credit: rae
evaluation: {{every: 0, exploitability: false, games: 2}}
"""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One request and what came of it."""

    number: int
    """Of the question, and its seed."""
    text: str
    """The answer; what went wrong, if `tokens` is 0."""
    tokens: int
    """That were sampled."""
    seconds: float
    """Until it was whole."""


def question(number: int) -> str:
    return f"Question {number}: what is {number * 7919 % 1000} + {number * 104729 % 1000}, and why is it so? " * 2


def body_of(number: int, *, model: str, seeded: bool, stream: bool) -> bytes:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": question(number)}]}
    body |= {"max_tokens": NEW_TOKENS, "temperature": 1.0}
    if seeded:
        body["seed"] = number
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body).encode()


class Client:
    """A keep-alive connection, as bare as can be: what it costs is taken from the server's cores."""

    def __init__(self, port: int, *, model: str, seeded: bool, stream: bool) -> None:
        self._port, self._stream = port, stream
        self._settings: dict[str, Any] = {"model": model, "seeded": seeded, "stream": stream}

    async def run(self, numbers: Iterator[int], ends: float) -> list[Answered]:
        """Ask one question after the other until time is up; the last one is waited for."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        answers = []
        while time.monotonic() < ends:
            number, began = next(numbers), time.monotonic()
            body = body_of(number, **self._settings)
            head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            text, tokens = await (self._streamed(reader) if "chunked" in head else self._whole(reader, head))
            answers.append(Answered(number=number, text=text, tokens=tokens, seconds=time.monotonic() - began))
        writer.close()
        return answers

    async def _whole(self, reader: asyncio.StreamReader, head: str) -> tuple[str, int]:
        length = re.search(r"content-length: (\d+)", head)
        assert length, head
        answer = json.loads(await reader.readexactly(int(length[1])))
        if "choices" not in answer:
            return json.dumps(answer), 0
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    async def _streamed(self, reader: asyncio.StreamReader) -> tuple[str, int]:
        pieces = []
        while size := int(await reader.readuntil(b"\r\n"), 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        text, tokens = "", 0
        for event in b"".join(pieces).decode().split("\n\n")[:-2]:
            chunk = json.loads(event.removeprefix("data: "))
            text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
            tokens = (chunk.get("usage") or {}).get("completion_tokens", tokens)
        return text, tokens


async def load(port: int, *, clients: int, seconds: float, **settings: Any) -> tuple[list[Answered], float]:
    """All answers, and the seconds until the last one was there."""
    numbers = iter(range(10**9))
    began = time.monotonic()
    work = (Client(port, **settings).run(numbers, began + seconds) for _ in range(clients))
    answers = [one for each in await asyncio.gather(*work) for one in each]
    return answers, time.monotonic() - began


@contextmanager
def ours(run: Path, clients: int) -> Iterator[tuple[int, int]]:
    """Our server: its port and process."""
    command = [sys.executable, "-m", "marl_llm.cli", "serve", str(run), "--port", "0", "--max-requests", str(clients)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r":(\d+)/v1", process.stdout.readline())
        assert found
        yield int(found[1]), process.pid
    finally:
        process.terminate()
        process.communicate(timeout=60)
        assert process.returncode == 0


@contextmanager
def vllm(python: str, model: Path, clients: int, threads: int) -> Iterator[tuple[int, int]]:
    """vLLM's server: its port and process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"model": model, "served-model-name": "agent", "port": port, "max-model-len": 512, "dtype": "float32"}
    options |= {"max-num-seqs": clients, "host": "127.0.0.1"}
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    own = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    own |= {"VLLM_CPU_OMP_THREADS_BIND": f"0-{threads - 1}", "VLLM_LOGGING_LEVEL": "ERROR"}
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *words]
    environment = {**os.environ, **own}
    environment.pop("OMP_NUM_THREADS", None)
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            time.sleep(1)
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(60)


def offline(run: Path, answers: list[Answered]) -> tuple[dict[int, str], float, float]:
    """What the engine says to the same requests as one batch, its tokens per second, and the CPU seconds it took."""
    policy = policies_of(run)[1]["agent"]
    assert isinstance(policy, LLMPolicy)
    prompts = {one.number: policy.chat.prompt([{"role": "user", "content": question(one.number)}]) for one in answers}
    done: dict[Any, str] = {}
    began, used, tokens = time.monotonic(), time.process_time(), 0
    for number, prompt in prompts.items():
        seed = derive(number, 0)
        policy.engine.submit(Request(ticket=number, policy="agent", prompt=prompt, max_tokens=NEW_TOKENS, seed=seed))
    while len(done) < len(prompts):
        for ticket, completion in policy.engine.poll():
            done[ticket] = policy.chat.decode(completion.tokens)
            tokens += len(completion.tokens)
    return done, tokens / (time.monotonic() - began), time.process_time() - used


def cpu_of(pid: int) -> float:
    """CPU seconds of a process and of all that it has started and that still run."""
    seconds, children = {}, defaultdict(list)
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it has ended meanwhile
            continue
        seconds[int(file.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        children[int(fields[1])].append(int(file.parent.name))
    total, waiting = 0.0, [pid]
    while waiting:
        one = waiting.pop()
        total += seconds.get(one, 0.0)
        waiting += children[one]
    return total


def rate(answers: list[Answered], seconds: float) -> float:
    return sum(one.tokens for one in answers) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--stream", action="store_true")
    parser.add_argument("--vllm", help="Python of an environment with vLLM")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found: dict[str, Any] = {"clients": args.clients, "threads": args.threads, "stream": args.stream}
    sizes = {"clients": args.clients, "seconds": args.seconds, "stream": args.stream, "model": "agent"}
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "bench.yaml"
        config.write_text(CONFIG.format(folder=folder, clients=args.clients, threads=args.threads))
        run = train(load_config(config, []), LiveView(Console(file=io.StringIO())))
        with ours(run, args.clients) as (port, pid):
            before, mine = cpu_of(pid), time.process_time()
            answers, seconds = asyncio.run(load(port, seeded=True, **sizes))
            found |= {"server_cpu_s": cpu_of(pid) - before, "client_cpu_s": time.process_time() - mine}
        due, alone, cpu_s = offline(run, answers)
        latest = latest_checkpoint(run)
        assert latest is not None
        times = sorted(one.seconds for one in answers)
        found |= {
            "answers": len(answers),
            "errors": sum(not one.tokens for one in answers),
            "lost": max(one.number for one in answers) + 1 - len(answers),
            "not_its_own": sum(one.text != due[one.number] for one in answers if one.tokens),
            "tokens_per_s": rate(answers, seconds),
            "offline_tokens_per_s": alone,
            "ratio_to_offline": rate(answers, seconds) / alone,
            "offline_cpu_s": cpu_s,
            "ratio_in_cpu_time": cpu_s / found["server_cpu_s"],
            "median_s": times[len(times) // 2],
            "slowest_s": times[-1],
        }
        if args.vllm:
            with vllm(args.vllm, latest[1] / "agent", args.clients, args.threads) as (port, pid):
                asyncio.run(load(port, seeded=False, **{**sizes, "seconds": 5.0}))  # warm-up
                before = cpu_of(pid)
                theirs, seconds = asyncio.run(load(port, seeded=False, **sizes))
                used = cpu_of(pid) - before
            found["vllm_errors"] = sum(not one.tokens for one in theirs)
            found["vllm_tokens_per_s"] = rate(theirs, seconds)
            found["vllm_tokens_per_cpu_s"] = rate(theirs, used)
            found["tokens_per_cpu_s"] = rate(answers, found["server_cpu_s"])
            found["ratio_to_vllm"] = found["tokens_per_s"] / found["vllm_tokens_per_s"]
    if args.json:
        print(json.dumps(found))
    else:
        for name, value in found.items():
            print(f"{name:24}{value if isinstance(value, int) else format(value, '.4g')}")


if __name__ == "__main__":
    main()
