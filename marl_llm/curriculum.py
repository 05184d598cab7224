"""Which games a step plays how much: their shares, or what is being learned (learning progress, arXiv 1707.00183)."""

from collections.abc import Mapping

from marl_llm.config import Config

Averages = Mapping[str, tuple[float, float]]
"""`GAME/ROLE` -> quick and slow moving average of its mean return, in widths of the game's utility range."""


def parts(config: Config, averages: Averages) -> dict[str, float]:
    """Game -> its part of the next step's groups; they sum to 1.

    Without a curriculum these are the shares. With one, `floor` of the groups goes by share and the rest by progress:
    the distance between the two averages, the mean over the game's roles. While nothing moves, all goes by share.
    """
    games = config.trained_games
    shares = _normalised({name: game.share for name, game in games.items()})
    curriculum = config.matchmaking.curriculum
    if curriculum is None:
        return shares
    progress = {name: _progress(averages, name) * game.share for name, game in games.items()}
    if not any(progress.values()):
        return shares
    led = _normalised(progress)
    return {name: curriculum.floor * shares[name] + (1 - curriculum.floor) * led[name] for name in games}


def after(
    config: Config, averages: Averages, returns: Mapping[str, float], widths: Mapping[str, float]
) -> dict[str, tuple[float, float]]:
    """The averages after a step with these mean returns by `GAME/ROLE`; a role that did not play keeps its own.

    `widths`: game -> width of its utility range. In self-play of a zero-sum game the mean over both roles says nothing,
    but that of each role moves as long as one of them learns.
    """
    curriculum = config.matchmaking.curriculum
    if curriculum is None or len(config.trained_games) == 1:
        return {}
    updated = dict(averages)
    for key, value in returns.items():
        new = value / widths[key.partition("/")[0]]
        fast, slow = updated.get(key, (new, new))
        updated[key] = (fast + curriculum.fast * (new - fast), slow + curriculum.slow * (new - slow))
    return updated


def _progress(averages: Averages, game: str) -> float:
    found = [abs(fast - slow) for key, (fast, slow) in averages.items() if key.partition("/")[0] == game]
    return sum(found) / len(found) if found else 0.0


def _normalised(weights: Mapping[str, float]) -> dict[str, float]:
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}
