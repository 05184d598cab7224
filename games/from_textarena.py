"""TextArena's environments, by their ids there: `textarena:KuhnPoker-v0`."""

import contextlib
import copy
import difflib
import io
import math
import random
import re
from collections.abc import Callable, Iterator
from threading import Lock
from typing import Any, NoReturn, Self, TypeVar

from games.base import Parts, Text
from games.settings import OnIllegal, check_whole, refused
from games.textarena_table import ALLOWED, REFUSED, VERSION, Environment
from games.time_limit import within
from games.turn_game import TurnGame

Result = TypeVar("Result")

_EXAMPLES = 2
"""Legal moves that are looked for at each turn."""
_TRIES = 2000
"""Moves that are tried to find them."""
_AGAIN = 300
"""Moves in a row that were tried already, after which there are taken to be no others."""
_BLANK = re.compile("<([^<>]+)>")
_NAMED = re.compile(r"\[(?!GAME\]|Player \d+\])[^\[\]\n]{1,60}\]")
_ONE_AT_A_TIME = Lock()
"""TextArena draws from Python's global generator, which can be only one game's own at a time."""


def env(
    env_id: str,
    *,
    num_players: int | None = None,
    max_turns: int = 500,
    on_illegal: OnIllegal = "forfeit",
) -> "TextArenaGame":
    """The environment of this id, with the observations and the form of actions that its id stands for.

    Actions are free text. What the environment calls invalid, or cannot read, is an illegal move here and ends the
    game at once; TextArena itself would let the player try again. Whoever is out of a game stays in its seat unasked,
    since rewards are paid to all at the end. `num_players`: as many as the environment allows, by default the
    fewest. After `max_turns` moves the game is truncated, and nobody is paid. Needs the extra `textarena`.

    Raises:
        ValueError: TextArena is not installed; it has no such id (the nearest one is given); the environment
            cannot be played here (the reason is given); or a setting is out of range.
    """
    name = f"textarena:{env_id}"
    environment = _allowed(name, env_id)
    players = environment.players
    number = players[0] if num_players is None else num_players
    if isinstance(number, bool) or number not in players:
        every = "" if players.step == 1 else f" in steps of {players.step}"
        allowed = f"{players[0]}" if len(players) == 1 else f"a whole number from {players[0]} to {players[-1]}{every}"
        raise refused(name, "num_players", num_players, allowed)
    check_whole(name, max_turns=max_turns)
    return TextArenaGame(env_id, environment, number, name=name, max_turns=max_turns, on_illegal=on_illegal)


