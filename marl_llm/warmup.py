"""Imitation of a scripted player, so that an untrained model can read the table and answer in the required form."""

from collections.abc import Callable

from marl_llm.config import Config
from marl_llm.matchmaking import series
from marl_llm.play import make_game, play
from marl_llm.policies.base import Policy, View
from marl_llm.policies.llm import LLMPolicy
from marl_llm.seeds import generator
from marl_llm.team import Team
from marl_llm.text import canonical_reply
from marl_llm.types import Episode, Tokens


def warm_up(config: Config, team: Team, report: Callable[[str, int, int, float], None]) -> None:
    """Train every policy that has a `warmup` section; `report(policy, step, steps, loss)` is called at each step."""
    for name, member in team.members.items():
        warmup = config.policies[name].warmup
        if warmup is None or member.learner is None:
            continue
        pairs = demonstrations(config, member.policy, team.policies[warmup.teacher], num_games=warmup.games)
        random = generator(config.run.seed, "warmup", name)
        for step in range(warmup.steps):
            batch = [pairs[i] for i in random.integers(len(pairs), size=warmup.batch)]
            loss = member.learner.imitate(batch, warmup.lr * (1 - step / warmup.steps))
            report(name, step + 1, warmup.steps, loss)
        member.learner.restart()
        member.publish()


def demonstrations(
    config: Config, policy: LLMPolicy, teacher: Policy, *, num_games: int
) -> list[tuple[Tokens, Tokens]]:
    """The teacher's turns against itself: (prompt, reply) as the policy's model would have read and written them."""
    matches = series(config.game, {"*": "teacher"}, name="warmup", games=num_games, seed=config.run.seed)
    return [
        pair
        for episode in play(matches, {"teacher": teacher}, max_turns=config.play.max_turns)
        for pair in _as_written(episode, policy)
    ]


def _as_written(episode: Episode, policy: LLMPolicy) -> list[tuple[Tokens, Tokens]]:
    match = episode.match
    rules = make_game(match.game, match.settings).unwrapped.metadata.get("rules", "")
    histories: dict[str, tuple[tuple[str, str], ...]] = {}
    pairs = []
    for turn in episode.turns:
        assert turn.action is not None, "a scripted player always has an action"
        reply = canonical_reply(turn.action)
        view = View(
            game=match.game,
            settings=match.settings,
            match=match.id,
            agent=turn.agent,
            rules=rules,
            observation=turn.observation,
            legal_actions=turn.legal_actions,
            state_key=turn.state_key,
            seed=match.seed,
            history=histories.get(turn.agent, ()),
        )
        histories[turn.agent] = (*view.history, (turn.observation, reply))
        pairs.append((policy.prompt(view), policy.chat.encode_reply(reply)))
    return pairs
