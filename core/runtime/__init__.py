"""What a running core keeps in memory, and its clocks: the writer, estimates, prompts, what workers report.

Nothing here may know a message's bytes or an RPC. Begin with `writer`: every change of the log goes through it.
"""
