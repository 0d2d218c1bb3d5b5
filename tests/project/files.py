"""Which files belong to the project."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_NOT_OURS = {".git", ".venv", ".venv-autobahn", "build", "dist", "results", "__pycache__", "node_modules"}


def project_files() -> list[Path]:
    """Return the files that git keeps, or would keep; without git (an unpacked sdist), all but the usual leftovers."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if git.returncode == 0:
        names = {name for name in git.stdout.decode().split("\0") if name}
        return sorted(path for name in names if (path := ROOT / name).is_file())
    return sorted(path for path in ROOT.rglob("*") if path.is_file() and not _NOT_OURS & set(path.parts))


def text_of(path: Path) -> str | None:
    """Return a text file's content, or None for a binary one."""
    content = path.read_bytes()
    if b"\0" in content:
        return None
    return content.decode("utf-8", errors="replace")
