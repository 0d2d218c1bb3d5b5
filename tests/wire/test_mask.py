"""Masking is the same in C and in Python, for every kind of bytes and every turn of the mask."""

from __future__ import annotations

import pytest

from tidewire.wire.mask import apply_mask, mask_slowly

MASK = bytes.fromhex("01fe7f80")


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 31, 1000])
def test_masking_twice_is_nothing_in_c_and_in_python(kind: type, size: int) -> None:
    data = bytes(number % 256 for number in range(size))
    expected = bytes(byte ^ MASK[index % 4] for index, byte in enumerate(data))
    for mask in (apply_mask, mask_slowly):
        assert mask(kind(data), kind(MASK)) == expected
        assert mask(kind(expected), kind(MASK)) == data
