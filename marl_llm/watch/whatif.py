"""What if: an episode played on from one of its turns, otherwise; and what a checkpoint makes of its tokens."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import exp, isnan
from typing import Any

from games.base import find
from marl_llm.branches.forks import branch
from marl_llm.config import GameConfig, PlayConfig
from marl_llm.config.require import require
from marl_llm.errors import GameError, RunError
from marl_llm.matchmaking import seat_policy
from marl_llm.measures import measured
from marl_llm.play import Hall, Table, make_game
from marl_llm.run import keep_whatif, whatif_ids
from marl_llm.text import is_plain, read_action, without_thoughts
from marl_llm.types import Episode, Match, Turn
from marl_llm.watch.seats import PERSON, Seats

MOST = 256
"""Branches that may be asked for at once."""
LARGEST = 700.0
"""Logarithm of the largest ratio that is told, which is still a finite number."""
MARK = "w"
"""In the ids of branches, so that none is called as one that training has made."""
Json = dict[str, Any]
Tell = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How an episode shall go on."""

    turn: int
    """The first turn that is another one."""
    policy: str | None = None
    """Who has the turn's seat from then on; None: who had it."""
    reply: str | None = None
    """What is said in the turn; None: what whoever sits there says."""
    n: int = 1
    """How often."""
    step: int | None = None
    """Checkpoint of the run's policies; None: that of the weights that played, or the latest one before."""


def branched(seats: Seats, original: Episode, at: int | None, wish: Wish, tell: Tell) -> Json:
    """Play the episode on from a turn, and keep what comes of it; `at`: the step that it is of, None: no step's.

    Raises:
        ConfigError, RunError: there is no such turn, policy or checkpoint, nobody can sit where a person sat, or the
            game does not follow from its seed.
        GameError: the game raised.
    """
    match = original.match
    require(
        0 <= wish.turn < len(original.turns),
        "turn",
        wish.turn,
        f"one of the {len(original.turns)} of {match.id}, from 0 on",
    )
    require(1 <= wish.n <= MOST, "n", wish.n, f"between 1 and {MOST}")
    step = seats.before(at) if wish.step is None else seats.require(wish.step)
    matches = _matches(original, wish, seats.config.play, whatif_ids(seats.path, at))
    require_follows(matches[0], original)
    game = GameConfig(name=match.game, settings=dict(match.settings))
    with seats.seated(set(matches[0].seats.values()), step, game, lambda text: tell(text, 0, wish.n)) as policies:
        hall, done = Hall(policies, max_turns=seats.config.play.max_turns), []
        hall.begin(matches)
        while hall.num_matches:
            over = hall.poll()
            done += over
            if over:
                tell("playing", len(done), wish.n)
    place = {match.id: number for number, match in enumerate(matches)}
    done.sort(key=lambda episode: place[episode.match.id])
    asked = _asked(original, wish, step)
    kept = keep_whatif(seats.path, at, [with_asked(dated(episode, seats, step), asked) for episode in done])
    return {
        "episodes": [episode.match.id for episode in kept],
        "returns": {agent: [episode.returns[agent] for episode in kept] for agent in original.returns},
        "original": dict(original.returns),
        "step": step,
    }


def _matches(original: Episode, wish: Wish, play: PlayConfig, taken: set[str]) -> list[Match]:
    turn = original.turns[wish.turn]
    settled = {agent: seat_policy(original.match.seats, agent) for agent in original.returns}
    if wish.policy is not None:
        settled[turn.agent] = wish.policy
    people = [agent for agent, policy in settled.items() if policy == PERSON]
    if people:
        raise RunError(
            f"seat {people[0]} of {original.match.id} is a person's, who is not asked again: branch at one of the "
            "person's own turns, and say which policy plays on there"
        )
    said = None
    if wish.reply is not None:
        action = spoken(wish.reply, turn.legal_actions, play)
        said = replace(turn, policy=PERSON, reply=wish.reply, action=action)
    first = 0
    while branch(original, wish.turn, number=first, purpose=MARK).id in taken:
        first += 1
    return [
        replace(branch(original, wish.turn, number=number, purpose=MARK, said=said), seats=settled)
        for number in range(first, first + wish.n)
    ]


