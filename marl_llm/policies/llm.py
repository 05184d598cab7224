"""A language model in a seat: observations become prompts, completions become actions."""

from bisect import bisect_right
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from math import exp

from marl_llm.config import PlayConfig
from marl_llm.engines.base import Engine, Request
from marl_llm.errors import ConfigError
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.seeds import derive
from marl_llm.text import (
    END_OF_THOUGHT,
    Chat,
    answer_begins,
    answer_instruction,
    canonical_reply,
    in_thought,
    is_plain,
    read_action,
)
from marl_llm.types import Completion, Tokens, Turn


class Reader:
    """What a model reads in a view; needs its tokenizer alone."""

    def __init__(self, chat: Chat, play: PlayConfig) -> None:
        self.chat = chat
        self._play = play
        # Of a function that knows no reader: a cycle would keep all of it until the garbage collector comes by.
        self._start = lru_cache(maxsize=65536)(partial(_rendered, chat))

    def prompt(self, view: View) -> Tokens:
        """The exact tokens that the model reads in this view."""
        told = answer_instruction(self._play.thinking, plain=self.plain(view))
        if self._play.context == "turn":
            return self._start(view.rules, view.observation, told)
        observations = [observation for observation, _ in view.history] + [view.observation]
        if view.conversation is not None:
            return self.chat.extend(view.conversation, self._untold(view, told) + view.observation)
        tokens = self._start(view.rules, observations[0], told)
        for (_, reply), observation in zip(view.history, observations[1:], strict=True):
            tokens = self.chat.extend(tokens + self.chat.encode_reply(reply), observation)
        return tokens

    def plain(self, view: View) -> bool:
        """Whether a whole reply is the action in this view."""
        return is_plain(self._play.answers, view.legal_actions)

    def written(self, view: View, action: str) -> str:
        """The reply that says the action in this view and nothing else."""
        return canonical_reply(action, plain=self.plain(view))

    def _untold(self, view: View, told: str) -> str:
        """The form of an answer, for whoever was free in its own until now and so has not been told it."""
        if self._play.answers == "tagged" or not told or not view.history or view.conversation is None:
            return ""
        begun = self._start(view.rules, view.history[0][0], told)
        return "" if view.conversation[: len(begun)] == begun else f"{told}\n"


