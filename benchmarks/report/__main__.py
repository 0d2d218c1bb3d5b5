"""``python -m benchmarks.report FILE.json...``: write docs/benchmarks.md again from results that are there.

For another wording without another hour of measuring. Several files, of one machine, are put together; those of another
event loop than the first get a table of their own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import report

DOCS = Path(__file__).parents[2] / "docs"


def merge(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One result for each event loop, with the scenarios of all; a later file wins.

    Raises ``SystemExit`` for different machines.
    """
    merged: dict[str, dict[str, Any]] = {}
    for result in results:
        if result["machine"] != results[0]["machine"]:
            raise SystemExit("these results are of different machines or versions: measure them together")
        known = merged.get(result["loop"])
        if known is None:
            merged[result["loop"]] = dict(result)
            continue
        known |= {
            "command": f"{known['command']}; {result['command']}",
            "quick": known["quick"] or result["quick"],
            "scenarios": known["scenarios"] | result["scenarios"],
        }
    return list(merged.values())


def main() -> None:
    """Read, put together, publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    first, *others = merge([json.loads(file.read_text()) for file in parser.parse_args().files])
    report.publish(*report.write(first, others), DOCS)


if __name__ == "__main__":
    main()
