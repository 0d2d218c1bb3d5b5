"""The transcripts of docs/cat.md, command by command."""

import asyncio
import sys

import pytest

import tidewire as tide
from tests.client.fakes import run
from tests.project.documents import named_block
from tidewire.cli.echo import send_back


@pytest.mark.parametrize("name", ["cat-pipe", "cat-codes"])
def test_a_transcript(name: str) -> None:
    commands = named_block(name).code.split("$ ")[1:]
    assert len(commands) >= 3

    async def main() -> None:
        async with tide.serve(send_back, port=0) as server:
            for text in commands:
                command, _, expected = text.partition("\n")
                assert (command, await sh(command, server.url)) == (command, expected)

    run(main())


async def sh(command: str, url: str) -> str:
    """What it says on both outputs."""
    command = command.replace("tidewire cat", f"{sys.executable} -m tidewire cat").replace("ws://127.0.0.1:8000", url)
    process = await asyncio.create_subprocess_shell(
        command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return out.decode()
