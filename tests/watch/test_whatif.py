"""What the process that acts does: branches, scores, and games that a person plays."""

import io
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marl_llm.config import PlayConfig, load_config
from marl_llm.episodes import episode_to_json
from marl_llm.errors import ConfigError, RunError
from marl_llm.learning.samples import to_samples
from marl_llm.play import play
from marl_llm.policies.scripted import make_scripted
from marl_llm.run import checkpoint_path, keep_whatif, read_episodes, whatif_file, whatif_ids
from marl_llm.team import found
from marl_llm.types import Episode, Match
from marl_llm.watch.seats import Seats, Shared
from marl_llm.watch.tables import PlayedTable
from marl_llm.watch.whatif import spoken
from marl_llm.watch.worker import Actor, serve
from tests.tiny import first_view
from tests.watch.trained import trained

FILE = "episodes/step_000002.jsonl"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(whole: Path) -> Iterator[Path]:
    yield whole
    shutil.rmtree(whole / "whatif", ignore_errors=True)


@pytest.fixture(scope="module")
def actor(whole: Path) -> Actor:
    return Actor(whole)


def do(actor: Actor, what: str, **request: Any) -> dict[str, Any]:
    return actor.do(placed(actor, {"do": what, **request}), lambda doing, done, of: None)


def placed(actor: Actor, request: dict[str, Any]) -> dict[str, Any]:
    return request | ({"file": str(actor._seats.path / request["file"])} if "file" in request else {})


def branch(actor: Actor, **request: Any) -> dict[str, Any]:
    return do(actor, "branch", **{"file": FILE, "offset": 0, "turn": 2} | request)


def kept(run: Path, step: int | None = 2) -> dict[str, Episode]:
    return {episode.match.id: episode for episode in read_episodes(whatif_file(run, step))}


def original(run: Path) -> Episode:
    return next(iter(read_episodes(run / FILE)))


def test_another_sample_is_played_n_times_and_kept_beside_the_original(run: Path, actor: Actor) -> None:
    told: list[tuple[str, int, int]] = []
    result = actor.do(
        {"do": "branch", "file": str(run / FILE), "offset": 0, "turn": 2, "n": 3},
        lambda *progress: told.append(progress),
    )
    first, episodes = original(run), kept(run)
    assert result["episodes"] == list(episodes) == [f"s2/g0/m0/t2wn{number}" for number in range(3)]
    assert result["original"] == first.returns
    assert result["returns"]["player_0"] == [episode.returns["player_0"] for episode in episodes.values()]
    assert told[-1] == ("playing", 3, 3)
    replies = {first.turns[2].reply}
    for episode in episodes.values():
        assert (episode.match.branch.episode, episode.match.branch.turn) == ("s2/g0/m0", 2)
        assert episode.hidden["asked"] == "turn 2 of player_0: another sample (policies of step 1)"
        assert [turn.reply for turn in episode.turns[:2]] == [turn.reply for turn in first.turns[:2]]
        assert [turn.weight for turn in episode.turns[:3]] == [0.0, 0.0, 1.0]
        assert episode.turns[2].observation == first.turns[2].observation
        assert episode.turns[2].completion.versions[0] == 1, "the step of the checkpoint"
        replies.add(episode.turns[2].reply)
    assert len(replies) == 4, "an untrained model says something else every time"


def test_ids_of_branches_go_on_where_those_before_ended(run: Path, actor: Actor) -> None:
    assert branch(actor, n=2)["episodes"] == ["s2/g0/m0/t2wn0", "s2/g0/m0/t2wn1"]
    assert branch(actor, n=2)["episodes"] == ["s2/g0/m0/t2wn2", "s2/g0/m0/t2wn3"]
    assert branch(actor, turn=1)["episodes"] == ["s2/g0/m0/t1wn0"]
    replies = {episode.turns[2].reply for name, episode in kept(run).items() if "/t2w" in name}
    assert len(replies) == 4, "the same was not drawn again"


