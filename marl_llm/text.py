"""Between text and tokens: chat messages -> exact prompt tokens, and reply -> action.

A conversation only ever grows: what was read and what was sampled stays as it is, token by token, whatever
the chat template would make of earlier turns if it rendered them again (many strip the thinking from them).
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from marl_llm.config import Answers
from marl_llm.errors import ModelError
from marl_llm.types import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = list[dict[str, str]]

# Possessive, so that blanks without end are read once, whoever sends them.
TAG = re.compile(r"<\s*+(?P<close>/?)\s*+(?P<name>think|answer)\s*+>", re.IGNORECASE)
END_OF_THOUGHT = "</think>"
THOUGHT = re.compile(r"\s*<\s*think\s*>.*?<\s*/\s*think\s*>", re.IGNORECASE | re.DOTALL)

# Stand-ins for contents, to see where a template puts them; no template holds these words by itself.
SYSTEM, FIRST, SECOND, THIRD = "zqsystemzq", "zqfirstzq", "zqsecondzq", "zqthirdzq"
REPLIES = ("zqreplyazq", "zqreplybzq")


def parted(reply: str) -> tuple[str | None, str]:
    """What a reply thinks first, and the rest; None: it does not begin with a thought.

    A thought that nothing ends is all of the reply, and a `</think>` that nothing opened ends one that a template has
    begun in the prompt.
    """
    tags = [tag for tag in TAG.finditer(reply) if tag["name"].lower() == "think"]
    if not tags or (not tags[0]["close"] and reply[: tags[0].start()].strip()):
        return None, reply
    begin = 0 if tags[0]["close"] else tags[0].end()
    end = next((tag for tag in tags if tag["close"]), None)
    if end is None:
        return reply[begin:].strip(), ""
    return reply[begin : end.start()].strip(), reply[end.end() :].lstrip()


class Chat:
    """Prompts of one tokenizer, in the form of its chat template."""

    eos_token_id: int
    """The token that ends a reply in this template; sampling stops at it."""
    opened: str
    """`<think>` where the template starts every reply inside a thought, else empty; `read_action` needs it in
    front of the reply."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", *, thinking: bool | None = None) -> None:
        """Learn the template's form; `thinking` is its switch `enable_thinking`, None its own default.

        Raises:
            ModelError: there is no chat template, or it does not let a conversation grow by appending.
        """
        if not tokenizer.chat_template:
            raise ModelError(
                f"{self._name(tokenizer)}: has no chat template; take a model for conversation, or save the "
                "tokenizer with its chat_template set"
            )
        self._tokenizer = tokenizer
        self._switch = {} if thinking is None else {"enable_thinking": thinking}
        self._control = [
            str(t) for t in tokenizer.added_tokens_decoder.values() if t.special and not TAG.search(str(t))
        ]
        self._merge_system = False
        try:
            form = self._form()
        except ModelError:  # many templates have no system role, or move its text from message to message
            self._merge_system = True
            form = self._form()
        end, self._before, self._after = form
        self._end_text = end
        self.eos_token_id = tokenizer.convert_tokens_to_ids(end)
        thoughts = [tag[0] for tag in TAG.finditer(self._after) if tag["name"].lower() == "think"]
        self.opened = "<think>" if len(thoughts) % 2 else ""

    def start(self, system: str, user: str) -> Tokens:
        """The prompt of a conversation's first reply."""
        return self.prompt([{"role": "system", "content": system}, _user(user)])

    def prompt(self, messages: Messages) -> Tokens:
        """The prompt of the reply that follows a conversation of somebody else's, as the template renders it whole.

        A system message of a template that has none joins the user's message after it.

        Raises:
            ModelError: the template refuses such a conversation.
        """
        plain = [{**message, "content": self._plain(message["content"])} for message in messages]
        if self._merge_system and [message["role"] for message in plain[:2]] == ["system", "user"]:
            system, user, *later = plain
            plain = [*self._opening(system["content"], user["content"]), *later]
        try:
            return self._encode(self._render(plain))
        except TemplateError as error:
            raise ModelError(f"the chat template refuses the conversation: {error}") from error

    def encode(self, text: str) -> Tokens:
        """Any text as it is, control tokens included."""
        return self._encode(text)

    @property
    def vocabulary(self) -> int:
        """How many tokens the tokenizer knows."""
        return len(self._tokenizer)

    def name_of(self, token: int) -> str:
        """What a single token says; where that is no text by itself, its name in the vocabulary."""
        text = self.text([token])
        return str(self._tokenizer.convert_ids_to_tokens(token)) if "\ufffd" in text else text

    def extend(self, tokens: Tokens, user: str) -> Tokens:
        """The next prompt: `tokens` (the last prompt and all that was sampled after it), then a user's message.

        A reply whose end token was not sampled is closed first; that token is prompt, not sample.
        """
        end, *message = self._encode(self._end_text + self._before + self._plain(user) + self._after)
        assert end == self.eos_token_id
        closing = () if tokens[-1] == end else (end,)
        return (*tokens, *closing, *message)

    def encode_reply(self, text: str) -> Tokens:
        """A reply as a model writes it, end token included."""
        return self._encode(self._plain(text) + self._end_text)

    def decode(self, tokens: Sequence[int]) -> str:
        """A reply as text, without its end token."""
        if tokens and tokens[-1] == self.eos_token_id:
            tokens = tokens[:-1]
        return self.text(tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """Any tokens as text, control tokens included."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _encode(self, text: str) -> Tokens:
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def _plain(self, text: str) -> str:
        """Break control tokens that are spelled out: a message may quote an opponent, who must not end it."""
        for token in self._control:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _opening(self, system: str, user: str) -> Messages:
        if self._merge_system:
            return [_user(f"{system}\n\n{user}")]
        return [{"role": "system", "content": system}, _user(user)]

    def _render(self, messages: Messages, *, prompt: bool = True) -> str:
        text: str = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=prompt, **self._switch
        )
        return text

    def _form(self) -> tuple[str, str, str]:
        """End token of a reply, text before the user's message that follows, text after that.

        They are read off a conversation of two rounds and must be the same in one of three: only then can it
        be continued by appending.
        """
        try:
            one = self._opening(SYSTEM, FIRST)
            two = [*one, _assistant(REPLIES[0]), _user(SECOND)]
            three = [*two, _assistant(REPLIES[1]), _user(THIRD)]
            shorter, longer = self._render(two), self._render(three)
            first = self._render(one)
            begun, continued = self._render(one, prompt=False), self._render(two, prompt=False)
        except TemplateError as error:
            raise self._unusable(f"it refuses a conversation of several rounds: {error}") from error
        if SYSTEM not in first:
            raise self._unusable("it leaves out the system prompt")
        if not shorter.startswith(begun) or not longer.startswith(continued):
            raise self._unusable("it renders earlier messages differently when a later one follows")
        form = self._split(shorter, REPLIES[0], SECOND)
        if form != self._split(longer, REPLIES[1], THIRD):
            raise self._unusable("what it puts between a reply and the next message is not always the same")
        if not first.endswith(FIRST + form[2]):
            raise self._unusable("it asks for the first reply differently than for a later one")
        if "zq" in "".join(form):
            raise self._unusable("it repeats earlier messages in front of a later one")
        return form

    def _split(self, text: str, reply: str, user: str) -> tuple[str, str, str]:
        rest = text.partition(reply)[2]
        end = max((t for t in self._control if rest.lstrip().startswith(t)), key=len, default=None)
        if end is None:
            raise self._unusable("it does not end a reply with a special token")
        before, found, after = rest.partition(end)[2].partition(user)
        if not found:
            raise self._unusable("it leaves out a message")
        return end, before, after

    def _unusable(self, reason: str) -> ModelError:
        return ModelError(f"{self._name(self._tokenizer)}: its chat template cannot be used: {reason}")

    @staticmethod
    def _name(tokenizer: Any) -> str:
        return f"tokenizer {tokenizer.name_or_path}" if tokenizer.name_or_path else "tokenizer"


def _user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def _assistant(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


def answer_instruction(thinking: bool, *, plain: bool = False) -> str:
    """One sentence for the system prompt: the form that `read_action` reads. With `plain` there is nothing to say."""
    if plain:
        return ""
    if thinking:
        return "Think inside <think>...</think>, then end with your action inside <answer>...</answer>."
    return "Reply with your action inside <answer>...</answer> and nothing else."


def canonical_reply(action: str, *, plain: bool = False) -> str:
    """The reply that says `action` and nothing else."""
    return action if plain else f"<answer>{action}</answer>"


def is_plain(answers: Answers, legal_actions: Sequence[str] | None) -> bool:
    """Whether the whole reply is the action: where `play.answers` says so, and no legal actions are listed."""
    return answers == "plain" and legal_actions is None


def without_thoughts(reply: str) -> str:
    """What others may hear of a reply: all after its thoughts, without any more of them.

    Thoughts are what stands in `<think>...</think>`, before a `</think>` that nothing opened, and after a `<think>`
    that nothing closes.
    """
    kept: list[str] = []
    start: int | None = 0  # of what others may hear; None inside a thought
    for tag in TAG.finditer(reply):
        if tag["name"].lower() == "think" and tag["close"]:
            kept, start = ([] if start is not None else kept), tag.end()
        elif tag["name"].lower() == "think" and start is not None:
            kept.append(reply[start : tag.start()])
            start = None
    return "".join([*kept, "" if start is None else reply[start:]]).strip()


def read_action(reply: str, legal_actions: Sequence[str] | None, *, thinking: bool, plain: bool = False) -> str | None:
    """The action of a reply, in the game's own spelling; None when there is none or more than one reading.

    A reply is `<answer>INSIDE</answer>` with blank space around it. With `thinking`, the answer may follow a
    thought and free text, each optional: `<think>THOUGHT</think> FREE TEXT <answer>INSIDE</answer>`. The
    thought opens the reply and ends at the first `</think>`; it may hold any text, tags included. Free text and
    INSIDE hold no tag. Tags may be written in any case and with blank space inside the brackets.

    INSIDE names a legal action if they are equal up to blank space, or, failing that, up to case as well; two
    actions that fit equally well are none. With `legal_actions` None any INSIDE that is not blank is the action,
    stripped.

    With `plain` the action is all of the reply but its thoughts (`without_thoughts`), if it is not blank.
    """
    if plain:
        return without_thoughts(reply) or None
    thought = THOUGHT.match(reply) if thinking else None
    rest = reply[thought.end() :] if thought else reply
    tags = list(TAG.finditer(rest))
    if [tag["close"] + tag["name"].lower() for tag in tags] != ["answer", "/answer"]:
        return None
    opening, closing = tags
    before, after = rest[: opening.start()], rest[closing.end() :]
    if after.strip() or (before.strip() and not thinking):
        return None
    inside = rest[opening.end() : closing.start()].strip()
    return (inside or None) if legal_actions is None else _legal(inside, legal_actions)


def answer_begins(reply: str, *, thinking: bool) -> int | None:
    """The character of a reply at which its answer begins, as `read_action` reads it; None: none was begun."""
    thought = THOUGHT.match(reply) if thinking else None
    tag = TAG.search(reply, thought.end() if thought else 0)
    return tag.start() if tag and tag["name"].lower() == "answer" and not tag["close"] else None


def in_thought(reply: str) -> bool:
    """Whether a thought was begun, and none has ended."""
    tags = [tag["close"] for tag in TAG.finditer(reply) if tag["name"].lower() == "think"]
    return bool(tags) and not any(tags)


def _legal(text: str, legal_actions: Sequence[str]) -> str | None:
    spaced = " ".join(text.split())
    for form in (str, str.casefold):  # exact first: in chess notation b4 and B4 are two moves
        named = [action for action in legal_actions if form(" ".join(action.split())) == form(spaced)]
        if named:
            return named[0] if len(named) == 1 else None
    return None
