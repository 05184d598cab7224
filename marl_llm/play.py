"""Matches go in, episodes come out.

One thread plays any number of matches side by side. A game that is ready hands its agent's view to the policy in
that seat (`submit`); whatever a policy has decided (`poll`) is applied to its game. Games never wait for each other.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import isfinite
from numbers import Integral, Real
from typing import Any, TypeVar

from pettingzoo import AECEnv

import games
from games.tools.base import ToolFault
from games.turns import InTurns
from marl_llm.config import GameConfig, PlayConfig
from marl_llm.errors import ConfigError, GameError, RunError
from marl_llm.matchmaking import seat_policy
from marl_llm.policies.base import Policy, Reply, View
from marl_llm.seeds import derive
from marl_llm.types import Episode, Match, Status, Turn

Rewards = Callable[[Episode], Mapping[int, Mapping[str, float | None]]]
"""A user's own reward: a finished episode to further reward parts of its turns, by turn index."""


def make_game(name: str, settings: Mapping[str, Any]) -> AECEnv:
    """A new environment of the game.

    Raises:
        ConfigError: no game is called so, or it does not take these settings.
    """
    try:
        return games.make(name, **settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"game.name {name!r} with settings {dict(settings)}: {error}") from error


def agents_of(game: GameConfig) -> list[str]:
    """All agents of the game, in the order of play.

    Raises:
        ConfigError: see `make_game`.
    """
    return list(make_game(game.name, game.settings).unwrapped.possible_agents)


def play(
    matches: Iterable[Match],
    policies: Mapping[str, Policy],
    *,
    max_turns: int = 1000,
    live: int = 1024,
) -> Iterator[Episode]:
    """Play all matches, at most `live` at a time, and yield each episode when it is over.

    Raises:
        GameError: a game raised, with its seed and actions in the message.
        ConfigError: a seat names a policy that is not given.
    """
    hall, waiting = Hall(policies, max_turns=max_turns, live=live), iter(matches)
    while True:
        hall.begin(islice(waiting, live - hall.num_matches))
        if not hall.num_matches:
            return
        yield from hall.poll()


class Hall:
    """Any number of matches being played side by side; more may begin at any time."""

    def __init__(self, policies: Mapping[str, Policy], *, max_turns: int = 1000, live: int = 1024) -> None:
        """`policies`: looked at in every poll, so that it may change in between; who sits somewhere must stay."""
        self._policies = policies
        self._max_turns = max_turns
        self._live = live
        self._deals = Deals()
        self._waiting: deque[Match] = deque()
        self._tables: dict[str, Table] = {}
        self._at: tuple[str, ...] = ()
        """Whose move is being applied, or which policy polled: what may never return."""

    @property
    def doing(self) -> str:
        """What the thread that polls is in, for another thread that finds it does not return; empty: nothing."""
        at = self._at
        return "" if not at else f"policy {at[0]}" if len(at) == 1 else f"match {at[0]}, agent {at[1]}: the game"

    @property
    def num_matches(self) -> int:
        """How many are not over, those that wait for a table included."""
        return len(self._waiting) + len(self._tables)

    def table(self, match: str) -> "Table":
        """Where the match of this id is being played, which has begun and is not over; not to be changed."""
        return self._tables[match]

    def begin(self, matches: Iterable[Match]) -> None:
        """Let further matches begin, in this order, as soon as fewer than `live` are being played."""
        self._waiting.extend(matches)

    def poll(self) -> list[Episode]:
        """Begin what may begin, let every policy make some progress, and return the episodes that are over.

        Raises:
            GameError: a game raised, with its seed and actions in the message.
            ConfigError: a seat names a policy that is not there.
        """
        over: list[Episode] = []
        for _ in range(min(len(self._waiting), self._live - len(self._tables))):
            match = self._waiting.popleft()
            assert match.id not in self._tables, f"two live matches are called {match.id}"
            self._tables[match.id] = Table(match, self._max_turns, self._deals)
            self._go_on(self._tables[match.id], over)
        for name, policy in list(self._policies.items()):
            self._at = (name,)
            for ticket, reply in policy.poll():
                assert isinstance(ticket, tuple), "as `_ask` made it"
                match_id, agent = self._at = ticket
                table = self._tables[match_id]
                if table.take(agent, name, reply):
                    self._go_on(table, over)
        self._at = ()
        return over

    def _go_on(self, table: "Table", over: list[Episode]) -> None:
        if table.status is None:
            self._ask(table)
        else:
            over.append(self._tables.pop(table.match.id).episode())

    def _ask(self, table: "Table") -> None:
        for agent, view in table.asked.items():
            name = seat_policy(table.match.seats, agent)
            if name not in self._policies:
                there = sorted(self._policies)
                raise ConfigError(f"match {table.match.id}: no policy is called {name!r}; there are {there}")
            self._policies[name].submit((table.match.id, agent), view)


