"""What our documents show for a browser, in a real one, with the SDK from npm, against the program shown beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browsers import chromium
from tests.interop.installed import node_modules
from tests.project.documents import ROOT, named_block
from tests.project.test_readme import serving

pytestmark = pytest.mark.interop
SHOWN = re.compile(r"wss?://(127\.0\.0\.1:8000|example\.com)")


@contextmanager
def page_of(server: str) -> Iterator[tuple[Page, str, list[str]]]:
    """A page of the program called ``server``, with the SDK in it; its host, and what its console says."""
    sdk = node_modules(ROOT / "tests/interop/sessions/package.json") / "node_modules/centrifuge/dist/centrifuge.js"
    with serving(named_block(server).run()["app"]) as url, chromium() as browser:
        page = browser.new_page()
        said: list[str] = []
        # not the browser's own, that there is no favicon
        page.on("console", lambda message: said.append(message.text) if message.type == "log" else None)
        # any page of this origin will do
        page.goto(f"{url}/openapi.json")
        page.add_script_tag(path=Path(sdk))
        yield page, url.removeprefix("http://"), said


def shown(name: str, host: str) -> str:
    """The code of a block, with our host in it."""
    return SHOWN.sub(f"ws://{host}", named_block(name).code)


def run(page: Page, code: str) -> None:
    page.evaluate(f"async () => {{ {code} }}")


def heard(page: Page, said: list[str], n: int) -> list[str]:
    """What the console has said, once that is ``n`` lines."""
    for _ in range(1000):
        if len(said) >= n:
            break
        page.wait_for_timeout(10)
    return said


def test_the_sdk_in_five_lines() -> None:
    """README.md: what is published comes, also what is published while the line is cut."""
    code = named_block("readme-sessions-browser").code
    assert sum(bool(line.strip()) for line in code.splitlines()) == 5
    with page_of("readme-sessions") as (page, host, said):
        publish = """
        const publish = (n) => fetch("/live/chat/lobby", {
          method: "POST", body: JSON.stringify({ n }), headers: { "content-type": "application/json" },
        });
        """
        cut = """
        await room.ready(5000);
        await publish(1);
        client._transport._transport.close(4000);
        await publish(2);
        await room.ready(5000);
        await publish(3);
        """
        run(page, shown("readme-sessions-browser", host) + publish + cut)
        assert heard(page, said, 3) == ["{n: 1}", "{n: 2}", "{n: 3}"]


def test_a_room_and_its_people() -> None:
    with page_of("sessions-server") as (page, host, said):
        run(page, shown("sessions-browser", host))
        assert sorted(heard(page, said, 4)) == ["here somebody", "kept 1", "people 1", "said hello"]


def test_calls() -> None:
    with page_of("sessions-calls") as (page, host, said):
        client = f"const client = new Centrifuge('ws://{host}/live/-/session'); client.connect();"
        run(page, client + shown("sessions-calls-browser", host))
        assert said == ["tea somebody", "409 sold out"]


def test_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN_SECRET", "a secret of thirty-two characters")
    with page_of("sessions-tokens") as (page, host, _):
        page.context.add_cookies([{"name": "user", "value": "ada", "url": f"http://{host}"}])
        answer = page.evaluate(
            f"""async () => {{
                {shown("sessions-tokens-browser", host)}
                const mine = client.newSubscription("diary/ada");
                const others = client.newSubscription("diary/bob");
                const refused = new Promise((resolve) => others.on("unsubscribed", ({{ code }}) => resolve(code)));
                mine.subscribe();
                others.subscribe();
                client.connect();
                await mine.ready(5000);
                return JSON.stringify(await refused);
            }}"""
        )
        assert json.loads(answer) == 103


def test_the_client_that_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/leaving.md: the client knows nothing of the server but its URL."""
    monkeypatch.setenv("TOKEN_SECRET", "a secret of thirty-two characters")
    with page_of("leaving-sessions") as (page, host, said):
        page.context.add_cookies([{"name": "user", "value": "ada", "url": f"http://{host}"}])
        url = f"const SESSION_URL = 'ws://{host}/live/-/session';"
        run(page, url + shown("leaving-client", host))
        assert sorted(heard(page, said, 2)) == ["ordered tea", "said hello"]
