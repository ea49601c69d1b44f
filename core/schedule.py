"""Order: which pending images go to the queue next. Pure and deterministic; the dispatcher feeds and asks it.

The head of a batch is chosen by priority, then by fair share (the tenant that was charged the least
work), then by age. The batch fills with images of the head's key, in the same order, and each image is
charged to its own tenant. So that neither priorities nor full batches starve anybody, the image that has
waited longest is overtaken by at most `overtaking_s` seconds of work before its turn comes.

Fair share is start-time fair queueing (Goyal et al., SIGCOMM 1996): a tenant that comes back after a
pause starts at the share of those who are served now, so that nobody saves up a claim. Every structure is
a heap or a deque with lazy deletion, rebuilt when half of it is dead, so adding, removing and choosing cost
O(log n) however much is pending.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final

Ref = tuple[str, int]
"""An image: (generation id, index)."""

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
    __slots__ = ("arrival", "image", "lanes", "live", "ordinal", "work_s")

    def __init__(self, image: Pending, arrival: int) -> None:
        self.image = image
        self.arrival = arrival
        self.work_s = max(image.work_s, _LEAST_WORK_S)
        self.live = True
        self.ordinal = 0
        self.lanes: tuple[tuple[_Pool, _Lane], ...] = ()


class _Lane:
    """The waiting images of one tenant in one pool, oldest first."""

    __slots__ = ("entered", "heap", "left", "live")

    def __init__(self) -> None:
        self.heap: list[tuple[int, int, int, _Item]] = []
        self.live = self.entered = self.left = 0

    def push(self, item: _Item) -> None:
        if len(self.heap) > 2 * self.live + _SLACK:
            self.heap = [entry for entry in self.heap if entry[3].live]
            heapify(self.heap)
        heappush(self.heap, (item.image.age, item.image.ref[1], item.arrival, item))
        self.live += 1
        self.entered += 1

    def oldest(self) -> _Item:
        while not self.heap[0][3].live:
            heappop(self.heap)
        return self.heap[0][3]


class _Pool:
    """Images among which tenants take turns: those of one priority, or of one priority and key."""

    __slots__ = ("lanes", "live", "turns")

    def __init__(self) -> None:
        self.lanes: dict[str, _Lane] = {}
        self.turns: list[tuple[float, str]] = []
        self.live = 0

    def push(self, item: _Item, charge: float) -> _Lane:
        tenant = item.image.tenant
        lane = self.lanes.get(tenant)
        if lane is None:
            lane = self.lanes[tenant] = _Lane()
            if len(self.turns) > 2 * len(self.lanes) + _SLACK:
                self.turns = [(0.0, each) for each in sorted(self.lanes) if each != tenant]
            heappush(self.turns, (charge, tenant))
        lane.push(item)
        self.live += 1
        return lane

    def drop(self, tenant: str, lane: _Lane) -> None:
        lane.live -= 1
        lane.left += 1
        self.live -= 1
        if not lane.live:
            del self.lanes[tenant]  # its turn is dropped when it comes up

    def next(self, charges: dict[str, float]) -> _Item | None:
        """The oldest image of the tenant with the least charge; charges only grow, so stale turns come up early."""
        while self.turns:
            noted, tenant = self.turns[0]
            if tenant not in self.lanes:
                heappop(self.turns)
            elif noted < charges[tenant]:
                heapreplace(self.turns, (charges[tenant], tenant))
            else:
                return self.lanes[tenant].oldest()
        return None


class Backlog:
    """The pending images and what each tenant has been charged."""

    def __init__(self, *, overtaking_s: float = 30.0) -> None:
        self._overtaking_s = overtaking_s
        self._items: dict[Ref, _Item] = {}
        self._arrivals: deque[_Item] = deque()
        self._arrived = 0
        self._overtaken_s = 0.0
        self._by_priority: dict[int, _Pool] = {}
        self._by_key: dict[Hashable, dict[int, _Pool]] = {}
        self._waiting: dict[str, int] = {}
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
        item = self._items[image.ref] = _Item(image, self._arrived)
        charge = self._activate(image.tenant)
        pool = self._by_priority.setdefault(image.priority, _Pool())
        mates = self._by_key.setdefault(image.key, {}).setdefault(image.priority, _Pool())
        lane = pool.push(item, charge)
        item.ordinal = lane.entered
        item.lanes = ((pool, lane), (mates, mates.push(item, charge)))
        if len(self._arrivals) > 2 * len(self._items) + _SLACK:
            self._arrivals = deque(each for each in self._arrivals if each.live)
        self._arrivals.append(item)

    def remove(self, ref: Ref) -> bool:
        """Take an image out without charging anybody; False when it is not in."""
        item = self._items.get(ref)
        if item is None:
            return False
        if item is self._longest_waiting():
            self._overtaken_s = 0.0
        self._take_out(item)
        return True

    def choose(self, limit: int, batch: int) -> list[Pending]:
        """Take out and charge up to `limit` images, in the order in which to send them, `batch` to a head."""
        chosen: list[Pending] = []
        while len(chosen) < limit and (head := self._head()) is not None:
            self._charge(head)
            chosen.append(head.image)
            room = min(batch, limit - len(chosen) + 1) - 1
            while room > 0 and (mate := self._mate(head.image.key)) is not None:
                self._charge(mate)
                chosen.append(mate.image)
                room -= 1
        return chosen

    def position(self, ref: Ref) -> int:
        """About how many images go first, plus 1; 0 when it is not pending.

        Exact for one tenant served in order. With several it assumes that all take equal turns, and it counts
        neither full batches nor the protection of the longest waiting.
        """
        item = self._items.get(ref)
        if item is None:
            return 0
        pool, lane = item.lanes[0]
        rank = max(1, min(item.ordinal - lane.left, lane.live))
        higher = sum(other.live for priority, other in self._by_priority.items() if priority > item.image.priority)
        others = min(pool.live - lane.live, rank * (len(pool.lanes) - 1))
        return higher + others + rank

    def charged_s(self, tenant: str) -> float:
        """The tenant's place in the fair share, in seconds of work; only differences mean something."""
        return self._charges.get(tenant, self._floor)

    def _head(self) -> _Item | None:
        longest = self._longest_waiting()
        if longest is None:
            return None
        item = self._by_priority[max(self._by_priority)].next(self._charges)
        if item is None or (item is not longest and self._overtaken_s + item.work_s > self._overtaking_s):
            return longest
        return item

    def _mate(self, key: Hashable) -> _Item | None:
        pools = self._by_key.get(key)
        if not pools:
            return None
        item = pools[max(pools)].next(self._charges)
        if item is None or item is self._longest_waiting():
            return item
        return item if self._overtaken_s + item.work_s <= self._overtaking_s else None

    def _charge(self, item: _Item) -> None:
        tenant = item.image.tenant
        if item is self._longest_waiting():
            self._overtaken_s = 0.0
        else:
            self._overtaken_s += item.work_s
        self._floor = max(self._floor, min(self._charges[tenant], self._least_charge(item)))
        self._charges[tenant] += item.work_s
        self._take_out(item)

    def _least_charge(self, item: _Item) -> float:
        """The least charge among the tenants of the item's priority; its own when it was not the head."""
        pool = item.lanes[0][0]
        least = pool.next(self._charges)
        return self._charges[item.image.tenant if least is None else least.image.tenant]

    def _longest_waiting(self) -> _Item | None:
        while self._arrivals and not self._arrivals[0].live:
            self._arrivals.popleft()
        return self._arrivals[0] if self._arrivals else None

    def _activate(self, tenant: str) -> float:
        waiting = self._waiting.get(tenant, 0)
        self._waiting[tenant] = waiting + 1
        if not waiting:
            if len(self._charges) > 2 * len(self._waiting) + _SLACK:
                self._charges = {
                    each: charge
                    for each, charge in self._charges.items()
                    if each in self._waiting or charge > self._floor
                }
            self._charges[tenant] = max(self._charges.get(tenant, 0.0), self._floor)
        return self._charges[tenant]

    def _take_out(self, item: _Item) -> None:
        image = item.image
        item.live = False
        del self._items[image.ref]
        for pool, lane in item.lanes:
            pool.drop(image.tenant, lane)
        item.lanes = ()
        if not self._by_priority[image.priority].live:
            del self._by_priority[image.priority]
        mates = self._by_key[image.key]
        if not mates[image.priority].live:
            del mates[image.priority]
            if not mates:
                del self._by_key[image.key]
        self._waiting[image.tenant] -= 1
        if not self._waiting[image.tenant]:
            del self._waiting[image.tenant]
