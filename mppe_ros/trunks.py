"""Trunks: the convolutional networks that turn a crop or an image into feature maps."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, NamedTuple, TypeVar, Union

import torch
import torch.nn.functional as F
from torch import nn

if TYPE_CHECKING:
    from .resnet import ResNetTrunk


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (MobileNetV2, section 3), batch normalisation folded in.

    Strided layers pad like TensorFlow ("same"), as EfficientNet-Lite's weights expect, or by as
    much before as after (``symmetric``), as BlazePose's do.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        expansion: int,
        kernel: int,
        stride: int,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.kernel = kernel
        self.residual = stride == 1 and inputs == outputs
        self._pads = stride == 2 and not symmetric
        self.expand = nn.Conv2d(inputs, hidden, 1) if expansion > 1 else None
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, stride, 0 if self._pads else kernel // 2, groups=hidden
        )
        self.project = nn.Conv2d(hidden, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x), inplace=True)
        if self._pads:
            y = pad_same(y, self.kernel)
        y = self.project(F.relu6(self.depthwise(y), inplace=True))
        return x + y if self.residual else y


def pad_same(x: torch.Tensor, kernel: int) -> torch.Tensor:
    """TensorFlow's "same" padding for a stride of 2."""
    # Decided here, so that graphs have a constant, which melts into the convolution: sides whose
    # length isn't known before are multiples of 32.
    odd = 1 if x.shape[-1] % 2 else 0
    before, after = kernel // 2 - 1 + odd, kernel // 2
    return F.pad(x, (before, after, before, after))


# Rows of (expansion, kernel, stride, outputs, repeats), as MobileNetV2 has them (table 2) and what
# came of it; the stride is the first repeat's.
Stages = tuple[tuple[int, int, int, int, int], ...]


def _inverted_residuals(
    inputs: int, stages: Stages, symmetric: bool = False
) -> tuple[nn.ModuleList, list[int]]:
    """The blocks of all stages, and which block is the last of each."""
    blocks, ends = nn.ModuleList(), []
    for expansion, kernel, stride, outputs, repeats in stages:
        for step in (stride, *[1] * (repeats - 1)):
            blocks.append(InvertedResidual(inputs, outputs, expansion, kernel, step, symmetric))
            inputs = outputs
        ends.append(len(blocks) - 1)
    return blocks, ends


