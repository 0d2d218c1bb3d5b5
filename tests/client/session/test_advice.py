"""The policy of close codes, errors and the ends of tokens (centrifugal.dev, "Client protocol")."""

import pytest

from tidewire.client.reconnect import ComeBack
from tidewire.client.session.advice import advise_close, may_ask_again, refresh_after_s
from tidewire.protocol import codes


@pytest.mark.parametrize("code", [1009, 3500, 3501, 3999, 4500, 4999])
def test_final_codes(code: int) -> None:
    assert advise_close(code).come_back is ComeBack.STOP


@pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 2999, 3000, 3499, 4000, 4413, 4499, 5000])
def test_all_others_come_back_soon(code: int) -> None:
    assert advise_close(code).come_back is ComeBack.FAST


@pytest.mark.parametrize("code", [1002, 1003, 1007, 1008, 3013])
def test_what_would_happen_again_at_once_comes_back_slowly(code: int) -> None:
    assert advise_close(code).come_back is ComeBack.SLOW


def test_every_code_of_a_session_says_the_same_as_its_table() -> None:
    for one in codes.SESSION_CODES:
        assert (advise_close(one.code).come_back is not ComeBack.STOP) == one.come_back, one


def test_the_reason_quotes_the_server() -> None:
    assert advise_close(4123, "lunch").reason == "the server closed (4123, lunch)"
    assert advise_close(4999).reason == "the server refuses (4999)"
    assert advise_close(3001, "shutdown").reason == "the server stops or restarts (3001, shutdown)"


def test_which_errors_may_be_asked_again() -> None:
    for fault in codes.FAULTS:
        expected = fault.temporary or fault is codes.TOKEN_EXPIRED
        assert may_ask_again(fault.code, fault.temporary) == expected, fault
    assert may_ask_again(99, False)
    assert not may_ask_again(400, False)
    assert may_ask_again(400, True)


@pytest.mark.parametrize("ttl_s", [1, 5, 60, 150, 3600, 2**32 - 1])
def test_a_new_token_is_got_before_the_old_one_ends(ttl_s: int) -> None:
    assert 0 < refresh_after_s(ttl_s) < ttl_s
    assert ttl_s - refresh_after_s(ttl_s) <= 30
