"""Connecting: handshakes one after the other and 64 at a time, 19,000 connections open at once, and over TLS."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.contenders import Contender, Tls
from benchmarks.machine import BenchmarkError, CpuMeter
from benchmarks.processes import Server
from benchmarks.scenarios.common import Bench, say
from benchmarks.scenarios.memory import still_there

# name: (connections, handshakes under way at a time); of the last, a message must reach every one
PHASES = {"sequential": (2000, 1), "parallel": (5000, 64), "many": (19000, 64)}
QUICK = {"sequential": (100, 1), "parallel": (200, 64), "many": (300, 64)}
TLS_PHASES = {"sequential": (500, 1), "parallel": (1000, 64)}
TLS_QUICK = {"sequential": (50, 1), "parallel": (100, 64)}
WARM_UP = 50
# many thousand connections need the ports of several addresses
SOURCES = 8


def run(bench: Bench) -> dict[str, Any]:
    """All contenders, alternating; every measurement as it was."""
    return _run(bench, "connect", QUICK if bench.quick else PHASES, None)


def run_tls(bench: Bench) -> dict[str, Any]:
    """The same over TLS, with a certificate made for the occasion."""
    with tempfile.TemporaryDirectory() as folder:
        return _run(bench, "wss", TLS_QUICK if bench.quick else TLS_PHASES, make_certificate(Path(folder)))


def make_certificate(folder: Path) -> Tls:
    """A certificate for 127.0.0.1 from an authority of its own (elliptic curve, as trustme makes them)."""
    import trustme

    issued = trustme.CA().issue_cert("127.0.0.1", "localhost")
    tls = Tls(str(folder / "certificate.pem"), str(folder / "key.pem"))
    for number, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(tls.certificate, append=number > 0)
    issued.private_key_pem.write_to_path(tls.key)
    return tls


def _run(bench: Bench, scenario: str, phases: dict[str, tuple[int, int]], tls: Tls | None) -> dict[str, Any]:
    measurements = []
    for round_, contender in bench.alternating(scenario):
        for name, result in _session(bench, contender, phases, tls).items():
            measurements.append({"round": round_, "contender": contender.name, "phase": name, **result})
            say(f"{scenario} round {round_ + 1}, {contender.name}, {name}: {_summary(result)}")
    return {"phases": phases, "measurements": measurements}


def _summary(result: dict[str, Any]) -> str:
    if result["complaints"]:
        return "; ".join(result["complaints"])
    return f"{result['per_wall_s']:,.0f} a second, {result['per_cpu_s']:,.0f} per CPU second"


def _session(
    bench: Bench, contender: Contender, phases: dict[str, tuple[int, int]], tls: Tls | None
) -> dict[str, dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    try:
        with bench.server(contender, tls=tls) as (server, meter):
            _open(bench, contender, server, meter, WARM_UP, 8, tls, check=False)
            for name, (connections, parallel) in phases.items():
                check = name == list(phases)[-1]
                results[name] = _open(bench, contender, server, meter, connections, parallel, tls, check=check)
    except (BenchmarkError, TimeoutError) as error:
        results |= {name: {"complaints": [str(error)]} for name in phases if name not in results}
    return results


def _open(
    bench: Bench,
    contender: Contender,
    server: Server,
    meter: CpuMeter,
    connections: int,
    parallel: int,
    tls: Tls | None,
    *,
    check: bool,
) -> dict[str, Any]:
    options = {"connections": connections, "parallel": parallel, "sources": SOURCES, "tls": tls is not None}
    before = meter.read()
    with bench.client(contender, server, **options) as client:
        # what an accepted connection costs after its handshake belongs to it
        _wait_until_quiet(meter)
        cpu = meter.read() - before
        if check:
            found = still_there(contender, server, client)
        else:
            closed = client.now()["closed_total"]
            found = [f"{closed} connections were closed"] if closed else []
    _wait_until_quiet(meter)
    return {
        "complaints": found,
        "connections": connections,
        "per_wall_s": connections / client.ready["connect_s"],
        "per_cpu_s": connections / max(cpu.total_s, 0.01),
    }


def _wait_until_quiet(meter: CpuMeter) -> None:
    """Until the server has done what there was to do."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        before = meter.read()
        time.sleep(0.3)
        cpu = meter.read() - before
        if cpu.total_s < 0.05 * cpu.at_s:
            return
