"""Scripted players: random, noisy, equilibrium (CFR), perfect (minimax), searching (MCTS), tit for tat, bargainer,
informed.

All but the random one read the state from `View.state_key` alone, so that they know no more than their seat (but the
informed one, which knows the truth), and play only games on OpenSpiel's rules, matrix games (tit for tat), negotiation
(bargainer) or pipelines (informed). Every draw comes from `View.seed`.
"""

import difflib
import inspect
import json
import math
import random
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar

import pyspiel

import games
from games.matrix_game import moves_of
from games.negotiation import worths
from marl_llm.config import PolicyKind
from marl_llm.errors import ConfigError
from marl_llm.policies.base import Reply, Strategy, View
from marl_llm.policies.openspiel import Rules, board_values, rules_of

P = TypeVar("P")
A = TypeVar("A", int, str)


class ScriptedPolicy(ABC):
    """Answers at once, with a draw from the distribution that `strategies` reports."""

    def __init__(self) -> None:
        self._ready: list[tuple[Hashable, Reply]] = []

    @abstractmethod
    def distribution(self, view: View) -> dict[str, float]:
        """Probability of each legal action in the view.

        Raises:
            ConfigError: the policy cannot play this game.
        """

    def submit(self, ticket: Hashable, view: View) -> None:
        """Decide now; the reply is the bare action."""
        chances = self.distribution(view)
        (action,) = random.Random(view.seed).choices(list(chances), list(chances.values()))
        self._ready.append((ticket, Reply(text=action, action=action)))

    def poll(self) -> list[tuple[Hashable, Reply]]:
        """All decisions that were asked for since the last call."""
        ready, self._ready = self._ready, []
        return ready

    def strategies(self, views: Sequence[View]) -> list[Strategy]:
        """The distribution over legal actions in each view.

        Raises:
            ValueError: a view has no legal actions.
        """
        return [Strategy(actions=self.distribution(view)) for view in views]


class RandomPolicy(ScriptedPolicy):
    """Every legal action is equally likely, or every example where actions are not a list."""

    def distribution(self, view: View) -> dict[str, float]:
        legal = _legal(view)
        return dict.fromkeys(legal, 1 / len(legal))


class TitForTatPolicy(ScriptedPolicy):
    """Iterated matrix games: the first action at first, then the one that the other took last.

    For games whose first action is to cooperate. Where the players talk it says what it will do.
    """

    def distribution(self, view: View) -> dict[str, float]:
        try:
            moves = moves_of(view.state_key)
        except ValueError as error:
            raise ConfigError(f"policy tit_for_tat: plays matrix_game only, not {view.game}") from error
        chosen, options = moves[-1][1] if moves else 0, _legal(view)
        if chosen >= len(options):
            raise ConfigError("policy tit_for_tat: needs a matrix game with the same actions for both players")
        return {action: float(number == chosen) for number, action in enumerate(options)}


class BargainerPolicy(ScriptedPolicy):
    """Negotiation: a greedy party, which knows what things are worth to it and thinks of nothing else.

    It accepts an offer with the probability that is its share of the pool's worth, else it proposes:
    softmax(share of the worth that it asks for / temperature).
    """

    def __init__(self, *, temperature: float = 0.2) -> None:
        super().__init__()
        self._temperature = _temperature("bargainer", temperature)

    def distribution(self, view: View) -> dict[str, float]:
        legal = _legal(view)
        try:
            shares = worths(view.state_key, legal)
        except ValueError as error:
            raise ConfigError(f"policy bargainer: plays negotiation only, not {view.game}") from error
        asked = {action: share for action, share in shares.items() if action.startswith("propose")}
        accepts = shares.get("accept", 0.0)
        chances = {action: (1 - accepts) * chance for action, chance in _softmax(asked, self._temperature).items()}
        return dict.fromkeys(legal, 0.0) | chances | ({"accept": accepts} if "accept" in shares else {})


class InformedPolicy(ScriptedPolicy):
    """Pipelines: says what somebody who knows the truth would say, with probability `accuracy`, else something else.

    That is one of the other choices, or of the game's examples. A demonstrator for warm-ups: the truth comes from the
    game's `advise`, which no policy that learns has.
    """

    def __init__(self, *, accuracy: float = 0.7) -> None:
        super().__init__()
        if not isinstance(accuracy, (int, float)) or isinstance(accuracy, bool) or not 0 <= accuracy <= 1:
            raise ConfigError(f"informed.accuracy: {accuracy!r} is not allowed; it must be between 0 and 1")
        self._accuracy = float(accuracy)

    def distribution(self, view: View) -> dict[str, float]:
        advise = _adviser(view.game, json.dumps(dict(view.settings), sort_keys=True))
        if advise is None or view.state_key is None:
            raise ConfigError(f"policy informed: plays pipelines on tasks only, not {view.game}")
        advice = advise(view.state_key)
        others = [action for action in _legal(view) if action != advice] or [advice]
        chances = dict.fromkeys(others, (1 - self._accuracy) / len(others))
        return chances | {advice: chances.get(advice, 0.0) + self._accuracy}


