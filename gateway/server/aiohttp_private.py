"""The private parts of aiohttp's server that the gateway uses; no other module touches one.

Tested with aiohttp 3.14.5, which pyproject.toml pins. `tests/unit/gateway/test_aiohttp_private.py` fails when one of
these parts changes. Only `gateway.server.connections` uses this module.
"""

from typing import Final

from aiohttp import web

TESTED_AIOHTTP: Final = "3.14.5"


class ObservedHandler(web.RequestHandler):
    """aiohttp's connection, which also says whether it waits for its client.

    aiohttp's public API says how many requests a connection has had, but not whether one of them is in flight: a
    parsed request waits in `_messages`, and is then `_current_request` until its handler returns. Middleware does not
    see a request in `_messages`, so a connection whose request has just arrived would look idle, and could be closed.
    """

    __slots__ = ()

    @property
    def awaits_client(self) -> bool:
        """Whether the client has to act next: send a request or the rest of one, or read what is written to it."""
        if self.writing_paused:
            return True
        request = self._current_request
        if request is None:
            return not self._messages
        return not request.content.is_eof()
