"""The engine `http` against a foreign server that speaks the OpenAI Images API, well and badly."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from io import BytesIO

import pytest
from PIL import Image

from tests.engine_processes import job
from tests.eventually import until
from tests.images_standin import KEY, Seen, colour, standin
from worker.engines.contract import Done, EncodedPicture, RenderJob
from worker.engines.errors import BadOutput, EngineAway, EngineError, ModelAway, Unsupported
from worker.engines.http.calls import ModelServer, Patience
from worker.engines.http.engine import HttpEngine
from worker.output.encode import encode

QUICK = Patience(timeout_s=30.0, attempts=3, first_wait_s=0.01)


@pytest.fixture
def server() -> Iterator[tuple[str, Seen]]:
    with standin() as running:
        yield running


@pytest.fixture
def engine(server: tuple[str, Seen]) -> Iterator[HttpEngine]:
    made = make(server[0])
    made.load()
    yield made
    made.unload()


def make(
    base: str, *, patience: Patience = QUICK, api_key_env: str = "", clock: Callable[[], float] = time.perf_counter
) -> HttpEngine:
    return HttpEngine(
        "m",
        ModelServer(base=base, remote_name="Qwen/Qwen-Image", api_key_env=api_key_env),
        patience=replace(patience, beat_s=0.05),
        clock=clock,
        max_batch=4,
    )


def render(engine: HttpEngine, *jobs: RenderJob) -> dict[str, EncodedPicture]:
    engine.admit(jobs)
    done: dict[str, EncodedPicture] = {}
    while len(done) < len(jobs):
        for each in engine.step(lambda _: None).finished:
            picture = engine.decode(each)
            assert isinstance(picture, EncodedPicture)
            done[each.job_id] = picture
    return done


def is_right(picture: EncodedPicture, wanted: RenderJob) -> bool:
    with Image.open(BytesIO(picture.data)) as image:
        pixel = image.getpixel((0, 0))
    size = (picture.width, picture.height) == (wanted.width, wanted.height)
    return size and pixel == colour(wanted.seed) and picture.media_type == "image/png"


def test_the_published_request_is_sent_and_each_picture_is_its_own(
    server: tuple[str, Seen], engine: HttpEngine
) -> None:
    jobs = [job(number) for number in range(4)]
    pictures = render(engine, *jobs)
    assert all(is_right(pictures[each.id], each) for each in jobs)
    assert min(server[1].bodies, key=lambda body: int(body["seed"])) == {
        "model": "Qwen/Qwen-Image",
        "prompt": "a picture",
        "n": 1,
        "size": "64x64",
        "response_format": "b64_json",
        "output_format": "png",
        "seed": 100,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
    }
    data, _ = encode(pictures["gen_0/0"], 1)
    assert data is pictures["gen_0/0"].data
    assert (engine.facts.engine, engine.facts.model, engine.facts.device) == ("http:openai", "m", "remote")


@pytest.mark.parametrize("fault", ["status=500", "status=502", "status=503", "status=429", "reset", "later=0"])
def test_a_passing_fault_is_tried_again(server: tuple[str, Seen], engine: HttpEngine, fault: str) -> None:
    wanted = job(1, f"once:{fault}")
    assert is_right(render(engine, wanted)[wanted.id], wanted)
    assert len(server[1].bodies) == 2


def test_retry_after_is_honoured(server: tuple[str, Seen], engine: HttpEngine) -> None:
    render(engine, job(1, "once:later=1"))
    first, second = server[1].at_s
    assert second - first >= 1.0


@pytest.mark.parametrize(
    ("fault", "complaint"),
    [
        ("status=500", "answered 500"),
        ("base64", "no picture in base64"),
        ("url", "no picture in base64"),
        ("html", "no picture in base64"),
        ("list", "no picture in base64"),
        ("deep", "no picture in base64"),
        ("text", "is no picture"),
        ("huge", "too long"),
    ],
)
def test_what_the_server_cannot_give_fails_alone(engine: HttpEngine, fault: str, complaint: str) -> None:
    bad, good = job(1, f"fault:{fault}"), job(2)
    engine.admit([bad, good])
    done = {each.job_id: each for each in engine.step(lambda _: None).finished}
    with pytest.raises(BadOutput, match=complaint) as caught:
        engine.decode(done[bad.id])
    assert "fault" not in str(caught.value)  # the server's text quotes the prompt
    picture = engine.decode(done[good.id])
    assert isinstance(picture, EncodedPicture)
    assert is_right(picture, good)


def test_a_cut_file_is_found_where_it_is_encoded(engine: HttpEngine) -> None:
    engine.admit([job(1, "fault:cut")])
    (done,) = engine.step(lambda _: None).finished
    with pytest.raises(BadOutput):
        encode(engine.decode(done), 1)


def test_another_size_is_reported_as_what_it_is(engine: HttpEngine) -> None:
    assert render(engine, job(1, "fault:size"))["gen_1/0"].width == 72  # the worker compares


class Clock:
    """Turned by hand."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patient(server: tuple[str, Seen], clock: Clock) -> Iterator[HttpEngine]:
    """An engine whose clock is turned by hand."""
    made = make(server[0], clock=clock)
    made.load()
    yield made
    made.unload()


