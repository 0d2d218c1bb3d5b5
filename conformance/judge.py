"""The judge: what the suite found, against what is expected and what is allowed. Pure: texts and values only.

For each case the suite tells two things, how the messages went (``behavior``) and how the connection was closed
(``behaviorClose``). An agent is one of our programs that was asked. Three files have a say:

* what the suite found: ``index.json`` of its reports;
* ``expected/AGENT.json``: what it found when somebody last looked at every case, so that nothing gets worse unnoticed;
* ``allowed.toml``: the few bad results that are meant, each with its reason, and the cases that race: whether the
  suite finds them strict or not hangs on how the bytes fall into packets, so they are not compared.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from conformance.cases import ordered

# From good to bad, in the suite's words. What it may say beyond these is worse than all of them.
BEHAVIORS = ("OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED")
CLOSES = ("OK", "INFORMATIONAL", "FAILED BY CLIENT", "UNCLEAN", "WRONG CODE", "FAILED")
_BAD_BEHAVIOR = BEHAVIORS.index("UNIMPLEMENTED")
_BAD_CLOSE = CLOSES.index("FAILED BY CLIENT")


@dataclass(frozen=True, slots=True)
class Found:
    """What the suite says about one case."""

    behavior: str
    close: str

    def __str__(self) -> str:
        return "OK" if self == Found("OK", "OK") else f"{self.behavior}, closed {self.close}"

    @property
    def ranks(self) -> tuple[int, int]:
        """Of both words, how bad they are."""
        return _rank(BEHAVIORS, self.behavior), _rank(CLOSES, self.close)

    @property
    def is_bad(self) -> bool:
        """Whether it needs a reason: a case that failed or was not supported, or a close that was not as it must be."""
        behavior, close = self.ranks
        return behavior >= _BAD_BEHAVIOR or close >= _BAD_CLOSE

    def is_worse_than(self, other: Found) -> bool:
        """Whether one of the two words has become worse, whatever became of the other."""
        return any(mine > theirs for mine, theirs in zip(self.ranks, other.ranks, strict=True))


def _rank(words: tuple[str, ...], word: str) -> int:
    return words.index(word) if word in words else len(words)


Index = dict[str, Found]
"""By case."""


class Kind(Enum):
    """What may be said about a case, or about all of an agent's."""

    MISSING = "not run as a whole"
    LOGGED = "a traceback in its log"
    BAD = "neither passed nor allowed"
    WORSE = "worse than expected"
    BETTER = "better than expected"
    NEW = "not in the expected index"
    NEEDLESS = "allowed, and needs it no more"

    @property
    def is_error(self) -> bool:
        """Whether a run with it has failed."""
        return self in (Kind.MISSING, Kind.LOGGED, Kind.BAD, Kind.WORSE)

    @property
    def needs_update(self) -> bool:
        """Whether writing the expected index again is what to do."""
        return self in (Kind.BETTER, Kind.NEW)


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing that is worth a line. ``case``: None when it is about all of them."""

    kind: Kind
    agent: str
    case: str | None = None
    found: Found | None = None
    expected: Found | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What ``allowed.toml`` says: reasons by agent and case, and by case why it races."""

    reasons: dict[str, dict[str, str]]
    races: dict[str, str]


def judge(agent: str, found: Mapping[str, Found], expected: Mapping[str, Found], allowed: Allowed) -> list[Remark]:
    """Everything that is to be said about the cases of one agent, in their order.

    ``expected`` and ``allowed`` may know more cases than were run.
    """
    reasons = allowed.reasons.get(agent, {})
    remarks: list[Remark] = []
    for case in ordered(found):
        remarks += _judge_case(agent, case, found[case], expected.get(case), reasons.get(case), case in allowed.races)
    return remarks


def _judge_case(
    agent: str, case: str, found: Found, expected: Found | None, reason: str | None, races: bool
) -> list[Remark]:
    remarks = []
    if found.is_bad and reason is None:
        remarks.append(Remark(Kind.BAD, agent, case, found, expected))
    elif not found.is_bad and reason is not None:
        remarks.append(Remark(Kind.NEEDLESS, agent, case, found, reason=reason))
    if expected is None:
        remarks.append(Remark(Kind.NEW, agent, case, found))
    elif races and not found.is_bad:
        pass
    elif found.is_worse_than(expected):
        if not (found.is_bad and reason is None):
            remarks.append(Remark(Kind.WORSE, agent, case, found, expected))
    elif found != expected:
        remarks.append(Remark(Kind.BETTER, agent, case, found, expected))
    return remarks


def renew(expected: Mapping[str, Found], found: Mapping[str, Found], races: Container[str]) -> Index:
    """What is expected from now on: what was found, and as before what was not run and what races."""
    kept = {case for case in expected if case in races and not expected[case].is_bad}
    return {**expected, **{case: one for case, one in found.items() if case not in kept or one.is_bad}}


