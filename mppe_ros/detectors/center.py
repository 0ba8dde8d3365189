"""Our own small detector of one class."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from ..inference import computed_in
from ..runtimes import Argument, Range, Runner
from ..structures import Detections
from ..trunks import EfficientNetLite0, repeated
from .base import IMAGES, LEAST_SIDE_PX, MAX_DETECTIONS, SCORE_THRESHOLD, NetworkDetector


class CenterDetector(nn.Module):
    """One class, one map: where people's box centres are, and how far the box sides are away.

    EfficientNet-Lite0 and a feature pyramid down to stride 8; heatmap of centres as in "Objects
    as Points" (Zhou et al. 2019), distances to the sides as in FCOS (Tian et al. 2019). The 96
    channels and the missing batch normalisation (folded into the convolutions) are those of
    ``resources/open-v0/detect.safetensors``, which was trained on generated people.
    """

    STRIDE = 8  # network px per cell

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        stride8, stride16, stride32 = EfficientNetLite0.pyramid_channels
        self.trunk = EfficientNetLite0()
        self.lateral32 = nn.Sequential(nn.Conv2d(stride32, channels, 1), nn.ReLU())
        self.lateral16 = nn.Conv2d(stride16, channels, 1)
        self.lateral8 = nn.Conv2d(stride8, channels, 1)
        self.mix32 = _conv_relu(channels)
        self.mix16 = _conv_relu(channels)
        self.mix8 = nn.Sequential(_conv_relu(channels), _conv_relu(channels))
        self.head = nn.Conv2d(channels, 5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param x: (B, 3, H, W) RGB, (grey value - 127) / 128, H and W multiples of 32.
        :return: logits of the heatmap (B, H/8, W/8), and distances from the cell's centre to the
            box's left, top, right and bottom side (B, 4, H/8, W/8) in network px; float32.
        """
        stride8, stride16, stride32 = self.trunk.pyramid(x)
        features = self.mix32(self.lateral32(stride32))
        features = self.mix16(F.relu(self.lateral16(stride16) + repeated(features)))
        features = self.mix8(F.relu(self.lateral8(stride8) + repeated(features)))
        maps = self.head(features).float()
        return maps[:, 0], 2 * self.STRIDE * maps[:, 1:].clamp(-4, 4).exp()


def _conv_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())


class _Grey(nn.Module):
    """A :class:`CenterDetector` behind its normalisation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``pixels``: (B, H, W, 3) grey values."""
        maps: tuple[torch.Tensor, torch.Tensor]
        maps = self.network((pixels.float().permute(0, 3, 1, 2) - 127) / 128)
        return maps


