"""Any PettingZoo environment with discrete actions, in words: `pettingzoo:pettingzoo.classic.tictactoe_v3`."""

import difflib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv

from games.base import Parts, Text
from games.loading import load
from games.settings import OnIllegal, refused
from games.turn_game import TurnGame

Describe = Callable[[Any, str], str]
"""(observation, agent) -> text."""
NameAction = Callable[[int, str], str]
"""(action, agent) -> what the agent calls it."""


def env(
    module: str,
    *,
    options: Mapping[str, Any] | None = None,
    describe: str | None = None,
    name_action: str | None = None,
    rules: str | None = None,
    utility_range: Sequence[float] = (-1.0, 1.0),
    zero_sum: bool = False,
    on_illegal: OnIllegal = "forfeit",
) -> "PettingZooGame":
    """The game that `env(**options)` of the module makes, with its observations and actions as text.

    `describe` and `name_action` are `package.module:function`: (observation, agent) to text, and (action, agent) to
    the action's name, different for all that are legal at once. Without them an observation is its numbers
    (`numbers`) and an action is called by its number. `rules` is the text of the rules. `utility_range` must hold
    every sum of rewards that an agent can get: an illegal move ends one below it. PettingZoo's own games need the
    extra `classic`.

    Raises:
        ValueError: the module cannot be imported (the nearest name is given) or makes no `AECEnv` with discrete
            actions, or a setting is out of range.
    """
    game = f"pettingzoo:{module}"
    _refuse_unknown(game, module)
    inner = load(game, module, "env")(**dict(options or {}))
    if not isinstance(inner, AECEnv):
        raise ValueError(f"game {game}: env() makes a {type(inner).__name__}, not a PettingZoo AECEnv")
    for agent in inner.possible_agents:
        space = inner.action_space(agent)
        if not isinstance(space, spaces.Discrete):
            raise ValueError(f"game {game}: the actions of {agent} are {space}; only Discrete ones can be named")
    if len(utility_range) != 2 or not utility_range[0] <= utility_range[1]:
        raise refused(game, "utility_range", utility_range, "[least, greatest]")
    return PettingZooGame(
        inner,
        name=game,
        describe=_function(game, "describe", describe) or (lambda observation, _: numbers(observation)),
        name_action=_function(game, "name_action", name_action) or (lambda action, _: str(action)),
        rules=rules or f"{inner.metadata.get('name', module)}, a game of PettingZoo.",
        utility_range=(float(utility_range[0]), float(utility_range[1])),
        zero_sum=zero_sum,
        on_illegal=on_illegal,
    )


