"""The judge of `make conformance`: what is an error, what is a note, and what the files may hold."""

import itertools
import json
from pathlib import Path

import pytest

from conformance.agents import AGENTS
from conformance.judge import (
    BEHAVIORS,
    CLOSES,
    Allowed,
    Found,
    Index,
    Kind,
    Outcome,
    Remark,
    count,
    format_expected,
    judge,
    parse_allowed,
    parse_expected,
    parse_report,
    renew,
    sentences,
    table,
)
from tests.project.files import ROOT

OK = Found("OK", "OK")
LATE = Found("NON-STRICT", "OK")
FAILED = Found("FAILED", "OK")
WRONG_CODE = Found("OK", "WRONG CODE")
NOTHING = Allowed({}, {})


def kinds(found: Found, expected: Found | None, allowed: Allowed = NOTHING) -> list[Kind]:
    """What is said about one case of an agent "server"."""
    return [one.kind for one in judge("server", {"1.1.1": found}, index(expected), allowed)]


def index(expected: Found | None) -> Index:
    return {} if expected is None else {"1.1.1": expected}


def because(reason: str) -> Allowed:
    return Allowed({"server": {"1.1.1": reason}}, {})


# one case


@pytest.mark.parametrize("found", [OK, LATE, Found("INFORMATIONAL", "INFORMATIONAL")])
def test_nothing_is_said_about_what_is_as_expected(found: Found) -> None:
    assert kinds(found, found) == []


@pytest.mark.parametrize("behavior", ["UNIMPLEMENTED", "FAILED", "WHAT"])
def test_a_bad_behavior_is_an_error_even_when_it_is_expected(behavior: str) -> None:
    found = Found(behavior, "OK")
    assert kinds(found, found) == [Kind.BAD]


@pytest.mark.parametrize("close", ["FAILED BY CLIENT", "UNCLEAN", "WRONG CODE", "FAILED", "WHAT"])
def test_a_bad_close_is_an_error_even_when_it_is_expected(close: str) -> None:
    found = Found("OK", close)
    assert kinds(found, found) == [Kind.BAD]


def test_what_is_bad_and_new_is_said_to_be_both() -> None:
    assert kinds(FAILED, None) == [Kind.BAD, Kind.NEW]


def test_what_is_bad_and_worse_is_said_once() -> None:
    assert kinds(FAILED, OK) == [Kind.BAD]


def test_a_reason_allows_what_is_bad() -> None:
    assert kinds(FAILED, FAILED, because("we cap fragments")) == []


def test_a_reason_does_not_hide_that_it_was_better() -> None:
    assert kinds(FAILED, LATE, because("we cap fragments")) == [Kind.WORSE]
    assert kinds(FAILED, WRONG_CODE, because("we cap fragments")) == [Kind.WORSE]


def test_a_reason_is_for_one_agent_and_one_case() -> None:
    assert kinds(FAILED, FAILED, Allowed({"client": {"1.1.1": "why"}, "server": {"1.1.2": "why"}}, {})) == [Kind.BAD]


def test_a_reason_that_nothing_needs_is_told() -> None:
    assert kinds(OK, OK, because("we cap fragments")) == [Kind.NEEDLESS]


def test_worse_within_what_is_good_is_an_error() -> None:
    assert kinds(LATE, OK) == [Kind.WORSE]


def test_worse_in_one_word_is_worse_whatever_became_of_the_other() -> None:
    assert kinds(Found("NON-STRICT", "OK"), Found("OK", "INFORMATIONAL")) == [Kind.WORSE]
    assert kinds(Found("OK", "INFORMATIONAL"), Found("NON-STRICT", "OK")) == [Kind.WORSE]


def test_better_is_a_note() -> None:
    assert kinds(OK, LATE) == [Kind.BETTER]
    assert kinds(OK, FAILED) == [Kind.BETTER]


def test_what_nobody_has_looked_at_is_a_note() -> None:
    assert kinds(OK, None) == [Kind.NEW]


