"""Order: which pending images go to the queue next. Pure and deterministic; the dispatcher feeds and asks it.

The head of a batch is an image of the tenant that was charged the least work; of its images the one of the highest
priority; of these the oldest. The batch fills with images of the head's key in the same order, and each image is
charged to its own tenant. So a priority moves an image past others of its own tenant alone. So that
neither priorities nor full batches starve an image of the same tenant, the one that has waited longest is overtaken
by at most `overtaking_s` seconds of its own tenant's work before it takes the tenant's turn. The work of others
does not count for that: a turn given for it would be one beyond the tenant's share.

Fair share is start-time fair queueing (Goyal et al., SIGCOMM 1996): a tenant that comes back after a
pause starts at the share of those who are served now, so that no claim is saved up; of two with the same charge
the one that has waited longer goes first. Every structure is a heap or a deque with lazy deletion, rebuilt when half
of it is dead, so adding, removing and choosing cost O(log n) however much is pending.
"""

import math
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

from core.domain.state import Ref

_SLACK: Final = 64
_LEAST_WORK_S: Final = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """An image that waits. `age`: smaller is older. `key`: what batch mates share. `work_s`: estimated GPU seconds."""

    ref: Ref
    tenant: str
    priority: int
    age: int
    key: Hashable
    work_s: float


class _Item:
    __slots__ = ("arrival", "image", "lane", "line", "live", "mates", "ordinal", "own", "work_s")
    lane: "_Lane"
    mates: "_Lane"

    def __init__(self, image: Pending, arrival: int, own: "_Own") -> None:
        self.image = image
        self.arrival = arrival
        self.work_s = max(image.work_s, _LEAST_WORK_S)
        self.live = True
        self.own = own
        self.line = own.lines.setdefault(image.priority, _Line())
        self.line.entered += 1
        self.line.live += 1
        self.ordinal = self.line.entered


class _Line:
    """How many images of one tenant and priority have come, have gone, and wait."""

    __slots__ = ("entered", "left", "live")

    def __init__(self) -> None:
        self.entered = self.left = self.live = 0


class _Own:
    """One tenant with waiting images: these in the order of arrival, and by how much its longest waiting is overtaken.

    `since`: the arrival with which it began to wait.
    """

    __slots__ = ("arrivals", "lines", "live", "overtaken_s", "since")

    def __init__(self, since: int) -> None:
        self.arrivals: deque[_Item] = deque()
        self.lines: dict[int, _Line] = {}
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
        line = item.line
        line.live -= 1
        line.left += 1
        if not line.live:
            del self.lines[item.image.priority]

    def longest(self) -> _Item:
        while not self.arrivals[0].live:
            self.arrivals.popleft()
        return self.arrivals[0]

    def turn(self, item: _Item, overtaking_s: float) -> _Item:
        """`item`, or the one that has waited longest if that would be overtaken by too much."""
        longest = self.longest()
        return item if item is longest or self.overtaken_s + item.work_s <= overtaking_s else longest

    def goes(self, item: _Item) -> None:
        self.overtaken_s = 0.0 if item is self.longest() else self.overtaken_s + item.work_s


class _Lane:
    """The waiting images of one tenant in one pool: the highest priority first, then the oldest."""

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
    """Images among which tenants take turns: all, or those of one key."""

    __slots__ = ("lanes", "live", "turns")

    def __init__(self) -> None:
        self.lanes: dict[str, _Lane] = {}
        self.turns: list[tuple[float, int, str]] = []
        self.live = 0

    def push(self, item: _Item, charge: float) -> _Lane:
        tenant = item.image.tenant
        lane = self.lanes.get(tenant)
        if lane is None:
            lane = self.lanes[tenant] = _Lane(item.own.since)
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
            del self.lanes[tenant]  # its turn is dropped when it comes up

    def next(self, charges: dict[str, float]) -> _Item | None:
        """The first image of the tenant with the least charge; charges only grow, so stale turns come up early."""
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
    """The pending images and what each tenant has been charged."""

    def __init__(self, *, overtaking_s: float = 30.0) -> None:
        self._overtaking_s = overtaking_s
        self._items: dict[Ref, _Item] = {}
        self._arrived = 0
        self._all = _Pool()
        self._by_key: dict[Hashable, _Pool] = {}
        self._own: dict[str, _Own] = {}
        self._charges: dict[str, float] = {}
        self._floor = 0.0

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, ref: Ref) -> bool:
        return ref in self._items

    def add(self, image: Pending) -> None:
        """Put an image in; one that is in already stays where it is."""
        if image.ref in self._items:
            return
        self._arrived += 1
        own = self._activate(image.tenant)
        item = self._items[image.ref] = _Item(image, self._arrived, own)
        own.push(item)
        charge = self._charges[image.tenant]
        item.lane = self._all.push(item, charge)
        item.mates = self._by_key.setdefault(image.key, _Pool()).push(item, charge)

    def remove(self, ref: Ref) -> bool:
        """Take an image out without charging anybody; False when it is not in."""
        item = self._items.get(ref)
        if item is None:
            return False
        if item is item.own.longest():
            item.own.overtaken_s = 0.0
        self._take_out(item)
        return True

    def choose(self, limit: int, batch: int, *, least: int = 0, work_s: float = math.inf) -> list[Pending]:
        """Take out and charge up to `limit` images, in the order in which to send them, `batch` to a head.

        No more once they come to `work_s` seconds of work, if they are `least` by then.
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
        """About how many images go first, plus 1; 0 when it is not pending.

        Exact for one tenant served in order. With several it assumes that all take equal turns, and it counts
        neither full batches nor the protection of the longest waiting.
        """
        item = self._items.get(ref)
        if item is None:
            return 0
        line, own = item.line, item.own
        rank = max(1, min(item.ordinal - line.left, line.live))
        rank += sum(other.live for priority, other in own.lines.items() if priority > item.image.priority)
        return rank + min(self._all.live - own.live, rank * (len(self._own) - 1))

    def charged_s(self, tenant: str) -> float:
        """The tenant's place in the fair share, in seconds of work; only differences mean something."""
        return self._charges.get(tenant, self._floor)

    def _head(self) -> _Item | None:
        item = self._all.next(self._charges)
        return item and item.own.turn(item, self._overtaking_s)

    def _mate(self, key: Hashable) -> _Item | None:
        pool = self._by_key.get(key)
        item = pool and pool.next(self._charges)
        if not item:
            return None
        item = item.own.turn(item, self._overtaking_s)
        return item if item.image.key == key else None

    def _charge(self, item: _Item) -> None:
        tenant = item.image.tenant
        least = self._all.next(self._charges) or item
        self._floor = max(self._floor, self._charges[least.image.tenant])
        self._charges[tenant] += item.work_s
        item.own.goes(item)
        self._take_out(item)

    def _activate(self, tenant: str) -> _Own:
        own = self._own.get(tenant)
        if own is None:
            if len(self._charges) > 2 * len(self._own) + _SLACK:
                self._charges = {
                    each: charge for each, charge in self._charges.items() if each in self._own or charge > self._floor
                }
            own = self._own[tenant] = _Own(self._arrived)
            self._charges[tenant] = max(self._charges.get(tenant, 0.0), self._floor)
        return own

    def _take_out(self, item: _Item) -> None:
        image = item.image
        item.live = False
        del self._items[image.ref]
        self._all.drop(image.tenant, item.lane)
        mates = self._by_key[image.key]
        mates.drop(image.tenant, item.mates)
        if not mates.live:
            del self._by_key[image.key]
        item.own.drop(item)
        if not item.own.live:
            del self._own[image.tenant]
