"""The worker's Prometheus metrics: one registry per instance, no prompt and no id in any label."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from worker.time_ledger import TimeLedger

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)


class Metrics:
    """The worker's counters, histograms and gauges."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.received = _counter(registry, "received", "Job messages received")
        self.redelivered = _counter(registry, "redelivered", "Job messages received that had been received before")
        self.duplicates = _counter(registry, "duplicates", "Messages for an image that is held or settled", "kind")
        self.quarantined = _counter(registry, "quarantined", "Messages that are no valid job")
        self.dropped = _counter(registry, "dropped", "Images dropped because they are no longer wanted", "state")
        self.rendered = _counter(registry, "images_rendered", "Pictures reported as rendered", "engine", "model")
        self.failed = _counter(registry, "images_failed", "Attempts reported as failed", "failure")
        self.batches = _counter(registry, "batches", "Groups of images admitted to the GPU together", "engine", "model")
        self.batch_size = Histogram(
            "darkroom_worker_batch_size",
            "Images per forward pass: one observation a step",
            registry=registry,
            buckets=(1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64),
        )
        self.bisected = _counter(registry, "batches_halved", "Batches split after a failure", "reason")
        self.heartbeats = _counter(registry, "heartbeats", "Visibility heartbeats", "outcome")
        self.receipts_lost = _counter(registry, "receipts_lost", "Messages that another worker has taken over")
        self.upload_failures = _counter(registry, "upload_failures", "Uploads that failed and are tried again")
        self.call_failures = _counter(registry, "call_failures", "Failed queue and core calls", "call")
        self.load_failures = _counter(registry, "model_load_failures", "Failed loads", "model")
        self.encode_seconds = _seconds(registry, "encode", "Encoding one picture")
        self.upload_seconds = _seconds(registry, "upload", "Uploading one picture, retries included")
        self.wait_seconds = _seconds(registry, "wait", "From receipt to admission")
        self._depths: dict[str, Callable[[], int]] = {}
        self._depth = Gauge("darkroom_worker_depth", "Images in each part of the worker", ("part",), registry=registry)

    def watch_depth(self, part: str, depth: Callable[[], int]) -> None:
        """Export `depth()`, called at each scrape, as the depth of `part`."""
        self._depths[part] = depth
        self._depth.labels(part=part).set_function(depth)

    def depths(self) -> dict[str, int]:
        """The number of images in each part now."""
        return {part: depth() for part, depth in self._depths.items()}

    def watch_models(self, states: Callable[[], Mapping[str, int]]) -> None:
        """Export `states()`, called at each scrape: numbers of types.ModelState by model."""
        self.registry.register(_ModelStates(states))

    def watch_ledger(self, ledger: TimeLedger, clock: Callable[[], float]) -> None:
        """Export the ledger as it is at each scrape, which must be on the event loop's thread."""
        self.registry.register(_LedgerFigures(ledger, clock))


class _ModelStates(Collector):
    def __init__(self, states: Callable[[], Mapping[str, int]]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        text = "1 unloaded, 2 loading, 3 loaded, 4 broken, 5 away"
        figures = GaugeMetricFamily("darkroom_worker_model_state", text, labels=("model",))
        for model, state in self._states().items():
            figures.add_metric((model,), state)
        yield figures


class _LedgerFigures(Collector):
    def __init__(self, ledger: TimeLedger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        now_s = self._clock()
        spent = CounterMetricFamily(
            "darkroom_worker_gpu_seconds", "Where the GPU's seconds went, each under one cause", labels=("cause",)
        )
        for cause, seconds in self._ledger.seconds().items():
            spent.add_metric((cause.value,), seconds)
        yield spent
        for name, text, value in (
            ("open_idle", "Idle GPU seconds whose cause shows when they end", self._ledger.open_idle_s(now_s)),
            ("unattributed", "GPU seconds that have no cause", self._ledger.unattributed_s(now_s)),
            ("overlapping", "GPU seconds that were reported twice; they count once", self._ledger.overlapping_s),
        ):
            yield GaugeMetricFamily(f"darkroom_worker_gpu_{name}_seconds", text, value=value)


def _counter(registry: CollectorRegistry, name: str, text: str, *labels: str) -> Counter:
    return Counter(f"darkroom_worker_{name}", text, labels, registry=registry)


def _seconds(registry: CollectorRegistry, name: str, text: str) -> Histogram:
    return Histogram(f"darkroom_worker_{name}_seconds", text, registry=registry, buckets=_SECONDS)
