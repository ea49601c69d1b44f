"""The order of dispatch: which pending images are sent next. Pure and deterministic; the dispatcher feeds and asks it.

A batch begins with its head: of the tenant that was charged the least work, the image of the highest priority, and of
these the oldest. It is filled with images of the head's batch key in the same order, and each image is charged to its
own tenant. So a priority moves an image only past others of its own tenant. Neither priorities nor filled batches may
starve an image of the same tenant: the one that has waited longest is overtaken by at most `overtaking_s` seconds of
its tenant's work before it takes the tenant's turn. Work of other tenants does not count for that, since a turn given
for it would exceed the tenant's share.

This is start-time fair queueing (Goyal et al., SIGCOMM 1996): a tenant that comes back after a pause starts at the
virtual time of those being served, so it has not saved up a claim. Of two tenants with the same charge the one that
has waited longer goes first. Every structure is a heap or a deque with lazy deletion, rebuilt when half of its entries
are dead, so adding, removing and choosing cost O(log n) amortised, however many images are pending.
"""

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from core.domain.state import Ref

_SLACK: Final = 64
"""Dead entries that even a small heap or deque may hold before it is rebuilt."""
_LEAST_WORK_S: Final = 1e-6
"""The least that an image is charged; a tenant whose images are estimated at 0 would otherwise always be first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A pending image. `age`: smaller is older. `key`: the batch key. `work_s`: its estimated GPU time."""

    ref: Ref
    tenant: str
    priority: int
    age: int
    key: Hashable
    work_s: float


class _Item:
    __slots__ = ("arrival", "count", "image", "lane", "live", "mates", "ordinal", "owner", "work_s")
    lane: "_Lane"
    mates: "_Lane"

    def __init__(self, image: Pending, arrival: int, owner: "_Owner") -> None:
        self.image = image
        self.arrival = arrival
        self.work_s = max(image.work_s, _LEAST_WORK_S)
        self.live = True
        self.owner = owner
        self.count = owner.counts.setdefault(image.priority, _PriorityCount())
        self.count.entered += 1
        self.count.live += 1
        self.ordinal = self.count.entered


class _PriorityCount:
    """How many images of one tenant and priority have entered, have left, and are pending."""

    __slots__ = ("entered", "left", "live")

    def __init__(self) -> None:
        self.entered = self.left = self.live = 0


class _Owner:
    """A tenant with pending images, in the order of arrival. `overtaken_s`: the seconds of the tenant's work that have
    overtaken its longest-waiting image. `since`: the arrival number at which it last became active.
    """

    __slots__ = ("arrivals", "counts", "live", "overtaken_s", "since")

    def __init__(self, since: int) -> None:
        self.arrivals: deque[_Item] = deque()
        self.counts: dict[int, _PriorityCount] = {}
        self.live = 0
        self.overtaken_s = 0.0
        self.since = since

    def push(self, item: _Item) -> None:
        if len(self.arrivals) > 2 * self.live + _SLACK:
            self.arrivals = deque(each for each in self.arrivals if each.live)
        self.arrivals.append(item)
        self.live += 1

    def drop(self, item: _Item) -> None:
        self.live -= 1
        count = item.count
        count.live -= 1
        count.left += 1
        if not count.live:
            del self.counts[item.image.priority]

    def longest(self) -> _Item:
        while not self.arrivals[0].live:
            self.arrivals.popleft()
        return self.arrivals[0]

    def turn(self, item: _Item, overtaking_s: float) -> _Item:
        """`item`, or the image that has waited longest where `item` would overtake it by too much work."""
        longest = self.longest()
        return item if item is longest or self.overtaken_s + item.work_s <= overtaking_s else longest

    def goes(self, item: _Item) -> None:
        self.overtaken_s = 0.0 if item is self.longest() else self.overtaken_s + item.work_s


class _Lane:
    """The pending images of one tenant in one pool: the highest priority first, then the oldest."""

    __slots__ = ("heap", "live", "since")

    def __init__(self, since: int) -> None:
        self.heap: list[tuple[int, int, int, int, _Item]] = []
        self.live = 0
        self.since = since

    def push(self, item: _Item) -> None:
        if len(self.heap) > 2 * self.live + _SLACK:
            self.heap = [entry for entry in self.heap if entry[4].live]
            heapify(self.heap)
        image = item.image
        heappush(self.heap, (-image.priority, image.age, image.ref[1], item.arrival, item))
        self.live += 1

    def first(self) -> _Item:
        while not self.heap[0][4].live:
            heappop(self.heap)
        return self.heap[0][4]


