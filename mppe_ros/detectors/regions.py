"""Mask R-CNN's layers of regions for CPUs: all channels of a cell at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..inference import Room
from ..winograd import Winograd


class ProposalHead(nn.Module):
    """torchvision's ``RPNHead`` of one convolution, all of whose outputs are one matrix product.

    :param head: whose weights are taken.
    :param precision, room: as of `Winograd`.
    """

    def __init__(self, head: Any, precision: torch.dtype, room: Room) -> None:
        super().__init__()
        ((convolution, _),) = head.conv
        ends = head.cls_logits, head.bbox_pred
        counts = [end.out_channels for end in ends]
        used = sum(counts)
        # As many as a vector has: one less takes twice as long.
        whole = -(-used // _LANES) * _LANES
        both = nn.Linear(convolution.out_channels, whole).requires_grad_(False)
        both.weight[:used] = torch.cat([end.weight.flatten(1) for end in ends])
        both.bias[:used] = torch.cat([end.bias for end in ends])
        self._counts = [*counts, whole - used]
        self.layers = Winograd(convolution, precision, room, both)

    def forward(
        self, maps: Sequence[torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """
        :return: logits and deltas of each map's anchors, float32.
        """
        logits: list[torch.Tensor] = []
        deltas: list[torch.Tensor] = []
        for one in maps:
            parts = self.layers(one).split(self._counts, dim=1)[:2]
            # The next map's overwrite them.
            for several, part in zip((logits, deltas), parts, strict=True):
                several.append(part.clone(memory_format=torch.channels_last))
        return logits, deltas


class RegionPool(nn.Module):
    """What torchvision's ``MultiScaleRoIAlign`` gives, in a fraction of its time on a CPU.

    A bin of a region is the mean of some points of a map, each between four cells (He et al. 2017,
    section 3): a weighted sum of cells, which ``embedding_bag`` takes from a table of them, with
    all threads. torchvision goes through each channel's map anew, on one thread.

    :param pool: whose maps, sizes and rule for levels are taken.
    :param precision: of maps, weights and results; the sums are float32.
    """

    def __init__(self, pool: Any, precision: torch.dtype = torch.float32) -> None:
        super().__init__()
        self._names: list[str] = pool.featmap_names
        self.output_size: tuple[int, int] = tuple(pool.output_size)
        self._samples: int = pool.sampling_ratio  # points along each side of a bin
        self._usual_px: float = pool.canonical_scale  # a region's side that belongs to
        self._usual_level: int = pool.canonical_level  # this level, whose cells have 2^level px
        self._precision = precision
        self._cells, self._pooled = Room(), Room()

    def forward(
        self,
        maps: Mapping[str, torch.Tensor],
        boxes: Sequence[torch.Tensor],
        image_sizes: Sequence[tuple[int, int]],
    ) -> torch.Tensor:
        """
        :param maps: (B, C, H, W) each, the finest first.
        :param boxes: (R, 4) corners in each image, px, inside it.
        :param image_sizes: height and width of each, px.
        :return: (R of all images, C, *output_size), channels_last; the next call overwrites it.
        """
        chosen = [maps[name] for name in self._names if name in maps]
        corners, image = torch.cat(list(boxes)), _owners(boxes)
        height = max(size[0] for size in image_sizes)
        strides = torch.tensor([2.0 ** _log2(height / one.shape[2]) for one in chosen])
        level = self._levels(corners, _log2(strides[0].item()), len(chosen))
        # Where each image's part of each map begins in the table.
        heights, widths = torch.tensor([one.shape[2:] for one in chosen]).T
        areas = heights * widths
        starts = (areas.cumsum(0) - areas)[level] * len(boxes) + image * areas[level]
        table = self._table_of(chosen)
        scaled = corners / strides[level, None]
        columns, x_weights = self._neighbours(scaled[:, 0::2], widths[level], self.output_size[1])
        rows, y_weights = self._neighbours(scaled[:, 1::2], heights[level], self.output_size[0])
        rows = rows * widths[level, None, None] + starts[:, None, None]
        # (R, rows, columns of bins, rows, columns of cells around a bin's points)
        cells = rows[:, :, None, :, None] + columns[:, None, :, None, :]
        weights = y_weights[:, :, None, :, None] * x_weights[:, None, :, None, :]
        around = (2 * self._samples) ** 2
        cells = cells.reshape(-1, around)
        weights = weights.to(self._precision).reshape(-1, around)
        pooled = self._pooled((len(cells), table.shape[1]), self._precision)
        # In portions: memory for all at once would be got from the system each time.
        portions = (tensor.split(_BINS_AT_ONCE) for tensor in (pooled, cells, weights))
        for result, indices, shares in zip(*portions, strict=True):
            bags = F.embedding_bag(indices, table, per_sample_weights=shares, mode="sum")
            result.copy_(bags)
        shape = len(corners), *self.output_size, table.shape[1]
        return pooled.view(shape).permute(0, 3, 1, 2)

    def _table_of(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """(cells of all maps, C); the next call overwrites it."""
        parts = [one.permute(0, 2, 3, 1).flatten(0, 2) for one in maps]
        lengths = list(map(len, parts))
        table = self._cells((sum(lengths), parts[0].shape[1]), self._precision)
        for rows, part in zip(table.split(lengths), parts, strict=True):
            rows.copy_(part)  # `torch.cat` takes ten times as long where types differ
        return table

    def _levels(self, corners: torch.Tensor, finest: int, count: int) -> torch.Tensor:
        """(R,) index of the map for each region (Lin et al. 2017, equation 1)."""
        sides = (corners[:, 2:] - corners[:, :2]).prod(1).sqrt()
        levels = self._usual_level + (sides / self._usual_px).log2() + _LEVEL_TOLERANCE
        return levels.floor().clamp(finest, finest + count - 1).long() - finest

    def _neighbours(
        self, ends: torch.Tensor, lengths: torch.Tensor, bins: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The cells around a bin's points along one side of regions, and their weights.

        :param ends: (R, 2) of the regions, in cells.
        :param lengths: (R,) of the maps.
        :return: (R, bins, 2 * samples), both.
        """
        count = bins * self._samples
        steps = (torch.arange(count) + 0.5) / count
        sides = (ends[:, 1:] - ends[:, :1]).clamp(min=1)
        last = lengths[:, None] - 1
        points = (ends[:, :1] + sides * steps).clamp(min=0)
        # Regions of less than a cell are taken for larger, and may reach beyond the map.
        share = (points <= lengths[:, None]) / self._samples
        points = torch.minimum(points, last)
        before = points.floor()
        cells = torch.stack([before, torch.minimum(before + 1, last)], -1).long()
        behind = points - before
        weights = torch.stack([1 - behind, behind], -1) * share[..., None]
        shape = -1, bins, 2 * self._samples
        return cells.reshape(shape), weights.reshape(shape)


_LEVEL_TOLERANCE = 1e-6  # torchvision's
_BINS_AT_ONCE = 2**13  # 4 or 8 MB of sums
_LANES = 16  # numbers in a vector of float32


def _log2(ratio: float) -> int:
    return round(math.log2(ratio))


def _owners(boxes: Sequence[torch.Tensor]) -> torch.Tensor:
    """Index of the image of each region."""
    return torch.repeat_interleave(torch.tensor([len(rows) for rows in boxes]))


class RegionHead(nn.Module):
    """Fast R-CNN's two hidden layers, for features whose channels are last in memory.

    :param head: torchvision's; its first layer's weights are put in another order.
    :param size: of regions, cells.
    """

    def __init__(self, head: Any, size: tuple[int, int]) -> None:
        super().__init__()
        weight = head.fc6.weight.unflatten(1, (-1, *size)).permute(0, 2, 3, 1).flatten(1)
        head.fc6.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.layers = nn.Sequential(head.fc6, nn.ReLU(), head.fc7, nn.ReLU())

    def forward(self, regions: torch.Tensor) -> torch.Tensor:
        """(R, C, H, W) to (R, F)."""
        features: torch.Tensor = self.layers(regions.permute(0, 2, 3, 1).flatten(1))
        return features
