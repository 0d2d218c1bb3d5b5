#!/bin/sh
# Lay out .venv and install Tidewire into it, editable, at the versions of constraints.txt.
#   scripts/install.sh demo    what `make demo` needs
#   scripts/install.sh dev     that, and what tests and checks need
#   scripts/install.sh bench   that, and the contenders of the benchmarks
# Called by the Makefile, which knows when it is needed. PYTHON=/path/to/python chooses the interpreter.
set -eu
cd "$(dirname "$0")/.."
. scripts/python.sh

kind=${1:-dev}
case $kind in
    demo) wanted="--editable .[demo]" ;;
    dev) wanted="--editable .[demo] --group dev" ;;
    bench) wanted="--editable .[demo] --group dev --group bench" ;;
    *) echo "scripts/install.sh: say demo, dev or bench, not '$kind'" >&2; exit 2 ;;
esac
# The last word here is for the isolated environment in which the project itself is built.
pins="--constraint constraints.txt --build-constraint constraints.txt"

has_uv() { uv --version >/dev/null 2>&1; }

venv_works() { .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }

make_venv() {
    rm -rf .venv
    if python=$(python_at_least 3 11); then
        if has_uv && uv venv --quiet --python "$python" .venv; then
            return
        fi
        "$python" -m venv .venv && return
        rm -rf .venv
        echo "tidewire: $python could not make a virtual environment." >&2
        echo "tidewire: on Debian and Ubuntu this helps: apt-get install -y --no-install-recommends python3-venv" >&2
    elif [ -z "${PYTHON:-}" ] && has_uv; then
        uv venv --quiet --python '>=3.11' .venv && return
    elif [ -n "${PYTHON:-}" ]; then
        echo "tidewire: PYTHON=$PYTHON is not a Python 3.11 or newer that runs; leave PYTHON unset or name another." >&2
    else
        echo "tidewire: no Python 3.11 or newer found (tried python3.13, python3.12, python3.11, python3, python)." >&2
        echo "tidewire: install one, or say where it is: make PYTHON=/path/to/python3 ..." >&2
    fi
    exit 1
}

install_with_uv() {
    # shellcheck disable=SC2086  # the words are meant to be split
    uv pip install --quiet --python .venv/bin/python $pins $wanted
}

install_with_pip() {
    export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_REQUIRE_VIRTUALENV=0 PIP_USER=0
    .venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip >/dev/null
    # Dependency groups need pip 25.1, and Python 3.11 comes with an older one.
    .venv/bin/python -m pip install --quiet --upgrade --constraint constraints.txt pip
    # shellcheck disable=SC2086  # the words are meant to be split
    .venv/bin/python -m pip install --quiet $pins $wanted
}

venv_works || make_venv
started=.venv/.install-started
touch $started # the stamp carries this time: a file changed while we install is newer, and installs again

if has_uv; then
    echo "tidewire: installing into .venv with uv ($kind)"
    install_with_uv || {
        echo "tidewire: uv could not; trying again with pip" >&2
        install_with_pip
    }
else
    echo "tidewire: installing into .venv with pip ($kind); this takes a moment, once"
    install_with_pip
fi

pwd >.venv/.installed-for
# each kind holds the ones before it
case $kind in
    dev) cp -p $started .venv/.installed-demo ;;
    bench) cp -p $started .venv/.installed-demo; cp -p $started .venv/.installed-dev ;;
esac
mv $started ".venv/.installed-$kind"
