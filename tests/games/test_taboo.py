"""Taboo: clues that give too much away, guesses, and the score that both share."""

import pytest

import games
from games.taboo import CARDS, Clues, uses


def play(*moves, word="snow", **chosen):
    env = games.make("taboo", **chosen)
    env.reset(seed=0)
    env.parallel.position = Clues(word=word)
    for move in moves:
        env.step(move)
    return env


@pytest.mark.parametrize(
    ("moves", "score"),
    [
        (("falls from above", "snow"), 1.0),
        (("falls from above", "rain", "and stays on roofs", "A Snow!"), 0.75),
        (("a", "b", "c", "d", "e", "f", "g", "snow"), 0.25),
        (("a", "b", "c", "d", "e", "f", "g", "h"), 0.0),
    ],
)
def test_both_score_less_the_later_the_word_is_guessed(moves, score):
    env = play(*moves)
    assert env.rewards == {"player_0": score, "player_1": score}
    assert all(env.terminations.values())
    assert env.hidden == {"word": "snow", "guessed": score > 0}


@pytest.mark.parametrize(
    "clue",
    [
        "snow",
        "Snow.",
        "it is SNOWY",
        "a snowman",
        "s-n-o-w",
        "s n o w",
        "it is s.n.o.w",
        "S N O W!",
        "think of winter",
        "wintertime",
        "ｓｎｏｗ",
        "snöw",
        "",
        "  ",
        "word " * 16,
    ],
)
def test_a_clue_that_gives_the_word_away_is_illegal(clue):
    env = play(clue)
    assert env.infos["player_0"]["illegal"] is True
    assert env.rewards == {"player_0": -1.0, "player_1": 0.0}


@pytest.mark.parametrize("clue", ["his nowhere land", "frozen rain from clouds", "it has 4 letters", "a b c"])
def test_other_clues_are_legal(clue):
    assert play(clue).infos["player_0"]["illegal"] is False


@pytest.mark.parametrize("guess", ["", "  ", "snow or ice", "the", "a snow ball", "?!"])
def test_a_guess_is_one_word(guess):
    env = play("it is frozen", guess)
    assert env.infos["player_1"]["illegal"] is True


def test_the_guesser_never_sees_the_word_or_the_taboo_words():
    env = play("it is frozen", "ice")
    assert env.observe("player_0")["text"] == (
        "You are player_0. The secret word: snow. Taboo: winter, white, cold, flake. Clues so far: 'it is frozen', "
        "guess ice. Guesses left: 3. Your clue?"
    )
    assert env.observe("player_1")["text"] == (
        "You are player_1. Clues so far: 'it is frozen', guess ice. Guesses left: 3."
    )
    assert (env.infos["player_0"]["role"], env.infos["player_1"]["role"]) == ("describer", "guesser")


@pytest.mark.parametrize("word", sorted(CARDS))
def test_every_card_leaves_the_examples_legal_and_forbids_its_own_words(word):
    env = play(word=word)
    assert len(set(CARDS[word])) == 4
    assert word.isalpha()
    assert word.islower()
    for clue in env.parallel.examples("player_0"):
        assert env.parallel.accepts("player_0", clue)
    for forbidden in (word, *CARDS[word]):
        assert not env.parallel.accepts("player_0", f"like {forbidden}s")


def test_what_is_spelled_in_single_letters_is_read_as_a_word():
    assert uses("i s n o w say", "snow") is True
    assert uses("is no wonder", "snow") is False


def test_bad_settings_are_refused_in_one_line():
    with pytest.raises(ValueError, match="game taboo: clues=0 is not allowed; it must be a whole number, 1 or more"):
        games.make("taboo", clues=0)
