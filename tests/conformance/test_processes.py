"""Programs that a conformance run starts: they are waited for, with a deadline, and end with it."""

import asyncio
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from conformance import processes
from conformance.processes import Child, ConformanceError, alone, child

READY = "import time; print('ready', flush=True); "


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs are named as seen from here."""
    monkeypatch.setattr(processes, "ROOT", tmp_path)
    return tmp_path


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run it, within a bound."""
    asyncio.run(asyncio.wait_for(story, 60))


def test_lines_and_exit_code(root: Path) -> None:
    async def story() -> None:
        async with child("it", python("print('a'); print('b'); exit(3)"), root / "log") as it:
            lines = [await it.read_line(30)]
            await it.follow(lines.append)
            assert (lines, await it.wait()) == (["a", "b"], 3)
            assert not it.is_running

    run(story())


def test_one_that_ends_too_early_is_told_with_the_end_of_its_log(root: Path) -> None:
    async def story() -> None:
        async with child("it", python("exit('no such port')"), root / "log") as it:
            with pytest.raises(ConformanceError, match=r"^it ended before it was ready \(log\):\nno such port$"):
                await it.read_line(30)

    run(story())


def test_one_that_says_nothing_is_told(root: Path) -> None:
    async def story() -> None:
        async with child("it", python("import time; time.sleep(60)"), root / "log") as it:
            with pytest.raises(ConformanceError, match=r"it said nothing within 0\.01 s"):
                await it.read_line(0.01)

    run(story())


@pytest.mark.parametrize("then", ["", "[print('x' * 1000) for _ in range(10_000)]; "], ids=["silent", "full pipe"])
def test_it_is_ended_with_the_block(root: Path, then: str) -> None:
    async def story() -> None:
        async with child("it", python(READY + then + "time.sleep(60)"), root / "log") as it:
            await it.read_line(30)
            assert it.is_running
        assert await it.wait() == -signal.SIGTERM

    run(story())


def test_one_that_does_not_want_to_end_is_made_to(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_END_S", 0.01)
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + READY + "time.sleep(60)"

    async def fail(children: list[Child]) -> None:
        async with child("it", python(deaf), root / "log") as it:
            children.append(it)
            await it.read_line(30)
            raise RuntimeError("something else")

    async def story() -> None:
        children: list[Child] = []
        # the error is what is heard, not that it took a while to end
        with pytest.raises(RuntimeError, match="something else"):
            await fail(children)
        assert await children[0].wait() == -signal.SIGKILL

    run(story())


def test_a_cancelled_run_leaves_nothing_behind(root: Path) -> None:
    async def wait_for_it(pid: asyncio.Future[int]) -> None:
        code = "import os; print(os.getpid(), flush=True); " + READY + "time.sleep(60)"
        async with child("it", python(code), root / "log") as it:
            pid.set_result(int(await it.read_line(30)))
            await it.wait()

    async def story() -> None:
        pid: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(wait_for_it(pid))
        number = await pid
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)

    run(story())


@pytest.mark.parametrize(("keeps", "seen"), [(True, "somewhere"), (False, "None")])
def test_python_27_gets_no_path_of_ours(root: Path, monkeypatch: pytest.MonkeyPatch, keeps: bool, seen: str) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")

    async def story() -> None:
        code = "import os; print(os.environ.get('PYTHONPATH'))"
        async with child("it", python(code), root / "log", keeps_pythonpath=keeps) as it:
            assert await it.read_line(30) == seen

    run(story())


def test_two_runs_do_not_write_into_one_folder(root: Path) -> None:
    sentence = "another run is writing into results: wait for it, or stop it"
    with alone(root / "results"), pytest.raises(ConformanceError, match=sentence), alone(root / "results"):
        pass
    with alone(root / "results"):
        pass
