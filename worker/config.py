"""The worker's settings, from `DARKROOM_*` variables."""

import os
import re
import secrets
import socket
from typing import Literal

from pydantic import Field, field_validator

from infra.settings import Settings
from schema.limits import MAX_ID_CHARS


def _default_id() -> str:
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:32]
    return f"{host}-{os.getpid()}-{secrets.token_hex(2)}"


class WorkerSettings(Settings):
    """What the worker reads beside the shared settings."""

    owner = "WORKER"

    worker_id: str = Field(default_factory=_default_id, description="Name in replies, traces and the event log")
    worker_admin_host: str = Field("127.0.0.1", description="Address of /metrics, /healthz and /readyz")
    worker_admin_port: int = Field(9103, ge=0, le=65_535, description="Their port; 0 takes a free one")
    worker_window_images: int = Field(64, ge=1, le=4_096, description="Most images received ahead of the GPU")
    worker_receive_wait_s: int = Field(3, ge=0, le=20, description="Long-poll time; a drain waits for the last poll")
    worker_suspect_receives: int = Field(
        3, ge=2, le=1_000, description="From this delivery of the same message on, its image runs alone"
    )
    worker_encode_threads: int = Field(2, ge=1, le=64, description="Threads that compress pictures")
    worker_uploads: int = Field(8, ge=1, le=256, description="Uploads at a time")
    worker_line_images: int = Field(16, ge=1, le=4_096, description="Pictures that may wait to be encoded or uploaded")
    worker_upload_deadline_s: float = Field(30.0, gt=0, description="Limit of one try to upload")
    worker_wanted_every_s: float = Field(1.0, gt=0, description="How often core is asked what is still wanted")
    worker_hang_s: float = Field(30.0, gt=0, description="Least time without a step that counts as a hang")
    worker_engine_load_s: float = Field(
        600.0,
        gt=0,
        description="Limit of loading a model: uds tries again, others end the worker a minute later",
    )
    worker_engine_outage_s: float = Field(
        60.0,
        gt=0,
        le=600,
        description="Longest pause before a model that is away, as its server may be, is tried again",
    )
    worker_models_loaded: int = Field(1, ge=1, le=64, description="Models kept in memory at a time")
    worker_mode: Literal["plain", "batched", "overlapped"] = Field(
        "overlapped", description="plain and batched are reference loops, to measure the overlapped one against"
    )
    worker_preload: bool = Field(default=True, description="Load the default model at start")
    worker_torch_threads: int = Field(0, ge=0, le=256, description="CPU threads of one model; 0: half of the cores")

    @field_validator("worker_id")
    @classmethod
    def _usable_id(cls, value: str) -> str:
        if not re.fullmatch(rf"[A-Za-z0-9_.:-]{{1,{MAX_ID_CHARS}}}", value):
            raise ValueError(f"must be 1 to {MAX_ID_CHARS} letters, digits and _.:-")
        return value
