"""AnyCable's scenario: a chat whose people lose their network for two seconds, again and again.

Published at github.com/anycable/nodejs-websocket-bench ("Delivery under jitter"): 10,000 clients, 120 messages at 2 a
second, each POSTed by itself; every client's TCP connection is dropped without a goodbye about every 15 s, for 2 s, at
moments of its own. What each has got at the end is compared with what was published.

``python -m tests.interop.drops.scenario`` plays it with the published times, and prints a table. The test beside this
file plays a shorter one. All contenders are in it at the same time, with the same moments.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.interop.drops.lines import Line, lines_to
from tests.interop.installed import node_modules, python_suite
from tests.project.files import ROOT

ROOM = "chat/lobby"
AWAY_S = 2.0
INTERVAL_S = 0.5
PATIENCE_S = 60.0
LAST_EVERY_S = 0.25
HERE = "tests.interop.drops"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """``every_s``: between two drops of a client, and up to a third more. ``at_once``: all of them are dropped then."""

    people_n: int
    messages_n: int
    every_s: float
    at_once: bool = False
    seed: int = 5


@dataclass(frozen=True)
class Contender:
    """A server and the people on it. Commands run in ``folder``; ``libraries`` are put before Python's own."""

    name: str
    server: str
    people: Sequence[str]
    path: str
    publish: str
    libraries: Path | None = None
    folder: Path = ROOT

    @property
    def environment(self) -> Mapping[str, str]:
        paths = [str(ROOT)] if self.libraries is None else [str(self.libraries), str(ROOT)]
        return os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1", "NO_COLOR": "1"}


@dataclass(frozen=True)
class Outcome:
    """What came of it: for each person the numbers it got, in order, its returns, and the gaps it was told of."""

    contender: str
    expected: Sequence[int]
    drops_n: int
    people: Sequence[tuple[list[int], int, int]]

    @property
    def delivered_n(self) -> int:
        """Messages that somebody has got, each once."""
        wanted = set(self.expected)
        return sum(len(wanted & set(numbers)) for numbers, _, _ in self.people)

    @property
    def expected_n(self) -> int:
        return len(self.expected) * len(self.people)

    @property
    def wrong(self) -> list[tuple[int, list[int]]]:
        """People who did not get every message once and in order, with what they got."""
        return [(at, numbers) for at, (numbers, _, _) in enumerate(self.people) if numbers != list(self.expected)]

    def row(self) -> list[str]:
        lost_n = self.expected_n - self.delivered_n
        returns_n, gaps_n = (sum(one[at] for one in self.people) for at in (1, 2))
        rate = f"{100 * self.delivered_n / self.expected_n:.2f} %"
        counts = (self.drops_n, returns_n, self.expected_n, lost_n)
        return [self.contender, str(len(self.people)), *(f"{count:,}" for count in counts), rate, str(gaps_n)]


HEADS = ("", "clients", "drops", "returns", "expected", "lost", "delivered", "told of a gap")


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table in Markdown."""
    rows = [list(HEADS), ["---"] * len(HEADS), *(outcome.row() for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


# Who takes part


def contenders() -> list[Contender]:
    """Tidewire with two SDKs, and python-socketio; installs what is not there."""
    node = shutil.which("node") or shutil.which("nodejs")
    assert node is not None, "Node is missing: apt-get install nodejs npm"
    sessions = Path(__file__).parent.parent / "sessions" / "package.json"
    _, centrifuge = python_suite("centrifuge-python", "0.7.0")
    _, socketio = python_suite("python-socketio", _pinned("python-socketio"))
    python = (sys.executable, "-m")
    ours, theirs = f"{HERE}.chat_tidewire", f"{HERE}.chat_socketio"
    session, publish = "ws://127.0.0.1:{port}/live/-/session", f"/live/{ROOM}"
    in_node = (node, str(Path(__file__).with_name("people_centrifuge.mjs")))
    return [
        Contender(
            "Tidewire, centrifuge-python", ours, (*python, f"{HERE}.people_centrifuge"), session, publish, centrifuge
        ),
        Contender("Tidewire, centrifuge-js", ours, in_node, session, publish, folder=node_modules(sessions)),
        Contender(
            "python-socketio",
            theirs,
            (*python, f"{HERE}.people_socketio"),
            "http://127.0.0.1:{port}",
            f"/publish/{ROOM.replace('/', '-')}",
            socketio,
        ),
    ]


def _pinned(name: str) -> str:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(name)}==(\S+)$", pins, re.MULTILINE)
    assert found is not None, f"{name} has no line in constraints.txt"
    return found[1]


# Processes


@asynccontextmanager
async def started(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process until the end of the block; what it complains about is in ``log``."""
    with log.open("wb") as complaints:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=folder,
            env=environment,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=complaints,
            limit=2**26,
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            await process.wait()


async def hear(process: asyncio.subprocess.Process, log: Path) -> str:
    """The next line that a process says."""
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode().strip()
    assert line, f"the process has ended, and said:\n{log.read_text(errors='replace')[-4000:]}"
    return line


