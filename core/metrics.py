"""Core's metrics, by the names that `/metrics` shows. Every part of core updates them; only `app.py` exports them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Metrics:
    """Counters, gauges and histograms in a registry of their own, so that tests run side by side."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.events = Counter("darkroom_core_events", "Events appended", ["type"], registry=r)
        self.commits = Histogram(
            "darkroom_core_commit_events",
            "Events per transaction",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500),
            registry=r,
        )
        self.commit_s = Histogram(
            "darkroom_core_commit_seconds",
            "Time of one append",
            buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1, 5),
            registry=r,
        )
        self.log_refusals = Counter("darkroom_core_log_refusals", "Transactions refused, nothing written", registry=r)
        self.log_tail = Gauge(
            "darkroom_core_log_wal_bytes", "Write-ahead log, grown only by a stuck reader", registry=r
        )
        self.submissions = Counter("darkroom_core_submissions", "Submitted items", ["outcome"], registry=r)
        self.admissions = Counter(
            "darkroom_core_admissions",
            "New requests by the ground of their admission, or by the bound that refused them",
            ["outcome"],
            registry=r,
        )
        self.backlog_charge = Gauge(
            "darkroom_core_backlog_charge", "Unfinished work, in images of the default request", registry=r
        )
        self.tenants = Gauge("darkroom_core_backlog_tenants", "Tenants with unfinished work", registry=r)
        self.backlog = Gauge("darkroom_core_backlog_images", "Images of open generations", ["state"], registry=r)
        self.dispatched = Counter("darkroom_core_dispatched", "Images put on the jobs queue", registry=r)
        self.rechecks = Counter("darkroom_core_rechecks", "Images dispatched again past their recheck", registry=r)
        self.send_failures = Counter("darkroom_core_send_failures", "Images the queue did not take", registry=r)
        self.runway = Gauge("darkroom_core_runway_images", "Images that core wants on the jobs queue", registry=r)
        self.replies = Counter("darkroom_core_replies", "Replies", ["kind", "outcome"], registry=r)
        self.quarantined = Counter("darkroom_core_quarantined", "Replies that were no message of ours", registry=r)
        self.dead_letters = Counter(
            "darkroom_core_dead_letters", "Jobs taken off the dead-letter queue", ["outcome"], registry=r
        )
        self.dead_letters_kept = Gauge(
            "darkroom_core_dead_letters_kept", "Dead letters that only people can judge, at the last look", registry=r
        )
        self.dead_letter_looks = Counter(
            "darkroom_core_dead_letter_looks", "Looks at the dead-letter queue", ["outcome"], registry=r
        )
        self.published = Counter("darkroom_core_published", "Images published", registry=r)
        self.objects_lost = Counter("darkroom_core_objects_lost", "Temporary objects gone or altered", registry=r)
        self.expired = Counter("darkroom_core_expired", "Generations expired", registry=r)
        self.erased = Counter("darkroom_core_erased", "Generations erased", ["cause"], registry=r)
        self.deletions = Counter(
            "darkroom_core_deletions", "Looks that delete the objects of an erased generation", ["outcome"], registry=r
        )
        self.running_s = Gauge("darkroom_core_running_seconds", "Core's running time over all its lives", registry=r)
        self.workers = Gauge("darkroom_core_workers_seen", "Workers heard of in the last minute", registry=r)
        self.waiters = Gauge("darkroom_core_waiting_calls", "Get calls that wait for an end", registry=r)
