"""The embedded emulator under attack: a page of any origin, another name for it, no credentials or wrong ones.

Without the lock each of these requests succeeded: they took a job with its prompt, read and replaced pictures, and
wiped the store.
"""

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from ministack import app as emulated

from infra.local import emulator
from infra.local.emulator_lock import ALIVE_PATH
from infra.local.layout import HOST, emulator_environment
from tests.cloud import JOBS, PUBLIC, Cloud
from tests.emulators import SECRET, aws_environment, clean_environment, free_port, ministack
from tests.eventually import until
from tests.process import Process, module

PICTURE = b"a picture"
ACCOUNT = "000000000000"


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One request. `headers` come on top of the signature's own, and are not signed."""

    method: str
    path: str
    body: bytes = b""
    target: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with ministack(tmp_path_factory.mktemp("locked")) as url:
        number = int(url.rpartition(":")[2])
        cloud = Cloud(number)
        cloud.sqs.create_queue(QueueName=JOBS)
        cloud.s3.create_bucket(Bucket=PUBLIC)
        cloud.s3.put_object(Bucket=PUBLIC, Key="token/picture.png", Body=PICTURE)
        cloud.put(JOBS, b"a prompt")
        yield number
        cloud.close()


def attacks(port: int) -> dict[str, Ask]:
    """The requests of found.md B1, and their like."""
    queue = {"QueueUrl": f"http://{HOST}:{port}/{ACCOUNT}/{JOBS}"}
    receive = json.dumps({**queue, "VisibilityTimeout": 0}).encode()
    form = f"Action=ReceiveMessage&QueueUrl={queue['QueueUrl']}&Version=2012-11-05".encode()
    as_form = {"Content-Type": "application/x-www-form-urlencoded"}
    return {
        "receive a job": Ask(method="POST", path="/", body=receive, target="AmazonSQS.ReceiveMessage"),
        "receive a job by a form": Ask(method="POST", path=f"/{ACCOUNT}/{JOBS}", body=form, headers=as_form),
        "receive a job by a link": Ask(method="GET", path=f"/{ACCOUNT}/{JOBS}?Action=ReceiveMessage"),
        "list buckets": Ask(method="GET", path="/"),
        "list pictures": Ask(method="GET", path=f"/{PUBLIC}?list-type=2"),
        "fetch a picture": Ask(method="GET", path=f"/{PUBLIC}/token/picture.png"),
        "look at a picture": Ask(method="HEAD", path=f"/{PUBLIC}/token/picture.png"),
        "replace a picture": Ask(method="PUT", path=f"/{PUBLIC}/token/picture.png", body=b"another"),
        "delete a picture": Ask(method="DELETE", path=f"/{PUBLIC}/token/picture.png"),
        "reset": Ask(method="POST", path="/_ministack/reset"),
        "reset, encoded": Ask(method="POST", path="/%5Fministack/reset"),
        "read messages": Ask(method="GET", path="/_ministack/sqs/messages"),
        "configure": Ask(method="POST", path="/_ministack/config", body=b"{}"),
        "localstack": Ask(method="GET", path="/_localstack/health"),
        "health": Ask(method="GET", path="/health"),
        "ministack's health": Ask(method="GET", path="/_ministack/health"),
    }


NAMES = list(attacks(1))
ADMIN = NAMES[NAMES.index("reset") :]