class CenterPersons(NetworkDetector):
    """People from a :class:`CenterDetector`.

    :param precision: what torch computes the network in; its maps are float32 again.
    :param run: has it run by something else.
    """

    LONG_SIDE = 384  # network px
    MIN_HEIGHT = 24  # network px: people smaller than this were not trained
    IOU_THRESHOLD = 0.55

    def __init__(
        self,
        network: nn.Module,
        precision: torch.dtype = torch.float32,
        run: Runner | None = None,
    ) -> None:
        grey = _Grey(network)
        if run is not None:
            device = next(network.parameters()).device
            example = torch.zeros(2, 256, 256, 3, dtype=torch.uint8, device=device)
            side = Range(32, self.LONG_SIDE, self.LONG_SIDE, step=32)
            pixels = Argument("pixels", example, {0: IMAGES, 1: side, 2: side})
            super().__init__(run("detector", grey, [pixels], ["heatmap", "distances_px"]))
        else:
            network.to(memory_format=torch.channels_last)
            super().__init__(computed_in(grey, precision))

    def detect(self, batch: torch.Tensor) -> list[Detections]:
        height, width = batch.shape[1:3]
        scale = self.LONG_SIDE / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        heatmaps, distances = self.network(_network_input(batch, size))
        # So few numbers NumPy handles faster than torch.
        maps = zip(heatmaps.cpu().numpy(), distances.cpu().numpy(), strict=True)
        return [
            Detections(*self._select(*decode_centers(*one), size, height, width)) for one in maps
        ]

    def _select(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        size: tuple[int, int],
        height: int,
        width: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One image's (K, 4) corners in network px and (K,) scores, best first, suppressed and
        filtered.

        :return: (M, 4) left, top, width and height in image px, and (M,) scores.
        """
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        # Torch's wakes its threads for the sorting alone, which takes 20 times as long.
        found = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), 0.0, self.IOU_THRESHOLD)
        kept = np.array(found, np.intp)
        boxes, scores = boxes[kept], scores[kept]
        first, last = np.clip(boxes.reshape(-1, 2, 2), 0, size[::-1]).swapaxes(0, 1)
        sides = last - first
        to_image = np.array([width / size[1], height / size[0]])
        boxes = np.concatenate([first * to_image, sides * to_image], 1, dtype=np.float32)
        whole = (sides[:, 1] >= self.MIN_HEIGHT) & (boxes[:, 2] >= LEAST_SIDE_PX)
        return boxes[whole], scores[whole]


def decode_centers(
    heatmap: NDArray[np.float32],
    distances_px: NDArray[np.float32],
    least: float = SCORE_THRESHOLD,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The peaks of :class:`CenterDetector`'s maps of one image, before non-maximum suppression.

    :param heatmap: (H, W) logits.
    :param distances_px: (4, H, W)
    :param least: score of a peak.
    :return: corners (K, 4) in network px and scores (K,), best first, K at most 100. A peak is no
        less than its eight neighbours.
    """
    peaks = heatmap >= cv2.dilate(heatmap, np.ones((3, 3), np.uint8))
    if least > 0:
        peaks &= heatmap > math.log(least / (1 - least))
    rows, columns = peaks.nonzero()
    logits = heatmap[rows, columns]
    best = np.argsort(-logits, kind="stable")[:MAX_DETECTIONS]
    rows, columns = rows[best], columns[best]
    centers = (np.stack([columns, rows], -1) + 0.5) * CenterDetector.STRIDE
    sides = distances_px[:, rows, columns].T
    corners = np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], 1, dtype=np.float32)
    return corners, np.asarray(1 / (1 + np.exp(-logits[best])), np.float32)


def _network_input(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, *size, 3) uint8, padded to multiples of 32 with middle grey."""
    resized, (bottom, right) = resize_area(batch, size), (-side % 32 for side in size)
    return F.pad(resized, (0, 0, 0, right, 0, bottom), value=127) if bottom or right else resized


def resize_area(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, *size, 3) uint8, as OpenCV's INTER_AREA.

    It shrinks by the exact mean over each new pixel's area (torch's "area" mode rounds the area
    to whole pixels, and its antialiasing blurs more than the network was trained with) and
    enlarges bilinearly.
    """
    if size[0] < batch.shape[1] and size[1] < batch.shape[2] and batch.device.type == "cpu":
        # OpenCV itself, which takes a fraction of the time.
        resized = np.empty((len(batch), *size, 3), np.uint8)
        for image, to in zip(batch.numpy(), resized, strict=True):
            cv2.resize(image, size[::-1], dst=to, interpolation=cv2.INTER_AREA)
        return torch.from_numpy(resized)
    if size[0] * size[1] < batch.shape[1] * batch.shape[2]:
        return area_means(batch, size)
    channels_first = batch.permute(0, 3, 1, 2).float()
    enlarged = F.interpolate(channels_first, size, mode="bilinear").round()
    return enlarged.permute(0, 2, 3, 1).to(torch.uint8)


def area_means(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What :func:`resize_area` does to large images, on any device."""
    count, height, width, channels = batch.shape
    rows, columns = _shares(height, size[0], batch.device), _shares(width, size[1], batch.device)
    # Two matrix products: on a GPU they take less time than anything that has more steps.
    shrunk = rows @ batch.reshape(count, height, -1).float()
    means = columns @ shrunk.reshape(count, size[0], width, channels)
    return means.round().to(torch.uint8)


@lru_cache(maxsize=8)  # of a camera's images both are always the same
def _shares(pixels: int, length: int, device: torch.device) -> torch.Tensor:
    """(length, pixels): how much of each of ``length`` equal intervals each pixel fills."""
    step = pixels / length
    start = np.arange(length)[:, None] * step
    pixel = np.arange(pixels)
    inside = np.minimum(start + step, pixel + 1) - np.maximum(start, pixel)
    shares = (inside.clip(min=0) / step).astype(np.float32)
    with torch.inference_mode(False):
        return torch.from_numpy(shares).to(device)
