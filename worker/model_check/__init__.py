"""The command `python -m worker models check`. What it finds out is in `worker/engines/check.py`."""
