"""Who is asked, and how: our servers by the suite's client, and our client by the suite's server."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance import cases
from conformance.judge import Index, parse_report
from conformance.processes import ROOT, Child, ConformanceError, child, free_port

RESULTS = ROOT / "conformance" / "results"
TOOL = ROOT / ".venv-autobahn" / "python" / "bin" / "python"
_WSTEST = "from autobahntestsuite.wstest import run; run()"
_RUNNING = re.compile(r"Running test case ID (\S+) for agent")
_START_S = 60.0
# what the servers under test get beyond the job itself, before they stop by themselves
_SPARE_S = 120.0
_PORT_TRIES = 3


@dataclass(frozen=True, slots=True)
class Agent:
    """One of our programs. ``deflate``: whether it takes part in sections 12 and 13."""

    name: str
    is_server: bool
    deflate: bool


AGENTS = (
    Agent("handler", is_server=True, deflate=True),
    Agent("fastapi", is_server=True, deflate=True),
    Agent("client", is_server=False, deflate=True),
)


@dataclass(frozen=True, slots=True)
class Job:
    """Cases that one process of the suite runs against one agent. ``folder``: for reports and logs."""

    agent: Agent
    asked: tuple[str, ...]
    folder: Path
    limit_s: float

    @property
    def count(self) -> int:
        """How many cases it has."""
        return cases.count(self.asked)


def jobs_of(agent: Agent, *, full: bool, only: tuple[str, ...] | None, limit_s: float) -> list[Job]:
    """What a run does with an agent. All of sections 12 and 13 take longer than the rest: they go beside it."""
    folder = RESULTS / agent.name
    base = Job(agent, tuple(cases.patterns(cases.BASE)), folder, limit_s)
    if only is not None:
        return [replace(base, asked=only)]
    if not agent.deflate:
        return [base]
    if not full:
        return [replace(base, asked=(*base.asked, *cases.sampled()))]
    beside = [
        Job(agent, tuple(cases.deflate(section)), RESULTS / f"{agent.name}-{section}", limit_s)
        for section in cases.DEFLATE
    ]
    return [base, *beside]


Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a job. ``logged``: the log of our program when there is a traceback in it, else None."""

    index: Index
    logged: Path | None
    took_s: float


async def run_job(job: Job, tell: Tell) -> Report:
    """Run it and return what the suite found. Raises ``ConformanceError`` when that does not come to an end."""
    began = time.monotonic()
    shutil.rmtree(job.folder, ignore_errors=True)
    job.folder.mkdir(parents=True)
    progress = _Progress(job, tell)
    try:
        async with asyncio.timeout(job.limit_s):
            await (_ask_server(job, progress) if job.agent.is_server else _ask_client(job, progress))
    except TimeoutError:
        where = progress.current or "no case at all"
        raise ConformanceError(f"{job.agent.name} was not done within {job.limit_s:g} s; it was at {where}") from None
    report = job.folder / "index.json"
    if not report.exists():
        raise ConformanceError(f"the suite wrote no report about {job.agent.name}; see {job.folder.relative_to(ROOT)}")
    log = job.folder / ("server.log" if job.agent.is_server else "client.log")
    logged = log if b"Traceback" in log.read_bytes() else None
    return Report(parse_report(report.read_text(), job.agent.name), logged, time.monotonic() - began)


class _Progress:
    """Follows what the suite prints: a line for each section that begins."""

    def __init__(self, job: Job, tell: Tell) -> None:
        self.current: str | None = None
        self._job = job
        self._tell = tell
        self._log = job.folder / "wstest.out"

    def __call__(self, line: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{line}\n")
        found = _RUNNING.match(line)
        if found is None:
            return
        before, self.current = self.current, found[1]
        section = self.current.partition(".")[0]
        if before is None or before.partition(".")[0] != section:
            self._tell(f"{self._job.agent.name}: section {section}")


async def _ask_server(job: Job, progress: _Progress) -> None:
    """One of our servers, by the suite's client."""
    run_for = str(job.limit_s + _SPARE_S)
    argv = [sys.executable, "-m", "conformance.server", job.agent.name, "--run-for", run_for]
    async with child(f"the server {job.agent.name}", argv, job.folder / "server.log") as server:
        url = (await server.read_line(_START_S)).replace("http:", "ws:")
        spec = {"outdir": str(job.folder), "servers": [{"agent": job.agent.name, "url": url}], "cases": job.asked}
        async with _wstest("fuzzingclient", spec, job.folder) as tool:
            await tool.follow(progress)
            code = await tool.wait()
        if code:
            raise tool.failed(f"ended with exit code {code}")
        if not server.is_running:
            raise server.failed("ended while it was asked")


async def _ask_client(job: Job, progress: _Progress) -> None:
    """Our client, by the suite's server; another port when somebody took the one that was free."""
    for _ in range(_PORT_TRIES):
        url = f"ws://127.0.0.1:{free_port()}"
        spec = {"url": url, "outdir": str(job.folder), "cases": job.asked}
        async with _wstest("fuzzingserver", spec, job.folder) as tool:
            if await _drive(job, url, tool, progress):
                return
            if b"CannotListenError" not in tool.log.read_bytes():
                raise tool.failed("ended while the client was asked")
    raise ConformanceError(f"no free port was found in {_PORT_TRIES} tries")


async def _drive(job: Job, url: str, tool: Child, progress: _Progress) -> bool:
    """Let the client run all cases; False when the suite's server ended meanwhile."""
    argv = [sys.executable, "-m", "conformance.client", url, job.agent.name]
    async with child("the client", argv, job.folder / "client.log") as client:
        followed = asyncio.create_task(tool.follow(progress))
        drained = asyncio.create_task(client.follow(lambda _line: None))
        try:
            await asyncio.wait([followed, drained], return_when=asyncio.FIRST_COMPLETED)
            if followed.done():
                return False
            code = await client.wait()
            if code:
                raise client.failed(f"ended with exit code {code}")
            return True
        finally:
            for task in (followed, drained):
                task.cancel()
            await asyncio.gather(followed, drained, return_exceptions=True)


def _wstest(mode: str, spec: dict[str, Any], folder: Path) -> AbstractAsyncContextManager[Child]:
    """The suite, in one of its modes."""
    path = folder / "spec.json"
    path.write_text(json.dumps({"exclude-cases": [], "exclude-agent-cases": {}, **spec}, indent=2))
    argv: list[str | Path] = [TOOL, "-u", "-c", _WSTEST, "-m", mode, "-s", path, "-u", "0"]
    return child(f"the suite's {mode}", argv, folder / "wstest.log", keeps_pythonpath=False)
