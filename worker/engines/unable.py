"""What engines refuse in the same words: pictures that are too large, and the calls that their capabilities exclude."""

from worker.engines.contract import RenderJob
from worker.errors import EngineError, Unsupported


def require_size(job: RenderJob, max_width: int, max_height: int) -> None:
    """Raises Unsupported beyond the model's largest size."""
    if job.width > max_width or job.height > max_height:
        raise Unsupported(f"pictures may have at most {max_width}x{max_height} pixels")


class NoParking:
    """An engine whose members cannot stand aside."""

    def park(self, job_id: str) -> None:
        """Never called: `capabilities.park` is False."""
        raise EngineError(f"{job_id}: this engine does not park")

    def unpark(self, job_id: str) -> None:
        """Never called: `capabilities.park` is False."""
        raise EngineError(f"{job_id}: this engine does not park")


class NoProcess:
    """An engine without a process that is ours to end."""

    def kill(self) -> None:
        """Never called: `capabilities.restartable` is False."""
        raise EngineError("this engine has no process of its own")
