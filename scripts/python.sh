# Sourced by the other scripts: python_at_least 3 11 prints the path of a Python that is new enough, or fails.
# Each candidate is run, not only looked up: a name on PATH may be a shim with nothing behind it.
# PYTHON, where set, is the only candidate.

python_at_least() {
    if [ -n "${PYTHON:-}" ]; then
        _runs_at_least "$PYTHON" "$1" "$2"
        return
    fi
    for _name in python3.13 python3.12 python3.11 python3 python; do
        if _runs_at_least "$_name" "$1" "$2"; then
            return 0
        fi
    done
    return 1
}

_runs_at_least() {
    "$1" -c "import sys; sys.version_info >= ($2, $3) or sys.exit(1); print(sys.executable)" 2>/dev/null
}
