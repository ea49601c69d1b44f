"""An engine in a process of its own, spoken to over a Unix socket: a crash or a hang ends that process alone.

Nothing here may know a model. Begin with `engine`; `worker.engine_server` is the other end.
"""
