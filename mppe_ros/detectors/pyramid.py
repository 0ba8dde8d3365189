"""Mask R-CNN's feature pyramid for CPUs: no map is put into another order in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..inference import Room
from ..winograd import Winograd


class FeaturePyramid(nn.Module):
    """What torchvision's ``FeaturePyramidNetwork`` gives (Lin et al. 2017, section 3).

    The lateral convolutions are matrix products, which take a trunk's maps as they lie in memory,
    channels last or not, and give their results channels last; what is above is added to those.

    :param pyramid: whose weights are taken.
    :param precision, room: as of `Winograd`.
    """

    def __init__(self, pyramid: Any, precision: torch.dtype, room: Room) -> None:
        super().__init__()
        self.precision = precision
        laterals = [lateral for (lateral,) in pyramid.inner_blocks]
        self.laterals = nn.ModuleList(_Lateral(lateral, precision) for lateral in laterals)
        blocks = [block for (block,) in pyramid.layer_blocks]
        self.blocks = nn.ModuleList(Winograd(block, precision, room) for block in blocks)
        self.extra = pyramid.extra_blocks

    def forward(self, maps: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        :param maps: (N, C, H, W) each, the finest first, whose sides are multiples of the next's.
        :return: (N, K, H, W) each, and what is above; the next call overwrites them.
        """
        seen, merged = list(maps.values()), list[torch.Tensor]()
        for lateral, one in zip(reversed(self.laterals), reversed(seen), strict=True):
            cells = lateral(one)
            if merged:
                _add_repeated(cells, merged[-1])
            merged.append(cells)
        planes = [cells.permute(0, 3, 1, 2) for cells in reversed(merged)]
        found = [block(one) for block, one in zip(self.blocks, planes, strict=True)]
        if self.extra is None:
            return OrderedDict(zip(maps, found, strict=True))
        found, names = self.extra(found, seen, list(maps))
        return OrderedDict(zip(names, found, strict=True))


class _Lateral(nn.Module):
    """A 1x1 convolution, (N, C, H, W) to (N, H, W, K). The next call overwrites it."""

    factors: torch.Tensor  # (C, K)
    bias: torch.Tensor  # (K,)

    def __init__(self, convolution: nn.Conv2d, precision: torch.dtype) -> None:
        super().__init__()
        assert convolution.kernel_size == (1, 1) and convolution.bias is not None
        weight = convolution.weight.detach().flatten(1)
        self.register_buffer("factors", weight.T.to(precision).contiguous())
        self.register_buffer("bias", convolution.bias.detach().to(precision))
        self._output = Room()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count, _, height, width = x.shape
        results = self._output((count, height, width, len(self.bias)), self.bias.dtype)
        for image, result in zip(x.to(self.bias.dtype), results, strict=True):
            # A view, wherever channels are: the product reads a transposed matrix as well.
            rows = image.permute(1, 2, 0).flatten(0, 1)
            torch.addmm(self.bias, rows, self.factors, out=result.view(-1, len(self.bias)))
        return results


def _add_repeated(cells: torch.Tensor, above: torch.Tensor) -> None:
    """Adds a coarser map to a finer one, in place; both (N, H, W, K)."""
    count, height, width, _ = above.shape
    shape = count, height, cells.shape[1] // height, width, cells.shape[2] // width, -1
    cells.view(shape).add_(above[:, :, None, :, None])
