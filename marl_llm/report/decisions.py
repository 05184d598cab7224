"""What a policy does in the decisions that recur, what came of it, and one sentence about each."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np

from marl_llm.report.numbers import Interval, interval, percent, signed
from marl_llm.report.sample import THE_END, BoolArray, IntArray, Sample
from marl_llm.visible import shortened

MOST_STATES = 40
"""States of one game, role and policy that are shown."""
MOST_ACTIONS = 6
"""Actions of a state that are told apart; the rest is `other`."""
MOST_FOLLOWS = 5
MOST_EXAMPLES = 3
RECURRING = 8
"""A state recurs if it came this often, in more than one of the sampled steps where there are several."""
COVERED = 0.5
"""Below this share of decisions that recur, decisions are summed up by role as well."""
BINS = 6
"""Stretches of training of which mean advantages are drawn."""
LABEL = 120
NEARLY_ALL = 0.9
"""Two answers that make up this share are all that counts."""
RARE = 0.02
"""What is no choice and came less often than this is not drawn."""
FREE = 0.05
"""Where the most frequent action has a smaller share than this, actions are texts of their own."""
FREE_TEXT, WHATEVER = "a text of its own", "whatever others did"
KINDS = ("(illegal)", "(unreadable)", "(cut off)")
LEAST = 0.005
"""Share of an action from which on it is named in the table of all decisions."""
FEW = 20
"""Below this number of draws of either action nothing is concluded."""
OTHER = "other actions"
UNCOMPARED = (OTHER, "(illegal)", "(unreadable)", "(cut off)")
"""How the names end that are no choices."""


@dataclass(frozen=True, kw_only=True)
class Follow:
    """What others did next, and what came of it."""

    name: str
    count: int
    share: float
    """Of the times that the action was taken."""
    value: Interval | None
    """Return of the one who had decided."""


@dataclass(frozen=True, kw_only=True)
class Action:
    """One action in one state. `early` and `late`: the first and the last third of the sampled steps."""

    name: str
    count: int
    """In all sampled steps."""
    late_count: int
    early: float | None
    """Share; None: the state did not come."""
    late: float | None
    value: Interval | None
    """Return afterwards, late; over all sampled steps where there is nothing late."""
    advantage: Interval | None
    """Advantage, over the same."""
    throughout: Interval | None
    """Advantage over all sampled steps."""
    follows: tuple[Follow, ...]
    """Late, most frequent first."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a line."""

    step: float
    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class State:
    """A decision that recurs, or, with an empty label, all decisions of one role."""

    label: str
    """What is particular about its observation."""
    observation: str
    """The whole of it."""
    count: int
    """How often it came in the sampled steps."""
    actions: tuple[Action, ...]
    """The most frequent first."""
    shares: tuple[Point, ...]
    """Share of each action by step."""
    advantages: tuple[Point, ...]
    """Mean advantage of each action over stretches of training."""
    sentence: str
    """What the numbers say."""
    examples: tuple[tuple[int, int], ...]
    """Rows of `Sample.places` and turns that show it."""

    @property
    def main(self) -> tuple[Action, ...]:
        """The few actions that fit one line."""
        return self.actions[:1] + tuple(a for a in self.actions[1:4] if (a.late or 0.0) >= LEAST)


@dataclass(frozen=True, kw_only=True)
class Decider:
    """Somebody who decides."""

    game: str
    role: str
    policy: str
    count: int
    """Decisions in the sampled steps."""
    different: int
    """States in them."""
    recurring: int
    """States among them that recur."""
    covered: float
    """Share of the decisions that were taken in these."""
    states: tuple[State, ...]
    """The most frequent of those."""
    summary: State | None
    """All decisions of the role together, where few of them recur."""


