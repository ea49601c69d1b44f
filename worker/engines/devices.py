"""Where torch computes: device, dtype, threads, and what its errors mean. Imports torch only when used.

Threads: half of the cores by default. OpenMP's threads spin while they wait for one another, so a model that takes
all cores of a busy machine gets far slower, not faster: on two cores shared with other work, the same eight steps of
a tiny pipeline took 1.3 s with one thread and 18 s with two (0.5 and 5.5 s of processor time).
"""

import gc
import os
import sys
from dataclasses import dataclass
from typing import Any

from worker.engines.errors import EngineLost


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """What the settings ask for; `name` is auto, cpu, cuda or cuda:N. `threads`: of a CPU; 0: half of the cores."""

    name: str = "auto"
    dtype: str = "float32"
    threads: int = 0

    def open(self) -> str:
        """The device to compute on, the current one of this thread from now on. Raises RuntimeError when there is none
        of that name.
        """
        import torch  # noqa: PLC0415  (heavy)

        torch.set_num_threads(self.threads or max(1, (os.cpu_count() or 1) // 2))
        devices = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.name == "cpu" or (self.name == "auto" and not devices):
            return "cpu"
        if not devices:
            raise RuntimeError(f"device {self.name}: no CUDA device is visible; set device to cpu or auto")
        device = "cuda" if self.name == "auto" else self.name
        if _index(device) >= devices:
            raise RuntimeError(f"device {self.name}: {devices} CUDA device(s) are visible, counted from cuda:0")
        make_current(device)
        return device

    def torch_dtype(self) -> Any:
        """As torch's object."""
        import torch  # noqa: PLC0415  (heavy)

        return getattr(torch, self.dtype)

    @staticmethod
    def describe(device: str) -> str:
        """For the record of a picture."""
        import torch  # noqa: PLC0415  (heavy)

        if device == "cpu":
            return f"cpu, {torch.get_num_threads()} threads"
        return torch.cuda.get_device_name(_index(device))

    @staticmethod
    def libraries() -> str:
        """For the record of a picture."""
        import diffusers  # noqa: PLC0415  (heavy)
        import torch  # noqa: PLC0415  (heavy)

        return f"torch {torch.__version__}, diffusers {diffusers.__version__}"

    @staticmethod
    def free() -> None:
        """Give cached memory back. Call it outside of except blocks: a traceback holds tensors.

        Raises EngineLost when the device cannot even do that. It is asked to finish first: an error that sticks shows
        then, whatever it looked like before, and would else show with nothing to give back in a later picture.
        """
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            gc.collect()
            try:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except Exception as error:  # noqa: BLE001  (what it raises differs between versions of torch)
                raise EngineLost(type(error).__name__) from None


def make_current(device: str) -> None:
    """The device that this thread's streams, events and memory figures are of: two models of one worker may be on
    different ones.
    """
    if device != "cpu":
        import torch  # noqa: PLC0415  (heavy)

        torch.cuda.set_device(_index(device))


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether less work might fit."""
    import torch  # noqa: PLC0415  (heavy)

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: can't allocate memory" in str(error)


def is_lost(error: BaseException) -> bool:
    """Whether the CUDA context is beyond repair: such errors stick, and every later call fails too."""
    import torch  # noqa: PLC0415  (heavy)

    accelerator = getattr(torch, "AcceleratorError", ())
    if isinstance(error, torch.OutOfMemoryError):
        return False
    return isinstance(error, accelerator) or (isinstance(error, RuntimeError) and "CUDA error" in str(error))