class TextArenaGame(TurnGame):
    """Utility: what the environment pays at its end, as the part `outcome`. No state keys."""

    max_observation = 1_000_000
    max_action = 20_000
    time_limit = 300.0
    """Seconds of wall clock that the environment may take for one move; many, since a machine may be busy."""

    def __init__(
        self, env_id: str, environment: Environment, players: int, *, name: str, max_turns: int, on_illegal: OnIllegal
    ) -> None:
        super().__init__(
            name=name,
            rules=f"{env_id}, a game of TextArena, which calls player_0 Player 0 and so on.",
            seats={agent: agent for agent in (f"player_{player}" for player in range(players))},
            utility_range=environment.utility,
            on_illegal=on_illegal,
            answer="Answer in the form that the text asks for",
            default="plays a legal move",
            state_key=False,
        )
        self._id = env_id
        self._moves = environment.moves
        self._max_turns = max_turns

    def observe(self, agent: str) -> Text:
        """What the agent was told when it was last to move."""
        return {"text": self._seen.get(agent, f"You are {agent}. Wait for your turn.")}

    def clone(self) -> Self:
        """An independent copy, future draws included; rules and spaces are shared."""
        twin = super().clone()
        if hasattr(self, "_inner"):
            twin._inner, twin._seen = copy.deepcopy(self._inner), dict(self._seen)
        return twin

    def _begin(self, seed: int | None) -> None:
        self._seed = random.SystemRandom().randrange(2**31) if seed is None else seed % 2**31
        self._draws = random.Random(self._seed).getstate()
        self._turns, self._done = 0, False
        self._seen: dict[str, str] = {}
        self._call(self._deal)

    def _deal(self) -> None:
        # A new environment each time: some shuffle what an earlier game has left.
        self._inner = _textarena().make(self._id)
        self._inner.reset(num_players=len(self.possible_agents), seed=self._seed)
        self._inner.state.set_invalid_move = _Refuse()
        self._look()

    def _try(self, action: str) -> Parts | None:
        if not action.strip():  # it stands for a reply that could not be read, though some environments would take it
            return None
        kept = None if self._forfeits else (copy.deepcopy(self._inner), self._draws)
        parts = self._call(lambda: self._move(action))
        if parts is None and kept is not None:
            self._inner, self._draws = kept
        return parts

    def _play(self, move: str) -> Parts:
        parts = self._call(lambda: self._move(move))
        assert parts is not None, "a move that was legal in a copy"
        return parts

    def _default(self) -> str:
        if not self._legal:
            raise RuntimeError(f"game {self.metadata['name']}: no legal move is known to play by default")
        return next(iter(self._legal))

    def _move(self, action: str) -> Parts | None:
        """Make the move and see who is next; None: it is illegal."""
        done = _stepped(self._inner, action)
        if done is None:
            return None
        self._turns += 1
        self._done = done
        self._mover, self._legal = None, {}
        if done:
            return self._paid(self._inner.close()[0])
        if self._turns < self._max_turns:
            self._look()
        else:
            self.truncations = dict.fromkeys(self.agents, True)
        return {}

    def _over(self) -> bool:
        return self._done

    def _inform(self, parts: Parts, offender: str | None) -> None:
        super()._inform(parts, offender)
        if self._mover is not None:
            self.infos[self._mover] |= {"legal_actions": None, "examples": tuple(self._legal)}

    def _look(self) -> None:
        player, text = self._inner.get_observation()
        self._mover = self.agent_selection = self.possible_agents[player]
        self._seen[self._mover] = text
        self._legal = {move: move for move in self._examples(text)}

    def _examples(self, text: str) -> tuple[str, ...]:
        """Some moves that are legal now, found by trying moves in copies of the game."""
        chooser = random.Random(self._seed * 1_000_003 + self._turns)  # not the game's draws, and the same in a clone
        found: list[str] = []
        scratch, draws = _copy(self._inner), random.getstate()
        for move in _candidates(self._moves, text, chooser):
            # A refused move leaves no more than its text behind, so the copy serves until a move is made in it.
            if _stepped(scratch, move) is not None:
                found.append(move)
                if len(found) == _EXAMPLES:
                    break
                scratch = _copy(self._inner)
        random.setstate(draws)
        return tuple(found)

    def _paid(self, rewards: Any) -> Parts:
        try:
            paid = {agent: float(rewards[player]) for player, agent in enumerate(self.possible_agents)}
        except (TypeError, KeyError, ValueError):
            paid = {}
        if not paid or not all(map(math.isfinite, paid.values())):
            raise RuntimeError(f"game {self.metadata['name']} pays {rewards!r} at its end, not a number to everybody")
        return {agent: {"outcome": reward} for agent, reward in paid.items() if reward}

    def _call(self, call: Callable[[], Result]) -> Result:
        """What the call returns, which draws from this game's own generator, prints nothing, and has a time limit."""
        with _ONE_AT_A_TIME, contextlib.redirect_stdout(io.StringIO()):
            others = random.getstate()
            random.setstate(self._draws)
            try:
                return within(self.time_limit, call)
            except TimeoutError as error:
                raise TimeoutError(f"game {self.metadata['name']} hangs: {error}") from None
            finally:
                self._draws = random.getstate()
                random.setstate(others)


class _Refused(BaseException):
    """The environment calls the action invalid; no `except Exception` of its own shall catch it."""


