"""Tokens as the texts that they stand for, without the model's library."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tokenizers import Tokenizer

from marl_llm.checkpoints import list_checkpoints
from marl_llm.config import Config

TOKENIZER = "tokenizer.json"
LONGEST = 4
"""Most bytes, and so tokens, of a character."""


class Spelling:
    """The tokenizers of a run's policies, each read when it is first needed."""

    def __init__(self, run: Path, config: Config) -> None:
        self._run, self._config = run, config
        self._known: dict[str, Tokenizer] = {}

    def texts(self, policy: str, tokens: Sequence[int]) -> list[str] | None:
        """The text of each token; one that is a part of a character has it with the last of those that make it up.

        None: the policy's tokenizer is not at hand.
        """
        name = policy.partition("@")[0]
        tokenizer = self._known.get(name) or self._read(name)
        if tokenizer is None:  # a run that has just begun may have it later
            return None
        self._known[name] = tokenizer
        texts: list[str] = []
        before: list[int] = []
        pending: list[int] = []
        for token in tokens:
            pending.append(token)
            text = self._after(tokenizer, before, pending)
            whole = not text.endswith("\N{REPLACEMENT CHARACTER}") or len(pending) >= LONGEST
            texts.append(text if whole else "")
            if whole:
                before, pending = pending, []
        if pending:
            texts[-1] = self._after(tokenizer, before, pending)
        return texts

    @staticmethod
    def _after(tokenizer: Tokenizer, before: list[int], tokens: list[int]) -> str:
        """The text of tokens that follow others: many decoders drop the space at the beginning of a text."""
        known = tokenizer.decode(before, skip_special_tokens=False)
        return str(tokenizer.decode([*before, *tokens], skip_special_tokens=False))[len(known) :]

    def _read(self, policy: str) -> Tokenizer | None:
        for folder in self._folders(policy):
            if (folder / TOKENIZER).is_file():
                with suppress(Exception):  # the library raises nothing else where the file is damaged
                    return Tokenizer.from_file(str(folder / TOKENIZER))
        return None

    def _folders(self, policy: str) -> list[Path]:
        settings = self._config.policies.get(policy)
        if settings is None:
            return []
        owner = settings.base or policy
        checkpoints = [folder for _, folder in reversed(list_checkpoints(self._run / "checkpoints"))]
        folders = [folder / name for folder in checkpoints for name in (policy, owner)]
        model = self._config.policies[owner].model
        return [*folders, Path(model)] if model else folders
