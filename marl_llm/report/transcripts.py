"""Episodes as a reader sees them: turn by turn, with what each was worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from marl_llm.report.logs import episode_at
from marl_llm.report.sample import Sample, action_name
from marl_llm.text import parted
from marl_llm.types import Turn
from marl_llm.visible import cut

LONGEST = 4000
"""Characters of a text in a transcript."""
EXCERPT = 600
"""The same in the short ones beside a decision."""
BEFORE, AFTER = 3, 6
"""Turns around the decision in these."""
MOST_TURNS = 60
LONG = 2
"""A reply is shown for its length where it is longer than the median by this factor."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A text that may have been cut."""

    text: str
    left_out: int
    """Characters that are missing."""
    length: int
    """Characters of the whole."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One turn."""

    number: int
    agent: str
    role: str
    policy: str
    observation: Said
    thought: Said | None
    reply: Said
    """Without the thought."""
    action: str
    legal: bool
    plain: bool
    """Whether the reply says nothing but its action."""
    rewards: Mapping[str, float | None]
    advantage: float | None
    here: bool
    """Whether it is the decision that the transcript is shown for."""


@dataclass(frozen=True, kw_only=True)
class Transcript:
    """An episode, or a part of it."""

    title: str
    id: str
    step: int
    status: str
    note: str
    returns: Mapping[str, float]
    lines: tuple[Line, ...]
    before: int
    """Turns that are left out before them."""
    after: int
    """And after them."""


def transcript(sample: Sample, place: int, *, title: str, turn: int | None = None) -> Transcript | None:
    """The episode at `sample.places[place]`; with `turn` what happened around that turn, shortly. None: it has gone."""
    file, offset = sample.places[place]
    episode = episode_at(file, offset)
    if episode is None:
        return None
    table = sample.decisions
    rows = np.flatnonzero(table.episode == place)
    known = dict(zip(table.turn[rows].tolist(), table.advantage[rows].tolist(), strict=True))
    first, last = (0, MOST_TURNS) if turn is None else (max(0, turn - BEFORE), turn + AFTER)
    shown = list(enumerate(episode.turns))[first:last]
    longest = LONGEST if turn is None else EXCERPT
    return Transcript(
        title=title,
        id=episode.match.id,
        step=int(table.step[rows[0]]) if len(rows) else 0,
        status=episode.status,
        note=episode.note,
        returns=dict(episode.returns),
        lines=tuple(_line(index, t, known.get(index), longest, index == turn) for index, t in shown),
        before=first,
        after=max(0, len(episode.turns) - last),
    )


def _line(index: int, turn: Turn, advantage: float | None, longest: int, here: bool) -> Line:
    thought, reply = parted(turn.reply)
    return Line(
        number=index,
        agent=turn.agent,
        role=turn.role,
        policy=turn.policy,
        observation=_said(turn.observation, longest),
        thought=_said(thought, longest) if thought is not None else None,
        reply=_said(reply, longest),
        action=action_name(turn),
        legal=turn.legal is not False,
        plain=turn.action is not None and reply.strip() in (f"<answer>{turn.action}</answer>", turn.action),
        rewards=dict(turn.rewards),
        advantage=advantage if advantage is not None and isfinite(advantage) else None,
        here=here,
    )


def _said(text: str, longest: int) -> Said:
    shown, left_out = cut(text.strip("\n"), longest)
    return Said(text=shown, left_out=left_out, length=len(text))


def of_last_step(sample: Sample) -> list[Transcript]:
    """Episodes of the last sampled step: best, worst, greatest advantage, and one with an illegal move if any."""
    table = sample.decisions
    if not len(table.step):
        return []
    rows = np.flatnonzero(table.step == table.step.max())
    advantages = np.nan_to_num(np.abs(table.advantage[rows]))
    chosen: list[tuple[str, int]] = [
        ("Best return", int(rows[np.nanargmax(np.nan_to_num(table.value[rows], nan=-np.inf))])),
        ("Worst return", int(rows[np.nanargmin(np.nan_to_num(table.value[rows], nan=np.inf))])),
    ]
    if advantages.any():
        chosen.append(("Greatest advantage, up or down", int(rows[np.argmax(advantages)])))
    chosen += [("An illegal move", int(row)) for row in rows[table.illegal[rows] == 1][:1]]
    longest = int(rows[np.argmax(table.length[rows])])
    if table.length[longest] > LONG * np.median(table.length[rows]):
        chosen.append(("Longest reply", longest))
    found: dict[int, list[str]] = {}
    for title, row in chosen:
        found.setdefault(int(table.episode[row]), []).append(title)
    shown: Sequence[Transcript | None] = [
        transcript(sample, place, title="; ".join(titles)) for place, titles in found.items()
    ]
    return [one for one in shown if one is not None]
