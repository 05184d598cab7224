"""TextArena's environments by name: whole games of it, what is illegal, and what an environment may not do to us."""

import contextlib
import random
import re
import sys

import pytest
import textarena
from textarena.envs.registration import ENV_REGISTRY, EnvSpec

import games
from games.conformance import check
from games.from_textarena import TextArenaGame
from games.textarena_table import ALLOWED, REFUSED, Environment


def new(name="KuhnPoker-v0", seed=0, **settings):
    env = games.make(f"textarena:{name}", **settings)
    env.reset(seed=seed)
    return env


def history(env, seed):
    """Whatever a random game shows."""
    env.reset(seed=seed)
    seen, chooser = [], random.Random(seed)
    while env.agents:
        agent = env.agent_selection
        seen.append((agent, env.observe(agent)["text"], env.rewards[agent], env.infos[agent].get("examples")))
        over = env.terminations[agent] or env.truncations[agent]
        env.step(None if over else chooser.choice(env.infos[agent]["examples"]))
    return seen


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("KuhnPoker-v0", {}),
        ("KuhnPoker-v0-short-train", {"on_illegal": "default_action"}),
        ("TicTacToe-v0-train", {}),
        ("GuessTheNumber-v0", {}),
        ("LiarsDice-v0-small", {"num_players": 3}),
        ("SecretMafia-v0", {"max_turns": 12}),
        ("ThreePlayerIPD-v0", {"max_turns": 7}),
        ("Taboo-v0-animals", {"num_players": 6, "max_turns": 5}),
    ],
)
def test_environments_of_every_kind_keep_our_promises(name, settings):
    assert check(lambda: games.make(f"textarena:{name}", **settings), games=2) == []


def test_a_game_is_told_and_paid_as_textarena_does():
    env = new("KuhnPoker-v0-short")
    assert env.possible_agents == ["player_0", "player_1"]
    assert env.metadata["rules"] == (
        "KuhnPoker-v0-short, a game of TextArena, which calls player_0 Player 0 and so on. "
        "Answer in the form that the text asks for; anything else forfeits."
    )
    assert env.agent_selection == "player_1"
    text = env.observe("player_1")["text"]
    assert text.startswith("\n[GAME] You are Player 1 in a")
    assert text.endswith("Your available actions are: '[check]', '[bet]'")
    assert env.observe("player_0")["text"] == "You are player_0. Wait for your turn."
    assert env.infos["player_1"]["legal_actions"] is None
    assert set(env.infos["player_1"]["examples"]) == {"[check]", "[bet]"}
    assert env.infos["player_0"]["legal_actions"] == ()
    while env.agents and not env.terminations[env.agent_selection]:
        env.step("I give up: [fold]" if "[fold]" in env.infos[env.agent_selection]["examples"] else "bet")
    winner, loser = sorted(env.rewards, key=env.rewards.get, reverse=True)
    assert (env.rewards[winner], env.rewards[loser]) == (1.0, -1.0)
    assert env.infos[winner]["reward_parts"] == {"outcome": 1.0}
    assert not any(info["illegal"] for info in env.infos.values())


def test_the_same_seed_is_the_same_game_whoever_else_draws_and_nobody_elses_draws_change():
    first, second = (games.make("textarena:LiarsDice-v0") for _ in range(2))
    random.seed(1)
    one = history(first, seed=3)
    here = random.getstate()
    random.seed(1)
    assert random.getstate() == here
    random.seed(2)
    history(second, seed=4)
    assert history(second, seed=3) == one
    assert history(second, seed=4) != one


def test_what_the_environment_calls_invalid_forfeits_at_once():
    env = new()
    env.step("[call]")
    assert env.infos["player_1"]["illegal"] is True
    assert env.infos["player_1"]["reward_parts"] == {"illegal": -2.0}
    assert env.rewards == {"player_0": 0.0, "player_1": -2.0}
    assert env.terminations == {"player_0": True, "player_1": True}
    for agent in ("player_0", "player_1"):
        assert env.agent_selection == agent
        env.step(None)
    assert env.agents == []


def test_a_blank_reply_is_illegal_even_where_any_text_is_a_move():
    env = new("IteratedPrisonersDilemma-v0")
    env.step("Let us cooperate.")
    assert env.infos["player_0"]["illegal"] is False
    env.step(" ")
    assert env.infos["player_1"]["illegal"] is True


def test_instead_of_an_illegal_move_an_example_may_be_played_unseen():
    env, other = (new(on_illegal="default_action") for _ in range(2))
    first = env.infos["player_1"]["examples"][0]
    assert env.metadata["rules"].endswith("anything else plays a legal move.")
    env.step("[call]")
    other.step(first)
    assert env.infos["player_1"]["illegal"] is True
    assert env.terminations == {"player_0": False, "player_1": False}
    assert env.observe("player_0") == other.observe("player_0")


def test_who_is_out_stays_to_be_paid_and_is_not_asked():
    env = new("LiarsDice-v0-small", num_players=3)
    asked = []
    while not env.terminations[env.agent_selection]:
        asked.append(env.agent_selection)
        assert env.agents == ["player_0", "player_1", "player_2"]
        examples = env.infos[env.agent_selection]["examples"]
        env.step("[Call]" if "[Call]" in examples else examples[0])
    assert len(set(asked[-3:])) < 3
    assert sorted(env.rewards.values()) == [-1.0, 0.0, 1.0]


def test_after_the_last_turn_the_game_is_truncated_and_unpaid():
    env = new("PublicGoodsGame-v0", num_players=3, max_turns=4)
    for turn in range(4):
        assert env.agent_selection == f"player_{turn % 3}"
        env.step("{Let us all give.} [5]")
    assert env.truncations == dict.fromkeys(env.possible_agents, True)
    assert env.terminations == dict.fromkeys(env.possible_agents, False)
    assert env.rewards == dict.fromkeys(env.possible_agents, 0.0)
    while env.agents:
        env.step(None)


