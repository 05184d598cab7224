"""Players by name: what `random`, `mcts:100`, `run:PATH@STEP` or `openai:URL#MODEL` stand for."""

import difflib
import json
import os
from collections.abc import Callable, Sequence
from typing import get_args

from marl_llm.config import GameConfig, PolicyKind
from marl_llm.errors import ConfigError, RunError
from marl_llm.matchmaking import series, trained_policy
from marl_llm.play import Table
from marl_llm.policies.base import Policy, View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.policies.remote import RemotePolicy
from marl_llm.policies.scripted import ScriptedPolicy, make_scripted
from marl_llm.run import Run, checkpoint_path, latest_checkpoint
from marl_llm.team import frozen_copy

NUMBER = {"mcts": "simulations", "cfr": "iterations", "noisy": "temperature"}
"""Which option of a scripted player the number after its colon is."""


def seat_players(names: Sequence[str], game: GameConfig) -> dict[str, Policy]:
    """A policy for each name.

    Raises:
        ConfigError: there are fewer than two names; one is no player's (the nearest valid form is given) or is there
            twice; or a player cannot play the game.
        RunError, ModelError: a run has no such checkpoint, or it cannot be loaded.
    """
    if len(names) < 2:
        raise ConfigError(f"players: {','.join(names)!r} is not allowed; it must be two or more, as in random,cfr")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"players: {twice[0]!r} is there twice; every player meets every other one")
    policies = {name: make_player(name) for name in names}
    (match,) = series(game, {}, name="check", games=1, seed=0)
    view = Table(match, max_turns=1).view
    for name, policy in policies.items():
        _check(name, policy, view)
    return policies


def make_player(name: str) -> Policy:
    """The policy that the name stands for.

    Raises:
        ConfigError: the name is no player's; the nearest valid form is given.
        RunError, ModelError: a run has no such checkpoint, or it cannot be loaded.
    """
    kind, colon, rest = name.partition(":")
    if kind in _OTHERS and rest:
        return _OTHERS[kind](name, rest)
    if kind not in _SCRIPTED or (colon and kind not in NUMBER):
        raise _refused(name, "unknown player")
    if not colon:
        return make_scripted(kind, {})
    try:
        return make_scripted(kind, {NUMBER[kind]: json.loads(rest)})
    except json.JSONDecodeError as error:
        raise _refused(name, f"{rest!r} is not a number") from error


def _trained(name: str, rest: str) -> Policy:
    """The trained policy of a run directory, at a checkpoint or at the latest one."""
    path, at, step = rest.rpartition("@")
    if not (at and step.isdecimal()):
        path, step = rest, ""
    config = Run.config(path)
    policy = trained_policy(config)
    if step:
        return frozen_copy(config, policy, checkpoint_path(path, int(step)) / policy, called=name)
    latest = latest_checkpoint(path)
    if latest is None:
        raise RunError(f"{path}: has no checkpoint yet")
    return frozen_copy(config, policy, latest[1] / policy, called=name)


def _remote(name: str, rest: str) -> Policy:
    url, _, model = rest.rpartition("#")
    if not (url.startswith(("http://", "https://")) and model):
        raise _refused(name, "not an endpoint")
    return RemotePolicy(url, model, key=os.environ.get("OPENAI_API_KEY"))


_SCRIPTED: tuple[PolicyKind, ...] = tuple(kind for kind in get_args(PolicyKind) if kind != "llm")
_OTHERS: dict[str, Callable[[str, str], Policy]] = {"run": _trained, "openai": _remote}
_FORMS = {kind: f"{kind}[:{NUMBER[kind].upper()}]" if kind in NUMBER else kind for kind in _SCRIPTED} | {
    "run": "run:PATH[@STEP]",
    "openai": "openai:URL#MODEL",
}


def _refused(name: str, problem: str) -> ConfigError:
    near = difflib.get_close_matches(name.partition(":")[0], _FORMS, n=1, cutoff=0.0)[0]
    allowed = ", ".join(_FORMS.values())
    return ConfigError(f"player {name!r}: {problem}; nearest valid form: {_FORMS[near]}; allowed: {allowed}")


def _check(name: str, policy: Policy, view: View) -> None:
    """Refuse who cannot play the game, before anybody has played; a remote model is not asked.

    Raises:
        ConfigError: names the player and the reason.
    """
    try:
        if isinstance(policy, ScriptedPolicy):
            policy.strategies([view])
        elif isinstance(policy, LLMPolicy):
            policy.check_fits(view)
            policy.check_says(view.legal_actions or ())
    except ValueError as error:  # ConfigError is one, and so is that there are no legal actions
        raise ConfigError(f"player {name!r}: {error}") from error