def outcome(engine: HttpEngine, done: Done) -> str:
    """ "picture", or what is wrong."""
    try:
        engine.decode(done)
    except EngineError as error:
        return f"{type(error).__name__}: {error}"
    return "picture"


@pytest.mark.parametrize(
    "fault",
    ["status=301", "status=401", "status=403", "status=404", "status=405", "status=451", "status=418", "redirect"],
)
def test_what_is_refused_for_one_prompt_fails_alone_after_two_refusals(
    server: tuple[str, Seen], patient: HttpEngine, clock: Clock, fault: str
) -> None:
    """Its mates are rendered, and the server is not taken for away."""
    bad = job(1, f"fault:{fault}")
    patient.admit([bad, job(2), job(3)])
    done = {each.job_id: outcome(patient, each) for each in patient.step(lambda _: None).finished}
    assert done == {"gen_2/0": "picture", "gen_3/0": "picture"}
    (first,) = patient.step(lambda _: None).finished  # asked for alone, and given back
    assert outcome(patient, first).startswith("NotNow: the model server answered ")
    clock.now_s += 5.0
    patient.admit([bad, job(4)])
    (mate,) = patient.step(lambda _: None).finished
    assert (mate.job_id, outcome(patient, mate)) == ("gen_4/0", "picture")
    (second,) = patient.step(lambda _: None).finished
    status = fault.removeprefix("status=").replace("redirect", "302")
    assert outcome(patient, second) == f"Refused: the model server answered {status}"
    assert sum(body["prompt"] == bad.prompt for body in server[1].bodies) == 3


def test_a_long_retry_after_of_one_prompt_holds_up_that_one_only(
    server: tuple[str, Seen], patient: HttpEngine, clock: Clock
) -> None:
    bad = job(1, "fault:later=3600")
    patient.admit([bad, job(2)])
    began = time.perf_counter()
    done = {each.job_id: outcome(patient, each) for each in patient.step(lambda _: None).finished}
    assert done == {"gen_1/0": "NotNow: the model server answered 429", "gen_2/0": "picture"}
    assert time.perf_counter() - began < 30
    patient.admit([bad, job(3)])
    early = {each.job_id: outcome(patient, each) for each in patient.step(lambda _: None).finished}
    assert early == {"gen_1/0": "NotNow: the model server answered 429", "gen_3/0": "picture"}
    assert sum(body["prompt"] == bad.prompt for body in server[1].bodies) == 1, "not asked for before its time"
    clock.now_s += 61.0
    patient.admit([bad])
    patient.step(lambda _: None)
    assert sum(body["prompt"] == bad.prompt for body in server[1].bodies) == 2, "bounded"


