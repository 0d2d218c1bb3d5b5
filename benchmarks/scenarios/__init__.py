"""The scenarios: each module runs one and returns plain data; benchmarks/report.py words it."""
