"""The event log in SQLite: appends, reads, the hash chain and the checks at a start.

Knows events and rows, and no rule of the domain but how to project them; nothing here may know queues or stores. Begin
with `sqlite_log`, the adapter of `core.ports.Log`; the operator's commands are in `offline`.
"""
