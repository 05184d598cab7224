"""Simultaneous moves as turns: any PettingZoo `ParallelEnv` as an `AECEnv`."""

from collections.abc import Hashable
from typing import Any, Self

from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv


def in_turns(parallel: ParallelEnv) -> "InTurns":
    """The game with its agents asked one after the other; stepping the result steps `parallel`.

    An agent chooses without knowing what others chose in the same round: observations change, and rewards are
    paid, when the last one has chosen. Whoever has empty `infos[agent]["legal_actions"]` is not asked. Agents may
    leave before the end; none may join.

    Of `parallel` five things are used if it has them: `accepts(agent, action) -> bool` (else an action is illegal
    if it is not in `legal_actions`), `board(agent)` (as in `games.base`), `hidden` (facts for evaluation that no seat
    may see), `clone()` and `whole` (equal where all that may follow is).
    """
    return InTurns(parallel)


class InTurns(AECEnv):  # type: ignore[misc]  # PettingZoo has no types
    """See `in_turns`."""

    def __init__(self, parallel: ParallelEnv) -> None:
        super().__init__()
        self.parallel = parallel
        self.metadata = parallel.metadata
        self.possible_agents = list(parallel.possible_agents)
        self.agents: list[str] = []
        self.agent_selection: str = self.possible_agents[0]
        self.infos: dict[str, dict[str, Any]] = {}
        self._chosen: dict[str, str] = {}

    @property
    def hidden(self) -> dict[str, Any]:
        """Facts for evaluation that no seat may see."""
        return getattr(self.parallel, "hidden", {})

    @property
    def whole(self) -> Hashable:
        """Equal where all that may follow is, what was chosen in this round included; None: the game cannot tell."""
        inner = getattr(self.parallel, "whole", None)
        return None if inner is None else (inner, tuple(self._chosen.items()))

    def board(self, agent: str) -> Any:
        """The board as the agent may see it when the round begins; None: the game has none."""
        inner = getattr(self.parallel, "board", None)
        return None if inner is None else inner(agent)

    @property
    def choosing(self) -> dict[str, dict[str, Any]]:
        """Who has yet to choose in this round, in order, with what the game tells them: they can be asked at once."""
        return {agent: self._told[agent] for agent in self._asked[len(self._chosen) :]}

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        space: spaces.Space[Any] = self.parallel.observation_space(agent)
        return space

    def action_space(self, agent: str) -> spaces.Space[Any]:
        space: spaces.Space[Any] = self.parallel.action_space(agent)
        return space

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Start anew; the same seed gives the same game."""
        self._observations, self._told = self.parallel.reset(seed=seed, options=options)
        self.agents = list(self.parallel.agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._skip_agent_selection = None
        self._open_round()
        self.infos = {agent: self._info(agent) for agent in self.agents}

    def step(self, action: Any) -> None:
        """Note the choice of `agent_selection`, and play the round if it is the last one; None removes an agent
        whose game is over."""
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            self.infos = {other: {**info, "reward_parts": {}} for other, info in self.infos.items()}
            return
        self._cumulative_rewards[agent] = 0.0
        self._chosen[agent] = action
        if len(self._chosen) < len(self._asked):
            self._clear_rewards()
            self.agent_selection = self._asked[len(self._chosen)]
            quiet = {"reward_parts": {}, "illegal": False}
            self.infos = {other: self._info(other) | quiet for other in self.agents}
            self.infos[agent]["illegal"] = not self._accepts(agent, action)
        else:
            self._play_round()

    def observe(self, agent: str) -> Any:
        """What the agent saw when the round began."""
        return self._observations[agent]

    def clone(self) -> Self:
        """An independent copy; rules and spaces are shared. Needs `clone()` of the game itself."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.parallel = self.parallel.clone()
        if not hasattr(self, "_told"):
            return twin
        twin.agents = list(self.agents)
        twin.infos = {agent: dict(info) for agent, info in self.infos.items()}
        for kept in ("rewards", "_cumulative_rewards", "terminations", "truncations", "_chosen"):
            setattr(twin, kept, dict(getattr(self, kept)))
        return twin

    def close(self) -> None:
        self.parallel.close()

    def _play_round(self) -> None:
        observations, rewards, terminations, truncations, self._told = self.parallel.step(self._chosen)
        self._observations = {**self._observations, **observations}
        self.rewards = {agent: float(rewards[agent]) for agent in self.agents}
        self.terminations = {agent: bool(terminations[agent]) for agent in self.agents}
        self.truncations = {agent: bool(truncations[agent]) for agent in self.agents}
        self._accumulate_rewards()
        self._open_round()
        self.infos = {agent: self._info(agent) for agent in self.agents}
        self._deads_step_first()

    def _open_round(self) -> None:
        """Find out who is to be asked, in the order of the agents; changes `agent_selection`."""
        self._chosen = {}
        staying = [agent for agent in self.agents if not (self.terminations[agent] or self.truncations[agent])]
        self._asked = [agent for agent in staying if self._told[agent].get("legal_actions") != ()] or staying
        if self._asked:
            self.agent_selection = self._asked[0]

    def _info(self, agent: str) -> dict[str, Any]:
        """What the game tells about the agent, who has no legal actions unless it is being asked."""
        info = dict(self._told[agent])
        if "legal_actions" in info and (agent != self.agent_selection or not self._asked):
            info["legal_actions"] = ()
        return info

    def _accepts(self, agent: str, action: Any) -> bool:
        if hasattr(self.parallel, "accepts"):
            return bool(self.parallel.accepts(agent, action))
        legal = self._told[agent].get("legal_actions")
        return legal is None or action in legal
