"""Secrets in URLs do not reach the logs: uvicorn writes the query of every request and upgrade (CONTRACTS 11)."""

from __future__ import annotations

import logging
import re

_SECRET = re.compile(r"((?:^|[?&;])(?:token|ticket|access_token|cf_connect)=)[^&;\s\"']*", re.IGNORECASE)


def redact(text: str) -> str:
    """``text`` with the values of secret query parameters replaced."""
    return _SECRET.sub(r"\1[hidden]", text)


class SecretFilter(logging.Filter):
    """Redacts the arguments of log records, or the message where it has none."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Always keeps the record."""
        if isinstance(record.args, tuple) and record.args:
            record.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in record.args)
        elif isinstance(record.msg, str):
            record.msg = redact(record.msg)
        return True


def hide_secrets_in_logs() -> None:
    """Put the filter on uvicorn's loggers, once."""
    for name in ("uvicorn.access", "uvicorn.error"):
        log = logging.getLogger(name)
        if not any(isinstance(known, SecretFilter) for known in log.filters):
            log.addFilter(SecretFilter())
