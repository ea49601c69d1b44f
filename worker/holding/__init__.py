"""The images that the worker holds: the prefetch window, and the leases on their messages.

Nothing here may render. Begin with `types`, then `window` and `heartbeat`.
"""
