"""The retry loop and its back-off."""

import asyncio

import pytest

from infra.retry import Backoff, Permanent, Retryable, backoff_s, retry
from tests import virtual_time


class Flaky:
    """Fails with each of `errors` in turn, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


@pytest.mark.asyncio
async def test_retryable_is_tried_again_until_it_works() -> None:
    call, told = Flaky(Retryable("a"), Retryable("b")), []
    result = await retry(
        call, attempts=None, rng=lambda: 0.0, on_retry=lambda made, error: told.append((made, str(error)))
    )
    assert result == "answer"
    assert told == [(1, "a"), (2, "b")]


@pytest.mark.asyncio
async def test_attempts_bound_the_calls() -> None:
    call = Flaky(*(Retryable(str(number)) for number in range(5)))
    with pytest.raises(Retryable, match="2"):
        await retry(call, attempts=3, rng=lambda: 0.0)
    assert call.calls == 3


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [Permanent("no"), ValueError("bug")])
async def test_anything_else_is_raised_at_once(error: Exception) -> None:
    call = Flaky(error)
    with pytest.raises(type(error)):
        await retry(call, attempts=None, rng=lambda: 0.0)
    assert call.calls == 1


def test_backoff_doubles_up_to_the_cap_and_is_drawn_in_full() -> None:
    longest = [backoff_s(attempt, first_s=0.2, cap_s=10.0, draw=1.0) for attempt in range(8)]
    assert longest == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0])
    assert backoff_s(3, first_s=0.2, cap_s=10.0, draw=0.0) == 0.0
    assert backoff_s(10_000, first_s=0.2, cap_s=10.0, draw=1.0) == 10.0


def test_the_pauses_of_a_loop_grow_to_their_cap_and_begin_again_after_a_success() -> None:
    async def main() -> list[float]:
        backoff, pauses = Backoff(first_s=1.0, cap_s=3.0, rng=lambda: 0.5), []
        for succeeds in (False, False, False, True, False):
            if succeeds:
                backoff.reset()
                continue
            begun = asyncio.get_running_loop().time()
            await backoff.pause()
            pauses.append(asyncio.get_running_loop().time() - begun)
        return pauses

    assert virtual_time.run(main()) == pytest.approx([0.5, 1.0, 1.5, 0.5])