class PettingZooGame(TurnGame):
    """Utility: the environment's rewards, as the part `outcome`. No clones, no state keys."""

    max_observation = 100_000

    def __init__(
        self,
        inner: AECEnv,
        *,
        name: str,
        describe: Describe,
        name_action: NameAction,
        rules: str,
        utility_range: tuple[float, float],
        zero_sum: bool,
        on_illegal: OnIllegal,
    ) -> None:
        super().__init__(
            name=name,
            rules=rules,
            seats={agent: agent for agent in inner.possible_agents},
            utility_range=utility_range,
            zero_sum=zero_sum,
            on_illegal=on_illegal,
            clone=False,
            state_key=False,
        )
        self._inner = inner
        self._describe = describe
        self._name_action = name_action

    def observe(self, agent: str) -> Text:
        """What the agent may know now, as `{"text": ...}`."""
        text = f"You are {agent}.\n{self._describe(self._inner.observe(agent), agent)}\n"
        if agent != self._mover:
            return {"text": text}
        return {"text": f"{text}Legal actions: {self.separator.join(self._legal)}"}

    def _begin(self, seed: int | None) -> None:
        self._inner.reset(seed=None if seed is None else seed % 2**31)  # many environments take no longer seeds
        self._follow()

    def _play(self, move: int) -> Parts:
        self._inner.step(move)
        self._follow()
        return {agent: {"outcome": float(reward)} for agent, reward in self._inner.rewards.items() if reward}

    def _over(self) -> bool:
        return False  # the environment says itself who is out (`_follow`)

    def _leave(self, action: str | None) -> None:
        agent = self.agent_selection
        if not (self._inner.terminations[agent] or self._inner.truncations[agent]):
            super()._leave(action)  # a forfeit, of which the environment knows nothing
            return
        self._inner.step(None)
        del self._cumulative_rewards[agent]
        self._follow()
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._inform({}, None)

    def _follow(self) -> None:
        """Take over who plays, who is to move and what it may do."""
        inner = self._inner
        self.agents = list(inner.agents)
        self.terminations = {agent: bool(inner.terminations[agent]) for agent in self.agents}
        self.truncations = {agent: bool(inner.truncations[agent]) for agent in self.agents}
        self._mover, self._legal = None, {}
        if self.agents:
            agent = self.agent_selection = str(inner.agent_selection)
            if not (self.terminations[agent] or self.truncations[agent]):
                self._mover, self._legal = agent, self._named(agent)

    def _named(self, agent: str) -> dict[str, int]:
        named: dict[str, int] = {}
        for action in self._allowed(agent):
            name = self._name_action(action, agent).strip()
            if not name or name in named:
                raise ValueError(f"{self.metadata['name']}: name_action calls action {action} of {agent} {name!r}")
            named[name] = action
        return named

    def _allowed(self, agent: str) -> list[int]:
        """The actions that the mask allows; all where there is none."""
        space, observation = self._inner.action_space(agent), self._inner.observe(agent)
        mask = observation.get("action_mask") if isinstance(observation, Mapping) else None
        mask = self._inner.infos[agent].get("action_mask") if mask is None else mask
        ids = range(space.n) if mask is None else np.flatnonzero(mask)
        return [int(space.start) + int(action) for action in ids]


def numbers(observation: Any) -> str:
    """An observation as text: a table in rows, more axes as tables along the last one, those of zeros left out.

    Of a `Dict` with the key `observation` that one is shown, of others every entry under its name.
    """
    if isinstance(observation, Mapping):
        if "observation" in observation:
            return numbers(observation["observation"])
        return "\n".join(f"{name}: {numbers(part)}" for name, part in observation.items())
    if isinstance(observation, str):
        return observation
    array = np.asarray(observation)
    if array.ndim > 2:
        tables = [(number, array[..., number]) for number in range(array.shape[-1])]
        return "\n".join(f"table {number}:\n{numbers(table)}" for number, table in tables if table.any()) or "zeros"
    if array.ndim == 2:
        return "\n".join(map(numbers, array))
    if array.dtype.kind in "biu":
        return " ".join(map(str, array.astype(int).ravel().tolist()))
    return " ".join(f"{float(value):.6g}" for value in array.flat)


def _function(game: str, setting: str, name: str | None) -> Callable[..., Any] | None:
    if name is None:
        return None
    module, colon, function = name.partition(":")
    if not colon:
        raise refused(game, setting, name, "package.module:function")
    return load(game, module, function)


def _refuse_unknown(game: str, module: str) -> None:
    """Refuse a module that its package does not have, with the nearest one that it has."""
    package, _, last = module.rpartition(".")
    if not package or importlib.util.find_spec(package.partition(".")[0]) is None:
        return  # `load` says what is wrong
    try:
        siblings = [found.name for found in pkgutil.iter_modules(importlib.import_module(package).__path__)]
    except Exception:  # a package may raise anything while it is imported; `load` says what
        return
    if siblings and last not in siblings:
        (near,) = difflib.get_close_matches(last, siblings, n=1, cutoff=0.0)
        raise ValueError(f"game {game}: {package} has no module {last!r}; nearest valid name: {package}.{near}")
