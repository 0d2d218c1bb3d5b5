"""`python -m examples.demo`: starts the demo on a free port and opens it in a browser."""

from __future__ import annotations

import argparse
import os
import socket
import sys
import threading
import time
import webbrowser

from tidewire import run

from .app import app

TRIES = 20


def free_port(host: str, wanted: int) -> int:
    """The wanted port, else the next free one after it, else whichever the system gives."""
    for port in [*range(wanted, min(wanted + TRIES, 65536)), 0]:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM) as probe:
            if sys.platform != "win32":  # there it would mean "share the port", here "ignore old connections"
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise SystemExit(f"No port is free on {host}. Name another address with --host.")


def announce(host: str, port: int, *, open_browser: bool) -> None:
    """Waits until the server answers, prints where it is, and opens it where there is a screen to open it on."""
    shown = "127.0.0.1" if host in {"0.0.0.0", "::"} else host
    url = f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"
    deadline_s = time.monotonic() + 30
    while time.monotonic() < deadline_s:
        try:
            socket.create_connection((shown, port), timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    print(f"The demo is at {url}", flush=True)
    has_screen = sys.platform in {"darwin", "win32"} or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
    if open_browser and has_screen:
        webbrowser.open(url)


def main() -> None:
    """Reads the options and serves until interrupted."""
    parser = argparse.ArgumentParser(prog="python -m examples.demo", description="The Tidewire demo.")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: this machine only)")
    parser.add_argument("--port", type=int, default=8000, help="port to try first (default: 8000)")
    parser.add_argument("--no-open", action="store_true", help="do not open a browser")
    options = parser.parse_args()
    port = free_port(options.host, options.port)
    if port != options.port:
        print(f"Port {options.port} is taken, using {port}", flush=True)
    threading.Thread(
        target=announce, args=(options.host, port), kwargs={"open_browser": not options.no_open}, daemon=True
    ).start()
    run(app, host=options.host, port=port)


if __name__ == "__main__":
    main()
