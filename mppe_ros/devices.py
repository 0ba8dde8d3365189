"""Where and in which precision the networks run."""

from __future__ import annotations

import ctypes
import gc
import time
from contextlib import suppress

import torch

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class DeviceError(RuntimeError):
    """A device or precision that this machine does not have."""


def select_device(name: str = "auto") -> torch.device:
    """``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    :raises DeviceError: not a device name, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"device {name!r} is none of auto, cpu, cuda, cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"device {name!r} is none of auto, cpu, cuda, cuda:N")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            seen = f"only {count} GPU(s)" if count else "no CUDA GPU"
            raise DeviceError(
                f"device {name!r} asked for, but torch sees {seen} here: use device auto or cpu, "
                "or install a CUDA build of torch and its driver"
            )
    return device


def select_precision(name: str, device: torch.device) -> torch.dtype:
    """``fp32``, ``fp16``, ``bf16`` or ``auto``: fp16 on a GPU, fp32 on a CPU.

    :raises DeviceError: unknown, or fp16 on a CPU, which computes it slowly and inaccurately.
    """
    if name == "auto":
        return torch.float16 if device.type == "cuda" else torch.float32
    if name not in PRECISIONS:
        raise DeviceError(f"precision {name!r} is none of auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise DeviceError("precision fp16 needs a GPU: use bf16 or fp32 on a CPU")
    return PRECISIONS[name]


class StageClock:
    """Milliseconds of stages that follow each other, in the order of their ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last_s = time.perf_counter()
        self.ms: dict[str, float] = {}

    def lap(self, stage: str) -> None:
        """Ends a stage."""
        if self._device.type == "cuda":  # which computes behind Python's back
            torch.cuda.synchronize(self._device)
        now_s = time.perf_counter()
        self.ms[stage] = self.ms.get(stage, 0.0) + (now_s - self._last_s) * 1e3
        self._last_s = now_s


def release_memory() -> None:
    """Gives what deleted networks occupied back to the system, as far as it takes it."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    # glibc keeps freed memory to itself; other C libraries have no such function.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
