"""The demo in a real Chromium: what it shows, what it survives, and that it tells the truth about it.

The page forbids eval (its Content-Security-Policy), and Playwright's `wait_for_function` needs it: conditions are
polled through `until` instead, which goes through the debugger and leaves the policy in force.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from math import exp
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, WebSocket

from tests.browsers import chromium

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
TOPICS = ["pulse", "pulse/history", "chain/30d", "chat/lobby", "echo"]
LATE_S = 30.0
"""How long a condition may take on a busy machine before the test gives up."""
PUBLISH = """(values) => Promise.all(values.map((value) => new Promise((done) => {
  const socket = new WebSocket(location.origin.replace('http', 'ws') + '/live/chat/lobby');
  socket.onopen = () => socket.send(JSON.stringify(value));
  socket.onclose = (event) => done(event.code);
})))"""
ALL_LIVE = "Object.values(__demo.snapshot().topics).every((topic) => topic.state === 'live')"


class Server:
    """The demo in a process of its own, on a port that stays the same over restarts."""

    def __init__(self, log: Path) -> None:
        self._log = log
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "examples.demo", "--no-open", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
        deadline_s = time.monotonic() + LATE_S
        while time.monotonic() < deadline_s:
            assert self.process.poll() is None, f"The demo ended at once:\n{self._log.read_text()}"
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        pytest.fail(f"The demo did not listen within {LATE_S} s:\n{self._log.read_text()}")

    def kill(self) -> None:
        """The hard way: no goodbye to anybody."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()
                pytest.fail("The demo did not end within 10 s of SIGTERM")

    def log(self) -> str:
        return self._log.read_text()