@pytest.mark.parametrize("answer", [401, 403, 404, 503, 429])
def test_without_a_witness_it_is_an_outage(server: tuple[str, Seen], patient: HttpEngine, answer: int) -> None:
    server[1].answer = answer
    patient.admit([job(1), job(2)])
    with pytest.raises(EngineAway, match=f"the model server answered {answer}"):
        patient.step(lambda _: None)


def test_a_key_that_is_refused_since_fails_no_picture(
    server: tuple[str, Seen], patient: HttpEngine, clock: Clock
) -> None:
    """The server has worked a moment ago; that it now refuses everybody shows when it is asked how it is."""
    render(patient, job(1))
    server[1].key, server[1].answer = "another", 401
    patient.admit([job(2)])
    (first,) = patient.step(lambda _: None).finished
    assert outcome(patient, first).startswith("NotNow")
    clock.now_s += 5.0
    patient.admit([job(2)])
    with pytest.raises(EngineAway, match="refuses the key"):
        patient.step(lambda _: None)


@pytest.mark.parametrize("status", [200, 400])
def test_what_a_content_filter_says_outright_is_final_at_once(engine: HttpEngine, status: int) -> None:
    engine.admit([job(1, f"fault:filter={status}"), job(2)])
    done = {each.job_id: outcome(engine, each) for each in engine.step(lambda _: None).finished}
    refused = f"Refused: the model server answered {status} (content_policy_violation)"
    assert done == {"gen_1/0": refused, "gen_2/0": "picture"}


def test_a_slow_answer_holds_up_no_mates(server: tuple[str, Seen], engine: HttpEngine) -> None:
    engine.admit([job(1, "fault:slow"), job(2), job(3)])
    done = {each.job_id: outcome(engine, each) for each in engine.step(lambda _: None).finished}
    assert done == {"gen_2/0": "picture", "gen_3/0": "picture"}
    server[1].release.set()
    (slow,) = engine.step(lambda _: None).finished
    assert (slow.job_id, outcome(engine, slow)) == ("gen_1/0", "picture")
    assert len(server[1].bodies) == 3, "the one request for it went on"


def test_a_slow_answer_is_given_up_at_its_limit(server: tuple[str, Seen], clock: Clock) -> None:
    engine = make(server[0], patience=Patience(timeout_s=0.5), clock=clock)
    engine.load()
    beats: list[object] = []
    engine.admit([job(1, "fault:slow")])
    (done,) = engine.step(beats.append).finished
    assert outcome(engine, done) == "NotNow: no answer within 0.5 s"
    assert beats  # it said meanwhile that it lives
    clock.now_s += 5.0
    engine.admit([job(1, "fault:slow")])
    (done,) = engine.step(lambda _: None).finished
    assert outcome(engine, done).endswith("asked alone and twice")  # or it would stop one worker after the other
    engine.unload()


@pytest.mark.parametrize("fault", ["status=503", "reset"])
def test_a_lasting_fault_for_one_prompt_is_given_back_alone(engine: HttpEngine, fault: str) -> None:
    engine.admit([job(1, f"fault:{fault}"), job(2)])
    done: dict[str, str] = {}
    while len(done) < 2:
        done |= {each.job_id: outcome(engine, each) for each in engine.step(lambda _: None).finished}
    assert done["gen_2/0"] == "picture"
    assert done["gen_1/0"].startswith("NotNow")
    assert is_right(render(engine, job(3))["gen_3/0"], job(3))


def test_a_500_of_a_sick_server_convicts_nobody(server: tuple[str, Seen], engine: HttpEngine) -> None:
    server[1].healthy = False
    engine.admit([job(1)])
    (done,) = engine.step(lambda _: None).finished
    assert outcome(engine, done).startswith("NotNow")
    with pytest.raises(ModelAway, match="not ready"):
        engine.load()
    server[1].healthy = True
    engine.load()
    assert render(engine, job(2))