T = TypeVar("T")
Playing = Generator[Sequence[Match], list[Episode], T]
"""Yields matches that it wants to have played, is sent their episodes, in the order of its matches, and returns
something in the end. Several may go on side by side in one hall."""


def played(playing: Playing[T], policies: Mapping[str, Policy], *, max_turns: int = 1000) -> T:
    """Play what it wants, and return what it returns."""
    try:
        matches = next(playing)
        while True:
            episodes = {episode.match.id: episode for episode in play(matches, policies, max_turns=max_turns)}
            matches = playing.send([episodes[match.id] for match in matches])
    except StopIteration as ended:
        result: T = ended.value
        return result


def rewarded(episode: Episode, rewards: Rewards) -> Episode:
    """The episode with the parts of a user's own reward beside the game's.

    Raises:
        GameError: `rewards` raised, with the match in the message.
        ConfigError: it returned something else than it must.
    """
    try:
        given: Any = rewards(episode)
    except Exception as error:  # whatever a user's function raises, the run stops with the match that it raised at
        raise GameError(f"play.rewards: raised {type(error).__name__}: {error} (match {episode.match.id})") from error
    problem = _reward_problem(episode, given)
    if problem:
        raise ConfigError(f"play.rewards: returned {problem} (match {episode.match.id})")
    turns = list(episode.turns)
    for index, parts in given.items():
        added = {part: None if value is None else float(value) for part, value in parts.items()}
        turns[index] = replace(turns[index], rewards={**turns[index].rewards, **added})
    return replace(episode, turns=tuple(turns))


def _reward_problem(episode: Episode, given: Any) -> str | None:
    """What is wrong with what a user's reward function returned, and what is allowed; None when nothing is."""
    form = "it must be {turn index: {part: number or None}}"
    if not isinstance(given, Mapping):
        return f"{given!r}; {form}"
    for index, parts in given.items():
        if not isinstance(index, Integral) or not 0 <= int(index) < len(episode.turns):
            return f"turn index {index!r}; it must be a whole number from 0 to {len(episode.turns) - 1}"
        if not isinstance(parts, Mapping):
            return f"{parts!r} for turn {index}; {form}"
        for part, value in parts.items():
            if not isinstance(part, str):
                return f"part name {part!r} for turn {index}; it must be a text"
            if part in episode.turns[int(index)].rewards:
                return f"part {part!r} for turn {index}, which the game gave already; it must have another name"
            if value is not None and not (isinstance(value, Real) and isfinite(value)):
                return f"{value!r} as part {part!r} of turn {index}; it must be a finite number or None"
    return None


class Deals:
    """Deals games. What a group plays is dealt once and copied for each of its matches, if the game says it can be."""

    def __init__(self) -> None:
        self._match: Match | None = None
        self._dealt: AECEnv | None = None
        """The game of the latest match before its first move; nobody plays it."""

    def copy(self, match: Match) -> AECEnv | None:
        """The match's game, if it is that of the latest match and can be copied."""
        last = self._match
        if last is None or self._dealt is None:
            return None
        same = (last.game, last.settings, last.seed) == (match.game, match.settings, match.seed)
        return self._dealt.clone() if same else None

    def deal(self, match: Match, env: AECEnv) -> AECEnv:
        """The match's game, dealt in the new environment."""
        env.reset(seed=match.seed)
        # A wrapper passes `clone` on to the game inside and would be lost.
        copied = env.unwrapped.metadata.get("clone") and hasattr(type(env), "clone")
        self._match, self._dealt = match, env if copied else None
        return env.clone() if copied else env


def tolerated(played: Iterable[Episode], config: PlayConfig, *, total: int) -> Iterator[Episode]:
    """Pass the `total` episodes on for as long as those at fault are few enough for training to go on.

    Raises:
        RunError: they are not; the message says what the latest of them was told.
    """
    faults = 0
    for episode in played:
        faults += episode.status == "fault"
        if faults and config.on_fault == "stop":
            raise RunError(f"an episode ended at fault, and play.on_fault is stop: {episode.note}")
        if faults > config.max_faults * total:
            raise RunError(
                f"{faults} of {total} episodes ended at fault, more than play.max_faults "
                f"({config.max_faults:g}) allows: {episode.note}"
            )
        yield episode