@dataclass
class Window:
    """A page and everything it complained about."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    chain_frames: int = 0

    def snapshot(self) -> dict[str, Any]:
        found: dict[str, Any] = self.page.evaluate("__demo.snapshot()")
        return found

    def until(self, condition: str, timeout_s: float = LATE_S) -> None:
        """Polls a JavaScript condition; fails with what the page knows."""
        deadline_s = time.monotonic() + timeout_s
        while not self.page.evaluate(f"!!window.__demo && ({condition})"):
            if time.monotonic() > deadline_s:
                state = self.page.evaluate("window.__demo && {...__demo.snapshot(), chain: null, pulse: null}")
                pytest.fail(f"Not true within {timeout_s} s: {condition}\n{state}\n{self.complaints}")
            self.page.wait_for_timeout(100)

    def say(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def count_frames(self, points: int = 20) -> int:
        """Chain frames received while the machine's history grows by so many points: the server's clock, not ours."""
        target = self.snapshot()["topics"]["pulse/history"]["messages"] + points
        before = self.chain_frames
        self.until(f"__demo.snapshot().topics['pulse/history'].messages >= {target}")
        return self.chain_frames - before


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("demo") / "server.log")
    server.start()
    yield server
    server.stop()
    assert "Traceback" not in server.log()


@pytest.fixture
def open_window(browser: Browser) -> Iterator[Any]:
    contexts = []

    def open_one(url: str, **options: Any) -> Window:
        context = browser.new_context(**{"viewport": {"width": 1440, "height": 900}, **options})
        contexts.append(context)
        window = Window(context.new_page())

        def watch(socket: WebSocket) -> None:
            if "/chain/" in socket.url:
                socket.on("framereceived", lambda _: setattr(window, "chain_frames", window.chain_frames + 1))

        def hear(message: ConsoleMessage) -> None:
            if message.type in {"error", "warning"}:
                window.complaints.append(message.text)

        def refuse(dialog: Dialog) -> None:
            window.complaints.append(f"dialog: {dialog.message}")
            dialog.dismiss()

        window.page.on("console", hear)
        window.page.on("pageerror", lambda error: window.complaints.append(str(error)))
        window.page.on("dialog", refuse)
        window.page.on("request", lambda request: window.requests.append(request.url))
        window.page.on("websocket", watch)
        window.page.add_init_script(
            "addEventListener('securitypolicyviolation', (e) => console.error('CSP', e.violatedDirective))"
        )
        window.page.goto(url)
        window.until(f"{ALL_LIVE} && __demo.snapshot().points > 2 && __demo.snapshot().chain.rows.length === 41")
        return window

    yield open_one
    for context in contexts:
        context.close()


def test_the_page_is_alive_and_clean(server: Server, open_window: Any) -> None:
    window = open_window(server.url)
    first = window.snapshot()
    assert sorted(first["topics"]) == sorted(TOPICS)
    window.until(f"__demo.snapshot().pulse.at > {first['pulse']['at'] + 1}")
    window.until(f"document.getElementById('cpu').textContent !== '{first['pulse']['cpu']:.1f}'")
    window.until("__demo.snapshot().trips.length > 1")
    window.until("document.querySelectorAll('#processes tr').length > 0")
    pulse = window.snapshot()["pulse"]
    assert len(pulse["cores"]) == psutil.cpu_count()
    assert all(0 <= load <= 100 for load in [pulse["cpu"], *pulse["cores"]])
    assert pulse["memory"]["total"] == psutil.virtual_memory().total
    assert 0 < pulse["memory"]["used"] < pulse["memory"]["total"]
    assert all(0 < trip < 5_000 for trip in window.snapshot()["trips"])
    assert window.complaints == []
    assert all(url.startswith((server.url, "data:")) for url in window.requests), window.requests
    assert window.page.locator(".badge", has_text="simulated").is_visible()


def test_the_policy_of_the_page_is_strict(server: Server, open_window: Any) -> None:
    window = open_window(server.url)
    policy = window.page.request.get(server.url).headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    inline = "const s = document.createElement('script'); s.textContent = 'window.__in = 1'; document.head.append(s)"
    assert window.page.evaluate(f"(() => {{ {inline}; return window.__in }})()") is None
    window.until("true")
    assert any("script-src" in text for text in window.complaints)  # so the other tests would have seen a violation


def test_the_chain_moves_and_is_plausible(server: Server, open_window: Any) -> None:
    window = open_window(server.url)
    before = {row["id"]: row for row in window.snapshot()["chain"]["rows"]}
    spot = window.snapshot()["chain"]["spot"]
    window.until(f"__demo.snapshot().chain.spot !== {spot}")
    window.count_frames()
    chain = window.snapshot()["chain"]
    rows = sorted(chain["rows"], key=lambda row: row["id"])
    assert sum(before[row["id"]] != row for row in rows) > 20
    assert 100 < chain["published_per_s"] < 3_000
    years = 30 / 365
    for row in rows:
        for side in (row["call"], row["put"]):
            assert 0 <= side["bid"] < side["ask"]
            assert 0.03 <= side["iv"] < 1
            assert side["gamma"] >= 0 <= side["vega"]
        assert 0 <= row["call"]["delta"] <= 1 and -1 <= row["put"]["delta"] <= 0
        middle = [(row[side]["bid"] + row[side]["ask"]) / 2 for side in ("call", "put")]
        parity = chain["spot"] * exp(-0.012 * years) - row["id"] * exp(-0.04 * years)
        assert abs(middle[0] - middle[1] - parity) < 3  # rows are a few hundred milliseconds apart, and quoted on ticks
    deltas = [row["call"]["delta"] for row in rows]
    assert all(a >= b - 0.05 for a, b in pairwise(deltas))
    window.until("document.querySelectorAll('#chain-table tbody tr').length === 11")


def test_the_slider_lowers_the_number_of_messages(server: Server, open_window: Any) -> None:
    window = open_window(server.url)
    counts = {}
    for rate in ("20", "1"):
        window.page.fill("#rate", rate)
        window.until(f"__demo.snapshot().chain.asked === {rate}")
        window.count_frames(8)  # the first answer of the new socket may carry every row
        counts[rate] = window.count_frames(30)
    assert counts["20"] > 2 * counts["1"] > 0, counts
    assert window.snapshot()["chain"]["published_per_s"] > 100  # the source did not slow down, we did
    assert window.snapshot()["topics"]["chain/30d"]["event"] == "newest row per strike, at your rate"
    assert window.complaints == []


def test_two_windows_talk(server: Server, open_window: Any) -> None:
    one, two = open_window(server.url), open_window(server.url)
    one.say("hello from one")
    two.until("__demo.snapshot().chat.at(-1) === 'hello from one'")
    two.say("hello from two")
    for window in (one, two):
        window.until("__demo.snapshot().chat.slice(-2).join('|') === 'hello from one|hello from two'")
    late = open_window(server.url)
    late.until("__demo.snapshot().chat.slice(-2).join('|') === 'hello from one|hello from two'")
    assert one.complaints == two.complaints == []


def test_what_others_write_is_text(server: Server, open_window: Any) -> None:
    one, two = open_window(server.url), open_window(server.url)
    payloads = [
        '<img src=x onerror="window.__hacked=1">',
        "<script>window.__hacked=1</script>",
        '"><svg/onload=window.__hacked=1>',
        "<a href=javascript:window.__hacked=1>x</a>",
        "{{constructor.constructor('window.__hacked=1')()}}",
    ]
    for payload in payloads:
        one.page.fill("#name", payload[:24])
        one.say(payload)
        two.until("__demo.snapshot().chat.includes(" + repr(payload) + ")")
    odd: list[Any] = [None, 5, "text", [], {"text": 5, "name": "x"}, {"text": "x"}]
    long = {"id": "1", "at": 1, "name": "x", "text": "y" * 281}
    assert one.page.evaluate(PUBLISH, [*odd, long]) == [1008] * 7, "the server takes lines and nothing else"
    one.say("after all that")
    two.until("__demo.snapshot().chat.at(-1) === 'after all that'")
    two.until("__demo.snapshot().chat.at(-2) === " + repr(payloads[-1]))
    for window in (one, two):
        assert window.page.locator("#chat :is(img, script, svg, a)").count() == 0
        assert window.page.evaluate("window.__hacked") is None
        assert window.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert window.complaints == []


def test_a_cut_line_resumes_with_nothing_missing(server: Server, open_window: Any) -> None:
    one, two = open_window(server.url), open_window(server.url)
    one.say("before the cut")
    two.until("__demo.snapshot().chat.at(-1) === 'before the cut'")
    one.page.evaluate("document.getElementById('cut').dataset.holdMs = 6000")  # a busy machine needs time to write
    one.page.click("#cut")
    one.until("Object.values(__demo.snapshot().topics).every((topic) => topic.state === 'cut')")
    assert one.page.locator(".topic[data-state=cut]").count() == len(TOPICS)
    assert "Cut" in one.page.inner_text("#line-status")
    one.say("written into the cut")
    assert one.page.locator("#chat [data-pending]").count() == 1
    for n in range(3):
        two.say(f"during the cut {n}")
    two.until("__demo.snapshot().chat.at(-1) === 'during the cut 2'")
    one.until(ALL_LIVE)
    one.until("__demo.snapshot().topics['chat/lobby'].event.startsWith('reconnected, 3 recovered')")
    one.until("/^reconnected, [0-9]+ recovered$/.test(__demo.snapshot().topics['pulse/history'].event)")
    one.until("/^Reconnected, [0-9]+ messages recovered, nothing lost$/.test(__demo.snapshot().status)")
    wanted = ["before the cut", "during the cut 0", "during the cut 1", "during the cut 2", "written into the cut"]
    for window in (one, two):
        window.until(f"__demo.snapshot().chat.slice(-5).join('|') === {'|'.join(wanted)!r}")
        assert [window.snapshot()["chat"].count(text) for text in wanted] == [1] * 5
    after = one.snapshot()
    assert [span["kind"] for span in after["spans"]] == ["recovered"]
    assert after["missing"] == 0  # every offset of the history arrived, once and in order
    assert one.complaints == two.complaints == []


def test_a_killed_server_comes_back_and_the_page_says_what_was_lost(tmp_path: Path, open_window: Any) -> None:
    server = Server(tmp_path / "server.log")
    server.start()
    try:
        window = open_window(server.url)
        window.say("soon forgotten")
        window.until("__demo.snapshot().chat.at(-1) === 'soon forgotten'")
        server.kill()
        window.until("Object.values(__demo.snapshot().topics).some((topic) => topic.state === 'waiting')")
        window.until("__demo.snapshot().status.startsWith('No answer from the server')")
        server.start()
        window.until(ALL_LIVE)
        window.until("__demo.snapshot().status === 'Back, but the server had lost its history: live again from here'")
        topics = window.snapshot()["topics"]
        for name in ("pulse/history", "chat/lobby"):
            assert topics[name]["event"] == "history lost, live again"
        assert "the server lost the older lines" in window.page.inner_text("#chat")
        at = window.snapshot()["pulse"]["at"]
        window.until(f"__demo.snapshot().pulse.at > {at}")
        window.say("and on we go")
        window.until("__demo.snapshot().chat.at(-1) === 'and on we go'")
        unexpected = [text for text in window.complaints if "WebSocket connection to" not in text]
        assert unexpected == []
    finally:
        server.stop()


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (390, "light"), (700, "light"), (1180, "dark")])
def test_every_width_fits(server: Server, open_window: Any, width: int, scheme: str) -> None:
    window = open_window(server.url, viewport={"width": width, "height": 844}, color_scheme=scheme)
    assert window.page.evaluate("document.documentElement.scrollWidth") <= width
    assert window.page.get_attribute("html", "data-theme") == scheme
    background = window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    window.page.click("#theme")
    assert window.page.evaluate("getComputedStyle(document.documentElement).backgroundColor") != background
    window.page.reload()
    window.until(ALL_LIVE)
    assert window.page.get_attribute("html", "data-theme") != scheme  # the choice is remembered
    assert window.complaints == []


def test_a_taken_port_is_passed_by(server: Server, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.demo", "--no-open", "--port", str(server.port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as second:
        try:
            assert second.stdout is not None
            lines = [second.stdout.readline() for _ in range(2)]
        finally:
            second.terminate()
    assert lines[0] == f"Port {server.port} is taken, using {lines[1].rsplit(':', 1)[1]}"
    assert lines[1].startswith("The demo is at http://127.0.0.1:")
