"""Networks prepared to run fast: their outputs are the same but for rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

Network = TypeVar("Network", bound=nn.Module)
_Convolution = nn.Conv2d | nn.ConvTranspose2d


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


def constants(values: Sequence[float], like: torch.Tensor) -> torch.Tensor:
    """(N,) of the type and on the device of ``like``.

    Filled there: a copy from the host can't be in a CUDA graph.
    """
    return torch.stack([like.new_full((), value) for value in values])


class Room:
    """Memory that is used again: so much of it anew takes longer than filling it."""

    def __init__(self) -> None:
        self._cells = torch.empty(0)

    def __call__(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Of any content; the next call gives the same memory."""
        count = math.prod(shape)
        if self._cells.dtype != dtype or len(self._cells) < count:
            with torch.inference_mode(False):  # it may be used without, too
                self._cells = torch.empty(count, dtype=dtype)
        return self._cells[:count].view(shape)


class Autocast(nn.Module):
    """Runs a module in lower precision; what comes out is float32 again."""

    def __init__(self, module: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.module, self.precision = lower_precision(module, precision), precision

    def forward(self, *arguments: torch.Tensor) -> Any:
        with torch.autocast(arguments[0].device.type, self.precision):
            y = self.module(*arguments)
        if isinstance(y, dict):
            return {key: value.float() for key, value in y.items()}
        return tuple(value.float() for value in y) if isinstance(y, tuple) else y.float()


def computed_in(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A network in some precision; what comes out is float32."""
    return network if precision == torch.float32 else Autocast(network, precision)


def fold_batch_norms(network: nn.Module) -> None:
    """Multiplies batch normalisations into the convolutions before them, in place.

    Children are taken to run in the order in which they are registered, as those of torchvision's
    and our networks do.
    """
    previous: nn.Module | None = None
    for name, layer in network.named_children():
        if isinstance(previous, _Convolution) and _is_norm(layer):
            _fold(previous, layer)
            setattr(network, name, nn.Identity())
        else:
            fold_batch_norms(layer)
        previous = layer


def _is_norm(layer: nn.Module) -> bool:
    # torchvision's by its name: importing it takes seconds, and most detectors do without.
    return isinstance(layer, nn.BatchNorm2d) or type(layer).__name__ == "FrozenBatchNorm2d"


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
