"""Iterated matrix games: two players choose at the same time, round after round, without knowing which is the last."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from games.base import ANSWER, Legal, Parts
from games.settings import OnIllegal, check_whole, refused
from games.text_game import TextGame

Cell = tuple[float, float]
Table = Sequence[Sequence[Sequence[float]]]

NAME = "matrix_game"
SEATS = ("player_0", "player_1")
MAX_MESSAGE = 120
"""Characters of a message that the other player gets to read."""

_DIAGONAL = {
    "prisoners_dilemma": (("cooperate", "defect"), (3, 0, 5, 1)),
    "stag_hunt": (("stag", "hare"), (4, 0, 3, 2)),
    "chicken": (("swerve", "straight"), (3, 1, 4, 0)),
}
"""Symmetric games of two actions: what the first player gets for 00, 01, 10, 11."""

NAMED: dict[str, tuple[tuple[str, ...], Table]] = {
    name: (actions, [[(cc, cc), (cd, dc)], [(dc, cd), (dd, dd)]])
    for name, (actions, (cc, cd, dc, dd)) in _DIAGONAL.items()
} | {
    "battle_of_the_sexes": (("opera", "football"), [[(3, 2), (0, 0)], [(0, 0), (2, 3)]]),
    "rock_paper_scissors": (
        ("rock", "paper", "scissors"),
        [[(0, 0), (-1, 1), (1, -1)], [(1, -1), (0, 0), (-1, 1)], [(-1, 1), (1, -1), (0, 0)]],
    ),
}
"""Games by name: their actions, and the payoffs of both players by row and column."""


def env(
    *,
    payoffs: str | Table = "prisoners_dilemma",
    actions: Sequence[str] | Sequence[Sequence[str]] | None = None,
    continuation: float = 0.9,
    max_rounds: int = 50,
    talk: bool = False,
    memory: int = 5,
    on_illegal: OnIllegal = "forfeit",
) -> "MatrixGame":
    """An iterated matrix game, as a PettingZoo `ParallelEnv`.

    `payoffs`: `prisoners_dilemma`, `stag_hunt`, `chicken`, `battle_of_the_sexes`, `rock_paper_scissors`, or a matrix
    of [payoff of player_0, payoff of player_1] by row (action of player_0) and column. `actions`: names for an
    explicit matrix, one list for both players or one each; `a`, `b`, ... by default. After every round the game goes
    on with probability `continuation`, for at most `max_rounds` rounds; how many there are is drawn from the seed.
    `talk`: before every round both say something, at the same time. `memory`: how many rounds back players see.

    Raises:
        ValueError: a setting is out of range.
    """
    if isinstance(payoffs, str):
        if payoffs not in NAMED:
            raise refused(NAME, "payoffs", payoffs, f"{', '.join(NAMED)}, or a matrix")
        if actions is not None:
            raise refused(NAME, "actions", actions, f"left out, {payoffs} has its own")
        actions, payoffs = NAMED[payoffs]
    table = _cells(payoffs)
    if not 0 <= continuation <= 1:
        raise refused(NAME, "continuation", continuation, "between 0 and 1")
    check_whole(NAME, max_rounds=max_rounds, memory=memory)
    return MatrixGame(
        table=table,
        actions=_names(actions, (len(table), len(table[0]))),
        continuation=continuation,
        max_rounds=max_rounds,
        talk=talk,
        memory=memory,
        on_illegal=on_illegal,
    )


def moves_of(state_key: str | None) -> list[tuple[int, int]]:
    """The rounds so far in a state key of this game: numbers of one's own action and of the other's.

    Raises:
        ValueError: it is no state key of this game.
    """
    name, _, rounds = (state_key or "").split("|")[0].partition(" ")
    if name not in {f"{NAME}/{agent}" for agent in SEATS}:
        raise ValueError(f"{state_key!r} is not a state key of {NAME}")
    pairs = (pair.split("/") for pair in rounds.split())
    return [(int(own), int(other)) for own, other in pairs]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rounds:
    """How far an iterated game has come."""

    number: int
    """Rounds in all, which no player knows."""
    moves: tuple[tuple[int, int], ...] = ()
    """Numbers of both actions, by round."""
    said: tuple[tuple[str, str], ...] = ()
    """What both said, by round."""


class MatrixGame(TextGame[Rounds]):
    """Utility: points, paid after every round. Seats share the role `player` if the game is the same from both."""

    def __init__(
        self,
        *,
        table: list[list[Cell]],
        actions: tuple[tuple[str, ...], tuple[str, ...]],
        continuation: float,
        max_rounds: int,
        talk: bool,
        memory: int,
        on_illegal: OnIllegal,
    ) -> None:
        self._table, self._actions = table, actions
        self._continuation, self._max_rounds = continuation, max_rounds
        self._talk, self._memory = talk, memory
        symmetric = actions[0] == actions[1] and all(
            cell == table[j][i][::-1] for i, row in enumerate(table) for j, cell in enumerate(row)
        )
        points = [value for row in table for cell in row for value in cell]
        low, high = min(points), max(points)
        say = "First both say something, then both act. " if talk else ""
        super().__init__(
            name=NAME,
            rules=(
                f"Matrix game. Two players choose at the same time, in every round anew. {say}After a round the game "
                f"goes on with probability {continuation:g}, for {max_rounds} rounds at most. Points per round, "
                f"{self._pay_list(symmetric)}. You want many points."
            ),
            answer="Say anything when told to, else answer with one of the legal actions" if talk else ANSWER,
            seats={agent: "player" if symmetric else agent for agent in SEATS},
            utility_range=(min(low, low * max_rounds), max(high, high * max_rounds)),
            on_illegal=on_illegal,
            zero_sum=all(sum(cell) == 0 for row in table for cell in row),
        )

    def deal(self, draws: Random) -> Rounds:
        number = 1
        while number < self._max_rounds and draws.random() < self._continuation:
            number += 1
        return Rounds(number=number)

    def legal(self, agent: str) -> Legal:
        return None if self._talking() else self._actions[SEATS.index(agent)]

    def read(self, agent: str, text: str) -> str | None:
        return " ".join(text.split())[:MAX_MESSAGE] or None if self._talking() else super().read(agent, text)

    def examples(self, agent: str) -> tuple[str, ...]:
        return tuple(f"I will play {action}" for action in self._actions[SEATS.index(agent)])

    def offer(self, agent: str) -> str:
        return "Say something to the other player." if self._talking() else super().offer(agent)

    def see(self, agent: str) -> str:
        position, me = self.position, SEATS.index(agent)
        played = [(self._actions[me][pair[me]], self._actions[1 - me][pair[1 - me]]) for pair in position.moves]
        shown = ", ".join(f"{own}/{other}" for own, other in played[-self._memory :]) or "none"
        dots = "..., " if len(played) > self._memory else ""
        over = len(played) == position.number
        text = f"{'The game is over' if over else f'Round {len(played) + 1}'}. Rounds so far, you/other: {dots}{shown}."
        if len(position.said) > len(played):
            text += f" You said: {position.said[-1][me]!r}. The other said: {position.said[-1][1 - me]!r}."
        return text

    def state_key(self, agent: str) -> str:
        position, me = self.position, SEATS.index(agent)
        rounds = "".join(f" {pair[me]}/{pair[1 - me]}" for pair in position.moves)
        said = "".join(f"|{pair[me]!r}/{pair[1 - me]!r}" for pair in position.said)
        return f"{NAME}/{agent}{rounds}{said}"

    def after(self, actions: Mapping[str, str]) -> tuple[Rounds, Parts]:
        position = self.position
        one, other = (actions[agent] for agent in SEATS)
        if self._talking():
            return replace(position, said=(*position.said, (one, other))), {}
        pair = (self._actions[0].index(one), self._actions[1].index(other))
        points = self._table[pair[0]][pair[1]]
        paid = {agent: {"outcome": value} for agent, value in zip(SEATS, points)}
        return replace(position, moves=(*position.moves, pair)), paid

    def over(self, agent: str) -> bool:
        return len(self.position.moves) == self.position.number

    def _talking(self) -> bool:
        return self._talk and len(self.position.said) == len(self.position.moves)

    def _pay_list(self, symmetric: bool) -> str:
        cells = [
            (f"{row}/{column}", self._table[i][j])
            for i, row in enumerate(self._actions[0])
            for j, column in enumerate(self._actions[1])
        ]
        if symmetric:
            return "you/other: " + ", ".join(f"{moves} {own:g}" for moves, (own, _) in cells)
        return "player_0/player_1: " + ", ".join(f"{moves} {own:g}/{other:g}" for moves, (own, other) in cells)


_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _cells(payoffs: Table) -> list[list[Cell]]:
    """The matrix as pairs, all rows of one length."""
    shape = "a matrix of [payoff of player_0, payoff of player_1]"
    try:
        table = [[(float(own), float(other)) for own, other in row] for row in payoffs]
    except (TypeError, ValueError) as error:
        raise refused(NAME, "payoffs", payoffs, shape) from error
    if not table or not table[0] or len({len(row) for row in table}) > 1:
        raise refused(NAME, "payoffs", payoffs, f"{shape} with rows of one length")
    return table


def _names(
    actions: Sequence[str] | Sequence[Sequence[str]] | None, shape: tuple[int, int]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the actions of both players."""
    lists: list[Any]
    if actions is None:
        lists = [_LETTERS[:count] for count in shape]
    else:
        lists = [actions, actions] if all(isinstance(name, str) for name in actions) else list(actions)
    named = [tuple(str(name).strip().casefold() for name in names) for names in lists]
    if [len(set(names) - {""}) for names in named] != list(shape):
        raise refused(NAME, "actions", actions, f"{shape[0]} and {shape[1]} different names")
    return named[0], named[1]
