"""The client under test: ``python -m conformance.client URL AGENT`` runs every case that the suite's server has.

It asks how many there are, opens a connection for each and sends back what it gets, and asks for the reports at last.
What a connection ends with is for the suite to judge; a case that does not end within its deadline is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

import tidewire

MESSAGE_BYTES_MAX = 32 * 1024 * 1024
# Section 9 gives a case 1,000 s at most, and closes by itself then. A report takes seconds.
CASE_S = 1200.0
REPORT_S = 120.0
START_S = 30.0
_POLL_S = 0.1


async def ask(url: str) -> str | None:
    """Connect, and return the last message that comes before the connection ends."""
    last: str | bytes | None = None
    async with tidewire.connect(url, max_size=MESSAGE_BYTES_MAX) as connection:
        with contextlib.suppress(tidewire.ConnectionClosed):
            while True:
                last = await connection.recv()
    return last.decode() if isinstance(last, bytes) else last


async def count_cases(url: str) -> int:
    """How many cases there are; waits for the suite's server to listen."""
    async with asyncio.timeout(START_S):
        while True:
            try:
                answer = await ask(f"{url}/getCaseCount")
            except tidewire.NothingListens:
                await asyncio.sleep(_POLL_S)
            else:
                return int(answer or "0")


async def run_case(url: str, agent: str, number: int) -> None:
    """Echo, until the connection ends."""
    try:
        async with (
            asyncio.timeout(CASE_S),
            tidewire.connect(
                f"{url}/runCase?case={number}&agent={agent}", compression="deflate", max_size=MESSAGE_BYTES_MAX
            ) as connection,
        ):
            async for message in connection:
                await connection.send(message)
    except (tidewire.ConnectionClosed, tidewire.TidewireError) as error:
        # most cases break the protocol and are ended so
        print(f"case {number}: {error}")
    except TimeoutError:
        print(f"case {number} did not end within {CASE_S:g} s", file=sys.stderr)


async def run(url: str, agent: str) -> None:
    """All cases, and then the reports."""
    cases = await count_cases(url)
    for number in range(1, cases + 1):
        await run_case(url, agent, number)
    async with asyncio.timeout(REPORT_S):
        await ask(f"{url}/updateReports?agent={agent}")


def main() -> None:
    """Run, once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("agent")
    words = parser.parse_args()
    asyncio.run(run(words.url, words.agent))


if __name__ == "__main__":
    main()
