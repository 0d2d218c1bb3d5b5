"""People with the Centrifuge SDK for Python, in JSON."""

from __future__ import annotations

import asyncio

from centrifuge import Client, PublicationContext, SubscribedContext, SubscriptionEventHandler

from tests.interop.drops.people import Notes, meet


class Events(SubscriptionEventHandler):
    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    async def on_subscribed(self, ctx: SubscribedContext) -> None:
        self._notes.arrive(is_lossy=ctx.was_recovering and not ctx.recovered)

    async def on_publication(self, ctx: PublicationContext) -> None:
        self._notes.take(ctx.pub.data)


async def chat(url: str, room: str, notes: Notes) -> None:
    client = Client(url, min_reconnect_delay=0.1, max_reconnect_delay=0.5)
    subscription = client.new_subscription(room, events=Events(notes))
    await client.connect()
    await subscription.subscribe()
    try:
        await asyncio.Event().wait()
    finally:
        await client.disconnect()


if __name__ == "__main__":
    asyncio.run(meet(chat))