@lru_cache(maxsize=64)
def _adviser(game: str, settings: str) -> Callable[[str], str] | None:
    """What the game advises by state key; None: it has no advice."""
    env: Any = games.make(game, **json.loads(settings)).unwrapped
    return getattr(getattr(env, "parallel", env), "advise", None)


class _StatePolicy(ScriptedPolicy):
    """Decides by the state that the state key stands for."""

    @abstractmethod
    def _chances(self, rules: Rules, key: str, seed: int) -> dict[int, float]:
        """Probability of OpenSpiel's actions in the information state; an action left out has none."""

    def distribution(self, view: View) -> dict[str, float]:
        legal = _legal(view)
        rules = rules_of(view.game, view.settings)
        if view.state_key is None:
            raise ConfigError(f"game {view.game}: has no state keys, which {type(self).__name__} needs")
        state = rules.state(view.state_key)
        ids = rules.env.legal(state, state.current_player())
        chances = self._chances(rules, view.state_key, view.seed)
        return {action: chances.get(ids[action], 0.0) for action in legal}


class CFRPolicy(_StatePolicy):
    """The average policy of CFR+ (arXiv 1407.5042), close to an equilibrium in two-player zero-sum games.

    A game is solved when it is first met, once per settings and process. Only games with hidden information.
    """

    def __init__(self, *, iterations: int = 1000) -> None:
        super().__init__()
        self._iterations = _whole("cfr", "iterations", iterations, least=1)

    def _chances(self, rules: Rules, key: str, seed: int) -> dict[int, float]:
        if not rules.hidden:
            raise ConfigError(f"policy cfr: {rules.name} hides nothing; use minimax or mcts")
        return dict(_solved(rules, self._iterations)[key])


@lru_cache(maxsize=8)
def _solved(rules: Rules, iterations: int) -> dict[str, list[tuple[int, float]]]:
    solver = pyspiel.CFRPlusSolver(rules.env.game)
    for _ in range(iterations):
        solver.evaluate_and_update_policy()
    table: dict[str, list[tuple[int, float]]] = solver.tabular_average_policy().policy_table()
    return table


