"""Takes the pictures in docs/screenshots: `python -m examples.demo.screenshots`. Needs Chromium and playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "docs" / "screenshots"
READY_S = 60.0
SIZE_BYTES_MAX = 400_000
ROUND_TRIP_MS_MAX = 60
"""A slower median over the last half minute means that the machine is busy with something else."""
CALM = f"""(({{holes, trips}}) => holes === 0 && trips.length > 20 &&
  trips.sort((a, b) => a - b)[Math.floor(trips.length / 2)] < {ROUND_TRIP_MS_MAX})(__demo.snapshot())"""
LIVE = "Object.values(__demo.snapshot().topics).every((topic) => topic.state === 'live')"
TALK = [
    ("Heron", "Is the second window up?"),
    ("Otter", "Yes. Now cut the line."),
    ("Heron", "Done, back in three seconds."),
]
MISSED = [("Otter", "You cannot see this yet."), ("Otter", "But you will.")]


def until(page: Page, condition: str) -> None:
    """Polls a JavaScript condition; the page's policy forbids eval, so `wait_for_function` cannot be used."""
    deadline_s = time.monotonic() + READY_S
    while not page.evaluate(f"!!window.__demo && ({condition})"):
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"not true within {READY_S} s: {condition}")
        page.wait_for_timeout(100)


def say(page: Page, name: str, text: str) -> None:
    """Writes a line in the lobby and waits until it is there."""
    page.fill("#name", name)
    page.fill("#text", text)
    page.press("#text", "Enter")
    until(page, f"__demo.snapshot().chat.includes({text!r})")


def open_page(browser: Browser, url: str, width: int, height: int, scheme: str, scale: float = 1) -> Page:
    """A window of its own with everything live."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="light" if scheme == "light" else "dark",
        device_scale_factor=scale,
    )
    page = context.new_page()
    page.goto(url)
    until(page, f"{LIVE} && __demo.snapshot().chain.rows.length === 41")
    return page


def shoot(page: Page, name: str, *, full_page: bool = False) -> None:
    """Saves one picture; complains if it is too heavy for a README."""
    path = TARGET / name
    page.screenshot(path=path, full_page=full_page)
    size = path.stat().st_size
    print(f"{path.relative_to(ROOT)}: {size:,} bytes")
    if size > SIZE_BYTES_MAX:
        raise SystemExit(f"{name} has {size} bytes, more than {SIZE_BYTES_MAX}")


def desk(browser: Browser, url: str) -> None:
    """Two windows talk, one is cut and comes back; then the picture, dark and light."""
    one = open_page(browser, url, 1440, 900, "dark")
    two = open_page(browser, url, 500, 500, "dark")
    for name, text in TALK:
        say(one if name == "Heron" else two, name, text)
    until(one, "__demo.snapshot().points > 240")
    one.click("#cut")
    for name, text in MISSED:
        say(two, name, text)
    until(one, f"{LIVE} && __demo.snapshot().chat.length === {len(TALK) + len(MISSED)}")
    two.close()
    say(one, "Heron", "And there they are.")
    points = one.evaluate("__demo.snapshot().topics['pulse/history'].messages")
    until(one, f"__demo.snapshot().topics['pulse/history'].messages > {points + 90}")
    one.mouse.move(0, 0)
    one.evaluate("document.activeElement.blur()")
    if not one.evaluate(CALM):
        raise SystemExit("This machine is busy and the pictures would show that, not the demo. Try again later.")
    shoot(one, "demo-dark.png")
    one.click("#theme")
    one.mouse.move(0, 0)
    until(one, "__demo.snapshot().points > 0")
    one.evaluate("new Promise((done) => setTimeout(done, 600))")
    shoot(one, "demo-light.png")
    one.close()


def phone(browser: Browser, url: str) -> None:
    """The top of the page as a phone shows it."""
    page = open_page(browser, url, 390, 844, "dark", scale=2)
    until(page, "__demo.snapshot().trips.length > 3")
    shoot(page, "demo-phone.png")
    page.close()


def main() -> None:
    """Starts the demo, takes the pictures, stops it."""
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is missing: apt-get install -y --no-install-recommends chromium fonts-dejavu-core")
    TARGET.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "examples.demo", "--no-open", "--port", "8600"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = next(line.split()[-1] for line in server.stdout if line.startswith("The demo is at"))
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(executable_path=chromium)
                pictures: list[Callable[[Browser, str], None]] = [desk, phone]
                for take in pictures:
                    take(browser, url)
                browser.close()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
