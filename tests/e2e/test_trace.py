"""One connected trace per generation, at a real OTLP receiver; and no prompt or key in any of its spans."""

from collections.abc import Iterator, Sequence

import pytest

from tests.api import CANARY
from tests.e2e import invariants
from tests.eventually import until
from tests.otlp import Receiver, Span
from tests.stack import Stack

STORY = [
    ("core", "generation.requested"),
    ("core", "send darkroom-jobs"),
    ("worker", "process darkroom-jobs"),
    ("worker", "generate_content quick"),
    ("worker", "send darkroom-replies"),
    ("core", "process darkroom-replies"),
    ("core", "publish"),
]


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, receiver: Receiver) -> Iterator[Stack]:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with Stack(tmp_path_factory.mktemp("trace"), env=env) as stack:
        yield stack
        invariants.check(stack)


def spans_of(receiver: Receiver, generation_id: str, images: int = 1) -> list[Span]:
    """The spans of the trace that the generation's POST began, once the story of all its images is complete."""

    def complete() -> list[Span]:
        spans = receiver.spans()
        traces = {span.trace_id for span in spans if generation_id in span.texts}
        for trace in traces:
            mine = [span for span in spans if span.trace_id == trace]
            ended = [span.name for span in mine if span.name in {"publish", "process darkroom-jobs"}]
            if len(ended) >= 2 * images and any(span.kind == "SERVER" for span in mine):
                return mine
        raise AssertionError(sorted({f"{span.service}: {span.name}" for span in spans}))

    return until(complete, 15, what=f"the trace of {generation_id} is complete")


def named(spans: Sequence[Span], name: str) -> Span:
    return next(span for span in spans if span.name == name)


def test_one_trace_leads_from_the_request_to_the_publication(stack: Stack, receiver: Receiver) -> None:
    client = stack.client()
    body = client.ended(client.submit(prompt=f"traced {CANARY}", n=2)["id"])
    assert body["status"] == "succeeded"
    spans = spans_of(receiver, body["id"], 2)

    seen = {(span.service.removeprefix("darkroom-"), span.name) for span in spans}
    assert set(STORY) <= seen, sorted(set(STORY) - seen)
    known = {span.span_id for span in spans}
    roots = [span for span in spans if span.parent_id not in known]
    assert [(span.kind, span.service.removeprefix("darkroom-")) for span in roots] == [("SERVER", "gateway")]
    assert roots[0].name.startswith("POST")
    for name in ("process darkroom-jobs", "generate_content quick", "send darkroom-replies", "publish"):
        assert sum(span.name == name for span in spans) >= 2, f"{name} for each image"


def test_messaging_and_model_spans_carry_the_fields_names(stack: Stack, receiver: Receiver) -> None:
    client = stack.client()
    body = client.ended(client.submit(seed=99)["id"])
    spans = spans_of(receiver, body["id"])
    kinds = {"send darkroom-jobs": "PRODUCER", "process darkroom-jobs": "CONSUMER", "send darkroom-replies": "PRODUCER"}
    for name, kind in kinds.items():
        span = named(spans, name)
        assert span.kind == kind, span
        assert span.attributes["messaging.system"] == "aws_sqs"
        assert span.attributes["messaging.destination.name"] == name.split()[1]
        assert span.attributes["messaging.operation.type"] == name.split()[0]
        assert span.attributes["messaging.message.conversation_id"] == body["id"]
    drawn = named(spans, "generate_content quick").attributes
    assert drawn["gen_ai.operation.name"] == "generate_content"
    assert drawn["gen_ai.output.type"] == "image"
    assert drawn["gen_ai.request.model"] == "quick"
    assert int(str(drawn["gen_ai.request.seed"])) == 99


def test_process_is_a_child_of_its_send(stack: Stack, receiver: Receiver) -> None:
    client = stack.client()
    spans = spans_of(receiver, client.ended(client.submit()["id"])["id"])
    by_id = {span.span_id: span for span in spans}
    for queue in ("darkroom-jobs", "darkroom-replies"):
        for span in spans:
            if span.name == f"process {queue}":
                assert by_id[span.parent_id].name == f"send {queue}"
    assert by_id[named(spans, "generation.requested").parent_id].service.endswith("gateway")
    assert by_id[named(spans, "send darkroom-jobs").parent_id].name == "generation.requested"


def test_a_gpu_batch_and_its_members_link_to_each_other(stack: Stack, receiver: Receiver) -> None:
    client = stack.client()
    body = client.ended(client.submit(n=4)["id"])
    members = [span for span in spans_of(receiver, body["id"], 4) if span.name == "generate_content quick"]
    assert len(members) == 4

    def linked_both_ways() -> bool:
        by_id = {span.span_id: span for span in receiver.spans()}
        for member in members:
            batches = [by_id[span_id] for _, span_id in member.links if span_id in by_id]
            assert batches, f"{member.name} links to no span that has arrived: {member.links}"
            process = member.trace_id, member.parent_id
            assert any(process in batch.links for batch in batches), f"{process} is not among {batches}"
        return True

    until(linked_both_ways, 10, what="batch and members link to each other")


def test_no_span_holds_a_prompt_or_a_key(stack: Stack, receiver: Receiver) -> None:
    client = stack.client()
    body = client.ended(client.submit(negative_prompt=f"no {CANARY}")["id"])
    client.picture(body["id"])
    client.post(colour=CANARY).problem(422)
    spans_of(receiver, body["id"])
    secret = client.key.rsplit("_", 1)[1]
    words = (CANARY, secret, "X-Amz-Signature")
    leaks = [(span.name, text) for span in receiver.spans() for text in span.texts if any(w in text for w in words)]
    assert not leaks, leaks[:3]
