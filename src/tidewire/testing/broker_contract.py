"""The contract of ``tidewire.brokers.base``, as checks that run on every broker.

Each check takes a ``BrokerBench``, which a broker's own tests make. With pytest::

    @pytest.mark.parametrize("check", BROKER_CONTRACT, ids=lambda check: check.__name__)
    def test_contract(check):
        asyncio.run(run_with_my_bench(check))
"""

from __future__ import annotations

from tidewire.brokers.base import PatternBroker, Retention
from tidewire.errors import TopicFinished
from tidewire.protocol.message import Draft, End, Kind, Message
from tidewire.protocol.position import NOW, START, Position, parse_position
from tidewire.testing.broker_bench import LATEST, LOG, NOTHING, BrokerBench, Check
from tidewire.testing.stream_contract import STREAM_CONTRACT

__all__ = ["BROKER_CONTRACT", "LATEST", "LOG", "NOTHING", "BrokerBench", "Check"]


async def check_offsets_are_dense_from_one(bench: BrokerBench) -> None:
    positions = [await bench.publish("t", str(n)) for n in range(8)]
    assert [p.offset for p in positions if p] == list(range(1, 9))
    assert len({p.epoch for p in positions if p}) == 1


async def check_positions_sort_as_text(bench: BrokerBench) -> None:
    texts = [str(await bench.publish("t", str(n))) for n in range(12)]
    assert texts == sorted(texts)
    assert [str(parse_position(text)) for text in texts] == texts