def test_cases_that_race_are_not_compared_but_may_not_fail() -> None:
    races = Allowed({}, {"1.1.1": "it hangs on packets"})
    assert kinds(LATE, OK, races) == []
    assert kinds(OK, LATE, races) == []
    assert kinds(FAILED, OK, races) == [Kind.BAD]
    assert kinds(WRONG_CODE, OK, races) == [Kind.BAD]


def test_a_race_that_failed_and_may_is_still_worse() -> None:
    allowed = Allowed({"server": {"1.1.1": "why"}}, {"1.1.1": "it hangs on packets"})
    assert kinds(FAILED, OK, allowed) == [Kind.WORSE]


def test_no_change_goes_unnoticed() -> None:
    everything = [Found(behavior, close) for behavior in BEHAVIORS for close in CLOSES]
    for found, expected in itertools.product(everything, repeat=2):
        said = kinds(found, expected)
        assert (said != []) == (found != expected or found.is_bad), (found, expected)
        worse = BEHAVIORS.index(found.behavior) > BEHAVIORS.index(expected.behavior)
        worse |= CLOSES.index(found.close) > CLOSES.index(expected.close)
        assert any(kind.is_error for kind in said) == (found.is_bad or worse), (found, expected)


def test_which_kinds_are_errors() -> None:
    assert {kind for kind in Kind if kind.is_error} == {Kind.MISSING, Kind.LOGGED, Kind.BAD, Kind.WORSE}
    assert {kind for kind in Kind if kind.needs_update} == {Kind.BETTER, Kind.NEW}


def test_cases_come_in_their_order_and_more_may_be_expected() -> None:
    found = dict.fromkeys(["10.1.1", "9.10.1", "9.9.1"], FAILED)
    said = judge("server", found, {**found, "1.1.1": OK}, NOTHING)
    assert [one.case for one in said] == ["9.9.1", "9.10.1", "10.1.1"]


def test_what_is_expected_from_now_on() -> None:
    found = {"1.1.1": LATE, "1.1.2": LATE, "1.1.3": FAILED}
    expected = {"1.1.1": OK, "1.1.2": OK, "1.1.3": OK, "1.1.4": OK}
    assert renew(expected, found, {"1.1.2", "1.1.3"}) == {"1.1.1": LATE, "1.1.2": OK, "1.1.3": FAILED, "1.1.4": OK}
    assert renew({}, found, {"1.1.2"}) == found
    assert renew({"1.1.2": FAILED}, {"1.1.2": LATE}, {"1.1.2"}) == {"1.1.2": LATE}


# files


def test_the_report_of_the_suite() -> None:
    entry = {"behavior": "OK", "behaviorClose": "WRONG CODE", "duration": 3, "remoteCloseCode": 1000, "reportfile": "x"}
    assert parse_report(json.dumps({"server": {"7.1.5": entry}}), "server") == {"7.1.5": WRONG_CODE}


def test_a_report_about_somebody_else() -> None:
    with pytest.raises(ValueError, match="is about client, not about server"):
        parse_report('{"client": {}}', "server")


def test_an_expected_index_is_read_as_it_was_written_with_a_line_for_each_case() -> None:
    expected = {"10.1.1": OK, "9.10.1": LATE, "9.9.1": WRONG_CODE}
    text = format_expected(expected)
    assert parse_expected(text) == expected
    assert text.splitlines() == [
        "{",
        '  "9.9.1": ["OK", "WRONG CODE"],',
        '  "9.10.1": ["NON-STRICT", "OK"],',
        '  "10.1.1": ["OK", "OK"]',
        "}",
    ]


@pytest.mark.parametrize("text", ['{"1.1.1": "OK"}', '{"1.1.1": ["OK"]}', '{"1.1.1": ["OK", 1000]}'])
def test_what_is_no_expected_index(text: str) -> None:
    with pytest.raises(ValueError, match=r"case 1\.1\.1: write the behaviour and the close"):
        parse_expected(text)


