"""``examples/first_steps/chat.py`` in a real Chromium: two windows, and one that comes later."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.examples.terminal import Terminal

pytestmark = pytest.mark.system


def test_two_windows_talk_and_a_late_one_catches_up(tmp_path: Path) -> None:
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    assert path, "Chromium is missing: apt-get install -y --no-install-recommends chromium fonts-dejavu-core"
    with Terminal("chat.py", 0, cwd=tmp_path) as server, sync_playwright() as playwright:
        url = f"http://127.0.0.1:{server.port()}"
        browser = playwright.chromium.launch(executable_path=path)
        ada, ben = browser.new_page(), browser.new_page()
        complaints: list[str] = []
        for page in (ada, ben):
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(url)
        for page, line in ((ada, "hello Ben"), (ben, "hello <b>Ada</b>")):
            page.fill("#line", line)
            page.press("#line", "Enter")
            for reader in (ada, ben):
                expect(reader.locator("#said li").last).to_have_text(line, timeout=20_000)
        late = browser.new_page()
        late.goto(url)
        expect(late.locator("#said li")).to_have_text(["hello Ben", "hello <b>Ada</b>"], timeout=20_000)
        assert complaints == []
        browser.close()
        server.stop()
