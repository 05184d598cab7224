"""The page as a person uses it, in a real browser, on a real run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from marl_llm import cli
from marl_llm.episodes import read_episodes
from marl_llm.run import read_metrics
from marl_llm.types import Episode, Turn
from tests.watch.conftest import SMALL, episode, lines, step_file, turn
from tests.watch.pages import fits, opened, shoot, until, watching

LINES = ("abc", "def", "ghi", "adg", "beh", "cfi", "aei", "ceg")


@pytest.fixture(scope="module")
def server(demo: Path) -> Iterator[str]:
    with watching(demo) as address:
        yield address


@pytest.fixture
def page(browser: Browser, server: str) -> Iterator[Page]:
    with opened(browser, server) as found:
        expect(found.locator("#total")).to_contain_text("episodes")
        expect(found.locator("#indexing")).not_to_contain_text("of", timeout=60_000)
        yield found


def go(page: Page, server: str, route: str) -> None:
    page.goto(f"{server.partition('#')[0]}{route}")


def jack_that_bets(demo: Path) -> str:
    """An episode of the last step in which the first player holds a jack and bets; else any that begins with a bet."""
    last = read_metrics(demo)[-1]["step"]
    played = [one for one in read_episodes(demo) if one.match.id.startswith(f"s{last}/")]
    bets = [one for one in played if one.turns[0].action == "bet" and len(one.turns) > 1]
    jacks = [one for one in bets if "Your card: J" in one.turns[0].observation]
    return (jacks or bets)[0].match.id


def test_episodes_are_filtered_and_the_view_can_be_linked(page: Page, demo: Path, tmp_path: Path) -> None:
    episodes = list(read_episodes(demo))
    expect(page.locator("#total")).to_contain_text(f"{len(episodes):,} episodes")
    shoot(page, tmp_path, "episodes")
    page.select_option("#filter-role", "player_1")
    page.select_option("#filter-outcome", "won")
    page.fill("#filter-text", "card: J")
    page.press("#filter-text", "Enter")

    def says(text: str) -> bool:
        return " card j " in re.sub(r"[\W_]+", " ", f" {text.lower()} ")

    won = [one for one in episodes if one.returns["player_1"] > one.returns["player_0"]]
    known = [one.match.id for one in won if any(says(f"{turn.observation} {turn.reply}") for turn in one.turns)]
    expect(page.locator("#total")).to_contain_text(f"{len(known):,} episode")
    shown = page.locator("#results [data-id]").evaluate_all("rows => rows.map(row => row.dataset.id)")
    assert set(shown) <= set(known)
    assert len(shown) == min(50, len(known))
    shoot(page, tmp_path, "filtered")
    address = page.url
    page.click("#home")
    expect(page.locator("#total")).to_contain_text(f"{len(episodes):,} episodes")
    page.go_back()
    assert page.url == address
    expect(page.locator("#total")).to_contain_text(f"{len(known):,} episode")


def test_an_episode_is_read_as_a_seat_saw_it(page: Page, server: str, demo: Path, tmp_path: Path) -> None:
    match = jack_that_bets(demo)
    (known,) = [one for one in read_episodes(demo) if one.match.id == match]
    go(page, server, f"#/episode/{match}")
    expect(page.locator("[data-turn]")).to_have_count(len(known.turns))
    for index, one in enumerate(known.turns):
        expect(page.locator(f"[data-turn='{index}']")).to_contain_text(one.observation)
    mine, theirs = known.turns[0], known.turns[1]
    page.locator(f"input[data-seat='{mine.agent}']").check(force=True)
    expect(page.locator("[data-turn='0']")).to_contain_text(mine.observation)
    expect(page.locator("#turns")).not_to_contain_text(theirs.observation)
    shoot(page, tmp_path, "seat")


def test_a_turns_credit_is_what_the_command_says(page: Page, server: str, demo: Path, tmp_path: Path) -> None:
    match = jack_that_bets(demo)
    go(page, server, f"#/episode/{match}")
    page.click("[data-audit='0']")
    audit = page.locator("#audit")
    for recipe in ("self_play", "grpo"):
        if recipe != "self_play":
            page.select_option("#audit-with", recipe)
        asked = ["credit", recipe, str(demo), "--turn", f"{match}#0", "--json"]
        result = CliRunner().invoke(cli.whole(), asked)
        assert result.exit_code == 0, result.output
        known = json.loads(result.stdout)["recipes"][recipe]
        section = audit.locator(f"[data-recipe='{recipe}']")
        shown = section.locator("[data-advantage]").get_attribute("data-advantage")
        assert shown is not None
        assert float(shown) == known[-1]["after"]
        assert section.locator("[data-stage]").evaluate_all("all => all.map(one => one.dataset.stage)") == [
            stage["label"] for stage in known
        ]
    shoot(page, tmp_path, "credit")


def test_tokens_are_coloured_by_what_was_sampled_and_by_what_a_checkpoint_says(
    page: Page, server: str, demo: Path, tmp_path: Path
) -> None:
    match = jack_that_bets(demo)
    (known,) = [one for one in read_episodes(demo) if one.match.id == match]
    assert known.turns[0].completion is not None
    go(page, server, f"#/episode/{match}")
    page.select_option("#colour", "logprob")
    tokens = page.locator("[data-turn='0'] .token")
    expect(tokens).to_have_count(len(known.turns[0].completion.tokens))
    shoot(page, tmp_path, "colours")
    page.select_option("#colour", "entropy")
    page.click("#score-run")
    expect(page.locator("#legend")).to_contain_text("ntropy", timeout=60_000)
    expect(tokens).to_have_count(len(known.turns[0].completion.tokens))


def test_a_turn_is_played_otherwise_and_the_branch_is_kept(page: Page, server: str, demo: Path, tmp_path: Path) -> None:
    match = jack_that_bets(demo)
    go(page, server, f"#/episode/{match}")
    page.click("[data-ask='0']")
    page.check("[data-who='reply']")
    page.fill("#whatif-reply", "check")
    page.fill("#whatif-n", "4")
    page.click("#whatif-run")
    expect(page.locator("#whatif-result [data-agent]").first).to_be_visible(timeout=60_000)
    top(page, "#whatif-n")
    shoot(page, tmp_path, "whatif")
    last = match.partition("/")[0].removeprefix("s")
    kept = list(read_episodes(demo / "whatif" / f"step_{int(last):06d}.jsonl"))
    assert len(kept) >= 4
    assert {one.match.branch.episode for one in kept if one.match.branch} == {match}
    assert {one.turns[0].action for one in kept[-4:]} == {"check"}
    page.reload()
    expect(page.locator("#branches [data-id]")).to_have_count(len(kept))
    page.click(f"#branches [data-id='{kept[-1].match.id}'] a")
    expect(page.locator("#original")).to_contain_text(match)


def choice(cells: dict[str, str]) -> str:
    """A cell that wins, else one that keeps the other from winning, else the best of the rest."""
    free = [name for name, mark in cells.items() if not mark]
    for mark in ("X", "O"):
        for line in LINES:
            marks = [cells[name] for name in line]
            if marks.count(mark) == 2 and marks.count("") == 1:
                return line[marks.index("")]
    return next(name for name in "eacgibdfh" if name in free)


def test_why_the_policy_bluffs_with_a_jack_is_told_by_the_report_alone(
    browser: Browser, demo: Path, tmp_path: Path
) -> None:
    result = CliRunner().invoke(cli.whole(), ["report", str(demo), "--into", str(tmp_path / "report")])
    assert result.exit_code == 0, result.output
    index = tmp_path / "report" / "index.html"
    with opened(browser, index.as_uri()) as page:
        expect(page.locator("#overview svg, #overview canvas").first).to_be_visible()
        shoot(page, tmp_path, "why-1-overview")
        page.locator("#why-h").scroll_into_view_if_needed()
        page.fill("#find", "card: J")
        jack = page.locator("article.decision", has_text="Your card: J. Moves so far: none.").first
        expect(jack).to_be_visible()
        expect(page.locator("article.decision", has_text="Your card: Q. Moves so far: none.").first).to_be_hidden()
        expect(page.locator("[data-decision]:visible").first).to_contain_text("card: J")
        assert page.locator("[data-decision]:visible", has_text="card: Q").count() == 0
        top(page, "#why-h")
        shoot(page, tmp_path, "why-2-find")
        expect(jack.locator("svg, canvas").first).to_be_visible()
        top(page, "article.decision:visible h4")
        shoot(page, tmp_path, "why-3-decision")
        bet = jack.locator("table tr", has_text="bet").filter(has=page.locator("th", has_text=re.compile("^bet$")))
        if (
            "MARL_LLM_DEMO" not in os.environ
        ):  # of a short run every step is looked at, so that its numbers can be known
            assert f"{share_of_bets(demo):.0%}".replace("%", " %") in bet.inner_text().replace("\xa0", " ")
        expect(bet).to_contain_text("call")
        expect(bet).to_contain_text("fold")
        top(page, "article.decision:visible table")
        shoot(page, tmp_path, "why-4-what-came-next")
        jack.locator("summary").first.click()
        expect(jack.locator("details")).to_contain_text("advantage")
        top(page, "article.decision:visible details")
        shoot(page, tmp_path, "why-5-examples")


def share_of_bets(demo: Path) -> float:
    """Of the first player with a jack, in the last third of the steps."""
    steps = len(read_metrics(demo))
    played = [one for one in read_episodes(demo) if int(step_of(one.match.id)) > steps - steps // 3]
    jacks = [one.turns[0].action for one in played if "Your card: J" in one.turns[0].observation]
    return jacks.count("bet") / len(jacks)


def top(page: Page, selector: str) -> None:
    """Scroll until something is at the top."""
    page.locator(selector).first.evaluate("it => it.scrollIntoView({block: 'start'})")
    page.wait_for_timeout(500)


def test_tic_tac_toe_is_won_by_clicking(page: Page, server: str, tmp_path: Path) -> None:
    for seed in range(10):
        go(page, server, "#/play")
        page.select_option("#play-game", "tic_tac_toe")
        page.fill("#play-seed", str(seed))
        page.select_option("#play-seat", "player_0")
        page.select_option("select[data-against='player_1']", "random")
        page.click("#play-start")
        expect(page.locator("#table .board")).to_be_visible(timeout=60_000)
        while not page.locator("#play-over").is_visible():
            board = page.locator("#table .board")
            free = board.locator("button[data-action]").evaluate_all("all => all.map(one => one.dataset.action)")
            cells = board.locator("td").all_inner_texts()
            marks = dict.fromkeys("abcdefghi", "")
            marks |= {name: text for name, text in zip("abcdefghi", cells, strict=False) if text in ("X", "O")}
            move = choice(marks)
            assert move in free
            before = len(free)
            board.locator(f"button[data-action='{move}']").click()
            until(
                page,
                "document.querySelector('#play-over') || "
                f"document.querySelectorAll('#table .board button[data-action]').length < {before}",
            )
        if "+1" in page.locator("#play-over [data-agent='player_0']").inner_text():
            shoot(page, tmp_path, "play")
            page.click("#play-episode")
            expect(page.locator("#returns [data-agent='player_0']")).to_contain_text("+1")
            expect(page.locator("#turns .board").first).to_be_visible()
            return
    raise AssertionError("ten games, and none was won")


def test_a_game_that_talks_takes_any_text(page: Page, server: str, tmp_path: Path) -> None:
    go(page, server, "#/play")
    page.select_option("#play-game", "negotiation")
    page.select_option("select[data-against='player_1']", "bargainer")
    page.click("#play-start")
    expect(page.locator("#play-reply")).to_be_visible(timeout=60_000)
    page.fill("#play-reply", "I would like the books, please.")
    page.press("#play-reply", "Control+Enter")
    expect(page.locator("#play-history, #play-over, #play-refused").first).to_be_visible()


def test_all_of_it_works_by_keyboard(page: Page) -> None:
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "filter-text"
    page.keyboard.type("bet")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    until(page, "location.hash.includes('text=bet')")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("[data-turn='0']")).to_be_visible()
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.locator("#audit [data-advantage]").first).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#audit")).to_be_hidden()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [400, 1920])
def test_every_view_fits_a_telephone_and_a_projector(
    browser: Browser, server: str, demo: Path, tmp_path: Path, width: int, dark: bool
) -> None:
    match = jack_that_bets(demo)
    with opened(browser, server, width=width, dark=dark) as page:
        expect(page.locator("#results [data-id]").first).to_be_visible()
        assert fits(page)
        if (width, dark) == (400, True):
            shoot(page, tmp_path, "telephone-dark")
        go(page, server, f"#/episode/{match}")
        page.click("[data-audit='0']")
        expect(page.locator("#audit [data-advantage]").first).to_be_visible()
        assert fits(page)
        if (width, dark) == (1920, True):
            shoot(page, tmp_path, "projector-dark")
        go(page, server, "#/play")
        expect(page.locator("#play-start")).to_be_visible()
        assert fits(page)


def test_who_has_no_token_reads_and_cannot_act(browser: Browser, server: str, demo: Path) -> None:
    match = jack_that_bets(demo)
    with opened(browser, server.partition("#")[0]) as page:
        expect(page.locator("#results [data-id]").first).to_be_visible()
        go(page, server, f"#/episode/{match}")
        page.click("[data-ask='0']")
        expect(page.locator("#whatif-token")).to_be_visible()
        assert page.locator("#whatif-run").is_disabled()


def test_nothing_but_one_address_of_this_machine_is_listened_at(server: str) -> None:
    port = int(re.findall(r":(\d+)/", server)[0])
    with socket.create_connection(("127.0.0.1", port), timeout=5):
        pass
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port), timeout=5)


def test_the_token_is_not_left_in_the_address(page: Page, server: str) -> None:
    assert "token" not in page.url
    assert server.partition("token=")[2] not in page.url


HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><b id='injected'>bold</b>&lt;i&gt;"
    "\x00\x07\x1b[31mred\x1b[0m \u202eevil\u202c \u200bzero\ufeff </textarea></style> javascript:alert(3) {{7*7}}"
)


def test_hostile_text_is_shown_as_text(browser: Browser, written: Path, tmp_path: Path) -> None:
    megabyte = f"<think>{HOSTILE}</think>" + "<img src=x onerror=alert(4)>\u202e" * 36_000
    played = [
        episode(0, turn("player_0", HOSTILE, observation=HOSTILE), turn("<i>role</i>", HOSTILE, policy=HOSTILE)),
        episode(1, turn("player_0", megabyte, observation="long")),
    ]
    good = lines(played)
    assert len(good) > 1_000_000
    step_file(written, 1).write_bytes(good + good[:500])
    step_file(written, 2).write_bytes(b"\xff\x00<script>alert(5)</script>\n")
    with watching(written) as address, opened(browser, address) as page:
        expect(page.locator("#total")).to_contain_text("2 episodes")
        expect(page.locator("#problems")).to_contain_text("episodes/step_000002.jsonl: line 1 is not an episode")
        expect(page.locator("#problems")).not_to_contain_text("step_000001")
        page.click("[data-id='s1/g0/m0'] a")
        expect(page.locator("[data-turn='0']")).to_contain_text("<script>alert(1)</script><img src=x onerror=alert(2)>")
        expect(page.locator("[data-turn='0']")).to_contain_text("⟨U+202E⟩evil")
        expect(page.locator("[data-turn='0']")).to_contain_text("⟨U+0000⟩⟨U+0007⟩")
        shoot(page, tmp_path, "hostile")
        go(page, address, "#/episode/s1/g0/m1")
        expect(page.locator("[data-turn='0']")).to_contain_text("<img src=x onerror=alert(4)>")
        assert page.evaluate("document.body.textContent.length") < 200_000
        page.click("[data-turn='0'] [data-show-all]")
        expect(page.locator("[data-raw]")).to_be_visible()
        assert page.evaluate("document.body.textContent.length") < 1_000_000
        assert page.locator("#injected, main img, main script, main style").count() == 0
        assert fits(page)


def test_debates_are_columns_and_calls_are_a_tree(browser: Browser, written: Path) -> None:
    def told(game: str, name: str, *turns: Turn) -> Episode:
        one = episode(0, *turns)
        returns = {turn.agent: 1.0 for turn in turns}
        return replace(one, match=replace(one.match, id=name, game=game), returns=returns)

    speakers = [f"debater_{number}" for number in range(3)]
    debate = [turn(who, f"{who} says {rounds}") for rounds in range(2) for who in speakers]
    main, *found = (
        turn("planner", "ask"),
        turn("searcher_0", "look"),
        turn("searcher_1", "look"),
        turn("planner", "done"),
    )
    calls = [main, replace(found[0], parent=0), replace(found[1], parent=0), found[2]]
    step_file(written, 1).write_bytes(lines([told("debate", "talk", *debate), told("deep_research", "calls", *calls)]))
    with watching(written) as address, opened(browser, address) as page:
        go(page, address, "#/episode/talk")
        expect(page.locator("input[data-layout='columns']")).to_be_checked()
        places = [page.locator(f"[data-turn='{index}']").bounding_box() for index in range(6)]
        across, down = [{round(box[side]) for box in places if box} for side in ("x", "y")]
        assert (len(across), len(down)) == (3, 2)
        go(page, address, "#/episode/calls")
        expect(page.locator("input[data-layout='tree']")).to_be_checked()
        expect(page.locator(".calls [data-turn]")).to_have_count(2)
        expect(page.locator(".calls [data-turn='1']")).to_contain_text("searcher_0")


def test_a_run_is_followed_while_it_trains(browser: Browser, tmp_path: Path) -> None:
    run = tmp_path / "live"
    command = [sys.executable, "-m", "marl_llm.cli", "train", str(SMALL), "run.steps=100000", "--into", str(run)]
    command += ["evaluation.every=0", "run.checkpoint_every=1000"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as training:
        try:
            while not (run / "metrics.jsonl").is_file():
                assert training.poll() is None
            with watching(run) as address, opened(browser, address) as page:
                expect(page.locator("#live")).to_have_text("live", timeout=60_000)
                first, newest = shown_step(page), newest_step(page)
                until(page, f"{STEP} > {first} + 3")
                until(page, f"{NEWEST} > {newest}")
                shoot(page, tmp_path, "live")
                training.send_signal(signal.SIGKILL)
                expect(page.locator("#live")).to_have_text("ended", timeout=60_000)
        finally:
            training.kill()


STEP = "Number(/step (\\d+)/.exec(document.querySelector('#run-state').textContent)?.[1] ?? 0)"
NEWEST = "Number(/s(\\d+)/.exec(document.querySelector('#results [data-id]')?.dataset.id)?.[1] ?? 0)"


def shown_step(page: Page) -> int:
    """Step in the head of the page, once there is one."""
    return int(until(page, STEP))


def step_of(match: str) -> str:
    return re.findall(r"s(\d+)", match)[0]


def newest_step(page: Page) -> int:
    """Step of the first episode in the list, once there is one."""
    return int(until(page, NEWEST))