def test_a_branch_of_a_branch_is_kept_with_the_step_that_both_are_of(run: Path, actor: Actor) -> None:
    branch(actor)
    again = branch(actor, file="whatif/step_000002.jsonl", turn=3)
    assert again["episodes"] == ["s2/g0/m0/t2wn0/t3wn0"]
    assert kept(run)["s2/g0/m0/t2wn0/t3wn0"].turns[2].reply == kept(run)["s2/g0/m0/t2wn0"].turns[2].reply


def test_a_reply_written_by_hand_takes_the_place_of_the_turn(run: Path, actor: Actor) -> None:
    legal = original(run).turns[2].legal_actions
    (name,) = branch(actor, reply=f" {legal[-1].upper()} ")["episodes"]
    turn = kept(run)[name].turns[2]
    assert (turn.policy, turn.reply, turn.action, turn.legal) == ("you", f" {legal[-1].upper()} ", legal[-1], True)
    assert turn.prompt is turn.completion is None
    assert [turn.policy for turn in kept(run)[name].turns[3:5]] == ["agent", "agent"]
    assert legal[-1] not in kept(run)[name].turns[3].legal_actions


def test_a_reply_written_by_hand_may_be_illegal(run: Path, actor: Actor) -> None:
    (name,) = branch(actor, reply="the middle", policy="random", step=0)["episodes"]
    episode = kept(run)[name]
    assert (episode.turns[2].action, episode.turns[2].legal) == (None, False)
    asked = "turn 2 of player_0: the reply 'the middle', then random plays player_0 from there on (policies of step 0)"
    assert episode.hidden["asked"] == asked


def test_another_policy_takes_the_seat_from_that_turn_on(run: Path, actor: Actor) -> None:
    (name,) = branch(actor, policy="random")["episodes"]
    episode = kept(run)[name]
    assert [turn.policy for turn in episode.turns[:5]] == ["agent", "agent", "random", "agent", "random"]
    assert episode.match.seats == {"player_0": "random", "player_1": "agent"}


def test_the_policy_of_another_step_plays_against_that_of_this_one(run: Path, actor: Actor) -> None:
    (name,) = branch(actor, policy="agent@2", step=0)["episodes"]
    turns = kept(run)[name].turns
    assert [(turn.policy, turn.completion.versions[0]) for turn in turns[2:4]] == [("agent@2", 2), ("agent", 0)]


def test_one_checkpoint_in_both_seats_under_two_names_keeps_them_apart(run: Path, actor: Actor) -> None:
    (name,) = branch(actor, policy="agent@1", step=1)["episodes"]
    assert [turn.policy for turn in kept(run)[name].turns[2:5]] == ["agent@1", "agent", "agent@1"]


