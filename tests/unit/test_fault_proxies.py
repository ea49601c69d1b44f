"""The proxies that spoil connections and calls do what they say, and nothing when they are told nothing."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from botocore.exceptions import ClientError, HTTPClientError

from tests import fault_actions as a
from tests.cloud import Cloud
from tests.emulators import ministack
from tests.eventually import until
from tests.fault_cloud import FaultyCloud, Rule, operation
from tests.fault_proxy import TcpProxy, middle_of_answer


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(client: socket.socket) -> None:
        with client:
            try:
                while data := client.recv(65_536):
                    client.sendall(data)
            except OSError:
                pass

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=(client,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


@pytest.fixture
def proxy() -> Iterator[TcpProxy]:
    with echo() as port, TcpProxy(port, seed=1) as each:
        yield each


def said(proxy: TcpProxy, data: bytes) -> bytes:
    """What comes back, up to as many bytes or the end. Raises ConnectionResetError after a reset."""
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.sendall(data)
        found = b""
        while len(found) < len(data) and (more := client.recv(65_536)):
            found += more
        return found


def test_without_faults_everything_goes_through(proxy: TcpProxy) -> None:
    assert said(proxy, b"x" * 300_000) == b"x" * 300_000
    assert proxy.resets == 0


def test_resets_after_some_bytes_and_of_a_share_and_of_new_ones(proxy: TcpProxy) -> None:
    with proxy.faulty(reset_after=10), pytest.raises(ConnectionResetError):
        said(proxy, b"x" * 100)
    with proxy.faulty(reset_share=1.0), pytest.raises(ConnectionResetError):
        said(proxy, b"x")
    assert proxy.resets == 2
    with proxy.faulty(refuse=True), pytest.raises(ConnectionError):
        said(proxy, b"x" * 100_000)
    assert said(proxy, b"healed") == b"healed"


def test_a_black_hole_swallows_and_ends(proxy: TcpProxy) -> None:
    with socket.create_connection(("127.0.0.1", proxy.port), timeout=0.2) as client:
        with proxy.faulty(blackhole=True):
            client.sendall(b"x")
            with pytest.raises(TimeoutError):
                client.recv(1)
        client.settimeout(10)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_the_middle_of_an_answer_is_found_in_its_frames() -> None:
    settings, health = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]), bytes([0, 0, 7, 0, 0, 0, 0, 0, 1]) + bytes(7)
    answer = bytes([0, 0, 40, 0, 0, 0, 0, 0, 3]) + bytes(40)
    assert middle_of_answer(settings + health) >= len(settings + health)
    assert middle_of_answer(settings + health + answer + settings) == len(settings + health) + 9 + 20


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyCloud]:
    with ministack(tmp_path_factory.mktemp("emulator")) as url, FaultyCloud(int(url.rpartition(":")[2])) as each:
        yield each


@pytest.fixture
def hands(cloud: FaultyCloud) -> Iterator[Cloud]:
    """Through the proxy."""
    hands = Cloud(cloud.port)
    hands.s3.create_bucket(Bucket="bucket")
    hands.sqs.create_queue(QueueName="q")
    yield hands
    hands.sqs.delete_queue(QueueUrl=hands.queue("q"))
    hands.close()


def test_operations_are_told_apart() -> None:
    assert operation("POST", "/", {"X-Amz-Target": "AmazonSQS.SendMessageBatch"}) == "SendMessageBatch"
    assert operation("PUT", "/b/k", {"x-amz-copy-source": "b/o"}) == "CopyObject"
    assert operation("PUT", "/b/k/l", {}) == "PutObject"
    assert operation("HEAD", "/b", {}) == "HEAD bucket"
    assert operation("POST", "/b?delete", {}) == "DeleteObjects"


def test_an_answer_that_is_lost_or_cut_was_still_obeyed(cloud: FaultyCloud, hands: Cloud) -> None:
    hands.s3.put_object(Bucket="bucket", Key="whole", Body=b"12345678")
    with cloud.faulty(Rule("PutObject", a.answer_lost)) as [rule], pytest.raises(HTTPClientError):
        hands.s3.put_object(Bucket="bucket", Key="lost", Body=b"x")
    assert rule.hits >= 1
    assert {"whole", "lost"} <= hands.objects("bucket")
    with cloud.faulty(Rule("GetObject", a.answer_cut)), pytest.raises(Exception, match=r"Incomplete|broken|Connection"):
        hands.s3.get_object(Bucket="bucket", Key="whole")["Body"].read()
    assert hands.s3.get_object(Bucket="bucket", Key="whole")["Body"].read() == b"12345678"


def test_half_of_an_upload_is_kept_and_errors_come_in_both_tongues(cloud: FaultyCloud, hands: Cloud) -> None:
    with cloud.faulty(Rule("PutObject", a.half_stored)):
        hands.s3.put_object(Bucket="bucket", Key="half", Body=b"1234567890")
    assert hands.s3.get_object(Bucket="bucket", Key="half")["Body"].read() == b"123"
    with cloud.faulty(Rule("GetObject", a.refused(404, "NoSuchKey"))), pytest.raises(ClientError, match="NoSuchKey"):
        hands.s3.get_object(Bucket="bucket", Key="half")
    with cloud.faulty(Rule("GetQueueUrl", a.refused(400, "Throttled"))), pytest.raises(ClientError, match="Throttled"):
        hands.queue("q")


def send(hands: Cloud, count: int) -> list[str]:
    """Ids of the entries that the answer calls successful."""
    entries = [{"Id": str(k), "MessageBody": f"m{k}"} for k in range(count)]
    answer = hands.sqs.send_message_batch(QueueUrl=hands.queue("q"), Entries=entries)  # type: ignore[arg-type]
    return [each["Id"] for each in answer.get("Successful", [])]


def test_some_entries_of_a_batch_fail_and_are_not_done(cloud: FaultyCloud, hands: Cloud) -> None:
    with cloud.faulty(Rule("SendMessageBatch", a.some_failed(3), times=1)):
        assert len(send(hands, 8)) == 5
        assert hands.waiting("q") == 5
        assert len(send(hands, 8)) == 8


def test_messages_are_multiplied_and_deliveries_repeated(cloud: FaultyCloud, hands: Cloud) -> None:
    with cloud.faulty(Rule("SendMessageBatch", a.multiplied(most=5, delay_s=0))):
        assert len(send(hands, 10)) == 10
    first = hands.waiting("q")
    assert 10 < first <= 50
    again = a.Replayed()
    with cloud.faulty(Rule("ReceiveMessage", again)):
        url = hands.queue("q")
        until(lambda: (hands.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10), again.again)[1])


def test_what_is_said_to_be_done_is_not(cloud: FaultyCloud, hands: Cloud) -> None:
    send(hands, 2)
    url = hands.queue("q")
    taken = hands.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600)["Messages"]
    entries = [{"Id": str(k), "ReceiptHandle": each["ReceiptHandle"]} for k, each in enumerate(taken)]
    with cloud.faulty(Rule("DeleteMessageBatch", a.receipts_invalid())):
        answer = hands.sqs.delete_message_batch(QueueUrl=url, Entries=entries)  # type: ignore[arg-type]
        assert {each["Code"] for each in answer["Failed"]} == {"ReceiptHandleIsInvalid"}
    assert hands.waiting("q") == 2
    changed = [{**each, "VisibilityTimeout": 0} for each in entries]
    with cloud.faulty(Rule("ChangeMessageVisibilityBatch", a.said_done)):
        answer = hands.sqs.change_message_visibility_batch(QueueUrl=url, Entries=changed)  # type: ignore[arg-type]
        assert len(answer["Successful"]) == 2
    assert not hands.sqs.receive_message(QueueUrl=url).get("Messages")


def test_a_share_is_a_share_and_the_same_for_the_same_seed() -> None:
    def drawn(seed: int) -> list[bool]:
        proxy = TcpProxy(seed=seed)
        proxy.loop.close()
        return [proxy.lot(0.3) for _ in range(1_000)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert 230 < sum(drawn(1)) < 370
