"""The page of a report in a real browser, from the disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from marl_llm.report.make import make_report
from tests.report.runs import bluff, bluffs, evaluation, run

HOSTILE = "</script><img src=http://example.com/x onerror=\"document.body.id='taken'\"><!--\u202e"
SCHEMES = [("light", 400), ("light", 1280), ("dark", 400), ("dark", 1280)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a run with everything, some of it hostile."""
    folder = tmp_path_factory.mktemp("page")
    episodes = {step: bluffs(step, bets=8 * step, folds=4 * step, of=40) for step in (1, 2, 3)}
    said = f"<think>{HOSTILE}</think>{HOSTILE}{'long' * 300_000}"
    episodes[3].append(bluff(3, 99, bets=True, folds=False, reply=said, action=HOSTILE, legal=False))
    path = run(
        folder / "run",
        rows=[
            {"step": step, "play/return/player_0": step, "alarm/no_credit": 1.0, f"play/fact/{HOSTILE}": 1.0}
            for step in range(1, 200)
        ],
        episodes=episodes,
        evaluations={0: evaluation(0.4, {HOSTILE: {"player_0": 0.5}}), 3: evaluation(0.1, {"random": {"p": 0.5}})},
        overrides=["credit=mars"],
    )
    return make_report([path], folder / "report", lambda text: None).index


@pytest.fixture
def opened(browser: Browser, index: Path, request: pytest.FixtureRequest) -> Iterator[tuple[Page, list[str]]]:
    """The page in a scheme and a width, all of it drawn, and what went wrong on the way."""
    scheme, width = request.param
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda asked: None if asked.url.startswith("file:") else wrong.append(asked.url))
    page.goto(index.as_uri())
    for plot in page.locator(".plot").all():
        plot.scroll_into_view_if_needed()
        plot.locator("svg").wait_for()
    yield page, wrong
    page.close()


@pytest.mark.parametrize("opened", SCHEMES, indirect=True, ids=lambda case: f"{case[0]}-{case[1]}")
def test_the_page_opens_from_a_disk_and_asks_nobody(opened: tuple[Page, list[str]]) -> None:
    page, wrong = opened
    assert wrong == []
    assert page.locator(".plot").count() == page.locator(".plot svg").count() > 15
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    wide = "[...document.querySelectorAll('main p, main h2, main h4, figure, article')]"
    assert page.evaluate(f"{wide}.filter(one => one.getBoundingClientRect().right > window.innerWidth).length") == 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    ink = page.evaluate("getComputedStyle(document.querySelector('.plot svg text')).fill")
    dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    assert (_light(paper), _light(ink)) == (not dark, dark)


def _light(colour: str) -> bool:
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) > 3 * 128


@pytest.mark.parametrize("opened", [("light", 1280)], indirect=True)
def test_hostile_text_made_no_element(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    assert page.evaluate("document.body.id") == ""
    cell = page.locator('[data-chart="payoffs-game-0"] svg .mark-rect path').first
    cell.hover(force=True)
    told = page.locator("#vg-tooltip-element.visible")
    assert "</script><img" in told.inner_text()
    assert told.locator("img").count() == 0
    assert page.locator("main img, main script, iframe").count() == 0
    thought = page.locator("#transcripts .thought").first
    thought.locator("summary").click()
    assert "<!--⟨U+202E⟩" in thought.inner_text()
    assert "1,200," in page.locator("#transcripts .cut").first.inner_text()


@pytest.mark.parametrize("opened", [("light", 400)], indirect=True)
def test_a_decision_is_found_and_reached_by_keyboard(opened: tuple[Page, list[str]]) -> None:
    page, _ = opened
    page.evaluate("window.scrollTo(0, 0)")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    shown = page.locator(".decision:visible")
    assert shown.count() == 3
    page.locator("#find").fill("card: j")
    assert shown.count() == 1
    assert page.locator("#found").inner_text() == "1 of 3"
    assert "“bet”" in shown.first.inner_text()
    page.locator("#find").fill("")
    page.get_by_role("link", name="Moves so far: bet.").focus()
    page.keyboard.press("Enter")
    assert page.evaluate("location.hash") == "#d1-1"
    assert page.locator(":target").is_visible()


def test_without_scripts_every_chart_is_a_picture(browser: Browser, index: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(index.as_uri())
    pictures = page.locator("figure noscript img")
    assert pictures.count() == page.locator("figure").count() > 15
    assert all((index.parent / (picture.get_attribute("src") or "")).is_file() for picture in pictures.all())
    context.close()
