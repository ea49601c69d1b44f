"""The rule of admission keeps what it promises, whatever tenants come, ask and leave."""

from itertools import accumulate, count
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from core.domain.shares import (
    IMAGE_SHARE,
    ONE,
    Bound,
    Caps,
    Ground,
    PendingUsage,
    TooMuch,
    Usage,
    UsageByTenant,
    caps,
    judge,
)

HARMONIC = [0.0, *accumulate(1 / n for n in range(1, 5_001))]
GUARANTEED_TENANTS = 1_673

charges = st.one_of(st.integers(1, 20), st.integers(1, 20 * ONE), st.sampled_from([ONE, 80 * ONE, 307_200 * ONE]))
wishes = st.builds(lambda charge, n: Usage(charge * n, n), charges, st.integers(1, 10))
amounts = st.builds(Usage, st.integers(0, 10**12), st.integers(0, 10**5))


def below_share(allowed: Caps, own: Usage, active: int, wanted: Usage) -> bool:
    """As the documents put it: within C/n in charge, and within M/16n in images."""
    after = own + wanted
    return after.charge * active <= allowed.charge and after.images * active * IMAGE_SHARE <= allowed.images


@given(
    allowed=st.builds(Caps, st.integers(1, 10**10), st.integers(100, 10**5)),
    others=amounts,
    own=amounts,
    active=st.integers(1, 10_000),
    large=wishes,
    parts=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
@settings(max_examples=500)
def test_a_smaller_request_is_admitted_wherever_a_larger_one_is(
    allowed: Caps, others: Usage, own: Usage, active: int, large: Usage, parts: tuple[float, float]
) -> None:
    small = Usage(max(1, ceil(large.charge * parts[0])), max(1, ceil(large.images * parts[1])))
    total = others + own
    if isinstance(judge(allowed, total, own, active, large), Ground):
        assert isinstance(judge(allowed, total, own, active, small), Ground)


@given(
    allowed=st.builds(Caps, st.integers(1, 10**10), st.integers(100, 10**5)),
    others=amounts,
    own=amounts,
    active=st.integers(1, 10_000),
    wanted=wishes,
)
@settings(max_examples=500)
def test_a_refusal_names_what_is_in_the_way_and_how_much_must_end(
    allowed: Caps, others: Usage, own: Usage, active: int, wanted: Usage
) -> None:
    total = others + own
    verdict = judge(allowed, total, own, active, wanted)
    if not isinstance(verdict, TooMuch):
        return
    assert verdict.ahead > 0
    if verdict.bound is Bound.SHARE:
        assert own.images
        assert not below_share(allowed, own, active, wanted)


class Tenants(RuleBasedStateMachine):
    """Any order of requests, ends of images, and tenants that come and go. `held` is the truth beside the books."""

    @initialize(cap=st.integers(1, 300))
    def begin(self, cap: int) -> None:
        self.caps = caps(cap)
        self.usage = UsageByTenant()
        self.held: dict[str, list[tuple[int, Ground]]] = {}
        self.new = count()

    def ask(self, tenant: str, wanted: Usage) -> Ground | TooMuch:
        own, n = self.usage.own(tenant), self.usage.active + (not self.usage.own(tenant).images)
        pending = PendingUsage(self.usage)
        verdict = pending.judge(self.caps, tenant, wanted)
        if below_share(self.caps, own, n, wanted):
            assert isinstance(verdict, Ground), "below its share nobody depends on others"
        if self.usage.total.charge + wanted.charge <= self.caps.charge:
            few = 2 * (self.usage.total.images + wanted.images) <= self.caps.images
            assert isinstance(verdict, Ground) or not few
        if isinstance(verdict, Ground):
            pending.change(tenant, wanted)
            pending.commit()
            each = wanted.charge // wanted.images
            self.held.setdefault(tenant, []).extend([(each, verdict)] * wanted.images)
        return verdict

    @rule(number=st.integers(0, 5), wanted=wishes, times=st.integers(1, 60))
    def an_old_tenant_asks(self, number: int, wanted: Usage, times: int) -> None:
        for _ in range(times):
            self.ask(f"old{number}", wanted)

    @rule(wanted=wishes, tenants=st.integers(1, 60))
    def throw_away_tenants_ask_once_each(self, wanted: Usage, tenants: int) -> None:
        for _ in range(tenants):
            self.ask(f"new{next(self.new)}", wanted)

    @rule(wanted=wishes, tenants=st.integers(1, 20))
    def tenants_appear_one_after_another_and_take_all_they_get(self, wanted: Usage, tenants: int) -> None:
        for _ in range(tenants):
            tenant = f"greedy{next(self.new)}"
            for _ in range(50):
                if isinstance(self.ask(tenant, wanted), TooMuch):
                    break

    @precondition(lambda self: self.held)
    @rule(which=st.integers(0, 10**6), images=st.integers(1, 50))
    def images_end(self, which: int, images: int) -> None:
        for _ in range(min(images, sum(map(len, self.held.values())))):
            tenant = sorted(self.held)[which % len(self.held)]
            charge, _ = self.held[tenant].pop()
            if not self.held[tenant]:
                del self.held[tenant]
            pending = PendingUsage(self.usage)
            pending.change(tenant, Usage(-charge, -1))
            pending.commit()

    @invariant()
    def what_is_held_is_bounded(self) -> None:
        if not hasattr(self, "usage"):
            return
        n = self.usage.active
        first = sum(charge for held in self.held.values() for charge, ground in held if ground is Ground.FIRST)
        assert self.usage.total.charge <= self.caps.charge * HARMONIC[n] + first + n
        assert self.usage.total.images <= self.caps.images

    @invariant()
    def the_books_are_what_is_held(self) -> None:
        if hasattr(self, "usage"):
            held = [(tenant, Usage(charge, 1)) for tenant, each in self.held.items() for charge, _ in each]
            assert self.usage == UsageByTenant.of(held)


Tenants.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestTenants = Tenants.TestCase


def flood(allowed: Caps, usage: UsageByTenant, name: str, tenants: int, wanted: Usage) -> int:
    """So many tenants, each asking until it is refused; how many were let in at all."""
    found = 0
    for number in range(tenants):
        let_in = 0
        while True:
            pending = PendingUsage(usage)
            if isinstance(pending.judge(allowed, f"{name}{number}", wanted), TooMuch):
                break
            pending.change(f"{name}{number}", wanted)
            pending.commit()
            let_in += 1
        found += bool(let_in)
    return found


def test_a_flood_of_throw_away_tenants_leaves_memory_and_the_shares_of_the_others_alone() -> None:
    """Each with one huge request: they are let in for having nothing, up to half of memory's bound."""
    allowed = caps(300)
    usage = UsageByTenant.of([("quiet", Usage(ONE, 1))])
    huge = Usage(10 * 80 * ONE, 10)
    assert flood(allowed, usage, "throwaway", 99, huge) == 99
    assert PendingUsage(usage).judge(allowed, "quiet", Usage(ONE, 1)) is Ground.SHARE
    assert flood(allowed, usage, "more", 5_000, huge) == 140
    assert usage.total.images <= allowed.images // 2
    verdict = PendingUsage(usage).judge(allowed, "another", huge)
    assert isinstance(verdict, TooMuch)
    assert verdict.bound is Bound.EVERYTHING
    share = allowed.charge // (usage.active + 1)
    assert share >= ONE, "requests of ten images leave room for no more tenants than this"
    assert PendingUsage(usage).judge(allowed, "another", Usage(share, 1)) is Ground.SHARE


def test_the_cheapest_images_of_tenants_who_take_all_they_get_leave_room_for_each_share() -> None:
    """The worst order for memory: each fills its share when it is the last to come, with work that costs nothing."""
    allowed = caps(1_000)
    usage = UsageByTenant()
    assert flood(allowed, usage, "greedy", GUARANTEED_TENANTS, Usage(1, 1)) >= 1_000
    assert usage.total.images <= allowed.images
    share = allowed.images // IMAGE_SHARE // (usage.active + 1)
    if share:
        assert PendingUsage(usage).judge(allowed, "late", Usage(share, share)) is Ground.SHARE
    assert HARMONIC[GUARANTEED_TENANTS] <= IMAGE_SHARE / 2 < HARMONIC[GUARANTEED_TENANTS + 1]


def test_the_cap_is_so_many_images_of_the_default_request() -> None:
    for cap in (1, 5, 300, 10_000):
        usage = UsageByTenant()
        allowed = caps(cap)
        pending = PendingUsage(usage)
        admitted = 0
        while pending.judge(allowed, "only", Usage(ONE, 1)) is Ground.ROOM:
            pending.change("only", Usage(ONE, 1))
            admitted += 1
        assert admitted == cap
        assert isinstance(pending.judge(allowed, "only", Usage(ONE, 1)), TooMuch)