def test_what_is_allowed() -> None:
    text = '[server]\n"9.3.1" = "a cap"\n[races]\n"3.2" = "packets"\n'
    assert parse_allowed(text, ["server", "client"]) == Allowed(
        {"server": {"9.3.1": "a cap"}, "client": {}}, {"3.2": "packets"}
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('[servant]\n"9.3.1" = "a cap"', "no agent 'servant': there are server, races"),
        ('server = "all"', "no agent 'server'"),
        ('[server]\n"9.3.*" = "a cap"', r"'9\.3\.\*' is no case"),
        ('[server]\n9.3.1 = "a cap"', "'9' is no case"),
        ('[server]\n"9.3.1" = " "', r"say why 9\.3\.1 is allowed"),
        ('[races]\n"3.2" = 1', r"races: say why 3\.2 is allowed"),
    ],
)
def test_what_may_not_be_allowed(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        parse_allowed(text, ["server"])


def test_the_committed_files_are_of_one_mind() -> None:
    folder = ROOT / "conformance"
    allowed = parse_allowed((folder / "allowed.toml").read_text(), [agent.name for agent in AGENTS])
    assert {path.stem for path in (folder / "expected").glob("*.json")} == {agent.name for agent in AGENTS}
    for agent in AGENTS:
        expected = parse_expected(_expected(agent.name).read_text())
        # nothing bad is expected without a reason, and no reason is there for what is good
        assert judge(agent.name, expected, expected, allowed) == []
        assert allowed.reasons[agent.name].keys() <= expected.keys()


def _expected(name: str) -> Path:
    return ROOT / "conformance" / "expected" / f"{name}.json"


# words


def test_what_is_the_same_is_said_once_with_all_cases() -> None:
    said = [Remark(Kind.BAD, "server", f"9.3.{number}", FAILED, FAILED) for number in (1, 2)]
    said.append(Remark(Kind.WORSE, "server", "3.2", LATE, OK))
    said.append(Remark(Kind.NEEDLESS, "client", "7.1.5", OK, reason="the code of a close"))
    said.append(Remark(Kind.MISSING, "client", reason="there are results of 3 cases, not of 4"))
    assert sentences(said) == [
        "server 9.3.1, 9.3.2: neither passed nor allowed: FAILED, closed OK (expected: FAILED, closed OK)",
        "server 3.2: worse than expected: NON-STRICT, closed OK (expected: OK)",
        "client 7.1.5: allowed, and needs it no more: OK (the code of a close)",
        "client: not run as a whole (there are results of 3 cases, not of 4)",
    ]


def test_a_long_list_of_cases_is_cut() -> None:
    (line,) = sentences([Remark(Kind.BAD, "server", f"6.6.{number}", FAILED) for number in range(1, 31)])
    assert "6.6.20 and 10 more: neither" in line
    assert "6.6.21" not in line


def test_errors_are_counted_by_case_and_agent() -> None:
    found = {"1.1.1": OK, "1.1.2": FAILED}
    outcomes = [Outcome("server", found, [], 1.0), Outcome("client", found, [], 1.0)]
    errors = [Remark(Kind.BAD, "server", "1.1.2", FAILED), Remark(Kind.LOGGED, "client")]
    assert count(outcomes, errors) == (3, 2)
    assert count(outcomes, []) == (4, 0)


def test_the_table_counts() -> None:
    found = {"1.1.1": OK, "1.1.2": LATE, "1.1.3": WRONG_CODE, "1.1.4": Found("WHAT", "OK")}
    errors = [Remark(Kind.BAD, "server", "1.1.3", WRONG_CODE), Remark(Kind.NEW, "server", "1.1.2", LATE)]
    head, row = table([Outcome("server", found, errors, 2.4)]).splitlines()
    assert head.split()[:2] == ["agent", "cases"]
    assert row.split() == ["server", "4", "2", "0", "1", "0", "0", "1", "1", "1", "2"]
