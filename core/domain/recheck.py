"""How long core waits for a report on an image before it dispatches the image again. Pure."""

from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 20
"""Keeps 2.0 ** n finite; the cap is reached long before."""
_FIRST_REPORTS_S: Final = 15.0
_LONGEST_UNCOUNTED_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecheckPolicy:
    """How long to wait for a sign of life: twice the visibility timeout, doubling with each dispatch up to `cap_s`."""

    visibility_s: float
    cap_s: float

    def after_dispatch_ms(self, dispatch: int, wait_s: float) -> int:
        """After the `dispatch`-th dispatch of an image, with `wait_s` seconds of other work before it."""
        first_s = 2 * self.visibility_s
        doubled_s = first_s * 2.0 ** min(dispatch - 1, _MOST_DOUBLINGS)
        return int((min(doubled_s, max(first_s, self.cap_s)) + wait_s) * 1000)

    def after_start_ms(self, work_s: float, batch_size: int) -> int:
        """After the start of an image in a batch. Reports postpone the recheck, but not every worker sends them."""
        return int((2 * self.visibility_s + min(2 * work_s * batch_size, self.cap_s)) * 1000)

    def after_refusal_ms(self, refusals: int) -> int:
        """Until an image is sent again after a counted refusal or a lost object. Four times longer each time, since a
        rolling change of models, or an outage of a store, takes time.
        """
        return int(self.visibility_s / 4 * 4.0 ** (refusals - 1) * 1000)

    def after_uncounted_refusal_ms(self, refusals: int) -> int:
        """Until an image is sent again after an uncounted refusal: 1 s, doubling up to 8 s."""
        return int(min(2.0 ** min(refusals - 1, _MOST_DOUBLINGS), _LONGEST_UNCOUNTED_S) * 1000)

    def after_report_ms(self) -> int:
        """After a worker's report that it holds the image."""
        return int(2 * self.visibility_s * 1000)

    def after_load_ms(self) -> int:
        """After a start of core, during which nothing is rechecked: reports are kept in memory only, so an image past
        its recheck time may be in good hands.

        Not longer than workers need to report, which they do about once a second. Otherwise a core that is restarted
        again and again would never recheck anything.
        """
        return int(min(self.visibility_s, _FIRST_REPORTS_S) * 1000)
