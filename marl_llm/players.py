"""Who can be put in a seat, made from settings, or from a name such as `mcts:100` or `run:PATH@STEP`."""

import difflib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import torch

from marl_llm.adapters import shared
from marl_llm.config import Answers, Config, GameConfig, PolicyConfig, PolicyKind, ScriptedKind
from marl_llm.config.policies import NAME_LENGTH
from marl_llm.devices import available_device
from marl_llm.engines.base import Engine
from marl_llm.engines.hf import HFEngine
from marl_llm.engines.share import Share
from marl_llm.engines.vllm import VLLMEngine
from marl_llm.errors import ConfigError, ModelError, RunError
from marl_llm.matchmaking import series, trained_policy
from marl_llm.models import LanguageModel, load_model
from marl_llm.play import Table
from marl_llm.policies.base import Policy, View
from marl_llm.policies.human import HumanPolicy
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.remote import RemotePolicy
from marl_llm.policies.scripted import ScriptedPolicy, make_scripted, with_options
from marl_llm.run import Run, checkpoint_of
from marl_llm.text import Chat

NUMBER = {"mcts": "simulations", "cfr": "iterations", "noisy": "temperature"}
"""Which option of a scripted player the number after its colon is."""
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_LENGTH}}}")


def make_player(settings: PolicyConfig, *, called: str) -> Policy:
    """The policy of these settings, whose kind is any but `llm`.

    Raises:
        ConfigError: an option is unknown, missing or out of range.
        RunError, ModelError: a run has no such checkpoint, or it cannot be loaded.
    """
    makers: Mapping[PolicyKind, Callable[..., Policy]] = {
        "checkpoint": partial(_checkpoint, called),
        "remote": _remote,
        "human": _human,
    }
    if settings.kind in makers:
        return with_options(settings.kind, makers[settings.kind], settings.options)
    return make_scripted(settings.kind, settings.options)


def model_policy(
    config: Config,
    settings: PolicyConfig,
    model: LanguageModel,
    *,
    called: str,
    beside: Engine | None = None,
    engine: Engine | None = None,
) -> LLMPolicy:
    """A policy that plays with a copy of the model, or with `engine`, if it is given.

    `beside`: see `make_engine`.

    Raises:
        ConfigError, ModelError: the device is not available, or the engine cannot run the model.
    """
    chat = Chat(model.tokenizer, thinking=config.play.thinking)
    engine = engine or make_engine(config, settings, model, called=called, beside=beside)
    return LLMPolicy(
        name=called,
        engine=engine,
        chat=chat,
        play=config.play,
        temperature=settings.temperature,
        samples=config.evaluation.samples,
    )


def make_engine(
    config: Config, settings: PolicyConfig, model: LanguageModel, *, called: str, beside: Engine | None = None
) -> Engine:
    """The engine that these settings ask for, in this process, with the model's weights under the name `called`.

    `beside`: the engine of a policy with the same base. vLLM takes another adapter there; `hf` reads its copy of the
    base, if it is on the wanted device, in the wanted precision.

    Raises:
        ConfigError, ModelError: the device or the engine is not available, it cannot run the model, or the tokenizer
            is another model's.
    """
    device = available_device("engine.device", settings.engine.device)
    dtype: torch.dtype = getattr(torch, settings.engine.dtype)
    known, read = model.model.config.get_text_config().vocab_size, len(model.tokenizer)
    if read > known:
        raise ModelError(f"{called}: its tokenizer has {read} tokens, more than the {known} that its model knows")
    if settings.engine.kind == "vllm" and isinstance(beside, Share):
        beside.engine.add(called, model.model)
        return Share(beside.engine, called, beside=beside)
    common: dict[str, Any] = {
        "policy": called,
        "slots": settings.engine.slots,
        "cache_slots": settings.engine.cache_slots,
        "context_tokens": config.play.context_tokens,
        "eos_token_id": Chat(model.tokenizer, thinking=config.play.thinking).eos_token_id,
        "device": str(device),
        "dtype": dtype,
    }
    if settings.engine.kind == "vllm":
        ranks = [policy.lora.rank for policy in config.policies.values() if policy.base == called and policy.lora]
        if settings.lora is not None and model.base is not None:
            ranks.append(settings.lora.rank)
        sleeps = config.cluster.colocate
        engine = VLLMEngine(model.model, settings=settings.engine.vllm, ranks=ranks, sleeps=sleeps, **common)
        return Share(engine, called)
    theirs = None
    if isinstance(beside, HFEngine) and beside.precision == (device, dtype):
        theirs = shared(model.model, beside.parameters())
    return HFEngine(model.model, shared=theirs, **common)


def frozen_copy(config: Config, name: str, model: Path, *, called: str) -> LLMPolicy:
    """The policy `name` with the model of a folder, under another name."""
    return model_policy(config, config.policies[name], load_model(model), called=called)


def check_player(what: str, policy: Policy, view: View) -> None:
    """Refuse who cannot play the game, before anybody has played; a remote model or a person is not asked.

    Raises:
        ConfigError: `what` and the reason.
    """
    try:
        if isinstance(policy, ScriptedPolicy):
            policy.strategies([view])
        elif isinstance(policy, LLMPolicy):
            policy.check_fits(view)
            policy.check_says(view.legal_actions or ())
    except ValueError as error:  # ConfigError is one, and so is that there are no legal actions
        raise ConfigError(f"{what}: {error}") from error


def first_view(game: GameConfig, max_turns: int = 1) -> View:
    """What whoever begins a game sees."""
    (match,) = series(game, {}, name="check", games=1, seed=0)
    return next(iter(Table(match, max_turns).views.values()))


