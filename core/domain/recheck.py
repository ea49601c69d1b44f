"""How long core waits for a report on an image before it dispatches the image again. Pure."""

from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 20
"""Keeps 2.0 ** n finite; the cap is reached long before."""
_FIRST_REPORTS_S: Final = 15.0
_LONGEST_UNCOUNTED_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecheckPolicy:
    """How long to wait for a report: twice the visibility timeout, doubling with each dispatch up to `cap_s`.

    Each method returns milliseconds of core's running time.
    """

    visibility_s: float
    cap_s: float

    def after_dispatch_ms(self, dispatch: int, wait_s: float) -> int:
        """The wait after the `dispatch`-th dispatch of an image, with `wait_s` seconds of other work before it."""
        first_s = 2 * self.visibility_s
        doubled_s = first_s * 2.0 ** min(dispatch - 1, _MOST_DOUBLINGS)
        return int((min(doubled_s, max(first_s, self.cap_s)) + wait_s) * 1000)

    def after_start_ms(self, work_s: float, batch_size: int) -> int:
        """The wait after an image of `work_s` GPU seconds starts in a batch. It allows for the whole batch, since not
        every worker sends the reports that postpone a recheck.
        """
        return int((2 * self.visibility_s + min(2 * work_s * batch_size, self.cap_s)) * 1000)

    def after_refusal_ms(self, refusals: int) -> int:
        """The wait after the `refusals`-th counted refusal or lost object of an image: a quarter of the visibility
        timeout, then four times longer each time, since a rolling change of models or an outage of a store takes time.
        """
        return int(self.visibility_s / 4 * 4.0 ** (refusals - 1) * 1000)

    def after_uncounted_refusal_ms(self, refusals: int) -> int:
        """The wait after the `refusals`-th uncounted refusal of an image: 1 s, doubling up to 8 s."""
        return int(min(2.0 ** min(refusals - 1, _MOST_DOUBLINGS), _LONGEST_UNCOUNTED_S) * 1000)

    def after_report_ms(self) -> int:
        """The wait after a worker reports that it holds the image."""
        return int(2 * self.visibility_s * 1000)

    def after_load_ms(self) -> int:
        """How long core rechecks nothing after its own start. Workers' reports are kept in memory only, so a worker may
        still hold an image whose recheck time has passed.

        Workers report about once a second. The wait is capped, since a core that restarts again and again would
        otherwise never recheck an image.
        """
        return int(min(self.visibility_s, _FIRST_REPORTS_S) * 1000)
