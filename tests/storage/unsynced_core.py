"""`python -m tests.storage.unsynced_core`: core as it is, but for PRAGMA synchronous = NORMAL.

What the power-loss model must catch. No setting of production can do this, so that none can do it by mistake.
"""

import sys
from collections.abc import Callable
from typing import Any

from core.__main__ import main
from core.log import connection


def weakened(set_pragmas: Callable[[Any], None]) -> Callable[[Any], None]:
    def weak(connection: Any) -> None:
        set_pragmas(connection)
        connection.execute("PRAGMA synchronous = NORMAL")

    return weak


if __name__ == "__main__":
    vars(connection)["set_pragmas"] = weakened(connection.set_pragmas)
    sys.exit(main(["serve"]))
