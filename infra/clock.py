"""Wall time. Only composition roots call this; other modules are given `wall_ms`, and take intervals from the loop."""

import time


def wall_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000
