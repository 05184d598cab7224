"""What the page can ask about a run, as plain values: everything that reads, and nothing that acts."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from typing import Any, get_args

import games
from marl_llm.checkpoints import list_checkpoints
from marl_llm.config import ScriptedKind
from marl_llm.credit.load import recipe_names
from marl_llm.errors import ConfigError, MarlError, RunError
from marl_llm.run import Run
from marl_llm.types import Episode
from marl_llm.watch import boards
from marl_llm.watch.credits import Credits, ReadingError, Told, told_json
from marl_llm.watch.curves import Curves
from marl_llm.watch.index import Index
from marl_llm.watch.reading import read_one
from marl_llm.watch.search import Search, search
from marl_llm.watch.spelling import Spelling
from marl_llm.watch.story import FIELDS, PART, field_of, finite, story

PAUSE_S = 0.5
"""Seconds between two looks at the run directory, at least."""
SCORED = 100
"""Episodes whose entropies and ratios stay in memory."""
ABOUT = {
    "logprob": "log-probability of what was sampled, when it was sampled (nats)",
    "advantage": "advantage that the recipe gives",
    "ratio": "probability at the checkpoint over that with which it was sampled",
    "entropy": "entropy of the policy's next token (nats)",
}

Scores = Mapping[int, Mapping[str, Sequence[float]]]
"""Turn -> `entropy` and `ratio` of its sampled tokens."""


class MustScoreError(Exception):
    """What is asked for is not in the log: a model has to be asked first."""


class Browser:
    """A run as somebody reads it; looks at the directory whenever somebody does."""

    def __init__(self, run: Path, index: Index) -> None:
        """Raises `RunError` and `ConfigError` where it is not a run directory."""
        self.run = run
        self.config = Run.config(run)
        self.index = index
        self.curves = Curves(run / "metrics.jsonl")
        self.credits = Credits(run, self.config.credit)
        self._spelling = Spelling(run, self.config)
        self._scores: OrderedDict[tuple[str, int | None], Scores] = OrderedDict()
        self._woken, self._closing = Event(), Event()
        self._trouble = ""
        self._thread = Thread(target=self._follow, daemon=True, name="index")

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._closing.set()
        self._woken.set()
        self._thread.join()

    def touch(self) -> None:
        """Somebody looks at the page: what is new in the directory is read, to be there when they ask again."""
        self._woken.set()

    def _follow(self) -> None:
        while not self._closing.is_set():
            self._woken.clear()
            try:
                self.curves.refresh()
                for _ in self.index.refresh():
                    if self._closing.is_set():
                        return
                self._trouble = ""
            except RunError as error:
                self._trouble = str(error)
            except Exception as error:  # ours; the page says so, and what comes later is read all the same
                self._trouble = f"the run cannot be read: {type(error).__name__}: {error}"
            self._closing.wait(PAUSE_S)
            self._woken.wait()

    # The run.

    def about(self) -> dict[str, Any]:
        """The run as a whole."""
        seen = {name: self._names(name) for name in ("role", "policy")}
        trouble = [self._trouble] if self._trouble else []
        return {
            "name": self.config.run.name,
            "path": str(self.run),
            "step": self.curves.latest,
            "steps": self.config.run.steps,
            "live": is_live(self.run),
            "games": self.games,
            "policies": {name: {"kind": policy.kind} for name, policy in self.config.policies.items()},
            "roles": seen["role"],
            "seen_policies": seen["policy"],
            "recipe": self.credits.own,
            "recipes": recipe_names(),
            "checkpoints": self.checkpoints,
            "alarms": [asdict(alarm) for alarm in self.curves.alarms()],
            "indexed": self.index.indexed,
            "problems": [*trouble, *self.curves.problems, *self.index.problems],
        }

    @property
    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that there are."""
        return [step for step, _ in list_checkpoints(self.run / "checkpoints")]

    @cached_property
    def games(self) -> dict[str, Any]:
        """Label to what the game says of itself."""
        return {label: game_told(game.name, game.settings) for label, game in self.config.games.items()}

    @cached_property
    def _made(self) -> set[str]:
        """Games that may be made here: ours, and those of the run's settings."""
        return {*games.names(), *(game.name for game in self.config.games.values())}

    def _names(self, column: str) -> list[str]:
        return [
            name
            for (name,) in self.index.rows(
                f"SELECT name FROM names WHERE id IN (SELECT {column} FROM seen) ORDER BY name"
            )
        ]

    def players(self) -> dict[str, Any]:
        """Who can sit somewhere, and what can be played."""
        own = [name for name, policy in self.config.policies.items() if policy.kind != "human"]
        models = [name for name, policy in self.config.policies.items() if policy.kind == "llm"]
        steps = self.checkpoints[-20:]
        scripted = [kind for kind in get_args(ScriptedKind) if kind not in own]
        return {
            "labels": {label: game.name for label, game in self.config.games.items()},
            "games": {name: game_told(name, {}) for name in games.names()},
            "players": [*own, *(f"{name}@{step}" for name in models for step in steps), *scripted],
        }

    # Episodes.

    def search(self, wanted: Search, alarm: str = "") -> dict[str, Any]:
        """See `search`; `alarm`: only steps at which it was on."""
        if alarm:
            wanted = replace(wanted, steps=self.curves.alarmed(alarm))
        own = self.config.games.get(wanted.game)
        if own is not None and len(self.config.trained_games) == 1:
            wanted = replace(wanted, game=own.name)  # episodes have labels where there are several games
        return search(self.index, wanted)

    def episode(self, match: str) -> tuple[Episode, int | None, str]:
        """An episode, its step and its kind.

        Raises:
            LookupError: there is none of that id.
            RunError: its file is not what it was.
        """
        place = self.index.place(match)
        if place is None:
            raise LookupError(f"there is no episode {match!r} in this run (it may not have been read yet)")
        return read_one(place.file, place.offset), place.step, place.kind

    def story(self, match: str) -> dict[str, Any]:
        """The episode with its boards, its group and what was forked from it."""
        episode, step, kind = self.episode(match)
        known = episode.match.game in self._made  # what else a file names is not called
        drawn = boards.boards(episode) if known else boards.none(episode)
        form = game_told(episode.match.game, episode.match.settings)["form"] if known else boards.FORMS[0]
        told = story(episode) | {"step": step, "kind": kind, "form": form, "final_board": drawn.final}
        for turn, board in zip(told["turns"], drawn.before, strict=True):
            turn["board"] = board
        members = search(
            self.index,
            Search(group=episode.match.group, first=step, last=step, kind="logged", order="oldest", limit=200),
        )
        forks = search(self.index, Search(original=match, order="newest", limit=200))
        told["members"] = [_result(row) for row in members["rows"]]
        told["branches"] = [self._fork(row) for row in reversed(forks["rows"])]
        told["earlier_branches"] = forks["total"] - len(forks["rows"])
        return told

    def _fork(self, row: Mapping[str, Any]) -> dict[str, Any]:
        try:
            episode, _, _ = self.episode(row["id"])
        except RunError as error:  # of one that is damaged
            return _result(row) | {"turn": None, "asked": str(error)}
        turn = episode.match.branch.turn if episode.match.branch else 0
        return _result(row) | {"turn": turn, "asked": str(episode.hidden.get("asked", ""))[:200]}

    def text(self, match: str, turn: int, field: str, offset: int) -> dict[str, Any]:
        """A part of a long text, from a character on."""
        if field not in FIELDS:
            raise ConfigError(f"field: {field!r} is not allowed; it must be one of {list(FIELDS)}")
        whole = field_of(self._turn(self.episode(match)[0], turn), field)
        end = offset + PART
        return {"text": whole[offset:end], "next": end if end < len(whole) else None, "length": len(whole)}

    @staticmethod
    def _turn(episode: Episode, turn: int) -> Any:
        if not 0 <= turn < len(episode.turns):
            raise LookupError(f"episode {episode.match.id} has no turn {turn}; it has {len(episode.turns)}")
        return episode.turns[turn]

    def credit(self, match: str, turn: int, recipes: Sequence[str]) -> dict[str, Any]:
        """Where a turn's advantage comes from, under each recipe."""
        episode, step, _ = self.episode(match)
        decided = self._turn(episode, turn)
        told: list[dict[str, Any]] = []
        for name in recipes or [""]:
            try:
                found: Told = self.credits.told(episode, step, turn, self.credits.recipe(name))
                told.append(told_json(found, f"{match}#{turn}"))
            except ReadingError as error:
                progress = {"done": error.done, "of": error.of}
                told.append({"name": name or self.credits.own, "reading": progress, "note": str(error)})
            except MarlError as error:
                told.append({"name": name or self.credits.own, "error": str(error)})
        return {
            "id": match,
            "turn": turn,
            "agent": decided.agent,
            "role": decided.role,
            "action": decided.action,
            "rewards": dict(decided.rewards),
            "recipes": told,
        }

    def keep_scores(self, match: str, step: int | None, scores: Scores) -> None:
        """Remember what a model said of an episode's tokens."""
        self._scores[match, step] = scores
        while len(self._scores) > SCORED:
            self._scores.popitem(last=False)

    def colours(self, match: str, by: str, recipe: str, step: int | None) -> dict[str, Any]:
        """A number per turn and, where there is one, per sampled token, with the token's text.

        Raises:
            MustScoreError: a model has to be asked first.
        """
        episode, at, _ = self.episode(match)
        values = self._values(episode, at, by, recipe, step)
        turns = []
        for index, turn in enumerate(episode.turns):
            per_turn, per_token = values.get(index, (None, ()))
            texts = None
            if per_token and turn.completion is not None:
                texts = self._spelling.texts(turn.policy, turn.completion.tokens)
            shown = [
                {"text": text, "value": finite(value)} for text, value in zip(texts or (), per_token, strict=False)
            ]
            turns.append({"index": index, "value": finite(per_turn), "tokens": shown or None})
        return {"by": by, "about": ABOUT.get(by, f"{by}, as measured"), "turns": turns}

    def _values(
        self, episode: Episode, at: int | None, by: str, recipe: str, step: int | None
    ) -> dict[int, tuple[float | None, Sequence[float]]]:
        """Turn -> its number, and those of its tokens."""
        if by == "advantage":
            credited = self.credits.credited(episode, at, self.credits.recipe(recipe))
            own = {t: v for (match, t), v in credited.by_turn(credited.advantages).items() if match == episode.match.id}
            return {t: (v, ()) if isinstance(v, float) else (fmean(v) if v else None, v) for t, v in own.items()}
        tokens: dict[int, Sequence[float]]
        if by == "logprob":
            sampled = ((t, turn.completion) for t, turn in enumerate(episode.turns))
            tokens = {t: completion.logprobs for t, completion in sampled if completion is not None}
        else:
            tokens = {t: turn.token_probes[by] for t, turn in enumerate(episode.turns) if by in turn.token_probes}
            tokens = tokens if step is None and tokens else self._scored(episode, by, step)
        values: dict[int, tuple[float | None, Sequence[float]]]
        values = {t: (turn.probes[by], ()) for t, turn in enumerate(episode.turns) if by in turn.probes}
        return values | {t: (_known_mean(v), v) for t, v in tokens.items()}

    def _scored(self, episode: Episode, by: str, step: int | None) -> dict[int, Sequence[float]]:
        if by not in ("ratio", "entropy"):
            return {}
        if (episode.match.id, step) not in self._scores:
            raise MustScoreError(f"{by} is not in the log: the model of a checkpoint has to be asked")
        return {turn: values[by] for turn, values in self._scores[episode.match.id, step].items()}


def _known_mean(values: Sequence[float]) -> float | None:
    known = [value for value in values if finite(value) is not None]  # else it was not measured
    return fmean(known) if known else None


def _result(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "kind": row["kind"],
        "status": row["status"],
        "returns": {seat["agent"]: seat["return"] for seat in row["seats"]},
        "preview": row["preview"],
    }


def game_told(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a game says of itself; that it cannot be made, where it cannot."""
    try:
        return {"name": name, **boards.about(name, settings)}
    except Exception as error:  # somebody else's game may raise anything, and the rest of the page does not need it
        told = {"name": name, "agents": [], "roles": [], "form": boards.FORMS[0], "talks": False}
        return {**told, "rules": f"it cannot be made here: {error}"}


def is_live(run: Path) -> bool:
    """Whether a process trains there: the one that the lock names has it open."""
    lock = run / "run.lock"
    try:
        process = int(lock.read_text())
        return any(file.samefile(lock) for file in Path(f"/proc/{process}/fd").iterdir() if file.exists())
    except (OSError, ValueError):
        return False
