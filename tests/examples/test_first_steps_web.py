"""``examples/first_steps``: a stranger's server over TLS, FastAPI, disconnects, and the chats."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
import trustme

from tests.examples.background import Line, background, strangers_echo
from tests.examples.terminal import Terminal


def test_somebody_elses_server(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with background(strangers_echo(context)) as port:
        trusted = {"SSL_CERT_FILE": str(tmp_path / "ca.pem")}
        for both in (False, True):
            url = f"wss://localhost:{port}"
            with Terminal("external_echo.py", url, cwd=tmp_path, both=both, env=trusted) as client:
                assert client.finish() == ["connected", "<<< Is anybody there?"]
        other = trustme.CA()
        other.cert_pem.write_to_path(tmp_path / "other.pem")
        distrusted = {"SSL_CERT_FILE": str(tmp_path / "other.pem")}
        with Terminal("external_echo.py", f"wss://localhost:{port}", cwd=tmp_path, env=distrusted) as client:
            client.until("certificate")
        assert "connected" not in client.lines


@pytest.mark.parametrize("program", ["disconnect.py", "disconnect_accept.py"])
def test_disconnects(program: str, tmp_path: Path) -> None:
    with Terminal(program, 0, cwd=tmp_path) as server:
        url = f"ws://127.0.0.1:{server.port()}/ws"
        with Terminal("talk.py", url, "one", cwd=tmp_path) as client:
            client.until("<<< I got your request: one")
            client.vanish()
            server.until("a client left: 1006")
        for word in ("well, bye then", "quit"):
            with Terminal("talk.py", url, "the weather", word, cwd=tmp_path) as client:
                assert client.finish() == [
                    "<<< I got your request: the weather",
                    "<<< Closing connection",
                    "closed by the server: 1000 Server requested close",
                ]
        assert [line for line in server.stop() if "a client left" in line] == ["a client left: 1006"]


def test_the_chat_in_a_page(tmp_path: Path) -> None:
    with Terminal("chat.py", 0, cwd=tmp_path) as server:
        url = f"http://127.0.0.1:{server.port()}"
        assert "/live/chat" in httpx.get(url).text
        for line in ("hello", "is anybody here?"):
            httpx.post(f"{url}/live/chat", content=line).raise_for_status()
        kept = httpx.get(f"{url}/live/chat", headers={"accept": "text/plain"}).text
        assert kept == "hellois anybody here?"
        server.stop()


def test_a_chat_misses_nothing_and_says_what_is_lost(tmp_path: Path) -> None:
    with Terminal("resuming_chat.py", "serve", 0, cwd=tmp_path) as server:
        port = server.port()
        with (
            background(Line(port).laid()) as line,
            Terminal("resuming_chat.py", "Ada", port, cwd=tmp_path) as ada,
            Terminal("resuming_chat.py", "Ben", line.port, cwd=tmp_path) as ben,
        ):
            for one in (ada, ben):
                one.until("(live)")
            ben.type("hello Ada")
            for one in (ada, ben):
                one.until("Ben: hello Ada")
            line.cut()
            ben.until("(reconnecting)")
            for said in ("are you there?", "Ben?"):
                ada.type(said)
                ada.until(f"Ada: {said}")
            ben.type("can you hear me?")
            ben.until("(not sent: ")
            line.mend()
            ada.type("there you are")
            ben.until("Ada: there you are")
            heard = [line for line in ben.stop() if line.startswith(("Ada", "Ben"))]
            assert heard == ["Ben: hello Ada", "Ada: are you there?", "Ada: Ben?", "Ada: there you are"]
            server.stop()
            ada.until("(reconnecting)")
            with Terminal("resuming_chat.py", "serve", port, cwd=tmp_path) as again:
                again.port()
                ada.until("(live)")
                ada.type("again")
                ada.until("(something is lost) Ada: again")
                ada.stop()
                again.stop()
