"""Wall time, for composition roots and `infra.ids`. Other modules get `wall_ms` injected and time with the loop."""

import time


def wall_ms() -> int:
    """Milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000
