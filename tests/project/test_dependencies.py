"""Installing tidewire adds at most three packages to what fastapi[standard] brings, and no compiled code of ours."""

import re
import tomllib
from collections import deque
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.files import ROOT, project_files

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES_ADDED_MAX = 3


def closure(requirements: list[str]) -> set[str]:
    """Return the names of all packages that installing ``requirements`` brings here, as their metadata tells.

    Raises PackageNotFoundError when one of them is not installed: its own requirements would be unknown.
    """
    waiting = deque(Requirement(text) for text in requirements)
    seen: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.popleft()
        for extra in ("", *wanted.extras):
            key = (canonicalize_name(wanted.name), canonicalize_name(extra))
            if key in seen:
                continue
            seen.add(key)
            asked = [Requirement(text) for text in metadata.requires(wanted.name) or ()]
            # Without an extra only the unconditional ones hold; with one, also those it adds.
            waiting.extend(need for need in asked if need.marker is None or need.marker.evaluate({"extra": extra}))
    return {name for name, _ in seen}


def test_at_most_three_packages_beside_fastapi_standard() -> None:
    added = closure(PROJECT["project"]["dependencies"]) - closure(["fastapi[standard]"])
    assert len(added) <= PACKAGES_ADDED_MAX, f"added to fastapi[standard]: {sorted(added)}"


def test_the_closure_is_not_empty_handed() -> None:
    # Guards the test above: a closure that finds nothing would pass it too.
    standard = closure(["fastapi[standard]"])
    assert {"fastapi", "starlette", "uvicorn", "httptools", "websockets", "typer", "rich"} <= standard
    assert "msgspec" in closure(PROJECT["project"]["dependencies"])
    assert "msgspec" not in standard


def test_heavy_packages_are_extras() -> None:
    needed = {canonicalize_name(Requirement(text).name) for text in PROJECT["project"]["dependencies"]}
    assert not needed & {"psutil", "numpy", "redis", "pyjwt", "protobuf", "nats-py", "playwright"}


def test_no_compiled_code_of_ours() -> None:
    compiled = {".c", ".cc", ".cpp", ".h", ".pyx", ".pxd", ".rs", ".so", ".pyd", ".dll", ".dylib"}
    ours = [path.relative_to(ROOT) for path in project_files() if path.is_relative_to(ROOT / "src")]
    assert ours
    assert [path for path in ours if path.suffix in compiled] == []


def pins() -> dict[str, str]:
    """Return constraints.txt as name to version; fails on any line that is more than ``name==version``."""
    found: dict[str, str] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        plain = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][A-Za-z0-9.!+]*)", line)
        assert plain, f"constraints.txt holds names and versions only, not {line!r}; run make constraints"
        name = canonicalize_name(plain[1])
        assert name not in found, f"{name} stands twice in constraints.txt"
        found[name] = plain[2]
    return found


def test_constraints_pin_what_we_ask_for_and_within_our_ranges() -> None:
    pinned = pins()
    groups = PROJECT["dependency-groups"]
    asked = [
        *PROJECT["project"]["dependencies"],
        *PROJECT["project"]["optional-dependencies"]["demo"],
        *(entry for group in groups.values() for entry in group if isinstance(entry, str)),
        *PROJECT["build-system"]["requires"],
        "pip>=25.3",  # scripts/install.sh: dependency groups, and constraints on the build
    ]
    for text in asked:
        wanted = Requirement(text)
        version = pinned.get(canonicalize_name(wanted.name))
        assert version, f"{wanted.name} has no line in constraints.txt; run make constraints"
        assert wanted.specifier.contains(version), f"constraints.txt: {wanted.name}=={version} is outside {wanted}"


def test_constraints_pin_all_that_comes_along() -> None:
    missing = closure([*PROJECT["project"]["dependencies"], "fastapi[standard]"]) - set(pins())
    assert missing == set(), f"no line in constraints.txt for {sorted(missing)}; run make constraints"


def test_uvicorn_is_new_enough_for_the_wire() -> None:
    # Our protocol classes rest on what this version does; see src/tidewire/wire/uvicorn.py.
    (uvicorn,) = (need for text in PROJECT["project"]["dependencies"] if (need := Requirement(text)).name == "uvicorn")
    assert not uvicorn.specifier.contains("0.52.0")
    assert uvicorn.specifier.contains("0.52.1")


def test_ci_runs_what_the_makefile_offers() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z][a-z-]*)(?: [a-z -]+)?:", makefile, re.MULTILINE))
    called = set(re.findall(r"\bmake (?:--[a-z-]+ )*([a-z-]+)$", Path(ROOT / ".ci" / "run").read_text(), re.MULTILINE))
    assert {"install", "check", "test", "interop", "test-system"} <= called <= targets
