"""``python -m benchmarks.run SCENARIO...|all [--quick] [--rounds N] [--contender NAME]``.

Writes what was measured to benchmarks/results/ (JSON and Markdown); a full run of everything also writes
docs/benchmarks.md and its plots. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks import report, tools
from benchmarks.contenders import BASELINES, CONTENDERS, Contender
from benchmarks.load import build
from benchmarks.machine import BenchmarkError, choose_places, describe, raise_open_files_limit, softirq_is_apart
from benchmarks.scenarios import SCENARIOS
from benchmarks.scenarios.common import Bench, say

HERE = Path(__file__).parent
RESULTS = HERE / "results"
DOCS = HERE.parent / "docs"
# what uvicorn takes by itself with fastapi[standard] and with Tidewire
LOOP = "uvloop"
PACKAGES = (
    *("tidewire", "fastapi", "starlette", "uvicorn", "websockets", "httptools", "uvloop", "msgspec"),
    *("wsproto", "python-socketio", "python-engineio"),
)
# connections of the scenarios that have the most, and some
OPEN_FILES_MIN = {"connect": 19_100, "fixed-rate": 10_200, "memory": 5_100, "storm": 5_300}


def main() -> int:
    """Run what the command line asks for; 0 when it could be run."""
    options = parse_arguments()
    # ended from outside: still unwind, so that no server is left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    is_all = "all" in options.scenario
    names = tuple(SCENARIOS) if is_all else tuple(options.scenario)
    try:
        bench = prepare(options, names)
        say(f"server on core {bench.server_place.core}, load client on core {bench.client_place.core}")
        result = about(bench) | {"scenarios": {}}
        for name in names:
            result["scenarios"][name] = SCENARIOS[name](bench)
            # what has been measured outlives an end from outside
            keep(result, "all" if is_all else "+".join(names))
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    text, plots = report.write(result)
    print(text)
    if is_all and not (options.contender or options.without or options.quick) and bench.loop == LOOP:
        report.publish(text, plots, DOCS)
        say("written: docs/benchmarks.md and its plots")
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("scenario", nargs="+", choices=(*SCENARIOS, "all"))
    parser.add_argument("--quick", action="store_true", help="small and short: shows that everything works")
    parser.add_argument("--rounds", type=int, help="how often each contender is measured (default 3, quick 1)")
    parser.add_argument(
        "--loop",
        choices=("asyncio", "uvloop"),
        default=LOOP,
        help=f"the event loop of all servers in Python (default {LOOP}: uvicorn's own choice where it is installed)",
    )
    for option, text in (
        ("--contender", f"only these, and what they are compared with (repeatable): {', '.join(CONTENDERS)}"),
        ("--without", "not these, e.g. where their tools cannot be had (repeatable)"),
    ):
        parser.add_argument(option, action="append", choices=tuple(CONTENDERS), default=[], metavar="NAME", help=text)
    parser.add_argument("--nice", type=int, default=0, help="priority of server and client, e.g. -15 (needs root)")
    return parser.parse_args()


def prepare(options: argparse.Namespace, scenarios: tuple[str, ...]) -> Bench:
    """Look at the machine and fetch what is needed; raises ``BenchmarkError`` where the benchmarks cannot run."""
    if not sys.platform.startswith("linux"):
        raise BenchmarkError("the benchmarks need Linux: epoll, /proc and CPU affinity")
    open_files = max(2100 if options.quick else OPEN_FILES_MIN.get(name, 2100) for name in scenarios)
    if raise_open_files_limit() < open_files:
        raise BenchmarkError(f"raise the limit of open files (ulimit -Hn) to at least {open_files}")
    build(tls="wss" in scenarios)
    if "wss" in scenarios:
        tools.need_package("trustme")
    contenders = choose_contenders(options, scenarios)
    missing = dict(filter(None, map(_what_is_missing, contenders)))
    if missing:
        lines = [
            f"{contender}: {what}\n  or leave it out: --without {contender}" for contender, what in missing.items()
        ]
        raise BenchmarkError("some contenders cannot run\n" + "\n".join(lines))
    server_place, client_place = choose_places(options.nice)
    return Bench(
        server_place=server_place,
        client_place=client_place,
        softirq_apart=softirq_is_apart(server_place.core),
        loop=options.loop,
        rounds=options.rounds or (1 if options.quick else 3),
        quick=options.quick,
        contenders=contenders,
    )


def choose_contenders(options: argparse.Namespace, scenarios: tuple[str, ...]) -> tuple[Contender, ...]:
    """Who takes part in one of ``scenarios``, was asked for, or is what others are compared with."""
    wanted = {*options.contender, *(BASELINES[name] for name in scenarios if name in BASELINES)}
    return tuple(
        contender
        for contender in CONTENDERS.values()
        if contender.scenarios & set(scenarios)
        and (not options.contender or contender.name in wanted)
        and contender.name not in options.without
    )


def _what_is_missing(contender: Contender) -> tuple[str, str] | None:
    try:
        contender.prepare()
    except BenchmarkError as error:
        return contender.name, str(error)
    return None


def about(bench: Bench) -> dict[str, Any]:
    """What a reader must know to judge the numbers, and to make them again."""
    return {
        "command": "python -m benchmarks.run " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe(PACKAGES) | tools.node_versions(),
        "softirq_apart": bench.softirq_apart,
        "loop": bench.loop,
        "rounds": bench.rounds,
        "quick": bench.quick,
    }


def keep(result: dict[str, Any], scenario: str) -> None:
    """Write the results and what they say."""
    RESULTS.mkdir(exist_ok=True)
    name = scenario + ("" if result["loop"] == LOOP else f"-{result['loop']}") + ("-quick" if result["quick"] else "")
    (RESULTS / f"{name}.json").write_text(json.dumps(result))
    report.publish(*report.write(result), RESULTS, f"{name}.md")
    say(f"written: benchmarks/results/{name}.json and .md")


if __name__ == "__main__":
    sys.exit(main())
