# Made by `python -m tests.unit.schema.fast_types`; a test compares. Enums are ints.

from collections.abc import Iterable

from google.protobuf.internal.containers import RepeatedCompositeFieldContainer, RepeatedScalarFieldContainer
from google.protobuf.message import Message

class AttemptTimings(Message):
    wait_ms: float
    gpu_ms: float
    batch_gpu_ms: float
    decode_ms: float
    encode_ms: float
    upload_ms: float
    wait_reason: str
    def __init__(
        self,
        *,
        wait_ms: float = ...,
        gpu_ms: float = ...,
        batch_gpu_ms: float = ...,
        decode_ms: float = ...,
        encode_ms: float = ...,
        upload_ms: float = ...,
        wait_reason: str = ...,
    ) -> None: ...

class CancelReply(Message):
    cancelled: bool
    @property
    def generation(self) -> GenerationView: ...
    def __init__(
        self,
        *,
        cancelled: bool = ...,
        generation: GenerationView | None = ...,
    ) -> None: ...

class CancelRequest(Message):
    tenant: str
    generation_id: str
    def __init__(
        self,
        *,
        tenant: str = ...,
        generation_id: str = ...,
    ) -> None: ...

class EngineAbilities(Message):
    negative_prompt: bool
    guidance: str
    guidance_off: float
    size_factor: int
    min_width: int
    max_width: int
    min_height: int
    max_height: int
    min_steps: int
    max_steps: int
    @property
    def schedulers(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(
        self,
        *,
        negative_prompt: bool = ...,
        guidance: str = ...,
        guidance_off: float = ...,
        size_factor: int = ...,
        schedulers: Iterable[str] | None = ...,
        min_width: int = ...,
        max_width: int = ...,
        min_height: int = ...,
        max_height: int = ...,
        min_steps: int = ...,
        max_steps: int = ...,
    ) -> None: ...

class EngineError(Message):
    kind: int
    detail: str
    def __init__(
        self,
        *,
        kind: int = ...,
        detail: str = ...,
    ) -> None: ...

class EngineFinished(Message):
    job_id: str
    ticket: int
    def __init__(
        self,
        *,
        job_id: str = ...,
        ticket: int = ...,
    ) -> None: ...

class EngineFrame(Message):
    kind: int
    pixel_bytes: int
    fits: int
    ahead: bool
    timed_size: int
    timed_s: float
    @property
    def hello(self) -> EngineHello: ...
    @property
    def jobs(self) -> RepeatedCompositeFieldContainer[EngineJob]: ...
    @property
    def job_ids(self) -> RepeatedScalarFieldContainer[str]: ...
    @property
    def tickets(self) -> RepeatedScalarFieldContainer[int]: ...
    @property
    def steps(self) -> RepeatedCompositeFieldContainer[EngineStep]: ...
    @property
    def finished(self) -> RepeatedCompositeFieldContainer[EngineFinished]: ...
    @property
    def picture(self) -> EnginePicture: ...
    @property
    def error(self) -> EngineError: ...
    def __init__(
        self,
        *,
        kind: int = ...,
        pixel_bytes: int = ...,
        hello: EngineHello | None = ...,
        jobs: Iterable[EngineJob] | None = ...,
        job_ids: Iterable[str] | None = ...,
        tickets: Iterable[int] | None = ...,
        steps: Iterable[EngineStep] | None = ...,
        finished: Iterable[EngineFinished] | None = ...,
        picture: EnginePicture | None = ...,
        error: EngineError | None = ...,
        fits: int = ...,
        ahead: bool = ...,
        timed_size: int = ...,
        timed_s: float = ...,
    ) -> None: ...

class EngineHello(Message):
    engine: str
    model: str
    model_revision: str
    dtype: str
    device: str
    libraries: str
    join_midway: bool
    evict_one: bool
    park: bool
    max_batch: int
    @property
    def abilities(self) -> EngineAbilities: ...
    def __init__(
        self,
        *,
        engine: str = ...,
        model: str = ...,
        model_revision: str = ...,
        dtype: str = ...,
        device: str = ...,
        libraries: str = ...,
        join_midway: bool = ...,
        evict_one: bool = ...,
        park: bool = ...,
        max_batch: int = ...,
        abilities: EngineAbilities | None = ...,
    ) -> None: ...

class EngineJob(Message):
    job_id: str
    @property
    def spec(self) -> GenerationSpec: ...
    @property
    def prompts(self) -> Prompts: ...
    def __init__(
        self,
        *,
        job_id: str = ...,
        spec: GenerationSpec | None = ...,
        prompts: Prompts | None = ...,
    ) -> None: ...

class EnginePicture(Message):
    width: int
    height: int
    scheduler: str
    media_type: str
    guidance: str
    guidance_scale: float
    negative_prompt: bool
    rendered_width: int
    rendered_height: int
    def __init__(
        self,
        *,
        width: int = ...,
        height: int = ...,
        scheduler: str = ...,
        media_type: str = ...,
        guidance: str = ...,
        guidance_scale: float = ...,
        negative_prompt: bool = ...,
        rendered_width: int = ...,
        rendered_height: int = ...,
    ) -> None: ...

class EngineStep(Message):
    job_id: str
    step: int
    def __init__(
        self,
        *,
        job_id: str = ...,
        step: int = ...,
    ) -> None: ...

class EraseReply(Message):
    erased: bool
    @property
    def generation(self) -> GenerationView: ...
    def __init__(
        self,
        *,
        erased: bool = ...,
        generation: GenerationView | None = ...,
    ) -> None: ...

class EraseRequest(Message):
    tenant: str
    generation_id: str
    operator: bool
    def __init__(
        self,
        *,
        tenant: str = ...,
        generation_id: str = ...,
        operator: bool = ...,
    ) -> None: ...

class GenerationCancelled(Message): ...

class GenerationErased(Message):
    cause: int
    def __init__(
        self,
        *,
        cause: int = ...,
    ) -> None: ...

class GenerationExpired(Message): ...

class GenerationFailed(Message):
    detail: str
    def __init__(
        self,
        *,
        detail: str = ...,
    ) -> None: ...

class GenerationRequested(Message):
    tenant: str
    priority: int
    ttl_s: int
    requested_at_ms: int
    expires_at_running_ms: int
    prompt_hmac: bytes
    charge: int
    @property
    def spec(self) -> GenerationSpec: ...
    @property
    def trace(self) -> TraceContext: ...
    def __init__(
        self,
        *,
        tenant: str = ...,
        spec: GenerationSpec | None = ...,
        priority: int = ...,
        ttl_s: int = ...,
        requested_at_ms: int = ...,
        expires_at_running_ms: int = ...,
        prompt_hmac: bytes = ...,
        trace: TraceContext | None = ...,
        charge: int = ...,
    ) -> None: ...

class GenerationSpec(Message):
    model: str
    width: int
    height: int
    num_inference_steps: int
    guidance_scale: float
    seed: int
    n: int
    output_format: int
    scheduler: str
    def __init__(
        self,
        *,
        model: str = ...,
        width: int = ...,
        height: int = ...,
        num_inference_steps: int = ...,
        guidance_scale: float = ...,
        seed: int = ...,
        n: int = ...,
        output_format: int = ...,
        scheduler: str = ...,
    ) -> None: ...

class GenerationSucceeded(Message): ...

class GenerationView(Message):
    generation_id: str
    status: int
    version: int
    priority: int
    ttl_s: int
    requested_at_ms: int
    started_at_ms: int
    finished_at_ms: int
    backlog_position: int
    erased: bool
    failure_detail: str
    progress_revision: int
    @property
    def spec(self) -> GenerationSpec: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def images(self) -> RepeatedCompositeFieldContainer[ImageView]: ...
    def __init__(
        self,
        *,
        generation_id: str = ...,
        status: int = ...,
        version: int = ...,
        spec: GenerationSpec | None = ...,
        prompts: Prompts | None = ...,
        priority: int = ...,
        ttl_s: int = ...,
        requested_at_ms: int = ...,
        started_at_ms: int = ...,
        finished_at_ms: int = ...,
        images: Iterable[ImageView] | None = ...,
        backlog_position: int = ...,
        erased: bool = ...,
        failure_detail: str = ...,
        progress_revision: int = ...,
    ) -> None: ...

class GetReply(Message):
    @property
    def generation(self) -> GenerationView: ...
    def __init__(
        self,
        *,
        generation: GenerationView | None = ...,
    ) -> None: ...

class GetRequest(Message):
    tenant: str
    generation_id: str
    wait_ms: int
    def __init__(
        self,
        *,
        tenant: str = ...,
        generation_id: str = ...,
        wait_ms: int = ...,
    ) -> None: ...

class HeldImage(Message):
    running: bool
    step: int
    dispatch: int
    @property
    def image(self) -> ImageRef: ...
    def __init__(
        self,
        *,
        image: ImageRef | None = ...,
        running: bool = ...,
        step: int = ...,
        dispatch: int = ...,
    ) -> None: ...

class ImageAttemptFailed(Message):
    attempt_id: str
    dispatch: int
    worker_id: str
    failure: int
    solo: bool
    detail: str
    @property
    def image(self) -> ImageRef: ...
    def __init__(
        self,
        *,
        image: ImageRef | None = ...,
        attempt_id: str = ...,
        dispatch: int = ...,
        worker_id: str = ...,
        failure: int = ...,
        solo: bool = ...,
        detail: str = ...,
    ) -> None: ...

class ImageAttemptFailedEvent(Message):
    index: int
    attempt_id: str
    dispatch: int
    worker_id: str
    failure: int
    solo: bool
    detail: str
    uncounted: bool
    def __init__(
        self,
        *,
        index: int = ...,
        attempt_id: str = ...,
        dispatch: int = ...,
        worker_id: str = ...,
        failure: int = ...,
        solo: bool = ...,
        detail: str = ...,
        uncounted: bool = ...,
    ) -> None: ...

class ImageDispatched(Message):
    index: int
    dispatch: int
    solo: bool
    recheck_at_running_ms: int
    def __init__(
        self,
        *,
        index: int = ...,
        dispatch: int = ...,
        solo: bool = ...,
        recheck_at_running_ms: int = ...,
    ) -> None: ...

class ImageFailed(Message):
    index: int
    failure: int
    detail: str
    def __init__(
        self,
        *,
        index: int = ...,
        failure: int = ...,
        detail: str = ...,
    ) -> None: ...

class ImageJob(Message):
    dispatch: int
    image_seed: int
    priority: int
    solo: bool
    requested_at_ms: int
    @property
    def image(self) -> ImageRef: ...
    @property
    def spec(self) -> GenerationSpec: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def trace(self) -> TraceContext: ...
    def __init__(
        self,
        *,
        image: ImageRef | None = ...,
        dispatch: int = ...,
        spec: GenerationSpec | None = ...,
        prompts: Prompts | None = ...,
        image_seed: int = ...,
        priority: int = ...,
        solo: bool = ...,
        requested_at_ms: int = ...,
        trace: TraceContext | None = ...,
    ) -> None: ...

class ImagePublished(Message):
    index: int
    public_key: str
    def __init__(
        self,
        *,
        index: int = ...,
        public_key: str = ...,
    ) -> None: ...

class ImageRef(Message):
    generation_id: str
    index: int
    def __init__(
        self,
        *,
        generation_id: str = ...,
        index: int = ...,
    ) -> None: ...

class ImageRendered(Message):
    attempt_id: str
    dispatch: int
    worker_id: str
    temp_key: str
    sha256: bytes
    size_bytes: int
    width: int
    height: int
    format: int
    @property
    def image(self) -> ImageRef: ...
    @property
    def timings(self) -> AttemptTimings: ...
    @property
    def facts(self) -> RenderFacts: ...
    def __init__(
        self,
        *,
        image: ImageRef | None = ...,
        attempt_id: str = ...,
        dispatch: int = ...,
        worker_id: str = ...,
        temp_key: str = ...,
        sha256: bytes = ...,
        size_bytes: int = ...,
        width: int = ...,
        height: int = ...,
        format: int = ...,
        timings: AttemptTimings | None = ...,
        facts: RenderFacts | None = ...,
    ) -> None: ...

class ImageRenderedEvent(Message):
    index: int
    attempt_id: str
    worker_id: str
    temp_key: str
    sha256: bytes
    size_bytes: int
    width: int
    height: int
    format: int
    public_token: str
    @property
    def timings(self) -> AttemptTimings: ...
    @property
    def facts(self) -> RenderFacts: ...
    def __init__(
        self,
        *,
        index: int = ...,
        attempt_id: str = ...,
        worker_id: str = ...,
        temp_key: str = ...,
        sha256: bytes = ...,
        size_bytes: int = ...,
        width: int = ...,
        height: int = ...,
        format: int = ...,
        public_token: str = ...,
        timings: AttemptTimings | None = ...,
        facts: RenderFacts | None = ...,
    ) -> None: ...

class ImageStarted(Message):
    attempt_id: str
    dispatch: int
    worker_id: str
    solo: bool
    batch_id: str
    batch_size: int
    @property
    def image(self) -> ImageRef: ...
    def __init__(
        self,
        *,
        image: ImageRef | None = ...,
        attempt_id: str = ...,
        dispatch: int = ...,
        worker_id: str = ...,
        solo: bool = ...,
        batch_id: str = ...,
        batch_size: int = ...,
    ) -> None: ...

class ImageStartedEvent(Message):
    index: int
    attempt_id: str
    dispatch: int
    worker_id: str
    solo: bool
    batch_id: str
    batch_size: int
    recheck_at_running_ms: int
    def __init__(
        self,
        *,
        index: int = ...,
        attempt_id: str = ...,
        dispatch: int = ...,
        worker_id: str = ...,
        solo: bool = ...,
        batch_id: str = ...,
        batch_size: int = ...,
        recheck_at_running_ms: int = ...,
    ) -> None: ...

class ImageView(Message):
    index: int
    status: int
    seed: int
    public_key: str
    sha256: bytes
    size_bytes: int
    failure: int
    progress_step: int
    def __init__(
        self,
        *,
        index: int = ...,
        status: int = ...,
        seed: int = ...,
        public_key: str = ...,
        sha256: bytes = ...,
        size_bytes: int = ...,
        failure: int = ...,
        progress_step: int = ...,
    ) -> None: ...

class ListReply(Message):
    next_cursor: str
    @property
    def generations(self) -> RepeatedCompositeFieldContainer[GenerationView]: ...
    def __init__(
        self,
        *,
        generations: Iterable[GenerationView] | None = ...,
        next_cursor: str = ...,
    ) -> None: ...

class ListRequest(Message):
    tenant: str
    page_size: int
    cursor: str
    status: int
    def __init__(
        self,
        *,
        tenant: str = ...,
        page_size: int = ...,
        cursor: str = ...,
        status: int = ...,
    ) -> None: ...

class ModelCapabilities(Message):
    negative_prompt: bool
    guidance: str
    guidance_off: float
    size_factor: int
    min_width: int
    max_width: int
    min_height: int
    max_height: int
    min_steps: int
    max_steps: int
    @property
    def schedulers(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(
        self,
        *,
        negative_prompt: bool = ...,
        guidance: str = ...,
        guidance_off: float = ...,
        size_factor: int = ...,
        schedulers: Iterable[str] | None = ...,
        min_width: int = ...,
        max_width: int = ...,
        min_height: int = ...,
        max_height: int = ...,
        min_steps: int = ...,
        max_steps: int = ...,
    ) -> None: ...

class ModelOut(Message):
    worker_id: str
    state: int
    reason: str
    def __init__(
        self,
        *,
        worker_id: str = ...,
        state: int = ...,
        reason: str = ...,
    ) -> None: ...

class ModelReport(Message):
    name: str
    revision: str
    state: int
    reason: str
    max_batch: int
    engine: str
    @property
    def capabilities(self) -> ModelCapabilities: ...
    def __init__(
        self,
        *,
        name: str = ...,
        revision: str = ...,
        state: int = ...,
        reason: str = ...,
        max_batch: int = ...,
        capabilities: ModelCapabilities | None = ...,
        engine: str = ...,
    ) -> None: ...

class ModelStatus(Message):
    name: str
    workers: int
    loaded: int
    loading: int
    broken: int
    away: int
    @property
    def out(self) -> RepeatedCompositeFieldContainer[ModelOut]: ...
    @property
    def capabilities(self) -> ModelCapabilities: ...
    @property
    def revisions(self) -> RepeatedScalarFieldContainer[str]: ...
    def __init__(
        self,
        *,
        name: str = ...,
        workers: int = ...,
        loaded: int = ...,
        loading: int = ...,
        out: Iterable[ModelOut] | None = ...,
        capabilities: ModelCapabilities | None = ...,
        revisions: Iterable[str] | None = ...,
        broken: int = ...,
        away: int = ...,
    ) -> None: ...

class ModelsReply(Message):
    complete: bool
    silent_workers: int
    @property
    def models(self) -> RepeatedCompositeFieldContainer[ModelStatus]: ...
    def __init__(
        self,
        *,
        models: Iterable[ModelStatus] | None = ...,
        complete: bool = ...,
        silent_workers: int = ...,
    ) -> None: ...

class ModelsRequest(Message): ...

class Prompts(Message):
    prompt: str
    negative_prompt: str
    def __init__(
        self,
        *,
        prompt: str = ...,
        negative_prompt: str = ...,
    ) -> None: ...

class RenderFacts(Message):
    engine: str
    model: str
    model_revision: str
    scheduler: str
    dtype: str
    device: str
    libraries: str
    batch_id: str
    seed: int
    guidance: str
    guidance_scale: float
    negative_prompt: bool
    rendered_width: int
    rendered_height: int
    @property
    def batch_members(self) -> RepeatedCompositeFieldContainer[ImageRef]: ...
    def __init__(
        self,
        *,
        engine: str = ...,
        model: str = ...,
        model_revision: str = ...,
        scheduler: str = ...,
        dtype: str = ...,
        device: str = ...,
        libraries: str = ...,
        batch_id: str = ...,
        batch_members: Iterable[ImageRef] | None = ...,
        seed: int = ...,
        guidance: str = ...,
        guidance_scale: float = ...,
        negative_prompt: bool = ...,
        rendered_width: int = ...,
        rendered_height: int = ...,
    ) -> None: ...

class StillWantedReply(Message):
    @property
    def wanted(self) -> RepeatedScalarFieldContainer[bool]: ...
    def __init__(
        self,
        *,
        wanted: Iterable[bool] | None = ...,
    ) -> None: ...

class StillWantedRequest(Message):
    worker_id: str
    @property
    def held(self) -> RepeatedCompositeFieldContainer[HeldImage]: ...
    @property
    def models(self) -> RepeatedCompositeFieldContainer[ModelReport]: ...
    def __init__(
        self,
        *,
        worker_id: str = ...,
        held: Iterable[HeldImage] | None = ...,
        models: Iterable[ModelReport] | None = ...,
    ) -> None: ...

class SubmitItem(Message):
    generation_id: str
    tenant: str
    idempotency_key: str
    body_sha256: bytes
    priority: int
    ttl_s: int
    @property
    def spec(self) -> GenerationSpec: ...
    @property
    def prompts(self) -> Prompts: ...
    @property
    def trace(self) -> TraceContext: ...
    def __init__(
        self,
        *,
        generation_id: str = ...,
        tenant: str = ...,
        idempotency_key: str = ...,
        body_sha256: bytes = ...,
        spec: GenerationSpec | None = ...,
        prompts: Prompts | None = ...,
        priority: int = ...,
        ttl_s: int = ...,
        trace: TraceContext | None = ...,
    ) -> None: ...

class SubmitReply(Message):
    @property
    def results(self) -> RepeatedCompositeFieldContainer[SubmitResult]: ...
    def __init__(
        self,
        *,
        results: Iterable[SubmitResult] | None = ...,
    ) -> None: ...

class SubmitRequest(Message):
    @property
    def items(self) -> RepeatedCompositeFieldContainer[SubmitItem]: ...
    @property
    def default_spec(self) -> GenerationSpec: ...
    def __init__(
        self,
        *,
        items: Iterable[SubmitItem] | None = ...,
        default_spec: GenerationSpec | None = ...,
    ) -> None: ...

class SubmitResult(Message):
    outcome: int
    field: str
    detail: str
    retry_after_s: int
    bound: int
    @property
    def generation(self) -> GenerationView: ...
    def __init__(
        self,
        *,
        outcome: int = ...,
        generation: GenerationView | None = ...,
        field: str = ...,
        detail: str = ...,
        retry_after_s: int = ...,
        bound: int = ...,
    ) -> None: ...

class TraceContext(Message):
    traceparent: str
    tracestate: str
    def __init__(
        self,
        *,
        traceparent: str = ...,
        tracestate: str = ...,
    ) -> None: ...
