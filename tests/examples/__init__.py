"""Tests of the examples, beside the demo, which is tested in a real browser (tests/system)."""
