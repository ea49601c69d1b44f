"""The gateway's settings: environment variables `DARKROOM_GATEWAY_…` beside the shared ones of `infra/settings.py`."""

from pathlib import Path

from pydantic import Field

from infra.settings import Settings


class GatewaySettings(Settings):
    """What `python -m gateway` reads."""

    gateway_host: str = Field("127.0.0.1", description="Address to listen on; any but loopback needs an API key")
    gateway_port: int = Field(8080, ge=0, le=65535, description="Port of the public API; 0: any free one")
    gateway_admin_host: str = Field("127.0.0.1", description="Address of metrics and readiness")
    gateway_admin_port: int = Field(9101, ge=0, le=65535, description="Port of metrics and readiness; 0: any free one")
    gateway_keys_file: Path | None = Field(None, description="API keys; left out: gateway/keys.json in the data folder")
    gateway_rules_file: Path | None = Field(None, description="Rate limits (TOML); left out: none")
    gateway_public_url: str = Field(
        "", pattern=r"^(https?://[^/]+(/.*[^/])?)?$", description="What goes before links in answers; empty: paths"
    )
    gateway_link_s: int = Field(300, ge=10, le=86_400, description="Seconds that a signed image link is valid")
    gateway_link_endpoint_url: str = Field("", description="Where clients reach the store; empty: as we do")
    gateway_submit_timeout_s: float = Field(10.0, gt=0, le=60, description="Seconds for core to accept a generation")
    gateway_call_timeout_s: float = Field(5.0, gt=0, le=60, description="Seconds for any other call to core")
    gateway_body_timeout_s: float = Field(10.0, gt=0, le=60, description="Seconds for a request's body to arrive")
    gateway_idle_timeout_s: float = Field(
        65.0, gt=0, le=3600, description="Seconds that a connection may idle, or take to send a request's headers"
    )
    gateway_send_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds for a client to take an answer that has been sent"
    )
    gateway_max_connections: int = Field(
        10_000, ge=1, description="Clients connected at once; beyond, whoever has kept us waiting longest is cut"
    )
    gateway_max_waiting: int = Field(
        5_000,
        ge=1,
        description="Submissions held while core is busy, and as many other calls; beyond: 503, for whoever has most",
    )

    @property
    def keys_path(self) -> Path:
        """Where the API keys are."""
        return self.gateway_keys_file or self.data_dir / "gateway" / "keys.json"
