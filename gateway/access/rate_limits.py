"""How many requests a key or an address may send: token buckets by rules from a TOML file.

A bucket holds `burst` tokens and gains `rate_per_s` of them each second; a request takes one from the bucket of each
rule that covers it, or is refused and takes none. The table of buckets is bounded; the bucket idle for longest is
dropped first, which only means that its owner has a full one again. The file::

    [[rules]]
    name = "submissions-per-key"      # shown in the RateLimit headers
    by = "key"                        # key | source (the address; /64 for IPv6)
    operations = ["createGeneration"] # operation ids of the API description; left out: all that need a key
    rate_per_s = 5.0
    burst = 20
"""

import ipaddress
import math
import tomllib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway.errors import RateLimited

MAX_BUCKETS = 20_000


class Rule(BaseModel):
    """One rule of the file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    by: Literal["key", "source"]
    operations: list[str] | None = None
    rate_per_s: Annotated[float, Field(gt=0, le=1_000_000, allow_inf_nan=False)]
    burst: Annotated[int, Field(ge=1, le=1_000_000)]


class _Rules(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    rules: list[Rule] = []


class RulesFileError(Exception):
    """The rules file cannot be used; the text says why."""


def load_rules(path: Path, operations: Sequence[str]) -> tuple[Rule, ...]:
    """The rules in the file. Raises RulesFileError, also for one with an operation not in `operations`."""
    try:
        rules = _Rules.model_validate(tomllib.loads(path.read_text("utf-8"))).rules
    except OSError as error:
        raise RulesFileError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RulesFileError(f"{path}: {error}") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise RulesFileError(f"{path}: {problems}") from None
    unknown = {name for rule in rules for name in rule.operations or ()} - set(operations)
    if unknown:
        raise RulesFileError(f"{path}: no such operation: {', '.join(sorted(unknown))}")
    if len({rule.name for rule in rules}) < len(rules):
        raise RulesFileError(f"{path}: duplicate rule name")
    return tuple(rules)


class Limits:
    """The buckets. `on_refusal` is called with the name of the rule. Times come from `now`, in seconds."""

    def __init__(
        self,
        rules: Sequence[Rule],
        *,
        now: Callable[[], float],
        on_refusal: Callable[[str], None],
        max_buckets: int = MAX_BUCKETS,
    ) -> None:
        self._by_key = tuple(rule for rule in rules if rule.by == "key")
        self._by_source = tuple(rule for rule in rules if rule.by == "source")
        self._now = now
        self._on_refusal = on_refusal
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def check_source(self, operation: str, address: str) -> Mapping[str, str]:
        """Takes a token for the address; returns headers for the answer. Raises RateLimited."""
        return self._check(self._by_source, operation, source_of(address)) if self._by_source else {}

    def check_key(self, operation: str, key_id: str) -> Mapping[str, str]:
        """Takes a token for the key; returns headers for the answer. Raises RateLimited."""
        return self._check(self._by_key, operation, key_id) if self._by_key else {}

    def _check(self, rules: Sequence[Rule], operation: str, subject: str) -> Mapping[str, str]:
        now = self._now()
        covering = [rule for rule in rules if rule.operations is None or operation in rule.operations]
        levels = [(rule, self._level(rule, subject, now)) for rule in covering]
        for rule, level in levels:
            if level < 1:
                self._on_refusal(rule.name)
                wait_s = max(1, math.ceil((1 - level) / rule.rate_per_s))
                refusal = RateLimited(f"The limit {rule.name!r} is reached.", retry_after_s=wait_s)
                refusal.headers = _headers([(rule, level)])
                raise refusal
        for rule, level in levels:
            self._store((rule.name, subject), (level - 1, now))
        return _headers([(rule, level - 1) for rule, level in levels])

    def _level(self, rule: Rule, subject: str, now: float) -> float:
        found = self._buckets.get((rule.name, subject))
        if found is None:
            return float(rule.burst)
        tokens, since = found
        return min(float(rule.burst), tokens + (now - since) * rule.rate_per_s)

    def _store(self, key: tuple[str, str], bucket: tuple[float, float]) -> None:
        self._buckets[key] = bucket
        self._buckets.move_to_end(key)
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)


def _headers(levels: Sequence[tuple[Rule, float]]) -> dict[str, str]:
    """Fields of draft-ietf-httpapi-ratelimit-headers-11: tokens left, and seconds until the bucket is full."""
    if not levels:
        return {}
    left = ", ".join(
        f'"{rule.name}";r={max(0, int(level))};t={math.ceil((rule.burst - level) / rule.rate_per_s)}'
        for rule, level in levels
    )
    policy = ", ".join(
        f'"{rule.name}";q={rule.burst};w={max(1, math.ceil(rule.burst / rule.rate_per_s))}' for rule, _ in levels
    )
    return {"RateLimit": left, "RateLimit-Policy": policy}


@lru_cache(maxsize=4096)
def source_of(address: str) -> str:
    """What counts as one source: an IPv4 address, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed), 64), strict=False))