def test_two_checkpoints_stay_in_memory(run: Path) -> None:
    actor, told = Actor(run), []
    for step in (0, 1, 0, 2, 0, 1):
        actor.do(
            {"do": "score", "file": str(run / FILE), "offset": 0, "step": step}, lambda doing, _, __: told.append(doing)
        )
    assert [text for text in told if text.startswith("loading")] == [
        f"loading the policies of step {step}" for step in (0, 1, 2, 1)
    ]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"policy": "nobody"}, r"player 'nobody': unknown player; .* of this run: agent, noisy, random, agent@STEP"),
        ({"policy": "agent@7"}, r"no checkpoint of step 7; there are \[0, 1, 2\]"),
        ({"policy": "tit_for_tat"}, "player 'tit_for_tat': policy tit_for_tat: plays matrix_game only"),
        ({"policy": "you"}, "seat player_0 of s2/g0/m0 is a person's, who is not asked again"),
        ({"step": 7}, r"no checkpoint of step 7; there are \[0, 1, 2\]"),
        ({"turn": 99}, "turn: 99 is not allowed; it must be one of the 7 of s2/g0/m0"),
        ({"turn": -1}, "turn: -1 is not allowed"),
        ({"n": 0}, "n: 0 is not allowed; it must be between 1 and 256"),
        ({"offset": 1}, "step_000002.jsonl: what begins at byte 1 is no episode"),
        ({"file": "episodes/step_000009.jsonl"}, "step_000009.jsonl: there is no episode at byte 0"),
    ],
)
def test_what_cannot_be_branched_is_refused_and_nothing_is_kept(
    run: Path, actor: Actor, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises((ConfigError, RunError), match=message):
        branch(actor, **request_)
    assert not whatif_file(run, 2).exists()


@pytest.mark.parametrize("seeded", [True, False])
def test_a_game_that_does_not_follow_from_its_seed_is_refused(run: Path, actor: Actor, seeded: bool) -> None:
    game = "tests.watch.fickle_game:env"
    match = Match(id="f", game=game, settings={"seeded": seeded}, seed=0, group="f", seats={"*": "random"})
    (episode,) = play([match], {"random": make_scripted("random", {})})
    (run / "whatif").mkdir()
    (run / "whatif" / "fickle.jsonl").write_text(f"{episode_to_json(episode)}\n")
    with pytest.raises(RunError, match=r"f cannot be branched: the game tests.* does not follow from its seed"):
        branch(actor, file="whatif/fickle.jsonl", turn=0)


def test_a_line_that_was_half_written_does_not_damage_what_comes_after(run: Path, actor: Actor) -> None:
    branch(actor)
    file = whatif_file(run, 2)
    with file.open("ab") as opened:
        opened.write(file.read_bytes()[:500])
    assert whatif_ids(run, 2) == {"s2/g0/m0/t2wn0"}
    branch(actor)
    assert list(kept(run)) == ["s2/g0/m0/t2wn0", "s2/g0/m0/t2wn1"]


def test_who_keeps_an_episode_whose_id_was_taken_meanwhile_gets_the_next_one(tmp_path: Path) -> None:
    (episode,) = play(
        [Match(id="s1/g0/m0/t0wn7", game="kuhn_poker", seed=0, group="s1/g0", seats={"*": "random"})],
        {"random": make_scripted("random", {})},
    )
    other = replace(episode, match=replace(episode.match, id="s1/g0/m0/t0wn9"))
    keep_whatif(tmp_path, 1, [episode, other])
    names = [one.match.id for one in keep_whatif(tmp_path, 1, [episode, episode])]
    assert names == ["s1/g0/m0/t0wn8", "s1/g0/m0/t0wn10"]
    assert whatif_ids(tmp_path, 1) == {f"s1/g0/m0/t0wn{number}" for number in (7, 8, 9, 10)}


def test_scores_are_the_learners_own_and_one_at_the_checkpoint_that_has_played(run: Path, actor: Actor) -> None:
    now = do(actor, "score", file=FILE, offset=0)
    assert now["step"] == 1, "the weights that have played step 2"
    episode = original(run)
    config = load_config(run / "config.yaml")
    learner = found(config, checkpoint_path(run, 1)).members["agent"].learner
    every = {("s2/g0/m0", index): 0.0 for index in range(len(episode.turns))}
    samples = to_samples([episode], every, "agent", dict.fromkeys(every, 1.0))
    told = learner.measure(samples, ["entropy", "logprob_now"])
    by_agent = [now["turns"][index] for index in sorted(now["turns"], key=lambda i: episode.turns[int(i)].agent)]
    assert [value for turn in by_agent for value in turn["entropy"]] == pytest.approx(told["entropy"])
    assert [value for turn in by_agent for value in turn["logprob"]] == pytest.approx(told["logprob_now"])
    assert all(ratio == pytest.approx(1, abs=1e-3) for turn in by_agent for ratio in turn["ratio"])
    assert len(now["turns"]["0"]["ratio"]) == len(episode.turns[0].completion.tokens)
    later = do(actor, "score", file=FILE, offset=0, step=2)
    assert any(abs(ratio - 1) > 0.01 for turn in later["turns"].values() for ratio in turn["ratio"])


def test_what_a_branch_took_over_is_scored_too_and_what_no_model_said_is_not(run: Path, actor: Actor) -> None:
    branch(actor, policy="random")
    told = do(actor, "score", file="whatif/step_000002.jsonl", offset=0)
    assert list(told["turns"])[:3] == ["0", "1", "3"]


def test_an_episode_without_tokens_cannot_be_scored(run: Path, actor: Actor) -> None:
    (run / "whatif").mkdir()
    (run / "whatif" / "bare.jsonl").write_text(f"{episode_to_json(original(run), tokens=False)}\n")
    with pytest.raises(RunError, match="s2/g0/m0 has no tokens"):
        do(actor, "score", file="whatif/bare.jsonl", offset=0)


def test_a_person_plays_tic_tac_toe_to_a_win(run: Path, actor: Actor) -> None:
    table = do(actor, "play", game="game", against="random", seed=5)
    assert (table["game"], table["seat"], table["over"], table["episode"]) == ("tic_tac_toe", "player_0", False, None)
    assert table["legal_actions"] == tuple("abcdefghi")
    assert table["board"]["rows"][0][0] == {"text": "", "action": "a"}
    refused = do(actor, "move", table=table["table"], reply="z")
    assert refused == {**table, "refused": "'z' is not possible here; possible is: a, b, c, d, e, f, g, h, i"}
    moves = 0
    while not table["over"]:
        wins = [lines for lines in ("abc", "def", "ghi", "adg", "beh", "cfi", "aei", "ceg") if _mine(table, lines) == 2]
        free = [cell for line in wins for cell in line if cell in table["legal_actions"]]
        table = do(actor, "move", table=table["table"], reply=(free or table["legal_actions"])[0])
        moves += 1
        assert len(table["history"]) == moves
    assert table["returns"] == {"player_0": 1.0, "player_1": -1.0}
    assert (table["status"], table["episode"], table["legal_actions"]) == ("done", "played/1", [])
    assert sum(cell["text"] == "X" for row in table["board"]["rows"] for cell in row) == moves
    episode = kept(run, None)["played/1"]
    assert [turn.policy for turn in episode.turns[:2]] == ["you", "random"]
    assert episode.hidden["asked"] == "a person played player_0 (policies of step 2)"
    over = do(actor, "move", table=table["table"], reply="a")
    assert over["refused"] == "the game is over"


def _mine(table: dict[str, Any], line: str) -> int:
    cells = [cell["text"] for row in table["board"]["rows"] for cell in row]
    marks = [cells["abcdefghi".index(name)] for name in line]
    return 0 if "O" in marks else marks.count("X")


def test_a_person_sits_where_one_likes_against_a_checkpoint(run: Path, actor: Actor) -> None:
    table = do(actor, "play", game="game", against="agent@1", seat="player_1")
    assert table["seats"] == {"player_0": "agent@1", "player_1": "you"}
    assert len(table["legal_actions"]) == 8
    while not table["over"]:
        table = do(actor, "move", table=table["table"], reply=table["legal_actions"][0])
    turns = kept(run, None)["played/1"].turns
    assert {turn.completion.versions[0] for turn in turns if turn.policy == "agent@1"} == {1}


def test_who_sat_at_a_table_that_breaks_is_asked_no_more(
    run: Path, actor: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = do(actor, "play", game="game", against="agent")
    (shared,) = actor._seats._at(actor._seats.before(None), lambda _: None).shared.values()
    before = len(shared._ready)

    def full(*_: object) -> None:
        raise RunError("the disk is full")

    monkeypatch.setattr(PlayedTable, "go_on", full)
    with pytest.raises(RunError, match="the disk is full"):
        do(actor, "move", table=table["table"], reply=table["legal_actions"][0])
    assert len(shared._ready) == before - 1


def test_two_tables_with_one_policy_do_not_disturb_each_other(run: Path, actor: Actor) -> None:
    one, two = (do(actor, "play", game="game") for _ in range(2))
    while not (one["over"] and two["over"]):
        one = one if one["over"] else do(actor, "move", table=one["table"], reply=one["legal_actions"][0])
        two = two if two["over"] else do(actor, "move", table=two["table"], reply=two["legal_actions"][-1])
    assert sorted((one["episode"], two["episode"])) == ["played/1", "played/2"]
    assert set(kept(run, None)) == {"played/1", "played/2"}


def test_a_played_game_is_branched_at_the_persons_turn_with_a_policy(run: Path, actor: Actor) -> None:
    table = do(actor, "play", game="game", against="random")
    while not table["over"]:
        table = do(actor, "move", table=table["table"], reply=table["legal_actions"][0])
    with pytest.raises(RunError, match="seat player_0 of played/1 is a person's"):
        branch(actor, file="whatif/played.jsonl", turn=1)
    result = branch(actor, file="whatif/played.jsonl", policy="agent")
    assert result["episodes"] == ["played/1/t2wn0"]
    assert [turn.policy for turn in kept(run, None)["played/1/t2wn0"].turns[:3]] == ["you", "random", "agent"]
    assert do(actor, "play", game="game", against="random")["table"]  # numbers of games are not those of branches


def test_all_choose_at_the_same_time_as_the_person(run: Path, actor: Actor) -> None:
    settings = {"continuation": 1.0, "max_rounds": 2}
    table = do(actor, "play", game="matrix_game", settings=settings, against="tit_for_tat", seat="player_1", seed=1)
    assert table["legal_actions"] == ("cooperate", "defect")
    assert "so far, you/other: none" in table["observation"]
    table = do(actor, "move", table=table["table"], reply="defect")
    assert "defect/cooperate" in table["observation"]
    assert not table["over"]
    table = do(actor, "move", table=table["table"], reply="cooperate")
    assert table["over"]
    assert [(turn.agent, turn.action) for turn in kept(run, None)["played/1"].turns] == [
        ("player_0", "cooperate"),
        ("player_1", "defect"),
        ("player_0", "defect"),
        ("player_1", "cooperate"),
    ]


def test_every_seat_has_a_player_of_its_own(run: Path, actor: Actor) -> None:
    against = {"player_0": "random", "player_2": "agent", "player_3": "random"}
    with pytest.raises(ConfigError, match=r"against: .* one for each of \['player_0', 'player_2', 'player_3'\]"):
        do(actor, "play", game="public_goods", seat="player_1", against={"player_0": "random"})
    table = do(actor, "play", game="public_goods", seat="player_1", against=against)
    while not table["over"]:
        table = do(actor, "move", table=table["table"], reply=table["legal_actions"][0])
    episode = kept(run, None)["played/1"]
    assert {turn.agent: turn.policy for turn in episode.turns} == against | {"player_1": "you"}


def test_where_the_game_talks_anything_may_be_said_that_it_accepts(run: Path, actor: Actor) -> None:
    table = do(actor, "play", game="taboo", settings={"clues": 2}, against="random", seat="player_1")
    assert table["legal_actions"] is None
    assert "apple" in table["examples"]
    assert do(actor, "move", table=table["table"], reply=" ")["refused"] == "nothing was said"
    refused = do(actor, "move", table=table["table"], reply="is it an apple or what")
    assert refused["refused"].startswith("'is it an apple or what' is not possible here; possible is: apple, ")
    assert refused["history"] == []
    table = do(actor, "move", table=table["table"], reply="zeppelin")
    assert [one["reply"] for one in table["history"]] == ["zeppelin"]
    table = do(actor, "move", table=table["table"], reply="<answer>zebra</answer>")
    assert table["over"]
    assert [turn.action for turn in kept(run, None)["played/1"].turns if turn.policy == "you"] == ["zeppelin", "zebra"]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"game": "chess"}, "unknown game 'chess'"),
        ({"game": "game", "seat": "player_7"}, r"seat: 'player_7' .* one of \['player_0', 'player_1'\]"),
        ({"game": "game", "seed": -1}, "seed: -1 is not allowed"),
        ({"game": "game", "settings": {"size": 4}}, "size"),
        ({"game": "game", "against": "you"}, "against: 'you' is not allowed; a person sits in one seat"),
        ({"game": "game", "against": {"player_0": "random"}}, r"against: .* one for each of \['player_1'\]"),
        ({"game": "game", "step": 7}, "no checkpoint of step 7"),
        ({}, "the request is not complete"),
    ],
)
def test_a_game_that_cannot_be_played_is_refused(actor: Actor, request_: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, RunError), match=message):
        do(actor, "play", **request_)


