"""Where and in which precision the networks run."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")

OWN_BACKENDS = ("auto", "torch", "openvino", "cuda_graphs")
BACKENDS = (*OWN_BACKENDS, "onnxruntime", "tensorrt")  # with those of exported networks
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


def has_bf16_tiles() -> bool:
    """Whether the processor multiplies matrices of bf16 by instructions of their own (AMX); also
    where torch is too old to say."""
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16", not capabilities))


def insist_on_fp32() -> None:
    """From now on, this process' float32 convolutions are computed as such on GPUs, too.

    Unless told not to, those round factors to 10 bits (TF32): joints move by up to 0.3 px.
    """
    torch.backends.cudnn.allow_tf32 = False


def select_backend(name: str, device: torch.device, precision: torch.dtype) -> str:
    """``torch``, ``openvino``, ``cuda_graphs`` or ``auto``: OpenVINO on a CPU, where it is
    installed, CUDA graphs on a GPU.

    :return: torch, openvino or cuda_graphs.
    :raises DeviceError: unknown, or one that can't be here.
    """
    if name not in BACKENDS:
        raise DeviceError(f"backend {name!r} is none of {', '.join(BACKENDS)}")
    if name in ("onnxruntime", "tensorrt"):
        raise DeviceError(
            f"backend {name} runs exported networks: 'mppe export FOLDER' makes some, to be given "
            "as weights"
        )
    fits = device.type == "cpu" and precision in (torch.float32, torch.bfloat16)
    installed = find_spec("openvino") is not None
    on_gpu = device.type == "cuda"
    if name == "auto":
        return "cuda_graphs" if on_gpu else "openvino" if fits and installed else "torch"
    if name == "cuda_graphs" and not on_gpu:
        raise DeviceError("backend cuda_graphs is for GPUs: use backend auto or torch on a CPU")
    if name == "openvino" and not fits:
        raise DeviceError("backend openvino is for CPUs: use backend auto or torch on a GPU")
    if name == "openvino" and not installed:
        raise DeviceError("backend openvino needs a package: pip install openvino")
    return name


def select_exported_backend(name: str, device: torch.device, form: str, has_engines: bool) -> str:
    """What runs networks that ``mppe export`` wrote.

    :param form: onnx or torchscript.
    :param has_engines: TensorRT's have been built of all of them.
    :return: onnxruntime, tensorrt, or torch for TorchScript.
    :raises DeviceError: unknown, or not for these.
    """
    if name not in BACKENDS:
        raise DeviceError(f"backend {name!r} is none of {', '.join(BACKENDS)}")
    possible = ("torch",) if form == "torchscript" else ("onnxruntime", "tensorrt")
    if name == "auto":
        on_engines = "tensorrt" in possible and device.type == "cuda" and has_engines
        return "tensorrt" if on_engines else possible[0]
    if name not in possible:
        raise DeviceError(
            f"backend {name} doesn't run networks exported as {form}: use {' or '.join(possible)}"
        )
    if name == "tensorrt" and device.type != "cuda":
        raise DeviceError("backend tensorrt is for GPUs: use backend onnxruntime on a CPU")
    return name


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


# What torch says in words only: too little memory of the CPU, of cuDNN and of cuBLAS.
_OUT_OF_MEMORY = ("can't allocate memory", "unable to find an engine", "STATUS_ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had too little memory for something."""
    return isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)
    )


def is_device_lost(error: BaseException) -> bool:
    """Whether a GPU failed in a way that may have spoilt it for the rest of the process."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


class Portions:
    """Work on many items at once, in portions as large as memory allows.

    A portion that was too large is halved, and the size that fitted is kept from then on:
    ``most`` items, None as long as all of them always fitted.
    """

    def __init__(self) -> None:
        self.most: int | None = None

    def __call__(self, work: Callable[[slice], Result], count: int) -> list[Result]:
        """The results of all portions of ``count`` items, in order.

        :param work: gets the portion as a slice of the items.
        :raises Exception: what ``work`` raises, too little memory for a single item included.
        """
        results: list[Result] = []
        start = 0
        while start < count:
            size = min(self.most or count, count - start)
            try:
                results.append(work(slice(start, start + size)))
                start += size
                continue
            except Exception as error:
                if size == 1 or not is_out_of_memory(error):
                    raise
            # Out of the handler: the exception's frames hold what has to be freed.
            release_memory()
            self.most = size // 2
        return results


def release_memory() -> None:
    """Gives what deleted networks occupied back to the system, as far as it takes it."""
    gc.collect()
    if torch.cuda.is_initialized():
        with suppress(RuntimeError):  # of a device that was lost
            torch.cuda.empty_cache()
    # glibc keeps freed memory to itself; other C libraries have no such function.
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def keep_memory() -> None:
    """From now on freed memory stays with this process: for work on large arrays by the thousand,
    whose pages glibc would give back and get anew each time."""
    # mallopt's M_TRIM_THRESHOLD, and M_MMAP_THRESHOLD at its most.
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**30)
        libc.mallopt(-3, 2**25)
