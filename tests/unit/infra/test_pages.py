"""Ports without a secret answer programs, and no web page."""

import aiohttp
import pytest
from multidict import CIMultiDict
from prometheus_client import CollectorRegistry

from infra import pages
from infra.admin import AdminServer

PAGES = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "Same-Site"},
    {"Host": "evil.example"},
    {"Host": "evil.example:9101"},
    {"Host": "127.0.0.1.evil.example"},
    {"Host": "[::2]:9101"},
    {"Host": ""},
]
PROGRAMS = [
    {"Host": "127.0.0.1:9101"},
    {"Host": "localhost"},
    {"Host": "LOCALHOST.:9101"},
    {"Host": "[::1]:9101"},
    {"Sec-Fetch-Site": "none"},
    {},
]


@pytest.mark.parametrize("headers", PAGES)
def test_pages_are_recognised(headers: dict[str, str]) -> None:
    assert pages.complaint(CIMultiDict(headers), bound="127.0.0.1")


@pytest.mark.parametrize("headers", PROGRAMS)
def test_programs_are_answered(headers: dict[str, str]) -> None:
    assert not pages.complaint(CIMultiDict(headers), bound="127.0.0.1")


def test_beyond_loopback_any_name_may_be_ours_and_pages_are_still_none() -> None:
    assert not pages.complaint(CIMultiDict({"Host": "core:9102"}), bound="0.0.0.0")
    assert pages.complaint(CIMultiDict({"Host": "core:9102", "Origin": "http://x"}), bound="0.0.0.0")


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/nothing"])
async def test_the_admin_port_answers_no_page(path: str) -> None:
    async with AdminServer("127.0.0.1", 0, CollectorRegistry(), list) as server, aiohttp.ClientSession() as session:
        for headers in PAGES[:9]:
            async with session.get(f"http://127.0.0.1:{server.port}{path}", headers=headers) as answer:
                assert answer.status == 403
                assert "Access-Control-Allow-Origin" not in answer.headers
