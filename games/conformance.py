"""Does a game keep the promises that training relies on? Says in plain words what is wrong with it."""

import contextlib
import io
import math
import random
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pettingzoo import AECEnv

with contextlib.redirect_stdout(io.StringIO()):  # with the extra `classic` this imports pygame, which greets
    from pettingzoo.test import api_test, seed_test

MakeEnv = Callable[[], AECEnv]

MAX_STEPS = 10_000
"""A random game that is longer than this is taken to have no end."""

_METADATA: dict[str, type] = {
    "name": str,
    "rules": str,
    "utility_range": tuple,
    "zero_sum": bool,
    "roles": tuple,
    "seeded": bool,
    "clone": bool,
    "state_key": bool,
}
_NO_ACTION = "this is not a legal action"


class _Broken(Exception):
    """A problem after which the game at hand cannot go on."""


@dataclass
class _Game:
    """One random game, as far as it was played."""

    seed: int
    actions: list[str] = field(default_factory=list)
    trace: list[Any] = field(default_factory=list)
    """What was seen and paid, to be compared with a second game of the same seed."""
    returns: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = ", ".join(repr(action) for action in self.actions[-6:])
        dots = "..., " if len(self.actions) > 6 else ""
        return f"seed {self.seed}, actions [{dots}{shown}]"


def check(make_env: MakeEnv, *, games: int = 20, seed: int = 0) -> list[str]:
    """What is wrong with the game that `make_env()` makes, one sentence per problem; empty: nothing.

    Runs PettingZoo's `api_test` and `seed_test`, then plays `games` random legal games and looks at spaces,
    `infos`, rewards, seeding, illegal moves and clones. A game with `infos[agent]["legal_actions"] = None`
    accepts any text, or names some texts that it accepts in `infos[agent]["examples"]`. Whoever makes an illegal move
    must end with less than every legal outcome, unless the game declares `metadata["on_illegal"] = "default_action"`.
    The same `seed` gives the same verdict.
    """
    problems: dict[str, str] = {}

    def run(where: str, part: Callable[[], Iterator[str]]) -> bool:
        found = list(_guarded(where, part))
        for problem in found:
            problems.setdefault(problem.split(" (seed")[0], problem)
        return bool(found)

    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if run("making and resetting the game", partial(_start, make_env)):
            return list(problems.values())
        if run("its metadata", partial(_metadata, make_env)):
            return list(problems.values())
        run("its spaces", partial(_spaces, make_env))
        run("PettingZoo's api_test", partial(_api, make_env))
        run("PettingZoo's seed_test", partial(_seeding, make_env))
        for name, part, count in (
            ("a random game", _random_game, games),
            ("an illegal move", _illegal_move, min(games, 5)),
            ("clone()", _clone, min(games, 5)),
        ):
            for number in range(seed, seed + count):
                if run(f"{name} (seed {number})", partial(part, make_env, number)):
                    break
    return list(problems.values())


def _guarded(where: str, part: Callable[[], Iterator[str]]) -> Iterator[str]:
    """The part's problems; what it raises is one of them, told with its place."""
    try:
        yield from part()
    except _Broken as broken:
        yield str(broken)
    except Exception as error:  # whatever a user's game raises is the finding
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}, in {last.name}"
        yield f"{where}: raised {type(error).__name__}: {_words(error)} ({place})"


def _start(make_env: MakeEnv) -> Iterator[str]:
    env = make_env()
    if not isinstance(env, AECEnv):
        yield f"it is a {type(env).__name__}, not a PettingZoo AECEnv"
        return
    env.reset(seed=0)
    if not env.agents:
        yield "after reset() it has no agents"


def _metadata(make_env: MakeEnv) -> Iterator[str]:
    metadata = make_env().metadata
    for key, kind in _METADATA.items():
        if key not in metadata:
            yield f"metadata has no {key!r}"
        elif not isinstance(metadata[key], kind):
            yield f"metadata[{key!r}] is {metadata[key]!r}; it must be a {kind.__name__}"
    span = metadata.get("utility_range")
    if isinstance(span, tuple) and not (len(span) == 2 and span[0] <= span[1]):
        yield f"metadata['utility_range'] is {span!r}; it must be (least, greatest)"


def _spaces(make_env: MakeEnv) -> Iterator[str]:
    env = make_env()
    env.reset(seed=0)
    for kind in ("observation_space", "action_space"):
        before = {agent: getattr(env, kind)(agent) for agent in env.possible_agents}
        env.reset(seed=1)
        for agent, space in before.items():
            if getattr(env, kind)(agent) is not space:
                yield f"{kind}({agent!r}) is not the same object every time"


