"""How long core waits for a report on an image before it dispatches the image again. Pure."""

from dataclasses import dataclass
from typing import Final

_MOST_DOUBLINGS: Final = 20


_FIRST_REPORTS_S: Final = 15.0


_LONGEST_UNCOUNTED_S: Final = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RecheckPolicy:
    """How long to wait for a sign of life: twice the visibility timeout, doubling with each dispatch up to `cap_s`."""

    visibility_s: float
    cap_s: float

    def after_dispatch_ms(self, dispatch: int, wait_s: float) -> int:
        """After the `dispatch`-th dispatch of an image before which lie `wait_s` of other work."""
        first_s = 2 * self.visibility_s
        doubled_s = first_s * 2.0 ** min(dispatch - 1, _MOST_DOUBLINGS)
        return int((min(doubled_s, max(first_s, self.cap_s)) + wait_s) * 1000)

    def after_start_ms(self, work_s: float, batch_size: int) -> int:
        """After the start of an image in a batch. Reports move it on, but not every worker makes them."""
        return int((2 * self.visibility_s + min(2 * work_s * batch_size, self.cap_s)) * 1000)

    def after_refusal_ms(self, refusals: int) -> int:
        """Until an image is sent again that a worker does not serve, or whose object was lost: a rolling change of
        models, or trouble with a store, takes its time.
        """
        return int(self.visibility_s / 4 * 4.0 ** (refusals - 1) * 1000)

    def after_uncounted_refusal_ms(self, refusals: int) -> int:
        """Until an image goes out again whose model a worker could not use, and another may: 1 s, doubling to 8."""
        return int(min(2.0 ** min(refusals - 1, _MOST_DOUBLINGS), _LONGEST_UNCOUNTED_S) * 1000)

    def after_report_ms(self) -> int:
        """After a worker said that it holds the image."""
        return int(2 * self.visibility_s * 1000)

    def after_load_ms(self) -> int:
        """After a start of core. Reports are kept in memory alone: what is past its recheck may be well in hand.

        No longer than workers need, who report about once a second: a core that ends again and again must recheck too.
        """
        return int(min(self.visibility_s, _FIRST_REPORTS_S) * 1000)
