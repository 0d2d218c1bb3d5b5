#!/bin/sh
# Fail, with the line that helps, when a tool of the system tests is missing.
#   scripts/need-tools.sh [chromium] [curl] [node]     (no argument: all three)
# CHROMIUM, where set, is the path of the browser to use.
set -u

[ $# -gt 0 ] || set -- chromium curl node

has() { command -v "$1" >/dev/null 2>&1; }

missing=""
packages=""
for tool in "$@"; do
    case $tool in
        chromium)
            has "${CHROMIUM:-chromium}" || has chromium-browser ||
                { missing="$missing chromium" packages="$packages chromium fonts-dejavu-core"; }
            ;;
        curl) has curl || { missing="$missing curl" packages="$packages curl ca-certificates"; } ;;
        node) has node || has nodejs || { missing="$missing node" packages="$packages nodejs"; } ;;
        *) echo "scripts/need-tools.sh: no such tool: $tool" >&2; exit 2 ;;
    esac
done

if [ -n "$missing" ]; then
    echo "tidewire: the system tests need what is missing here:$missing" >&2
    echo "tidewire: on Debian and Ubuntu: apt-get install -y --no-install-recommends$packages" >&2
    exit 1
fi
