"""A tournament as tables and as a plot."""

from pathlib import Path

import pytest
from rich.console import Console

from marl_llm.config import GameConfig
from marl_llm.errors import RunError
from marl_llm.evaluation.tournament import Mean, Pairing, Tournament
from marl_llm.ratings import Rating
from marl_llm.standings import plot_payoffs, standings

AHEAD = Mean(mean=1.5, low=1.0, high=2.0)
BEHIND = Mean(mean=-1.5, low=-2.0, high=-1.0)
PLAYED = Tournament(
    game=GameConfig(name="kuhn_poker"),
    players=("weak", "strong[1]", "gone"),
    meetings=(),
    pairings={
        ("weak", "strong[1]"): Pairing(deals=4, payoff=BEHIND, advantage=BEHIND, win_rate=0.25),
        ("strong[1]", "weak"): Pairing(deals=4, payoff=AHEAD, advantage=AHEAD, win_rate=0.75),
    },
    ratings={
        "weak": Rating(mu=20.0, sigma=2.0),
        "strong[1]": Rating(mu=30.0, sigma=2.0),
        "gone": Rating(mu=25.0, sigma=8.3),
    },
    alpha_rank={"weak": 0.1, "strong[1]": 0.6, "gone": 0.3},
    cycles=(("weak", "strong[1]", "gone"),),
    episodes=24,
    faults={"gone: no line [5]": 16},
)
NOBODY = Tournament(
    game=PLAYED.game,
    players=PLAYED.players,
    meetings=(),
    pairings={},
    ratings=PLAYED.ratings,
    alpha_rank=PLAYED.alpha_rank,
    cycles=(),
    episodes=24,
    faults={},
)


def shown(result: Tournament) -> list[str]:
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(standings(result))
    return [" ".join(line.split()) for line in capture.get().splitlines()]


def test_players_stand_in_the_order_of_their_ratings() -> None:
    lines = shown(PLAYED)
    assert "1 strong[1] +1.50" in lines
    assert "± 0.50" in lines
    assert "1 strong[1] 30.0 ± 2.0 60.0% 75.0% 4 3" in lines
    assert "2 gone 25.0 ± 8.3 30.0% 0" in lines
    assert "3 weak 20.0 ± 2.0 10.0% 25.0% 4" in lines


def test_rings_and_faults_are_told() -> None:
    assert shown(PLAYED)[-3:] == [
        "ring: weak beats strong[1] beats gone beats weak",
        "24 episodes, 16 at fault and in no score:",
        "16 x gone: no line [5]",
    ]


EVIL = ("[red]\x1b[2J\u202e$\\frac", "b" * 100 + "\r\n")
HOSTILE = Tournament(
    game=GameConfig(name="[blink]\x1b]0;x\x07", settings={"\x1b[31m": "[/]\x1b" * 99}),
    players=EVIL,
    meetings=(),
    pairings={EVIL: Pairing(deals=4, payoff=AHEAD, advantage=AHEAD, win_rate=1.0)},
    ratings={EVIL[0]: PLAYED.ratings["strong[1]"], EVIL[1]: PLAYED.ratings["weak"]},
    alpha_rank=dict.fromkeys(EVIL, 0.5),
    cycles=(EVIL,),
    episodes=24,
    faults={f"{number}: [/red]\x1b[2J{'x' * 999}": 24 - number for number in range(12)},
)


def test_texts_of_somebody_else_are_shown_escaped_and_not_for_ever(tmp_path: Path) -> None:
    lines = shown(HOSTILE)
    text = "".join(lines)
    assert all(character.isprintable() for character in text)
    assert r"ring: [red]\x1b[2J\u202e$\frac beats" in text
    assert r"[blink]\x1b]0;x\x07" in text
    told = [line.partition(":")[0] for line in lines if " x " in line]
    assert told == [*[f"{24 - number} x {number}" for number in range(10)], "27 x something else"]
    assert r"24 x 0:[/red]\x1b[2Jxxx" in text
    assert text.count("x" * 200) == 0
    plot_payoffs(HOSTILE, tmp_path / "payoffs")
    assert (tmp_path / "payoffs").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("result", [PLAYED, NOBODY])
def test_the_plot_is_a_picture_even_where_nothing_could_be_played(result: Tournament, tmp_path: Path) -> None:
    plot_payoffs(result, tmp_path / "payoffs")
    assert (tmp_path / "payoffs").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(RunError, match="nowhere"):
        plot_payoffs(result, tmp_path / "nowhere" / "payoffs.png")
