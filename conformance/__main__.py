"""``make conformance``: run the Autobahn Testsuite against both sides of Tidewire and judge what it found."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import time
from pathlib import Path

from conformance import cases, judge
from conformance.agents import AGENTS, RESULTS, TOOL, Agent, Job, Report, jobs_of, run_job
from conformance.judge import Allowed, Index, Kind, Outcome, Remark
from conformance.processes import ROOT, ConformanceError, alone

_HERE = Path(__file__).parent
_ALLOWED = _HERE / "allowed.toml"
_LIMIT_S = 900.0
_LIMIT_FULL_S = 5400.0


def main() -> int:
    """Run, and return the exit code: 1 for a result that may not be, 2 for a run that came to none."""
    words = _parse()
    began = time.monotonic()
    if not TOOL.exists():
        print("conformance: the suite is not installed: run `make conformance`", file=sys.stderr)
        return 2
    agents = [agent for agent in AGENTS if words.agent is None or agent.name in words.agent]
    try:
        allowed = judge.parse_allowed(_ALLOWED.read_text(), [agent.name for agent in AGENTS])
        expected = {agent.name: _expected(agent) for agent in agents}
        with alone(RESULTS):
            outcomes = asyncio.run(_run(agents, words, expected, allowed))
    except (ConformanceError, ValueError) as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("conformance: stopped; nothing is left running", file=sys.stderr)
        return 130
    if words.update:
        for outcome in outcomes:
            _update(outcome, expected[outcome.agent], allowed)
    return _tell(outcomes, time.monotonic() - began, updated=words.update)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m conformance", description=__doc__)
    parser.add_argument("--full", action="store_true", help="all 517 cases, not 329: takes much longer")
    parser.add_argument("--update", action="store_true", help="write what is found as what is expected from now on")
    names = [agent.name for agent in AGENTS]
    parser.add_argument("--agent", action="append", choices=names, help="ask this one only; may be repeated")
    parser.add_argument(
        "--case", action="append", type=_case, metavar="CASE", help="only this case, or 9.*; may be repeated"
    )
    parser.add_argument("--jobs", type=int, default=3, help="how many to run at the same time (3)")
    return parser.parse_args()


def _case(word: str) -> str:
    try:
        return cases.check(word)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _expected(agent: Agent) -> Index:
    path = _HERE / "expected" / f"{agent.name}.json"
    return judge.parse_expected(path.read_text()) if path.exists() else {}


def _update(outcome: Outcome, expected: Index, allowed: Allowed) -> None:
    path = _HERE / "expected" / f"{outcome.agent}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(judge.format_expected(judge.renew(expected, outcome.found, allowed.races)))


async def _run(
    agents: list[Agent], words: argparse.Namespace, expected: dict[str, Index], allowed: Allowed
) -> list[Outcome]:
    task = asyncio.current_task()
    assert task is not None
    # what stops a step of CI; Ctrl-C does the same
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    only = None if words.case is None else tuple(words.case)
    limit_s = _LIMIT_FULL_S if words.full else _LIMIT_S
    jobs = [job for agent in agents for job in jobs_of(agent, full=words.full, only=only, limit_s=limit_s)]
    print(f"conformance: {sum(job.count for job in jobs)} cases, reports in {RESULTS.relative_to(ROOT)}", flush=True)
    reports = await _run_jobs(jobs, words.jobs)
    return [
        _judge(agent, {job: reports[job] for job in jobs if job.agent is agent}, expected, allowed) for agent in agents
    ]


async def _run_jobs(jobs: list[Job], at_once: int) -> dict[Job, Report]:
    """All of them, so many at the same time."""
    places = asyncio.Semaphore(at_once)
    began = time.monotonic()

    def tell(line: str) -> None:
        print(f"conformance: {time.monotonic() - began:4.0f} s  {line}", flush=True)

    async def one(job: Job) -> Report:
        async with places:
            return await run_job(job, tell)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = {job: group.create_task(one(job)) for job in jobs}
    except BaseExceptionGroup as several:
        # one is enough to say; the others were ended for it
        raise several.exceptions[0] from None
    return {job: task.result() for job, task in tasks.items()}


def _judge(agent: Agent, reports: dict[Job, Report], expected: dict[str, Index], allowed: Allowed) -> Outcome:
    found: Index = {}
    remarks: list[Remark] = []
    for job, report in reports.items():
        found.update(report.index)
        if len(report.index) != job.count:
            text = f"there are results of {len(report.index)} cases, not of {job.count}"
            remarks.append(Remark(Kind.MISSING, agent.name, reason=text))
        if report.logged is not None:
            remarks.append(Remark(Kind.LOGGED, agent.name, reason=f"see {report.logged.relative_to(ROOT)}"))
    remarks += judge.judge(agent.name, found, expected[agent.name], allowed)
    return Outcome(agent.name, found, remarks, sum(report.took_s for report in reports.values()))


def _tell(outcomes: list[Outcome], took_s: float, *, updated: bool) -> int:
    remarks = [remark for outcome in outcomes for remark in outcome.remarks]
    if updated:
        # they are what is expected now
        remarks = [one for one in remarks if not one.kind.needs_update and one.kind is not Kind.WORSE]
    new = sum(one.kind is Kind.NEW for one in remarks)
    errors = [one for one in remarks if one.kind.is_error]
    print()
    for line in judge.sentences(one for one in remarks if not one.kind.is_error and one.kind is not Kind.NEW):
        print(f"conformance: note: {line}")
    if new:
        print(f"conformance: note: {new} cases are not in the expected index yet")
    if any(one.kind.needs_update for one in remarks):
        print("conformance: note: this writes what was found as what is expected: make conformance ARGS=--update")
    if any(one.kind is Kind.NEEDLESS for one in remarks):
        print(f"conformance: note: take what is needless out of {_ALLOWED.relative_to(ROOT)}")
    for line in judge.sentences(errors):
        print(f"conformance: ERROR: {line}")
    print(f"\n{judge.table(outcomes)}\n")
    print(f"conformance: every byte of every case: {RESULTS.relative_to(ROOT)}/AGENT/index.html; {took_s:.0f} s")
    good, bad = judge.count(outcomes, errors)
    print(f"conformance: {good} passed, {bad} failed")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
