"""The prompts of open generations, kept in memory so that neither a poll nor a dispatch reads the log.

Personal data: nothing here is logged, and it is forgotten once the generation has ended.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

from core.domain.events import Prompts
from core.domain.transaction import Change
from core.ports import Projection


class PromptCache:
    """A bounded cache in front of the projection."""

    def __init__(self, projection: Projection, *, kept: int) -> None:
        self._projection = projection
        self._kept = kept
        self._known: OrderedDict[str, Prompts] = OrderedDict()

    def put(self, generation_id: str, prompts: Prompts) -> None:
        """Remember those of a generation that was just accepted."""
        self._known[generation_id] = prompts
        while len(self._known) > self._kept:
            self._known.popitem(last=False)

    def on_changes(self, changes: Sequence[Change]) -> None:
        """Forget what ended."""
        for _, after in changes:
            if not after.open:
                self._known.pop(after.id, None)

    async def of_open(self, generation_ids: Sequence[str]) -> Mapping[str, Prompts]:
        """The prompts of open generations."""
        missing = [each for each in generation_ids if each not in self._known]
        found = {each: self._known[each] for each in generation_ids if each in self._known}
        if missing:
            read = await self.of_any(missing)
            found.update(read)
            for each, prompts in read.items():
                self.put(each, prompts)
        return found

    async def of_any(self, generation_ids: Sequence[str]) -> Mapping[str, Prompts]:
        """The prompts of those generations that are not erased, from the log."""
        rows = await self._projection.prompts(generation_ids)
        return {each: row.prompts for each, row in rows.items()}
