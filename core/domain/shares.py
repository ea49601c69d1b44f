"""Admission: how much unfinished work a tenant may have, and how much each has. Pure.

Work is counted in two units. A *charge* is estimated GPU time, in millionths of one image of the default model's
default request (`ONE`); it is frozen in `generation.requested`. *Images* count what core holds in memory. Let T be the
charge of all tenants, u that of the requesting tenant, w that of the request, n the number of tenants with unfinished
work (this one included), C the cap and M the hard bound on images. A request is admitted if T + w <= C, or
u + w <= C/n, or u = 0, and never beyond M. The first and third condition may fill only half of M: the other half is
reserved for tenants below their share (a charge of C/n and M/16n images).

This gives the following bounds, with H(n) = 1 + 1/2 + ... + 1/n (tests/property/test_shares.py):

- Charges: T <= C*H(n) + the requests admitted for u = 0. Order the n active tenants by their last admission: at that of
  the i-th, the i - 1 before it were active too, so its u was at most C/i, unless it was admitted for u = 0; and up to
  the last one for which T + w <= C held, all together had at most C.
- Images: never above M. A tenant below its share is refused only above M/2 + H(n)*M/16. That is at most M while
  n <= 1,673 (H(n) <= 8), so up to there a refusal depends on the number of other tenants and not on their behaviour.
- Whenever a request is admitted, a smaller one is admitted too.

All arithmetic is in integers, so that the usage recomputed after a restart is exactly the usage before it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, assert_never

ONE: Final = 1_000_000
"""The charge of one image of the default model's default request."""

MOST: Final = ONE * ONE
"""The upper limit of the charge of one image; larger estimates are cut to it."""

SHARED_PART: Final = 2
"""Requests beyond a share may fill 1/2 of the hard bound."""

IMAGE_SHARE: Final = 16
"""The shares in images divide 1/16 of the hard bound: 16 = 2 * H(1,673), see the module's docstring."""

LEAST_IMAGES: Final = 1_000
"""The smallest default of the hard bound, so that new tenants fit in with a small cap too."""


@dataclass(frozen=True, slots=True)
class Usage:
    """An amount of unfinished work."""

    charge: int = 0
    images: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(self.charge + other.charge, self.images + other.images)

    def __sub__(self, other: "Usage") -> "Usage":
        return Usage(self.charge - other.charge, self.images - other.images)


NOTHING: Final = Usage()


@dataclass(frozen=True, slots=True)
class Caps:
    """The limits on all unfinished work: `charge` is C, `images` the hard bound M."""

    charge: int
    images: int


def caps(default_images: int, hard_images: int = 0) -> Caps:
    """The caps for `default_images` images of the default request. `hard_images` 0: 16 times that, at least 1,000."""
    return Caps(default_images * ONE, hard_images or max(IMAGE_SHARE * default_images, LEAST_IMAGES))


class Ground(StrEnum):
    """Why a request was admitted. The values are labels of the metric."""

    ROOM = "room"
    SHARE = "below_share"
    FIRST = "first"


class Bound(IntEnum):
    """Which bound refused a request. The numbers are those of `pb.BacklogBound`."""

    SHARE = 1
    EVERYTHING = 2


@dataclass(frozen=True, slots=True)
class TooMuch:
    """A refusal. `ahead`: how much charge, over all tenants, must finish before the request is likely to fit."""

    bound: Bound
    ahead: int


def judge(caps: Caps, total: Usage, own: Usage, active: int, wanted: Usage) -> Ground | TooMuch:
    """Whether to admit `wanted`. `active` is the number of tenants with unfinished work, this one included."""
    images = total.images + wanted.images
    roomy = images * SHARED_PART <= caps.images
    below = (
        active * (own.charge + wanted.charge) <= caps.charge
        and active * (own.images + wanted.images) * IMAGE_SHARE <= caps.images
    )
    if roomy and total.charge + wanted.charge <= caps.charge:
        return Ground.ROOM
    if below and images <= caps.images:
        return Ground.SHARE
    if roomy and not own.images:
        return Ground.FIRST
    bound = Bound.SHARE if own.images and not below else Bound.EVERYTHING
    return TooMuch(bound, _ahead(bound, caps, total, own, active, wanted))


def _ahead(bound: Bound, caps: Caps, total: Usage, own: Usage, active: int, wanted: Usage) -> int:
    """The least charge that must finish before one of the conditions holds, if all tenants are served equally."""
    match bound:
        case Bound.EVERYTHING:
            # The images above the part of the bound that is open to all, at the average charge of an image.
            above = total.images + wanted.images - caps.images // SHARED_PART
            return max(1, above * (total.charge // max(1, total.images)))
        case Bound.SHARE:
            ways = [active * own.charge]
            if wanted.charge <= caps.charge:
                ways.append(total.charge + wanted.charge - caps.charge)
            if active * wanted.charge <= caps.charge:
                ways.append(active * (own.charge + wanted.charge) - caps.charge)
            return max(1, min((way for way in ways if way > 0), default=1))
        case _:
            assert_never(bound)


@dataclass(slots=True)
class UsageByTenant:
    """The durable accounts: the unfinished work of each tenant, and the total."""

    total: Usage = NOTHING
    _own: dict[str, Usage] = field(default_factory=dict)

    @classmethod
    def of(cls, held: Iterable[tuple[str, Usage]]) -> "UsageByTenant":
        """The accounts after adding up (tenant, usage) pairs."""
        accounts = cls()
        for tenant, usage in held:
            accounts._set(tenant, accounts.own(tenant) + usage)
        return accounts

    @property
    def active(self) -> int:
        """The number of tenants with unfinished work."""
        return len(self._own)

    def own(self, tenant: str) -> Usage:
        """The unfinished work of the tenant."""
        return self._own.get(tenant, NOTHING)

    def _set(self, tenant: str, usage: Usage) -> None:
        self.total = self.total - self.own(tenant) + usage
        if usage.images:
            self._own[tenant] = usage
        else:
            self._own.pop(tenant, None)


class PendingUsage:
    """The accounts as a pending transaction changes them. Only `commit` makes them final, since the append may fail."""

    def __init__(self, durable: UsageByTenant) -> None:
        self._durable = durable
        self._own: dict[str, Usage] = {}
        self._active = durable.active
        self.total = durable.total

    def judge(self, caps: Caps, tenant: str, wanted: Usage) -> Ground | TooMuch:
        """Whether to admit `wanted` on top of the durable and the pending usage."""
        own = self._of(tenant)
        return judge(caps, self.total, own, self._active + (not own.images), wanted)

    def change(self, tenant: str, by: Usage) -> None:
        """Add to the usage of a tenant; a negative amount gives work back."""
        before = self._of(tenant)
        after = self._own[tenant] = before + by
        self._active += bool(after.images) - bool(before.images)
        self.total += by

    def commit(self) -> None:
        """Write the changes to the durable accounts, once the transaction is durable."""
        for tenant, usage in self._own.items():
            self._durable._set(tenant, usage)  # noqa: SLF001  (both classes are halves of one account)

    def _of(self, tenant: str) -> Usage:
        found = self._own.get(tenant)
        return self._durable.own(tenant) if found is None else found