class Table:
    """One match being played: its game, and the turns so far."""

    def __init__(self, match: Match, max_turns: int, deals: Deals | None = None) -> None:
        self.match = match
        self.status: Status | None = None
        """None while the match goes on."""
        self._note = ""
        self._max_turns = max_turns
        self._turns: list[Turn] = []
        self._rewards: list[dict[str, float | None]] = []
        """Those of `_turns`: what a turn brings may show much later."""
        self._actions: list[str | None] = []
        self._latest: dict[str, int] = {}
        self._pending: dict[str, dict[str, float]] = defaultdict(dict)
        self._history: dict[str, tuple[tuple[str, str], ...]] = {}
        deals = deals or Deals()
        self._env = self._guard(deals.copy, match)
        if self._env is None:
            self._env = self._guard(deals.deal, match, make_game(match.game, match.settings))
        self._game: Any = self._env.unwrapped
        self._returns = dict.fromkeys(self._game.possible_agents, 0.0)
        self.views = self._look()
        """What all who decide now may know, in the order of their turns: none of them sees what another one chooses."""
        self._replies: dict[str, tuple[str, Reply]] = {}
        """What they decided so far, with the policy that did."""
        self._replay()
        self._keep_silent()

    @property
    def game(self) -> Any:
        """The environment as it is now, without wrappers; not to be changed."""
        return self._game

    @property
    def turns(self) -> tuple[Turn, ...]:
        """What was decided so far."""
        return tuple(self._turns)

    @property
    def asked(self) -> dict[str, View]:
        """Those of `views` who have not decided yet."""
        return {agent: view for agent, view in self.views.items() if agent not in self._replies}

    def _replay(self) -> None:
        """Play the turns before the match's fork as they were.

        Raises:
            GameError: it is somebody else's turn then, since the game does not follow from its seed and its actions.
        """
        while self.status is None and (known := self.match.played[len(self._turns) :][: len(self.views)]):
            for agent, turn in zip(tuple(self.views), known, strict=False):
                if agent != turn.agent:
                    raise GameError(
                        f"game {self.match.game}: match {self.match.id} cannot be forked: {turn.agent} was to move, "
                        f"and when the same is played again it is {agent} (settings {dict(self.match.settings)}, "
                        f"seed {self.match.seed}, actions {self._actions})"
                    )
                reply = Reply(text=turn.reply, action=turn.action, prompt=turn.prompt, completion=turn.completion)
                self._take(agent, turn.policy, reply)
            if self._replies:
                return

    def _keep_silent(self) -> None:
        """Let those who are muted do what they do, until somebody else is asked."""
        muted = self.match.muted
        while muted and self.status is None and (silent := [agent for agent in self.asked if agent in muted]):
            for agent in silent:
                policy = seat_policy(self.match.seats, agent)
                self._take(agent, policy, Reply(text=muted[agent] or "", action=muted[agent]))

    def _look(self) -> dict[str, View]:
        game = self._game
        asked = game.choosing if isinstance(game, InTurns) else {game.agent_selection: game.infos[game.agent_selection]}
        return {agent: self._view(agent, asked[agent], index) for index, agent in enumerate(asked, len(self._turns))}

    def _view(self, agent: str, info: Mapping[str, Any], index: int) -> View:
        """What the agent may know when it makes turn number `index` of the match."""
        legal = info.get("legal_actions")
        latest = self._turns[self._latest[agent]] if agent in self._latest else None
        forked = self.match.begun is not None and index == self.match.begins
        conversation = None
        if latest is not None and latest.prompt is not None and latest.completion is not None:
            conversation = latest.prompt + latest.completion.tokens
        return View(
            game=self.match.game,
            settings=self.match.settings,
            match=self.match.id,
            agent=agent,
            rules=self._game.metadata.get("rules", ""),
            observation=self._guard(self._env.observe, agent)["text"],
            legal_actions=None if legal is None else tuple(legal),
            examples=tuple(info.get("examples", ())) if legal is None else (),
            state_key=info.get("state_key"),
            seed=derive(self.match.seed, self.match.member, index),
            history=self._history.get(agent, ()),
            conversation=conversation,
            begun=self.match.begun if forked else None,
            concluding=forked and self.match.concluding,
        )

    def take(self, agent: str, policy: str, reply: Reply) -> bool:
        """Note the decision of an agent that was asked; return whether it was the last one.

        Then all are applied and recorded as turns, in the order of `views`: who was asked next is in `views`, unless
        the match is over. A fault ends it, and is no turn.
        """
        last = self._take(agent, policy, reply)
        if last:
            self._keep_silent()
        return last

    def _take(self, agent: str, policy: str, reply: Reply) -> bool:
        self._replies[agent] = (policy, reply)
        if len(self._replies) < len(self.views):
            return False
        views, replies = self.views, self._replies
        self.views, self._replies = {}, {}
        for view in views.values():
            self._apply(view, *replies[view.agent])
            if self.status is not None:
                return True
        self.views = self._look()
        return True

    def _apply(self, view: View, policy: str, reply: Reply) -> None:
        if reply.fault:
            self.status, self._note = "fault", f"{policy}: {reply.fault}"
            return
        if reply.overflow:
            self.status, self._note = (
                "truncated",
                f"the conversation of {view.agent} no longer fits the context",
            )
            if reply.completion is None:
                return
        told = self._game.infos[view.agent]
        role, parent = told.get("role", view.agent), self._latest.get(told.get("caller", ""))
        legal = None
        self._actions.append(reply.action)
        if self.status is None:
            # A reply without an action is an illegal move by the same path: no game accepts the empty text.
            try:
                self._guard(self._env.step, reply.action if reply.action is not None else "")
            except ToolFault as fault:
                self.status, self._note = "fault", str(fault)
                return
            legal = not self._game.infos[view.agent].get("illegal", False)
        self._latest[view.agent] = len(self._turns)
        self._history[view.agent] = (*view.history, (view.observation, reply.text))
        self._rewards.append({})
        self._turns.append(
            Turn(
                agent=view.agent,
                role=role,
                policy=policy,
                observation=view.observation,
                legal_actions=view.legal_actions,
                prompt=reply.prompt,
                completion=reply.completion,
                reply=reply.text,
                action=reply.action,
                legal=legal,
                rewards=self._rewards[-1],
                parent=parent,
                begun=len(view.begun.tokens) if view.begun is not None and reply.completion is not None else 0,
                state_key=view.state_key,
                weight=0.0 if len(self._turns) < len(self.match.played) or view.agent in self.match.muted else 1.0,
            )
        )
        if self.status is None:
            self._go_on()

    def _go_on(self) -> None:
        """Hand out the rewards of the step that was just made, and see who is next."""
        game = self._game
        for agent, reward in game.rewards.items():
            parts = game.infos[agent].get("reward_parts") or ({"outcome": reward} if reward else {})
            for part, value in parts.items():
                self._pending[agent][part] = self._pending[agent].get(part, 0.0) + value
            self._returns[agent] += reward
        for agent in tuple(self._pending):
            self._deliver(agent)
        while game.agents and self._over(game.agent_selection) and not self._over(*game.agents):
            self._guard(self._env.step, None)
        if not game.agents or self._over(game.agent_selection):
            self.status = "done"
        elif len(self._turns) >= self._max_turns:
            self.status, self._note = "truncated", f"no end after {self._max_turns} turns"

    def _over(self, *agents: str) -> bool:
        return all(self._game.terminations[agent] or self._game.truncations[agent] for agent in agents)

    def _deliver(self, agent: str) -> None:
        """Add the agent's pending rewards to its latest turn; before its first turn they wait for it."""
        if agent not in self._latest:
            return
        rewards = self._rewards[self._latest[agent]]
        for part, value in self._pending.pop(agent).items():
            rewards[part] = (rewards.get(part) or 0.0) + value

    def episode(self) -> Episode:
        """The finished match."""
        assert self.status is not None
        try:
            hidden = self._guard(getattr, self._game, "hidden", {})
        except ToolFault as fault:  # answers that are checked by running them
            self.status, self._note, hidden = "fault", str(fault), {}
        return Episode(
            match=self.match,
            turns=tuple(self._turns),
            returns=self._returns,
            status=self.status,
            note=self._note,
            hidden=hidden,
        )

    def _guard(self, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return call(*arguments, **named)
        except ToolFault:
            raise
        except Exception as error:  # whatever a game raises, the run stops with what is needed to replay it
            raise GameError(
                f"game {self.match.game} raised {type(error).__name__}: {error} "
                f"(replay: settings {dict(self.match.settings)}, seed {self.match.seed}, actions {self._actions})"
            ) from error
