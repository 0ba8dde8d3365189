"""Boxes, and the crops of them that RootNet and PoseNet see (paper, section 4).

A crop of ``size`` px shows a square box: crop pixel i lies at ``centre + (i - size/2) / size *
side`` in the image, which is the reference release's three-point affine map.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .structures import Array, FloatArray

ENLARGE = 1.25

Boxes = FloatArray | torch.Tensor  # a tensor where gradients are asked for


def process_boxes(
    boxes_xywh_px: npt.ArrayLike, width: int, height: int, enlarge: float = ENLARGE
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Clip boxes to the image, drop empty ones, make them square and enlarge them.

    The arithmetic, its "- 1" included, is the reference release's, whose k-values depend on it.

    :param boxes_xywh_px: (N, 4) left, top, width, height as detected.
    :return: (M, 4) processed boxes, which may leave the image, and (M,) which of the N they are.
    """
    boxes = np.asarray(boxes_xywh_px, np.float64)
    first = np.maximum(boxes[:, :2], 0)
    last = np.minimum(first + np.maximum(boxes[:, 2:] - 1, 0), [width - 1, height - 1])
    side = (last - first).max(1, keepdims=True)
    # Comparisons with NaN are false, so a box that is not a number is dropped as well.
    valid = (boxes[:, 2:] > 0) & (last >= first) & (side > 0)
    kept = valid.all(1).nonzero()[0]
    centre, side = (first[kept] + last[kept]) / 2, side[kept] * enlarge
    return np.concatenate([centre - side / 2, side, side], 1), kept


def to_image(points_px: Array, boxes_xywh_px: Array, size: int) -> Array:
    """Crop pixels to image pixels; of tensors and of arrays.

    :param points_px: (N, ..., 2) in each person's crop of ``size`` px.
    :param boxes_xywh_px: (N, 4) processed boxes.
    """
    scale, centre = _scale_and_centre(boxes_xywh_px, size, points_px.ndim)
    return (points_px - size / 2) * scale + centre


def to_crop(points_px: Array, boxes_xywh_px: Array, size: int) -> Array:
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
    boxes_xywh_px: Boxes,
    image_index: npt.ArrayLike,
    size: int,
    antialias: bool = False,
) -> torch.Tensor:
    """Cut all people out of all images; what lies outside an image is black.

    Equals OpenCV's bilinear ``warpAffine`` of a uint8 image. Differentiable in the boxes, if they
    are a tensor, and in floating-point images.

    :param images: each (H, W, 3), uint8 or floating point, 0..255, on any device; sizes may
        differ.
    :param boxes_xywh_px: (N, 4) processed boxes.
    :param image_index: (N,) which image each box belongs to.
    :param antialias: shrink large people from a matching level of an image pyramid instead of
        skipping pixels. The published networks were trained without.
    :return: (N, 3, size, size) whole grey values 0..255, channels_last: uint8, or floating point
        where the images are or gradients are asked for.
    """
    levels = _pyramid_levels(boxes_xywh_px, size, antialias)
    owners = np.asarray(image_index, np.intp).tolist()
    together: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for row, place in enumerate(zip(owners, levels, strict=True)):
        together[place].append(row)
    if not together:
        return torch.zeros((0, 3, size, size), device=images[0].device if images else None)
    if isinstance(boxes_xywh_px, np.ndarray) and all(map(_fits_opencv, images)):
        # OpenCV itself, which takes a tenth of the time.
        pixels = np.empty((len(boxes_xywh_px), size, size, 3), np.uint8)
        for (index, level), rows in together.items():
            _warp(images[index].numpy(), boxes_xywh_px[rows], level, [pixels[i] for i in rows])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)
    cuts = [
        _sample(images[index], boxes_xywh_px[rows], size, level)
        for (index, level), rows in together.items()
    ]
    order = np.concatenate(list(together.values())).argsort()
    crops = torch.cat(cuts)[order] if len(cuts) > 1 else cuts[0]
    if crops.requires_grad:
        # Networks are trained on whole grey values; gradients pass straight through.
        crops = crops + (crops.round() - crops).detach()
    elif crops.is_floating_point():
        crops = crops.round()
    return crops.contiguous(memory_format=torch.channels_last)


def _pyramid_levels(boxes: Boxes, size: int, antialias: bool) -> list[int]:
    """How often the image is halved that each box is cut from."""
    if not antialias:
        return [0] * len(boxes)
    return [max(0, math.floor(math.log2(side / size))) for side in boxes[:, 2].tolist()]


_OPENCV_MAX_SIDE = 2**15  # of what it warps


def _fits_opencv(image: torch.Tensor) -> bool:
    on_host = image.dtype == torch.uint8 and image.device.type == "cpu"
    return on_host and max(image.shape) < _OPENCV_MAX_SIDE


def _warp(
    image: NDArray[np.uint8], boxes: FloatArray, level: int, crops: Sequence[NDArray[np.uint8]]
) -> None:
    """Fills crops (size, size, 3) with boxes (n, 4) of an image (H, W, 3), from its pyramid's
    ``level``."""
    if level:
        step = 2**level
        bottom, right = (-side % step for side in image.shape[:2])
        if bottom or right:
            image = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")
        shrunk = image.shape[1] // step, image.shape[0] // step
        image = np.asarray(cv2.resize(image, shrunk, interpolation=cv2.INTER_AREA), np.uint8)
    for crop, (x, y, w, h) in zip(crops, boxes.tolist(), strict=True):
        size = len(crop)
        left, top = ((v + 0.5) / 2**level - 0.5 for v in (x, y))
        matrix = np.array([[w / size / 2**level, 0, left], [0, h / size / 2**level, top]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(image, matrix, (size, size), dst=crop, flags=flags)


def _shrink(pixels: torch.Tensor, level: int) -> torch.Tensor:
    if level == 0:
        return pixels
    bottom, right = (-side % 2**level for side in pixels.shape[-2:])
    return F.avg_pool2d(F.pad(pixels, (0, right, 0, bottom), mode="replicate"), 2**level)


def _sample(image: torch.Tensor, boxes: Boxes, size: int, level: int) -> torch.Tensor:
    """(n, 3, size, size) of boxes (n, 4) of an image (H, W, 3), as `_warp`, on any device."""
    pixels = _shrink(image.permute(2, 0, 1)[None].float(), level)
    steps: FloatArray | torch.Tensor = np.arange(size) / size - 0.5
    if isinstance(boxes, torch.Tensor):
        steps = torch.as_tensor(steps, dtype=boxes.dtype, device=boxes.device)
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    x = centre[:, :1] + steps * boxes[:, 2:3]  # (n, size), px of the full image
    y = centre[:, 1:] + steps * boxes[:, 3:4]
    height, width = pixels.shape[-2:]
    # A pixel at level l covers 2^l pixels; grid_sample wants -1 and 1 at the outer pixel centres.
    x, y = ((v + 0.5) / 2**level - 0.5 for v in (x, y))
    x, y = x * (2 / max(width - 1, 1)) - 1, y * (2 / max(height - 1, 1)) - 1
    x, y = (torch.as_tensor(v, dtype=torch.float32, device=pixels.device) for v in (x, y))
    count = len(boxes)
    grid = torch.stack(
        [x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], -1
    )
    # All people of an image in one tall grid: one call, and the image is never copied per person.
    cut = F.grid_sample(
        pixels, grid.reshape(1, count * size, size, 2), mode="bilinear", align_corners=True
    )
    return cut.reshape(3, count, size, size).transpose(0, 1)