class LLMPolicy:
    """Plays with the weights called `name` of an engine. Keeps nothing about a match but its requests in flight."""

    def __init__(
        self,
        *,
        name: str,
        engine: Engine,
        chat: Chat,
        play: PlayConfig,
        temperature: float = 1.0,
        samples: int = 64,
    ) -> None:
        """`samples`: sampled replies per view in `strategies`, where the policy thinks first."""
        self.name = name
        self.engine = engine
        self.chat = chat
        self.reader = Reader(chat, play)
        self._play = play
        self.temperature = temperature
        self._samples = samples
        self._asked: dict[Hashable, tuple[View, Tokens, Completion | None]] = {}
        self._overflowed: list[tuple[Hashable, Reply]] = []
        self._understood = lru_cache(maxsize=4096)(partial(_understood, chat, play))  # as in `Reader`

    def beside(self, engine: Engine, *, temperature: float, max_reply_tokens: int) -> "LLMPolicy":
        """The same policy on another engine that has it, or on another view of its own, with settings of its own."""
        return LLMPolicy(
            name=self.name,
            engine=engine,
            chat=self.chat,
            play=replace(self._play, max_reply_tokens=max_reply_tokens),
            temperature=temperature,
            samples=self._samples,
        )

    @property
    def max_reply_tokens(self) -> int:
        """Most tokens of a reply."""
        return self._play.max_reply_tokens

    @property
    def forgetful(self) -> bool:
        """Whether every decision starts from rules and observation alone."""
        return self._play.context == "turn"

    def submit(self, ticket: Hashable, view: View) -> None:
        """Ask the engine for a reply; a prompt that leaves no room for one overflows."""
        prompt = self.prompt(view)
        begun = self._concluded(view) if view.concluding else view.begun
        read = prompt if begun is None else prompt + begun.tokens
        if len(read) >= self.engine.context_tokens:
            self._overflowed.append((ticket, Reply(text="", action=None, prompt=prompt, overflow=True)))
            return
        self._asked[ticket] = (view, prompt, begun)
        self.engine.submit(self._request(ticket, read, view.seed, begun=len(read) - len(prompt)))

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """Advance the engine by one step; return the replies that are complete."""
        ready, self._overflowed = self._overflowed, []
        if self._asked:
            for ticket, completion in self.engine.poll():
                view, prompt, begun = self._asked.pop(ticket)
                whole = completion if begun is None else _joined(begun, completion)
                ready.append((ticket, self._reply(view, prompt, whole)))
        return ready

    def prompt(self, view: View) -> Tokens:
        """The exact tokens that the model reads in this view."""
        return self.reader.prompt(view)

    def cancel(self) -> None:
        """Drop all that it was asked."""
        for ticket in self._asked:
            self.engine.cancel(ticket)
        self._asked.clear()
        self._overflowed.clear()

    def check_fits(self, view: View) -> None:
        """Refuse a view whose prompt leaves no room for a full reply.

        Raises:
            ConfigError: rules, observations and replies so far need more tokens than the context has.
        """
        need = len(self.prompt(view)) + self._play.max_reply_tokens
        if need > self.engine.context_tokens:
            raise ConfigError(
                f"play.context_tokens: {self.engine.context_tokens} is too small for {view.game}: what "
                f"{view.agent} has read by then and a reply need {need} tokens"
            )

    def check_says(self, actions: Iterable[str]) -> None:
        """Refuse actions whose shortest accepted reply is longer than a reply may be.

        Raises:
            ConfigError: names the longest of them and the tokens it needs.
        """
        needs = {len(self.chat.encode_reply(canonical_reply(action))): action for action in actions}
        need = max(needs, default=0)
        if need > self._play.max_reply_tokens:
            raise ConfigError(
                f"play.max_reply_tokens: {self._play.max_reply_tokens} is too small: the reply "
                f"{canonical_reply(needs[need])!r} and its end need {need} tokens"
            )

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """Probabilities of the legal actions in each view.

        Without thinking: the teacher-forced probability of each action's canonical reply (end token included),
        renormalised over the legal actions. With thinking: frequencies among sampled replies, an estimate. At
        temperature 0 there is one reply, which is sampled. Where the conversation has outgrown the context, every reply
        is illegal.

        Raises:
            ValueError: a view has no legal actions.
        """
        if any(not view.legal_actions for view in views):
            raise ValueError("a view without legal actions has no distribution over them")
        if self.temperature == 0:
            return self._estimated(views, samples=1)
        if self._play.thinking:
            return self._estimated(views, samples=self._samples)
        return self._exact([(self.prompt(view), "", view.legal_actions or ()) for view in views])

    def chances(self, turns: Sequence[Turn]) -> list[Strategy | None]:
        """What it might have answered instead, by its present weights, in turns that it has played.

        Exact, as in `strategies`; with thinking, given all that it sampled before its answer. None where no answer was
        begun. Each turn must have its prompt and a list of legal actions.
        """
        begun = [self._begun(turn) for turn in turns]
        asked = [(*start, turn.legal_actions or ()) for turn, start in zip(turns, begun, strict=True) if start]
        found = iter(self._exact(asked))
        return [None if start is None else next(found) for start in begun]

    def nearness(self, turns: Sequence[Turn], answers: Sequence[str]) -> list[float | None]:
        """Mean log-probability per token, by its present weights, of the reply that says an answer and nothing else,
        after what was read in a turn; None where the context has no room for it. Each turn must have its prompt."""
        pairs, places = [], []
        for place, (turn, answer) in enumerate(zip(turns, answers, strict=True)):
            assert turn.prompt is not None
            plain = is_plain(self._play.answers, turn.legal_actions)
            reply = self.chat.encode_reply(canonical_reply(answer, plain=plain))
            if len(turn.prompt) + len(reply) <= self.engine.context_tokens:
                pairs.append((turn.prompt, reply))
                places.append(place)
        found: list[float | None] = [None] * len(turns)
        for place, logprobs in zip(places, self.engine.score(self.name, pairs, self.temperature), strict=True):
            found[place] = sum(logprobs) / len(logprobs)
        return found

    def _begun(self, turn: Turn) -> tuple[Tokens, str] | None:
        """What was read and sampled before a turn's answer: whole tokens, and text that shares one with the answer."""
        assert turn.prompt is not None
        if not self._play.thinking:
            return turn.prompt, ""
        tokens = turn.completion.tokens if turn.completion is not None else ()
        text = self.chat.opened + self.chat.decode(tokens)
        answer = self._whole(tokens, text)
        return None if answer is None else (turn.prompt + tokens[: answer[0]], answer[1])

    def _whole(self, tokens: Tokens, text: str) -> tuple[int, str] | None:
        """How many whole tokens stand before a thinker's answer, and the text that shares one with it; None: no answer
        was begun."""
        begins = answer_begins(text, thinking=True)
        if begins is None:
            return None

        def length(count: int) -> int:
            return len(self.chat.opened) + len(self.chat.decode(tokens[:count]))

        whole = bisect_right(range(len(tokens) + 1), begins, key=length) - 1
        return whole, text[length(whole) : begins]

    def _exact(self, asked: Sequence[tuple[Tokens, str, Sequence[str]]]) -> list[Strategy]:
        """`asked`: what was read, the text with which every reply begins, and the legal actions."""
        pairs: list[tuple[Tokens, Tokens]] = []
        masses: list[dict[str, float]] = []
        owners: list[tuple[dict[str, float], str]] = []
        for prompt, opening, actions in asked:
            mass = dict.fromkeys(actions, 0.0)
            masses.append(mass)
            for action in mass:
                reply = self.chat.encode_reply(opening + canonical_reply(action))
                if len(prompt) + len(reply) <= self.engine.context_tokens:
                    pairs.append((prompt, reply))
                    owners.append((mass, action))
        for (mass, action), logprobs in zip(owners, self.engine.score(self.name, pairs, self.temperature), strict=True):
            mass[action] = exp(sum(logprobs))
        return [_normalised(mass, None) for mass in masses]

    def _estimated(self, views: Sequence[View], samples: int) -> list[Strategy]:
        counts = [dict.fromkeys(view.legal_actions or (), 0.0) for view in views]
        remaining = 0
        for index, view in enumerate(views):
            prompt = self.prompt(view)
            if len(prompt) < self.engine.context_tokens:
                remaining += samples
                for number in range(samples):
                    self.engine.submit(self._request((index, number), prompt, derive(view.seed, number)))
        while remaining:
            for ticket, completion in self.engine.poll():
                index = ticket[0]  # type: ignore[index]
                _, action = self._read(views[index], completion)
                if action is not None:
                    counts[index][action] += 1 / samples
                remaining -= 1
        return [_normalised(mass, samples if self.temperature else None) for mass in counts]

    def _concluded(self, view: View) -> Completion | None:
        """What a reply begins with, up to its answer if that is begun; else its thought ends with it."""
        begun = view.begun
        if begun is None:
            return None
        ended = begun.tokens[-1:] == (self.chat.eos_token_id,)
        text = self.chat.opened + self.chat.decode(begun.tokens)
        answer = self._whole(begun.tokens, text)
        kept = len(begun.tokens) - ended if answer is None else answer[0]
        closing = self.chat.encode(END_OF_THOUGHT) if answer is None and in_thought(text) else ()
        size = len(closing)
        return replace(
            begun,
            tokens=begun.tokens[:kept] + closing,
            logprobs=begun.logprobs[:kept] + (0.0,) * size,
            versions=begun.versions[:kept] + begun.versions[-1:] * size,
        )

    def _request(self, ticket: Hashable, prompt: Tokens, seed: int, *, begun: int = 0) -> Request:
        """`begun`: tokens of the reply that are part of the prompt."""
        left = max(1, self._play.max_reply_tokens - begun)
        return Request(
            ticket=ticket,
            policy=self.name,
            prompt=prompt,
            max_tokens=min(left, self.engine.context_tokens - len(prompt)),
            seed=seed,
            temperature=self.temperature,
        )

    def _reply(self, view: View, prompt: Tokens, completion: Completion) -> Reply:
        text, action = self._read(view, completion)
        # Whoever has had all of `max_reply_tokens` was cut off by that limit, even if the context is full as well.
        short = len(completion.tokens) < self._play.max_reply_tokens
        return Reply(
            text=text,
            action=action,
            prompt=prompt,
            completion=completion,
            overflow=short and completion.stop != "eos",
        )

    def _read(self, view: View, completion: Completion) -> tuple[str, str | None]:
        """The text of a reply and its action; a reply without its end has none."""
        return self._understood(completion.tokens, completion.stop == "eos", view.legal_actions)


def _joined(begun: Completion, rest: Completion) -> Completion:
    return replace(
        rest,
        tokens=begun.tokens + rest.tokens,
        logprobs=begun.logprobs + rest.logprobs,
        versions=begun.versions + rest.versions,
    )


def _rendered(chat: Chat, rules: str, observation: str, told: str) -> Tokens:
    return chat.start(f"{rules}\n{told}".strip(), observation)


def _understood(
    chat: Chat, play: PlayConfig, tokens: Tokens, ended: bool, legal_actions: tuple[str, ...] | None
) -> tuple[str, str | None]:
    text = chat.decode(tokens)
    if not ended:
        return text, None
    plain = is_plain(play.answers, legal_actions)
    return text, read_action(chat.opened + text, legal_actions, thinking=play.thinking, plain=plain)


def _normalised(mass: dict[str, float], samples: int | None) -> Strategy:
    total = sum(mass.values())
    # A policy that never answers legally has no preference among legal actions.
    actions = {action: m / total if total > 0 else 1 / len(mass) for action, m in mass.items()}
    return Strategy(actions=actions, illegal_mass=max(0.0, 1.0 - total), samples=samples)