def deciders(sample: Sample, most: int = MOST_STATES) -> tuple[Decider, ...]:
    """Everybody who decided in the sampled steps, game by game."""
    rows = sample.decisions
    found = []
    for code, (game, role, policy) in sorted(enumerate(sample.who), key=lambda item: item[1]):
        mine = np.flatnonzero(rows.who == code)
        states, counts = np.unique(rows.state[mine], return_counts=True)
        order = np.argsort(-counts, kind="stable")
        recurring = [
            (int(states[place]), int(counts[place]))
            for place in order
            if counts[place] >= RECURRING and _in_several_steps(sample, states[place])
        ]
        covered = sum(count for _, count in recurring) / max(1, len(mine))
        labels = _labels([_observation(sample, state) for state, _ in recurring[:most]])
        found.append(
            Decider(
                game=game,
                role=role,
                policy=policy,
                count=len(mine),
                different=len(states),
                recurring=len(recurring),
                covered=covered,
                states=tuple(
                    _state(sample, np.flatnonzero(rows.state == state), label, _observation(sample, state))
                    for (state, _), label in zip(recurring[:most], labels, strict=True)
                ),
                summary=_summary(sample, mine) if covered < COVERED and len(mine) else None,
            )
        )
    return tuple(found)


def _summary(sample: Sample, rows: IntArray) -> State:
    """All decisions of a role; where hardly any action comes twice, told apart by whether they could be read alone."""
    _, counts = np.unique(sample.decisions.action[rows], return_counts=True)
    if counts.max() >= FREE * len(rows):
        return _state(sample, rows, "", "")
    kinds = [next((end for end in KINDS if name.endswith(end)), FREE_TEXT) for name in sample.actions]
    return _state(replace(sample, actions=kinds, follows=[WHATEVER] * len(sample.follows)), rows, "", "")


def _in_several_steps(sample: Sample, state: int) -> bool:
    steps = sample.decisions.step[sample.decisions.state == state]
    return len(sample.steps) < 2 or int(steps.min()) != int(steps.max())


def _observation(sample: Sample, state: int) -> str:
    return sample.observations.get(state, "")


def _labels(observations: Sequence[str]) -> list[str]:
    """What is particular about each text: its sentences without those that all have, and without the list of what is
    legal."""
    pieces = [[p.strip() for p in re.split(r"(?<=[.!?])\s+|\n+", text) if p.strip()] for text in observations]
    common = set.intersection(*map(set, pieces)) if len(pieces) > 1 else set()
    found = []
    for own, text in zip(pieces, observations, strict=True):
        kept = [piece for piece in own if piece not in common and not piece.lower().startswith("legal action")]
        found.append(shortened(" ".join(kept) or text, LABEL))
    if len(set(found)) < len(set(observations)):  # cut too short to tell them apart
        return [f"{label} ({number})" for number, label in enumerate(found, start=1)]
    return found


def thirds(steps: Sequence[int]) -> tuple[set[int], set[int]]:
    """The first and the last third of the sampled steps; both all of them where there are fewer than three."""
    size = len(steps) // 3
    return (set(steps[:size]), set(steps[-size:])) if size else (set(steps), set(steps))


def _state(sample: Sample, rows: IntArray, label: str, observation: str) -> State:
    table = sample.decisions
    early, late = thirds(sample.steps)
    step = table.step[rows]
    is_early, is_late = np.isin(step, list(early)), np.isin(step, list(late))
    window = is_late if is_late.any() else np.ones(len(rows), dtype=np.bool_)
    names = _told_apart(sample, rows, window)
    code = np.array([names.index(_name(sample, int(row), names)) for row in rows], dtype=np.int64)
    actions = tuple(
        _action(sample, rows, code == number, name, is_early, is_late, window)
        for number, name in enumerate(names)
        if (code == number).any()
    )
    drawn = {n: name for n, name in enumerate(names) if _choice(name) or (code == n).mean() >= RARE}
    actions = tuple(sorted(actions, key=lambda action: (action.name == OTHER, -action.late_count, -action.count)))
    return State(
        label=label,
        observation=observation,
        count=len(rows),
        actions=actions,
        shares=tuple(_shares(step, code, drawn)),
        advantages=tuple(_advantages(sample, rows, code, {n: name for n, name in drawn.items() if _choice(name)})),
        sentence=_sentence(actions),
        examples=_examples(sample, rows[window], [names[number] for number in code[window]], actions),
    )


