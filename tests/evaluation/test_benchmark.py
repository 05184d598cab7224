"""Teams answer benchmarks: nothing is asked twice, nothing is lost, and the same question gets the same answer."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from games.tasks import BENCHMARKS
from marl_llm.config import (
    BenchmarkConfig,
    EntrantConfig,
    PlayConfig,
    PolicyConfig,
    ProtocolConfig,
    load_benchmark,
    load_config,
)
from marl_llm.errors import ConfigError, RunError
from marl_llm.evaluation.accuracy import accuracies
from marl_llm.evaluation.answers import Answer, AnswerFile, read_answers
from marl_llm.evaluation.benchmark import ANSWERS, answer_all, pipelines, sizes
from marl_llm.train import train
from tests.endpoint import Answer as Answered
from tests.endpoint import Endpoint, saying
from tests.test_train import Silent

ROOT = Path(__file__).parents[2]
SUMS = {"source": "arithmetic", "level": 1, "size": 20}
OURS = BenchmarkConfig(
    seed=5,
    samples=2,
    baseline="half",
    teams={
        "half": EntrantConfig(policies={"one": PolicyConfig(kind="informed", options={"accuracy": 0.5})}),
        "oracle": EntrantConfig(policies={"one": PolicyConfig(kind="informed", options={"accuracy": 1.0})}),
    },
    benchmarks={"sums": SUMS},
    protocols={"debate": ProtocolConfig(settings={"rounds": 1})},
)


def stopping(after: int) -> object:
    def watch(answers: Iterable[Answer], total: int, about: str) -> Iterator[Answer]:
        yield from islice(answers, after)
        raise KeyboardInterrupt

    return watch


def told(answers: Iterable[Answer]) -> dict[object, tuple[str | None, float]]:
    return {answer.key: (answer.answer, answer.correct) for answer in answers}


def test_everybody_answers_every_item_by_every_protocol(tmp_path: Path) -> None:
    answers = answer_all(OURS, tmp_path)
    counts = Counter((answer.key.team, answer.key.protocol) for answer in answers)
    assert counts == {(team, way): 40 for team in ("half", "oracle") for way in ("single", "debate")}
    assert read_answers(tmp_path / ANSWERS) == answers
    results = accuracies(answers, samples=2, matched=True, baseline="half")
    assert results["sums", "single", "oracle"].accuracy.mean == results["sums", "debate", "oracle"].accuracy.mean == 1.0
    assert 0.2 < results["sums", "single", "half"].accuracy.mean < 0.8
    against = results["sums", "debate", "oracle"].against
    assert against is not None
    assert against.low > 0
    assert {answer.turns for answer in answers if answer.key.protocol == "debate"} == {3}


def test_answers_that_mean_the_same_are_one_vote_and_silence_is_none(tmp_path: Path) -> None:
    (tmp_path / "q.jsonl").write_text('{"prompt": "2 + 2?", "answer": "4.0", "check": "number"}')
    asked = replace(OURS, benchmarks={"sums": {"source": f"{tmp_path}/q.jsonl"}})
    answers = answer_all(asked, tmp_path)
    assert {answer.vote for answer in answers if answer.key.team == "oracle"} == {"4"}
    assert all((answer.vote is None) == (answer.answer == "no answer") for answer in answers)


@pytest.mark.parametrize("after", [0, 1, 17, 39])
def test_what_was_stopped_goes_on_and_asks_nothing_twice(tmp_path: Path, after: int) -> None:
    whole = answer_all(OURS, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        answer_all(OURS, tmp_path / "part", watch=stopping(after))  # type: ignore[arg-type]
    before = read_answers(tmp_path / "part" / ANSWERS)
    assert len(before) == after
    after_all = answer_all(OURS, tmp_path / "part")
    assert after_all[:after] == before
    assert len((tmp_path / "part" / ANSWERS).read_text().splitlines()) == len(whole)
    assert told(after_all) == told(whole)


def test_another_protocol_may_be_added_and_it_alone_is_asked(tmp_path: Path) -> None:
    before = answer_all(OURS, tmp_path)
    more = replace(OURS, protocols={**OURS.protocols, "generate_verify_refine": ProtocolConfig()})
    after = answer_all(more, tmp_path)
    assert after[: len(before)] == before
    assert {answer.key.protocol for answer in after[len(before) :]} == {"generate_verify_refine"}


def test_the_same_name_may_not_mean_something_else(tmp_path: Path) -> None:
    answer_all(OURS, tmp_path)
    other = replace(OURS, seed=6, benchmarks={"sums": {**SUMS, "level": 2}})
    with pytest.raises(ConfigError, match=r"given to other settings of seed, benchmarks\.sums; choose another name"):
        answer_all(other, tmp_path)


def test_a_name_keeps_its_meaning_while_it_is_left_out(tmp_path: Path) -> None:
    answer_all(OURS, tmp_path)
    half, oracle = OURS.teams["half"], OURS.teams["oracle"]
    left = answer_all(replace(OURS, teams={"half": half}), tmp_path)
    assert {answer.key.team for answer in left} == {"half"}, "of the oracle nothing was asked"
    with pytest.raises(ConfigError, match=r"given to other settings of teams\.oracle"):
        answer_all(replace(OURS, teams={"half": half, "oracle": half}), tmp_path)
    assert len(answer_all(replace(OURS, teams={"oracle": oracle}, baseline=None), tmp_path)) == 80


def test_the_single_protocol_keeps_its_meaning_though_nobody_named_it(tmp_path: Path) -> None:
    answer_all(OURS, tmp_path)
    other = replace(OURS, protocols={"single": ProtocolConfig(settings={"rounds": 2})})
    with pytest.raises(ConfigError, match=r"given to other settings of protocols\.single"):
        answer_all(other, tmp_path)


def test_what_went_wrong_before_the_first_answer_binds_nobody(tmp_path: Path) -> None:
    lost = replace(OURS, teams={"half": EntrantConfig(runs=[str(tmp_path / "none")])})
    with pytest.raises(RunError):
        answer_all(lost, tmp_path)
    assert len(answer_all(OURS, tmp_path)) == 160


def test_other_questions_under_the_same_name_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"id": "a", "prompt": "2 + 2?", "answer": "4"}')
    asked = replace(OURS, benchmarks={"sums": {"source": str(file)}})
    answer_all(asked, tmp_path / "results")
    file.write_text('{"id": "a", "prompt": "3 + 3?", "answer": "6"}')
    with pytest.raises(ConfigError, match=r"benchmarks\.sums: item 0 was another question"):
        answer_all(asked, tmp_path / "results")


def test_a_forfeit_is_a_wrong_answer_and_a_game_without_answers_is_no_protocol(tmp_path: Path) -> None:
    silent = {"mute": EntrantConfig(policies={"one": PolicyConfig(kind="informed", options={"accuracy": 0.0})})}
    strict = {"strict": ProtocolConfig(game="workflow", settings={"on_illegal": "forfeit"})}
    answers = answer_all(replace(OURS, teams=silent, protocols=strict, baseline=None), tmp_path / "strict")
    assert len(answers) == 80
    assert not any(answer.correct for answer in answers)
    asking = {"asking": ProtocolConfig(game="proposer_solver")}
    with pytest.raises(ConfigError, match=r"protocols\.asking"):
        answer_all(replace(OURS, protocols=asking), tmp_path / "asking")


def test_one_process_at_a_time_adds_answers(tmp_path: Path) -> None:
    with AnswerFile(tmp_path / ANSWERS), pytest.raises(RunError, match="another process is adding to it"):
        answer_all(OURS, tmp_path)


def test_an_endpoint_is_told_temperature_and_form_and_nothing_is_matched_where_it_tells_no_tokens(
    tmp_path: Path, serve: Callable[[Callable[[int], Answered]], Endpoint]
) -> None:
    endpoint = serve(lambda _: saying("7"))
    remote = PolicyConfig(kind="remote", options={"url": endpoint.url, "model": "m"})
    config = replace(
        OURS,
        samples=1,
        baseline=None,
        teams={"theirs": EntrantConfig(policies={"one": remote}, temperature=0.5)},
        benchmarks={"sums": {**SUMS, "size": 2}},
        play=PlayConfig(answers="plain"),
    )
    answers = answer_all(config, tmp_path)
    assert {answer.answer for answer in answers} == {"7"}
    assert {body["temperature"] for _, _, body in endpoint.asked} == {0.5}
    results = accuracies(answers, samples=1, matched=True, baseline=None)
    assert results["sums", "debate", "theirs"].matched is None


def test_what_failed_counts_as_wrong_and_is_asked_again_if_one_says_so(tmp_path: Path) -> None:
    """Nobody gets to the end: a debate of one round has three turns."""
    short = replace(OURS, play=PlayConfig(max_turns=2), teams={"oracle": OURS.teams["oracle"]}, baseline=None)
    failed = answer_all(short, tmp_path)
    debated = [answer for answer in failed if answer.key.protocol == "debate"]
    assert [(answer.answer, answer.correct, answer.status) for answer in debated] == [(None, 0.0, "truncated")] * 40
    assert accuracies(failed, samples=2, matched=True, baseline=None)["sums", "debate", "oracle"].failed == 40
    assert len(answer_all(short, tmp_path)) == len((tmp_path / ANSWERS).read_text().splitlines()) == 80
    answer_all(short, tmp_path, retry=True)
    assert len((tmp_path / ANSWERS).read_text().splitlines()) == 120


def test_the_policies_of_runs_answer_and_each_run_counts(tmp_path: Path) -> None:
    small = load_config(
        Path(__file__).parents[1] / "small.yaml",
        [
            "games={alone: {name: workflow, settings: {tasks: {source: arithmetic, level: 1}}}}",
            "play={max_reply_tokens: 12, context_tokens: 256}",
            "policies.agent.warmup.teacher=informed",
            "policies.informed={kind: informed}",
            "evaluation={every: 0, games: 0, exploitability: false}",
            "run.steps=1",
        ],
    )
    runs = [str(train(small, Silent(), path=tmp_path / f"run{number}")) for number in range(2)]
    config = replace(
        OURS,
        baseline=None,
        samples=1,
        teams={
            "runs": EntrantConfig(runs=runs),
            "before": EntrantConfig(runs=runs[:1], step=0, temperature=0.01),
        },
    )
    answers = answer_all(config, tmp_path / "results")
    results = accuracies(answers, samples=1, matched=True, baseline=None)
    assert (results["sums", "single", "runs"].runs, results["sums", "single", "before"].runs) == (2, 1)
    assert results["sums", "debate", "runs"].spread == 0.0, "the same run twice"
    assert results["sums", "debate", "runs"].tokens > results["sums", "single", "runs"].tokens > 0
    single = [answer for answer in answers if answer.key.protocol == "single" and answer.key.team == "runs"]
    most = results["sums", "debate", "runs"].matched
    assert most is not None
    assert len(single) == 2 * 20 * most.votes
    kept = replace(config, teams={"before": config.teams["before"]}, baseline=None)
    answer_all(kept, tmp_path / "steps")
    later = replace(kept, teams={"before": EntrantConfig(runs=runs[:1], temperature=0.01)})
    stepless = replace(kept, teams={"now": EntrantConfig(runs=runs[:1])})
    answer_all(stepless, tmp_path / "steps")
    with pytest.raises(ConfigError, match=r"given to other settings of teams\.before"):
        answer_all(later, tmp_path / "steps")
    shutil.rmtree(Path(runs[0]) / "checkpoints" / "step_1")
    with pytest.raises(ConfigError, match=r"teams\.now: the answers that are there are of step 1, and .* of step 0"):
        answer_all(stepless, tmp_path / "steps")
    with pytest.raises(ConfigError, match="seats: 'nobody' is not allowed"):
        answer_all(replace(config, teams={"lost": EntrantConfig(runs=runs, seats={"*": "nobody"})}), tmp_path / "seats")


def test_single_answers_are_always_there_and_first() -> None:
    assert list(pipelines(OURS)) == ["single", "debate"]
    own = replace(OURS, protocols={"debate": ProtocolConfig(), "single": ProtocolConfig(settings={"rounds": 2})})
    assert [(name, game.settings) for name, game in pipelines(own).items()] == [
        ("single", {"rounds": 2}),
        ("debate", {}),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocols": {"debat": ProtocolConfig()}}, "protocol 'debat' is unknown; nearest valid name: debate"),
        ({"protocols": {"x": ProtocolConfig(game="kuhn_poker")}}, r"protocols\.x on benchmarks\.sums: .*tasks"),
        ({"benchmarks": {"sums": {"source": "arithmetik"}}}, r"benchmarks\.sums: unknown tasks 'arithmetik'"),
        ({"benchmarks": {"sums": {"source": "none.jsonl"}}}, r"benchmarks\.sums: none\.jsonl: cannot be read"),
        (
            {"protocols": {"debate": ProtocolConfig(settings={"rounds": 0})}},
            r"protocols\.debate on benchmarks\.sums: .*rounds=0 is not allowed",
        ),
    ],
)
def test_a_wrong_setting_is_refused_before_anybody_is_loaded(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sizes(replace(OURS, **change))  # type: ignore[arg-type]


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = replace(OURS, teams={"lost": EntrantConfig(runs=[str(tmp_path / "none")])}, baseline=None)
    with pytest.raises(RunError, match="none"):
        answer_all(missing, tmp_path / "results")


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "benchmarks").glob("*.yaml")), ids=lambda file: file.name)
def test_the_benchmarks_that_come_along_can_be_asked(file: Path) -> None:
    """Of the data sets of the hub the samples that come along are asked."""
    config = load_benchmark(file)
    offline = {
        name: {**tasks, "path": "sample"} if tasks["source"] in BENCHMARKS else tasks
        for name, tasks in config.benchmarks.items()
    }
    assert all(size > 0 for size in sizes(replace(config, benchmarks=offline)).values())
