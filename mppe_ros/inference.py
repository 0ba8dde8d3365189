"""Networks prepared to run fast: their outputs are the same but for rounding."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

from .cache import cache_folder

Network = TypeVar("Network", bound=nn.Module)
_Convolution = nn.Conv2d | nn.ConvTranspose2d
_Norm = nn.BatchNorm2d | FrozenBatchNorm2d


def prepare(network: Network, device: torch.device | str) -> Network:
    """Changes a network for inference, in place."""
    network = network.eval().requires_grad_(False)
    fold_batch_norms(network)
    return network.to(device).to(memory_format=torch.channels_last)


def lower_precision(network: Network, precision: torch.dtype) -> Network:
    """Weights in the precision of the autocast that a network will run in, in place.

    Autocast itself would convert them in every call.
    """
    for layer in network.modules():
        # What is left of batch normalisation stays in float32.
        if isinstance(layer, _Convolution | nn.Linear):
            layer.to(precision)
    return network


def fold_batch_norms(network: nn.Module) -> None:
    """Multiplies batch normalisations into the convolutions before them, in place.

    Children are taken to run in the order in which they are registered, as those of torchvision's
    and our networks do.
    """
    previous: nn.Module | None = None
    for name, layer in network.named_children():
        if isinstance(previous, _Convolution) and isinstance(layer, _Norm):
            _fold(previous, layer)
            setattr(network, name, nn.Identity())
        else:
            fold_batch_norms(layer)
        previous = layer


def _fold(convolution: _Convolution, norm: Any) -> None:
    convolution.weight, convolution.bias = fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(convolution, nn.ConvTranspose2d),
    )
    convolution.requires_grad_(False)


class OpenVino(nn.Module):
    """A network that OpenVINO runs on the CPU: on Intel's, about twice as fast as torch.

    What follows the last convolution or matrix product stays in float32 whatever the precision.
    The first conversion of a network takes seconds; it is kept in the cache folder.

    :param examples: arguments to trace the network with.
    :param variable: the dimensions of each argument that may change from call to call.
    """

    def __init__(
        self,
        network: nn.Module,
        examples: Sequence[torch.Tensor],
        variable: Sequence[int],
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        model = _converted(network, examples)
        shapes = ([-1 if i in variable else n for i, n in enumerate(e.shape)] for e in examples)
        model.reshape(dict(zip(model.inputs, shapes, strict=True)))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": _OPENVINO_TYPES[precision],
        }
        _, core = _openvino()
        self._request = core.compile_model(model, "CPU", options).create_infer_request()

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All of the network's results, in their order, whatever structure they had."""
        arrays = [argument.contiguous().numpy() for argument in arguments]
        results = self._request.infer(arrays, share_inputs=True)
        return tuple(torch.from_numpy(results[i]) for i in range(len(results)))


_OPENVINO_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def _converted(network: nn.Module, examples: Sequence[torch.Tensor]) -> Any:
    """A network as OpenVINO has it, from the cache folder or for it.

    Converting takes ten times as long as reading, and some megabytes of memory for ever; so does
    tracing, less of both. So what this process has seen before it only reads.
    """
    openvino, core = _openvino()
    description = _description(network, examples)
    if description not in _FOLDERS:
        traced = _traced(network, examples)
        digest = _digest(traced, openvino.__version__)
        _FOLDERS[description] = folder = cache_folder() / "openvino" / digest
        if not (folder / _MODEL).is_file():
            return _convert(traced, examples, folder)
    folder = _FOLDERS[description]
    try:
        return core.read_model(folder / _MODEL)
    except RuntimeError:  # it has gone, or is damaged
        return _convert(_traced(network, examples), examples, folder)


_FOLDERS: dict[str, Path] = {}  # by descriptions of networks
_MODEL = "network.xml"


def _traced(network: nn.Module, examples: Sequence[torch.Tensor]) -> Any:
    # In fp32, whatever surrounds this; OpenVINO lowers the precision itself.
    no_autocast = torch.autocast("cpu", enabled=False)
    with torch.no_grad(), no_autocast, warnings.catch_warnings():
        # The tracer's, of shapes that are constants here.
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, tuple(examples), strict=False, check_trace=False).eval()


def _convert(traced: Any, examples: Sequence[torch.Tensor], folder: Path) -> Any:
    """Convert a traced network and keep it in a folder, if that can be."""
    openvino, _ = _openvino()
    with torch.no_grad():
        model = openvino.convert_model(traced, example_input=tuple(examples))
    with suppress(OSError):  # a robot's disk may be full, or not to be written on
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as part:
            openvino.save_model(model, Path(part, _MODEL), compress_to_fp16=False)
            # Whole or not at all; if another process was faster, its files stay.
            Path(part).rename(folder)
    return model


def _description(network: nn.Module, examples: Sequence[torch.Tensor]) -> str:
    """Of what a network computes: its parameters, and all else that its modules hold."""
    digest = hashlib.sha256(str([example.shape for example in examples]).encode())
    usual = vars(nn.Module()).keys()
    for name, module in network.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in usual}
        digest.update(f"{name} {type(module)} {own}".encode())
    return _with_tensors(digest, network.state_dict().values())


def _digest(traced: Any, version: str) -> str:
    """Of what a traced network computes, on any machine, and of who converts it."""
    graph = traced.inlined_graph
    # torch numbers the types of what it traces.
    text = re.sub(r"___torch_mangle_\d+\.", "", graph.str(False))
    digest = hashlib.sha256(f"{torch.__version__} {version} {text}".encode())
    constants = (node for node in graph.nodes() if node.hasAttribute("value"))
    tensors = [node.t("value") for node in constants if node.kindOf("value") == "t"]
    return _with_tensors(digest, [*traced.state_dict().values(), *tensors])[:16]


def _with_tensors(digest: Any, tensors: Iterable[torch.Tensor]) -> str:
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return str(digest.hexdigest())


@cache
def _openvino() -> tuple[Any, Any]:
    """OpenVINO and its core, which lives as long as the process.

    A core gives the thread that makes it a stack for signals, and takes it back in whichever
    thread it ends in: the first thread's next signal would crash the process.
    """
    # It would tell its makers of every import and conversion; without this package it can't.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = import_module("openvino")
    return openvino, openvino.Core()