def _api(make_env: MakeEnv) -> Iterator[str]:
    try:
        api_test(make_env(), 50)
    except AssertionError as error:
        yield f"PettingZoo's api_test fails: {_words(error)}"


def _seeding(make_env: MakeEnv) -> Iterator[str]:
    if not make_env().metadata["seeded"]:
        return
    try:
        seed_test(make_env, 10)
    except AssertionError as error:
        yield f"PettingZoo's seed_test fails: two games with the same seed: {_words(error)}"


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or "an assertion without words"


def _random_game(make_env: MakeEnv, seed: int) -> Iterator[str]:
    env, game = make_env(), _Game(seed=seed)
    for _ in _play(env, _Game(seed=seed + 1)):
        pass  # so that whatever an earlier game left behind shows in the next
    found = list(_play(env, game))
    if found:  # what follows would only be consequences
        yield from found
        return
    metadata = env.metadata
    total, (low, high) = sum(game.returns.values()), metadata["utility_range"]
    if metadata["zero_sum"] and not _near(total, 0):
        yield f"it is declared zero-sum, but the returns sum to {total:g} ({game})"
    for agent, value in game.returns.items():
        if not low - 1e-9 <= value <= high + 1e-9:
            yield f"{agent} got {value:g}, which is outside utility_range ({low:g}, {high:g}) ({game})"
    if metadata["seeded"]:
        again = _Game(seed=seed)
        for _ in _play(make_env(), again):
            pass
        if again.trace != game.trace:
            yield f"the same seed and the same choices gave two different games ({game})"


def _play(env: AECEnv, game: _Game) -> Iterator[str]:
    """Play a random legal game to its end and look at every step; fills `game`."""
    env.reset(seed=game.seed)
    chooser = random.Random(game.seed)
    game.returns.update(dict.fromkeys(env.possible_agents, 0.0))
    collected = dict(game.returns)
    while env.agents:
        agent = env.agent_selection
        collected[agent] += env.last(observe=False)[1]
        if env.terminations[agent] or env.truncations[agent]:
            env.step(None)
            continue
        if len(game.actions) == MAX_STEPS:
            raise _Broken(f"a random game did not end within {MAX_STEPS} steps (seed {game.seed})")
        yield from _look(env, agent, game)
        action = _choose(env, agent, chooser, game)
        game.actions.append(action)
        env.step(action)
        yield from _paid(env, agent, game)
    for agent, value in game.returns.items():
        if not _near(collected[agent], value):
            yield (
                f"the rewards of {agent} sum to {value:g}, but what last() reported to it sums to "
                f"{collected[agent]:g} ({game})"
            )


def _look(env: AECEnv, agent: str, game: _Game) -> Iterator[str]:
    """Problems in what is visible before `agent` moves."""
    for seat in env.agents:
        observation, info = env.observe(seat), env.infos[seat]
        text = observation.get("text") if isinstance(observation, dict) else observation
        if not isinstance(text, str):
            yield f"the observation of {seat} has no text: it is {observation!r:.80} ({game})"
        elif not env.observation_space(seat).contains(observation):
            yield f"the observation of {seat} is not in its observation space ({game})"
        if seat != agent and info.get("legal_actions"):
            yield f"{seat} has legal actions although {agent} is to move ({game})"
        if info.get("role", seat) not in env.metadata["roles"]:
            yield f"the role {info['role']!r} of {seat} is not in metadata['roles'] ({game})"
        game.trace.append((seat, observation, info.get("legal_actions"), info.get("state_key")))
    if env.metadata["state_key"] and not isinstance(env.infos[agent].get("state_key"), str):
        yield f"it declares state keys, but infos[{agent!r}]['state_key'] is no text ({game})"
    yield from _board(env.unwrapped, agent, game)


def _board(inner: AECEnv, agent: str, game: _Game) -> Iterator[str]:
    """Problems in the board that `agent` sees before it moves, of a game that has one."""
    look = getattr(inner, "board", None)
    rows = None if look is None else look(agent)
    if rows is None and inner.metadata.get("form") == "board":
        yield f"metadata['form'] is 'board', but {agent} sees none ({game})"
    legal = inner.infos[agent].get("legal_actions")
    for cell in (cell for row in rows or () for cell in row):
        if cell.action is not None and legal is not None and cell.action not in legal:
            yield f"a cell of the board of {agent} means {cell.action!r}, which is not legal ({game})"