# ---------------------------------------------------------------- files


def parse_report(text: str, agent: str) -> Index:
    """The suite's ``index.json``. Raises ``ValueError`` when it is not about that agent."""
    report: dict[str, Any] = json.loads(text)
    if agent not in report:
        raise ValueError(f"the suite's report is about {', '.join(report) or 'nobody'}, not about {agent}")
    return {case: Found(entry["behavior"], entry["behaviorClose"]) for case, entry in report[agent].items()}


def parse_expected(text: str) -> Index:
    """A committed index. Raises ``ValueError`` for what is none."""
    index = {}
    for case, words in json.loads(text).items():
        if not (isinstance(words, list) and len(words) == 2 and all(isinstance(word, str) for word in words)):
            raise ValueError(f'case {case}: write the behaviour and the close, as ["OK", "OK"], not {words!r}')
        index[case] = Found(*words)
    return index


def format_expected(index: Mapping[str, Found]) -> str:
    """The text of a committed index: a line for each case, so that a difference can be read."""
    lines = [
        f"  {json.dumps(case)}: {json.dumps([index[case].behavior, index[case].close])}" for case in ordered(index)
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


_RACES = "races"


def parse_allowed(text: str, agents: Iterable[str]) -> Allowed:
    """``allowed.toml``: for each agent its cases with their reasons, and in ``[races]`` those that are not compared.

    Raises ``ValueError`` for an agent that is not one of ``agents``, a case that is none, and a reason that says
    nothing.
    """
    tables: dict[str, dict[str, str]] = {name: {} for name in (*agents, _RACES)}
    for name, reasons in tomllib.loads(text).items():
        if name not in tables or not isinstance(reasons, dict):
            raise ValueError(f"allowed.toml: there is no agent {name!r}: there are {', '.join(tables)}")
        for case, reason in reasons.items():
            if not re.fullmatch(r"[0-9]+(\.[0-9]+)+", case):
                raise ValueError(f'allowed.toml, {name}: {case!r} is no case: write it as "9.3.1"')
            if not isinstance(reason, str) or not reason.strip():
                raise ValueError(f"allowed.toml, {name}: say why {case} is allowed")
            tables[name][case] = reason
    races = tables.pop(_RACES)
    return Allowed(tables, races)


# ---------------------------------------------------------------- words


# in one line; the expected index, or the reports, name the others
_CASES_NAMED = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """An agent, after its cases."""

    agent: str
    found: Index
    remarks: list[Remark]
    took_s: float


def sentences(remarks: Iterable[Remark]) -> list[str]:
    """A line for each different thing that is said, naming all the cases it is said about."""
    groups: dict[tuple[object, ...], list[Remark]] = {}
    for one in remarks:
        groups.setdefault((one.kind, one.agent, one.found, one.expected, one.reason), []).append(one)
    return [_sentence(same) for same in groups.values()]


def _sentence(same: list[Remark]) -> str:
    one = same[0]
    named = [remark.case for remark in same[:_CASES_NAMED] if remark.case is not None]
    text = f"{one.agent} {', '.join(named)}".rstrip()
    if len(same) > _CASES_NAMED:
        text += f" and {len(same) - _CASES_NAMED} more"
    text += f": {one.kind.value}"
    if one.found is not None:
        text += f": {one.found}"
    if one.expected is not None:
        text += f" (expected: {one.expected})"
    return f"{text} ({one.reason})" if one.reason else text


def count(outcomes: Iterable[Outcome], errors: Iterable[Remark]) -> tuple[int, int]:
    """How many results there is no error about, and how many errors. One about no case in particular counts as one."""
    all_errors = list(errors)
    bad = {(one.agent, one.case) for one in all_errors if one.case is not None}
    results = {(outcome.agent, case) for outcome in outcomes for case in outcome.found}
    return len(results - bad), len(bad) + sum(one.case is None for one in all_errors)


def table(outcomes: Iterable[Outcome]) -> str:
    """Counts for each agent, one line each."""
    rows = [["agent", "cases", *BEHAVIORS, "other", "close not OK", "errors", "seconds"]]
    for outcome in outcomes:
        counts = Counter(found.behavior for found in outcome.found.values())
        closes = sum(_rank(CLOSES, found.close) >= _BAD_CLOSE for found in outcome.found.values())
        known = [counts.pop(word, 0) for word in BEHAVIORS]
        errors = sum(remark.kind.is_error for remark in outcome.remarks)
        numbers = [len(outcome.found), *known, counts.total(), closes, errors, round(outcome.took_s)]
        rows.append([outcome.agent, *map(str, numbers)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        first, *others = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *others]))
    return "\n".join(lines)
