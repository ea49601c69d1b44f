"""The operator's commands on the log, run by `python -m core`: init, verify, backup, restore, rebuild, history.

A serving core uses nothing of this, and no other room imports it. Begin with `cli`, which `__main__` calls.
"""
