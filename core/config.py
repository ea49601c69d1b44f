"""Core's settings: environment variables `DARKROOM_CORE_…` beside the shared ones of `infra/settings.py`."""

from pathlib import Path

from pydantic import Field, ValidationInfo, field_validator

from core.erasure import retention_file
from core.erasure.retention import Keep
from core.tuning import Tuning
from infra.lifecycle import ConfigError
from infra.settings import Settings

LEAST_HARD_IMAGES = 100
"""A request of ten images needs a bound of 20 at least: a request beyond its share may fill only half of it."""


class CoreSettings(Settings):
    """What `python -m core` reads."""

    owner = "CORE"

    core_host: str = Field("127.0.0.1", description="Address to listen on; any but loopback needs a token")
    core_port: int = Field(50051, ge=0, le=65535, description="Port of core's API; 0: any free one")
    core_admin_host: str = Field("127.0.0.1", description="Address of metrics and readiness")
    core_admin_port: int = Field(9102, ge=0, le=65535, description="Port of metrics and readiness; 0: any free one")
    core_create_queues: bool = Field(True, description="Make queues and buckets that are missing (embedded stack)")
    core_backlog_cap: int = Field(
        10_000,
        ge=1,
        le=10_000_000,
        description="Unfinished work of all tenants, in images of the default model's default request; others weigh "
        "what they are estimated to cost beside it. Beyond, a tenant is held to its share",
    )
    core_backlog_images: int = Field(
        0,
        ge=0,
        le=1_000_000_000,
        description="Unfinished images ever held, whatever they cost, for memory's sake; at least twice the cap. "
        "0: sixteen times the cap, 1,000 at least",
    )
    core_wal_limit_bytes: int = Field(
        1024**3, ge=1024**2, description="Write-ahead log beyond which nothing is written while a reader holds it"
    )
    core_runway: int = Field(0, ge=0, description="Images kept on the jobs queue; 0: by workers and pace")
    core_recheck_cap_s: float = Field(900, gt=0, description="Longest silence before an image is sent again")
    core_overtaking_s: float = Field(
        30.0, ge=0, description="GPU seconds of a tenant that may overtake its longest waiting image"
    )
    core_reply_consumers: int = Field(2, ge=1, le=64, description="Long polls of the replies queue side by side")
    core_reply_wait_s: int = Field(20, ge=0, le=20, description="Seconds of one long poll")
    core_reply_visibility_s: int = Field(10, ge=1, le=43_200, description="Seconds a reply is hidden while recorded")
    core_dead_letters_s: float = Field(15, gt=0, description="Seconds between two looks at the dead-letter queue")
    core_publishers: int = Field(16, ge=1, le=256, description="Pictures copied side by side")
    core_retention_days: float = Field(
        0, ge=0, allow_inf_nan=False, description="Days after which finished generations are erased; 0: never"
    )
    core_retention_file: Path | None = Field(None, description="TOML file of the tenants with days of their own")
    core_max_connections: int = Field(512, ge=1, description="Connections to core's API; any more are closed at once")
    core_max_waiters: int = Field(10_000, ge=0, description="Calls that wait for an end; beyond: answered at once")

    @field_validator("core_backlog_images")
    @classmethod
    def _room_for_the_cap(cls, images: int, known: ValidationInfo) -> int:
        least = max(2 * known.data.get("core_backlog_cap", 0), LEAST_HARD_IMAGES)
        if images and images < least:
            raise ValueError(f"must be 0, or at least {least}: twice the backlog cap, and {LEAST_HARD_IMAGES}")
        return images

    @property
    def log_path(self) -> Path:
        """Where the event log is."""
        return self.data_dir / "core" / "log.sqlite3"


def tuning(settings: CoreSettings) -> Tuning:
    """The settings in core's own words. Raises ConfigError when the retention file cannot be used."""
    return Tuning(
        jobs_queue=settings.jobs_queue,
        replies_queue=settings.replies_queue,
        visibility_s=settings.visibility_s,
        backlog_cap=settings.core_backlog_cap,
        backlog_images=settings.core_backlog_images,
        runway=settings.core_runway,
        recheck_cap_s=settings.core_recheck_cap_s,
        overtaking_s=settings.core_overtaking_s,
        reply_consumers=settings.core_reply_consumers,
        reply_wait_s=settings.core_reply_wait_s,
        reply_visibility_s=settings.core_reply_visibility_s,
        dead_letters_s=settings.core_dead_letters_s,
        publishers=settings.core_publishers,
        max_waiters=settings.core_max_waiters,
        keep=_keep(settings),
    )


def _keep(settings: CoreSettings) -> Keep:
    path = settings.core_retention_file
    try:
        return Keep(days=settings.core_retention_days, tenants=retention_file.read(path) if path else {})
    except retention_file.BadFile as error:
        raise ConfigError(str(error)) from None
