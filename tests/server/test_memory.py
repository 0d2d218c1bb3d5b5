"""What a process of ours does about memory; in processes of their own, as it is done to a whole one."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOOK = "print(gc.get_freeze_count() > 0, gc.get_threshold()[0] > 2000)"


def tell(*lines: str) -> str:
    """What these print in a fresh interpreter."""
    code = "\n".join(["import gc", *lines])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_there_at_the_start_is_passed_over_from_then_on() -> None:
    spare = "from tidewire.server.memory import spare_collector; spare_collector()"
    assert tell(spare, _LOOK) == "True True"


@pytest.mark.parametrize("own", ["gc.disable()", "gc.set_threshold(5_000)", "gc.freeze()"])
def test_a_process_that_has_its_own_way_keeps_it(own: str) -> None:
    spare = "from tidewire.server.memory import spare_collector"
    look = "state = lambda: (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count())"
    assert tell(spare, own, look, "before = state()", "spare_collector()", "print(state() == before)") == "True"


def test_run_does_it_and_serving_within_a_loop_of_somebody_else_does_not() -> None:
    app = "async def app(scope, receive, send): pass"
    listening = "on_listening=lambda url: print(gc.get_freeze_count() > 0)"
    run = f"tidewire.run(app, port=0, run_for_s=0.1, lifespan='off', log_level='error', {listening})"
    after = "print(gc.get_freeze_count() > 0, gc.get_threshold()[0] > 2000)"
    assert tell("import tidewire", app, run, after) == "True\nFalse False"
    serve = "async def main():\n  async with tidewire.serve(hello, '127.0.0.1', 0): print(gc.get_freeze_count() > 0)"
    hello = "async def hello(connection): pass"
    assert tell("import asyncio, tidewire", hello, serve, "asyncio.run(main())") == "False"
