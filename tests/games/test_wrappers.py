"""The Discrete and mask form for other libraries."""

import warnings

import numpy as np
import pytest
from pettingzoo import AECEnv
from pettingzoo.test import api_test, seed_test

import games
from games.openspiel import OpenSpielEnv
from games.wrappers import masked

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


ON_OPENSPIEL = [name for name in games.names() if isinstance(games.make(name).unwrapped, OpenSpielEnv)]


@pytest.mark.parametrize("name", ON_OPENSPIEL)
def test_both_forms_pass_pettingzoos_tests(name, capsys):
    for make in (lambda: games.make(name), lambda: masked(games.make(name))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            api_test(make(), 100)
            seed_test(make, 50)


def test_ids_outside_the_mask_are_illegal_and_those_inside_are_played():
    env = masked(games.make("leduc_poker"))
    env.reset(seed=0)
    assert env.observe("player_0")["action_mask"].tolist() == [0, 1, 1]
    assert env.observe("player_1")["action_mask"].tolist() == [0, 0, 0]
    env.step(2)
    assert env.infos["player_1"]["legal_actions"] == ("fold", "call", "raise")
    env.reset(seed=0)
    env.step(0)
    assert env.infos["player_0"]["illegal"] is True
    assert env.rewards == {"player_0": -14.0, "player_1": 0.0}
    assert env.observe("player_0")["action_mask"].tolist() == [0, 0, 0]


def test_tensors_are_openspiels():
    env = masked(games.make("tic_tac_toe"))
    env.reset(seed=0)
    env.step(4)
    observation = env.observe("player_1")["observation"]
    assert observation.shape == (3, 3, 3)
    assert observation.dtype == np.float32
    assert observation.sum(axis=(1, 2)).tolist() == [8, 0, 1]  # empty, o, x


def test_a_masked_clone_is_masked_and_independent():
    env = masked(games.make("tic_tac_toe"))
    env.reset(seed=0)
    twin = env.clone()
    twin.step(4)
    assert env.observe("player_0")["action_mask"].tolist() == [1] * 9
    assert twin.observe("player_1")["action_mask"].tolist() == [1, 1, 1, 1, 0, 1, 1, 1, 1]


def test_other_games_are_refused():
    with pytest.raises(ValueError, match="needs a game on OpenSpiel's rules, not AECEnv"):
        masked(AECEnv())
