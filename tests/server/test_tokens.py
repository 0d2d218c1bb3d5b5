"""Connection and subscription tokens: who is let in, and every way to be let in that must not work."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
import sys
import warnings
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, x25519

from tests.server.mint import (
    CURVES,
    NOW,
    OTHER_SECRET,
    SECRET,
    by_hand,
    encode,
    mint,
    private_key,
    private_pem,
    private_rsa,
    public_jwk,
    public_pem,
)
from tidewire import BadToken, DeclarationError, Identity, TokenExpired, Tokens
from tidewire.server.claims import DEPTH_MAX
from tidewire.server.keys import Key, secret_key, verify
from tidewire.server.tokens import TOKEN_BYTES_MAX, SubscriptionGrant
from tidewire.testing import ManualClock

HS256 = {"alg": "HS256", "typ": "JWT"}
ANN = Identity(user="ann")


def tokens(**settings: Any) -> Tokens:
    if not settings.keys() & {"secret", "public_key", "jwks_url"}:
        settings["secret"] = SECRET
    return Tokens(**{"clock": ManualClock(), "leeway_s": 0, **settings})


def connect(token: str, settings: Tokens | None = None) -> Identity:
    return asyncio.run((settings or tokens()).verify_connection(token))


def subscribe(token: str, topic: str = "t", identity: Identity = ANN, settings: Tokens | None = None) -> Any:
    return asyncio.run((settings or tokens()).verify_subscription(token, identity, topic))


def refuse(token: str, settings: Tokens | None = None, *, saying: str | None = None) -> None:
    """It is no token, and what is said of it repeats none of it."""
    with pytest.raises(BadToken, match=saying) as raised:
        connect(token, settings)
    assert not any(part in str(raised.value) for part in token.split(".") if len(part) > 8)


# Who is let in


def test_what_a_connection_token_says() -> None:
    claims = {
        "sub": "ann",
        "exp": NOW + 60,
        "iat": NOW - 1.5,
        "nbf": NOW,
        "jti": "7",
        "info": {"name": "Ann"},
        "channels": ["a", "b"],
        "subs": {"c": {"info": 1}},
        "meta": {"plan": "free"},
    }
    assert connect(mint(claims)) == Identity(
        user="ann",
        info={"name": "Ann"},
        claims=claims,
        expires_at=NOW + 60.0,
        token_id="7",
        issued_at=NOW - 1.5,
    )


def test_a_token_needs_no_claim_at_all() -> None:
    """As on Centrifugo: no ``sub`` is somebody unknown, no ``exp`` is no end."""
    assert connect(mint({})) == Identity()


@pytest.mark.parametrize(
    "algorithm", ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", *CURVES, "EdDSA", "HS256", "HS384", "HS512"]
)
def test_each_kind_of_key(algorithm: str) -> None:
    if algorithm.startswith("HS"):
        assert connect(mint(algorithm=algorithm)).user == "ann"
        return
    key = private_key(algorithm)
    settings = tokens(public_key=public_pem(key))
    assert connect(mint(key=key, algorithm=algorithm), settings).user == "ann"
    settings = tokens(public_key=public_pem(key).encode(), algorithms=[algorithm])
    assert connect(mint(key=key, algorithm=algorithm), settings).user == "ann"


def test_a_subscription_token_is_good_for_its_user_and_topic() -> None:
    token = mint({"sub": "ann", "channel": "t", "exp": NOW + 60, "info": [1], "jti": "8", "iat": NOW})
    assert subscribe(token) == SubscriptionGrant(NOW + 60.0, [1], "8", NOW)
    assert subscribe(mint({"channel": "t"}), identity=Identity()) == SubscriptionGrant(None)


def test_info_may_come_in_base64() -> None:
    encoded = base64.b64encode(b'{"name":"Ann"}').decode()
    assert connect(mint({"b64info": encoded})).info == {"name": "Ann"}
    assert subscribe(mint({"sub": "ann", "channel": "t", "b64info": encoded})).info == {"name": "Ann"}
    for bad in ("%%%", base64.b64encode(b"\xff\x00").decode(), 7):
        refuse(mint({"b64info": bad}), saying="b64info")


# Signatures


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", None, 0, ["HS256"], {"a": 1}])
@pytest.mark.parametrize("signature", ["", encode(b"x")])
def test_an_unsigned_token(algorithm: object, signature: str) -> None:
    token = f"{encode({'alg': algorithm})}.{encode({'sub': 'ann'})}.{signature}"
    refuse(token)
    refuse(token, tokens(public_key=public_pem(private_key("RS256"))))
    refuse(f"{encode({'typ': 'JWT'})}.{encode({'sub': 'ann'})}.{signature}")


def test_none_cannot_be_allowed() -> None:
    for settings in ({"secret": SECRET}, {"public_key": public_pem(private_key("RS256"))}, {"jwks_url": "https://x/"}):
        with pytest.raises(DeclarationError, match="algorithms"):
            tokens(**settings, algorithms=["none"])


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_a_token_signed_with_the_public_key_as_if_it_were_a_secret(algorithm: str) -> None:
    pem = public_pem(private_key(algorithm))
    for secret in (pem, pem.strip(), pem.replace("\n", "")):
        refuse(by_hand(HS256, {"sub": "ann"}, secret=secret), tokens(public_key=pem), saying="not signed with")


def test_hmac_and_public_keys_are_never_mixed() -> None:
    pem = public_pem(private_key("RS256"))
    with pytest.raises(DeclarationError, match="algorithms"):
        tokens(public_key=pem, algorithms=["RS256", "HS256"])
    with pytest.raises(DeclarationError, match="algorithms"):
        tokens(jwks_url="https://x/", algorithms=["RS256", "HS256"])
    with pytest.raises(DeclarationError, match="algorithms"):
        tokens(algorithms=["HS256", "RS256"])
    with pytest.raises(DeclarationError, match="as public_key="):
        tokens(secret=pem)
    with pytest.raises(DeclarationError, match="one of secret="):
        tokens(secret=SECRET, public_key=pem)


def test_a_key_of_one_kind_verifies_no_other() -> None:
    refuse(mint(key=private_key("ES256"), algorithm="ES256"), tokens(public_key=public_pem(private_key("ES384"))))
    refuse(mint(key=private_key("RS256"), algorithm="RS256"), tokens(public_key=public_pem(private_key("EdDSA"))))
    refuse(mint(algorithm="HS512"), tokens(algorithms=["HS256"]), saying="HS256")


def test_a_key_verifies_what_it_is_for_whoever_asks() -> None:
    """Also where nothing else has looked at the algorithm."""
    key = Key(private_key("RS256").public_key(), ("RS256",))
    token = mint(key=private_key("RS256"), algorithm="RS512")
    for settings in ((token, key, ["RS256", "RS512"]), (mint(), secret_key(SECRET), ["RS256"])):
        with pytest.raises(BadToken, match="not signed with"):
            verify(*settings)
    assert verify(mint({}), secret_key(SECRET), ["HS256", "RS256"]) == b"{}"


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_a_token_that_was_changed_at_random(algorithm: str) -> None:
    rng = random.Random(algorithm)
    key = SECRET if algorithm == "HS256" else private_key(algorithm)
    settings = tokens(secret=SECRET) if algorithm == "HS256" else tokens(public_key=public_pem(key))
    good = mint({"sub": "ann", "info": [1, {"a": "b"}]}, key=key, algorithm=algorithm)

    async def scenario() -> int:
        refused = 0
        for _ in range(500):
            at, length = rng.randrange(len(good)), rng.choice((0, 1, 1, 2, 40))
            token = good[:at] + rng.choice(("", "A", "-", ".", "=", "{", "\0", "é", good[-30:])) + good[at + length :]
            try:
                identity = await settings.verify_connection(token)
            except BadToken:
                refused += 1
            else:
                # nothing was changed, or only bits that base64 does not use
                assert identity == Identity(user="ann", info=[1, {"a": "b"}], claims=identity.claims)
        return refused

    assert asyncio.run(scenario()) > 400


def test_a_forged_signature() -> None:
    header, payload, signature = mint().split(".")
    other = encode({"sub": "root"})
    for token in (
        mint(key=OTHER_SECRET),
        f"{header}.{other}.{signature}",
        f"{header}.{payload}.{signature[::-1]}",
        f"{header}.{payload}.",
        f"{header}.{payload}.{signature[:-4]}",
    ):
        refuse(token, saying="signature|no token")
    mine, theirs = private_key("RS256"), private_key("RS256", 1)
    refuse(mint(key=theirs, algorithm="RS256"), tokens(public_key=public_pem(mine)), saying="signature")


def test_a_key_that_the_token_brings_along() -> None:
    """RFC 8725 section 3.10: ``jwk``, ``x5c``, ``jku`` and ``x5u`` of a header are the forger's."""
    mine, theirs = private_key("RS256"), private_key("RS256", 1)
    for headers in (
        {"jwk": public_jwk(theirs)},
        {"jku": "https://evil.example/keys", "kid": "1"},
        {"x5u": "https://evil.example/cert"},
        {"x5c": [public_pem(theirs)]},
        {"kid": "../../dev/null"},
    ):
        refuse(mint(key=theirs, algorithm="RS256", **headers), tokens(public_key=public_pem(mine)), saying="signature")


