"""The worker driven by a stranger: nothing but the protos, a queue and a bucket. What docs/queue-contract.md promises.

A real worker process with the emulated engine, a real emulator of SQS and S3, and no core.
"""

import base64
import hashlib
import json
import signal
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from schema import fast, messages, pb
from tests import emulators, otlp
from tests.cloud import DEAD, JOBS, REPLIES, TEMP, Cloud
from tests.emulators import aws_environment
from tests.eventually import until
from tests.process import Process, free_port, module
from worker.engines.emulated import read_emulated

MODELS = """
[[models]]
name = "quick"
engine = "emulated"
max_batch = 4
step_ms = 5.0

[[models]]
name = "slow"
engine = "emulated"
max_batch = 2
step_ms = 200.0
"""
VISIBILITY_S = 3
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
pytestmark = pytest.mark.timeout(60)


class System:
    """A system other than core, on the other side of the queues."""

    def __init__(self, port: int, folder: Path) -> None:
        self.cloud = Cloud(port)
        self.folder = folder
        self.replies: list[Any] = []
        self.traces: list[str] = []
        for name in (JOBS, REPLIES, DEAD):
            self.cloud.sqs.create_queue(QueueName=name, Attributes={"VisibilityTimeout": str(VISIBILITY_S)})
        self.cloud.s3.create_bucket(Bucket=TEMP)
        (folder / "models.toml").write_text(MODELS)
        self.admin = free_port()
        env = aws_environment(f"http://127.0.0.1:{port}") | {
            "PATH": "/usr/bin:/bin",
            "DARKROOM_MODELS_FILE": str(folder / "models.toml"),
            "DARKROOM_CORE_TARGET": "",
            "DARKROOM_VISIBILITY_S": str(VISIBILITY_S),
            "DARKROOM_WORKER_ADMIN_PORT": str(self.admin),
            "DARKROOM_WORKER_ID": "worker-of-mine",
            "DARKROOM_WORKER_RECEIVE_WAIT_S": "1",
            "DARKROOM_LOG_LEVEL": "debug",
            "DARKROOM_LOG_FORMAT": "json",
        }
        self.worker = Process("worker", module("worker"), env, folder)

    def send(self, jobs: Sequence[bytes | str]) -> None:
        for job in jobs:
            body = base64.b64encode(job).decode() if isinstance(job, bytes) else job
            trace = {"traceparent": {"DataType": "String", "StringValue": TRACE}}
            self.cloud.sqs.send_message(QueueUrl=self.cloud.queue(JOBS), MessageBody=body, MessageAttributes=trace)  # type: ignore[arg-type]

    def listen(self) -> list[Any]:
        """All replies so far, in order of arrival; each is acknowledged."""
        url = self.cloud.queue(REPLIES)
        answer = self.cloud.sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
        )
        for message in answer.get("Messages", []):
            self.replies.append(messages.decode(base64.b64decode(message["Body"])))
            self.traces.append(message["MessageAttributes"]["traceparent"]["StringValue"])
            self.cloud.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return self.replies

    def of(self, kind: type[Any]) -> list[Any]:
        return [reply for reply in self.listen() if isinstance(reply, kind)]

    def ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/readyz", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            assert self.worker.alive, self.worker.tail()
            return False

    def start(self, **env: str) -> None:
        self.worker.start(**env)
        until(self.ready, 20, what=f"the worker is ready\n{self.worker.tail()}")

    def no_job_left(self) -> None:
        until(lambda: self.cloud.waiting(JOBS) == 0, 20, what=f"every message is deleted\n{self.worker.tail()}")


@pytest.fixture
def system(tmp_path: Path) -> Iterator[System]:
    port = emulators.free_port()
    with emulators.ministack(tmp_path, port):
        mine = System(port, tmp_path)
        try:
            yield mine
        finally:
            mine.worker.kill()
            mine.cloud.close()
    assert "a secret prompt" not in mine.worker.output()


