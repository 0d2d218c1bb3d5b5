"""`tidewire cat` to wss servers: certificates of an authority that is trusted, or not, and --insecure."""

import asyncio
import os
import ssl
import sys
from pathlib import Path

import trustme

import tidewire as tide
from tests.client.fakes import run
from tidewire.cli.echo import send_back


async def cat(trusted: Path | None, *arguments: str) -> tuple[int | None, str, str]:
    """One line sent, one answer; ``trusted``: the authorities of this machine."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tidewire", "cat", "-n", "1", *arguments),
        env=dict(os.environ) | ({} if trusted is None else {"SSL_CERT_FILE": str(trusted)}),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(b"hi\n")
    return process.returncode, out.decode(), err.decode()


def make_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_certificates_are_checked_unless_told_otherwise(tmp_path: Path) -> None:
    authority = trustme.CA()
    trusted = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(trusted))
    warning = "the certificate is not checked: whoever is on the way can read and change everything\n"

    async def main() -> None:
        async with tide.serve(send_back, port=0, ssl=make_context(authority, "127.0.0.1")) as server:
            assert await cat(trusted, server.url) == (0, "hi\n", "")
            assert await cat(trusted, server.url.replace("wss:", "https:")) == (0, "hi\n", "")
            assert await cat(None, server.url, "--insecure") == (0, "hi\n", warning)
            code, out, err = await cat(None, server.url)
            assert (code, out) == (1, "")
            assert "its certificate" in err
            assert err.endswith("--insecure connects all the same, without knowing to whom\n")
        async with tide.serve(send_back, port=0, ssl=make_context(authority, "other.example")) as server:
            code, _, err = await cat(trusted, server.url)
            assert (code, "its certificate" in err) == (1, True)
            assert await cat(trusted, server.url, "--insecure") == (0, "hi\n", warning)

    run(main())