def _maps(blocks: nn.ModuleList, x: torch.Tensor, taps: Collection[int]) -> list[torch.Tensor]:
    """What comes out of the blocks ``taps``."""
    maps = []
    for index, block in enumerate(blocks):
        x = block(x)
        if index in taps:
            maps.append(x)
    return maps


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation), for CPUs.

    (N, 3, H, W), H and W multiples of 32, to the last feature map (N, 320, H/32, W/32);
    :meth:`pyramid` gives strides 8, 16 and 32 with 40, 112 and 320 channels.
    """

    channels = 320
    pyramid_channels = (40, 112, 320)
    STAGES: Stages = (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    )

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 3, 2)
        self.blocks, ends = _inverted_residuals(32, self.STAGES)
        self._taps = {ends[2], ends[4], ends[6]}  # strides 8, 16 and 32

    def pyramid(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x = F.relu6(self.stem(pad_same(x, 3)), inplace=True)
        stride8, stride16, stride32 = _maps(self.blocks, x, self._taps)
        return stride8, stride16, stride32

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.pyramid(x)[-1]


class BlazePoseFeatures(NamedTuple):
    """What :class:`BlazePose` sees in N pictures."""

    stride8: torch.Tensor  # (N, 48, H/8, W/8), from which its heatmaps would come
    stride16: torch.Tensor  # (N, 88, H/16, W/16)
    stride32: torch.Tensor  # (N, 864, H/32, W/32)
    whole: torch.Tensor  # (N, 1152), from which its coordinates would come


class BlazePose(nn.Module):
    """MediaPipe's landmark network "full" (Bazarevsky et al. 2020) without its outputs.

    A MobileNetV2 whose maps a feature pyramid takes up again, and a second way down to 2x2 cells,
    which looks at the whole person.

    (N, 3, size, size) RGB in 0..1, size a multiple of 32 from 160 to 256, to
    :class:`BlazePoseFeatures`. Batch normalisation is folded in.
    """

    MIN_SIZE, MAX_SIZE = 160, 256  # others don't end in 2x2 cells
    STAGES: Stages = (
        (1, 3, 1, 16, 1),
        (4, 3, 2, 24, 1),
        (6, 3, 1, 24, 1),
        (6, 5, 2, 32, 2),
        (6, 3, 2, 64, 3),
        (6, 5, 1, 88, 3),
        (6, 5, 2, 144, 4),
    )
    PYRAMID, WHOLE = 48, 288
    pyramid_channels = (PYRAMID, 88, 864)
    whole_channels = WHOLE * 2 * 2

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, 2, 1)
        self.blocks, ends = _inverted_residuals(24, self.STAGES, symmetric=True)
        self._taps = {ends[3], ends[5], ends[6]}  # strides 8, 16 and 32
        stride16, stride32 = self.pyramid_channels[1:]
        self.expand = nn.Conv2d(self.STAGES[-1][3], stride32, 1)
        self.depthwise = nn.Conv2d(stride32, stride32, 3, padding=1, groups=stride32)
        self.lateral8 = _Separable(32, self.PYRAMID)
        self.lateral16 = _Separable(stride16, self.PYRAMID)
        self.lateral32 = _Separable(stride32, self.PYRAMID)
        self.reduce = _Separable(stride32, self.WHOLE)
        steps = (2, 1, 1, 1, 1, 2, 1, 1, 1, 1, 1)
        self.down = nn.Sequential(*(_SeparableResidual(self.WHOLE, step) for step in steps))

    def forward(self, x: torch.Tensor) -> BlazePoseFeatures:
        x = F.relu6(self.stem(x), inplace=True)
        stride8, stride16, x = _maps(self.blocks, x, self._taps)
        stride32 = F.relu6(self.depthwise(F.relu6(self.expand(x), inplace=True)))
        pyramid = F.relu6(self.lateral16(stride16)) + _twice(F.relu6(self.lateral32(stride32)))
        pyramid = F.relu6(self.lateral8(stride8)) + _twice(pyramid)
        whole = self.down(F.relu6(self.reduce(stride32)))
        return BlazePoseFeatures(pyramid, stride16, stride32, whole.flatten(1))


def repeated(features: torch.Tensor) -> torch.Tensor:
    """(N, C, H, W) to (N, C, 2H, 2W), each cell four times."""
    return F.interpolate(features, scale_factor=2, mode="nearest")


def _twice(features: torch.Tensor) -> torch.Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=False)


class _Separable(nn.Module):
    """Depthwise 3x3 and pointwise convolution, ReLU6 between them."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        padding = 1 if stride == 1 else 0
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.stride == 2:
            x = pad_same(x, 3)
        return self.pointwise(F.relu6(self.depthwise(x), inplace=True))


class _SeparableResidual(nn.Module):
    """The above beside a shortcut, which takes the larger of what a stride of 2 skips."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.separable = _Separable(channels, channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = F.max_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        return F.relu6(shortcut + self.separable(x))


# What heads are to a trunk: a stage's number and its features to maps of some kind, and to what is
# added to the features that the next stage begins with (None where there is no next one).
Maps = TypeVar("Maps")
Predict = Callable[[int, torch.Tensor], tuple[Maps, torch.Tensor | None]]


class _PreactivatedBottleneck(nn.Module):
    """Newell et al.'s residual module: batch normalisation and ReLU before each convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        middle = outputs // 2
        self.layers = nn.Sequential(
            *_norm_relu_conv(inputs, middle, 1),
            *_norm_relu_conv(middle, middle, 3),
            *_norm_relu_conv(middle, outputs, 1),
        )
        self.skip = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.skip(x) + self.layers(x)