def ask(port: int, request: Ask, *, secret: str = "", **headers: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body; signed with `secret` if there is one."""
    target = {"X-Amz-Target": request.target, "Content-Type": "application/x-amz-json-1.0"} if request.target else {}
    own = AWSRequest(
        method=request.method, url=f"http://{HOST}:{port}{request.path}", data=request.body, headers=target
    )
    if secret:
        is_sqs = JOBS in request.path or request.target
        signer = SigV4Auth if is_sqs else S3SigV4Auth
        signer(Credentials("local", secret), "sqs" if is_sqs else "s3", "us-east-1").add_auth(own)
    sent = {**dict(own.headers.items()), **request.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request(request.method, request.path, request.body or None, sent)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def is_refused(answer: tuple[int, dict[str, str], bytes]) -> bool:
    status, headers, body = answer
    assert not [name for name in headers if name.startswith("access-control-")]
    assert PICTURE not in body
    assert b"a prompt" not in body
    return status == 403


def still_there(port: int) -> bool:
    cloud = Cloud(port)
    try:
        found: bytes = cloud.s3.get_object(Bucket=PUBLIC, Key="token/picture.png")["Body"].read()
        return found == PICTURE and cloud.waiting(JOBS) == 1
    finally:
        cloud.close()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_done_for_a_stranger(port: int, name: str) -> None:
    request = attacks(port)[name]
    strangers: dict[str, dict[str, str]] = {
        "no credentials": {},
        "a page": {"Origin": "https://evil.example"},
        "a page without an origin": {"Origin": "null"},
        "another name": {"Host": f"evil.example:{port}"},
        "a name without a port": {"Host": HOST},
    }
    for who, headers in strangers.items():
        assert is_refused(ask(port, request, **headers)), who
    for secret in ("local-secret", "test", SECRET[:-1], SECRET.upper()):
        assert is_refused(ask(port, request, secret=secret)), secret
    assert still_there(port)


@pytest.mark.parametrize("name", NAMES)
def test_a_signature_is_not_enough_for_a_page_or_for_administration(port: int, name: str) -> None:
    request = attacks(port)[name]
    for headers in ({"Origin": "https://evil.example"}, {"Host": f"evil.example:{port}"}):
        assert is_refused(ask(port, request, secret=SECRET, **headers))
    if name in ADMIN:
        assert is_refused(ask(port, request, secret=SECRET))
    assert still_there(port)


def test_a_preflight_is_refused(port: int) -> None:
    preflight = {"Origin": "https://evil.example", "Access-Control-Request-Method": "PUT"}
    for path in ("/", f"/{PUBLIC}/token/picture.png", ALIVE_PATH):
        assert is_refused(ask(port, Ask(method="OPTIONS", path=path, headers=preflight)))
        assert is_refused(ask(port, Ask(method="OPTIONS", path=path)))


def test_the_owner_of_the_secret_is_served_without_cors(port: int) -> None:
    for name in ("receive a job", "list buckets", "list pictures", "fetch a picture", "look at a picture"):
        status, headers, _ = ask(port, attacks(port)[name], secret=SECRET)
        assert status == 200, name
        assert not [each for each in headers if each.startswith("access-control-")], name


def test_a_body_that_was_exchanged_on_the_way_is_not_stored(port: int) -> None:
    put = Ask(method="PUT", path=f"/{PUBLIC}/token/other.png", body=b"what was signed")
    own = AWSRequest(method="PUT", url=f"http://{HOST}:{port}{put.path}", data=put.body)
    S3SigV4Auth(Credentials("local", SECRET), "s3", "us-east-1").add_auth(own)
    status, _, body = ask(
        port, Ask(method="PUT", path=put.path, body=b"what was sent..", headers=dict(own.headers.items()))
    )
    assert (status, b"XAmzContentSHA256Mismatch" in body) == (403, True)
    cloud = Cloud(port)
    assert "token/other.png" not in cloud.objects(PUBLIC)
    cloud.close()


def test_clients_hear_why_in_the_words_of_aws(port: int) -> None:
    settings: dict[str, Any] = {
        "endpoint_url": f"http://{HOST}:{port}",
        "region_name": "us-east-1",
        "aws_access_key_id": "local",
        "aws_secret_access_key": "another secret",
        "config": Config(retries={"total_max_attempts": 1}, s3={"addressing_style": "path"}),
    }
    s3, sqs = boto3.client("s3", **settings), boto3.client("sqs", **settings)
    for call in (s3.list_buckets, lambda: sqs.get_queue_url(QueueName=JOBS)):
        with pytest.raises(ClientError) as refused:
            call()
        assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    s3.close()
    sqs.close()


def test_liveness_needs_no_secret_but_the_right_name(port: int) -> None:
    assert ask(port, Ask(method="GET", path=ALIVE_PATH))[0::2] == (200, b'{"status":"ok"}')
    assert is_refused(ask(port, Ask(method="GET", path=ALIVE_PATH), Host="evil.example"))
    assert is_refused(ask(port, Ask(method="GET", path=ALIVE_PATH), Origin="https://evil.example"))
    assert is_refused(ask(port, Ask(method="POST", path=ALIVE_PATH)))


def test_one_port_on_loopback_and_no_other(tmp_path: Path) -> None:
    """Its own list of services is shorter than what it would open by itself."""
    number = free_port()
    open_all = {"SERVICES": "", "SFTP_ENABLED": "1", "IOT_MTLS_ENABLED": "1", "USE_SSL": "1", "AUTH": "false"}
    own = emulator_environment(tmp_path, number) | aws_environment(f"http://{HOST}:{number}") | open_all
    process = Process("emulator", module("infra.local.emulator"), clean_environment() | own, tmp_path)
    process.start()
    try:
        until(lambda: serves(number), 30, what="it serves")
        assert listening(process.pid) == [(HOST, number)]
        secret_places = [Path(f"/proc/{process.pid}/cmdline").read_bytes(), process.log.read_bytes()]
        assert not [each for each in secret_places if SECRET.encode() in each]
        for name in ("STATE_DIR", "S3_DATA_DIR", "TMPDIR"):
            assert Path(own[name]).stat().st_mode & 0o777 == 0o700
        process.stop()
    finally:
        process.kill()


def serves(port: int) -> bool:
    try:
        return ask(port, Ask(method="GET", path=ALIVE_PATH))[0] == 200
    except OSError:
        return False


def listening(pid: int) -> list[tuple[str, int]]:
    """Address and port of every TCP socket on which the process listens."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        target = str(each.readlink())
        if target.startswith("socket:"):
            inodes.add(target[8:-1])
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, _, number = fields[1].partition(":")
                assert len(address) == 8, "an IPv6 socket"
                found.append((".".join(str(int(address[at : at + 2], 16)) for at in (6, 4, 2, 0)), int(number, 16)))
    return found


def test_a_folder_left_open_by_an_earlier_version_is_closed(tmp_path: Path) -> None:
    folder = tmp_path / "emulator" / "s3"
    folder.mkdir(parents=True, mode=0o755)
    folder.chmod(0o755)
    with ministack(tmp_path):
        assert folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("secret", ["", "local-secret", "test"])
def test_it_does_not_start_with_a_secret_that_could_be_guessed(tmp_path: Path, secret: str) -> None:
    environment = clean_environment() | emulator_environment(tmp_path, free_port())
    keys = {"AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": secret}
    done = subprocess.run(
        [sys.executable, "-m", "infra.local.emulator"],
        env=environment | keys,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("darkroom: AWS_SECRET_ACCESS_KEY")
    assert done.stderr.count("\n") == 1


def test_the_emulator_is_the_one_that_the_lock_was_made_for() -> None:
    """With another version look at: what it serves beside S3 and SQS, its admin paths, and what `main` does."""
    assert emulated._version() == version("ministack") == emulator.KNOWN_VERSION
    code = emulated.app.__code__
    assert code.co_varnames[: code.co_argcount] == ("scope", "receive", "send")
    assert {"_ministack", "_localstack"} == {path.split("/")[1] for path in emulated._HEALTH_PATHS if "_" in path}