def test_an_absent_server_is_told_at_once() -> None:
    with standin() as (base, _):
        engine = make(base)
        engine.load()
    engine.admit([job(1)])
    with pytest.raises(EngineAway, match="Client"):
        engine.step(lambda _: None)
    engine.reset()
    with pytest.raises(ModelAway, match="not reachable"):
        engine.load()
    assert not engine.loaded


def test_an_evicted_request_ends_and_its_mates_do_not(server: tuple[str, Seen], engine: HttpEngine) -> None:
    engine.admit([job(1, "fault:slow"), job(2)])

    def evict() -> None:
        until(lambda: len(server[1].bodies) == 2, what="both have been asked for")
        engine.evict("gen_1/0")
        engine.evict("unknown/0")

    evictor = threading.Thread(target=evict)
    evictor.start()
    stepped = engine.step(lambda _: None)
    evictor.join()
    assert list(stepped.evicted) == ["gen_1/0"]
    assert [done.job_id for done in stepped.finished] == ["gen_2/0"]
    wanted = job(1)
    assert is_right(render(engine, wanted)["gen_1/0"], wanted)  # the same id may come again


def test_who_is_evicted_before_the_step_is_not_asked_for(server: tuple[str, Seen], engine: HttpEngine) -> None:
    engine.admit([job(1), job(2)])
    engine.evict("gen_1/0")
    stepped = engine.step(lambda _: None)
    assert (list(stepped.evicted), [done.job_id for done in stepped.finished]) == (["gen_1/0"], ["gen_2/0"])
    assert len(server[1].bodies) == 1


def test_the_key_comes_from_the_named_variable_and_shows_nowhere(
    server: tuple[str, Seen], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server[1].key = KEY
    monkeypatch.delenv("A_KEY", raising=False)
    engine = make(server[0], api_key_env="A_KEY")
    with pytest.raises(ModelAway, match="A_KEY holds no key"):
        engine.load()
    monkeypatch.setenv("A_KEY", "sk-wrong")
    with pytest.raises(ModelAway, match="refuses the key") as caught:
        engine.load()
    monkeypatch.setenv("A_KEY", KEY)
    engine.load()
    engine.admit([job(1, "fault:status=503")])
    engine.step(lambda _: None)
    assert render(engine, job(2))
    engine.unload()
    shown = "".join(capsys.readouterr()) + str(caught.value) + repr(vars(engine))
    assert "http_engine.unanswered" in shown
    assert KEY not in shown
    assert "sk-wrong" not in shown


def test_what_a_server_says_of_itself_is_made_harmless(server: tuple[str, Seen]) -> None:
    """It goes into replies and logs: a lone surrogate is no text, and would end the worker there."""
    server[1].about = b'{"engine": "x\\n\\u0007", "device": "\\ud800 GPU", "dtype": "", "libraries": "L"}'.replace(
        b"L", b"l" * 999
    )
    server[1].headers = {"X-Darkroom-Scheduler": "ddim\xff" * 100}
    engine = make(server[0])
    engine.load()
    assert (engine.facts.engine, engine.facts.device, engine.facts.dtype) == ("http:x??", "? GPU", "")
    assert engine.facts.libraries == "l" * 100
    scheduler = render(engine, job(1))["gen_1/0"].scheduler
    assert scheduler.startswith("ddim?")
    assert len(scheduler) == 64
    engine.unload()


def test_a_health_answer_that_is_nested_too_deeply_says_nothing(server: tuple[str, Seen]) -> None:
    server[1].about = b"[" * 10_000
    engine = make(server[0])
    engine.load()
    assert engine.facts.device == "remote"
    engine.unload()


def test_a_scheduler_cannot_be_asked_of_it(engine: HttpEngine) -> None:
    with pytest.raises(Unsupported, match="scheduler"):
        engine.key(RenderJob(**{name: getattr(job(1), name) for name in job(1).__slots__} | {"scheduler": "ddim"}))
