"""Which models the worker can use: loading and unloading them, their faults, and when each is tried again.

Nothing here may know which images run. Begin with `model_pool`.
"""
