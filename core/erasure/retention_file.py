"""The file that gives tenants a retention of their own. `config` reads it once, at start.

[tenants]
acme = 30          # days after the end; fractions are taken
"studio-7" = 0     # kept until erased by request
"""

import math
import tomllib
from collections.abc import Mapping
from pathlib import Path

from infra.retry import Permanent
from schema import validate

SETTING = "DARKROOM_CORE_RETENTION_FILE"
MAX_DAYS = 36_500


class BadFile(Permanent):
    """The file cannot be used. The text is one line that says what to do."""


def read(path: Path) -> Mapping[str, float]:
    """Days by tenant. Raises BadFile, whose text names setting and file, and the tenant where one is at fault."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise _wrong(path, f"cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _wrong(path, f"is no TOML ({error})") from None
    unknown = sorted(content.keys() - {"tenants"})
    if unknown:
        raise _wrong(path, f"has {unknown[0]!r}: it may hold the table [tenants], with one line `tenant = days` each")
    tenants = content.get("tenants", {})
    if not isinstance(tenants, dict):
        raise _wrong(path, "has no table [tenants], but something else of that name")
    return {tenant: _days(path, tenant, days) for tenant, days in tenants.items()}


def _days(path: Path, tenant: str, days: object) -> float:
    try:
        validate.identifier("tenant", tenant)
    except validate.Invalid:
        raise _wrong(path, f"names {tenant!r}, which cannot be a tenant: letters, digits and _.:- only") from None
    number = isinstance(days, int | float) and not isinstance(days, bool)
    if not number or not math.isfinite(days) or not 0 <= days <= MAX_DAYS:  # type: ignore[arg-type, operator]
        raise _wrong(path, f"says {tenant} = {days!r}: days must be a number from 0 (kept) to {MAX_DAYS}")
    return float(days)  # type: ignore[arg-type]


def _wrong(path: Path, what: str) -> BadFile:
    return BadFile(f"{SETTING}: {path} {what}")
