"""Boxes, and the crops of them that RootNet and PoseNet see (paper, section 4).

A crop of ``size`` px shows a square box: crop pixel i lies at ``centre + (i - size/2) / size *
side`` in the image, which is the reference release's three-point affine map. All functions work on
any device and are differentiable in the box and in a floating-point image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .structures import Array

ENLARGE = 1.25


def process_boxes(
    boxes_xywh_px: torch.Tensor, width: int, height: int, enlarge: float = ENLARGE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clip boxes to the image, drop empty ones, make them square and enlarge them.

    The arithmetic, its "- 1" included, is the reference release's, whose k-values depend on it.

    :param boxes_xywh_px: (N, 4) left, top, width, height as detected.
    :return: (M, 4) processed boxes, which may leave the image, and (M,) which of the N they are.
    """
    x, y, w, h = boxes_xywh_px.unbind(-1)
    x1, y1 = x.clamp(min=0), y.clamp(min=0)
    x2 = (x1 + (w - 1).clamp(min=0)).clamp(max=width - 1)
    y2 = (y1 + (h - 1).clamp(min=0)).clamp(max=height - 1)
    side = torch.maximum(x2 - x1, y2 - y1)
    # Comparisons with NaN are false, so a box that is not a number is dropped as well.
    valid = (w > 0) & (h > 0) & (x2 >= x1) & (y2 >= y1) & (side > 0)
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    side = side * enlarge
    square = torch.stack([centre_x - side / 2, centre_y - side / 2, side, side], -1)
    kept = valid.nonzero()[:, 0]
    return square[kept], kept


def to_image(points_px: Array, boxes_xywh_px: Array, size: int) -> Array:
    """Crop pixels to image pixels; of tensors and of arrays.

    :param points_px: (N, ..., 2) in each person's crop of ``size`` px.
    :param boxes_xywh_px: (N, 4) processed boxes.
    """
    scale, centre = _scale_and_centre(boxes_xywh_px, size, points_px.ndim)
    return (points_px - size / 2) * scale + centre


def to_crop(points_px: torch.Tensor, boxes_xywh_px: torch.Tensor, size: int) -> torch.Tensor:
    """Image pixels to crop pixels; the inverse of :func:`to_image`."""
    scale, centre = _scale_and_centre(boxes_xywh_px, size, points_px.ndim)
    return (points_px - centre) / scale + size / 2


def _scale_and_centre(boxes: Array, size: int, ndim: int) -> tuple[Array, Array]:
    shape = (len(boxes), *[1] * (ndim - 2), 2)
    scale = boxes[:, 2:] / size
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    return scale.reshape(shape), centre.reshape(shape)


def crop_people(
    images: Sequence[torch.Tensor],
    boxes_xywh_px: torch.Tensor,
    image_index: torch.Tensor,
    size: int,
    antialias: bool = False,
) -> torch.Tensor:
    """Cut all people out of all images; what lies outside an image is black.

    Equals OpenCV's bilinear ``warpAffine`` of a uint8 image.

    :param images: each (H, W, 3), uint8 or floating point, 0..255; sizes may differ.
    :param boxes_xywh_px: (N, 4) processed boxes.
    :param image_index: (N,) which image each box belongs to.
    :param antialias: shrink large people from a matching level of an image pyramid instead of
        skipping pixels. The published networks were trained without.
    :return: (N, 3, size, size) whole grey values 0..255, channels_last: uint8, or floating point
        where the images are or gradients are asked for.
    """
    cuts, rows = [], []
    for index, image in enumerate(images):
        of_image = (image_index == index).nonzero()[:, 0]
        boxes = boxes_xywh_px[of_image]
        for level, of_level in _pyramid_levels(boxes, size, antialias):
            cuts.append(_cut(image, boxes[of_level], size, level))
            rows.append(of_image[of_level])
    if not cuts:
        return boxes_xywh_px.new_zeros((0, 3, size, size))
    crops = torch.cat(cuts)[torch.cat(rows).argsort()] if len(cuts) > 1 else cuts[0]
    if crops.is_floating_point():
        # Networks are trained on whole grey values; gradients pass straight through.
        crops = crops + (crops.round() - crops).detach()
    return crops.contiguous(memory_format=torch.channels_last)


