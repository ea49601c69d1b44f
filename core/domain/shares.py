"""Who may have how much unfinished work at once: the rule of admission, and the books that it is kept by. Pure.

Work is counted twice. A *charge* is estimated GPU time in millionths of one image of the default model's default
request (`ONE`), frozen in `generation.requested`; *images* are what core's memory holds. With T everybody's charge, u
the tenant's own, w the request's, n the tenants with unfinished work (this one included) and C the cap, a request is
admitted if T + w <= C, or u + w <= C/n, or u = 0; and never beyond the hard bound M of images. The first and the third
may fill half of M only, so that the other half is there for whoever is below its share (C/n, and M/16n images).

What follows, with H(n) = 1 + 1/2 + ... + 1/n (tests/property/test_shares.py):

- Charges: T <= C*H(n) + the requests admitted for u = 0. Order the n active tenants by their last admission: at that of
  the i-th, the i - 1 before it were active too, so its u was at most C/i, unless it was admitted for u = 0; and up to
  the last one for which T + w <= C held, all together had at most C.
- Images: never above M. A tenant below its share is refused only above M/2 + H(n)*M/16, which M is not below while
  n <= 1,673 (H(n) <= 8): up to there it depends on how many the others are, and on nothing that they do.
- A smaller request is admitted wherever a larger one is.

Integers throughout, so that books rebuilt after a restart are equal to the last digit.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final, assert_never

ONE: Final = 1_000_000
"""The charge of one image of the default model's default request."""

MOST: Final = ONE * ONE
"""The largest charge of one image, whatever was estimated."""

SHARED_PART: Final = 2
"""One part in so many of the hard bound is open to requests beyond a share."""

IMAGE_SHARE: Final = 16
"""One part in so many of the hard bound is what the shares in images are parts of. Twice H(1,673)."""

LEAST_IMAGES: Final = 1_000
"""The least hard bound that a cap brings with it: under small caps, too, newcomers need some places."""


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
    """`charge`: C. `images`: the hard bound M."""

    charge: int
    images: int


def caps(default_images: int, hard_images: int = 0) -> Caps:
    """Room for so many images of the default request. `hard_images` 0: sixteen times that, and 1,000 at least."""
    return Caps(default_images * ONE, hard_images or max(IMAGE_SHARE * default_images, LEAST_IMAGES))


class Ground(StrEnum):
    """Why a request was admitted; the names are those of the metric."""

    ROOM = "room"
    SHARE = "below_share"
    FIRST = "first"


class Bound(IntEnum):
    """Why a request was refused. Numbers are those of `pb.BacklogBound`."""

    SHARE = 1
    EVERYTHING = 2


@dataclass(frozen=True, slots=True)
class TooMuch:
    """A refusal. `ahead`: the charge that must end, of everybody's work, before the request is likely to fit."""

    bound: Bound
    ahead: int


def judge(caps: Caps, total: Usage, own: Usage, active: int, wanted: Usage) -> Ground | TooMuch:
    """Whether to admit `wanted`. `active` counts the tenants with unfinished work, and this one in any case."""
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
    """The least of what must end before one of the conditions holds, if all tenants are served alike."""
    match bound:
        case Bound.EVERYTHING:
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
class Books:
    """What every tenant has unfinished."""

    total: Usage = NOTHING
    _own: dict[str, Usage] = field(default_factory=dict)

    @classmethod
    def of(cls, held: Iterable[tuple[str, Usage]]) -> "Books":
        """The books of so much work of these tenants."""
        books = cls()
        for tenant, usage in held:
            books._set(tenant, books.own(tenant) + usage)
        return books

    @property
    def active(self) -> int:
        """How many tenants have unfinished work."""
        return len(self._own)

    def own(self, tenant: str) -> Usage:
        """What the tenant has unfinished."""
        return self._own.get(tenant, NOTHING)

    def _set(self, tenant: str, usage: Usage) -> None:
        self.total = self.total - self.own(tenant) + usage
        if usage.images:
            self._own[tenant] = usage
        else:
            self._own.pop(tenant, None)


class Sheet:
    """Changes to the books that may still come to nothing: those of a transaction that is not yet durable."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._own: dict[str, Usage] = {}
        self._active = books.active
        self.total = books.total

    def judge(self, caps: Caps, tenant: str, wanted: Usage) -> Ground | TooMuch:
        """Whether to admit `wanted` on top of what stands here."""
        own = self._of(tenant)
        return judge(caps, self.total, own, self._active + (not own.images), wanted)

    def change(self, tenant: str, by: Usage) -> None:
        """Charge, or give back."""
        before = self._of(tenant)
        after = self._own[tenant] = before + by
        self._active += bool(after.images) - bool(before.images)
        self.total += by

    def post(self) -> None:
        """It is durable: enter it."""
        for tenant, usage in self._own.items():
            self._books._set(tenant, usage)  # noqa: SLF001  (two halves of one thing)

    def _of(self, tenant: str) -> Usage:
        found = self._own.get(tenant)
        return self._books.own(tenant) if found is None else found
