"""What the machine is and what a process costs on it. Linux only: all of it comes from /proc."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import selectors
import socket
import sys
import time
from dataclasses import astuple, dataclass
from importlib import metadata
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchmarkError(Exception):
    """A benchmark could not be run; the text says what to do about it."""


def raise_open_files_limit() -> int:
    """Set the soft limit of open files to the hard one, for us and what we start; returns it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


@dataclass(frozen=True)
class Place:
    """Where a process runs. ``nice`` other than 0 needs root."""

    core: int
    nice: int = 0


def choose_places(nice: int) -> tuple[Place, Place]:
    """The first core of ours for the server, the second for the load client (the same one, where there is only one)."""
    cores = sorted(os.sched_getaffinity(0))
    return Place(cores[0], nice), Place(cores[min(1, len(cores) - 1)], nice)


def put(pid: int, place: Place) -> None:
    """Pin a process, which leads a session of its own, and give it its priority.

    Where the kernel shares out CPU time by sessions (autogroup), the priority of the session is what counts.
    """
    os.sched_setaffinity(pid, {place.core})
    if not place.nice:
        return
    try:
        os.setpriority(os.PRIO_PROCESS, pid, place.nice)
        autogroup = Path(f"/proc/{pid}/autogroup")
        if autogroup.exists():
            autogroup.write_text(str(place.nice))
    except PermissionError:
        raise BenchmarkError(f"--nice {place.nice} needs root; leave it out") from None


@dataclass(frozen=True)
class Cpu:
    """CPU seconds of one process; ``softirq_s`` is 0 where the kernel counts that work in the process already.

    ``run_s`` is its time by the scheduler's clock (nanoseconds), ``user_s`` and ``system_s`` the same in ticks (10 ms);
    ``core_s`` is what its core did for anybody, ``at_s`` the time of the reading.
    """

    run_s: float
    user_s: float
    system_s: float
    softirq_s: float
    core_s: float
    at_s: float

    @property
    def total_s(self) -> float:
        """All of it."""
        return self.run_s + self.softirq_s

    @property
    def others_share(self) -> float:
        """The share of the core that went to other processes (only for a difference of two readings)."""
        return max(0.0, self.core_s - self.total_s) / self.at_s

    def __sub__(self, earlier: Cpu) -> Cpu:
        return Cpu(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))


@dataclass(frozen=True)
class CpuMeter:
    """Reads what process ``pid``, alone on ``core``, has cost.

    Loopback traffic is received by the kernel within the sender's ``send()``, as softirq work. A kernel that
    accounts interrupt time separately takes it out of the process: then the core's softirq time is added.
    Other kernels leave it in the process, and adding it would count it twice.
    """

    pid: int
    core: int
    softirq_apart: bool

    def read(self) -> Cpu:
        """CPU time of the process since its start, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        core = core_ticks(self.core)
        return Cpu(
            run_s=_scheduled_all_s(self.pid),
            user_s=int(fields[11]) / TICKS_PER_S,
            system_s=int(fields[12]) / TICKS_PER_S,
            softirq_s=core[6] / TICKS_PER_S if self.softirq_apart else 0.0,
            core_s=(core[0] + core[1] + core[2] + core[5] + core[6]) / TICKS_PER_S,
            at_s=time.monotonic(),
        )


def _scheduled_all_s(pid: int) -> float:
    """The time that all threads of a process have run."""
    total_ns = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
            total_ns += int((thread / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def core_ticks(core: int) -> list[int]:
    """What a core has done since boot: user, nice, system, idle, iowait, irq, softirq, steal.."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            return [int(field) for field in fields]
    raise LookupError(f"/proc/stat knows no core {core}")


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    return _status_bytes(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The most resident memory that a process ever had."""
    return _status_bytes(pid, "VmHWM")


def _status_bytes(pid: int, name: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"process {pid} has no {name}")


def softirq_is_apart(core: int) -> bool:
    """Whether softirq work within ``send()`` is missing from the CPU time of the sending process: measured.

    The smallest of several looks decides: time that a hypervisor takes away looks the same, but not every time.
    """
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        return min(_share_taken_from_sender() for _ in range(6)) > 0.05
    finally:
        os.sched_setaffinity(0, allowed)


def _share_taken_from_sender(seconds: float = 0.1) -> float:
    """A sender that never waits either runs or is runnable; wall time that is neither was taken from it."""
    ran_before, waited_before, wall_before = *_scheduled_s(), time.perf_counter()
    _send_to_ourselves(seconds)
    ran, waited, wall = *_scheduled_s(), time.perf_counter()
    return 1 - (ran - ran_before + waited - waited_before) / (wall - wall_before)


def _scheduled_s() -> tuple[float, float]:
    ran, waited, _ = Path("/proc/thread-self/schedstat").read_text().split()
    return int(ran) / 1e9, int(waited) / 1e9


def _send_to_ourselves(seconds: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as out:
        into, _ = listener.accept()
        out.setblocking(False)
        into.setblocking(False)
        out.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            for _ in range(50):
                out.send(b"x" * 132)
            with selectors.DefaultSelector() as selector:
                selector.register(into, selectors.EVENT_READ)
                while selector.select(0):
                    into.recv(1 << 16)
        into.close()


def cpu_model() -> str:
    """The name the CPU gives itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def describe(packages: tuple[str, ...]) -> dict[str, str]:
    """The machine and the versions, without anything that names this particular machine."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = {
        "CPU": f"{os.cpu_count()} x {cpu_model()}",
        "memory": f"{memory_gb:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "Python": f"{platform.python_implementation()} {sys.version.split()[0]}",
    }
    for package in packages:
        try:
            lines[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            lines[package] = "not installed"
    return lines
