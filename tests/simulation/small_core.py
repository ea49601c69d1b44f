"""Core's rules for one small generation, remembered: `core.domain.transaction` decides each command in each state once.

What follows from it is checked there and then: the promises of the log, the public status, what a crash would find.
"""

from dataclasses import dataclass, replace

from core.domain import commands as c
from core.domain.decide import Now
from core.domain.events import (
    TERMINAL_TYPES,
    TYPES,
    Failure,
    ImageAttemptFailed,
    ImagePublished,
    ImageRendered,
    RenderFacts,
    Timings,
    Trace,
)
from core.domain.projection import project
from core.domain.shares import UsageByTenant, caps
from core.domain.state import Ending, Generation, Image, Phase, apply
from core.domain.transaction import Order, PendingTransaction
from core.log.codec import decode, encode
from tests.core_events import NOON_MS, spec
from tests.unit.core.journey import check_step

RUNNING_MS = tuple(10**7 * number for number in range(8))
"""At first, and each time that all rechecks have passed."""

_RECHECK_MS = 10**6
_TTL_S = 10**5  # is up when the command to expire comes, and not before


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a command: the generation after it, and the image that it was for, by numbers."""

    shell: int
    image: int
    changed: bool
    refused: bool


class SmallCore:
    """Generations are taken apart into a shell and images without an index, and each part gets a number."""

    def __init__(self) -> None:
        self._shells: list[Generation] = []
        self._images: list[Image] = []
        self._numbers: dict[Generation | Image, int] = {}
        self._heeded: dict[tuple[int, tuple[str, int, int]], bool] = {}
        self._answers: dict[tuple[int, int, tuple[Phase, ...], tuple[str, int, int], int], Answer] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def begin(self, images: int) -> tuple[int, tuple[int, ...]]:
        """A generation just requested."""
        request = c.Request(
            tenant="acme", spec=spec(n=images), priority=0, ttl_s=_TTL_S, prompt_hmac=bytes(32), trace=Trace()
        )
        pending = PendingTransaction(
            now=Now(at_ms=NOON_MS, running_ms=0), usage=UsageByTenant(), caps=caps(100), before={"gen_1": None}
        )
        pending.decide(Order("gen_1", request))
        [(_, state)] = pending.changes()
        return self._apart(state)

    def ending(self, shell: int) -> Ending:
        """How the generation ended, or OPEN."""
        return self._shells[shell].ending

    def image(self, number: int) -> Image:
        """The image of that number, as if it were the first."""
        return self._images[number]

    def carry_out(
        self, shell: int, images: tuple[int, ...], place: int, what: tuple[str, int, int], late: int
    ) -> Answer:
        """Decide a command for the image at `place`: once for the same image among mates in the same phases.

        Raises AssertionError when a promise is broken.
        """
        mates = tuple(self._images[number].phase for number in images[:place] + images[place + 1 :])
        asked = (shell, images[place], mates, what, late)
        if asked not in self._answers:
            state = self._together(shell, (images[place], *images[:place], *images[place + 1 :]))
            self._answers[asked] = self._decide(state, self._command(state, 0, what), late)
        return self._answers[asked]

    def heeded(self, number: int, reply: tuple[str, int, int]) -> bool:
        """Whether a reply changes anything about this image beside a pending one: now, and once it is published."""
        if (number, reply) not in self._heeded:
            state = self._together(0, (number, 0))
            decided = [state]
            if state.images[0].phase is Phase.RENDERED:
                published = ImagePublished(index=0, public_key="key")
                decided.append(apply(state, published, NOON_MS))
            changed = [self._decide(each, self._command(each, 0, reply), 0).changed for each in decided]
            self._heeded[number, reply] = any(changed)
        return self._heeded[number, reply]

    def _decide(self, state: Generation, command: c.Command, late: int) -> Answer:
        expires_ms = _TTL_S * 1000 if isinstance(command, c.Expire) else 0
        now = Now(at_ms=NOON_MS, running_ms=max(RUNNING_MS[late], expires_ms))
        pending = PendingTransaction(now=now, usage=UsageByTenant(), caps=caps(100), before={state.id: state})
        result = pending.decide(Order(state.id, command))
        after = found = state
        for entry in pending.transaction().entries:
            assert after.open, f"{entry.event} comes after the end"
            before, after = after, apply(after, entry.event, entry.at_ms)
            found = apply(found, decode(encode(entry.event)), entry.at_ms)
            check_step(before, after, entry.event)
            assert after.open == (TYPES[type(entry.event)] not in TERMINAL_TYPES)
            assert entry.version == after.version
        assert result.changed or not pending.size
        assert found == after == (result.state or state), "a restart would find something else"
        assert project(found) == project(after)
        shell, images = self._apart(after)
        return Answer(shell, images[0], result.changed, result.refusal is not None)

    def _together(self, shell: int, images: tuple[int, ...]) -> Generation:
        placed = tuple(_placed(self._images[number], index) for index, number in enumerate(images))
        return replace(self._shells[shell], images=placed)

    def _apart(self, state: Generation) -> tuple[int, tuple[int, ...]]:
        shell = replace(state, images=(), version=1)
        return self._number(shell, self._shells), tuple(
            self._number(_placed(image, 0), self._images) for image in state.images
        )

    def _number(self, part: "Generation | Image", known: list) -> int:  # type: ignore[type-arg]
        if part not in self._numbers:
            self._numbers[part] = len(known)
            known.append(part)
        return self._numbers[part]

    @staticmethod
    def _command(state: Generation, place: int, what: tuple[str, int, int]) -> c.Command:
        kind, number, dispatch = what
        attempt, worker = f"att_{number}", f"w{number}"
        match kind:
            case "cancel":
                return c.Cancel()
            case "expire":
                return c.Expire()
            case "dispatch":
                return c.Dispatch(index=place, dispatch=dispatch, recheck_after_ms=_RECHECK_MS)
            case "started":
                return c.RecordStarted(
                    index=place,
                    attempt_id=attempt,
                    dispatch=dispatch,
                    worker_id=worker,
                    solo=False,
                    batch_id="bat_1",
                    batch_size=1,
                    recheck_after_ms=_RECHECK_MS,
                )
            case "failed":
                return c.RecordAttemptFailed(
                    event=ImageAttemptFailed(
                        index=place,
                        attempt_id=attempt,
                        dispatch=dispatch,
                        worker_id=worker,
                        failure=Failure.MODEL_ERROR,
                        solo=False,
                        detail="",
                    )
                )
            case "published":
                won = state.images[place].rendered
                return c.RecordPublished(index=place, attempt_id=won.attempt_id if won else "", public_key="key")
            case _:
                return _rendered(place, attempt, worker)


def _rendered(place: int, attempt: str, worker: str) -> c.RecordRendered:
    return c.RecordRendered(
        event=ImageRendered(
            index=place,
            attempt_id=attempt,
            worker_id=worker,
            temp_key=f"temp/{attempt}",
            sha256=bytes(32),
            size_bytes=1,
            width=256,
            height=256,
            format=1,
            public_token="token",
            timings=Timings(),
            facts=RenderFacts(batch_id="bat_1"),
        )
    )


def _placed(image: Image, index: int) -> Image:
    won = None if image.rendered is None else replace(image.rendered, index=index)
    return replace(image, index=index, rendered=won)