def called(text: str) -> tuple[str, str]:
    """The name of a player and what it stands for, of NAME=SPEC, or of SPEC alone, which is its own name then.

    Raises:
        ConfigError: the name has other characters than letters, digits, - _ and . or is too long.
    """
    name, equals, spec = text.partition("=")
    if not equals or ":" in name:  # openai:http://host/v1?tier=2#model
        return text, text
    if not _NAME.fullmatch(name):
        allowed = f"1 to {NAME_LENGTH} letters, digits, - _ and ."
        raise ConfigError(f"player {text!r}: the name {name!r} is not allowed; it must be {allowed}")
    return name, spec


def seat_players(players: Sequence[str], game: GameConfig) -> dict[str, Policy]:
    """A policy for each player (SPEC or NAME=SPEC), by its name.

    Raises:
        ConfigError: there are fewer than two; one is nobody (the nearest valid form is given), or a name is not
            allowed or is there twice; or a player cannot play the game.
        RunError, ModelError: a run has no such checkpoint, or it cannot be loaded.
    """
    if len(players) < 2:
        raise ConfigError(f"players: {','.join(players)!r} is not allowed; it must be two or more, as in random,cfr")
    specs = [called(player) for player in players]
    names = [name for name, _ in specs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"players: {twice[0]!r} is there twice; every player meets every other one")
    policies = {name: make_player(settings_of(spec), called=name) for name, spec in specs}
    view = first_view(game)
    for name, policy in policies.items():
        check_player(f"player {name!r}", policy, view)
    return policies


def settings_of(name: str) -> PolicyConfig:
    """The settings that the name stands for.

    Raises:
        ConfigError: the name is no player's; the nearest valid form is given.
    """
    kind, colon, rest = name.partition(":")
    if kind == "run" and rest:
        path, at, step = rest.rpartition("@")
        numbered = bool(at) and step.isdecimal()
        options = {"path": path, "step": int(step)} if numbered else {"path": rest}
        return PolicyConfig(kind="checkpoint", options=options)
    if kind == "openai" and rest:
        url, _, model = rest.rpartition("#")
        if not (_is_address(url) and model):
            raise _refused(name, "not an endpoint")
        return PolicyConfig(kind="remote", options={"url": url, "model": model})
    for scripted in _SCRIPTED:
        if kind == scripted and (not colon or kind in NUMBER):
            try:
                return PolicyConfig(kind=scripted, options={NUMBER[kind]: json.loads(rest)} if colon else {})
            except json.JSONDecodeError as error:
                raise _refused(name, f"{rest!r} is not a number") from error
    raise _refused(name, "unknown player")


_SCRIPTED: tuple[ScriptedKind, ...] = get_args(ScriptedKind)
_FORMS = {kind: f"{kind}[:{NUMBER[kind].upper()}]" if kind in NUMBER else kind for kind in _SCRIPTED} | {
    "run": "run:PATH[@STEP]",
    "openai": "openai:URL#MODEL",
}


def _refused(name: str, problem: str) -> ConfigError:
    near = difflib.get_close_matches(name.partition(":")[0], _FORMS, n=1, cutoff=0.0)[0]
    allowed = ", ".join(_FORMS.values())
    return ConfigError(f"player {name!r}: {problem}; nearest valid form: {_FORMS[near]}; allowed: {allowed}")


def _checkpoint(called: str, *, path: str, step: int | None = None) -> Policy:
    """The trained policy of a run directory, at a checkpoint or at the latest one."""
    config = Run.config(path)
    policy = trained_policy(config)
    return frozen_copy(config, policy, checkpoint_of(path, step)[1] / policy, called=called)


def _remote(
    *,
    url: str,
    model: str,
    retries: int = 5,
    backoff_s: float = 0.5,
    timeout_s: float = 120.0,
    workers: int = 16,
    answers: Answers = "tagged",
    temperature: float | None = None,
) -> Policy:
    """The key stays out of the settings, which every run directory holds."""
    key = os.environ.get("OPENAI_API_KEY")
    for option, value, fine, allowed in (
        ("url", url, _is_address(url), "an address that begins with http:// or https://"),
        ("model", model, isinstance(model, str) and bool(model), "the name of a model"),
        ("retries", retries, _number(retries, int) and retries >= 0, "a whole number, 0 or more"),
        ("backoff_s", backoff_s, _number(backoff_s, int, float) and backoff_s >= 0, "0 or more seconds"),
        ("timeout_s", timeout_s, _number(timeout_s, int, float) and timeout_s > 0, "more than 0 seconds"),
        ("workers", workers, _number(workers, int) and workers >= 1, "a whole number, 1 or more"),
        ("answers", answers, answers in get_args(Answers), " or ".join(get_args(Answers))),
        (
            "temperature",
            temperature,
            temperature is None or (_number(temperature, int, float) and temperature >= 0),
            "null or 0 or more",
        ),
    ):
        if not fine:
            raise ConfigError(f"remote.{option}: {value!r} is not allowed; it must be {allowed}")
    return RemotePolicy(
        url,
        model,
        key=key,
        retries=retries,
        backoff_s=backoff_s,
        timeout_s=timeout_s,
        workers=workers,
        answers=answers,
        temperature=temperature,
    )


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _number(value: Any, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)


def _human() -> Policy:
    return HumanPolicy(print, _answer)


def _answer(prompt: str) -> str:
    try:
        return input(prompt)
    except EOFError as error:
        raise RunError("policy human: nobody answers at the terminal") from error
