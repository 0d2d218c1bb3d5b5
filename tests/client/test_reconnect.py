"""Whether to come back, and when: no clock, no chance but what the test hands in."""

import random

import pytest

from tidewire.client.reconnect import Advice, Backoff, ComeBack, advise_close, advise_status, parse_retry_after
from tidewire.protocol import codes

FAST = Advice(ComeBack.FAST, "test")


class Highest(random.Random):
    """Chance at its ceiling, so that delays show how far the jitter may go."""

    def uniform(self, a: float, b: float) -> float:
        return b


class Lowest(random.Random):
    """Chance at its floor."""

    def uniform(self, a: float, b: float) -> float:
        return a


def make_backoff(rng: random.Random, **options: float) -> Backoff:
    return Backoff(**({"initial_s": 1.0, "maximum_s": 10.0, "factor": 2.0, "healthy_after_s": 30.0} | options), rng=rng)


def test_ceiling_grows_to_the_maximum() -> None:
    backoff = make_backoff(Highest())
    assert [backoff.failed(now, FAST) for now in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.attempt == 6


def test_jitter_is_full() -> None:
    backoff = make_backoff(Lowest())
    assert [backoff.failed(now, FAST) for now in range(4)] == [0, 0, 0, 0]
    spread = make_backoff(random.Random(7), initial_s=10.0)
    delays = [spread.failed(0, FAST) for _ in range(200)]
    assert min(delays) < 1 < 9 < max(delays) <= 10


def test_accept_and_close_at_once_grows() -> None:
    backoff = make_backoff(Highest())
    delays = []
    for now in range(5):
        backoff.connected(now)
        delays.append(backoff.failed(now + 0.01, FAST))
    assert delays == [1, 2, 4, 8, 10]


def test_healthy_connection_resets() -> None:
    backoff = make_backoff(Highest())
    for now in range(4):
        backoff.failed(now, FAST)
    backoff.connected(100)
    assert backoff.failed(129.9, FAST) == 10
    backoff.connected(200)
    assert backoff.failed(230, FAST) == 1
    assert backoff.attempt == 1


def test_healthy_while_counts_once() -> None:
    backoff = make_backoff(Highest())
    backoff.connected(0)
    assert backoff.failed(100, FAST) == 1
    assert backoff.failed(200, FAST) == 2, "time spent unconnected is not health"


def test_slow_waits_at_least_half_the_maximum() -> None:
    slow = Advice(ComeBack.SLOW, "test")
    assert make_backoff(Lowest()).failed(0, slow) == 5
    assert make_backoff(Highest()).failed(0, slow) == 10


def test_server_s_own_wish_is_honoured_with_jitter_on_top() -> None:
    asked = Advice(ComeBack.SLOW, "test", after_s=60.0)
    assert make_backoff(Lowest()).failed(0, asked) == 60
    assert make_backoff(Highest()).failed(0, asked) == 61


def test_years_of_attempts_do_not_overflow() -> None:
    backoff = make_backoff(Highest())
    backoff.attempt = 10**6
    assert backoff.failed(0, FAST) == 10


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (1000, ComeBack.END),
        (1001, ComeBack.FAST),
        (1005, ComeBack.FAST),
        (1006, ComeBack.FAST),
        (1008, ComeBack.STOP),
        (1009, ComeBack.STOP),
        (1011, ComeBack.FAST),
        (1012, ComeBack.FAST),
        (1013, ComeBack.FAST),
        (3001, ComeBack.FAST),
        (3008, ComeBack.FAST),
        (3499, ComeBack.FAST),
        (3500, ComeBack.STOP),
        (3999, ComeBack.STOP),
        (4001, ComeBack.FAST),
        (4499, ComeBack.FAST),
        (4500, ComeBack.STOP),
        (4999, ComeBack.STOP),
        (2999, ComeBack.SLOW),
        (0, ComeBack.SLOW),
    ],
)
def test_close_codes(code: int, expected: ComeBack) -> None:
    advice = advise_close(code, "said the server")
    assert advice.come_back is expected
    assert str(code) in advice.reason
    assert "said the server" in advice.reason


def test_agrees_with_the_server_s_table() -> None:
    for code in codes.ALL:
        comes_back = advise_close(code.code).come_back in (ComeBack.FAST, ComeBack.SLOW)
        assert comes_back is code.come_back, code


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 410, 413, 418, 421, 422, 426])
def test_refusals_stop(status: int) -> None:
    assert advise_status(status).come_back is ComeBack.STOP


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_server_errors_are_retried(status: int) -> None:
    assert advise_status(status, "3").come_back is ComeBack.FAST
    assert advise_status(status, "3").after_s == 3


@pytest.mark.parametrize("status", [200, 204, 301, 308])
def test_plain_http_answers_stop(status: int) -> None:
    assert advise_status(status).come_back is ComeBack.STOP


def test_too_many_requests_waits_as_told() -> None:
    assert advise_status(429, "7") == Advice(ComeBack.SLOW, "too many requests (429)", 7.0)
    assert advise_status(429).after_s is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("99999999999999999999", 3600.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0),
        ("Thu, 99 Jan 1970 00:00:01 GMT", None),
    ],
)
def test_retry_after(text: str | None, expected: float | None) -> None:
    assert parse_retry_after(text, wall_s=10.0) == expected


def test_retry_after_date_needs_a_clock() -> None:
    assert parse_retry_after("Thu, 01 Jan 1970 00:01:40 GMT") is None
