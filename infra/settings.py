"""The settings that all services share, and the way each service loads its own.

A service subclasses `Settings` in its `config.py` and calls `load`. Every field is read from the environment
variable `DARKROOM_` + its name in capitals; an empty variable counts as not set. An unknown
`DARKROOM_` variable is an error, since it is probably a typo. AWS and OpenTelemetry keep their own standard variables.
"""

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from infra.lifecycle import ConfigError

PREFIX = "DARKROOM_"
OWNERS = ("GATEWAY", "CORE", "WORKER", "ENGINE", "LOCAL", "EMULATOR", "LOAD")
"""Prefixes of the settings that one program alone reads and checks, so that all programs can share one environment."""
_FOREIGN_VARIABLES = re.compile(
    r"BIND|WEIGHTS"  # compose's own
    # Kubernetes injects variables named after services; those of a service called darkroom-… have our prefix
    r"|PORT|WORKER_PORT|(.+_)?SERVICE_(HOST|PORT(_.+)?)|(.+_)?PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?"
)
# Settings for which empty is a value: an empty `core_target` runs a worker without core. Any other empty variable
# counts as not set, because compose and unit files set variables to nothing where a shell would leave them out.
_EMPTY_IS_A_VALUE = frozenset({"core_target"})
SHIPPED_MODELS_FILE = Path(__file__).with_name("models.toml")


class Settings(BaseSettings):
    """What gateway, core and worker all read."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", env_ignore_empty=True)
    owner: ClassVar[str] = ""
    """The entry of `OWNERS` that prefixes the settings of this service alone."""

    data_dir: Path = Field(Path("var"), description="Folder for everything that must survive a restart")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level that is logged")
    log_format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")
    log_model_errors: bool = Field(
        default=False, description="Log the texts of errors that a model raised: they may hold prompts"
    )
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
    drain_s: float = Field(20.0, ge=0, description="Seconds after the first signal to finish what has begun")
    max_clock_skew_s: float = Field(
        120.0,
        gt=0,
        description="Not ready while this machine's clock is further than this from the queue's and store's",
    )
    failpoints: str = Field("", description="Tests only: where to kill or delay this process")

    @field_validator("*", mode="after")
    @classmethod
    def _expand_home(cls, value: object) -> object:
        """Expands `~` in a path: a shell does so, a unit file or compose does not."""
        if not isinstance(value, Path):
            return value
        try:
            return value.expanduser()
        except RuntimeError:
            raise ValueError("begins with ~ and the name of a user that does not exist") from None


S = TypeVar("S", bound=Settings)


def load(cls: type[S]) -> S:
    """The settings from the environment. Raises ConfigError that names every wrong variable and no value."""
    unknown = unknown_variables(os.environ, map(variable, cls.model_fields), [o for o in OWNERS if o != cls.owner])
    empty: Any = {name: "" for name in _EMPTY_IS_A_VALUE if os.environ.get(variable(name)) == ""}
    try:
        settings = cls(**empty)
    except ValidationError as error:
        wrong = [
            f"{variable(str(each['loc'][0]))}: {value_error_text(each['msg'])}"
            for each in error.errors(include_input=False)
        ]
        raise ConfigError("; ".join([*unknown, *wrong])) from None
    if unknown:
        raise ConfigError("; ".join(unknown))
    return settings


def unknown_variables(environ: Mapping[str, str], known: Iterable[str], others: Iterable[str]) -> list[str]:
    """An error text for each variable with our prefix that is not in `known`, suggesting the closest known name.

    Variables that begin with one of the `others` are skipped: the program that owns them checks them.
    """
    names = sorted(known)
    foreign = tuple(f"{PREFIX}{other}_" for other in others)
    return [
        f"{name}: there is no such setting" + (f", did you mean {near[0]}?" if (near := _nearest(name, names)) else "")
        for name in sorted(environ)
        if name.startswith(PREFIX)
        and name not in names
        and not name.startswith(foreign)
        and not _FOREIGN_VARIABLES.fullmatch(name.removeprefix(PREFIX))
    ]


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    return difflib.get_close_matches(name, list(names), n=1, cutoff=0.8)


def variable(field: str) -> str:
    """The environment variable of a settings field."""
    return PREFIX + field.upper()


def value_error_text(message: str) -> str:
    """Pydantic's error message, reworded to follow the name of the variable."""
    return message.removeprefix("Value error, ").replace("Input should", "must")


def is_http_address(text: str) -> bool:
    """Whether it is `http://host`, or https, perhaps with a port and a path: no credentials, query or fragment."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return False
    bare = not (parts.username or parts.password or parts.query or parts.fragment or text.endswith(("?", "#")))
    one_word = text.isprintable() and " " not in text and "\\" not in text
    return parts.scheme in {"http", "https"} and bool(parts.hostname) and port != 0 and bare and one_word


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server bound to `host`. Names other than localhost count as reachable."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
