"""Faults of the disk under a real core: system calls that fail or kill, bytes that turn, power that goes.

`python -m tests.storage` runs the long form of what `tests/crash/test_storage_*.py` run briefly.
"""
