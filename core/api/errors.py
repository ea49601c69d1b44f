"""Why a call of core's API is refused; `grpc_api` makes statuses of these."""


class NotFound(Exception):
    """No such generation, or another tenant's: callers do not learn which."""


class BadRequest(Exception):
    """The call itself is malformed; `field` says where."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
