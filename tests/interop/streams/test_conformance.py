"""``@durable-streams/server-conformance-tests`` against topics declared as streams: all but what is listed passes."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.interop.streams.conftest import HERE, PACKAGES, Run

pytestmark = pytest.mark.interop

EXCEPTIONS = tomllib.loads((HERE / "exceptions.toml").read_text(encoding="utf-8"))
EXCEPTED = {group for exception in EXCEPTIONS["exception"] for group in exception["groups"]}


def run_suite(run_node: Run, report: Path) -> list[dict[str, Any]]:
    """Every test of the suite: its group, its whole name, its status and what it said."""
    vitest = PACKAGES / "vitest" / "vitest.mjs"
    said = run_node("node", str(vitest), "run", "--reporter=json", f"--outputFile={report}", "conformance.test.mjs")
    assert report.is_file(), f"the suite did not run:\n{said.stdout}{said.stderr}"
    tests = [test for file in json.loads(report.read_text())["testResults"] for test in file["assertionResults"]]
    return [{**test, "group": test["ancestorTitles"][0]} for test in tests]


def test_everything_passes_but_what_is_excepted(run_node: Run, tmp_path: Path) -> None:
    verdicts = run_suite(run_node, tmp_path / "report.json")
    assert len(verdicts) == EXCEPTIONS["suite_tests"], "all of the suite was to be run"
    not_passed = [verdict for verdict in verdicts if verdict["status"] != "passed"]
    wrong = [verdict for verdict in not_passed if verdict["group"] not in EXCEPTED]
    told = "\n\n".join(f"{v['fullName']}\n{''.join(v['failureMessages'])[:1000]}" for v in wrong)
    assert not wrong, told
    needed = {verdict["group"] for verdict in not_passed}
    assert needed == EXCEPTED, "remove what passes from exceptions.toml"


def test_every_exception_has_a_reason() -> None:
    for exception in EXCEPTIONS["exception"]:
        assert exception["groups"]
        assert len(exception["reason"].split()) > 20
