"""What a person sees while a run goes on: one live panel in a terminal, plain lines elsewhere."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from marl_llm.alarms import Alarm
from marl_llm.config import Config
from marl_llm.evaluation.measure import Evaluation, GameEvaluation
from marl_llm.evaluation.team_score import TeamScore

PLAIN_EVERY_S = 10.0
"""Seconds between lines where the output is no terminal."""


class LiveView:
    """An `Observer` that draws; a context manager that leaves the terminal as it was."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._warmups: dict[str, TaskID] = {}
        self._training: TaskID | None = None
        self._total = 0
        self._shown: dict[str, float] = {}
        self._alarms: list[str] = []
        self._last_line = 0.0
        self.evaluations: dict[int, Evaluation] = {}
        """All that was measured, by step."""
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)

    def __enter__(self) -> "LiveView":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def started(self, run: Path, config: Config, step: int) -> None:
        """Say where the run writes and what it plays."""
        self._total = config.run.steps
        doing = "continues" if step else "starts"
        where = f"run {doing} at step {step} of {self._total}, in {run}"
        games = ", ".join(game.name for game in config.trained_games.values())
        self._console.print(f"{games}: {where}", markup=False)  # a path may hold brackets
        self._training = self._bar.add_task("training", total=self._total, completed=step)
        if any(policy.kind == "human" for policy in config.policies.values()):
            self._live.stop()  # it would draw over what the person is asked

    def warming_up(self, policy: str, step: int, steps: int, loss: float) -> None:
        """Show the imitation's progress."""
        if policy not in self._warmups:
            self._warmups[policy] = self._bar.add_task(f"warm-up of {policy}", total=steps)
        self._bar.update(self._warmups[policy], completed=step)
        self._shown["warm-up loss"] = loss
        self._line(f"warm-up of {policy}: step {step}/{steps}, loss {loss:.3f}", last=step == steps)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """Print the result; after training, print it beside the one before."""
        self.evaluations[step] = evaluation
        if step == 0:
            for game, measured in evaluation.games.items():
                if measured.exploitability is not None:
                    value = measured.exploitability.value
                    where = f" in {game}" if len(evaluation.games) > 1 else ""
                    self._console.print(f"before training: exploitability{where} {value:.3f} ({evaluation.policy})")
            return
        self._live.stop()
        self._console.print(comparison(self.evaluations.get(0), evaluation, step))

    def alarmed(self, step: int, alarm: Alarm) -> None:
        """Print what the alarm is about."""
        what = f"{alarm.name} {alarm.value:.3g} (threshold {alarm.threshold:g})"
        line = f"ALARM at step {step}: {what}: {alarm.meaning}"
        self._console.print(line, style="bold red", markup=False, highlight=False)

    def stepped(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the latest metrics."""
        self._shown.pop("warm-up loss", None)
        self._shown.update(metrics)
        self._alarms = [key.removeprefix("alarm/") for key in metrics if key.startswith("alarm/")]
        if self._training is not None:
            self._bar.update(self._training, completed=step)
        self._line(f"step {step}/{self._total}: {self._summary()}", last=step == self._total)

    def noted(self, text: str) -> None:
        """Print it."""
        self._console.print(text, style="yellow", markup=False, highlight=False)

    def _line(self, text: str, *, last: bool) -> None:
        now = perf_counter()
        if not self._console.is_terminal and (last or now - self._last_line >= PLAIN_EVERY_S):
            self._last_line = now
            self._console.print(text, highlight=False)

    def _summary(self) -> str:
        shown = self._shown
        parts = [f"{shown['play/games']:.0f} games"]
        parts += [f"return {role} {value:+.2f}" for role, value in _under("play/return/", shown).items()]
        parts += [f"{policy} {names} {shares}" for policy, names, shares in _actions(_under("play/action/", shown))]
        parts += [f"{name} {value:.3g}" for name, value in _under("play/fact/", shown).items()]
        parts.append(f"illegal {shown['play/illegal_fraction']:.1%}")
        for key, value in shown.items():
            if key.startswith("eval/") and key.endswith("/exploitability"):
                game = key.removeprefix("eval/").removesuffix("exploitability").rstrip("/")
                parts.append(f"exploitability {game}{' ' if game else ''}{value:.3f}")
        parts.append(f"{shown['play/tokens_per_s']:.0f} tokens/s")
        if "cluster/busy_mean" in shown:
            parts.append(f"workers busy {shown['cluster/busy_mean']:.0%}")
            parts += [f"{shown['cluster/restarts']:.0f} replaced"] if shown["cluster/restarts"] else []
        if "play/staleness_mean" in shown:
            parts.append(f"staleness {shown['play/staleness_mean']:.2g}")
        parts += [f"ALARM {name}" for name in self._alarms]
        return ", ".join(parts)

    def _render(self) -> RenderableType:
        if "play/games" in self._shown:
            return Group(self._bar, self._summary())
        if "warm-up loss" in self._shown:
            return Group(self._bar, f"warm-up loss {self._shown['warm-up loss']:.3f}")
        return self._bar


def comparison(before: Evaluation | None, after: Evaluation, step: int) -> Table:
    """A table of an evaluation, beside an earlier one if given; intervals are 95 %."""
    title = f"{after.policy}: before and after {step} steps" if before else f"{after.policy} at step {step}"
    table = Table("measure", title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for column in ("before", "after") if before else ("value",):
        table.add_column(column, no_wrap=True)
    earlier = {row[:2]: row[2] for row in rows(before)} if before else {}
    section = ""
    for heading, measure, value in rows(after):
        if heading != section:
            table.add_section()
            table.add_row(f"[bold]{heading}")
            section = heading
        cells = [earlier.get((heading, measure), ""), value] if before else [value]
        table.add_row(measure, *cells)
    return table


def rows(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(heading, measure, value with its 95 % interval) of everything that was measured."""
    several = len(evaluation.games) > 1
    return [
        row for game, measured in evaluation.games.items() for row in _rows(f"{game} " if several else "", measured)
    ]


def _rows(game: str, evaluation: GameEvaluation) -> Iterator[tuple[str, str, str]]:
    exploited = evaluation.exploitability
    if exploited is not None:
        value = f"{exploited.value:.4f}"
        if exploited.samples is None:
            yield game, "exploitability, exact", value
        else:
            interval = f"[{exploited.low:.3f}, {exploited.high:.3f}]"
            yield game, f"exploitability, estimate (n={exploited.samples})", f"{value} {interval}"
        yield game, "illegal probability mass", f"{exploited.illegal_mass:.4f}"
    best = evaluation.best_response
    if best is not None:
        value = f"{best.value:.4f}"
        if best.exact:
            yield game, "exploitability, exact by position", value
        else:
            yield game, "exploitability, lower bound", f"{value} [{best.low:.3f}, {best.high:.3f}]"
    if evaluation.illegal_fraction is not None:
        yield game, "illegal moves", f"{evaluation.illegal_fraction:.2%}"
    if evaluation.team is not None:
        yield from _team_rows(f"{game}team", evaluation.team)
    for opponent in {**evaluation.opponents, **evaluation.outcomes}:
        heading = f"{game}against {opponent}"
        for seat, score in evaluation.opponents.get(opponent, {}).items():
            yield heading, f"{seat}: return", f"{score.mean:+.3f} [{score.low:+.3f}, {score.high:+.3f}]"
            yield heading, f"{seat}: won", f"{score.win_rate:.1%} [{score.win_low:.1%}, {score.win_high:.1%}]"
            yield heading, f"{seat}: not lost", f"{score.not_lost:.1%}"
            of_seat = {f"{seat}:/{action}": share for action, share in _under("action/", score.details).items()}
            yield from ((heading, f"{who} {names}", shares) for who, names, shares in _actions(of_seat))
            yield from ((heading, f"{seat}: {name}", f"{v:.3f}") for name, v in _under("fact/", score.details).items())
        for seat, outcome in evaluation.outcomes.get(opponent, {}).items():
            yield heading, f"{seat}: lost, exact", f"{outcome.loss:.1%}"


def _team_rows(heading: str, team: TeamScore) -> Iterator[tuple[str, str, str]]:
    for role, mean in team.returns.items():
        yield heading, f"{role}: return", f"{mean.mean:+.3f} [{mean.low:+.3f}, {mean.high:+.3f}]"
    for name, mean in team.facts.items():
        yield heading, name, f"{mean.mean:.3f} [{mean.low:.3f}, {mean.high:.3f}]"
    yield heading, "illegal turns", f"{team.illegal_fraction:.2%}"
    yield heading, "tokens per game: sampled, read", f"{team.sampled_tokens:.0f}, {team.prompt_tokens:.0f}"


def _under(prefix: str, values: Mapping[str, float]) -> dict[str, float]:
    """The values whose keys begin with the prefix, by the rest of the key."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}


def _actions(shares: Mapping[str, float]) -> list[tuple[str, str, str]]:
    """WHO/ACTION -> share, in brief: who, the names of the actions, their shares in percent."""
    by_who: dict[str, dict[str, float]] = defaultdict(dict)
    for key, share in shares.items():
        who, _, action = key.rpartition("/")
        by_who[who][action] = share
    return [
        (who, "/".join(taken), f"{'/'.join(f'{100 * share:.0f}' for share in taken.values())} %")
        for who, taken in by_who.items()
    ]
