"""Which of TextArena's environments can be played here, and how a move looks in each; the others, and why not."""

from dataclasses import dataclass, field

VERSION = "0.7.4"
"""The version of TextArena that the table is about, on Python 3.11."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """An environment that was tried (`scripts/textarena_survey.py`)."""

    moves: tuple[str, ...] = ()
    """Forms of moves, of which only some are legal at a time; none: the text names them in brackets.

    `<1-6>` is a number, `<a-h>` a letter, `<hit|stand>` one of these, `<~2>` the second blank's or what is next to it,
    `<word>` a word of a line of the text that has bars."""
    players: range = field(default=range(2, 3))
    """How many may play; the first number is the default."""
    utility: tuple[float, float] = (-1.0, 1.0)
    """The least and greatest that it pays."""


def _alone(*moves: str, utility: tuple[float, float] = (0.0, 1.0)) -> Environment:
    return Environment(moves=moves, players=range(1, 2), utility=utility)


def _several(players: range, *moves: str) -> Environment:
    return Environment(moves=moves, players=players)


def _two(*moves: str) -> Environment:
    return Environment(moves=moves)


_STEP = "[<up|down|left|right>]"
_CARD = "[<A|2|3|4|5|6|7|8|9|10|J|Q|K>]"
_SQUARES = ("[<a-j><1-10><~1><~2>]", "[<a-h><1-8><a-h><1-8>]")
_GOODS = "<Wheat|Wood|Sheep|Brick|Ore>"

ALLOWED: dict[str, Environment] = {
    "2048": _alone(_STEP),
    "Alquerque": _two("[<a-e><1-5> <a-e><1-5>]"),
    "Bandit": _alone("[<red|blue|green|yellow|purple>]"),
    "Battleship": _two("[<A-N><0-13>]"),
    "Blackjack": _alone("[<hit|stand>]"),
    "Breakthrough": _two(*_SQUARES),
    "Briscola": _two("[play <1-3>]"),
    "Chopsticks": _two("[attack <0|1> <0|1>]", "[split <0-4> <0-4>]"),
    "ColonelBlotto": _two(
        "[A<1-18> B<1-18> C<1-18>]", "[A10 B10 C10 D<5-15> E<5-15>]", "[A10 B10 C10 D10 E10 F<5-20> G<5-20>]"
    ),
    "ConnectFour": _two("[col <0-9>]"),
    "Countdown": _alone("[<0-5> <0-5> <+|-|*>]"),
    "Crusade": _two(),
    "Cryptarithm": _alone("[<A-Z> <0-9>]"),
    "FifteenPuzzle": _alone(_STEP),
    "FrozenLake": _alone(_STEP),
    "GameOfPureStrategy": _two(_CARD),
    "GermanWhist": _two("[play <1-13>]"),
    "Golf": _two("[<draw|take|discard|knock>]", "[swap <1-3> <1-3>]", "[peek <1-3> <1-3>]"),
    "GuessTheNumber": _alone("[<1-50>]"),
    "HighSociety": _two("[<1-11>]"),
    "IndianPoker": _two("[<check|call|fold>]", "[<bet|raise> <1-5>]"),
    "IteratedMatchingPennies": _two("[<heads|tails>]"),
    "IteratedPrisonersDilemma": _two("[<Cooperate|Defect>]"),
    "IteratedRockPaperScissors": _two("[<rock|paper|scissors>]"),
    "IteratedTwoThirdsAverage": _two("[<0-100>]"),
    "IteratedUltimatumGame": _two("[Offer: $<0-10>]", "[<Accept|Reject>]"),
    "KuhnPoker": _two("[<check|bet|call|fold>]"),
    "LiarsDice": _several(range(2, 16), "[Bid: <1-12>, <1-6>]", "[Call]"),
    "LightsOut": _alone("[<0-4> <0-4>]", utility=(-24.0, 1.0)),
    "LinesOfAction": _two(*_SQUARES),
    "LogicPuzzle": _alone("[<word> <word> <X|O>]"),
    "MarketEntryGame": _several(range(2, 16), "{Let us take turns.} [<E|S>]"),
    "Mastermind": _alone("[<1-6> <1-6> <1-6> <1-6>]", "[<1-12> <1-12> <1-12> <1-12> <1-12> <1-12>]"),
    "MemoryGame": _two("[<0-7> <0-7> <0-7> <0-7>]"),
    "Minesweeper": _alone("[<0-11> <0-11>]"),
    "NewRecruit": _two("This is fair. [Propose] <A-E><A-E><A-E><A-E><A-E><A-E><A-E><A-E>", "[<Accept|Reject>]"),
    "Nim": _two("[<0-4> <1-11>]"),
    "Othello": _two("[<0-13>, <0-13>]"),
    "PegJump": _alone("[<1-15> <1-15>]"),
    "PigDice": _two("[<roll|hold>]"),
    "Poker": _several(range(2, 16), "[<Check|Call|Fold>]", "[<Bet|Raise> <20-200>]"),
    "PublicGoodsGame": _several(range(2, 16), "{Let us all give.} [<0-20>]"),
    "RushHour": _alone("[<A-Z><+|->]"),
    "SantoriniBaseFixed": _several(range(2, 4), "[<N|W|G><1|2><A-E><1-5><~3><~4><~5><~6>]"),
    "SecretMafia": _several(range(6, 16), "[<0-14>]"),
    "Secretary": _alone("[<accept|continue>]"),
    "Set": _alone("[<1-15>, <1-15>, <1-15>]", utility=(0.0, 20.0)),
    "SettlersOfCatan": _several(
        range(4, 5), "[<0-12>]", "[<Accept|Deny|Done|Red|White|Blue|Orange>]", "[Offer: 1 wheat -> 1 wood]"
    ),
    "SimpleBlindAuction": _two("[Bid on Item <0-4>: <1-300>]"),
    "SimpleNegotiation": _two("[<Accept|Deny>]", f"[Offer: <1-3> {_GOODS} -> <1-3> {_GOODS}]"),
    "SimpleTak": _two("[<0-63>]"),
    "Slitherlink": _alone("[<h|v> <0-4> <0-4>]"),
    "Snake": _several(range(2, 10), _STEP),
    "Sokoban": _alone(_STEP),
    "SpiteAndMalice": _two(),
    "Stratego": _two(),
    "Sudoku": _alone("[<1-9> <1-9> <1-9>]"),
    "Surround": _several(range(2, 10), _STEP),
    "Taboo": _several(range(4, 17, 2), "Think of <red|blue|green|warm|cold|old|new> ones."),
    "ThreeCardMonte": _alone("[<0-2>]"),
    "ThreePlayerGOPS": _several(range(3, 4), _CARD),
    "ThreePlayerIPD": _several(range(3, 4), "[<0-2> cooperate] [<0-2> defect]"),
    "ThreePlayerTicTacToe": _several(range(3, 4), "[<0-24>]"),
    "TicTacToe": _two("[<0-8>]"),
    "TowerOfHanoi": _alone("[<A|B|C> <A|B|C>]"),
    "TruthAndDeception": _two("I believe it is the other one. [Fact <1|2>]"),
    "TwoDollar": _two("This is fair. [Propose] $<0|1>.<10-99>", "Well. [<Accept|Reject>]"),
    "WildTicTacToe": _two("[<X|O> <0-8>]"),
}
"""Environments by the part of their ids before `-v0`."""

_DOWNLOAD = "it needs word lists that NLTK downloads"
_KEY = "it asks a model behind an API key (OPENROUTER_API_KEY)"
_SYNTAX = "its source does not parse on Python 3.11"
_FILES = "files that it needs are missing in the package"
_BOARD = "its form of observations needs a board that the environment does not show"
_SLOW = "with some seeds it has made no puzzle after minutes"

REFUSED: dict[str, str] = {
    "BabyAiText": "it needs the packages gym and babyai",
    "Breakthrough-v0-blind-train": _BOARD,
    "CharacterConclave": "it crashes at the first message",
    "Checkers": _SYNTAX,
    "Chess": _SYNTAX,
    "Codenames": _DOWNLOAD,
    "Crosswords": "it calls every wrong guess an invalid move",
    "Debate": _KEY,
    "DontSayIt": _DOWNLOAD,
    "GuessWho": _KEY,
    "Hangman": _DOWNLOAD,
    "IteratedStagHunt": _SYNTAX,
    "Klondike": _SYNTAX,
    "LetterAuction": _DOWNLOAD,
    "LightsOut-v0-train": _BOARD,
    "QuantumTicTacToe": "it goes on with one empty square, where a move needs two",
    "ReverseTicTacToe": _SYNTAX,
    "ScenarioPlanning": _KEY,
    "ScorableGames": _FILES,
    "Sokoban-v0-medium": _SLOW,
    "Sokoban-v0-medium-train": _SLOW,
    "SpellingBee": _DOWNLOAD,
    "Tak": "it goes on with a full board, on which no legal move was found",
    "TwentyQuestions": _KEY,
    "UltimateTexasHoldem": _SYNTAX,
    "UltimateTicTacToe": "it goes on with a full board once a small board was drawn",
    "UsedCar": _FILES,
    "UsedCarNegotiation": _FILES,
    "WordChains": _DOWNLOAD,
    "WordLadder": _DOWNLOAD,
    "WordSearch": _DOWNLOAD,
    "Wordle": _DOWNLOAD,
}
"""Why an environment, or one version of it by its full id, is not allowed."""
