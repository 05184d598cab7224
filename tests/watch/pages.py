"""What tests that look at a page have in common: a server in a process of its own, and pictures of what is seen."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from playwright.sync_api import Browser, BrowserContext, Page

PICTURES = os.environ.get("MARL_LLM_PICTURES")
"""Folder of the documentation's pictures: `make pictures` sets it, and a full demo run in MARL_LLM_DEMO. None: each
test takes its pictures all the same, and throws them away."""

ASKED_AGAIN = "the server responded with a status of 4"
"""What the browser notes where the page asks for what is not there yet; the page itself deals with it."""


@contextmanager
def watching(run: Path) -> Iterator[str]:
    """`marl-llm watch` on a run; its address, with the token."""
    command = [sys.executable, "-m", "marl_llm.cli", "watch", str(run), "--port", "0"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"http://\S+", process.stdout.readline())
            assert found is not None
            yield found[0]
        finally:
            process.terminate()
            process.stdout.read()  # type: ignore[union-attr]


@contextmanager
def opened(
    browser: Browser, address: str, *, width: int = 1280, dark: bool = False, scale: float = 1.0
) -> Iterator[Page]:
    """A page that must ask nobody but its own server, and complain of nothing."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 900},
        color_scheme="dark" if dark else "light",
        device_scale_factor=scale,
        reduced_motion="reduce",
    )
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    yield page
    context.close()
    own = address.partition("#")[0].rpartition("/")[0]
    assert [url for url in asked if not url.startswith(own)] == []
    assert [told for told in complaints if ASKED_AGAIN not in told] == []


def shoot(page: Page, folder: Path, name: str, *, whole: bool = False) -> None:
    """Take a picture, for the documentation if it is being made."""
    target = Path(PICTURES) if PICTURES else folder
    target.mkdir(parents=True, exist_ok=True)
    file = target / f"{name}.png"
    page.screenshot(path=file, full_page=whole)
    assert file.stat().st_size > 5_000


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


def until(page: Page, expression: str, *, seconds: float = 60.0) -> Any:
    """The value of an expression, once it has one that is true; the page's own rules forbid to watch it from within."""
    deadline = monotonic() + seconds
    while not (value := page.evaluate(expression)):
        assert monotonic() < deadline, f"{expression} does not come true"
        page.wait_for_timeout(50)
    return value
