"""A model behind an OpenAI-compatible chat endpoint, asked over the network."""

import json
from collections import deque
from collections.abc import Hashable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from random import Random
from time import sleep
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from marl_llm.config import Answers
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.text import answer_instruction, is_plain, read_action

POLL_S = 0.02
"""How long a poll waits for an answer, so that waiting for the network does not keep a core busy."""
LONGEST = 4 * 2**20
"""Bytes of an answer that are read."""
PASSING = (408, 409, 429)
"""Client errors that may pass, as those of the server may; the others stay as they are."""


class RemotePolicy:
    """Asks `POST url/chat/completions` with the rules and what the seat sees now; it may think before it answers.

    Sampling is the endpoint's own, seeded by `View.seed` where it supports that. What fails is tried again after
    `backoff_s` seconds, doubled every time and spread by a jitter drawn from `View.seed`; after `retries` of these, or
    when the endpoint refuses the request itself, the match ends at fault.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key: str | None = None,
        retries: int = 5,
        backoff_s: float = 0.5,
        timeout_s: float = 120.0,
        workers: int = 16,
        answers: Answers = "tagged",
        temperature: float | None = None,
    ) -> None:
        """`key`: sent as bearer token. `workers`: requests at a time. `answers`: as `play.answers`. `temperature`: None
        is the endpoint's own."""
        self._temperature = temperature
        self._url, self._model, self._key = f"{url.rstrip('/')}/chat/completions", model, key
        self._retries, self._backoff_s, self._timeout_s = retries, backoff_s, timeout_s
        self._workers, self._answers = workers, answers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="remote")
        # The pool gets no more than it works on at once: what is queued there would be asked even after Ctrl-C.
        self._waiting: deque[tuple[Hashable, View]] = deque()
        self._asked: dict[Future[Reply], Hashable] = {}

    def submit(self, ticket: Hashable, view: View) -> None:
        """Ask as soon as a worker is free."""
        self._waiting.append((ticket, view))
        self._ask()

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """The decisions that have arrived; waits for one for a short while."""
        if not self._asked:
            return []
        done, _ = wait(self._asked, timeout=POLL_S, return_when=FIRST_COMPLETED)
        ready = [(self._asked.pop(future), future.result()) for future in done]
        self._ask()
        return ready

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """A remote model's probabilities are not told.

        Raises:
            ValueError: always.
        """
        raise ValueError("a remote model's probabilities cannot be computed")

    def _ask(self) -> None:
        while self._waiting and len(self._asked) < self._workers:
            ticket, view = self._waiting.popleft()
            self._asked[self._pool.submit(self._decide, view)] = ticket

    def _decide(self, view: View) -> Reply:
        jitter = Random(view.seed)
        for attempt in range(self._retries + 1):
            if attempt:
                sleep(self._backoff_s * 2 ** (attempt - 1) * jitter.uniform(0.5, 1.5))
            try:
                text = _content(self._post(view))
            except HTTPError as error:
                error.close()
                problem = f"{self._url} answered {error.code} {error.reason}"
                if error.code < 500 and error.code not in PASSING:
                    break
            except (OSError, HTTPException, ValueError) as error:  # no connection, cut off, or no JSON of this form
                problem = f"{self._url}: {type(error).__name__}: {error}"
            else:
                plain = is_plain(self._answers, view.legal_actions)
                return Reply(text=text, action=read_action(text, view.legal_actions, thinking=True, plain=plain))
        return Reply(text="", action=None, fault=problem)

    def _post(self, view: View) -> bytes:
        told = answer_instruction(True, plain=is_plain(self._answers, view.legal_actions))
        system = f"{view.rules}\n{told}".strip()
        body = {
            "model": self._model,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": view.observation}],
            "seed": view.seed % 2**31,
            **({} if self._temperature is None else {"temperature": self._temperature}),
        }
        request = Request(self._url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        if self._key:
            request.add_unredirected_header("Authorization", f"Bearer {self._key}")  # not told to whom it redirects
        with urlopen(request, timeout=self._timeout_s) as response:
            content: bytes = response.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise ValueError(f"the answer has more than {LONGEST} bytes")
        return content


def _content(answer: bytes) -> str:
    """The reply in an answer of the endpoint; empty where the model said nothing.

    Raises:
        ValueError: the answer has another form.
    """
    try:
        content: Any = json.loads(answer)["choices"][0]["message"]["content"]
    except (KeyError, IndexError, TypeError, RecursionError) as error:  # the last: nested too deeply
        raise ValueError(f"not a chat completion: {answer[:80]!r}") from error
    if not isinstance(content, str | None):
        raise ValueError(f"not a text: {content!r:.80}")
    return content or ""
