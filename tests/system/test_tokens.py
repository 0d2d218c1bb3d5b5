"""``examples/tokens`` in a real Chromium: reload, a second window and a cut line in the middle of an answer."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from examples.tokens import app as tokens_app
from examples.tokens import model
from examples.tokens.app import app
from tests.browsers import chromium
from tidewire.server.run import Server, bind, make_config, url_of

pytestmark = pytest.mark.system

LATE_MS = 30_000
QUESTION = "Why is the <b>sky</b> blue?"
ANSWER = model.answer_to(QUESTION)
WORDS = len(re.findall(r"\s*\S+", ANSWER))


class Model:
    """The example's model, one word for each that is let go: the test decides what the middle of an answer is."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._may = asyncio.Semaphore(0)
        self._tokens = model.tokens

    async def tokens(self, question: str) -> AsyncIterator[str]:
        self._loop = asyncio.get_running_loop()
        async for word in self._tokens(question):
            await self._may.acquire()
            yield word

    def let(self, words: int) -> None:
        """Called once a page shows the question: by then the producer runs."""
        assert self._loop is not None
        for _ in range(words):
            self._loop.call_soon_threadsafe(self._may.release)


@pytest.fixture
def paced(monkeypatch: pytest.MonkeyPatch) -> Model:
    paced = Model()
    monkeypatch.setattr(model, "PAUSE_S", 0)
    monkeypatch.setattr(tokens_app, "tokens", paced.tokens)
    return paced


@pytest.fixture
def url(paced: Model) -> Iterator[str]:
    """The example on a free port, in a thread."""
    (sock,) = bind("127.0.0.1", 0)
    listening = threading.Event()
    server = Server(make_config(app, log_level="error"), lambda url: listening.set(), signals=False)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])))
    thread.start()
    try:
        assert listening.wait(20)
        yield url_of(sock)
    finally:
        server.should_exit = True
        thread.join(20)
        sock.close()
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.set_default_timeout(LATE_MS)
    yield context
    context.close()


def ask(page: Page, url: str) -> None:
    page.goto(url)
    page.fill("#text", QUESTION)
    page.press("#text", "Enter")
    expect(page.locator("#question")).to_have_text(QUESTION, timeout=LATE_MS)


def shows(page: Page, *, tokens: int, state: str, runs: int = 1) -> None:
    expect(page.locator("#count")).to_have_text(str(tokens), timeout=LATE_MS)
    expect(page.locator("#state")).to_have_text(state, timeout=LATE_MS)
    expect(page.locator("#runs")).to_have_text(str(runs), timeout=LATE_MS)


def test_a_reload_in_mid_answer_misses_nothing(url: str, paced: Model, context: BrowserContext) -> None:
    page = context.new_page()
    complaints: list[Any] = []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(error))
    ask(page, url)
    paced.let(20)
    shows(page, tokens=20, state="live")
    page.reload()
    shows(page, tokens=20, state="live")
    second = context.new_page()
    second.goto(page.url)
    shows(second, tokens=20, state="live")
    paced.let(WORDS)
    for window in (page, second):
        shows(window, tokens=WORDS, state="complete")
        assert window.locator("#answer").text_content() == ANSWER
    page.reload()
    shows(page, tokens=WORDS, state="complete")
    assert page.locator("#answer").text_content() == ANSWER
    assert complaints == []


def test_a_cut_line_comes_back_and_misses_nothing(url: str, paced: Model, context: BrowserContext) -> None:
    page = context.new_page()
    ask(page, url)
    paced.let(20)
    shows(page, tokens=20, state="live")
    asyncio.run_coroutine_threadsafe(cut(), paced._loop).result(20)  # type: ignore[arg-type]
    expect(page.locator("#cuts")).not_to_have_text("0", timeout=LATE_MS)
    paced.let(20)
    shows(page, tokens=40, state="live")
    paced.let(WORDS)
    shows(page, tokens=WORDS, state="complete")
    assert page.locator("#answer").text_content() == ANSWER


async def cut() -> None:
    """Every connection of the example is cut, as by a proxy that gives up."""
    for connection in list(tokens_app.live._site.connections):
        connection.drop()


def test_a_stopped_answer_says_so_in_every_window(url: str, paced: Model, context: BrowserContext) -> None:
    page, second = context.new_page(), context.new_page()
    ask(page, url)
    paced.let(5)
    second.goto(page.url)
    for window in (page, second):
        shows(window, tokens=5, state="live")
    second.click("#stop")
    for window in (page, second):
        shows(window, tokens=5, state="not complete: the run was cancelled")
        expect(window.locator("#stop")).to_be_hidden()


def test_an_answer_of_another_life_of_the_server_is_gone(url: str, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{url}/#0123456789abcdef")
    gone = "not complete: this answer is gone, as the server was started anew: ask again"
    expect(page.locator("#state")).to_have_text(gone, timeout=LATE_MS)


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (360, "light"), (1100, "light")])
def test_every_width_and_scheme_fits(url: str, paced: Model, browser: Browser, width: int, scheme: Any) -> None:
    with browser.new_context(viewport={"width": width, "height": 740}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(url)
        page.click("#ideas button")
        expect(page.locator("#question")).to_have_text("Why is the sky blue?", timeout=LATE_MS)
        paced.let(400)
        expect(page.locator("#state")).to_have_text("complete", timeout=LATE_MS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == {"dark": "rgb(12, 17, 22)", "light": "rgb(244, 245, 247)"}[scheme]