def test_extensions_that_would_have_to_be_understood() -> None:
    """RFC 7515 section 4.1.11."""
    refuse(by_hand({**HS256, "crit": ["exp"], "exp": 1}, {"sub": "ann"}))
    refuse(by_hand({**HS256, "crit": ["b64"], "b64": False}, {"sub": "ann"}))
    refuse(by_hand({**HS256, "crit": ["b64"], "b64": True}, {"sub": "ann"}), saying="crit")
    refuse(by_hand({**HS256, "kid": 7}, {"sub": "ann"}))


# Who it is for


def test_a_token_for_another_audience() -> None:
    settings = tokens(audience="chat")
    assert connect(mint({"aud": "chat"}), settings).user == ""
    assert connect(mint({"aud": ["shop", "chat"]}), settings).user == ""
    assert connect(mint({"aud": "shop"}), tokens(audience=["chat", "shop"])).user == ""
    for audience in ("shop", ["shop"], [], "", None, 7, {"chat": 1}, [["chat"]], "chatter"):
        refuse(by_hand(HS256, {"aud": audience}), settings, saying="audience")
    refuse(mint({}), settings, saying="audience")


def test_a_token_for_an_audience_where_we_have_no_name() -> None:
    """RFC 7519 section 4.1.3: who does not find itself in ``aud`` has to refuse."""
    refuse(mint({"aud": "shop"}), saying=r"Tokens\(audience=")


