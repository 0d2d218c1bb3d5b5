#!/bin/sh
# Write constraints.txt anew: the newest versions that fit pyproject.toml together, from a clean install.
# It runs on the oldest Python that is supported, so that every version found works on all of them.
set -eu
cd "$(dirname "$0")/.."
. scripts/python.sh

PYTHON=${PYTHON:-python3.11}
python=$(python_at_least 3 11) || {
    echo "tidewire: refreshing constraints.txt needs Python 3.11 (PYTHON=/path/to/python3.11 says where it is)." >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || {
    echo "tidewire: $python is not Python 3.11, the oldest supported; a newer one could pin what 3.11 cannot install." >&2
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --upgrade pip
# hatchling and editables build the project; everything else is what .venv holds.
"$work/venv/bin/python" -m pip install --quiet --editable '.[demo]' --group dev --group bench hatchling editables
{
    sed -n '/^#/p' constraints.txt
    "$work/venv/bin/python" -m pip freeze --all --exclude-editable --exclude setuptools --exclude wheel |
        LC_ALL=C sort -f
} >"$work/constraints.txt"
if grep -nE '^[^#].*(@|://|;)|^-' "$work/constraints.txt" | grep .; then
    echo "tidewire: the lines above are not plain name==version; constraints.txt is left as it was." >&2
    exit 1
fi
cp "$work/constraints.txt" constraints.txt
echo "tidewire: constraints.txt holds $(grep -c '==' constraints.txt) versions; run make check test test-system, then commit it"
