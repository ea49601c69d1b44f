"""The signature check against botocore's own signer: what it signs passes, and nothing that differs from it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local import sigv4
from infra.local.sigv4 import Key, Refused, Signed

KEY = Key(id="local", secret="0123456789abcdef-secret")
HOST = "127.0.0.1:4566"
CREDENTIALS = Credentials(KEY.id, KEY.secret)


def now() -> datetime:
    return datetime.now(UTC)


def signed_by(signer: Any, service: str, method: str, url: str, body: bytes = b"", **headers: str) -> Signed:
    """The request as botocore sends it."""
    request = AWSRequest(method=method, url=url, data=body, headers=headers)
    signer(CREDENTIALS, service, "us-east-1").add_auth(request)
    path, _, query = str(request.url).removeprefix(f"http://{HOST}").partition("?")
    return Signed(
        method=method,
        path=path,
        query=query,
        headers={"host": HOST} | {name.lower(): value for name, value in request.headers.items()},
    )


def check(request: Signed, body: bytes = b"", *, key: Key = KEY, at: datetime | None = None) -> None:
    sigv4.check_signature(sigv4.check_claim(request, key, at or now()), key, body)


def put() -> Signed:
    return signed_by(
        S3SigV4Auth, "s3", "PUT", f"http://{HOST}/bucket/a%20key/%C3%A4?x=1&acl", b"body", **{"x-amz-acl": "p"}
    )


def sqs() -> Signed:
    return signed_by(
        SigV4Auth, "sqs", "POST", f"http://{HOST}/", b'{"a":1}', **{"x-amz-target": "AmazonSQS.SendMessage"}
    )


def link() -> Signed:
    def signer(credentials: Credentials, service: str, region: str) -> S3SigV4QueryAuth:
        return S3SigV4QueryAuth(credentials, service, region, expires=60)

    return signed_by(signer, "s3", "GET", f"http://{HOST}/bucket/key")


def test_what_botocore_signs_passes() -> None:
    check(put())
    check(sqs(), b'{"a":1}')
    check(link())
    check(signed_by(SigV4Auth, "sqs", "POST", f"http://{HOST}/000000000000/a%20queue", b"x"), b"x")


@settings(deadline=None)  # the first example opens the client
@given(key=st.text(min_size=1, max_size=40), value=st.text(max_size=20))
def test_any_key_and_query_that_a_client_sends_pass(key: str, value: str) -> None:
    url = store().generate_presigned_url(
        "get_object", Params={"Bucket": "bucket", "Key": key, "ResponseContentType": value}, ExpiresIn=60
    )
    path, _, query = url.removeprefix(f"http://{HOST}").partition("?")
    check(Signed(method="GET", path=path, query=query, headers={"host": HOST}))


@cache
def store() -> Any:
    return boto3.client(
        "s3",
        endpoint_url=f"http://{HOST}",
        region_name="us-east-1",
        aws_access_key_id=KEY.id,
        aws_secret_access_key=KEY.secret,
        config=Config(signature_version="s3v4", s3={"addressing_style": "path"}),
    )


def changed(request: Signed, **headers: str) -> Signed:
    return replace(request, headers={**request.headers, **headers})


DIFFERENT: dict[str, Callable[[], Signed]] = {
    "another method": lambda: replace(put(), method="DELETE"),
    "another path": lambda: replace(put(), path="/bucket/other"),
    "another query": lambda: replace(put(), query="x=2&acl"),
    "another host": lambda: changed(put(), host="evil.example"),
    "a header more": lambda: changed(put(), **{"x-amz-copy-source": "/bucket/other"}),
    "another header": lambda: changed(put(), **{"x-amz-acl": "public-read"}),
    "another digest": lambda: changed(put(), **{"x-amz-content-sha256": "0" * 64}),
    "no signature": lambda: replace(put(), headers={"host": HOST}),
    "basic": lambda: changed(put(), authorization="Basic bG9jYWw6bG9jYWw="),
    "half a signature": lambda: changed(put(), authorization=put().headers["authorization"].partition(",")[0]),
    "chunks": lambda: changed(put(), **{"x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}),
    "a link for another method": lambda: replace(link(), method="PUT"),
    "a link for another key": lambda: replace(link(), path="/bucket/other"),
    "a link that lasts longer": lambda: replace(link(), query=link().query.replace("Expires=60", "Expires=3600")),
    "a link for ever": lambda: replace(link(), query=link().query.replace("Expires=60", "Expires=99999999")),
    "a link twice over": lambda: replace(link(), query=link().query + "&X-Amz-Expires=3600"),
    "a link and a header": lambda: changed(link(), authorization=put().headers["authorization"]),
    "a service that is none": lambda: signed_by(SigV4Auth, "iam", "POST", f"http://{HOST}/", b""),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_nothing_else_passes(name: str) -> None:
    with pytest.raises(Refused):
        check(DIFFERENT[name]())


@pytest.mark.parametrize("request_of", [put, sqs, link])
def test_a_wrong_secret_or_access_key_is_refused(request_of: Callable[[], Signed]) -> None:
    with pytest.raises(Refused, match="not that of the emulator's secret"):
        check(request_of(), b'{"a":1}', key=replace(KEY, secret="another-secret-of-some-length"))
    with pytest.raises(Refused) as refused:
        check(request_of(), b'{"a":1}', key=replace(KEY, id="other"))
    assert refused.value.code == "InvalidAccessKeyId"


def test_a_body_that_is_signed_by_itself_may_not_change() -> None:
    assert sigv4.check_claim(sqs(), KEY, now()).needs_body
    with pytest.raises(Refused):
        check(sqs(), b'{"a":2}')
    assert sigv4.check_claim(put(), KEY, now()).stated_sha256


def moments() -> Iterator[tuple[Callable[[], Signed], timedelta, str]]:
    yield put, timedelta(minutes=16), "RequestTimeTooSkewed"
    yield put, timedelta(minutes=-16), "RequestTimeTooSkewed"
    yield sqs, timedelta(minutes=16), "RequestTimeTooSkewed"
    yield link, timedelta(minutes=-16), "RequestTimeTooSkewed"
    yield link, timedelta(seconds=62), "AccessDenied"


@pytest.mark.parametrize(("request_of", "later", "code"), list(moments()))
def test_a_signature_of_another_time_is_refused(request_of: Callable[[], Signed], later: timedelta, code: str) -> None:
    check(request_of(), b'{"a":1}', at=now() + timedelta(seconds=30))
    with pytest.raises(Refused) as refused:
        check(request_of(), b'{"a":1}', at=now() + later)
    assert refused.value.code == code
