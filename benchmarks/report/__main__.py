"""``python -m benchmarks.report FILE.json...``: write docs/benchmarks.md again from results that are there.

For another wording without another hour of measuring. Several files, of one machine, are put together.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks import report

DOCS = Path(__file__).parents[2] / "docs"


def merge(results: list[dict[str, Any]]) -> dict[str, Any]:
    """One result with the scenarios of all; a later file wins. Raises ``SystemExit`` for different machines."""
    merged = dict(results[0])
    for result in results[1:]:
        if result["machine"] != merged["machine"] or result["loop"] != merged["loop"]:
            raise SystemExit("these results are of different machines, versions or loops: measure them together")
        merged |= {
            "command": f"{merged['command']}; {result['command']}",
            "quick": merged["quick"] or result["quick"],
            "scenarios": merged["scenarios"] | result["scenarios"],
        }
    return merged


def main() -> None:
    """Read, put together, publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    merged = merge([json.loads(file.read_text()) for file in parser.parse_args().files])
    report.publish(*report.write(merged), DOCS)


if __name__ == "__main__":
    main()
