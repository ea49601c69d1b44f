"""Generations as clients see them: open ones from the writer's memory, ended ones from the projection."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from core.api.errors import NotFound
from core.api.views import view
from core.dispatch.image_book import ImageBook
from core.domain.events import Prompts
from core.domain.projection import Rows, project
from core.domain.state import Generation
from core.ports import Projection
from core.runtime.prompt_cache import PromptCache
from core.runtime.worker_reports import Progress
from core.runtime.writer import Writer
from schema import fast

LIST_LOOKS: Final = 10_000
"""Rows that one page of a list reads at most; its cursor continues from there. Other reads wait meanwhile: measured on
two busy cores, 11 to 18 ms where a tenant's rows are contiguous, 32 to 87 ms where every fiftieth row is the tenant's.
"""


@dataclass(frozen=True, slots=True)
class Found:
    """A generation as a view needs it; `state` is None once it has ended."""

    rows: Rows
    state: Generation | None


class Reader:
    """Read-only. Every read of the projection raises Retryable when too many wait."""

    def __init__(
        self, writer: Writer, projection: Projection, prompts: PromptCache, progress: Progress, book: ImageBook
    ) -> None:
        self._writer = writer
        self._projection = projection
        self._prompts = prompts
        self._progress = progress
        self._book = book

    async def find(self, tenant: str, generation_id: str, *, any_tenant: bool = False) -> Found:
        """The generation, if it is the tenant's, or with `any_tenant` (operators) anyone's. Raises NotFound."""
        state = self._writer.remembered(generation_id)
        if state is not None:
            found = _found(state)
        else:
            rows = (await self._projection.rows([generation_id], asker=tenant)).get(generation_id)
            if rows is None:
                raise NotFound
            found = Found(rows, None)
        if not any_tenant and not hmac.compare_digest(found.rows.generation.tenant.encode(), tenant.encode()):
            raise NotFound
        return found

    async def view(self, found: Found) -> fast.GenerationView:
        """Its view, with the prompts unless it is erased."""
        ids = [] if found.rows.generation.erased else [found.rows.generation.id]
        known = await (self._prompts.of_open(ids) if found.state else self._prompts.of_any(ids))
        return self._show(found, known)

    async def page(
        self, tenant: str, *, before: int, limit: int, status: int
    ) -> tuple[Sequence[fast.GenerationView], int]:
        """As `ports.Projection.page`, as views."""
        rows, more = await self._projection.page(tenant, before=before, limit=limit, status=status, looks=LIST_LOOKS)
        known = await self._prompts.of_any([each.generation.id for each in rows if not each.generation.erased])
        found = [Found(each, self._writer.open.get(each.generation.id)) for each in rows]
        return [self._show(each, known) for each in found], more

    async def views(self, decided: Sequence[Generation]) -> list[fast.GenerationView]:
        """The views of generations from the writer's results, in their present state where it is in memory."""
        known = await self._prompts.of_any([state.id for state in decided if not state.erased])
        return [self._show(_found(self._writer.remembered(state.id) or state), known) for state in decided]

    def position(self, state: Generation) -> int:
        """As `ImageBook.position`."""
        return self._book.position(state)

    def _show(self, found: Found, prompts: Mapping[str, Prompts]) -> fast.GenerationView:
        own = prompts.get(found.rows.generation.id)
        if found.state is None:
            return view(found.rows, own)
        return view(found.rows, own, self._progress.live(found.state, self._book.position(found.state)))


def _found(state: Generation) -> Found:
    return Found(project(state), state if state.open else None)
