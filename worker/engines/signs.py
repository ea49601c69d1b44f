"""Signs of life from within a model's modules: also while texts are encoded, within one slow step, and while pictures
are decoded. So the watchdog distinguishes what takes minutes on a slow machine from what hangs.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_EVERY_S: Final = 0.25


class Signs:
    """Listens at the modules themselves and at the members of their lists of blocks, however deep."""

    def __init__(self, modules: Iterable[Any]) -> None:
        self._on_sign: Callable[[], None] | None = None
        self._last_s = 0.0
        for module in modules:
            for station in _stations(module):
                station.register_forward_hook(self._hook)

    @contextmanager
    def heard(self, on_sign: Callable[[], None]) -> Iterator[None]:
        """Meanwhile `on_sign` is called at the end of blocks, a few times a second at most; it may raise."""
        self._on_sign, self._last_s = on_sign, time.perf_counter()
        try:
            yield
        finally:
            self._on_sign = None

    def _hook(self, *_: Any) -> None:
        if self._on_sign is None:
            return
        now_s = time.perf_counter()
        if now_s - self._last_s >= _EVERY_S:
            self._last_s = now_s
            self._on_sign()


def modules_of(pipeline: Any) -> list[Any]:
    """All parts of a diffusers pipeline that compute."""
    import torch  # noqa: PLC0415  (heavy)

    return [part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)]


def _stations(module: Any) -> Iterator[Any]:
    import torch  # noqa: PLC0415  (heavy)

    yield module
    for each in module.modules():
        if isinstance(each, torch.nn.ModuleList):
            yield from each
