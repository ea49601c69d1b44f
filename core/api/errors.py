"""Why a call of core's API is refused; `grpc_api` maps these to gRPC statuses."""


class NotFound(Exception):
    """No such generation, or another tenant's: callers do not learn which."""


class BadRequest(Exception):
    """The call itself is malformed; `field` says where."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
