"""What a critic is held against: the episodes of one policy as trajectories, targets of values, losses of estimates.

Pure functions of numbers; who estimates is `learning.critic`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from marl_llm.types import Episode, Tokens

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """One turn of the policy, with tokens."""

    episode: str
    """Id of the match."""
    index: int
    """Of the turn in its episode."""
    prompt: Tokens
    """What was read."""
    reply: Tokens
    """What was sampled; not empty."""
    reward: float
    """What it earned, with what its agent earned in turns without tokens after it; NaN: unknown."""
    weight: float
    """Of the turn in the loss; 0 where the episode does not end by the rules, or the turn is another episode's."""
    legal: bool
    """Whether the game accepted the action."""
    gold: str | None
    """The true answer, as the game knows it; None: it knows none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trajectory:
    """The turns of one agent in one episode, in order; at least one."""

    game: str
    """Name of the game."""
    group: str
    """Group of the match."""
    role: str
    """Of the first turn."""
    finished: bool
    """Whether the episode ended by the rules."""
    turns: tuple[Told, ...]
    """Those of the policy that have tokens."""

    @property
    def total(self) -> float:
        """What the agent earned in all; NaN: unknown."""
        return sum(turn.reward for turn in self.turns)

    @property
    def outcome(self) -> float:
        """The same; NaN where it is no lesson: the episode did not end by the rules, or no turn has weight."""
        return self.total if any(turn.weight for turn in self.turns) else np.nan

    def replying(self, reply: Tokens) -> "Trajectory":
        """The same, as if each turn had said this."""
        return replace(self, turns=tuple(replace(turn, reply=reply) for turn in self.turns))


def trajectories(episodes: Iterable[Episode], policy: str) -> list[Trajectory]:
    """The policy's part of the episodes, in the order of (match id, agent); of episodes at fault there is none."""
    found = []
    for episode in sorted(episodes, key=lambda episode: episode.match.id):
        agents = dict.fromkeys(turn.agent for turn in episode.turns if turn.policy == policy)
        for agent in sorted(agents) if episode.status != "fault" else ():
            turns = _told(episode, agent, policy)
            if turns:
                found.append(
                    Trajectory(
                        game=episode.match.title,
                        group=episode.match.group,
                        role=episode.turns[turns[0].index].role,
                        finished=episode.status == "done",
                        turns=tuple(turns),
                    )
                )
    return found


def _told(episode: Episode, agent: str, policy: str) -> list[Told]:
    gold = episode.hidden.get("gold")
    done = episode.status == "done"
    found: list[Told] = []
    rewards: list[float] = []
    for index, turn in enumerate(episode.turns):
        if turn.agent != agent or turn.policy != policy:
            continue
        reward = sum(np.nan if value is None else value for value in turn.rewards.values())
        if turn.prompt and turn.completion is not None and turn.completion.tokens:
            weight = turn.weight if done and index >= episode.match.begins else 0.0
            found.append(
                Told(
                    episode=episode.match.id,
                    index=index,
                    prompt=turn.prompt,
                    reply=turn.completion.tokens,
                    reward=0.0,
                    weight=weight,
                    legal=turn.legal is True,
                    gold=None if gold is None else str(gold),
                )
            )
            rewards.append(reward)
        elif rewards:
            rewards[-1] += reward
    return [replace(turn, reward=reward) for turn, reward in zip(found, rewards, strict=True)]


def value_targets(rewards_N: Floats, values_N: Floats, last_N: NDArray[np.bool_], gamma: float, lam: float) -> Floats:
    """GAE(lam) advantages plus the values, which are those before each row; with lam 1 the discounted rewards to come.

    `last_N`: whether a row is the last of its trajectory, with whose end nothing is to come. A row whose later rewards
    are unknown is unknown (NaN). Source: arXiv 1506.02438; T-PPO, 2506.15050, learns them from finished episodes alone.
    """
    targets_N = np.empty_like(rewards_N)
    value = advantage = 0.0
    rows = zip(rewards_N.tolist(), values_N.tolist(), last_N.tolist(), strict=True)
    for row, (reward, before, last) in reversed(list(enumerate(rows))):
        if last:
            value = advantage = 0.0
        advantage = reward + gamma * value - before + gamma * lam * advantage
        targets_N[row] = advantage + before
        value = before
    return targets_N


def twin_targets(
    rewards_N: Floats, last_N: NDArray[np.bool_], value_N: Floats, quality_N: Floats, gamma: float
) -> tuple[Floats, Floats]:
    """What Q and V of each turn should be: r + gamma V(next prompt), nothing after the last; and Q of what is said.

    `value_N`, `quality_N`: those of the target copy, before and after each turn. ArCHer (arXiv 2402.19446) draws a
    fresh reply for V; here it is the one that was said, which the present policy drew just now.
    """
    next_N = np.append(value_N[1:], 0.0)
    return rewards_N + gamma * np.where(last_N, 0.0, next_N), quality_N


