"""The operator's commands on the log, by `python -m core`: init, verify, backup, restore, rebuild, history.

Nothing that core needs while it serves; no other room imports from here. Begin with `cli`, which `__main__` calls.
"""