def _choice(name: str) -> bool:
    return name == OTHER or not name.endswith(UNCOMPARED)


def _name(sample: Sample, row: int, names: Sequence[str]) -> str:
    name = sample.actions[int(sample.decisions.action[row])]
    return name if name in names else OTHER


def _told_apart(sample: Sample, rows: IntArray, window: BoolArray) -> list[str]:
    """The actions that are named: the most frequent ones, late and in all."""
    late = Counter(sample.actions[code] for code in sample.decisions.action[rows[window]].tolist())
    all_ = Counter(sample.actions[code] for code in sample.decisions.action[rows].tolist())
    if len(all_) <= MOST_ACTIONS:
        return [name for name, _ in all_.most_common()]
    chosen = [name for name, _ in late.most_common(MOST_ACTIONS - 1)]
    for name, _ in all_.most_common():
        if len(chosen) < MOST_ACTIONS - 1 and name not in chosen:
            chosen.append(name)
    return [*chosen, OTHER]


def _action(
    sample: Sample,
    rows: IntArray,
    taken: BoolArray,
    name: str,
    is_early: BoolArray,
    is_late: BoolArray,
    window: BoolArray,
) -> Action:
    table, inside = sample.decisions, rows[taken & window]
    return Action(
        name=name,
        count=int(taken.sum()),
        late_count=int((taken & is_late).sum()),
        early=float((taken & is_early).sum() / is_early.sum()) if is_early.any() else None,
        late=float((taken & is_late).sum() / is_late.sum()) if is_late.any() else None,
        value=interval(table.value[inside]),
        advantage=interval(table.advantage[inside]),
        throughout=interval(table.advantage[rows[taken]]),
        follows=tuple(_follows(sample, inside)),
    )


def _follows(sample: Sample, rows: IntArray) -> Iterable[Follow]:
    known = {name: number for number, name in enumerate(dict.fromkeys(sample.follows))}
    names = list(known)
    codes = np.array([known[sample.follows[code]] for code in sample.decisions.follow[rows]], dtype=np.int64)
    common = Counter(codes.tolist()).most_common()
    rest = np.isin(codes, [code for code, _ in common[MOST_FOLLOWS:]])
    for code, count in common[:MOST_FOLLOWS]:
        value = interval(sample.decisions.value[rows[codes == code]])
        yield Follow(name=names[code], count=count, share=count / len(rows), value=value)
    if rest.any():
        value, count = interval(sample.decisions.value[rows[rest]]), int(rest.sum())
        yield Follow(name="something else", count=count, share=count / len(rows), value=value)


def _shares(step: IntArray, code: IntArray, names: Mapping[int, str]) -> Iterable[Point]:
    for at in np.unique(step):
        here = code[step == at]
        for number, name in names.items():
            count, size = int((here == number).sum()), len(here)
            share = count / size
            half = 1.96 * sqrt(share * (1 - share) / size)
            yield Point(step=float(at), name=name, value=share, low=max(0.0, share - half), high=min(1.0, share + half))


def _advantages(sample: Sample, rows: IntArray, code: IntArray, names: Mapping[int, str]) -> Iterable[Point]:
    steps = np.array(sample.steps)
    for part in np.array_split(steps, min(BINS, len(steps))):
        inside = np.isin(sample.decisions.step[rows], part)
        for number, name in names.items():
            found = interval(sample.decisions.advantage[rows[inside & (code == number)]])
            if found is not None and found.count > 1:
                yield Point(step=float(part.mean()), name=name, value=found.mean, low=found.low, high=found.high)


def _sentence(actions: Sequence[Action]) -> str:
    """A few plain sentences that are computed from the numbers."""
    shown = [action for action in actions if action.late_count] or list(actions)
    told = [_how_often(shown[:4])]
    compared = [action for action in shown if action.value is not None and not action.name.endswith(UNCOMPARED)][:2]
    for action in compared:
        if [follow.name for follow in action.follows] not in ([THE_END], [WHATEVER]):
            told.append(_what_followed(action))
    if len(compared) == 2:
        told.append(_which_is_better(*compared))
        told += filter(None, (_break_even(compared[1], compared[0]), _break_even(compared[0], compared[1])))
    return " ".join(told)