class _Pool:
    """Images among which the tenants take turns: all images, or those of one batch key."""

    __slots__ = ("lanes", "live", "turns")

    def __init__(self) -> None:
        self.lanes: dict[str, _Lane] = {}
        self.turns: list[tuple[float, int, str]] = []
        self.live = 0

    def push(self, item: _Item, charge: float) -> _Lane:
        tenant = item.image.tenant
        lane = self.lanes.get(tenant)
        if lane is None:
            lane = self.lanes[tenant] = _Lane(item.owner.since)
            if len(self.turns) > 2 * len(self.lanes) + _SLACK:
                self.turns = [(0.0, of.since, each) for each, of in self.lanes.items() if each != tenant]
                heapify(self.turns)
            heappush(self.turns, (charge, lane.since, tenant))
        lane.push(item)
        self.live += 1
        return lane

    def drop(self, tenant: str, lane: _Lane) -> None:
        lane.live -= 1
        self.live -= 1
        if not lane.live:
            del self.lanes[tenant]  # its entry in `turns` is dropped when it comes up

    def next(self, charges: dict[str, float]) -> _Item | None:
        """The first image of the tenant with the least charge; None when the pool is empty."""
        # Charges only grow: a stale entry comes up too early and never too late, and is corrected then.
        while self.turns:
            noted, since, tenant = self.turns[0]
            lane = self.lanes.get(tenant)
            if lane is None or since != lane.since:
                heappop(self.turns)
            elif noted < charges[tenant]:
                heapreplace(self.turns, (charges[tenant], since, tenant))
            else:
                return lane.first()
        return None


class FairQueue:
    """The pending images, and the work charged to each tenant. `overtaking_s`: see the module's docstring."""

    def __init__(self, *, overtaking_s: float = 30.0) -> None:
        self._overtaking_s = overtaking_s
        self._items: dict[Ref, _Item] = {}
        self._arrived = 0
        self._all = _Pool()
        self._by_key: dict[Hashable, _Pool] = {}
        self._owners: dict[str, _Owner] = {}
        self._charges: dict[str, float] = {}
        self._virtual_s = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, ref: Ref) -> bool:
        return ref in self._items

    def add(self, image: Pending) -> None:
        """Add an image; nothing changes when it is already here."""
        if image.ref in self._items:
            return
        self._arrived += 1
        owner = self._activate(image.tenant)
        item = self._items[image.ref] = _Item(image, self._arrived, owner)
        owner.push(item)
        charge = self._charges[image.tenant]
        item.lane = self._all.push(item, charge)
        item.mates = self._by_key.setdefault(image.key, _Pool()).push(item, charge)

    def remove(self, ref: Ref) -> bool:
        """Remove an image without charging its tenant; False when it is not here."""
        item = self._items.get(ref)
        if item is None:
            return False
        if item is item.owner.longest():
            item.owner.overtaken_s = 0.0
        self._take_out(item)
        return True

    def choose(self, limit: int, batch: int, *, least: int = 0, work_s: float = math.inf) -> list[Pending]:
        """Remove and charge up to `limit` images, in the order of sending; each batch has up to `batch` images.

        Stops once they add up to `work_s` seconds of work and there are at least `least` of them.
        """
        chosen: list[Pending] = []
        mates = 0
        while len(chosen) < limit and (len(chosen) < least or work_s > 0):
            item = self._mate(chosen[-1].key) if mates else None
            if item is None:
                item, mates = self._head(), batch
            if item is None:
                break
            self._charge(item)
            chosen.append(item.image)
            mates -= 1
            work_s -= item.work_s
        return chosen

    def position(self, ref: Ref) -> int:
        """An estimate of the image's place in the order, from 1; 0 when it is not pending.

        Exact for one tenant served in order. With several it assumes equal turns, and it ignores that batches are
        filled and that the longest waiting image is protected.
        """
        item = self._items.get(ref)
        if item is None:
            return 0
        count, owner = item.count, item.owner
        rank = max(1, min(item.ordinal - count.left, count.live))
        rank += sum(other.live for priority, other in owner.counts.items() if priority > item.image.priority)
        return rank + min(self._all.live - owner.live, rank * (len(self._owners) - 1))

    def charged_s(self, tenant: str) -> float:
        """The virtual time of the tenant, in seconds of work; only differences are meaningful."""
        return self._charges.get(tenant, self._virtual_s)

    def _head(self) -> _Item | None:
        item = self._all.next(self._charges)
        return item and item.owner.turn(item, self._overtaking_s)

    def _mate(self, key: Hashable) -> _Item | None:
        pool = self._by_key.get(key)
        item = pool and pool.next(self._charges)
        if not item:
            return None
        item = item.owner.turn(item, self._overtaking_s)
        # Where the tenant's longest-waiting image is due and has another batch key, the batch ends here.
        return item if item.image.key == key else None

    def _charge(self, item: _Item) -> None:
        tenant = item.image.tenant
        least = self._all.next(self._charges) or item
        self._virtual_s = max(self._virtual_s, self._charges[least.image.tenant])
        self._charges[tenant] += item.work_s
        item.owner.goes(item)
        self._take_out(item)

    def _activate(self, tenant: str) -> _Owner:
        owner = self._owners.get(tenant)
        if owner is None:
            if len(self._charges) > 2 * len(self._owners) + _SLACK:
                # An inactive tenant would return at the virtual time; only a charge above that must be remembered.
                charges, now_s = self._charges, self._virtual_s
                self._charges = {each: s for each, s in charges.items() if each in self._owners or s > now_s}
            owner = self._owners[tenant] = _Owner(self._arrived)
            self._charges[tenant] = max(self._charges.get(tenant, 0.0), self._virtual_s)
        return owner

    def _take_out(self, item: _Item) -> None:
        image = item.image
        item.live = False
        del self._items[image.ref]
        self._all.drop(image.tenant, item.lane)
        mates = self._by_key[image.key]
        mates.drop(image.tenant, item.mates)
        if not mates.live:
            del self._by_key[image.key]
        item.owner.drop(item)
        if not item.owner.live:
            del self._owners[image.tenant]