def test_a_table_that_is_not_there_is_refused(actor: Actor) -> None:
    with pytest.raises(RunError, match=r"table t99 is gone: .* begin another game"):
        do(actor, "move", table="t99", reply="a")


@pytest.mark.parametrize(
    ("reply", "legal", "action"),
    [
        ("bet", ("check", "bet"), "bet"),
        (" BET ", ("check", "bet"), "bet"),
        ("<answer>bet</answer>", ("check", "bet"), "bet"),
        ("<think>well</think> <answer>bet</answer>", ("check", "bet"), "bet"),
        ("I bet", ("check", "bet"), None),
        ("", ("check", "bet"), None),
        ("four is enough", None, "four is enough"),
        ("<think>well</think> four", None, "four"),
        ("<think>well</think> so: <answer>4</answer>", None, "4"),
        (" ", None, None),
    ],
)
def test_what_a_person_writes_is_read_as_an_action_or_as_a_reply(
    reply: str, legal: tuple[str, ...] | None, action: str | None
) -> None:
    assert spoken(reply, legal, PlayConfig(thinking=True)) == action


def test_a_policy_in_two_places_gives_each_its_own_decisions() -> None:
    shared, view = Shared(make_scripted("random", {})), first_view()
    one, two = shared.place(), shared.place()
    one.submit("a", view)
    two.submit("a", view)
    assert [ticket for ticket, _ in one.poll()] == ["a"]
    two.leave()
    assert one.poll() == []


