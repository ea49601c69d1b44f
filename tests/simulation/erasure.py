"""What must hold of erasure: when it may happen, what is shown of it, and what is left of it anywhere.

Believes nobody: keys follow from the events, and it looks into buckets and log from above.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from core.domain import events as e
from core.domain.events import TERMINAL_TYPES, TYPES, Recorded
from core.domain.object_keys import public_key, temp_prefix
from schema import fast
from tests.fake_log import FakeLog
from tests.simulation.store import SimBucket
from tests.simulation.world import World

_SLACK_MS = 500


@dataclass
class ErasureRules:
    """`kept_ms`: how long finished generations are kept; 0: for good."""

    world: World
    public: SimBucket
    kept_ms: float = 0.0
    ends: dict[str, tuple[float, int]] = field(default_factory=dict)  # core's running time then, and the wall's
    keys: dict[str, set[str]] = field(default_factory=dict)
    erased: set[str] = field(default_factory=set)

    def recorded(self, recorded: Recorded, *, decided_up_ms: float, stalled_ms: float) -> None:
        """An event is durable."""
        event, stream = recorded.event, recorded.generation_id
        if isinstance(event, e.ImageRendered):
            self.keys.setdefault(stream, set()).add(public_key(event))
        elif TYPES[type(event)] in TERMINAL_TYPES:
            self.ends[stream] = (decided_up_ms - stalled_ms, recorded.at_ms)
        elif isinstance(event, e.GenerationErased):
            self.erased.add(stream)
            if stream not in self.ends:
                self.world.violate(f"{stream} is erased before its end")
            elif event.cause is e.Cause.RETENTION:
                up_ms, at_ms = self.ends[stream]
                if not self.kept_ms or min(decided_up_ms - up_ms + _SLACK_MS, recorded.at_ms - at_ms) < self.kept_ms:
                    self.world.violate(
                        f"{stream} is erased after {(decided_up_ms - up_ms) / 1000:.1f} s of running time"
                    )

    def look(self, view: fast.GenerationView, *, told: bool) -> None:
        """A client sees its generation; `told`: it knew that it was erased when it looked."""
        name = view.generation_id
        if view.erased:
            content = [view.prompts.prompt, view.spec.seed, view.failure_detail]
            content += [part for image in view.images for part in (image.public_key, image.sha256, image.seed)]
            if any(content):
                self.world.violate(f"{name} is erased and shows content")
        elif told:
            self.world.violate(f"{name} was erased, and is not any more")
        elif not view.prompts.prompt and name not in self.erased:
            self.world.violate(f"{name} shows no prompt and is not erased", "lost")

    def at_the_end(self, log: FakeLog, temp: SimBucket) -> None:
        """Nothing is left of what is erased, and every other prompt is there."""
        for generation_id in self.ends:
            erased = generation_id in self.erased
            if erased == (generation_id in log._prompts):
                left = "still" if erased else "no longer"
                self.world.violate(f"{generation_id}: its prompt is {left} there", "wrong" if erased else "lost")
        self.no_objects(self.erased, temp)

    def no_objects(self, generation_ids: Iterable[str], temp: SimBucket) -> None:
        """Not one of theirs is in either bucket."""
        for generation_id in generation_ids:
            left = [key for key in self.keys.get(generation_id, ()) if key in self.public.objects]
            left += [key for key in temp.objects if key.startswith(temp_prefix(generation_id))]
            if left:
                self.world.violate(f"{generation_id} is erased, and {len(left)} objects are left: {min(left)}")
