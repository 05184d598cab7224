"""What the episodes of one step say at a glance."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from marl_llm.types import Completion, Episode, Turn

FEW_ACTIONS = 4
"""Where turns offer more actions than these, shares of single ones say little."""


def play_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """How the games of a step went, by `play/NAME`; what cannot be said of these games is left out.

    Games at fault are counted as `play/faults` and in nothing else, and turns before a fork once.
    """
    status = Counter(episode.status for episode in episodes)
    episodes = [episode for episode in episodes if episode.status != "fault"]
    turns = [turn for episode in episodes for turn in episode.turns[episode.match.begins :]]
    sampled = [turn.completion for turn in turns if turn.completion is not None]
    identical = identical_replies(turns)
    return {
        "play/games": len(episodes),
        "play/turns": len(turns),
        "play/illegal_fraction": sum(turn.legal is False for turn in turns) / max(1, len(turns)),
        "play/truncated": status["truncated"],
        "play/faults": status["fault"],
        "play/sampled_tokens": sum(turn.num_sampled for turn in turns),
        "play/reply_tokens": sum(len(completion.tokens) for completion in sampled) / max(1, len(sampled)),
        **({} if identical is None else {"play/identical_replies": identical}),
        **{f"play/return/{role}": value for role, value in returns_by_role(episodes).items()},
        **{f"play/win_rate/{role}": value for role, value in _by_role(episodes, win_rates).items()},
        **_replies_by_role(episodes),
        **_told(episodes),
    }


def _replies_by_role(episodes: Iterable[Episode]) -> dict[str, float]:
    """Of each role, or of `GAME/ROLE`: `play/length/ROLE`, tokens of a reply, and `play/entropy/ROLE`, the mean of
    -log p of its sampled tokens (nats), an estimate of the entropy of the distribution that they are drawn from."""
    replies: dict[str, list[Completion]] = defaultdict(list)
    for episode in episodes:
        game = f"{episode.match.label}/" if episode.match.label else ""
        for turn in episode.turns[episode.match.begins :]:
            if turn.completion is not None:
                replies[f"{game}{turn.role}"].append(turn.completion)
    told: dict[str, float] = {}
    for role, completions in sorted(replies.items()):
        count = sum(len(completion.tokens) for completion in completions)
        told[f"play/length/{role}"] = count / len(completions)
        if count:
            told[f"play/entropy/{role}"] = -sum(sum(completion.logprobs) for completion in completions) / count
    return told


def cost_metrics(episodes: Iterable[Episode], seconds: Mapping[str, float]) -> dict[str, float]:
    """What the turns of models cost, by `play/cost/ROLE/NAME` and, over all roles, `play/policy_cost/POLICY/NAME`.

    NAME is `tokens` (sampled), `prompt_tokens` (read, those included that an engine had read before), `seconds` and
    `reward_per_1k`: all known rewards per thousand tokens, read and sampled. `seconds`: by policy, the wall time that
    it took; each turn has its part by its tokens, read and sampled. What a fork repeats (weight 0) costs nothing.
    """
    turns: dict[str, list[Turn]] = defaultdict(list)
    roles: dict[str, list[Turn]] = defaultdict(list)
    for episode in episodes:
        game = f"{episode.match.label}/" if episode.match.label else ""
        for turn in episode.turns if episode.status != "fault" else ():
            if turn.completion is not None and turn.weight:
                turns[turn.policy].append(turn)
                roles[f"{game}{turn.role}"].append(turn)
    per_token = {name: seconds.get(name, 0.0) / sum(tokens_of(played)) for name, played in turns.items()}
    groups = {f"play/cost/{role}": roles[role] for role in sorted(roles)}
    groups |= {f"play/policy_cost/{policy}": turns[policy] for policy in sorted(turns)}
    return {f"{who}/{name}": value for who, all_ in groups.items() for name, value in _cost(all_, per_token).items()}


def _cost(turns: Sequence[Turn], per_token: Mapping[str, float]) -> dict[str, float]:
    read, sampled = tokens_of(turns)
    rewards = sum(value for turn in turns for value in turn.rewards.values() if value is not None)
    return {
        "tokens": sampled,
        "prompt_tokens": read,
        "seconds": sum(sum(tokens_of([turn])) * per_token[turn.policy] for turn in turns),
        "reward_per_1k": 1000 * rewards / (read + sampled),
    }


def tokens_of(turns: Iterable[Turn]) -> tuple[int, int]:
    """Tokens read, those included that an engine had read before, and tokens sampled."""
    read = sampled = 0
    for turn in turns:
        read += len(turn.prompt or ())
        sampled += turn.num_sampled
    return read, sampled


def win_rates(episode: Episode) -> dict[str, float]:
    """Of each agent: the share of the other agents that got a smaller return than it, equal returns counting half.

    With two players a draw is half a win. It is 1/2 on average over the agents of any game, and for all of them where
    everybody gets the same; empty where nobody else plays.
    """
    returns = episode.returns
    if len(returns) < 2:
        return {}
    return {
        agent: (sum((mine > other) + (mine == other) / 2 for other in returns.values()) - 0.5) / (len(returns) - 1)
        for agent, mine in returns.items()
    }


def identical_replies(turns: Iterable[Turn]) -> float | None:
    """The largest share of sampled replies that is one and the same text.

    Replies to one observation share a weight of one, so that a group that replays one deal counts no more than a deal
    that comes once, and those that had but one legal action do not count. Where few actions are legal now and others
    later, replies repeat without being all the same: on Kuhn and Leduc poker the share is 0.2 to 0.5. None where fewer
    than two observations left a choice.
    """
    replies: dict[str, list[str]] = defaultdict(list)
    for turn in turns:
        if turn.completion is not None and (turn.legal_actions is None or len(turn.legal_actions) > 1):
            replies[turn.observation].append(turn.reply)
    if len(replies) < 2:
        return None
    weights: dict[str, float] = defaultdict(float)
    for given in replies.values():
        for reply, count in Counter(given).items():
            weights[reply] += count / len(given)
    return max(weights.values()) / len(replies)


def action_shares(turns: Iterable[Turn]) -> dict[str, float]:
    """How often each action was taken, as a share of the turns that offered it beside others, in the order of names.

    Empty where more than `FEW_ACTIONS` different actions were offered, or none beside others.
    """
    offered: Counter[str] = Counter()
    taken: Counter[str | None] = Counter()
    for turn in turns:
        if turn.legal_actions is not None and len(turn.legal_actions) > 1:
            offered.update(turn.legal_actions)
            taken[turn.action] += 1
            if len(offered) > FEW_ACTIONS:
                return {}
    return {action: taken[action] / count for action, count in sorted(offered.items())}


def facts(episodes: Iterable[Episode]) -> dict[str, float]:
    """Mean of each of `told_facts`, all that was counted weighing alike."""
    return {name: sum(s for s, _ in told) / sum(n for _, n in told) for name, told in told_facts(episodes).items()}


def told_facts(episodes: Iterable[Episode]) -> dict[str, list[tuple[float, float]]]:
    """The numbers that games tell for evaluation (`Episode.hidden`), in the order of names; true is 1.

    Each is a sum and of how many it is: 1, unless the game says otherwise (`games.base.counted`). A fact of which
    nothing was counted in any game is left out.
    """
    told: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for episode in episodes:
        for name, value in episode.hidden.items():
            if isinstance(value, (int, float)):
                told[name].append((float(value), 1.0))
            elif isinstance(value, Mapping) and value.keys() == {"sum", "count"}:
                told[name].append((value["sum"], value["count"]))
    return {name: parts for name, parts in sorted(told.items()) if any(count for _, count in parts)}


def _told(episodes: Iterable[Episode]) -> dict[str, float]:
    """`play/action/POLICY/ACTION` of policies that sample, and `play/fact/NAME`; of several games, per `GAME/`."""
    games: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        games[f"{episode.match.label}/" if episode.match.label else ""].append(episode)
    result: dict[str, float] = {}
    for game, played in sorted(games.items()):
        sampled: dict[str, list[Turn]] = defaultdict(list)
        for turn in (turn for episode in played for turn in episode.turns[episode.match.begins :]):
            if turn.completion is not None:
                sampled[turn.policy].append(turn)
        for policy, turns in sorted(sampled.items()):
            result |= {f"play/action/{game}{policy}/{action}": share for action, share in action_shares(turns).items()}
        result |= {f"play/fact/{game}{name}": value for name, value in facts(played).items()}
    return result


def returns_by_role(episodes: Iterable[Episode]) -> dict[str, float]:
    """Mean return per role; where an experiment has several games, per `GAME/ROLE`."""
    return _by_role(episodes, lambda episode: episode.returns)


def _by_role(episodes: Iterable[Episode], values: Callable[[Episode], Mapping[str, float]]) -> dict[str, float]:
    """Mean of each of `values_by_role`."""
    return {role: sum(found) / len(found) for role, found in values_by_role(episodes, values).items()}


def values_by_role(
    episodes: Iterable[Episode], values: Callable[[Episode], Mapping[str, float]]
) -> dict[str, list[float]]:
    """Values of agents per role, in the order of names; an agent counts in its latest role, or by its id if it had no
    turn."""
    collected: dict[str, list[float]] = defaultdict(list)
    for episode in episodes:
        roles = {turn.agent: turn.role for turn in episode.turns}
        game = f"{episode.match.label}/" if episode.match.label else ""
        for agent, value in values(episode).items():
            collected[f"{game}{roles.get(agent, agent)}"].append(value)
    return dict(sorted(collected.items()))
