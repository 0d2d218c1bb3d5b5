"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Header = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", metavar="NAME:VALUE", help="Send this header; may be repeated."),
]


def parse_headers(texts: list[str] | None) -> list[tuple[str, str]]:
    """``NAME:VALUE`` texts as pairs; raises ``typer.BadParameter`` (exit code 2)."""
    from tidewire.client.target import check_headers

    pairs = []
    for text in texts or []:
        name, colon, value = text.partition(":")
        if not colon:
            raise typer.BadParameter(f"{text!a} is not NAME:VALUE", param_hint="-H")
        pairs.append((name.strip(), value.strip()))
    try:
        return check_headers(pairs)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="-H") from None