class Table:
    """One contender in play: its server, its lines and its people."""

    def __init__(self, contender: Contender, folder: Path) -> None:
        self.contender = contender
        self.lines: Sequence[Line] = ()
        self.people: asyncio.subprocess.Process
        self._log = folder / f"{re.sub('[^a-z]+', '-', contender.name.lower())}.log"
        self._people_log = self._log.with_suffix(".people.log")
        self._url = ""

    async def open(self, stack: AsyncExitStack, people_n: int) -> None:
        """Start everything; returns when all people are there."""
        one = self.contender
        command = (sys.executable, "-m", one.server)
        server = await stack.enter_async_context(started(command, ROOT, one.environment, self._log))
        said = await hear(server, self._log)
        self._url = said.removeprefix("listening on ")
        self.lines = await stack.enter_async_context(lines_to(int(self._url.rsplit(":", 1)[1]), people_n))
        self.people = await stack.enter_async_context(
            started(one.people, one.folder, one.environment, self._people_log)
        )
        room = ROOM if one.publish.endswith(ROOM) else ROOM.replace("/", "-")
        asked = {"urls": [one.path.format(port=line.port) for line in self.lines], "room": room}
        assert self.people.stdin is not None
        self.people.stdin.write(json.dumps(asked).encode() + b"\n")
        assert await hear(self.people, self._people_log) == "ready"

    async def say(self, http: httpx.AsyncClient, number: int | None) -> None:
        """Publish; not through the lines."""
        message = {"number": number, "text": f"this is message {number}"}
        answer = await http.post(f"{self._url}{self.contender.publish}", json=message)
        assert answer.is_success, answer.text

    async def result(self, http: httpx.AsyncClient) -> Any:
        """Say the last message until everybody has it, and return what they got."""
        hearing = asyncio.create_task(hear(self.people, self._people_log))
        while not hearing.done():
            await self.say(http, None)
            await asyncio.wait([hearing], timeout=LAST_EVERY_S)
        return json.loads(hearing.result())


# The play


async def play(contenders: Sequence[Contender], plan: Plan, folder: Path) -> list[Outcome]:
    """All contenders through the same; what came of it for each."""
    numbers = range(plan.messages_n)
    tables = [Table(contender, folder) for contender in contenders]
    async with AsyncExitStack() as stack, httpx.AsyncClient() as http:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(table.open(stack, plan.people_n) for table in tables))
        async with asyncio.timeout(plan.messages_n * INTERVAL_S + PATIENCE_S):
            await _talk(http, tables, plan, numbers)
            results = await asyncio.gather(*(table.result(http) for table in tables))
        drops = [sum(line.cuts_n for line in table.lines) for table in tables]
        return [
            Outcome(table.contender.name, numbers, drops_n, result)
            for table, drops_n, result in zip(tables, drops, results, strict=True)
        ]


async def _talk(http: httpx.AsyncClient, tables: Sequence[Table], plan: Plan, numbers: Sequence[int]) -> None:
    """Publish everything while the lines break; they are up again at the end."""
    over = asyncio.Event()
    # the first of each contender, the second of each...
    same = list(zip(*(table.lines for table in tables), strict=True))
    groups = [[line for lines in same for line in lines]] if plan.at_once else same
    drops = [
        asyncio.create_task(_drop_again_and_again(lines, random.Random(plan.seed * 1000 + at), plan.every_s, over))
        for at, lines in enumerate(groups)
    ]
    for number in numbers:
        await asyncio.gather(*(table.say(http, number) for table in tables))
        await asyncio.sleep(INTERVAL_S)
    over.set()
    await asyncio.gather(*drops)


async def _drop_again_and_again(lines: Sequence[Line], rng: random.Random, every_s: float, over: asyncio.Event) -> None:
    delay_s = every_s / 3 + rng.uniform(0, every_s)
    while True:
        with suppress(TimeoutError):
            await asyncio.wait_for(over.wait(), delay_s)
            return
        # half of the time the server is not told either, as when a network is lost
        silently = rng.random() < 0.5
        for line in lines:
            line.cut(silently=silently)
        await asyncio.sleep(AWAY_S)
        for line in lines:
            line.mend()
        delay_s = every_s + rng.uniform(0, every_s / 3)


def main() -> None:
    """Play it with the published times."""
    parser = argparse.ArgumentParser(description="AnyCable's scenario, played here; prints a table.")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--messages", type=int, default=120)
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two drops of a client")
    parser.add_argument("--at-once", action="store_true", help="drop all clients at the same moments")
    parser.add_argument("--seed", type=int, default=5)
    asked = parser.parse_args()
    plan = Plan(
        people_n=asked.clients,
        messages_n=asked.messages,
        every_s=asked.every,
        at_once=asked.at_once,
        seed=asked.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        print(table(asyncio.run(play(contenders(), plan, Path(folder)))))


if __name__ == "__main__":
    main()