def _how_often(actions: Sequence[Action]) -> str:
    if actions[0].late is None:
        return f"{', '.join(f'“{action.name}” came {action.count} times' for action in actions)}."
    told = ", ".join(f"“{action.name}” {percent(action.late)}" for action in actions)
    if all(action.early is None for action in actions):
        return f"At the end it chose {told} of the time."
    before = ", ".join(percent(action.early) for action in actions)
    return f"At the end it chose {told} of the time; at the beginning this was {before}."


def _what_followed(action: Action) -> str:
    shown = [follow for rank, follow in enumerate(action.follows) if not rank or follow.share >= 2 * LEAST][:3]
    parts = [f"“{one.name}” {percent(one.share)} ({signed(one.value.mean if one.value else None)})" for one in shown]
    mean = signed(action.value.mean if action.value else None)
    return f"Its “{action.name}” was followed by {', '.join(parts)}, which returned {mean} on average."


def _which_is_better(one: Action, other: Action) -> str:
    assert one.value is not None
    assert other.value is not None
    difference = one.value.mean - other.value.mean
    half = sqrt(one.value.half**2 + other.value.half**2)
    if min(one.value.count, other.value.count) < FEW:
        rare = min((one, other), key=lambda action: action.value.count if action.value else 0)
        return f"“{rare.name}” came too rarely at the end to compare the two ({rare.late_count} times)."
    if abs(difference) <= half:
        return (
            f"As far as can be told the two are worth the same (“{one.name}” less “{other.name}”: {signed(difference)} "
            f"± {half:.2f}), so that nothing pushes the policy away from mixing them."
        )
    better, worse = (one, other) if difference > 0 else (other, one)
    gain = f"“{better.name}” brings {abs(difference):.2f} ± {half:.2f} more than “{worse.name}”"
    if better is one:
        return f"{gain}, and it is what the policy prefers."
    rising = better.early is not None and better.late is not None and better.late > better.early + 0.02
    return f"{gain}, although it is taken less often" + ("; its share has risen." if rising else ".")


def _break_even(action: Action, other: Action) -> str:
    """How often the better of two answers to an action must come for it to be worth as much as another one."""
    if action.value is None or other.value is None or min(action.value.count, other.value.count) < FEW:
        return ""
    answers = [follow for follow in action.follows if follow.value is not None][:2]
    if len(answers) < 2 or sum(follow.share for follow in answers) < NEARLY_ALL or action.late is None:
        return ""
    good, bad = sorted(answers, key=lambda follow: -(follow.value.mean if follow.value else 0))
    assert good.value is not None
    assert bad.value is not None
    gain = good.value.mean - bad.value.mean
    if gain < 4 * (good.value.half + bad.value.half) or gain < 0.1:  # the answer is not what decides
        return ""
    needed = (other.value.mean - bad.value.mean) / gain
    if not 0.01 < needed < 0.99:
        return ""
    had = good.share / (good.share + bad.share)
    return (
        f"“{action.name}” is worth as much as “{other.name}” when “{good.name}” is the answer {percent(needed)} of the "
        f"time; it was {percent(had)}."
    )


def _examples(
    sample: Sample, rows: IntArray, names: Sequence[str], actions: Sequence[Action]
) -> tuple[tuple[int, int], ...]:
    """Late decisions that show the two most frequent actions with what most often followed, one of each."""
    table, wanted = sample.decisions, []
    main = [action for action in actions if not action.name.endswith(UNCOMPARED)][:2]
    for rank in range(MOST_FOLLOWS):
        wanted += [(action.name, action.follows[rank].name) for action in reversed(main) if rank < len(action.follows)]
    latest: dict[tuple[str, str], int] = {}
    for row, name in zip(rows.tolist(), names, strict=True):
        latest[name, sample.follows[int(table.follow[row])]] = row
    chosen = [latest[pair] for pair in wanted if pair in latest][:MOST_EXAMPLES]
    return tuple((int(table.episode[row]), int(table.turn[row])) for row in chosen)
