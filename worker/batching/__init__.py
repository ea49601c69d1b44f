"""Which images render together: pure functions of what waits and of measured step times.

Nothing here may know messages, threads or a clock. Begin with `policy`.
"""
