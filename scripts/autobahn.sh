#!/bin/sh
# Lay out .venv-autobahn: Python 2.7 with the Autobahn Testsuite, at the versions of conformance/requirements.txt.
# The tool has never left Python 2.7, so it gets an environment of its own; nothing of Tidewire runs there.
# Called by the Makefile, which knows when it is needed. PYTHON27=/path/to/python2.7 chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."

home=.venv-autobahn
python3=.venv/bin/python

# Each candidate is run, not only looked up: a name on PATH may be a shim with nothing behind it.
is_python27() {
    [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' >/dev/null 2>&1
}

# Where pyenv may keep its versions: what it says, what the environment says, and beside its command and its shims.
pyenv_roots() {
    echo "${PYENV_ROOT:-}"
    pyenv root 2>/dev/null || true
    echo "${HOME:-}/.pyenv"
    for name in pyenv python2.7 python2 python3 python; do
        found=$(command -v "$name" 2>/dev/null) || continue
        echo "${found%/*/*}"
    done
}

find_python27() {
    if [ -n "${PYTHON27:-}" ]; then
        is_python27 "$PYTHON27" && echo "$PYTHON27"
        return
    fi
    for name in python2.7 python2; do
        if is_python27 "$name"; then
            "$name" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    pyenv_roots | while read -r root; do
        for python in "$root"/versions/2.7*/bin/python2.7; do
            if [ -n "$root" ] && is_python27 "$python"; then
                echo "$python"
                break 2
            fi
        done
    done | grep .
}

python27=$(find_python27) || {
    if [ -n "${PYTHON27:-}" ]; then
        echo "tidewire: PYTHON27=$PYTHON27 is not a Python 2.7 that runs; leave it unset or name another." >&2
    else
        echo "tidewire: the Autobahn Testsuite runs on Python 2.7 only, and none was found (on PATH, or pyenv's)." >&2
        echo "tidewire: install one, for example: pyenv install 2.7.18" >&2
        echo "tidewire: or say where it is: make PYTHON27=/path/to/python2.7 conformance" >&2
    fi
    exit 1
}

echo "tidewire: installing the Autobahn Testsuite into $home with $python27; this takes a minute, once"
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0 PIP_NO_WARN_SCRIPT_LOCATION=1
rm -rf "$home"
mkdir -p "$home"
echo '*' >"$home/.gitignore"
"$python3" -m pip --version >/dev/null 2>&1 || "$python3" -m ensurepip >/dev/null
"$python3" -m pip install --quiet --no-deps --target "$home/virtualenv" \
    --requirement conformance/requirements-virtualenv.txt
PYTHONPATH="$home/virtualenv" "$python3" -m virtualenv --quiet --no-periodic-update --app-data "$home/app-data" \
    --python "$python27" "$home/python"

# No build isolation: building may not bring in versions that are not pinned. pip 20 speaks of the end of Python 2.7.
export PYTHONWARNINGS=ignore
"$home/python/bin/python" -m pip install --quiet --no-deps --no-build-isolation --no-python-version-warning \
    --requirement conformance/requirements.txt || {
    echo "tidewire: the Autobahn Testsuite could not be installed; parts of it are compiled, so it needs a C compiler." >&2
    echo "tidewire: on Debian and Ubuntu: apt-get install -y --no-install-recommends gcc libc6-dev" >&2
    exit 1
}
"$home/python/bin/python" -c 'import autobahntestsuite.fuzzing'
rm -rf "$home/virtualenv" "$home/app-data"
touch "$home/.installed"
