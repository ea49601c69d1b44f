"""An older log in the place of the one that was there, once all is quiet: what was erased must not come back."""

import copy
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from core.domain.provenance import Claim
from tests.eventually import eventually
from tests.fake_log import FakeLog

if TYPE_CHECKING:
    from tests.simulation.schedule import Stage

_SHARE = 0.4
_WITHIN_S = 600.0
_LOOK_S = 1.0
_MOMENT_S = 0.01


class Backup:
    """Of one schedule. `at_s`: when it is taken."""

    def __init__(self, stage: "Stage") -> None:
        self._stage = stage
        self._dice = stage.world.dice("backup")
        self.at_s = 5 + self._dice.random() * 80
        self._wanted = self._dice.random() < _SHARE
        self._content: FakeLog | None = None

    def take(self) -> None:
        """As the log is now."""
        if self._wanted:
            self._content = copy.deepcopy(self._stage.disk.content)

    async def put_back(self) -> list[str]:
        """Put it in place and start core over it. What is stuck at the end."""
        stage, content = self._stage, self._content
        told = [each for each, seen in stage.checker.seen.items() if seen.erased]
        if content is None or not set(told) & content._streams.keys():
            return []
        stage.world.note("an older log is put back")
        stage.world.faults["restored"] += 1
        stage.core.kill(1.0)
        content.of = replace(content.of, epoch=content.of.epoch + 1, claim=Claim.TAKES_OVER)  # as `restore` does
        content.full = content.held = content.broken = False
        stage.disk.content, stage.disk.watched = content, False
        await eventually(lambda: stage.line.core, _WITHIN_S, what="core serves", every_s=_MOMENT_S)
        back = [each for each in told if each in content._prompts or await content.not_erased([each])]
        if back:
            stage.world.violate(f"{back[0]} was erased, and is back with the older log")
        with suppress(AssertionError):  # told below
            await eventually(lambda: not content.to_delete, _WITHIN_S, every_s=_LOOK_S)
        stage.checker.erasure.no_objects(told, stage.buckets["temp"])
        return [f"the objects of {each} are not deleted" for each in content.to_delete]