def _pyramid_levels(
    boxes: torch.Tensor, size: int, antialias: bool
) -> list[tuple[int, torch.Tensor]]:
    """Which boxes are cut from which halving of the image: [(level, indices)]."""
    if len(boxes) == 0:
        return []
    if not antialias:
        return [(0, torch.arange(len(boxes), device=boxes.device))]
    sides = boxes[:, 2].detach().tolist()
    levels = [max(0, math.floor(math.log2(side / size))) for side in sides]
    return [
        (level, torch.tensor([i for i, of in enumerate(levels) if of == level]).to(boxes.device))
        for level in sorted(set(levels))
    ]


def _cut(image: torch.Tensor, boxes: torch.Tensor, size: int, level: int) -> torch.Tensor:
    """(n, 3, size, size) out of an image (H, W, 3), from its pyramid's ``level``."""
    plain = image.dtype == torch.uint8 and not boxes.requires_grad
    if plain and image.device.type == "cpu" and max(image.shape) < _OPENCV_MAX_SIDE:
        # OpenCV itself, which takes a tenth of the time.
        return torch.from_numpy(_warp(image.numpy(), boxes, size, level)).permute(0, 3, 1, 2)
    pixels = image.permute(2, 0, 1)[None].to(boxes.dtype)
    return _sample(_shrink(pixels, level), boxes, size, level)


_OPENCV_MAX_SIDE = 2**15  # of what it warps


def _warp(
    image: NDArray[np.uint8], boxes: torch.Tensor, size: int, level: int
) -> NDArray[np.uint8]:
    """(H, W, 3) and (n, 4) boxes to (n, size, size, 3)."""
    if level:
        step = 2**level
        bottom, right = (-side % step for side in image.shape[:2])
        if bottom or right:
            image = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")
        shrunk = image.shape[1] // step, image.shape[0] // step
        image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    crops = np.empty((len(boxes), size, size, 3), np.uint8)
    for crop, (x, y, w, h) in zip(crops, boxes.detach().double().tolist(), strict=True):
        left, top = ((v + 0.5) / 2**level - 0.5 for v in (x, y))
        matrix = np.array([[w / size / 2**level, 0, left], [0, h / size / 2**level, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(image, matrix, (size, size), dst=crop, flags=flags)
    return crops


def _shrink(pixels: torch.Tensor, level: int) -> torch.Tensor:
    if level == 0:
        return pixels
    bottom, right = (-side % 2**level for side in pixels.shape[-2:])
    return F.avg_pool2d(F.pad(pixels, (0, right, 0, bottom), mode="replicate"), 2**level)


def _sample(pixels: torch.Tensor, boxes: torch.Tensor, size: int, level: int) -> torch.Tensor:
    """(1, 3, H, W) at pyramid ``level`` and (n, 4) boxes to (n, 3, size, size)."""
    steps = torch.arange(size, device=boxes.device, dtype=boxes.dtype) / size - 0.5
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    x = centre[:, :1] + steps * boxes[:, 2:3]  # (n, size), px of the full image
    y = centre[:, 1:] + steps * boxes[:, 3:4]
    height, width = pixels.shape[-2:]
    # A pixel at level l covers 2^l pixels; grid_sample wants -1 and 1 at the outer pixel centres.
    x, y = ((v + 0.5) / 2**level - 0.5 for v in (x, y))
    x, y = x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1
    count = len(boxes)
    grid = torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1
    )
    # All people of an image in one tall grid: one call, and the image is never copied per person.
    cut = F.grid_sample(
        pixels, grid.reshape(1, count * size, size, 2), mode="bilinear", align_corners=True
    )
    return cut.reshape(3, count, size, size).transpose(0, 1)
