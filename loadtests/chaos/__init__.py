"""Chaos with real processes: `python -m loadtests.chaos`, behind `just chaos`. See loadtests/README.md."""
