"""Which cases a run of `make conformance` takes."""

import json

import pytest

from conformance.agents import AGENTS, RESULTS, jobs_of
from conformance.cases import BASE, DEFLATE, SECTIONS, check, count, deflate, ordered, patterns, sampled
from tests.project.files import ROOT

HANDLER, FASTAPI, CLIENT = AGENTS


def test_the_suite_has_517_cases() -> None:
    assert sum(SECTIONS.values()) == 517
    assert set(SECTIONS) == {*BASE, *DEFLATE}
    assert count(patterns(BASE)) == 301


def test_28_of_the_cases_with_compression_are_sampled_from_every_group() -> None:
    cases = sampled()
    everything = [case for section in DEFLATE for case in deflate(section)]
    assert len(set(cases)) == len(cases) == 28
    assert set(cases) <= set(everything)
    assert {case.rpartition(".")[0] for case in cases} == {case.rpartition(".")[0] for case in everything}


def test_all_cases_with_compression_are_named() -> None:
    assert [len(deflate(section)) for section in DEFLATE] == [SECTIONS[section] for section in DEFLATE]


def test_cases_are_in_the_suites_order() -> None:
    assert ordered(["10.1.1", "9.10.1", "9.9.1", "3.2"]) == ["3.2", "9.9.1", "9.10.1", "10.1.1"]


@pytest.mark.parametrize("word", ["9.3.1", "3.2", "12.1.18", "10.*"])
def test_what_may_be_asked(word: str) -> None:
    assert check(word) == word


@pytest.mark.parametrize("word", ["9", "*", "9.3.*", "8.*", "11.1.1", "9.3.1.2", "9.x", "", "-9.1"])
def test_what_is_no_case(word: str) -> None:
    with pytest.raises(ValueError, match="is no case: write it as"):
        check(word)


def test_how_many_cases_each_agent_is_asked() -> None:
    def asked(full: bool) -> list[int]:
        return [sum(job.count for job in jobs_of(agent, full=full, only=None, limit_s=1)) for agent in AGENTS]

    assert asked(full=False) == [329, 329, 329]
    assert asked(full=True) == [517, 517, 517]


def test_every_job_has_a_folder_of_its_own() -> None:
    folders = [job.folder for agent in AGENTS for job in jobs_of(agent, full=True, only=None, limit_s=1)]
    assert len(set(folders)) == len(folders)
    assert all(folder.parent == RESULTS for folder in folders)


def test_single_cases_and_sections_can_be_asked() -> None:
    (job,) = jobs_of(CLIENT, full=False, only=("9.*", "7.1.5"), limit_s=1)
    assert job.count == SECTIONS[9] + 1


def test_what_is_expected_covers_every_case_of_a_run() -> None:
    for agent, full in ((HANDLER, 329), (FASTAPI, 329), (CLIENT, 329)):
        expected = json.loads((ROOT / "conformance" / "expected" / f"{agent.name}.json").read_text())
        assert len(expected) >= full
        assert not agent.deflate or set(sampled()) <= expected.keys()
