"""Every way in which a game can break its promises is found, and told in words."""

import random

import pytest
from gymnasium import spaces
from pettingzoo import AECEnv

from games.base import Cell
from games.conformance import check
from games.spaces import AnyText

SEATS = ("player_0", "player_1")


class Odds(AECEnv):
    """A sound little game: each seat says 1, 2 or 3; player_0 wins if the sum, plus a secret draw, is odd.

    Broken games below change one thing each.
    """

    def __init__(self):
        self.metadata = {
            "name": "odds",
            "rules": "Say 1, 2 or 3.",
            "utility_range": (-1.0, 1.0),
            "zero_sum": True,
            "roles": SEATS,
            "seeded": True,
            "clone": True,
            "state_key": True,
        }
        self.possible_agents = list(SEATS)
        self._observations = {agent: spaces.Dict({"text": AnyText(200)}) for agent in SEATS}
        self._actions = {agent: AnyText(20) for agent in SEATS}

    def observation_space(self, agent):
        return self._observations[agent]

    def action_space(self, agent):
        return self._actions[agent]

    def draw(self, seed):
        return random.Random(seed).randrange(2)

    def reset(self, seed=None, options=None):
        self.secret, self.said = self.draw(seed), []
        self.agents = list(SEATS)
        self.rewards = dict.fromkeys(SEATS, 0.0)
        self._cumulative_rewards = dict.fromkeys(SEATS, 0.0)
        self.terminations = dict.fromkeys(SEATS, False)
        self.truncations = dict.fromkeys(SEATS, False)
        self.agent_selection = SEATS[0]
        self.inform()

    def observe(self, agent):
        return {"text": f"You are {agent}. Said: {self.said}. The secret is {self.secret}."}

    def legal(self):
        return ("1", "2", "3")

    def over(self):
        return len(self.said) == 2

    def outcome(self):
        win = 1.0 if (sum(self.said) + self.secret) % 2 else -1.0
        return {"player_0": win, "player_1": -win}

    def inform(self, offender=None):
        self.infos = {
            agent: {
                "legal_actions": self.legal() if agent == self.agent_selection and not self.over() else (),
                "role": agent,
                "state_key": f"{agent}{self.said}",
                "illegal": agent == offender,
                "reward_parts": {"outcome": self.rewards[agent]} if self.rewards[agent] else {},
            }
            for agent in self.agents
        }

    def forfeit(self, offender):
        self.rewards[offender] = -2.0
        self.terminations = dict.fromkeys(SEATS, True)
        self.agent_selection = SEATS[0]
        self.inform(offender)
        self.infos[self.agent_selection]["legal_actions"] = ()
        self._accumulate_rewards()

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent]:
            return self._was_dead_step(action)
        self._cumulative_rewards[agent] = 0.0
        self._clear_rewards()
        if action not in self.legal():
            return self.forfeit(agent)
        self.said.append(int(action))
        self.agent_selection = SEATS[len(self.said) % 2]
        if self.over():
            self.rewards = self.outcome()
            self.terminations = dict.fromkeys(SEATS, True)
        self.inform()
        self._accumulate_rewards()

    def clone(self):
        twin = type(self)()
        twin.__dict__.update({k: v for k, v in self.__dict__.items() if not k.startswith("_") or "rewards" in k})
        for name in ("said", "agents", "rewards", "_cumulative_rewards", "terminations", "truncations", "infos"):
            setattr(twin, name, getattr(self, name).copy())
        return twin

    def close(self):
        pass


def broken(**changes):
    """`Odds` with some methods replaced."""
    return type("Broken", (Odds,), changes)


def undeclared(self):
    Odds.__init__(self)
    del self.metadata["rules"]


def endless_step(self, action):
    if action in ("1", "2", "3") and len(self.said) == 1:
        self.said.clear()
    Odds.step(self, action)


def unreported(self, offender=None):
    Odds.inform(self)


def unpaid_parts(self, offender=None):
    Odds.inform(self, offender)
    for info in self.infos.values():
        info["reward_parts"] = {}


def no_legal_actions(self, offender=None):
    Odds.inform(self, offender)
    for info in self.infos.values():
        del info["legal_actions"]


def foreign_role(self, offender=None):
    Odds.inform(self, offender)
    self.infos["player_1"]["role"] = "judge"


def cheap_forfeit(self, offender):
    Odds.forfeit(self, offender)
    self.rewards[offender] = -1.0
    self.infos[offender]["reward_parts"] = {"illegal": -1.0}


