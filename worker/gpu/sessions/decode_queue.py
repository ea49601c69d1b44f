"""Images that are denoised and not yet decoded, in their order. On the GPU thread; no I/O."""

from collections import deque
from collections.abc import Sequence

from worker.engines.contract import Done, EncodedPicture, Picture, RenderJob
from worker.engines.errors import BadOutput
from worker.gpu.sessions.members import Member


class DecodeQueue:
    """`under_way`: how many of the newest images the device still decodes beside the step launched last. Fetching one
    of them would block the thread, and delay the launch of the next step.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[Member, Done]] = deque()
        self.under_way = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def ready(self) -> int:
        """How many are not under way."""
        return len(self._waiting) - self.under_way

    @property
    def first(self) -> Member:
        """The image to decode next."""
        return self._waiting[0][0]

    def add(self, finished: Sequence[tuple[Member, Done]], *, ahead: bool) -> None:
        """Called after each step with what it finished. Images that were under way beside it are ready now."""
        self._waiting.extend(finished)
        self.under_way = len(finished) if ahead else 0

    def take(self) -> tuple[Member, Done]:
        """Remove and return the first image."""
        return self._waiting.popleft()

    def clear(self) -> Sequence[Member]:
        """Discard all; return their members."""
        lost = [member for member, _ in self._waiting]
        self._waiting.clear()
        self.under_way = 0
        return lost


def require_whole(picture: Picture | EncodedPicture, job: RenderJob) -> None:
    """Raises BadOutput for a picture of a size other than the job's, or with too few or too many pixel bytes."""
    if (picture.width, picture.height) != (job.width, job.height):
        raise BadOutput("the picture is of another size than asked for")
    if isinstance(picture, Picture) and len(picture.rgb) != picture.width * picture.height * 3:
        raise BadOutput("the picture is not whole")