class Bad(textarena.Env):
    """Does what it is told, which is what others do by mistake."""

    def __init__(self, pays=None):
        self.pays = pays

    def reset(self, num_players, seed=None):
        self.state = textarena.TwoPlayerState(num_players=num_players, seed=seed)
        self.state.reset(game_state={}, player_prompt_function=lambda player_id, game_state: "Say something.\n cat |")

    def step(self, action):
        if action == "hang":
            while True:
                pass
        if action == "crash":
            raise IndexError(action)
        if action == "swallow":
            with contextlib.suppress(BaseException):
                self.state.set_invalid_move("it says so")
        self.state.done = action == "end"
        self.state.rewards = self.pays
        return self.state.step()


@pytest.fixture
def bad(monkeypatch):
    """A function that begins a game of `Bad`, which pays what it is told and whose moves have the given form."""

    def make(pays=None, form="fine", seed=0, **settings):
        spec = EnvSpec("Bad-v0", Bad, [textarena.wrappers.LLMObservationWrapper], {"pays": pays})
        monkeypatch.setitem(ENV_REGISTRY, "Bad-v0", spec)
        monkeypatch.setitem(ALLOWED, "Bad", Environment(moves=(form,)))
        return new("Bad-v0", seed, **settings)

    return make


def test_a_call_that_never_returns_is_an_error_that_names_the_environment(bad, monkeypatch):
    monkeypatch.setattr(TextArenaGame, "time_limit", 0.1)
    env = bad()
    env.step("fine")
    before = random.getstate()
    with pytest.raises(TimeoutError, match=r"^game textarena:Bad-v0 hangs: not done after 0\.1 s$"):
        env.step("hang")
    assert random.getstate() == before


@pytest.mark.parametrize("action", ["crash", "swallow"])
def test_an_action_that_the_environment_cannot_read_is_illegal(bad, action):
    env = bad()
    env.step(action)
    assert env.rewards == {"player_0": -2.0, "player_1": 0.0}


@pytest.mark.parametrize("pays", [None, "nothing", {0: 1}, {0: "a lot", 1: 0}, {0: float("nan"), 1: 0}])
def test_an_end_without_a_number_for_everybody_is_an_error_that_names_the_environment(bad, pays):
    env = bad(pays)
    with pytest.raises(RuntimeError, match=f"^game textarena:Bad-v0 pays {re.escape(repr(pays))} at its end"):
        env.step("end")


def test_examples_are_of_the_forms_in_the_table(bad):
    for seed in range(5):
        env = bad(form="<9-11> <~1> <hit|stand> <b-c> <~4> <word>", seed=seed)
        examples = env.infos["player_0"]["examples"]
        assert len(set(examples)) == 2
        for example in examples:
            first, second, third, fourth, fifth, word = example.split()
            assert abs(int(first) - 10) <= 1
            assert abs(int(second) - int(first)) <= 1
            assert third in ("hit", "stand")
            assert fourth in "bc"
            assert abs(ord(fifth) - ord(fourth)) <= 1
            assert word == "cat"


def test_without_a_known_move_there_is_no_default_to_play(bad):
    env = bad(form="crash", on_illegal="default_action")
    assert env.infos["player_0"]["examples"] == ()
    with pytest.raises(RuntimeError, match="textarena:Bad-v0: no legal move is known to play by default"):
        env.step("crash")


def test_every_environment_is_either_allowed_or_refused():
    environments = {name.partition("-v0")[0] for name in ENV_REGISTRY}
    whole = {name for name in REFUSED if "-v0" not in name}
    assert ALLOWED.keys() | whole == environments
    assert not ALLOWED.keys() & whole
    assert REFUSED.keys() - whole <= ENV_REGISTRY.keys()


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("KuhnPocker-v0", {}, "TextArena has no environment 'KuhnPocker-v0'; nearest valid name: KuhnPoker-v0"),
        ("Chess-v0", {}, "cannot be played here: its source does not parse on Python 3.11; allowed: 2048, "),
        ("Wordle-v0-hardcore", {}, "cannot be played here: it needs word lists that NLTK downloads"),
        ("Debate-v0", {}, "cannot be played here: it asks a model behind an API key"),
        ("KuhnPoker-v0-raw", {}, "cannot be played here: its observations are lists of messages, not text"),
        ("KuhnPoker-v0", {"num_players": 3}, "num_players=3 is not allowed; it must be 2"),
        ("LiarsDice-v0", {"num_players": 16}, "num_players=16 is not allowed; it must be a whole number from 2 to 15"),
        ("Taboo-v0", {"num_players": 5}, "it must be a whole number from 4 to 16 in steps of 2"),
        ("KuhnPoker-v0", {"num_players": True}, "num_players=True is not allowed"),
        ("KuhnPoker-v0", {"max_turns": 0}, "max_turns=0 is not allowed; it must be a whole number, 1 or more"),
        ("KuhnPoker-v0", {"on_illegal": "retry"}, "on_illegal='retry' is not allowed"),
        ("KuhnPoker-v0", {"players": 2}, "unexpected keyword argument 'players'; its settings: num_players, max_turns"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line_with_the_reason(name, settings, message):
    with pytest.raises(ValueError, match="textarena:") as caught:
        games.make(f"textarena:{name}", **settings)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "textarena", None)
    with pytest.raises(ValueError, match=r"cannot import textarena: .*; pip install 'marl-llm\[textarena\]'"):
        games.make("textarena:KuhnPoker-v0")
