"""Signs of life from within a model's modules: while texts are encoded, within a slow step, and while pictures are
decoded. They let the watchdog tell a model that takes minutes on a slow machine from one that hangs.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

_EVERY_S: Final = 0.25


class Signs:
    """Hooks the forward pass of the modules and of each block in their `ModuleList`s, at any depth."""

    def __init__(self, modules: Iterable[Any]) -> None:
        self._on_sign: Callable[[], None] | None = None
        self._last_s = 0.0
        for module in modules:
            for station in _stations(module):
                station.register_forward_hook(self._hook)

    @contextmanager
    def heard(self, on_sign: Callable[[], None]) -> Iterator[None]:
        """Within the block, `on_sign` is called as model blocks end, at most four times a second; it may raise."""
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
