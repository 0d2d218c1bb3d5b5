"""What the command line of ``tidewire cat`` asked for, and whether it fits together."""

from __future__ import annotations

import ssl as tls
from dataclasses import dataclass

import typer


@dataclass(frozen=True, slots=True)
class Wanted:
    """The options. ``wait_s``: None where the rule of ``wait_after_input`` decides."""

    url: str
    count: int | None = None
    wait_s: float | None = None
    headers: list[tuple[str, str]] | None = None
    origin: str | None = None
    subprotocols: tuple[str, ...] = ()
    is_binary: bool = False
    is_pretty: bool = False
    has_times: bool = False
    ping_s: float | None = None
    reconnects: bool = False
    is_insecure: bool = False
    is_verbose: bool = False

    def make_context(self) -> tls.SSLContext | None:
        """A context that trusts everybody, with --insecure; None for the system's trust."""
        if not self.is_insecure:
            return None
        context = tls.create_default_context()
        context.check_hostname = False
        context.verify_mode = tls.CERT_NONE
        return context


_ANSWER_S = 2.0


def wait_after_input(wanted: Wanted, sent: int) -> float:
    """How long a silence ends the conversation after stdin has ended and ``sent`` messages went out."""
    if wanted.wait_s is not None:
        return wanted.wait_s
    # whoever says how many, or asks nothing, wants to listen
    return _ANSWER_S if wanted.count is None and sent else float("inf")


def check_wanted(wanted: Wanted) -> None:
    """Raises ``typer.BadParameter`` (exit code 2) for what cannot be meant."""
    from tidewire.client.target import check_headers

    if wanted.wait_s is not None and not wanted.wait_s >= 0:
        raise typer.BadParameter("give seconds: 0 or more, or inf", param_hint="--wait")
    if wanted.ping_s is not None and not 0.01 <= wanted.ping_s < float("inf"):
        raise typer.BadParameter("give the seconds between two pings, at least 0.01", param_hint="--ping")
    if wanted.is_binary and (wanted.is_pretty or wanted.has_times):
        raise typer.BadParameter("prints bytes as they are: leave out --json and --timestamps", param_hint="--binary")
    try:
        check_headers([("Origin", wanted.origin or "")])
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--origin") from None
    for name in wanted.subprotocols:
        try:
            # a subprotocol is a token, as the name of a header is (RFC 6455 11.3.4)
            check_headers([(name, "")])
        except ValueError:
            raise typer.BadParameter(f"{name!a} is not the name of a subprotocol", param_hint="--subprotocol") from None
    if wanted.is_insecure:
        _check_insecure(wanted.url)


def _check_insecure(url: str) -> None:
    from tidewire.client.errors import BadURL
    from tidewire.client.target import parse_address

    try:
        is_secure = parse_address(url).is_secure
    except BadURL:
        # said where it is used
        return
    if not is_secure:
        raise typer.BadParameter("is for wss:// and https://, this has no certificate", param_hint="--insecure")
