"""What the gateway counts. Labels are operation ids, statuses and outcomes: few, and nothing of a request's content."""

from collections.abc import Callable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_ITEMS = (1, 2, 5, 10, 20, 50, 100)


class Metrics:
    """The gateway's own registry; `infra.admin` shows it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        requests = Counter(
            "darkroom_gateway_requests",
            "Requests answered",
            ["operation", "status"],
            registry=self.registry,
        )
        seconds = Histogram(
            "darkroom_gateway_request_seconds",
            "Time from the headers of a request to its answer",
            ["operation"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        outcomes = Counter(
            "darkroom_gateway_submissions", "Submissions by what core decided", ["outcome"], registry=self.registry
        )
        refusals = Counter(
            "darkroom_gateway_rate_limited", "Requests refused by a rule", ["rule"], registry=self.registry
        )
        cut = Counter(
            "darkroom_gateway_connections_cut", "Connections cut by us, and why", ["reason"], registry=self.registry
        )
        pictures = Counter(
            "darkroom_gateway_pictures",
            "Pictures by what became of sending them: sent, hung_up (by the client), cut (the store failed midway)",
            ["outcome"],
            registry=self.registry,
        )
        self._streams = Gauge(
            "darkroom_gateway_picture_streams", "Clients that are sent a picture now", registry=self.registry
        )
        self._connections = Gauge(
            "darkroom_gateway_connections", "Clients connected to the public port", registry=self.registry
        )
        self._under_way = Gauge(
            "darkroom_gateway_requests_under_way", "Requests of tenants that are being answered", registry=self.registry
        )
        self.batch_items = Histogram(
            "darkroom_gateway_submit_batch_items",
            "Submissions that went to core in one call",
            buckets=_ITEMS,
            registry=self.registry,
        )
        self.keys = Gauge("darkroom_gateway_keys", "API keys that are valid", registry=self.registry)
        self._waiting = Gauge(
            "darkroom_gateway_submissions_waiting", "Submissions that no call has taken yet", registry=self.registry
        )
        self._core_up = Gauge(
            "darkroom_gateway_core_up",
            "1: core's API answers; whether it can write at the moment says core's own /readyz",
            registry=self.registry,
        )
        # labels() takes a lock and a dictionary look-up; every request would pay for it
        self._request = cache(lambda operation, status: requests.labels(operation, str(status)))
        self._seconds = cache(seconds.labels)
        self._outcome = cache(outcomes.labels)
        self._refusal = cache(refusals.labels)
        self._cut = cache(cut.labels)
        self._picture = cache(pictures.labels)

    def observe(self, waiting: Callable[[], int], core_up: Callable[[], bool]) -> None:
        """Sets what the gauges of waiting submissions and of core's state read at each collection."""
        self._waiting.set_function(waiting)
        self._core_up.set_function(core_up)

    def observe_connections(self, present: Callable[[], int]) -> None:
        """Has the gauge read this whenever it is collected."""
        self._connections.set_function(present)

    def observe_under_way(self, requests: Callable[[], int]) -> None:
        """Has the gauge read this whenever it is collected."""
        self._under_way.set_function(requests)

    def observe_streams(self, present: Callable[[], int]) -> None:
        """Has the gauge read this whenever it is collected."""
        self._streams.set_function(present)

    def picture(self, outcome: str) -> None:
        """Counts one picture whose sending has ended. `outcome`: sent, hung_up or cut."""
        self._picture(outcome).inc()

    def cut(self, reason: str) -> None:
        """Counts one connection that the gateway has cut. `reason`: full, unread or broken."""
        self._cut(reason).inc()

    def answered(self, operation: str, status: int, seconds: float) -> None:
        """Counts one answered request, and the seconds from its headers to its answer."""
        self._request(operation, status).inc()
        self._seconds(operation).observe(seconds)

    def submitted(self, outcome: str) -> None:
        """Counts one submission by core's decision."""
        self._outcome(outcome).inc()

    def refused(self, rule: str) -> None:
        """Counts one request that a rate rule has refused."""
        self._refusal(rule).inc()
