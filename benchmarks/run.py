"""``python -m benchmarks.run fanout|memory|fixed-rate|import|all [--quick]``.

Writes what was measured to benchmarks/results/ (JSON and Markdown); a full run of everything also writes
docs/benchmarks.md. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import datetime
import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.contenders import BASELINE, CONTENDERS
from benchmarks.load import build
from benchmarks.machine import BenchmarkError, choose_places, describe, raise_open_files_limit, softirq_is_apart
from benchmarks.scenarios import fanout, fixed_rate, imports, memory
from benchmarks.scenarios.common import Bench, choose_contenders, say

HERE = Path(__file__).parent
RESULTS = HERE / "results"
REPORT = HERE.parent / "docs" / "benchmarks.md"
PACKAGES = ("tidewire", "fastapi", "starlette", "uvicorn", "websockets", "httptools", "uvloop", "msgspec")
OPEN_FILES_MIN = 2100

SCENARIOS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "fanout": fanout.run,
    "memory": memory.run,
    "fixed-rate": fixed_rate.run,
    "import": imports.run,
}


def main() -> int:
    """Run what the command line asks for; 0 when it could be run."""
    options = parse_arguments()
    # ended from outside: still unwind, so that no server is left behind
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        bench = prepare(options)
        say(f"server on core {bench.server_place.core}, load client on core {bench.client_place.core}")
        names = tuple(SCENARIOS) if options.scenario == "all" else (options.scenario,)
        result = about(bench) | {"scenarios": {name: SCENARIOS[name](bench) for name in names}}
    except BenchmarkError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    keep(result, options.scenario, complete=options.scenario == "all" and not options.contender)
    return 0


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("scenario", choices=(*SCENARIOS, "all"))
    parser.add_argument("--quick", action="store_true", help="small and short: shows that everything works")
    parser.add_argument("--rounds", type=int, help="how often each contender is measured (default 3, quick 1)")
    parser.add_argument(
        "--loop", choices=("asyncio", "uvloop"), default="asyncio", help="the event loop of all servers"
    )
    parser.add_argument(
        "--contender", action="append", choices=tuple(CONTENDERS), help=f"only these, and {BASELINE} (repeatable)"
    )
    parser.add_argument("--nice", type=int, default=0, help="priority of server and client, e.g. -15 (needs root)")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> Bench:
    """Look at the machine; raises ``BenchmarkError`` where the benchmarks cannot run."""
    if not sys.platform.startswith("linux"):
        raise BenchmarkError("the benchmarks need Linux: epoll, /proc and CPU affinity")
    if raise_open_files_limit() < OPEN_FILES_MIN:
        raise BenchmarkError(f"raise the limit of open files (ulimit -Hn) to at least {OPEN_FILES_MIN}")
    build()
    server_place, client_place = choose_places(options.nice)
    names = [name for name in CONTENDERS if not options.contender or name in {BASELINE, *options.contender}]
    return Bench(
        server_place=server_place,
        client_place=client_place,
        softirq_apart=softirq_is_apart(server_place.core),
        loop=options.loop,
        rounds=options.rounds or (1 if options.quick else 3),
        quick=options.quick,
        contenders=choose_contenders(names),
    )


def about(bench: Bench) -> dict[str, Any]:
    """What a reader must know to judge the numbers, and to make them again."""
    return {
        "command": "python -m benchmarks.run " + " ".join(sys.argv[1:]),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "machine": describe(PACKAGES),
        "softirq_apart": bench.softirq_apart,
        "loop": bench.loop,
        "rounds": bench.rounds,
        "quick": bench.quick,
    }


def keep(result: dict[str, Any], scenario: str, *, complete: bool) -> None:
    """Write the results, and the report where everything was measured."""
    RESULTS.mkdir(exist_ok=True)
    name = scenario + ("-quick" if result["quick"] else "")
    text = report.write(result)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1))
    (RESULTS / f"{name}.md").write_text(text)
    if complete and not result["quick"]:
        REPORT.write_text(text)
    print(text)
    say(f"written: benchmarks/results/{name}.json and .md")


if __name__ == "__main__":
    sys.exit(main())
