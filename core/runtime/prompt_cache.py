"""The prompts of open generations, kept in memory so that neither a poll nor a dispatch reads the log.

Prompts are personal data: they are never written to the service's log lines, and dropped when their generation ends.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from core.domain.events import Prompts
from core.domain.transaction import Change
from core.ports import Projection


class PromptCache:
    """A cache in front of the projection, for at most `kept` generations; the one added first is evicted first."""

    def __init__(self, projection: Projection, *, kept: int) -> None:
        self._projection = projection
        self._kept = kept
        self._known: OrderedDict[str, Prompts] = OrderedDict()
        self._ended_during: dict[object, set[str]] = {}

    def put(self, generation_id: str, prompts: Prompts) -> None:
        """Cache the prompts of an open generation."""
        self._known[generation_id] = prompts
        while len(self._known) > self._kept:
            self._known.popitem(last=False)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Drop the prompts of ended generations."""
        for _, after in changes:
            if not after.open:
                self._known.pop(after.id, None)
                for ended in self._ended_during.values():
                    ended.add(after.id)

    async def of_open(self, generation_ids: Sequence[str]) -> Mapping[str, Prompts]:
        """The prompts of open generations; those not cached are read from the log and cached. Raises Retryable."""
        missing = [each for each in generation_ids if each not in self._known]
        found = {each: self._known[each] for each in generation_ids if each in self._known}
        if missing:
            read_id = object()
            ended = self._ended_during[read_id] = set()
            try:
                read = await self.of_any(missing)
            finally:
                del self._ended_during[read_id]
            found.update(read)
            for each in read.keys() - ended:  # what has ended during the read would never be dropped
                self.put(each, read[each])
        return found

    async def of_any(self, generation_ids: Sequence[str]) -> Mapping[str, Prompts]:
        """The prompts of those generations that are not erased, read from the log, not cached. Raises Retryable."""
        rows = await self._projection.prompts(generation_ids)
        return {each: row.prompts for each, row in rows.items()}