def _choose(env: AECEnv, agent: str, chooser: random.Random, game: _Game) -> str:
    info = env.infos[agent]
    if "legal_actions" not in info:
        raise _Broken(f"infos[{agent!r}] has no 'legal_actions' ({game})")
    legal = info["legal_actions"]
    if legal is None and not info.get("examples"):
        return f"text {chooser.randrange(1000)}"
    legal = info["examples"] if legal is None else legal
    if not legal:
        raise _Broken(f"{agent} is to move, but its legal_actions are empty ({game})")
    if not all(isinstance(action, str) for action in legal):
        raise _Broken(f"legal_actions of {agent} are not all text: {legal!r:.80} ({game})")
    return str(chooser.choice(legal))


def _paid(env: AECEnv, mover: str, game: _Game) -> Iterator[str]:
    """Problems in what was paid and reported after `mover`'s legal action."""
    for seat in env.agents:
        reward, info = env.rewards[seat], env.infos[seat]
        if not math.isfinite(reward):
            yield f"the reward of {seat} is {reward} ({game})"
        game.returns[seat] += reward
        parts = info.get("reward_parts")
        if parts is None:
            yield f"infos[{seat!r}] has no 'reward_parts' ({game})"
        elif not _near(sum(parts.values()), reward):
            yield f"reward_parts of {seat} sum to {sum(parts.values()):g}, its reward is {reward:g} ({game})"
        game.trace.append((seat, reward, parts))
    if env.infos.get(mover, {}).get("illegal"):
        yield f"the legal action {game.actions[-1]!r} of {mover} was reported as illegal ({game})"


def _illegal_move(make_env: MakeEnv, seed: int) -> Iterator[str]:
    """Play some legal moves, then an illegal one, then go on."""
    env = make_env()
    env.reset(seed=seed)
    chooser, game = random.Random(seed), _Game(seed=seed)
    before = chooser.randrange(3)
    offender, returns = None, dict.fromkeys(env.possible_agents, 0.0)
    while env.agents and len(game.actions) < MAX_STEPS:
        agent = env.agent_selection
        if env.terminations[agent] or env.truncations[agent]:
            env.step(None)
            continue
        action = _choose(env, agent, chooser, game)
        if offender is None and len(game.actions) >= before:
            if env.infos[agent]["legal_actions"] is None:
                return
            offender, action = agent, _NO_ACTION
        game.actions.append(action)
        env.step(action)
        for seat, reward in env.rewards.items():
            returns[seat] += reward
        if action == _NO_ACTION and env.infos[agent].get("illegal") is not True:
            yield f"an illegal move is not reported in infos[{agent!r}]['illegal'] ({game})"
    low = env.metadata["utility_range"][0]
    costs = env.metadata.get("on_illegal", "forfeit") == "forfeit"
    if offender is not None and costs and returns[offender] >= low - 1e-9:
        yield (
            f"an illegal move brought {offender} {returns[offender]:g}, which is not less than the worst legal outcome "
            f"{low:g} ({game})"
        )


def _clone(make_env: MakeEnv, seed: int) -> Iterator[str]:
    """Clone in mid-game; neither of the two may feel what is done to the other, and both must go on alike."""
    env = make_env()
    if not env.metadata["clone"]:
        return
    chooser, game = random.Random(seed), _Game(seed=seed)
    env.reset(seed=seed)
    for _ in range(chooser.randrange(3)):
        if env.terminations[env.agent_selection] or env.truncations[env.agent_selection]:
            break
        game.actions.append(_choose(env, env.agent_selection, chooser, game))
        env.step(game.actions[-1])
    twin = env.clone()
    seen = _snapshot(twin)
    if seen != _snapshot(env):
        yield f"a clone differs from the game it was made from ({game})"
    first = _finish(env, random.Random(seed), game)
    if _snapshot(twin) != seen:
        yield f"a clone is not independent: playing on in the original changed it ({game})"
    elif _finish(twin, random.Random(seed), game) != first:
        yield f"a clone is not independent: the same moves went on differently in it ({game})"


def _finish(env: AECEnv, chooser: random.Random, game: _Game) -> list[Any]:
    trace: list[Any] = []
    while env.agents and len(trace) < MAX_STEPS:
        agent = env.agent_selection
        over = env.terminations[agent] or env.truncations[agent]
        env.step(None if over else _choose(env, agent, chooser, game))
        trace.append(_snapshot(env))
    return trace


def _snapshot(env: AECEnv) -> list[Any]:
    seats = [(agent, env.observe(agent), env.rewards[agent], dict(env.infos[agent])) for agent in env.agents]
    return [env.agent_selection, seats]


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, abs_tol=1e-6)
