"""The engine server's settings, from `DARKROOM_*` variables."""

from pydantic import Field, SecretStr

from infra.settings import Settings


class EngineServerSettings(Settings):
    """What the engine server reads beside the shared settings."""

    owner = "ENGINE"

    worker_torch_threads: int = Field(0, ge=0, le=256, description="CPU threads of one model; 0: half of the cores")
    engine_token: SecretStr = Field(SecretStr(""), description="http: bearer token; may be empty on loopback")
    engine_waiting: int = Field(64, ge=1, le=4096, description="http: pictures that may wait; more are answered 503")
    engine_render_s: float = Field(600.0, gt=0, description="http: limit of one picture, waiting included")
    engine_hang_s: float = Field(30.0, gt=0, description="http: least time without a step that counts as a hang")
