"""Tiny language models for tests: untrained ones, and ones whose every next token is dictated."""

from collections.abc import Mapping
from functools import lru_cache
from math import log, sqrt
from typing import Any

import torch

from marl_llm.config import GameConfig, PlayConfig, TinyModelConfig
from marl_llm.engines.hf import HFEngine
from marl_llm.models import END, LanguageModel, make_tiny
from marl_llm.play import Table
from marl_llm.policies.base import View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.team import game_texts
from marl_llm.text import Chat
from marl_llm.types import Match

TINY = TinyModelConfig(hidden=32, layers=1, heads=2, mlp=64, vocabulary=400)
CONTEXT = 640

Chances = Mapping[str, Mapping[str, float]]
"""Token -> the tokens that may follow it, with their probabilities."""


@lru_cache
def texts(game: str, thinking: bool = False) -> tuple[str, ...]:
    return tuple(game_texts(GameConfig(name=game), seed=0, thinking=thinking))


def untrained(
    game: str = "kuhn_poker", *, thinking: bool = False, seed: int = 0, sharpness: float = 1.0
) -> LanguageModel:
    """An untrained chat model; with `sharpness` above 1 it is far from uniform."""
    model = make_tiny(TINY, texts(game, thinking), context_tokens=CONTEXT, seed=seed)
    with torch.no_grad():
        model.model.lm_head.weight.mul_(sharpness)
    return model


def dictated(chances: Chances, game: str = "kuhn_poker", *, thinking: bool = False) -> LanguageModel:
    """A chat model whose next token depends on the last one alone; replies start after a line break.

    Attention and feed-forward add nothing; the embedding of the i-th token in `chances` is the i-th unit vector,
    which the final norm makes sqrt(hidden) long.
    """
    made = untrained(game, thinking=thinking)
    assert len(chances) <= TINY.hidden
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.dim() > 1:
                parameter.zero_()
        embeddings_VD, head_VD = made.model.model.embed_tokens.weight, made.model.lm_head.weight
        for axis, (token, following) in enumerate(chances.items()):
            embeddings_VD[token_id(made, token), axis] = 1.0
            head_VD[:, axis] = -100.0 / sqrt(TINY.hidden)
            for successor, chance in following.items():
                head_VD[token_id(made, successor), axis] = log(chance) / sqrt(TINY.hidden)
    return made


def token_id(model: LanguageModel, text: str) -> int:
    (token,) = model.tokenizer.encode(text, add_special_tokens=False)
    return int(token)


def saying(actions: Mapping[str, float], *, start: str = "\n") -> dict[str, dict[str, float]]:
    """Chances of a model that gives the canonical replies of these actions, each of one token."""
    return {
        start: {"<answer>": 1.0},
        "<answer>": dict(actions),
        **{action: {"</answer>": 1.0} for action in actions},
        "</answer>": {END: 1.0},
    }


def seated(
    model: LanguageModel, *, name: str = "agent", temperature: float = 1.0, samples: int = 64, **play: Any
) -> LLMPolicy:
    """The policy that plays with the model."""
    settings = PlayConfig(**{"max_reply_tokens": 8, "context_tokens": CONTEXT} | play)
    chat = Chat(model.tokenizer, thinking=settings.thinking)
    engine = HFEngine(
        model.model,
        policy=name,
        slots=16,
        cache_slots=4,
        context_tokens=settings.context_tokens,
        eos_token_id=chat.eos_token_id,
    )
    return LLMPolicy(name=name, engine=engine, chat=chat, play=settings, temperature=temperature, samples=samples)


def first_view(game: str = "kuhn_poker", *, seed: int = 0) -> View:
    """What the first seat to decide sees."""
    return next(iter(Table(Match(id="m", game=game, seed=seed, group="m", seats={}), 1000).views.values()))