def spoken(reply: str, legal_actions: tuple[str, ...] | None, play: PlayConfig) -> str | None:
    """The action of what a person wrote: a legal action as such, else what would be read in a model's reply.

    Where any text is an action, that is all of it but its thoughts, unless there is an answer between tags. None: there
    is none.
    """
    named = None if legal_actions is None else find(reply, legal_actions)
    if named is not None:
        return named
    plain = is_plain(play.answers, legal_actions)
    read = read_action(reply, legal_actions, thinking=play.thinking, plain=plain)
    if read is None and legal_actions is None:
        return without_thoughts(reply) or None
    return read


def require_follows(match: Match, original: Episode) -> None:
    """Refuse to branch an episode of which it does not come out the same when it is played again up to the turn.

    Raises:
        RunError: it does not.
    """
    assert match.branch is not None
    told = f"{original.match.id} cannot be branched"
    if not make_game(match.game, match.settings).unwrapped.metadata.get("seeded", True):
        raise RunError(f"{told}: the game {match.game} does not follow from its seed, and would be another one")
    try:
        table = Table(match, len(original.turns) + 1)
    except GameError as error:
        raise RunError(f"{told}, since the game does not follow from its seed: {error}") from error
    seen = [(turn.agent, turn.observation) for turn in table.turns]
    seen += [(view.agent, view.observation) for view in table.views.values()]
    for index, turn in enumerate(original.turns[: match.branch.turn + 1]):
        if index >= len(seen) or seen[index] != (turn.agent, turn.observation):
            raise RunError(
                f"{told}: the game {match.game} does not follow from its seed; turn {index} is another one when "
                "the same is played again"
            )


def _asked(original: Episode, wish: Wish, step: int) -> str:
    agent = original.turns[wish.turn].agent
    wished = [
        *([f"the reply {wish.reply[:80]!r}"] if wish.reply is not None else []),
        *([f"{wish.policy} plays {agent} from there on"] if wish.policy is not None else []),
    ]
    return f"turn {wish.turn} of {agent}: {', then '.join(wished) or 'another sample'} (policies of step {step})"


def with_asked(episode: Episode, asked: str) -> Episode:
    return replace(episode, hidden={**episode.hidden, "asked": asked})


def dated(episode: Episode, seats: Seats, step: int) -> Episode:
    """The episode, in which tokens have the step of the checkpoint that they are from as their version."""
    turns = [
        turn if index < episode.match.begins else _dated_turn(turn, seats.version(turn.policy, step))
        for index, turn in enumerate(episode.turns)
    ]
    return replace(episode, turns=tuple(turns))


def _dated_turn(turn: Turn, version: int | None) -> Turn:
    if turn.completion is None or version is None:
        return turn
    versions = (version,) * len(turn.completion.tokens)
    return replace(turn, completion=replace(turn.completion, versions=versions))


def scored(seats: Seats, original: Episode, at: int | None, step: int | None, tell: Tell) -> Json:
    """Of each turn (by its index) of the run's models, and each of its sampled tokens: `entropy` (nats) of the policy
    at a checkpoint, its `logprob`, and `ratio`, its probability over that with which the token was drawn.

    `step`: as in `Wish`. What was not sampled in the episode itself, but in the one it was forked from, is null.

    Raises:
        RunError: there is no such checkpoint, or no turn has tokens.
    """
    step = seats.before(at) if step is None else seats.require(step)
    names = {turn.policy: seats.model(turn.policy) for turn in original.turns if turn.completion and turn.prompt}
    learners = {
        name: seats.learner(model, step, lambda text: tell(text, 0, 1))
        for name, model in names.items()
        if model is not None and seats.config.policies[model].temperature > 0
    }
    if not learners:
        raise RunError(
            f"{original.match.id} has no tokens that a model of this run sampled at a temperature above 0, or the run "
            "does not log them (run.tokens)"
        )
    tell("scoring", 0, 1)
    told = measured([original], learners, ("entropy", "logprob_now"))[0]
    turns = {str(index): _scores(turn) for index, turn in enumerate(told.turns) if turn.policy in learners}
    return {"id": original.match.id, "step": step, "turns": turns}


def _scores(turn: Turn) -> Json:
    found: dict[str, tuple[float, ...]] = {"entropy": (), "logprob": (), "ratio": ()}
    if turn.completion is not None and "logprob_now" in turn.token_probes:
        now, then = turn.token_probes["logprob_now"], turn.completion.logprobs
        ratio = tuple(exp(min(new - old, LARGEST)) for new, old in zip(now, then, strict=True))
        found = {"entropy": turn.token_probes["entropy"], "logprob": now, "ratio": ratio}
    return {name: [None if isnan(value) else value for value in values] for name, values in found.items()}
