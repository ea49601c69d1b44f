"""The gateway's settings: environment variables `DARKROOM_GATEWAY_…` beside the shared ones of `infra/settings.py`."""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator

from gateway.edge import cors
from gateway.pictures.link_secrets import MAX_VALID_S, MIN_SECRET_CHARS
from infra.settings import Settings, is_http_address


class GatewaySettings(Settings):
    """What `python -m gateway` reads."""

    owner = "GATEWAY"

    gateway_host: str = Field("127.0.0.1", description="Address to listen on; any but loopback needs an API key")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the public API; 0: any free one")
    gateway_admin_host: str = Field("127.0.0.1", description="Address of metrics and readiness")
    gateway_admin_port: int = Field(9101, ge=0, le=65535, description="Port of metrics and readiness; 0: any free one")
    gateway_keys_file: Path | None = Field(None, description="API keys; left out: gateway/keys.json in the data folder")
    gateway_await_keys: bool = Field(
        default=False, description="Beyond loopback and without an API key: wait for one, not ready, instead of ending"
    )
    gateway_rules_file: Path | None = Field(None, description="Rate limits (TOML); left out: none")
    gateway_public_url: str = Field("", description="What goes before links in answers; empty: paths")
    gateway_images: Literal["stream", "redirect"] = Field(
        "stream", description="Pictures come from the gateway, or by a redirect from a store that clients reach"
    )
    gateway_image_streams: int = Field(
        512, ge=1, le=100_000, description="Clients that are sent a picture at once; beyond: 503"
    )
    gateway_image_stall_s: float = Field(
        120.0, gt=0, le=3600, description="Seconds in which a client must take a byte of its picture"
    )
    gateway_signed_url_s: int = Field(
        3600, ge=1, le=MAX_VALID_S, description="Seconds that a signed URL of an image is valid"
    )
    gateway_link_secret: SecretStr = Field(
        SecretStr(""),
        description="Secrets behind signed URLs, separated by commas: the first signs, all are accepted; empty: a file "
        "in the data folder, which all gateways must then share",
    )
    gateway_link_secret_days: int = Field(
        30, ge=0, le=3650, description="Days after which the file gets a new secret; 0: only by `gateway links rotate`"
    )
    gateway_link_s: int = Field(300, ge=10, le=86_400, description="Redirects: seconds that the store's link is valid")
    gateway_link_endpoint_url: str = Field("", description="Redirects: where clients reach the store; empty: as we do")
    gateway_cors_origins: str = Field(
        "", description="Origins whose pages may call the API, separated by commas; *: any; empty: none"
    )
    gateway_submit_timeout_s: float = Field(10.0, gt=0, le=60, description="Seconds for core to accept a generation")
    gateway_call_timeout_s: float = Field(5.0, gt=0, le=60, description="Seconds for any other call to core")
    gateway_body_timeout_s: float = Field(10.0, gt=0, le=60, description="Seconds for a request's body to arrive")
    gateway_idle_timeout_s: float = Field(
        65.0, gt=0, le=3600, description="Seconds that a connection may idle, or take to send a request's headers"
    )
    gateway_send_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds in which a client must take a byte of an answer that waits for it"
    )
    gateway_max_connections: int = Field(
        10_000,
        ge=1,
        description="Connections at once; beyond, the one that has waited longest for its client is cut",
    )
    gateway_max_waiting: int = Field(
        5_000,
        ge=1,
        description="Submissions held while core is busy, and as many other calls; beyond: 503, tenant with most first",
    )

    @field_validator("gateway_public_url")
    @classmethod
    def _public_url(cls, url: str) -> str:
        if url and (not is_http_address(url) or url.endswith("/")):
            raise ValueError("must be an address such as https://pictures.example.org, without a slash at its end")
        return url

    @field_validator("gateway_link_endpoint_url")
    @classmethod
    def _link_endpoint(cls, url: str) -> str:
        if url and not is_http_address(url):
            raise ValueError("must be an address such as https://store.example.org")
        return url

    @field_validator("gateway_cors_origins")
    @classmethod
    def _origins(cls, text: str) -> str:
        cors.parsed(text)
        return text

    @field_validator("gateway_link_secret")
    @classmethod
    def _secrets(cls, secret: SecretStr) -> SecretStr:
        if any(len(each) < MIN_SECRET_CHARS for each in _split(secret)):
            raise ValueError(f"each secret needs {MIN_SECRET_CHARS} characters or more, such as `openssl rand -hex 32`")
        return secret

    @property
    def link_secrets(self) -> list[str]:
        """The secrets in the setting, of which the first signs; empty: they are in the file `link_secrets_path`."""
        return _split(self.gateway_link_secret)

    @property
    def link_secrets_path(self) -> Path:
        """Where the secrets behind signed URLs are."""
        return self.data_dir / "gateway" / "link-secrets.json"

    @property
    def keys_path(self) -> Path:
        """Where the API keys are."""
        return self.gateway_keys_file or self.data_dir / "gateway" / "keys.json"


def _split(secret: SecretStr) -> list[str]:
    return [each.strip() for each in secret.get_secret_value().split(",") if each.strip()]