def test_a_token_of_another_issuer() -> None:
    settings = tokens(issuer="https://id.example")
    assert connect(mint({"iss": "https://id.example"}), settings).user == ""
    assert connect(mint({"iss": "b"}), tokens(issuer=["a", "b"])).user == ""
    for issuer in ("https://id.example/", "", None, 7, ["https://id.example"]):
        refuse(by_hand(HS256, {"iss": issuer}), settings, saying="issuer")
    refuse(mint({}), settings, saying="issuer")
    assert connect(mint({"iss": "anybody"})).user == ""


# When


def test_an_expired_token() -> None:
    clock = ManualClock()
    settings = tokens(clock=clock, leeway_s=5)
    token = mint({"exp": NOW + 60})
    assert connect(token, settings).expires_at == NOW + 60
    clock.advance(64.9)
    connect(token, settings)
    clock.advance(0.1)
    with pytest.raises(TokenExpired, match="get a new one"):
        connect(token, settings)
    with pytest.raises(TokenExpired):
        connect(mint({"exp": 0}), settings)
    with pytest.raises(TokenExpired):
        subscribe(mint({"sub": "ann", "channel": "t", "exp": NOW}), settings=settings)


def test_a_token_that_is_not_valid_yet() -> None:
    clock = ManualClock()
    settings = tokens(clock=clock, leeway_s=5)
    for name in ("nbf", "iat"):
        token = mint({name: clock.wall_ms() / 1000 + 5.5})
        refuse(token, settings, saying=name)
        clock.advance(1)
        connect(token, settings)


def test_the_connection_may_live_longer_than_its_token_could_be_used() -> None:
    """``expire_at`` (centrifugal.dev, "Client JWT authentication"): 0 is for ever, and ``exp`` is checked as ever."""
    assert connect(mint({"exp": NOW + 60, "expire_at": 0})).expires_at is None
    assert connect(mint({"exp": NOW + 60, "expire_at": NOW + 900})).expires_at == NOW + 900
    assert subscribe(mint({"sub": "ann", "channel": "t", "exp": NOW + 60, "expire_at": 0})).expires_at is None
    for claims in ({"exp": NOW, "expire_at": 0}, {"exp": NOW, "expire_at": NOW + 900}, {"expire_at": NOW}):
        with pytest.raises(TokenExpired):
            connect(mint(claims))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat", "expire_at"])
