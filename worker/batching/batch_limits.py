"""The largest batch that fits, learned from measured memory and from batches that ran out of it."""

from worker.engines.contract import BatchKey, RenderJob


class BatchLimits:
    """The largest batch: what the engine declares, until memory has proved smaller. Any thread may ask.

    What the engine measured counts per batch key; a batch that ran out of memory, per (model, width, height).
    """

    def __init__(self, *, remembered: int = 1_000) -> None:
        self._ran_out: dict[tuple[str, int, int], int] = {}
        self._fits: dict[BatchKey, int] = {}
        self._remembered = remembered

    def limit(self, job: RenderJob, key: BatchKey, declared: int) -> int:
        """The largest batch that this job may go in. `declared`: what the engine allows at most."""
        return min(declared, self._fits.get(key, declared), self._ran_out.get(_size(job), declared))

    def measured(self, key: BatchKey, fits: int) -> None:
        """Record that `fits` images fit into memory, as measured by the engine. The newest measurement counts."""
        self._fits[key] = max(1, fits)  # in place: the GPU thread may be asking
        if len(self._fits) > self._remembered:
            del self._fits[next(iter(self._fits))]

    def ran_out(self, job: RenderJob, size: int) -> None:
        """A batch of `size` did not fit: half of it is the cap from now on."""
        kind = _size(job)
        self._ran_out[kind] = max(1, min(size // 2, self._ran_out.get(kind, size)))


def _size(job: RenderJob) -> tuple[str, int, int]:
    return (job.model, job.width, job.height)