def test_models_are_on_the_cpu_where_the_runs_device_is_not_there(run: Path, tmp_path: Path) -> None:
    settings = (run / "config.yaml").read_text().replace("device: cpu", "device: cuda:77")
    (tmp_path / "config.yaml").write_text(settings)
    assert "cuda:77" in settings
    policy = Seats(tmp_path).config.policies["agent"]
    assert policy.engine.device == policy.learner.device == "cpu"
    with pytest.raises(ConfigError, match=r"engine.device: 'cuda:78' is not available"):
        Seats(tmp_path, device="cuda:78")


def test_requests_are_answered_line_by_line_and_one_that_fails_does_no_harm(actor: Actor) -> None:
    out = io.StringIO()
    requests = [
        {"id": 1, "do": "dance"},
        {"id": 2, "do": "score"},
        {"id": 3, "do": "play", "game": "game", "against": "random"},
    ]
    serve(actor, iter(requests), out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[0] == {"id": 1, "error": "do: 'dance' is not allowed; it must be branch, score, play or move"}
    assert lines[1] == {"id": 2, "error": "KeyError: 'file'"}
    assert lines[2] == {"id": 3, "doing": "playing", "done": 0, "of": 1}
    assert (lines[3]["id"], lines[3]["result"]["seat"]) == (3, "player_0")