def job(number: int, *, model: str = "quick", steps: int = 4, form: int = 1, **more: Any) -> bytes:
    return messages.encode(
        fast.ImageJob(
            image=fast.ImageRef(generation_id=f"gen_{number}", index=1),
            dispatch=more.pop("dispatch", 1),
            spec=fast.GenerationSpec(
                model=model,
                width=64,
                height=128,
                num_inference_steps=steps,
                guidance_scale=3.0,
                seed=number,
                n=2,
                output_format=pb.OutputFormat(form),
            ),
            prompts=fast.Prompts(prompt="a secret prompt"),
            image_seed=number + 1,
            **more,
        )
    )


def test_a_picture_for_each_job_in_the_promised_order(system: System) -> None:
    system.start()
    system.send([job(number, form=1 + number % 3) for number in range(6)])
    until(lambda: len(system.of(fast.ImageRendered)) == 6, 20, what=system.worker.tail())
    system.no_job_left()
    for rendered in system.of(fast.ImageRendered):
        started = next(each for each in system.of(fast.ImageStarted) if each.attempt_id == rendered.attempt_id)
        assert (started.image, started.worker_id, started.dispatch) == (rendered.image, "worker-of-mine", 1)
        data = system.cloud.s3.get_object(Bucket=TEMP, Key=rendered.temp_key)["Body"].read()
        number = int(rendered.image.generation_id.removeprefix("gen_"))
        assert hashlib.sha256(data).digest() == rendered.sha256
        assert len(data) == rendered.size_bytes
        assert read_emulated(data) == (f"gen_{number}", 1, number + 1)
        assert (rendered.width, rendered.height, int(rendered.format)) == (64, 128, 1 + number % 3)
        assert rendered.facts.engine == "emulated"
        assert rendered.facts.seed == number + 1
        assert rendered.image in rendered.facts.batch_members
        assert 20 <= rendered.timings.batch_gpu_ms < 2_000
        assert 0 < rendered.timings.gpu_ms <= rendered.timings.batch_gpu_ms
    assert all(trace == TRACE for trace in system.traces)  # no exporter: the sender's context goes on unchanged
    assert not system.of(fast.ImageAttemptFailed)


def test_what_is_no_job_goes_to_the_dead_letter_queue_and_the_rest_goes_on(system: System) -> None:
    whole = job(1)
    foreign = messages.encode(
        fast.ImageStarted(
            image=fast.ImageRef(generation_id="gen_1"),
            attempt_id="a",
            dispatch=1,
            worker_id="w",
            batch_id="b",
            batch_size=1,
        )
    )
    system.send([whole[:-3], "no base64 at all!", b"\0" * 40, foreign, whole[:40] + b"x" + whole[41:], job(2)])
    system.start()
    until(lambda: len(system.of(fast.ImageRendered)) == 1, 20, what=system.worker.tail())
    system.no_job_left()
    assert system.cloud.waiting(DEAD) == 5
    assert len(system.of(fast.ImageStarted)) == 1


def test_an_unknown_model_is_refused_with_a_reply(system: System) -> None:
    system.start()
    system.send([job(1, model="no-such-model")])
    failed = until(lambda: system.of(fast.ImageAttemptFailed), 20, what=system.worker.tail())[0]
    assert int(failed.failure) == pb.AttemptFailure.UNSUPPORTED
    assert not system.of(fast.ImageStarted)
    system.no_job_left()


def test_a_duplicate_gives_one_picture(system: System) -> None:
    system.send([job(1, model="slow")] * 3)
    system.start()
    until(lambda: system.of(fast.ImageRendered), 20, what=system.worker.tail())
    system.no_job_left()
    assert len(system.of(fast.ImageRendered)) == 1


def test_messages_stay_hidden_while_a_batch_outlasts_the_visibility_timeout(system: System) -> None:
    system.send([job(number, model="slow", steps=12) for number in range(5)])  # three batches of about 3 s
    system.start()
    until(lambda: len(system.of(fast.ImageRendered)) == 5, 40, what=system.worker.tail())
    system.no_job_left()
    assert len(system.of(fast.ImageStarted)) == 5


