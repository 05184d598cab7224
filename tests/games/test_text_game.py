"""What all games with rules of our own have in common: their parallel form, forfeits, seats that wait."""

import warnings

import pytest
from pettingzoo.test import parallel_api_test

import games
from games.conformance import check
from games.matrix_game import MatrixGame
from games.turns import InTurns, in_turns

VARIANTS = [
    ("matrix_game", {}),
    ("matrix_game", {"talk": True, "continuation": 0.5}),
    ("matrix_game", {"payoffs": "rock_paper_scissors"}),
    ("matrix_game", {"payoffs": [[[1, 2], [-3, 4], [0, 0]], [[5, 1], [2, 2], [1, 0]]]}),
    ("negotiation", {}),
    ("negotiation", {"talk": False, "types": 2, "rounds": 3}),
    ("donor_game", {}),
    ("donor_game", {"players": 3, "rounds": 1, "generations": 3, "reputation": False}),
    ("public_goods", {}),
    ("public_goods", {"players": 2, "punishment": False, "rounds": 2}),
    ("signals", {}),
    ("signals", {"symbols": 6, "rounds": 1, "code": "free"}),
    ("taboo", {}),
    ("treasure_hunt", {}),
    ("treasure_hunt", {"place": "cottage", "moves": 3}),
    ("autogen", {"turns": 2}),
    ("debate", {"judge": True, "rounds": 1}),
    ("deep_research", {"calls": 2, "expert": "chain"}),
    ("discussion", {"agents": 3, "rounds": 1}),
    ("generate_verify_refine", {"pay": ["outcome", "format"]}),
    ("mad", {"rounds": 2, "pay": ["outcome", "correct", "format"]}),
    ("mixture_of_agents", {"proposers": 2}),
    ("planner", {"helpers": 2, "pay": ["correct", "format"]}),
    ("proposer_solver", {"solvers": 2}),
    ("self_consistency", {"agents": 2, "aggregator": True}),
    ("workflow", {}),
    ("workflow", {"nodes": {"solver": {"count": 2, "answers": True, "tools": ["calculate"], "tool_turns": 2}}}),
]
FORFEITS = pytest.mark.parametrize("on_illegal", ["forfeit", "default_action"])


@FORFEITS
@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_variants_keep_their_promises(name, chosen, on_illegal):
    assert check(lambda: games.make(name, on_illegal=on_illegal, **chosen), games=5) == []


@FORFEITS
@pytest.mark.parametrize(("name", "chosen"), VARIANTS)
def test_the_parallel_form_passes_pettingzoos_test(name, chosen, on_illegal, capsys):
    env = games.make(name, on_illegal=on_illegal, **chosen)
    assert isinstance(env, InTurns)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(env.parallel, 50)
    assert "Passed" in capsys.readouterr().out


def test_whoever_is_not_to_move_is_not_looked_at():
    game = games.make("donor_game", players=2, rounds=1, generations=1).parallel
    _, infos = game.reset(seed=0)
    (mover,) = [agent for agent, info in infos.items() if info["legal_actions"]]
    (other,) = set(game.agents) - {mover}
    _, rewards, terminations, _, infos = game.step({mover: "give", other: "nonsense"})
    assert rewards == {mover: -1.0, other: 3.0}
    assert infos[other]["legal_actions"] == ("give", "keep")
    assert not any(terminations.values())


def test_two_who_are_illegal_at_once_both_forfeit():
    game = games.make("matrix_game", max_rounds=3, continuation=1.0).parallel
    game.reset(seed=0)
    game.step({"player_0": "defect", "player_1": "cooperate"})
    _, rewards, terminations, _, infos = game.step({"player_0": "split"})
    assert rewards == {"player_0": -6.0, "player_1": -1.0}  # both end at the least utility, 0, minus 1
    assert infos["player_0"]["reward_parts"] == {"illegal": -6.0}
    assert terminations == {"player_0": True, "player_1": True}
    assert game.agents == []


class Lenient(MatrixGame):
    """Forgets what it has paid."""

    def step(self, actions):
        self._returns = dict.fromkeys(self.possible_agents, 0.0)
        return super().step(actions)


def test_a_forfeit_that_leaves_earlier_pay_is_found_too_cheap():
    chosen = {"table": [[(2.0, 2.0)]], "actions": (("go",), ("go",)), "continuation": 1.0, "max_rounds": 3}

    def lenient():
        return in_turns(Lenient(talk=False, memory=1, on_illegal="forfeit", **chosen))

    problems = check(lenient, games=5, seed=5)  # seeds 5 and 6 play a whole round before the illegal move
    assert any("which is not less than the worst legal outcome 2" in told for told in problems), problems
