"""Networks prepared to run fast: their outputs are the same but for rounding."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.ops import FrozenBatchNorm2d

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
        openvino = _import_openvino()
        # Traced in fp32, whatever surrounds this; OpenVINO lowers the precision itself.
        no_autocast = torch.autocast("cpu", enabled=False)
        with torch.no_grad(), no_autocast, warnings.catch_warnings():
            # The tracer's, of shapes that are constants here.
            warnings.simplefilter("ignore")
            model = openvino.convert_model(network, example_input=tuple(examples))
        shapes = ([-1 if i in variable else n for i, n in enumerate(e.shape)] for e in examples)
        model.reshape(dict(zip(model.inputs, shapes, strict=True)))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": _OPENVINO_TYPES[precision],
        }
        self._request = openvino.Core().compile_model(model, "CPU", options).create_infer_request()

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All of the network's results, in their order, whatever structure they had."""
        arrays = [argument.contiguous().numpy() for argument in arguments]
        results = self._request.infer(arrays, share_inputs=True)
        return tuple(torch.from_numpy(results[i]) for i in range(len(results)))


def _import_openvino() -> Any:
    # It would tell its makers of every import and conversion; without this package it can't.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    return import_module("openvino")


_OPENVINO_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}