@pytest.mark.parametrize("value", [b'"1900000000"', b"true", b"-1", b"null", b"[1]", b"1e300", b"9" * 400, b"NaN"])
def test_a_time_that_is_none(name: str, value: bytes) -> None:
    refuse(by_hand(HS256, b'{"%s":%s}' % (name.encode(), value)))


# What is malformed


@pytest.mark.parametrize(
    "token",
    ["", ".", "..", "...", "a", "a.b", "a.b.c", "e30.e30.e30", "\0", "ä.ö.ü", "\ud800", "=.=.=", " ", "Bearer x"]
    + [f"{encode(header)}.e30.e30" for header in (b"[]", b"null", b"{", b"\xff", b'"HS256"', b"{}")],
)
def test_garbage(token: str) -> None:
    refuse(token)
    with pytest.raises(BadToken):
        subscribe(token)


def test_a_huge_token() -> None:
    """Rightly signed, so that it would be accepted but for its size."""
    token = mint({"sub": "ann", "info": "x" * TOKEN_BYTES_MAX})
    refuse(token, saying=str(TOKEN_BYTES_MAX))
    with pytest.raises(BadToken, match=str(TOKEN_BYTES_MAX)):
        subscribe(mint({"sub": "ann", "channel": "t", "info": "x" * TOKEN_BYTES_MAX}))
    connect(mint({"sub": "ann", "info": "x" * (TOKEN_BYTES_MAX * 3 // 4 - 200)}))


def test_deep_json() -> None:
    def nested(levels: int) -> bytes:
        return b'{"info":' + b"[" * levels + b"]" * levels + b"}"

    connect(by_hand(HS256, nested(DEPTH_MAX - 1)))
    refuse(by_hand(HS256, nested(DEPTH_MAX)), saying="deep")
    refuse(by_hand(HS256, nested(500)), saying="deep")
    refuse(by_hand(HS256, nested(5000)), saying="deep")
    refuse(by_hand(HS256, b'{"a":' * 1500 + b"1" + b"}" * 1500), saying="deep")
    refuse(by_hand(b'{"alg":"HS256","x":' + b"[" * 5000 + b"]" * 5000 + b"}", {}))
    deep = base64.b64encode(b"[" * 200 + b"]" * 200).decode()
    refuse(mint({"b64info": deep}), saying="deep")


@pytest.mark.parametrize("claims", [b"[]", b"null", b'"x"', b"{", b"", b'{"sub":"\xff"}', b"{}{}"])
def test_claims_that_are_no_json_object(claims: bytes) -> None:
    refuse(by_hand(HS256, claims), saying="claims")


@pytest.mark.parametrize("name", ["sub", "jti"])
@pytest.mark.parametrize("value", [7, None, True, ["ann"], {"ann": 1}])
def test_an_id_that_is_no_text(name: str, value: object) -> None:
    """Otherwise 7 and "7" would be one user here and two there, and a token without a text for an id irrevocable."""
    refuse(by_hand(HS256, {name: value}), saying=name)


# Subscriptions


def test_a_subscription_token_of_another_user() -> None:
    token = mint({"sub": "ann", "channel": "t"})
    for user in ("bob", "", "Ann", "ann "):
        with pytest.raises(BadToken, match="another user"):
            subscribe(token, identity=Identity(user=user))
    with pytest.raises(BadToken, match="another user"):
        subscribe(mint({"channel": "t"}))
    with pytest.raises(BadToken, match="sub"):
        subscribe(by_hand(HS256, {"sub": None, "channel": "t"}), identity=Identity())


def test_a_subscription_token_for_another_topic() -> None:
    for channel in ("u", "T", "t/u", "*", "", None, ["t"], {"t": 1}):
        with pytest.raises(BadToken, match="another topic"):
            subscribe(mint({"sub": "ann", "channel": channel}))


def test_a_connection_token_used_for_a_subscription() -> None:
    for claims in ({"sub": "ann"}, {"sub": "ann", "channels": ["t"], "subs": {"t": {}}}):
        with pytest.raises(BadToken, match="for a connection"):
            subscribe(mint(claims))


def test_a_subscription_token_used_for_a_connection() -> None:
    for channel in ("t", "", None):
        refuse(mint({"sub": "ann", "channel": channel}), saying="for a subscription")


def test_subscription_tokens_may_have_a_key_of_their_own() -> None:
    settings = tokens(subscriptions=tokens(secret=OTHER_SECRET, audience="topics"))
    claims = {"sub": "ann", "channel": "t", "aud": "topics"}
    assert subscribe(mint(claims, key=OTHER_SECRET), settings=settings) == SubscriptionGrant(None)
    for token in (mint(claims), mint(claims | {"aud": "x"}, key=OTHER_SECRET)):
        with pytest.raises(BadToken):
            subscribe(token, settings=settings)
    refuse(mint({"sub": "ann"}, key=OTHER_SECRET), settings, saying="signature")
    assert connect(mint(), settings).user == "ann"


def test_another_clock_is_that_of_subscriptions_too() -> None:
    settings = tokens(subscriptions=tokens(secret=OTHER_SECRET)).on(clock := ManualClock())
    clock.advance(100)
    with pytest.raises(TokenExpired):
        subscribe(mint({"sub": "ann", "channel": "t", "exp": NOW + 60}, key=OTHER_SECRET), settings=settings)
    with pytest.raises(TokenExpired):
        connect(mint({"exp": NOW + 60}), settings)


# Settings


@pytest.mark.parametrize(
    ("settings", "saying"),
    [
        ({}, "one of secret="),
        ({"secret": ""}, "empty"),
        ({"secret": b""}, "empty"),
        ({"secret": "ssh-ed25519 AAAA"}, "as public_key="),
        ({"secret": private_pem(private_key("EdDSA"))}, "as public_key="),
        ({"public_key": "garbage"}, "PEM"),
        ({"public_key": private_pem(private_key("EdDSA"))}, "private key"),
        ({"public_key": public_pem(private_rsa(1024))}, "1024 bits is too weak"),
        ({"public_key": public_pem(x25519.X25519PrivateKey.generate())}, "kind X25519"),
        ({"public_key": public_pem(ec.generate_private_key(ec.SECP256K1()))}, "kind EC"),
        ({"secret": SECRET, "algorithms": "HS256"}, "a list of HS256, HS384, HS512"),
        ({"secret": SECRET, "algorithms": ["HS257"]}, "a list of"),
        ({"public_key": public_pem(private_key("ES256")), "algorithms": ["ES384"]}, "a list of ES256"),
        ({"secret": SECRET, "leeway_s": -1}, "leeway_s"),
        ({"secret": SECRET, "leeway_s": 301}, "leeway_s"),
        ({"secret": SECRET, "leeway_s": float("nan")}, "leeway_s"),
        ({"jwks_url": "http://id.example/keys"}, "https://"),
        ({"jwks_url": "file:///etc/passwd"}, "https://"),
        ({"jwks_url": "https://x/", "secret": SECRET}, "one of secret="),
    ],
)
def test_what_cannot_work_is_told_at_once(settings: dict[str, Any], saying: str) -> None:
    with pytest.raises(DeclarationError, match=saying):
        Tokens(**settings)


def test_subscriptions_have_no_subscriptions() -> None:
    with pytest.raises(DeclarationError, match="of their own"):
        tokens(subscriptions=tokens(subscriptions=tokens()))


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_without_pyjwt_the_way_out_is_told(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DeclarationError, match=r"pip install tidewire\[tokens\]"):
        Tokens(secret=SECRET)


def test_secrets_are_not_shown() -> None:
    settings = Tokens(secret=SECRET, subscriptions=Tokens(secret=OTHER_SECRET))
    assert SECRET not in repr(settings)
    assert OTHER_SECRET not in repr(settings)


def test_settings_do_not_change() -> None:
    with pytest.raises(AttributeError):
        tokens().secret = "x"  # type: ignore[misc]


def test_a_short_secret_is_told_of_once_and_works(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "tidewire"):
        settings = tokens(secret="secret")
    assert caplog.messages == ["Tokens: whoever has one token can guess a secret this short: use 32 random bytes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert connect(by_hand(HS256, {"sub": "ann"}, secret="secret"), settings).user == "ann"
    caplog.clear()
    connect(by_hand(HS256, {"sub": "ann"}, secret="secret"), settings)
    settings.on(ManualClock())
    tokens(secret="x" * 32)
    assert caplog.messages == []
