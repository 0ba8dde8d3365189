"""Cheap variations of samples, on top of those that the generator draws.

Geometry is one affine map per crop, done by OpenCV on whole grey values like the crops of a live
camera; light is arithmetic on the whole batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from .config import Augmentation

Image = NDArray[np.uint8]  # (H, W, 3), RGB


@dataclass(frozen=True)
class Move:
    """Where the pixels of a stored crop go."""

    matrix: NDArray[np.float64]  # (2, 3), stored px to network px
    mirrored: bool = False
    zoom: float = 1.0  # side of the square that is shown, relative to the stored one
    small: float = 1.0  # resolution that is left, relative to the network's


def draw_move(
    stored: int, size: int, options: Augmentation, rng: np.random.Generator | None
) -> Move:
    """How a crop of ``stored`` px becomes one of ``size`` px; without ``rng``, resized only.

    Rotation and zoom leave the crop's centre pixel (size/2, as in ``mppe_ros.crops``) in place.
    """
    if rng is None:
        return Move(_matrix(stored, size, 0.0, 1.0, np.zeros(2), mirrored=False))
    mirrored = bool(rng.random() < options.flip)
    angle = rng.normal(0, options.rotate_deg) if rng.random() < options.rotate else 0.0
    angle = float(np.clip(angle, -options.rotate_max_deg, options.rotate_max_deg))
    zoom = _zoom(options, rng)
    shift = rng.normal(0, options.shift, 2) * size
    small = float(rng.uniform(0.25, 0.9)) if rng.random() < options.low_resolution else 1.0
    return Move(_matrix(stored, size, angle, zoom, shift, mirrored), mirrored, zoom, small)


def _zoom(options: Augmentation, rng: np.random.Generator) -> float:
    if options.zoom_spread:
        return 1 + options.zoom_spread * float(np.clip(rng.normal(), -1, 1))
    return float(rng.uniform(*options.zoom))


def _matrix(
    stored: int, size: int, degrees: float, zoom: float, shift: NDArray[np.float64], mirrored: bool
) -> NDArray[np.float64]:
    scale = size / stored / zoom
    cos, sin = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    linear = np.array([[cos, -sin], [sin, cos]])
    offset = size / 2 + shift - linear @ np.full(2, stored / 2)
    matrix = np.column_stack([linear, offset])
    if mirrored:  # as tensor.flip does it: pixel i becomes size - 1 - i
        matrix[0] = -matrix[0]
        matrix[0, 2] += size - 1
    return matrix


def warp(image: Image, move: Move, size: int) -> Image:
    """Move a stored crop's pixels; what lies outside is black."""
    moved = cv2.warpAffine(image, move.matrix, (size, size), flags=cv2.INTER_LINEAR)
    if move.small < 1:
        few = max(8, round(size * move.small))
        moved = cv2.resize(moved, (few, few), interpolation=cv2.INTER_AREA)
        moved = cv2.resize(moved, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(moved, np.uint8)


# ---------------------------------------------------------------- light


def vary_light(
    pixels: torch.Tensor, options: Augmentation, rng: np.random.Generator
) -> torch.Tensor:
    """Vary colours, sharpness and noise, and erase rectangles.

    :param pixels: (N, 3, H, W) grey values 0..255, changed in place.
    :return: the same, still 0..255.
    """
    generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    count = len(pixels)
    outside = pixels.amax(1, keepdim=True) == 0  # of the camera's image: black in any light

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    def chosen(share: float) -> torch.Tensor:
        return (torch.rand(count, generator=generator) < share).nonzero()[:, 0]

    if options.colour:
        pixels *= 1 + options.colour * (2 * torch.rand((count, 3, 1, 1), generator=generator) - 1)
    gain = normal(count, 1, 1, 1) * options.gain + normal(count, 3, 1, 1) * (options.gain / 3)
    pixels.mul_(gain.exp()).add_(normal(count, 1, 1, 1) * options.bias)
    if len(some := chosen(options.saturation)):
        grey = pixels[some].mean(1, keepdim=True)
        strength = torch.rand((len(some), 1, 1, 1), generator=generator) * 1.6
        pixels[some] = grey + (pixels[some] - grey) * strength
    if len(some := chosen(options.blur)):
        pixels[some] = F.avg_pool2d(pixels[some], 3, 1, 1, count_include_pad=False)
    if len(some := chosen(options.noise)):
        sigma = torch.rand((len(some), 1, 1, 1), generator=generator) * options.noise_grey
        pixels[some] += normal(*pixels[some].shape) * sigma
    for index in chosen(options.erase).tolist():
        _erase(pixels[index], rng, generator)
    if options.occlude:
        for index in chosen(options.occlude).tolist():
            _occlude(pixels[index], rng, generator)
    return pixels.clamp_(0, 255).masked_fill_(outside, 0)


def _erase(image: torch.Tensor, rng: np.random.Generator, generator: torch.Generator) -> None:
    """Cover a rectangle of up to two fifths of the sides (Zhong et al. 2017)."""
    height, width = image.shape[1:]
    h, w = (max(1, int(side * rng.uniform(0.08, 0.4))) for side in (height, width))
    top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
    colour = torch.rand((3, 1, 1), generator=generator) * 255
    if rng.random() < 0.3:
        colour = torch.rand((3, h, w), generator=generator) * 255
    image[:, top : top + h, left : left + w] = colour


def _occlude(image: torch.Tensor, rng: np.random.Generator, generator: torch.Generator) -> None:
    """Cover up to seven tenths of the crop by noise, as the reference release does."""
    height, width = image.shape[1:]
    while True:
        area, ratio = rng.uniform(0, 0.7) * height * width, rng.uniform(0.3, 1 / 0.3)
        h, w = int(math.sqrt(area * ratio)), int(math.sqrt(area / ratio))
        if h < height and w < width:
            break
    top, left = int(rng.integers(height - h)), int(rng.integers(width - w))
    noise = torch.rand((3, h, w), generator=generator) * 255
    image[:, top : top + h, left : left + w] = noise


# ---------------------------------------------------------------- windows of scenes


@dataclass(frozen=True)
class Window:
    """The part of a picture that is shown: left, top, width, height, px."""

    left: int
    top: int
    width: int
    height: int


def draw_window(
    shape: tuple[int, int],
    size: tuple[int, int],
    part: tuple[float, float],
    boxes: NDArray[np.float32],
    rng: np.random.Generator | None,
) -> Window:
    """A window of the shape of ``size``; without ``rng`` the largest, in the middle.

    Three of four show the middle of somebody, if there is anybody; the others lie anywhere.

    :param shape: of the picture, height and width; ``size`` is width and height.
    :param part: smallest and largest share of the largest possible window's sides.
    :param boxes: (P, 5) corners and kind.
    """
    height, width = shape
    largest = min(width / size[0], height / size[1])
    scale = largest * (1.0 if rng is None else rng.uniform(*part))
    w, h = round(size[0] * scale), round(size[1] * scale)
    if rng is None:
        return Window((width - w) // 2, (height - h) // 2, w, h)
    low, high = np.zeros(2), np.array([width - w, height - h], np.float64)
    if len(boxes) and rng.random() < 0.75:
        box = boxes[rng.integers(len(boxes))]
        middle = (box[:2] + box[2:4]) / 2
        low, high = np.clip(middle - [w, h], low, high), np.clip(middle, low, high)
    left, top = rng.uniform(low, high).round().astype(int).tolist()
    return Window(left, top, w, h)


def cut(picture: Image, window: Window, size: tuple[int, int]) -> Image:
    """The window's pixels at ``size`` (width, height)."""
    rows = slice(window.top, window.top + window.height)
    columns = slice(window.left, window.left + window.width)
    shrinks = window.width > size[0]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(picture[rows, columns], size, interpolation=how), np.uint8)


def cut_boxes(
    boxes: NDArray[np.float32], window: Window, size: tuple[int, int], min_box_px: int
) -> NDArray[np.float32]:
    """Boxes (P, 5) (corners, kind) as seen in a window, in its px after resizing.

    Little of a person left, or too small: kind 2, to be ignored. Nothing left: gone.
    """
    moved = boxes.copy()
    moved[:, [0, 2]] = (boxes[:, [0, 2]] - window.left) * (size[0] / window.width)
    moved[:, [1, 3]] = (boxes[:, [1, 3]] - window.top) * (size[1] / window.height)
    whole = np.prod(moved[:, 2:4] - moved[:, :2], axis=1)
    moved[:, :4] = np.clip(moved[:, :4], 0, [*size, *size])
    sides = moved[:, 2:4] - moved[:, :2]
    hardly = np.prod(sides, axis=1) < 0.15 * whole
    moved[hardly | (sides.min(axis=1) < min_box_px), 4] = 2
    return moved[sides.min(axis=1) >= 1]