def test_a_drain_finishes_what_runs_and_gives_the_rest_back_at_once(system: System) -> None:
    system.send([job(number, model="slow", steps=20) for number in range(8)])
    system.start(DARKROOM_VISIBILITY_S="60")
    until(lambda: len(system.of(fast.ImageStarted)) >= 2, 20, what=system.worker.tail())
    began = time.monotonic()
    system.worker.signal(signal.SIGTERM)

    def visible() -> int:
        attributes = system.cloud.sqs.get_queue_attributes(QueueUrl=system.cloud.queue(JOBS), AttributeNames=["All"])
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    until(lambda: visible() >= 4, 2, what=f"buffered jobs are visible again\n{system.worker.tail()}")
    assert time.monotonic() - began < 2
    assert system.worker.exit_code(20) == 0
    started = {str(each.attempt_id) for each in system.of(fast.ImageStarted)}
    rendered = {str(each.attempt_id) for each in system.of(fast.ImageRendered)}
    drained = {str(each.attempt_id) for each in system.of(fast.ImageAttemptFailed)}
    assert rendered
    assert rendered | drained == started
    assert all(int(each.failure) == pb.AttemptFailure.DRAINED for each in system.of(fast.ImageAttemptFailed))
    assert system.cloud.waiting(JOBS) == 8 - len(started)


def test_a_missing_model_folder_is_one_line_and_exit_code_2(system: System, tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text('[[models]]\nname = "m"\nengine = "pipeline"\nsource = "no/such/folder"\n')
    system.worker.start()
    assert system.worker.exit_code(20) == 2
    lines = system.worker.output().splitlines()
    assert len(lines) == 1
    assert "no/such/folder" in lines[0]


def test_a_hung_engine_ends_the_process_and_says_which_images_ran(system: System) -> None:
    system.send([job(1, model="slow", steps=20)])
    system.worker.start(DARKROOM_WORKER_HANG_S="0.5", DARKROOM_FAILPOINTS="worker.gpu_mid=sleep:60@3")
    failed = until(lambda: system.of(fast.ImageAttemptFailed), 20, what=system.worker.tail())[0]
    assert int(failed.failure) == pb.AttemptFailure.HUNG
    assert system.worker.exit_code(10) == 1
    system.no_job_left()


def test_one_trace_goes_from_the_senders_span_to_the_reply(system: System) -> None:
    with otlp.Receiver() as receiver:
        system.start(
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_TRACES_EXPORTER="otlp", OTEL_BSP_SCHEDULE_DELAY="100"
        )
        system.send([job(1)])
        until(lambda: system.of(fast.ImageRendered), 20, what=system.worker.tail())
        system.worker.stop()
        spans = {span.name: span for span in receiver.spans() if span.trace_id == TRACE.split("-")[1]}
        batch = next(span for span in receiver.spans() if span.name == "batch")
    process = spans[f"process {JOBS}"]
    generate = spans["generate_content quick"]
    assert (process.parent_id, process.kind) == (TRACE.split("-")[2], "CONSUMER")
    assert generate.parent_id == process.span_id
    assert generate.attributes["gen_ai.request.seed"] == 2
    assert spans[f"upload {TEMP}"].parent_id == process.span_id
    assert batch.links == ((process.trace_id, process.span_id),)
    assert generate.links == ((batch.trace_id, batch.span_id),)
    assert spans[f"send {REPLIES}"].kind == "PRODUCER"
    assert {trace.split("-")[1] for trace in system.traces} == {process.trace_id}
    sent = {span.span_id for span in receiver.spans() if span.name == f"send {REPLIES}"}
    assert {trace.split("-")[2] for trace in system.traces} == sent


def test_metrics_count_what_happened(system: System) -> None:
    system.start()
    system.send([job(number) for number in range(3)])
    until(lambda: len(system.of(fast.ImageRendered)) == 3, 20, what=system.worker.tail())
    with urllib.request.urlopen(f"http://127.0.0.1:{system.admin}/metrics", timeout=5) as answer:
        lines = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    assert float(lines['darkroom_worker_images_rendered_total{engine="emulated",model="quick"}']) == 3
    assert float(lines['darkroom_worker_gpu_seconds_total{cause="rendering"}']) > 0
    assert json.loads(json.dumps(lines))["darkroom_worker_quarantined_total"] == "0.0"
