"""``examples/tokens``: the answer goes on without its reader, is read again from the start, and is made once."""

from __future__ import annotations

import asyncio
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from examples.tokens import app as tokens_app
from examples.tokens import model
from examples.tokens.app import app
from tests.project.files import ROOT
from tidewire.testing import Probe

QUESTION = "Is the tide coming in?"
_ids = itertools.count(1)


class Bench:
    """The application under a probe, with a model that gives each word when it may."""

    def __init__(self, probe: Probe, http: httpx.AsyncClient, may: asyncio.Semaphore) -> None:
        self.probe = probe
        self.http = http
        self.may = may
        self.id = f"{next(_ids):016x}"
        self.words = re.findall(r"\s*\S+", model.answer_to(QUESTION))

    async def ask(self) -> dict[str, Any]:
        response = await self.http.post("/ask", json={"id": self.id, "text": QUESTION})
        response.raise_for_status()
        found: dict[str, Any] = response.json()
        return found

    async def look(self) -> Any:
        return (await self.http.get(f"/runs/{self.id}")).json()

    async def read(self, count: int) -> list[Any]:
        return [(await self.probe.next(f"answers/{self.id}", timeout_s=10)).data for _ in range(count)]

    def let(self, words: int) -> None:
        for _ in range(words):
            self.may.release()


def play(monkeypatch: pytest.MonkeyPatch, scenario: Callable[[Bench], Awaitable[None]]) -> None:
    real = model.tokens

    async def run() -> None:
        may = asyncio.Semaphore(0)

        async def paced(question: str) -> AsyncIterator[str]:
            async for word in real(question):
                await may.acquire()
                yield word

        monkeypatch.setattr(model, "PAUSE_S", 0)
        monkeypatch.setattr(tokens_app, "tokens", paced)
        transport = httpx.ASGITransport(app)
        async with (
            asyncio.timeout(30),
            Probe(app) as probe,
            httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        ):
            await scenario(Bench(probe, http, may))

    asyncio.run(run())


def test_a_cut_in_mid_answer_misses_nothing_and_the_producer_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.ask() == {"topic": f"answers/{bench.id}", "started": True}
        bench.let(10)
        seen = await bench.read(11)
        bench.probe.drop()
        bench.let(10)
        assert await bench.ask() == {"topic": f"answers/{bench.id}", "started": False}
        bench.let(len(bench.words))
        seen += await bench.read(len(bench.words) - 10)
        with pytest.raises(StopAsyncIteration):
            await bench.read(1)
        question, *answer = seen
        assert question == {"question": QUESTION}
        assert "".join(item["token"] for item in answer) == model.answer_to(QUESTION)
        assert await bench.look() == {"producer_runs": 1, "published": len(bench.words) + 1, "done": True}
        assert (await bench.ask())["started"] is False

    play(monkeypatch, scenario)


def test_stop_is_told_to_the_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.ask()
        bench.let(3)
        await bench.read(4)
        assert (await bench.http.post(f"/runs/{bench.id}/stop")).status_code == 204
        with pytest.raises(Exception, match="the run was cancelled"):
            await bench.read(1)
        assert (await bench.look())["done"] is True

    play(monkeypatch, scenario)


def test_what_is_no_question_and_no_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(bench: Bench) -> None:
        for wrong in ({"id": "../x", "text": "?"}, {"id": bench.id, "text": ""}, {"id": bench.id, "text": "x" * 301}):
            assert (await bench.http.post("/ask", json=wrong)).status_code == 422
        assert (await bench.http.get(f"/runs/{bench.id}")).status_code == 404
        assert (await bench.http.post(f"/runs/{bench.id}/stop")).status_code == 204

    play(monkeypatch, scenario)


def test_the_answer_is_that_of_its_question_and_fits_what_is_kept() -> None:
    assert model.answer_to("a") == model.answer_to("a") != model.answer_to("b")
    longest = model.answer_to("x " * 150)
    policy = tokens_app.live._gate.find("answers/x").policy
    assert len(longest.split()) + 1 <= policy.retention.keep


def test_the_program_is_as_short_as_it_is_said_to_be() -> None:
    lines = (ROOT / "examples/tokens/app.py").read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 60


def test_the_command_of_the_readme_runs_it() -> None:
    readme = (ROOT / "examples/tokens/README.md").read_text(encoding="utf-8")
    block = re.search(r"```sh\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    install, run = block.group(1).splitlines()
    assert install == "pip install -e ."
    name, *arguments = shlex.split(run)
    assert name == "tidewire"
    command = [sys.executable, "-m", "tidewire", *arguments, "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stderr is not None
            listening = next(line for line in process.stderr if "listening on" in line)
            found = re.search(r"http://\S+", listening)
            assert found is not None
            assert "Tokens that survive a reload" in httpx.get(found.group()).text
        finally:
            process.terminate()
