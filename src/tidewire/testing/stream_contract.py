"""The part of the contract of brokers that is about streams: creation, terms, expiry, deletion."""

from __future__ import annotations

from collections.abc import Awaitable

from tidewire.brokers.base import History
from tidewire.errors import AppendConflict, ProducerFenced, ProducerGap, TopicFinished, UnknownStream
from tidewire.protocol.message import Draft, End, Kind, Producer, Stream, Terms
from tidewire.protocol.position import NOW, START
from tidewire.testing.broker_bench import LOG, BrokerBench, Check

TEXT_STREAM = Stream("text/plain")


async def _ask(bench: BrokerBench, topic: str) -> History | None:
    """What a broker says of a topic without that being a use of it."""
    return await bench.broker.history(topic, NOW, 0)


async def _refused(expected: type[Exception], append: Awaitable[object]) -> Exception:
    try:
        await append
    except expected as error:
        return error
    raise AssertionError(f"{expected.__name__} was not raised")


async def check_a_draft_of_many_messages_is_one_step(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    published = await bench.append("t", "a", "b", "c")
    assert published.position is not None
    assert published.position.offset == 3
    await bench.settle()
    assert bench.texts("t") == ["a", "b", "c"]
    assert await bench.kept("t") == ["a", "b", "c"]


async def check_a_batch_with_an_id_is_published_once(bench: BrokerBench) -> None:
    draft = Draft(b"a", Kind.TEXT, id="x", more=(b"b",))
    first = await bench.broker.publish("t", draft, LOG)
    again = await bench.broker.publish("t", draft, LOG)
    assert again.duplicate
    assert again.position == first.position
    assert await bench.kept("t") == ["a", "b"]


async def check_a_topic_is_created_once(bench: BrokerBench) -> None:
    wanted = Stream("text/plain; charset=utf-8", ttl_s=60, expires_ms=None)
    first = await bench.broker.create("t", wanted, None, LOG)
    assert (first.is_new, first.stream, first.end, first.position.offset) == (True, wanted, None, 0)
    again = await bench.broker.create("t", Stream("application/json"), Draft(b"1", Kind.JSON), LOG, closed=True)
    assert (again.is_new, again.stream, again.end, again.position) == (False, wanted, None, first.position)
    history = await _ask(bench, "t")
    assert history is not None
    assert (history.exists, history.stream, history.top) == (True, wanted, first.position)
    assert await bench.kept("t") == []


async def check_a_creation_may_fill_and_close(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    first = Draft(b"a", Kind.TEXT, more=(b"b",))
    created = await bench.broker.create("t", TEXT_STREAM, first, LOG, closed=True)
    assert created.is_new
    assert created.end == End(created.position.epoch, 2, None)
    await bench.settle()
    assert bench.texts("t") == ["a", "b"]
    assert bench.delivered[-1] == ("t", created.end)
    await _refused(TopicFinished, bench.append("t", "c"))


async def check_what_a_creation_began_with_is_not_published_again(bench: BrokerBench) -> None:
    draft = Draft(b"a", Kind.TEXT, id="x")
    created = await bench.broker.create("t", TEXT_STREAM, draft, LOG)
    again = await bench.broker.publish("t", draft, LOG)
    assert (again.duplicate, again.position) == (True, created.position)


async def check_what_only_has_readers_is_not_there(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    await _refused(UnknownStream, bench.append("t", "a", must_exist=True))
    await _refused(UnknownStream, bench.broker.finish("t", None, LOG, Terms(must_exist=True)))
    history = await _ask(bench, "t")
    assert history is not None
    assert not history.exists
    assert (await bench.broker.create("t", TEXT_STREAM, None, LOG)).is_new
    await bench.append("t", "a", must_exist=True)
    await bench.settle()
    assert bench.texts("t") == ["a"]


async def check_appending_to_nothing_makes_nothing(bench: BrokerBench) -> None:
    await _refused(UnknownStream, bench.append("t", "a", must_exist=True))
    assert await bench.broker.position("t") is None


async def check_what_was_written_is_there_without_a_creation(bench: BrokerBench) -> None:
    last = await bench.publish("t", "a")
    created = await bench.broker.create("t", TEXT_STREAM, None, LOG)
    assert (created.is_new, created.stream, created.position) == (False, None, last)
    await bench.append("t", "b", must_exist=True, content_type="text/plain")
    assert await bench.kept("t") == ["a", "b"]


async def check_the_content_type_holds_for_everybody(bench: BrokerBench) -> None:
    await bench.broker.create("t", TEXT_STREAM, None, LOG)
    await _refused(AppendConflict, bench.append("t", "a", content_type="text/csv"))
    await _refused(AppendConflict, bench.broker.publish("t", Draft(b"1", Kind.JSON), LOG))
    await bench.append("t", "b", content_type="TEXT/Plain;charset=utf-8")
    await bench.publish("t", "c")
    assert await bench.kept("t") == ["b", "c"]


async def check_a_producer_that_repeats_itself_appends_once(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    first = await bench.append("t", "a", "b", producer=Producer("p", 0, 0))
    second = await bench.append("t", "c", producer=Producer("p", 0, 1))
    assert (first.duplicate, first.accepted, second.accepted) == (False, 0, 1)
    for sequence in (0, 1):
        again = await bench.append("t", "other", producer=Producer("p", 0, sequence))
        assert (again.duplicate, again.accepted, again.position) == (True, 1, second.position)
    other = await bench.append("t", "d", producer=Producer("q", 0, 0))
    elsewhere = await bench.append("u", "a", producer=Producer("p", 0, 0))
    assert not other.duplicate
    assert not elsewhere.duplicate
    await bench.settle()
    assert bench.texts("t") == ["a", "b", "c", "d"]


async def check_a_producer_leaves_nothing_out(bench: BrokerBench) -> None:
    error = await _refused(ProducerGap, bench.append("t", "x", producer=Producer("p", 3, 1)))
    assert isinstance(error, ProducerGap)
    assert (error.expected, error.received, error.is_new_epoch) == (0, 1, False)
    await bench.append("t", "a", producer=Producer("p", 3, 0))
    error = await _refused(ProducerGap, bench.append("t", "x", producer=Producer("p", 3, 2)))
    assert isinstance(error, ProducerGap)
    assert (error.expected, error.received) == (1, 2)
    await bench.append("t", "b", producer=Producer("p", 3, 1))
    assert await bench.kept("t") == ["a", "b"]


async def check_a_producers_older_incarnation_is_fenced(bench: BrokerBench) -> None:
    await bench.append("t", "a", producer=Producer("p", 0, 0))
    error = await _refused(ProducerGap, bench.append("t", "x", producer=Producer("p", 1, 1)))
    assert isinstance(error, ProducerGap)
    assert error.is_new_epoch
    await bench.append("t", "b", producer=Producer("p", 1, 0))
    fenced = await _refused(ProducerFenced, bench.append("t", "x", producer=Producer("p", 0, 1)))
    assert isinstance(fenced, ProducerFenced)
    assert fenced.epoch == 1
    assert await bench.kept("t") == ["a", "b"]


async def check_the_order_of_appends_ascends(bench: BrokerBench) -> None:
    for order, fits in (
        ("09", True),
        ("10", True),
        ("10", False),
        ("2", True),
        ("10", False),
        ("a", True),
        ("B", False),
    ):
        if fits:
            await bench.append("t", order, order=order)
        else:
            await _refused(AppendConflict, bench.append("t", "x", order=order))
    await bench.append("t", "without")
    await _refused(AppendConflict, bench.append("t", "x", order="a"))
    assert await bench.kept("t") == ["09", "10", "2", "a", "without"]


async def check_a_refused_append_changes_nothing(bench: BrokerBench) -> None:
    producer = Producer("p", 0, 0)
    await bench.append("t", "a", order="5")
    await _refused(AppendConflict, bench.append("t", "x", producer=producer, order="4", closes=True))
    assert not (await bench.append("t", "b", producer=producer, order="6")).duplicate
    repeated = await bench.append("t", "b", producer=producer, order="6")
    assert repeated.duplicate, "a repetition is known before its order is looked at"
    assert await bench.kept("t") == ["a", "b"]


async def check_an_append_may_close(bench: BrokerBench) -> None:
    await bench.broker.attach("t", LOG)
    closing = Producer("p", 0, 0)
    last = await bench.append("t", "a", "b", producer=closing, closes=True)
    assert last.position is not None
    await bench.settle()
    end = End(*last.position, None)
    assert bench.texts("t") == ["a", "b"]
    assert bench.delivered[-1] == ("t", end)
    again = await bench.append("t", "other", producer=closing, closes=True)
    assert (again.duplicate, again.position, again.accepted) == (True, last.position, 0)
    assert last.closed
    assert again.closed
    assert await bench.broker.finish("t", None, LOG, Terms(producer=closing, closes=True)) == end
    assert await bench.broker.finish("t", None, LOG, Terms(closes=True)) == end
    for other in (Producer("p", 0, 1), Producer("q", 0, 0)):
        await _refused(TopicFinished, bench.append("t", "x", producer=other, closes=True))
        await _refused(TopicFinished, bench.broker.finish("t", None, LOG, Terms(producer=other, closes=True)))
    await _refused(TopicFinished, bench.append("t", "x", closes=True))


async def check_a_producer_may_close_without_a_message(bench: BrokerBench) -> None:
    await bench.append("t", "a", producer=Producer("p", 0, 0))
    gap = bench.broker.finish("t", None, LOG, Terms(producer=Producer("p", 0, 2), closes=True))
    await _refused(ProducerGap, gap)
    repeated = bench.broker.finish("t", None, LOG, Terms(producer=Producer("p", 0, 0), closes=True))
    await _refused(ProducerGap, repeated)
    closing = Terms(producer=Producer("p", 0, 1), closes=True)
    end = await bench.broker.finish("t", None, LOG, closing)
    assert end.offset == 1
    assert await bench.broker.finish("t", None, LOG, closing) == end


async def check_dropping_forgets_everything_and_tells(bench: BrokerBench) -> None:
    assert not await bench.broker.drop("t")
    await bench.broker.attach("t", LOG)
    assert not await bench.broker.drop("t"), "readers alone are no topic"
    await bench.broker.create("t", TEXT_STREAM, None, LOG)
    last = await bench.append("t", "a", producer=Producer("p", 0, 0), order="1", closes=True)
    assert last.position is not None
    assert await bench.broker.drop("t")
    assert not await bench.broker.drop("t")
    await bench.settle()
    _, told = bench.delivered[-1]
    assert isinstance(told, End)
    assert told.gone
    assert told.error is not None
    history = await _ask(bench, "t")
    assert history is None or not history.exists
    await _refused(UnknownStream, bench.append("t", "x", must_exist=True))
    again = await bench.append("t", "b", producer=Producer("p", 0, 0), order="1")
    assert again.position is not None
    assert (again.duplicate, again.position.offset) == (False, 1)
    assert again.position.epoch > last.position.epoch
    await bench.settle()
    assert bench.texts("t") == ["a", "b"]
    since_before = await bench.broker.history("t", last.position, 10)
    assert since_before is not None
    assert not since_before.complete


async def check_a_stream_expires_when_nobody_uses_it(bench: BrokerBench) -> None:
    await bench.broker.create("t", Stream("text/plain", ttl_s=10), None, LOG)
    await bench.advance(6)
    assert await bench.kept("t") == []
    await bench.advance(6)
    await bench.append("t", "a", must_exist=True)
    await bench.advance(6)
    assert await bench.kept("t") == ["a"], "a read is a use"
    await bench.advance(6)
    assert await _ask(bench, "t") is not None
    assert await bench.broker.position("t") is not None
    await bench.advance(4)
    assert await _ask(bench, "t") is None, "to ask is none"
    assert await bench.broker.position("t") is None
    await _refused(UnknownStream, bench.append("t", "b", must_exist=True))
    assert (await bench.broker.create("t", TEXT_STREAM, None, LOG)).is_new


async def check_a_stream_with_readers_does_not_run_out(bench: BrokerBench) -> None:
    await bench.broker.create("t", Stream("text/plain", ttl_s=10), None, LOG)
    await bench.broker.attach("t", LOG)
    await bench.advance(100)
    await bench.append("t", "a", must_exist=True)
    await bench.broker.detach("t")
    await bench.advance(9)
    assert await _ask(bench, "t") is not None
    await bench.advance(2)
    assert await _ask(bench, "t") is None


async def check_a_stream_expires_at_its_moment(bench: BrokerBench) -> None:
    await bench.broker.create("t", Stream("text/plain", expires_ms=bench.wall_ms() + 10_000), None, LOG)
    await bench.broker.attach("t", LOG)
    await bench.advance(9)
    await bench.append("t", "a", must_exist=True)
    await bench.advance(2)
    await _refused(UnknownStream, bench.append("t", "b", must_exist=True))
    await bench.settle()
    _, told = bench.delivered[-1]
    assert isinstance(told, End)
    assert told.gone


async def check_history_says_what_was_created(bench: BrokerBench) -> None:
    await bench.broker.create("t", TEXT_STREAM, Draft(b"a", Kind.TEXT), LOG)
    await bench.publish("u", "a")
    created = await bench.broker.history("t", START, 10)
    plain = await bench.broker.history("u", START, 10)
    assert created is not None
    assert plain is not None
    assert (created.stream, plain.stream) == (TEXT_STREAM, None)
    assert plain.exists


STREAM_CONTRACT: tuple[Check, ...] = tuple(
    check for name, check in sorted(globals().items()) if name.startswith("check_")
)
"""Every check, in the order of their names."""
