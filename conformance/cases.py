"""Which cases of the suite there are, and which of them a run takes."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Cases in each section of autobahntestsuite 25.10.1. There are no sections 8 and 11.
SECTIONS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
BASE = (1, 2, 3, 4, 5, 6, 7, 9, 10)
"""The sections without compression: 301 cases."""
DEFLATE = (12, 13)
"""The sections with permessage-deflate: other payloads in 12, other parameters in 13; 1,000 echoes each."""

# In 12 and 13 a group is a payload or a set of parameters, and a case in it a size: 1 to 10 are whole messages of 16
# bytes to 128 KiB, 11 to 18 come in fragments. Each group is asked with small whole messages and with fragments, and a
# few are asked more.
_GROUPS = {12: 5, 13: 7}
_SIZES = 18
_SAMPLED_SIZES = (3, 11)
_SAMPLED_BESIDES = ("12.1.1", "12.2.7", "12.5.14", "13.7.6")


def sampled() -> list[str]:
    """The 28 cases of sections 12 and 13 that every run takes."""
    pairs = [f"{section}.{group}.{size}" for section, group in _groups() for size in _SAMPLED_SIZES]
    return ordered([*pairs, *_SAMPLED_BESIDES])


def deflate(section: int) -> list[str]:
    """All cases of section 12 or 13."""
    groups = range(1, _GROUPS[section] + 1)
    return [f"{section}.{group}.{size}" for group in groups for size in range(1, _SIZES + 1)]


def _groups() -> list[tuple[int, int]]:
    return [(section, group) for section, count in _GROUPS.items() for group in range(1, count + 1)]


def patterns(sections: Iterable[int]) -> list[str]:
    """What the suite's specification says for whole sections."""
    return [f"{section}.*" for section in sections]


def check(asked: str) -> str:
    """Return a case, or a section as ``9.*``, unchanged. Raises ``ValueError`` for what is neither."""
    section = asked.partition(".")[0]
    if not re.fullmatch(r"[0-9]+\.([0-9]+(\.[0-9]+)?|\*)", asked) or int(section) not in SECTIONS:
        raise ValueError(f"{asked!r} is no case: write it as 9.3.1, or 9.* for the section")
    return asked


def count(asked: Iterable[str]) -> int:
    """How many cases patterns and single cases stand for, when none is named twice."""
    return sum(SECTIONS[int(one[:-2])] if one.endswith(".*") else 1 for one in asked)


def ordered(cases: Iterable[str]) -> list[str]:
    """In the suite's order: 9.10 comes after 9.9."""
    return sorted(cases, key=key)


def key(case: str) -> tuple[int, ...]:
    """By what cases are put in order."""
    return tuple(int(part) for part in case.split("."))