def _norm_relu_conv(inputs: int, outputs: int, kernel: int) -> list[nn.Module]:
    return [
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2),
    ]


class _Hourglass(nn.Module):
    """Down ``depth`` times and up again, with a skip branch at every resolution."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.skip = _PreactivatedBottleneck(channels, channels)
        self.down = _PreactivatedBottleneck(channels, channels)
        self.inner: nn.Module = (
            _Hourglass(channels, depth - 1)
            if depth > 1
            else _PreactivatedBottleneck(channels, channels)
        )
        self.up = _PreactivatedBottleneck(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.up(self.inner(self.down(F.max_pool2d(x, 2))))
        return self.skip(x) + F.interpolate(y, scale_factor=2, mode="nearest")


class StackedHourglass(nn.Module):
    """Hourglasses in a row, each improving on the maps of the one before (Newell et al. 2016).

    (N, 3, H, W), H and W multiples of 64, to features of stride 4. It needs the heads to run: what
    they predict goes into the next hourglass.
    """

    channels = 256
    DEPTH = 4  # of each hourglass: stride 4 to 64 and back

    def __init__(self, stacks: int) -> None:
        super().__init__()
        channels = self.channels
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            _PreactivatedBottleneck(64, channels // 2),
            nn.MaxPool2d(2),
            _PreactivatedBottleneck(channels // 2, channels // 2),
            _PreactivatedBottleneck(channels // 2, channels),
        )
        self.hourglasses = nn.ModuleList(_Hourglass(channels, self.DEPTH) for _ in range(stacks))
        self.outputs = nn.ModuleList(
            nn.Sequential(
                _PreactivatedBottleneck(channels, channels),
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            )
            for _ in range(stacks)
        )
        self.merges = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(stacks - 1))

    def forward(
        self,
        x: torch.Tensor,
        predict: Predict[Maps],
    ) -> tuple[torch.Tensor, list[Maps]]:
        """
        :param predict: is given each stack's features, (N, 256, H/4, W/4).
        :return: the last stack's features, and the maps of all.
        """
        x = self.stem(x)
        maps: list[Maps] = []
        for index, (hourglass, output) in enumerate(
            zip(self.hourglasses, self.outputs, strict=True)
        ):
            features = output(hourglass(x))
            predicted, feedback = predict(index, features)
            maps.append(predicted)
            if feedback is not None:
                x = x + self.merges[index](features) + feedback
        return features, maps


Trunk = Union["ResNetTrunk", EfficientNetLite0, StackedHourglass]


def run_stages(
    trunk: Trunk, crops: torch.Tensor, predict: Predict[Maps]
) -> tuple[torch.Tensor, list[Maps]]:
    """Features, and maps of each stage: one, but for stacked hourglasses."""
    if isinstance(trunk, StackedHourglass):
        return trunk(crops, predict)
    features = trunk(crops)
    return features, [predict(0, features)[0]]


def _resnet(block: str, layers: list[int]) -> Callable[[], ResNetTrunk]:
    def trunk() -> ResNetTrunk:
        from .resnet import ResNetTrunk  # imports torchvision, which takes seconds

        return ResNetTrunk(block, layers)

    return trunk


TRUNKS: dict[str, Callable[[], Trunk]] = {
    "resnet18": _resnet("BasicBlock", [2, 2, 2, 2]),
    "resnet34": _resnet("BasicBlock", [3, 4, 6, 3]),
    "resnet50": _resnet("Bottleneck", [3, 4, 6, 3]),
    "resnet101": _resnet("Bottleneck", [3, 4, 23, 3]),
    "resnet152": _resnet("Bottleneck", [3, 8, 36, 3]),
    "efficientnet_lite0": EfficientNetLite0,
    "hourglass2": lambda: StackedHourglass(2),
    "hourglass8": lambda: StackedHourglass(8),
}
