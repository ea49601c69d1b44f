"""The settings that all services share, and the way each service loads its own.

A service subclasses `Settings` in its `config.py` and calls `load`. Every field is read from the environment
variable `DARKROOM_` + its name in capitals. AWS and OpenTelemetry keep their own standard variables.
"""

import ipaddress
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.lifecycle import ConfigError

PREFIX = "DARKROOM_"
SHIPPED_MODELS_FILE = Path(__file__).with_name("models.toml")


class Settings(BaseSettings):
    """What gateway, core and worker all read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    data_dir: Path = Field(Path("var"), description="Folder for everything that must survive a restart")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")
    jobs_queue: str = Field("darkroom-jobs", description="Queue from core to workers")
    replies_queue: str = Field("darkroom-replies", description="Queue from workers to core")
    dead_queue: str = Field("darkroom-dead", description="Dead-letter queue of the jobs queue")
    temp_bucket: str = Field("darkroom-temp", description="Private bucket that workers upload to")
    public_bucket: str = Field("darkroom-public", description="Bucket that links point into")
    internal_token: SecretStr = Field(
        SecretStr(""), description="Shared secret of core's API; may be empty on loopback"
    )
    core_target: str = Field("127.0.0.1:50051", description="host:port, or unix:PATH, of core's API")
    models_file: Path = Field(SHIPPED_MODELS_FILE, description="TOML file of the models that are served")
    visibility_s: int = Field(60, ge=1, le=43_200, description="Seconds a received job stays hidden from other workers")
    drain_s: float = Field(20.0, ge=0, description="Seconds from the first signal to the end of unfinished work")
    max_clock_skew_s: float = Field(
        120.0,
        gt=0,
        description="Not ready while this machine's clock is further than this from the queue's and store's",
    )
    failpoints: str = Field("", description="Tests only: where to kill or delay this process")

    @field_validator("*", mode="after")
    @classmethod
    def _at_home(cls, value: object) -> object:
        """`~` in a path: a shell expands it, a unit file or compose does not."""
        if not isinstance(value, Path):
            return value
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("begins with ~ and the name of a user that does not exist") from None


S = TypeVar("S", bound=Settings)


def load(cls: type[S]) -> S:
    """The settings from the environment. Raises ConfigError that names every wrong variable and no value."""
    try:
        return cls()
    except ValidationError as error:
        problems = (f"{variable(str(each['loc'][0]))}: {each['msg']}" for each in error.errors(include_input=False))
        raise ConfigError("; ".join(problems)) from None


def variable(field: str) -> str:
    """The environment variable of a settings field."""
    return PREFIX + field.upper()


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to `host`. Names other than localhost count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