def refuse_three(self, action):
    Odds.step(self, "no" if action == "3" else action)


def shared_clone(self):
    twin = Odds.clone(self)
    twin.said = self.said
    return twin


def paid_twice(self, action):
    Odds.step(self, action)
    if self.over() and action is not None:
        self._accumulate_rewards()


def look_at_four(self, agent):
    return [[Cell("", "1"), Cell("", "4")]]


def declared_board(self):
    Odds.__init__(self)
    self.metadata["form"] = "board"


def fall_over(self):
    raise KeyError("no such card")


def test_a_sound_game_has_no_problems():
    assert check(Odds) == []
    assert check(broken(board=lambda self, agent: [[Cell("said"), Cell("1", "1")]])) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"__init__": undeclared}, "metadata has no 'rules'"),
        (
            {"action_space": lambda self, agent: AnyText(20)},
            "action_space('player_0') is not the same object every time",
        ),
        ({"observe": lambda self, agent: {"text": 3}}, "the observation of player_0 has no text: it is {'text': 3}"),
        (
            {"observe": lambda self, agent: {"text": "long " * 100}},
            "the observation of player_0 is not in its observation space",
        ),
        ({"draw": lambda self, seed: random.SystemRandom().randrange(10**9)}, "the same seed"),
        ({"outcome": lambda self: {"player_0": 1.0, "player_1": 0.5}}, "the returns sum to 1.5"),
        (
            {"outcome": lambda self: {"player_0": 4.0, "player_1": -4.0}},
            "player_0 got 4, which is outside utility_range (-1, 1)",
        ),
        ({"inform": no_legal_actions}, "infos['player_0'] has no 'legal_actions'"),
        ({"legal": tuple}, "player_0 is to move, but its legal_actions are empty"),
        ({"inform": foreign_role}, "the role 'judge' of player_1 is not in metadata['roles']"),
        ({"step": refuse_three}, "the legal action '3' of player_1 was reported as illegal"),
        ({"inform": unreported}, "an illegal move is not reported in infos['player_1']['illegal']"),
        ({"forfeit": cheap_forfeit}, "which is not less than the worst legal outcome -1"),
        ({"inform": unpaid_parts}, "reward_parts of player_0 sum to 0, its reward is"),
        ({"step": paid_twice}, "what last() reported to it sums to"),
        ({"clone": shared_clone}, "a clone is not independent"),
        ({"step": endless_step}, "a random game did not end within"),
        ({"outcome": fall_over}, "a random game (seed 0): raised KeyError: 'no such card' (test_conformance.py, line"),
        ({"board": look_at_four}, "a cell of the board of player_0 means '4', which is not legal"),
        ({"__init__": declared_board}, "metadata['form'] is 'board', but player_0 sees none"),
        ({"draw": lambda self, seed: 1 // 0}, "making and resetting the game: raised ZeroDivisionError"),
    ],
)
def test_a_broken_promise_is_named(changes, problem):
    problems = check(broken(**changes), games=5)
    assert any(problem in told for told in problems), problems
    assert all("\n" not in told for told in problems)


def test_pettingzoos_complaints_become_sentences():
    stepped = broken(step=lambda self, action: Odds.step(self, action) or 0)
    (problem,) = check(stepped, games=5)
    assert problem.startswith("PettingZoo's api_test fails: step() must not return anything")


def test_something_else_than_an_aec_game_is_refused():
    assert check(dict) == ["it is a dict, not a PettingZoo AECEnv"]


def test_a_problem_of_every_game_is_told_once():
    problems = check(broken(outcome=lambda self: {"player_0": 1.0, "player_1": 1.0}), games=20)
    assert len(problems) == 1


def test_a_game_of_free_text_needs_no_list_of_actions():
    def accept(self, action):
        Odds.step(self, action and str(len(action) % 3 + 1))

    def open_ended(self, offender=None):
        Odds.inform(self, offender)
        for info in self.infos.values():
            info["legal_actions"] = None

    assert check(broken(step=accept, inform=open_ended)) == []


def test_a_game_of_free_text_that_does_not_accept_any_text_gives_examples():
    def exemplary(self, offender=None):
        Odds.inform(self, offender)
        for info in self.infos.values():
            info["legal_actions"], info["examples"] = None, ("1", "2")

    assert check(broken(inform=exemplary)) == []
    assert any("was reported as illegal" in told for told in check(broken(inform=exemplary, legal=lambda self: ("1",))))
