"""What all our games have in common: how a text is read, and what they declare."""

import games
from games.base import find


def test_blank_space_and_case_do_not_matter_where_one_action_is_meant():
    assert find(" Raise\n", ("call", "raise")) == "raise"
    assert find("play CARD 1", ("play card 1", "play card 2")) == "play card 1"
    assert find("raise 2", ("call", "raise")) is None
    assert find("", ("call", "raise")) is None


def test_case_matters_where_actions_differ_by_nothing_else():
    legal = ("Bxc3", "bxc3", "Nf3")
    assert find("bxc3", legal) == "bxc3"
    assert find("Bxc3", legal) == "Bxc3"
    assert find("BXC3", legal) is None
    assert find("nf3", legal) == "Nf3"


def test_the_rules_say_what_anything_else_does():
    for name in ("tic_tac_toe", "public_goods"):
        rules = games.make(name, on_illegal="default_action").metadata["rules"]
        assert rules.endswith("; anything else plays the first of them.")
