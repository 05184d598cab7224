"""A team as one model: questions go in, its answers come out."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from marl_llm.config import GameConfig
from marl_llm.errors import ConfigError
from marl_llm.evaluation.protocols import asking, protocol, seated, seats_for
from marl_llm.play import play
from marl_llm.seeds import derive
from marl_llm.team import policies_of
from marl_llm.types import Match


class Answerer:
    """The policies of a run, who answer by a protocol."""

    def __init__(
        self,
        run: str | Path,
        *,
        way: str = "single",
        step: int | None = None,
        temperature: float | None = None,
        seed: int = 0,
    ) -> None:
        """`way`: a protocol, or what the run calls one of its own pipelines. `step`, `temperature`: None is the latest
        checkpoint, and as the run has it.

        Raises:
            ConfigError: there is no such protocol.
            RunError, ModelError: the run or its checkpoint cannot be loaded.
        """
        self._config, self._policies = policies_of(run, step=step, temperature=temperature)
        own = self._config.games.get(way)
        self._game: GameConfig = protocol(way) if own is None else own
        self._seats = seats_for(self._config, self._game) if own is None else self._config.seats(way)
        self._seed = seed
        seated(asking(self._game, "Is everybody there?"), self._seats)

    def answers(self, questions: Sequence[str]) -> list[str]:
        """An answer to each question, all being found side by side; empty where there is none.

        Raises:
            ConfigError: a question is empty.
        """
        for number, question in enumerate(questions):
            if not question.strip():
                raise ConfigError(f"question {number}: {question!r} is not allowed; it must be a text")
        asked: Counter[str] = Counter()
        matches = []
        for number, question in enumerate(questions):
            matches.append(self._match(number, question, again=asked[question]))
            asked[question] += 1
        given = {
            episode.match.id: str(episode.hidden.get("answer", "")) if episode.status == "done" else ""
            for episode in play(matches, self._policies, max_turns=self._config.play.max_turns)
        }
        return [given[match.id] for match in matches]

    def _match(self, number: int, question: str, *, again: int) -> Match:
        """`again`: how often it was asked before in the same call; draws depend on that, and on nothing else asked."""
        return Match(
            id=f"question/{number}",
            game=self._game.name,
            settings={**self._game.settings, "tasks": {"source": "asked", "prompt": question}},
            seed=derive(self._seed, "question", question),
            group=f"question/{number}",
            member=again,
            seats=self._seats,
        )
