"""How many images fit, with numbers for a device."""

from contextlib import suppress

import pytest

from worker.engines.latent.memory import MemoryCurve

GIB = 2**30


class Device:
    """Weights of 2 GiB, then `base` and `each` bytes per batch and image, or those that a picture's decoding takes."""

    def __init__(self, *, room: int, base: int, each: int) -> None:
        self.room = room
        self.base = base
        self.each = each
        self.peak = 2 * GIB

    def reset_peak(self) -> None:
        self.peak = self.held_bytes()

    def run(self, batch: int) -> None:
        self.peak = self.held_bytes() + self.base + self.each * batch

    def decode(self, bytes_: int) -> None:
        self.peak = self.held_bytes() + bytes_

    def peak_bytes(self) -> int:
        return self.peak

    def held_bytes(self) -> int:
        return 2 * GIB

    def room_bytes(self) -> int:
        return self.room


def ran(curve: MemoryCurve, device: Device, batch: int, kind: str = "512") -> None:
    with curve.step(kind, batch):
        device.run(batch)


def test_nothing_is_known_before_anything_has_run() -> None:
    device = Device(room=20 * GIB, base=0, each=GIB)
    curve = MemoryCurve(device)
    assert curve.fits("512") is None
    ran(curve, device, 1)
    assert curve.fits("1024") is None
    assert MemoryCurve(None).fits("512") is None


def test_one_batch_size_is_taken_to_grow_from_the_weights() -> None:
    device = Device(room=20 * GIB, base=GIB, each=GIB)
    curve = MemoryCurve(device)
    ran(curve, device, 1)  # 2 GiB beside the weights, half of them for good; 90 % of the room are 18 GiB
    assert curve.fits("512") == 8


def test_two_batch_sizes_tell_what_one_more_image_takes() -> None:
    device = Device(room=20 * GIB, base=GIB, each=GIB)
    curve = MemoryCurve(device)
    ran(curve, device, 1)
    ran(curve, device, 4)
    assert curve.fits("512") == 15  # 2 + 1 + 15 = 18 GiB
    device.room = 10 * GIB  # another process takes half of it; seen at the next new peak
    ran(curve, device, 5)
    assert curve.fits("512") == 6


def test_an_image_that_ran_always_fits_alone() -> None:
    device = Device(room=3 * GIB, base=0, each=GIB)
    curve = MemoryCurve(device)
    ran(curve, device, 1)
    assert curve.fits("512") == 1


def test_a_step_that_raised_teaches_nothing() -> None:
    device = Device(room=20 * GIB, base=0, each=GIB)
    curve = MemoryCurve(device)
    with pytest.raises(MemoryError), curve.step("512", 8):
        raise MemoryError
    assert curve.fits("512") is None


def test_the_largest_peak_of_a_size_counts() -> None:
    device = Device(room=20 * GIB, base=0, each=GIB)
    curve = MemoryCurve(device)
    device.base = 3 * GIB  # kernels were chosen in this step
    ran(curve, device, 1)
    device.base = 0
    ran(curve, device, 1)
    assert curve.fits("512") == 4


@pytest.mark.parametrize("batches", [(1,), (2,), (4,), (5,), (1, 2), (1, 5), (4, 5)])
def test_a_decoder_that_takes_more_than_the_steps_bends_no_line(batches: tuple[int, ...]) -> None:
    """Of 14.4 GiB, 2 are the weights and 1.2 stay for decoding; each image takes a quarter."""
    device = Device(room=16 * GIB, base=0, each=GIB // 4)
    curve = MemoryCurve(device)
    for batch in batches:
        ran(curve, device, batch)
        with curve.decoding("512"):
            device.decode(GIB * 6 // 5)
    assert curve.fits("512") == 44


def test_each_size_has_a_decoding_of_its_own_and_one_that_raised_teaches_nothing() -> None:
    device = Device(room=20 * GIB, base=0, each=GIB)
    curve = MemoryCurve(device)
    ran(curve, device, 1)
    with curve.decoding("1024"):
        device.decode(8 * GIB)
    with suppress(MemoryError), curve.decoding("512"):
        device.decode(8 * GIB)
        raise MemoryError
    assert curve.fits("512") == 16
