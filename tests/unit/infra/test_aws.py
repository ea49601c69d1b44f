"""What becomes of AWS errors, and of a machine without settings."""

import asyncio

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError

from infra import aws
from infra.lifecycle import ConfigError
from infra.retry import Permanent, Retryable
from infra.s3 import S3Bucket
from infra.sqs import Outgoing, SqsQueue
from tests.emulators import aws_environment, free_port


def refusal(code: str, status: int) -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "canary"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "PutObject",
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (refusal("InternalError", 500), Retryable),
        (refusal("Anything", 503), Retryable),
        (refusal("TooManyRequests", 429), Retryable),
        (refusal("SlowDown", 400), Retryable),
        (refusal("InternalError", 200), Retryable),
        (refusal("QueueDoesNotExist", 400), Retryable),
        (refusal("AccessDenied", 403), Permanent),
        (refusal("BadDigest", 400), Permanent),
        (EndpointConnectionError(endpoint_url="http://canary"), Retryable),
        (ConnectionResetError("canary"), Retryable),
        (TimeoutError(), Retryable),
        (NoCredentialsError(), Permanent),
        (ParamValidationError(report="canary"), Permanent),
    ],
)
def test_errors_become_retryable_or_permanent_and_tell_no_content(error: Exception, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, aws.translated("put temp"):
        raise error
    assert str(caught.value).startswith("put temp: ")
    assert "canary" not in str(caught.value)


def test_other_errors_and_cancellation_pass() -> None:
    for error in (asyncio.CancelledError(), ZeroDivisionError()):
        with pytest.raises(type(error)), aws.translated("put"):
            raise error


@pytest.fixture
def nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in aws_environment(f"http://127.0.0.1:{free_port()}").items():
        monkeypatch.setenv(name, value)


@pytest.mark.asyncio
@pytest.mark.usefixtures("nobody_there")
async def test_an_unreachable_service_is_retryable() -> None:
    async with aws.clients() as clients:
        queue, bucket = SqsQueue(clients.sqs, "q"), S3Bucket(clients.s3, "b")
        with pytest.raises(Retryable):
            await queue.send([Outgoing(body=b"x")])
        with pytest.raises(Retryable):
            await queue.ensure(visibility_s=30)
        with pytest.raises(Retryable):
            await bucket.get("k")
        with pytest.raises(Retryable):
            await bucket.ensure()


@pytest.mark.asyncio
@pytest.mark.usefixtures("nobody_there")
async def test_links_can_name_another_host_and_need_no_service() -> None:
    async with aws.clients(link_endpoint_url="http://pictures.example:9000") as clients:
        link = await S3Bucket(clients.s3, "public", links=clients.links).link("token/x.png", expires_s=60)
    assert link.startswith("http://pictures.example:9000/public/token/x.png?")
    assert "X-Amz-Expires=60" in link


@pytest.mark.asyncio
@pytest.mark.parametrize("missing", ["AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID"])
@pytest.mark.usefixtures("nobody_there")
async def test_missing_settings_say_what_to_set(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(missing)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    with pytest.raises(ConfigError, match="AWS_DEFAULT_REGION"):
        async with aws.clients():
            pass


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:4566"),
        ("AWS_ENDPOINT_URL", "no address"),
        ("AWS_DEFAULT_REGION", "no region"),
        ("AWS_PROFILE", "nobody"),
    ],
)
@pytest.mark.usefixtures("nobody_there")
async def test_wrong_settings_are_a_misconfiguration(
    variable: str, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(ConfigError, match=wrong):
        async with aws.clients():
            pass


@pytest.mark.asyncio
@pytest.mark.usefixtures("nobody_there")
async def test_a_wrong_endpoint_for_links_is_a_misconfiguration() -> None:
    with pytest.raises(ConfigError, match="no address"):
        async with aws.clients(link_endpoint_url="no address"):
            pass
