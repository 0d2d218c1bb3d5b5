"""The clients that Durable Streams has: TypeScript in Node, and Python."""

from __future__ import annotations

import asyncio
import json

import pytest
from durable_streams import (
    AsyncDurableStream,
    DurableStream,
    RetentionGoneError,
    SeqConflictError,
    StreamExistsError,
    StreamNotFoundError,
    astream,
    stream,
)

from tests.interop.streams.conftest import Run

pytestmark = pytest.mark.interop


def test_the_client_for_typescript(run_node: Run) -> None:
    """Exactly once although answers are lost, both live modes, resuming, closing, deleting, fencing."""
    said = run_node("node", "client.mjs")
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.splitlines() == [
        "exactly once, followed by sse",
        "resumed by sse",
        "exactly once, followed by long-poll",
        "resumed by long-poll",
        "bytes, the end, deletion",
        "a producer is fenced",
        "a topic of the application",
    ]


def test_the_client_for_python_writes_and_reads(url: str) -> None:
    address = f"{url}/v1/stream/python"
    with DurableStream.create(address, content_type="application/json", ttl_seconds=60) as handle:
        handle.append({"n": 1}, seq="a")
        handle.append([2, 3], seq="b")
        with pytest.raises(SeqConflictError):
            handle.append({"n": 4}, seq="a")
        head = handle.head()
        assert head.content_type == "application/json"
        with stream(address, offset="-1", live=False) as past:
            assert past.read_json() == [{"n": 1}, [2, 3]]
            assert past.offset == head.offset
            assert past.up_to_date
        with pytest.raises(StreamExistsError):
            DurableStream.create(address, content_type="text/plain")
        handle.delete()
    with pytest.raises(StreamNotFoundError), stream(address, live=False) as gone:
        gone.read_bytes()


@pytest.mark.parametrize("live", ["sse", "long-poll"])
def test_the_client_for_python_follows(url: str, live: str) -> None:
    async def scenario() -> None:
        address = f"{url}/v1/stream/python-{live}"
        async with await AsyncDurableStream.create(address, content_type="application/json") as handle:
            await handle.append({"n": 0})
            seen = list[int]()
            async with asyncio.timeout(30), astream(address, offset="-1", live=live) as following:  # type: ignore[arg-type]
                async for item in following.iter_json():
                    seen.append(item["n"])
                    if len(seen) == 5:
                        break
                    await handle.append({"n": len(seen)})
                offset = following.offset
            assert seen == [0, 1, 2, 3, 4]
            await handle.append({"n": 5})
            async with astream(address, offset=offset, live=False) as rest:
                text = await rest.read_text()
            assert [item["n"] for item in json.loads(text)][-1] == 5

    asyncio.run(scenario())


def test_the_client_for_python_is_told_of_what_is_lost(url: str) -> None:
    address = f"{url}/v1/stream/python-lost"
    with DurableStream.create(address, content_type="text/plain") as handle:
        handle.append("old")
        offset = handle.head().offset
        handle.delete()
    with DurableStream.create(address, content_type="text/plain") as handle:
        handle.append("new")
        with pytest.raises(RetentionGoneError), stream(address, offset=offset, live=False) as lost:
            lost.read_text()
        handle.delete()
