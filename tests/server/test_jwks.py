"""Keys from a URL: fetched seldom, bounded in every way, and from nowhere else."""

from __future__ import annotations

import asyncio
import base64
import gc
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import jwt
import pytest

from tests.server.desk import let_time_pass, passes, play, until
from tests.server.mint import CURVES, SECRET, key_set, mint, private_key, private_rsa, public_jwk
from tidewire import BadToken, Tokens
from tidewire.errors import KeysUnavailable
from tidewire.server import jwks
from tidewire.server.jwks import AGE_GOOD_S, AGE_MAX_S, DOCUMENT_BYTES_MAX, KEYS_MAX, REFETCH_S, KeySet, read_keys
from tidewire.testing import ManualClock

URL = "https://id.example/keys"
OLD, NEW = private_key("RS256"), private_key("RS256", 1)


class Issuer:
    """What answers at the URL."""

    def __init__(self, *entries: dict[str, Any]) -> None:
        self.document: bytes | None = key_set(*entries)
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.clock = ManualClock()

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await self.may_answer.wait()
        if self.document is None:
            raise ConnectionError("down")
        return self.document

    def keys(self) -> KeySet:
        return KeySet(URL, self.clock, self.fetch)


def settings_for(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Tokens:
    monkeypatch.setattr(jwks, "fetch_document", issuer.fetch)
    return Tokens(jwks_url=URL, clock=issuer.clock)


def signed(key: Any, **headers: Any) -> str:
    return mint(key=key, algorithm="RS256", **headers)


# Which key


def test_a_token_is_verified_with_the_key_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        ec, ed = private_key("ES256"), private_key("EdDSA")
        issuer = Issuer(public_jwk(OLD, "old"), public_jwk(NEW, "new"), public_jwk(ec, "ec"), public_jwk(ed, "ed"))
        tokens = settings_for(issuer, monkeypatch)
        for token in (
            signed(OLD, kid="old"),
            signed(NEW, kid="new"),
            mint(key=OLD, algorithm="PS512", kid="old"),
            mint(key=ec, algorithm="ES256", kid="ec"),
            mint(key=ed, algorithm="EdDSA", kid="ed"),
            # no name: the only one for its algorithm
            mint(key=ed, algorithm="EdDSA"),
        ):
            assert (await tokens.verify_connection(token)).user == "ann"
        for token in (signed(OLD, kid="new"), signed(private_key("RS256", 2), kid="old")):
            with pytest.raises(BadToken, match="signature"):
                await tokens.verify_connection(token)
        for token in (signed(OLD, kid="ec"), mint(key=ec, algorithm="ES256", kid="old"), signed(OLD)):
            with pytest.raises(BadToken, match="does not name a key"):
                await tokens.verify_connection(token)
        assert issuer.asked == [URL]

    play(scenario)


def test_urls_and_keys_of_a_token_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    """RFC 8725 section 3.10: whoever follows ``jku`` or ``x5u`` believes the forger, or fetches for it."""

    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        tokens = settings_for(issuer, monkeypatch)
        for headers in (
            {"jku": "https://evil.example/keys"},
            {"x5u": "https://evil.example/cert"},
            {"jwk": public_jwk(NEW, "old")},
        ):
            with pytest.raises(BadToken, match="signature"):
                await tokens.verify_connection(signed(NEW, kid="old", **headers))
        assert issuer.asked == [URL]

    play(scenario)


def test_a_token_with_another_algorithm_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"), {"kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256"})
        tokens = settings_for(issuer, monkeypatch)
        for token in (mint(kid="s"), mint(key="secret" * 10, kid="old"), "garbage", "a.b.c"):
            with pytest.raises(BadToken):
                await tokens.verify_connection(token)
        assert issuer.asked == []

    play(scenario)


def test_keys_that_verify_no_tokens(caplog: pytest.LogCaptureFixture) -> None:
    rsa = private_key("RS256")
    secret = {"kty": "oct", "k": base64.urlsafe_b64encode(SECRET.encode()).decode(), "kid": "a"}
    private = jwt.get_algorithm_by_name("RS256").to_jwk(rsa, as_dict=True)
    assert "d" in private
    for entry in (
        secret,
        secret | {"alg": "HS256"},
        private,
        private | {"key_ops": ["verify"]},
        public_jwk(rsa, "c", use="enc"),
        public_jwk(rsa, "d", key_ops=["encrypt"]),
        public_jwk(rsa, "d", key_ops="verify"),
        public_jwk(rsa, "e", alg="RSA-OAEP"),
        public_jwk(private_rsa(1024), "f"),
        public_jwk(rsa, "g") | {"n": "AQAB"},
        public_jwk(rsa, "h") | {"n": 7},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "secp256k1"},
        {"kty": "OKP", "crv": "X25519", "x": "AA"},
        {"kty": "magic"},
        {},
    ):
        assert read_keys(key_set(entry)) == [], entry
    good = public_jwk(rsa, "good", use="sig", key_ops=["verify"])
    ((key_id, key),) = read_keys(json.dumps({"keys": [secret, 7, None, [], good]}).encode())
    assert (key_id, key.algorithms) == ("good", ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
    ((_, key),) = read_keys(key_set(public_jwk(rsa, alg="RS512")))
    assert key.algorithms == ("RS512",)
    for algorithm in CURVES:
        ((_, key),) = read_keys(key_set(_curve(algorithm)))
        assert key.algorithms == (algorithm,)


def _curve(algorithm: str) -> dict[str, Any]:
    return jwt.get_algorithm_by_name(algorithm).to_jwk(private_key(algorithm).public_key(), as_dict=True)


def test_more_keys_than_there_may_be(caplog: pytest.LogCaptureFixture) -> None:
    keys = read_keys(key_set(*(public_jwk(OLD, str(number)) for number in range(KEYS_MAX + 1))))
    assert [key_id for key_id, _ in keys] == [str(number) for number in range(KEYS_MAX)]
    assert caplog.messages == [f"the key set has {KEYS_MAX + 1} keys, and the first {KEYS_MAX} are used"]


@pytest.mark.parametrize("document", [b"", b"<html>", b"[]", b"{}", b'{"keys":{}}', b"[" * 100_000, b"\xff", b"null"])
def test_a_document_that_is_no_key_set(document: bytes) -> None:
    with pytest.raises(ValueError, match="key set"):
        read_keys(document)


# How often


def test_an_unknown_key_id_makes_us_look_again_but_not_often() -> None:
    """Keys change, so a new name is looked for; but anybody can make names up."""

    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        keys = issuer.keys()
        await keys.find("RS256", "old")
        for name in "abc":
            with pytest.raises(BadToken):
                await keys.find("RS256", name)
        assert len(issuer.asked) == 1
        issuer.clock.advance(REFETCH_S)
        issuer.document = key_set(public_jwk(NEW, "new"))
        await keys.find("RS256", "new")
        assert len(issuer.asked) == 2
        with pytest.raises(BadToken):
            await keys.find("RS256", "old")
        for _ in range(100):
            issuer.clock.advance(REFETCH_S / 20)
            with pytest.raises(BadToken):
                await keys.find("RS256", "made up")
        assert len(issuer.asked) == 7

    play(scenario)


def test_keys_are_looked_at_again_in_time_and_nobody_waits_for_it() -> None:
    """A key that its issuer has withdrawn is good no more."""

    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        keys = issuer.keys()
        await keys.find("RS256", "old")
        issuer.document = key_set(public_jwk(NEW, "new"))
        issuer.clock.advance(AGE_GOOD_S)
        await keys.find("RS256", "old")
        assert len(issuer.asked) == 1
        issuer.clock.advance(1)
        issuer.may_answer.clear()
        await keys.find("RS256", "old")
        await until(lambda: len(issuer.asked) == 2)
        issuer.may_answer.set()
        await passes(5)
        with pytest.raises(BadToken):
            await keys.find("RS256", "old")

    play(scenario)


def test_the_age_of_keys_is_told_by_the_clock_of_the_house(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        issuer, clock = Issuer(public_jwk(OLD, "old")), ManualClock(now=7.0)
        tokens = settings_for(issuer, monkeypatch).on(clock)
        await tokens.verify_connection(signed(OLD, kid="old"))
        clock.advance(AGE_GOOD_S + 1)
        await tokens.verify_connection(signed(OLD, kid="old"))
        await until(lambda: len(issuer.asked) == 2)

    play(scenario)


def test_many_at_once_make_one_fetch_and_who_goes_does_not_stop_it() -> None:
    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        issuer.may_answer.clear()
        keys = issuer.keys()
        first, *others = [asyncio.create_task(keys.find("RS256", "old")) for _ in range(50)]
        await until(lambda: issuer.asked)
        first.cancel()
        await passes(5)
        issuer.may_answer.set()
        assert len({id(await one) for one in others}) == 1
        assert issuer.asked == [URL]

    play(scenario)


# When there is no answer


def test_while_nobody_answers_nothing_is_known_about_tokens(caplog: pytest.LogCaptureFixture) -> None:
    """It is not said that the token is bad: clients that hear that do not come back."""

    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        document, issuer.document = issuer.document, None
        keys = issuer.keys()
        for _ in range(10):
            with pytest.raises(KeysUnavailable, match="try again"):
                await keys.find("RS256", "old")
        assert len(issuer.asked) == 1
        assert caplog.messages == ["the keys of tokens could not be fetched"]
        issuer.clock.advance(REFETCH_S)
        issuer.document = document
        await keys.find("RS256", "old")

    with caplog.at_level(logging.ERROR):
        play(scenario)


def test_keys_are_good_for_a_while_when_their_server_is_down() -> None:
    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        keys = issuer.keys()
        await keys.find("RS256", "old")
        issuer.document = None
        issuer.clock.advance(AGE_MAX_S)
        await keys.find("RS256", "old")
        await passes(5)
        assert len(issuer.asked) == 2
        with pytest.raises(KeysUnavailable):
            await keys.find("RS256", "new")
        issuer.clock.advance(1)
        with pytest.raises(KeysUnavailable):
            await keys.find("RS256", "old")

    play(scenario)


def test_a_document_that_cannot_be_used_is_no_answer() -> None:
    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        keys = issuer.keys()
        await keys.find("RS256", "old")
        issuer.document = b"<html>maintenance</html>"
        issuer.clock.advance(REFETCH_S)
        with pytest.raises(KeysUnavailable):
            await keys.find("RS256", "new")
        await keys.find("RS256", "old")

    play(scenario)


def test_a_server_that_never_answers() -> None:
    async def scenario() -> None:
        issuer = Issuer(public_jwk(OLD, "old"))
        issuer.may_answer.clear()
        keys = issuer.keys()
        asking = asyncio.create_task(keys.find("RS256", "old"))
        await until(lambda: issuer.asked)
        let_time_pass(jwks.FETCH_S)
        with pytest.raises(KeysUnavailable):
            await asking

    play(scenario)


def test_a_fetch_of_an_event_loop_that_has_ended_is_not_waited_for() -> None:
    issuer = Issuer(public_jwk(OLD, "old"))
    issuer.may_answer.clear()
    keys = issuer.keys()

    async def begin() -> None:
        asking = asyncio.create_task(keys.find("RS256", "old"))
        await until(lambda: issuer.asked)
        asking.cancel()
        await asyncio.wait([asking])

    async def come_again() -> None:
        issuer.may_answer = asyncio.Event()
        issuer.may_answer.set()
        with pytest.raises(KeysUnavailable):
            await keys.find("RS256", "old")
        issuer.clock.advance(REFETCH_S)
        await keys.find("RS256", "old")

    loop = asyncio.new_event_loop()
    loop.run_until_complete(begin())
    loop.close()
    asyncio.run(come_again())
    # what asyncio says of the fetch that never ended belongs to this test
    gc.collect()


# The fetch itself


@asynccontextmanager
async def serving(answer: bytes, *, endless: bytes = b"") -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that says ``answer`` to whoever connects: its URL, and the requests it has had."""
    requests: list[bytes] = []
    talking: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.add(asyncio.current_task())  # type: ignore[arg-type]
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        try:
            while endless:
                writer.write(endless)
                await writer.drain()
        except ConnectionError:
            return
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys", requests
    finally:
        server.close()
        await asyncio.gather(*talking)


def ok(body: bytes, *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), b"connection: close", *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_keys_come_from_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    # what is on this machine is not asked for through a proxy
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    async def scenario() -> None:
        async with serving(ok(key_set(public_jwk(OLD, "old")))) as (url, requests):
            tokens = Tokens(jwks_url=url)
            assert (await tokens.verify_connection(signed(OLD, kid="old"))).user == "ann"
        assert requests[0].startswith(b"GET /keys HTTP/1.1\r\n")
        assert b"accept-encoding: identity\r\n" in requests[0].lower()
        assert len(requests) == 1

    asyncio.run(scenario())


def test_answers_that_are_not_taken() -> None:
    async def refused(answer: bytes, saying: str, *, endless: bytes = b"") -> None:
        async with serving(answer, endless=endless) as (url, requests):
            with pytest.raises(ValueError, match=saying):
                await jwks.fetch_document(url)
            assert len(requests) == 1

    async def scenario() -> None:
        document = key_set(public_jwk(OLD, "old"))
        async with serving(ok(document)) as (elsewhere, requests):
            moved = b"HTTP/1.1 302 Found\r\nlocation: %s\r\ncontent-length: 0\r\n\r\n" % elsewhere.encode()
            await refused(moved, "302")
            assert requests == []
        await refused(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", "404")
        await refused(ok(b" " * (DOCUMENT_BYTES_MAX + 1)), "more than")
        # it never ends, and does not say how long it is
        await refused(b"HTTP/1.1 200 OK\r\n\r\n", "more than", endless=b" " * 65536)
        # nothing is unpacked: a little could become a lot
        packed = gzip.compress(document)
        async with serving(ok(packed, b"content-encoding: gzip")) as (url, _):
            assert await jwks.fetch_document(url) == packed
        async with serving(ok(b" " * DOCUMENT_BYTES_MAX)) as (url, _):
            assert len(await jwks.fetch_document(url)) == DOCUMENT_BYTES_MAX

    asyncio.run(scenario())
