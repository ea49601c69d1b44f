"""`python -m core erase`: the command around `operator_client`. `core.__main__` calls `run`; core must be running.

The command uses core's API: core has generations in memory, and would still serve what another process erased.
"""

import argparse
import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TextIO

from core.api.operator_client import OperatorClient
from infra.retry import Permanent, Retryable
from schema import validate
from schema.pb import GenerationStatus

Opened = Callable[[], AbstractAsyncContextManager[OperatorClient]]


def run(arguments: Sequence[str], opened: Opened) -> int:
    """The exit code: 0 all are erased, 1 some are not, 2 core cannot be reached or refuses."""
    options = _options(arguments)
    try:
        return asyncio.run(_carry_out(options, opened, sys.stdout))
    except Retryable as error:
        complaint = (
            f"core cannot be reached, or cannot erase just now ({error}): see that it runs and DARKROOM_CORE_TARGET "
            "names it, and run this again; what is erased already stays so"
        )
    except Permanent as error:
        complaint = f"core refuses ({error}): set DARKROOM_INTERNAL_TOKEN as for core"
    print(f"darkroom: {complaint}", file=sys.stderr)
    return 2


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m core erase",
        description="Erase generations for good: prompts, pictures, links, seeds. That they were there remains. "
        "Asks a running core, and wants its environment.",
        epilog="Exit codes: 0 all are erased, 1 some are not, 2 core cannot be reached or refuses.",
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="the generations' ids")
    parser.add_argument("--tenant", default="", help="without ids: everything of this tenant; with ids: only its own")
    parser.add_argument("--cancel", action="store_true", help="with --tenant: cancel what has not ended, and erase it")
    parser.add_argument("--yes", action="store_true", help="needed to erase everything of a tenant")
    options = parser.parse_args(arguments)
    if not options.ids and not options.tenant:
        parser.error("name generations, or a tenant with --tenant")
    if not options.ids and not options.yes:
        parser.error(f"everything of {options.tenant!r} would be erased for good: say --yes if that is meant")
    if options.cancel and not options.tenant:
        parser.error("--cancel needs --tenant")
    for name, value in [("ID", each) for each in options.ids] + [("--tenant", options.tenant)] * bool(options.tenant):
        try:
            validate.identifier(name, value)
        except validate.Invalid as error:
            parser.error(f"{name}: {value!r} {error.reason}")
    return options


async def _carry_out(options: argparse.Namespace, opened: Opened, out: TextIO) -> int:
    erased = others = 0
    async with opened() as client:
        ids = _given(options.ids) if options.ids else client.not_erased(options.tenant)
        async for generation_id in ids:
            outcome = await _erase(client, generation_id, options)
            print(f"{generation_id}  {outcome}", file=out)
            erased, others = erased + (outcome == "erased"), others + (outcome != "erased")
    print(f"{erased} erased" + f", {others} not" * bool(others), file=out)
    return 1 if others else 0


async def _given(ids: Sequence[str]) -> AsyncIterator[str]:
    for each in ids:
        yield each


async def _erase(client: OperatorClient, generation_id: str, options: argparse.Namespace) -> str:
    reply = await client.erase(generation_id, options.tenant)
    if options.cancel and reply is not None and not reply.erased:
        await client.cancel(generation_id, options.tenant)
        reply = await client.erase(generation_id, options.tenant)
    if reply is None:
        return "is unknown" + f" to {options.tenant}" * bool(options.tenant)
    if reply.erased:
        return "erased"
    status = GenerationStatus(reply.generation.status).name
    return f"is {str(status).lower()}: it can be erased when it has ended"