class _Refuse:
    """Stands in for `set_invalid_move` of an environment's state, which would let the player try again."""

    called = False

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        self.called = True
        raise _Refused


def _stepped(inner: Any, action: str) -> bool | None:
    """Make the move; whether it ended the game. None: the environment calls it invalid, or fails on it."""
    refuse = inner.state.set_invalid_move
    refuse.called = False
    try:
        done, _ = inner.step(action)
    except (_Refused, Exception):  # foreign code that reads what a model wrote may raise anything
        return None
    return None if refuse.called else bool(done)


def _copy(inner: Any) -> Any:
    """A copy of the environment without its past, which no move depends on."""
    past: dict[int, Any] = {id(inner.state.logs): []}
    layer = inner
    while "env" in vars(layer):
        if "full_observations" in vars(layer):
            past[id(layer.full_observations)] = {}
        layer = layer.env
    return copy.deepcopy(inner, past)


def _candidates(forms: tuple[str, ...], text: str, chooser: random.Random) -> Iterator[str]:
    """Moves to be tried: of the given forms, or those that the text names in brackets."""
    if forms:
        words = re.findall("[A-Za-z]+", " ".join(line for line in text.splitlines() if "|" in line))
        tried: set[str] = set()
        again = 0
        while len(tried) < _TRIES and again < _AGAIN:
            move = _filled(chooser.choice(forms), words, chooser)
            again = again + 1 if move in tried else 0
            if not again:
                tried.add(move)
                yield move
        return
    named = list(dict.fromkeys(_NAMED.findall(text)))[-_TRIES:]
    chooser.shuffle(named)
    yield from named


def _filled(form: str, words: list[str], chooser: random.Random) -> str:
    """One of the moves that a form of `Environment.moves` stands for."""
    filled: list[str] = []

    def fill(blank: re.Match[str]) -> str:
        filled.append(_fill(blank[1], filled, words, chooser))
        return filled[-1]

    return _BLANK.sub(fill, form)


def _fill(blank: str, before: list[str], words: list[str], chooser: random.Random) -> str:
    if blank[0] == "~":
        near, step = before[int(blank[1:]) - 1], chooser.randint(-1, 1)
        return str(max(0, int(near) + step)) if near.isdigit() else chr(ord(near) + step)
    if "|" in blank:
        return chooser.choice(blank.split("|"))
    if blank == "word":
        return chooser.choice(words)
    first, _, last = blank.partition("-")
    if first.isdigit():
        return str(chooser.randint(int(first), int(last)))
    return chr(chooser.randint(ord(first), ord(last)))


def _textarena() -> Any:
    """The library; importing it seeds Python's global generator."""
    state = random.getstate()
    try:
        import textarena
    finally:
        random.setstate(state)
    return textarena


def _allowed(name: str, env_id: str) -> Environment:
    """What the table says of the id; refuses those that cannot be played."""
    try:
        registry = _textarena().envs.registration.ENV_REGISTRY
    except ImportError as error:
        wanted = f"pip install 'marl-llm[textarena]' (TextArena {VERSION})"
        raise ValueError(f"game {name}: cannot import textarena: {error}; {wanted}") from error
    if env_id not in registry:
        (near,) = difflib.get_close_matches(env_id, registry, n=1, cutoff=0.0)
        raise ValueError(f"game {name}: TextArena has no environment {env_id!r}; nearest valid name: {near}")
    environment = env_id.partition("-v0")[0]
    reason = REFUSED.get(env_id) or REFUSED.get(environment)
    if env_id.endswith("-raw"):
        reason = reason or "its observations are lists of messages, not text"
    if reason is None and environment not in ALLOWED:
        reason = f"it was not tried with TextArena {VERSION}"
    if reason is not None:
        raise ValueError(f"game {name}: cannot be played here: {reason}; allowed: {', '.join(ALLOWED)}, each with -v0")
    return ALLOWED[environment]