class MinimaxPolicy(_StatePolicy):
    """Perfect play of small two-player zero-sum games in the open; uniform among the best moves."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[Rules, dict[str, float]] = {}

    def _chances(self, rules: Rules, key: str, seed: int) -> dict[int, float]:
        if not rules.small_board:
            raise ConfigError(
                f"policy minimax: {rules.name} is not a small two-player zero-sum game without chance or "
                f"secrets; use {'cfr' if rules.hidden else 'mcts'}"
            )
        memo = self._values.setdefault(rules, {})
        values = board_values(rules.state(key), memo, lambda player, of: (max, min)[player](of))
        best = max(values.values())
        best_moves = [action for action, value in values.items() if value == best]
        return dict.fromkeys(best_moves, 1 / len(best_moves))


class MCTSPolicy(_StatePolicy):
    """UCT search with random rollouts; where something is hidden, over sampled worlds (ISMCTS).

    A decision is a search seeded by `View.seed`: `strategies` reports what that one search would play.
    """

    def __init__(self, *, simulations: int = 100) -> None:
        super().__init__()
        self._simulations = _whole("mcts", "simulations", simulations, least=1)

    def _chances(self, rules: Rules, key: str, seed: int) -> dict[int, float]:
        seed %= 2**31 - 1  # OpenSpiel's seeds are 32-bit
        rollouts = pyspiel.RandomRolloutEvaluator(1, seed)
        if rules.hidden:
            bot = pyspiel.ISMCTSBot(seed, rollouts, 2.0, self._simulations)
        else:
            bot = pyspiel.MCTSBot(rules.env.game, rollouts, 2.0, self._simulations, 100, True, seed, False)
        policy, _ = bot.step_with_policy(rules.state(key).clone())
        return dict(policy)


class NoisyPolicy(_StatePolicy):
    """Prefers what pays if all seats play at random afterwards: softmax(mean return / temperature).

    `temperature` counts in widths of the game's utility range, so that one value suits games of all stakes. `never` is
    an action that it expects of nobody afterwards: where nobody folds, better cards are worth more in every situation.
    On small boards `foresight` is the number of moves that it expects to be the best ones before random play begins.
    Mean returns are exact for games with hidden information and for small boards, else from `rollouts` random
    games per action, the same ones whenever a state is met.
    """

    def __init__(
        self, *, temperature: float = 0.4, rollouts: int = 32, never: str | None = None, foresight: int = 0
    ) -> None:
        super().__init__()
        self._temperature = _temperature("noisy", temperature)
        self._rollouts = _whole("noisy", "rollouts", rollouts, least=1)
        self._foresight = _whole("noisy", "foresight", foresight, least=0)
        self._never = never
        self._boards: dict[Rules, dict[str, float]] = {}
        self._cache: dict[tuple[Rules, str], dict[int, float]] = {}

    def _chances(self, rules: Rules, key: str, seed: int) -> dict[int, float]:
        if (rules, key) not in self._cache:
            width = rules.env.game.max_utility() - rules.env.game.min_utility()  # the returns below are not scaled
            self._cache[rules, key] = _softmax(self._returns(rules, key), self._temperature * width)
        return self._cache[rules, key]

    def _returns(self, rules: Rules, key: str) -> dict[int, float]:
        """Mean return of each action for the player to move."""
        if self._foresight and not rules.small_board:
            raise ConfigError(f"noisy.foresight: {rules.name} is not a small board without secrets; set it to 0")
        if rules.hidden:
            return rules.tree_without(self._never).returns(key)
        state = rules.state(key)
        if rules.small_board:
            memo = self._boards.setdefault(rules, {})
            return board_values(state, memo, lambda _, of: sum(of) / len(of), best=self._foresight)
        draws, player, times = random.Random(zlib.crc32(key.encode())), state.current_player(), self._rollouts
        return {
            action: sum(_rollout(state.child(action), draws)[player] for _ in range(times)) / times
            for action in state.legal_actions()
        }


_KINDS: dict[str, Callable[..., ScriptedPolicy]] = {
    "random": RandomPolicy,
    "noisy": NoisyPolicy,
    "cfr": CFRPolicy,
    "minimax": MinimaxPolicy,
    "mcts": MCTSPolicy,
    "tit_for_tat": TitForTatPolicy,
    "bargainer": BargainerPolicy,
    "informed": InformedPolicy,
}


def make_scripted(kind: PolicyKind, options: Mapping[str, Any]) -> ScriptedPolicy:
    """The scripted player of this kind.

    Raises:
        ConfigError: the kind is not a scripted one, or an option is unknown or out of range.
    """
    if kind not in _KINDS:
        raise ConfigError(f"policy kind {kind!r} is not scripted; scripted are: {', '.join(_KINDS)}")
    return with_options(kind, _KINDS[kind], options)


def with_options(kind: str, make: Callable[..., P], options: Mapping[str, Any]) -> P:
    """What `make` makes of the options of a policy.

    Raises:
        ConfigError: an option is unknown (the nearest valid name is given), missing or out of range.
    """
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, n=1, cutoff=0.0)
            hint = f"nearest valid name: {near[0]}; allowed: {', '.join(known)}" if near else "it has no options"
            raise ConfigError(f"policy {kind}: unknown option {option!r}; {hint}")
    for name, parameter in known.items():
        if parameter.default is parameter.empty and name not in options:
            raise ConfigError(f"policy {kind}: option {name!r} is missing; allowed: {', '.join(known)}")
    return make(**options)


def _rollout(state: Any, draws: random.Random) -> list[float]:
    """Returns of all players when all play at random from `state`, which is changed."""
    while not state.is_terminal():
        if state.is_chance_node():
            outcomes, chances = zip(*state.chance_outcomes())
            state.apply_action(draws.choices(outcomes, chances)[0])
        else:
            state.apply_action(draws.choice(state.legal_actions()))
    return list(state.returns())


def _softmax(values: Mapping[A, float], temperature: float) -> dict[A, float]:
    greatest = max(values.values())
    weights = {action: math.exp((value - greatest) / temperature) for action, value in values.items()}
    total = sum(weights.values())
    return {action: weight / total for action, weight in weights.items()}


def _legal(view: View) -> tuple[str, ...]:
    """The legal actions, or examples of them."""
    legal = view.examples if view.legal_actions is None else view.legal_actions
    if not legal:
        raise ValueError(f"game {view.game}: {view.agent} has no legal actions to choose from")
    return legal


def _temperature(policy: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < math.inf:
        raise ConfigError(f"{policy}.temperature: {value!r} is not allowed; it must be more than 0")
    return float(value)


def _whole(policy: str, option: str, value: object, *, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{policy}.{option}: {value!r} is not allowed; it must be a whole number, {least} or more")
    return value
