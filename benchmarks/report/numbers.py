"""From measurements to words: medians with their spread, ratios within a round, tables, what did not count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from benchmarks.contenders import CONTENDERS
from benchmarks.scenarios.common import CLIENT_SHARE_MAX

Measurement = dict[str, Any]
Measurements = Sequence[Measurement]

# beside a number that the load client may have limited, or somebody else
CLIENT_MARK, OTHERS_MARK = " †", " ‡"
OTHERS_SHARE_MAX = 0.1


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def spread(
    values: Sequence[float], scale: float = 1, form: str = ",.0f", unit: str = "", none: str = "none counted"
) -> str:
    """Median, smallest, largest; ``none`` where there is no value."""
    if not values:
        return none
    middle, low, high = (format(value / scale, form) for value in (median(values), min(values), max(values)))
    return f"{middle}{unit}" if len(values) == 1 else f"{middle}{unit} ({low} to {high})"


def cell(measurements: Measurements, field: str, scale: float = 1, form: str = ",.0f", unit: str = "") -> str:
    """``spread`` of one field of what counted, with its marks."""
    mine = counted(measurements)
    return spread([m[field] for m in mine], scale, form, unit) + marks(mine)


def marks(measurements: Measurements) -> str:
    """Marks for a load client that was busy all the time, and for others that used the server's core."""
    client = any(m.get("client_share", 0) > CLIENT_SHARE_MAX for m in measurements)
    others = any(m.get("others_share", 0) > OTHERS_SHARE_MAX for m in measurements)
    return CLIENT_MARK * client + OTHERS_MARK * others


def pick(measurements: Iterable[Measurement], **wanted: object) -> list[Measurement]:
    """Those whose fields are as wanted."""
    return [m for m in measurements if all(m[name] == value for name, value in wanted.items())]


def counted(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Those that count."""
    return [m for m in measurements if not m["complaints"]]


def ratios(measurements: Measurements, others: Measurements, field: str) -> list[float]:
    """How many times that of ``others``, round by round."""
    by_round = {m["round"]: m[field] for m in counted(others)}
    return [m[field] / by_round[m["round"]] for m in counted(measurements) if by_round.get(m["round"])]


def ratio(measurements: Measurements, others: Measurements, field: str, form: str = ",.2f") -> str:
    """``spread`` of the ratios."""
    return spread(ratios(measurements, others, field), form=form, unit="x")


def names(measurements: Iterable[Measurement]) -> list[str]:
    """The contenders that were measured, in the order of the registry."""
    found = {m["contender"] for m in measurements}
    return [name for name in CONTENDERS if name in found]


def title(name: str) -> str:
    """What a contender is called in a table."""
    return CONTENDERS[name].title


def complaints(measurements: Measurements, *fields: str) -> str:
    """What did not count, and why."""
    lines: dict[str, int] = {}
    for m in measurements:
        for text in m["complaints"]:
            where = ", ".join(f"{field} {m[field]}" for field in fields if m.get(field) is not None)
            line = f"{title(m['contender'])}{' (' + where + ')' if where else ''}: {text.splitlines()[0]}"
            lines[line] = lines.get(line, 0) + 1
    if not lines:
        return "Every measurement counted."
    return "Did not count:\n\n" + "\n".join(f"- {line} ({times} of the measurements)" for line, times in lines.items())


def company(measurements: Measurements) -> str:
    """Whether the load client or somebody else got in the way."""
    client = [m["client_share"] for m in measurements if "client_share" in m]
    others = [m["others_share"] for m in measurements if "others_share" in m]
    if not client:
        return ""
    text = (
        f"The load client was busy {median(client):.0%} of the time (at most {max(client):.0%}). Other processes used "
        f"{median(others):.0%} of the server's core (at most {max(others):.0%})."
    )
    if max(client) > CLIENT_SHARE_MAX:
        text += f"{CLIENT_MARK}: here the load client was busy more than {CLIENT_SHARE_MAX:.0%}, and may be the limit."
    if max(others) > OTHERS_SHARE_MAX:
        text += f"{OTHERS_MARK}: here others used more than {OTHERS_SHARE_MAX:.0%} of the core; measure again in peace."
    return text
