"""Four processes of a stock uvicorn on one file: who publishes in one is heard in all."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
from websockets.asyncio.client import connect

APP = """
import os
from fastapi import FastAPI
from tidewire import Live, Log

live = Live("sqlite:///live.db")
app = FastAPI()
app.include_router(live.router, prefix="/live")


@live.topic("alerts", policy=Log(keep=1000), publish=True)
async def alerts() -> None: ...


@app.get("/process")
async def process() -> int:
    return os.getpid()
"""
READERS, MESSAGES = 16, 60


def test_everybody_hears_everything_in_one_order(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(APP)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port), "--workers", "4"]
    log = (tmp_path / "log").open("w+")
    process = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        asyncio.run(scenario(f"127.0.0.1:{port}"))
    except BaseException as error:
        log.seek(0)
        error.add_note(log.read()[-5000:])
        raise
    finally:
        process.terminate()
        try:
            process.wait(20)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            log.close()


async def scenario(host: str) -> None:
    async with asyncio.timeout(90):
        processes = await wait_for_workers(host)
        assert len(processes) == 4
        sockets = [await connect(f"ws://{host}/live/alerts?positions=1&since=-1") for _ in range(READERS)]
        try:
            # each on a connection of its own, so that the processes share them
            for n in range(MESSAGES):
                async with httpx.AsyncClient() as http:
                    (await http.post(f"http://{host}/live/alerts", json={"n": n})).raise_for_status()
            heard = []
            for one in sockets:
                messages: list[int] = []
                while len(messages) < MESSAGES:
                    frame = json.loads(await one.recv())
                    assert "gap" not in frame
                    if "data" in frame:
                        messages.append(frame["data"]["n"])
                heard.append(messages)
        finally:
            for one in sockets:
                await one.close()
    assert heard == [list(range(MESSAGES))] * READERS


async def wait_for_workers(host: str) -> set[int]:
    """All that answer."""
    found = set[int]()
    while len(found) < 4:
        try:
            async with httpx.AsyncClient() as http:
                found.add((await http.get(f"http://{host}/process")).json())
        except httpx.TransportError:
            await asyncio.sleep(0.1)
    return found
