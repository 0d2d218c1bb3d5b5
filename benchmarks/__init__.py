"""Benchmarks: ``python -m benchmarks.run all``. Linux only; what they mean is in docs/benchmarks.md."""