def squared_error(
    values_N: torch.Tensor,
    targets_N: torch.Tensor,
    weights_N: torch.Tensor,
    *,
    before_N: torch.Tensor | None = None,
    clip: float | None = None,
) -> torch.Tensor:
    """Weighted mean of squared errors; where the target is NaN there is none.

    With `clip` the larger of that and the error of the value held within `clip` of what it was before (PPO).
    """
    weights_N = torch.where(targets_N.isnan(), 0.0, weights_N)
    errors_N = (values_N - targets_N.nan_to_num()).square()
    if clip is not None and before_N is not None:
        held_N = before_N + (values_N - before_N).clamp(-clip, clip)
        errors_N = torch.maximum(errors_N, (held_N - targets_N.nan_to_num()).square())
    return (weights_N * errors_N).sum() / weights_N.sum().clamp(min=1e-9)


def progress_loss(parts_N: torch.Tensor, of_N: torch.Tensor, returns_I: torch.Tensor) -> torch.Tensor:
    """Mean over trajectories of (sum of parts - return)^2 (SPA-RL, arXiv 2505.20732); of those with a return of NaN
    nothing is asked. `of_N`: trajectory of each part."""
    errors_I = (_sums(parts_N, of_N, len(returns_I)) - returns_I.nan_to_num()).square()
    return _mean_of_known(errors_I, returns_I)


def implicit_rewards(now_N: torch.Tensor, reference_N: torch.Tensor, beta: float) -> torch.Tensor:
    """beta (log pi_phi - log pi_ref) of each token (PRIME, arXiv 2502.01456)."""
    return beta * (now_N - reference_N)


def outcome_loss(rewards_N: torch.Tensor, of_N: torch.Tensor, labels_I: torch.Tensor) -> torch.Tensor:
    """Mean over trajectories of the cross-entropy of sigmoid(sum of implicit rewards) with the outcome, 1 or 0 (PRIME,
    arXiv 2502.01456); of those with a label of NaN nothing is asked. `of_N`: trajectory of each reward."""
    errors_I = torch.nn.functional.binary_cross_entropy_with_logits(
        _sums(rewards_N, of_N, len(labels_I)), labels_I.nan_to_num(), reduction="none"
    )
    return _mean_of_known(errors_I, labels_I)


def pair_loss(
    parts_N: torch.Tensor, of_N: torch.Tensor, pairs_P2: torch.Tensor, beta: float, size: int
) -> torch.Tensor:
    """Mean over pairs (better, worse trajectory) of -log sigmoid(beta (sum of the one - sum of the other)).

    Source: SWEET-RL, arXiv 2503.15478. `of_N`: which of `size` trajectories each part is of. 0 without pairs.
    """
    sums_I = _sums(parts_N, of_N, size)
    margins_P = sums_I[pairs_P2[:, 0]] - sums_I[pairs_P2[:, 1]]
    return -torch.nn.functional.logsigmoid(beta * margins_P).sum() / max(1, len(margins_P))


def _sums(parts_N: torch.Tensor, of_N: torch.Tensor, size: int) -> torch.Tensor:
    """Sum of the parts of each trajectory."""
    return torch.zeros(size, dtype=parts_N.dtype, device=parts_N.device).index_add(0, of_N, parts_N)


def _mean_of_known(errors_I: torch.Tensor, asked_I: torch.Tensor) -> torch.Tensor:
    """Mean of the errors where what was asked is no NaN; 0 where it always is."""
    known_I = ~asked_I.isnan()
    return torch.where(known_I, errors_I, 0.0).sum() / known_I.sum().clamp(min=1)


def successes(paths: Sequence[Trajectory], above: float) -> Floats:
    """For each trajectory 1 if more than `above` was earned, else 0; NaN where that is unknown."""
    outcomes_I = np.array([path.outcome for path in paths], dtype=np.float64)
    return np.where(np.isnan(outcomes_I), np.nan, outcomes_I > above)


def better_and_worse(paths: Sequence[Trajectory]) -> list[tuple[int, int]]:
    """Places of all pairs of finished trajectories in one role of one group of which the first earned more."""
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for place, path in enumerate(paths):
        if path.finished:
            kinds.setdefault((path.game, path.group, path.role), []).append(place)
    return [(i, j) for alike in kinds.values() for i in alike for j in alike if paths[i].total > paths[j].total]
