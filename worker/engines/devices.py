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
    """The device that the settings ask for. `name`: auto, cpu, cuda or cuda:N. `threads`: torch's CPU threads; 0 means
    half of the cores.
    """

    name: str = "auto"
    dtype: str = "float32"
    threads: int = 0

    def open(self) -> str:
        """Choose the device and make it current for this thread. Raises RuntimeError when no such device is visible."""
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
        """The dtype as a torch object."""
        import torch  # noqa: PLC0415  (heavy)

        return getattr(torch, self.dtype)

    @staticmethod
    def describe(device: str) -> str:
        """The device's name, as recorded with each picture."""
        import torch  # noqa: PLC0415  (heavy)

        if device == "cpu":
            return f"cpu, {torch.get_num_threads()} threads"
        return torch.cuda.get_device_name(_index(device))

    @staticmethod
    def libraries() -> str:
        """The versions of torch and diffusers, as recorded with each picture."""
        import diffusers  # noqa: PLC0415  (heavy)
        import torch  # noqa: PLC0415  (heavy)

        return f"torch {torch.__version__}, diffusers {diffusers.__version__}"

    @staticmethod
    def free() -> None:
        """Release cached memory. Call it outside of except blocks: a traceback holds tensors.

        Raises EngineLost when the device fails at this. It synchronizes first, so that a sticky error shows here, even
        if it looked different when it was raised. With nothing cached to release, it would otherwise show only in a
        later picture.
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
    """Make `device` current for this thread's streams, events and memory statistics: the models of one worker may be on
    different devices.
    """
    if device != "cpu":
        import torch  # noqa: PLC0415  (heavy)

        torch.cuda.set_device(_index(device))


def _index(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, so that a smaller batch might fit."""
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