async def check_attached_topics_are_delivered_in_order(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    for n in range(20):
        await bench.publish("t", str(n))
        await bench.publish("other", str(n))
    await bench.settle()
    assert bench.texts("t") == [str(n) for n in range(20)]
    assert [e.offset for name, e in bench.delivered if name == "t"] == list(range(1, 21))
    assert bench.texts("other") == []


async def check_detached_topics_are_not_delivered(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    await bench.publish("t", "a")
    await bench.settle()
    await bench.broker.detach("t")
    await bench.publish("t", "b")
    await bench.settle()
    assert bench.texts("t") == ["a"]
    await bench.broker.attach("t", LOG)
    await bench.publish("t", "c")
    await bench.settle()
    assert bench.texts("t") == ["a", "c"]


async def check_history_continues_a_position_exactly(bench: BrokerBench) -> None:
    positions = [await bench.publish("t", str(n)) for n in range(4)]
    for index, since in enumerate(positions):
        assert since is not None
        history = await bench.broker.history("t", since, 100)
        assert history is not None
        assert history.complete
        assert history.start == since
        assert history.top == positions[-1]
        assert [m.payload for m in history.messages] == [str(n).encode() for n in range(index + 1, 4)]


async def check_history_is_paged_without_holes(bench: BrokerBench) -> None:
    last = [await bench.publish("t", str(n)) for n in range(5)][-1]
    assert last is not None
    cursor, seen = Position(last.epoch, 0), list[int]()
    while cursor.offset < last.offset:
        history = await bench.broker.history("t", cursor, 2)
        assert history is not None
        assert history.complete
        assert 1 <= len(history.messages) <= 2
        seen += [m.offset for m in history.messages]
        cursor = Position(last.epoch, seen[-1])
    assert seen == [1, 2, 3, 4, 5]


async def check_history_now_is_the_top_without_messages(bench: BrokerBench) -> None:
    last = await bench.publish("t", "a")
    history = await bench.broker.history("t", NOW, 100)
    assert history is not None
    assert (history.start, history.top, history.messages, history.complete) == (last, last, [], True)
    assert await bench.broker.position("t") == last


async def check_unknown_topics_have_no_state(bench: BrokerBench) -> None:
    assert await bench.broker.position("t") is None
    assert await bench.broker.history("t", START, 10) is None
    assert await bench.broker.position("t") is None


async def check_trimming_keeps_the_epoch_and_tells(bench: BrokerBench) -> None:
    positions = [await bench.publish("t", str(n)) for n in range(9)]
    first = positions[0]
    assert first is not None
    history = await bench.broker.history("t", first, 100)
    assert history is not None
    assert not history.complete
    assert history.start == Position(first.epoch, 4)
    assert [m.offset for m in history.messages] == [5, 6, 7, 8, 9]
    oldest = await bench.broker.history("t", Position(first.epoch, 4), 100)
    assert oldest is not None
    assert oldest.complete


async def check_the_start_is_the_oldest_kept(bench: BrokerBench) -> None:
    for n in range(9):
        await bench.publish("t", str(n))
    history = await bench.broker.history("t", START, 100)
    assert history is not None
    assert history.complete
    assert [m.offset for m in history.messages] == [5, 6, 7, 8, 9]


async def check_foreign_and_future_positions_are_not_continued(bench: BrokerBench) -> None:
    last = await bench.publish("t", "a")
    assert last is not None
    other = "f" * len(last.epoch) if last.epoch != "f" * len(last.epoch) else "e" * len(last.epoch)
    for wrong in (Position(other, 1), Position(last.epoch, 2), Position(last.epoch, 10**15)):
        history = await bench.broker.history("t", wrong, 100)
        assert history is not None
        assert not history.complete
        assert history.start == Position(last.epoch, 0)
        assert [m.offset for m in history.messages] == [1]


async def check_an_id_is_published_once(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    draft = Draft(b"a", Kind.TEXT, id="x")
    first = await bench.broker.publish("t", draft, LOG)
    await bench.publish("t", "between")
    again = await bench.broker.publish("t", draft, LOG)
    elsewhere = await bench.broker.publish("u", draft, LOG)
    await bench.settle()
    assert not first.duplicate
    assert again.duplicate
    assert again.position == first.position
    assert not elsewhere.duplicate
    assert bench.texts("t") == ["a", "between"]


async def check_an_id_is_forgotten_after_its_window(bench: BrokerBench) -> None:
    draft = Draft(b"a", Kind.TEXT, id="x")
    await bench.broker.publish("t", draft, LOG)
    await bench.advance(119)
    assert (await bench.broker.publish("t", draft, LOG)).duplicate
    await bench.advance(2)
    assert not (await bench.broker.publish("t", draft, LOG)).duplicate


async def check_messages_expire(bench: BrokerBench) -> None:
    retention = Retention(keep=5, ttl_s=10)
    first = await bench.publish("t", "old", retention)
    assert first is not None
    await bench.advance(6)
    await bench.publish("t", "young", retention)
    await bench.advance(6)
    history = await bench.broker.history("t", START, 10)
    assert history is not None
    assert [m.payload for m in history.messages] == [b"young"]
    since_start = await bench.broker.history("t", Position(first.epoch, 0), 10)
    assert since_start is not None
    assert not since_start.complete


async def check_an_end_is_the_end(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    last = await bench.publish("t", "a")
    assert last is not None
    end = await bench.broker.finish("t", "broken", LOG)
    assert (end.epoch, end.offset, end.error) == (*last, "broken")
    assert await bench.broker.finish("t", None, LOG) == end
    await bench.settle()
    assert bench.delivered[-1] == ("t", end)
    assert [event for _, event in bench.delivered if isinstance(event, End)] == [end]
    history = await bench.broker.history("t", START, 10)
    assert history is not None
    assert history.end == end
    for retention in (LOG, NOTHING):
        try:
            await bench.publish("t", "late", retention)
        except TopicFinished:
            continue
        raise AssertionError("a finished topic took a message")


async def check_keyed_history_is_the_newest_of_each_key(bench: BrokerBench) -> None:
    for key, text in (("a", "1"), ("b", "2"), ("a", "3")):
        await bench.publish("t", text, LATEST, key=key)
    history = await bench.broker.history("t", START, 10)
    assert history is not None
    assert [(m.key, m.payload, m.offset) for m in history.messages] == [("b", b"2", 2), ("a", b"3", 3)]
    changed = await bench.broker.history("t", Position(history.top.epoch, 2), 10)
    assert changed is not None
    assert changed.complete
    assert [m.key for m in changed.messages] == ["a"]


async def check_removed_keys_are_told_to_who_comes_back(bench: BrokerBench) -> None:
    first = await bench.publish("t", "1", LATEST, key="a")
    assert first is not None
    await bench.publish("t", "gone", LATEST, key="a", removed=True)
    fresh = await bench.broker.history("t", START, 10)
    back = await bench.broker.history("t", first, 10)
    assert fresh is not None
    assert fresh.messages == []
    assert back is not None
    assert back.complete
    assert [(m.key, m.removed) for m in back.messages] == [("a", True)]


async def check_too_many_keys_remove_the_longest_unchanged(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LATEST)
    positions = [await bench.publish("t", key, LATEST, key=key) for key in "abcd"]
    await bench.settle()
    delivered = {e.key: e.offset for _, e in bench.delivered if isinstance(e, Message) and not e.removed}
    assert [p.offset for p in positions if p] == [delivered[key] for key in "abcd"]
    history = await bench.broker.history("t", START, 10)
    assert history is not None
    assert [m.key for m in history.messages if not m.removed] == ["b", "c", "d"]
    removed = [e.key for _, e in bench.delivered if isinstance(e, Message) and e.removed]
    assert removed == ["a"]


async def check_nothing_is_kept_of_signals(bench: BrokerBench) -> None:
    await bench.broker.attach("t", NOTHING)
    assert await bench.publish("t", "a", NOTHING) is None
    await bench.settle()
    assert bench.texts("t") == ["a"]
    assert [e.offset for _, e in bench.delivered] == [0]


async def check_epochs_of_one_broker_have_one_length_and_ascend(bench: BrokerBench) -> None:
    epochs = []
    for n in range(20):
        position = await bench.publish(f"t{n}", "a")
        assert position is not None
        epochs.append(position.epoch)
    assert len({len(epoch) for epoch in epochs}) == 1
    assert epochs == sorted(epochs)
    assert len(set(epochs)) == len(epochs)


async def check_who_published_is_carried_and_kept(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    await bench.broker.attach("s", NOTHING)
    for topic, retention in (("t", LOG), ("s", NOTHING)):
        await bench.publish(topic, "of a client", retention, publisher=b'{"client":"c"}')
        await bench.publish(topic, "of the application", retention)
    await bench.settle()
    expected = [b'{"client":"c"}', b""]
    for topic in ("t", "s"):
        delivered = [e for name, e in bench.delivered if name == topic and isinstance(e, Message)]
        assert [e.publisher for e in delivered] == expected
    history = await bench.broker.history("t", START, 10)
    assert history is not None
    assert [m.publisher for m in history.messages] == expected


async def check_patterns_carry_what_matches_once(bench: BrokerBench) -> None:
    """Only for brokers that have the power (``PatternBroker``)."""
    broker = bench.broker
    if not isinstance(broker, PatternBroker):
        return
    await broker.attach_pattern("a/*")
    await broker.attach_pattern("a/**")
    await broker.attach("a/1", LOG)
    for topic in ("a/1", "a/2", "a/2/deep", "b/1"):
        await bench.publish(topic, topic)
    await bench.publish("a/3", "signal", NOTHING)
    await bench.settle()
    assert [name for name, _ in bench.delivered] == ["a/1", "a/2", "a/2/deep", "a/3"]
    assert sorted(await broker.topics("a/*")) == ["a/1", "a/2"]
    await broker.detach_pattern("a/**")
    await bench.publish("a/2/deep", "no more")
    await bench.publish("a/2", "still")
    await broker.detach_pattern("a/*")
    await bench.publish("a/2", "no more")
    await bench.publish("a/1", "by itself")
    await bench.settle()
    assert [e.payload.decode() for _, e in bench.delivered[4:] if isinstance(e, Message)] == ["still", "by itself"]


BROKER_CONTRACT: tuple[Check, ...] = (
    *(check for name, check in sorted(globals().items()) if name.startswith("check_")),
    *STREAM_CONTRACT,
)
"""Every check, in the order of their names; those about streams after the others."""
