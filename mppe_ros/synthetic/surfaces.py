"""Colours, materials and procedural textures."""

from __future__ import annotations

import functools
from enum import IntEnum
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from .kernel import MATERIAL

TEXTURE_SIZE = 512
Texture = NDArray[np.uint8]  # (TEXTURE_SIZE, TEXTURE_SIZE, 3), sRGB, repeats without seams


class Pattern(IntEnum):
    """What a material's colours do; the numbers are kernel.c's."""

    PLAIN = 0
    STRIPES = 1  # across the body's height
    BARS = 2  # along it
    CHECKS = 3
    BLOTCHES = 4
    IMAGE = 5


def linear(srgb: ArrayLike) -> NDArray[np.float64]:
    """Turn sRGB values 0..1 into linear light."""
    srgb = np.clip(np.asarray(srgb, np.float64), 0, 1)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def encoded(rgb: NDArray[Any]) -> NDArray[np.uint8]:
    """Turn linear light into sRGB bytes; highlights above 0.8 roll off softly to white."""
    rgb = np.maximum(rgb, 0)
    bright = rgb > 0.8
    rgb[bright] = 0.8 + 0.2 * (1 - np.exp(-(rgb[bright] - 0.8) / 0.2))
    srgb = np.where(rgb <= 0.0031308, rgb * 12.92, 1.055 * rgb ** (1 / 2.4) - 0.055)
    return np.asarray(np.clip(srgb * 255 + 0.5, 0, 255), np.uint8)


def material(
    srgb: ArrayLike,
    second: ArrayLike | None = None,
    pattern: Pattern = Pattern.PLAIN,
    per_metre: tuple[float, float] = (1.0, 1.0),
    threshold: float = 0.5,
    wrinkles: float = 0.0,
    wrinkles_per_metre: float = 18.0,
    specular: float = 0.0,
    shininess: float = 20.0,
    wrap: float = 0.1,
    texture: int = 0,
) -> NDArray[Any]:
    """Make one material: a record of kernel.MATERIAL.

    :param srgb: (3,), 0..1, first colour (a factor for images).
    :param second: (3,), second colour; default the first.
    :param per_metre: periods of the pattern across and along.
    :param threshold: share of the first colour.
    """
    record = np.zeros((), MATERIAL)
    record["color"] = linear(srgb)
    record["second_color"] = linear(srgb if second is None else second)
    record["scale"] = per_metre
    for name, value in (
        ("threshold", threshold),
        ("bump", wrinkles),
        ("bump_scale", wrinkles_per_metre),
        ("specular", specular),
        ("shininess", shininess),
        ("wrap", wrap),
        ("pattern", int(pattern)),
        ("texture", texture),
    ):
        record[name] = value
    return record


# ---- people -------------------------------------------------------------------------------------

SKIN_TONES = (
    np.array(
        [
            [244, 208, 187],
            [233, 190, 165],
            [224, 172, 138],
            [198, 142, 108],
            [164, 110, 78],
            [130, 84, 58],
            [92, 60, 44],
            [240, 200, 172],
        ]
    )
    / 255
)
HAIR_TONES = (
    np.array(
        [
            [22, 19, 18],
            [38, 27, 22],
            [66, 44, 30],
            [96, 66, 42],
            [150, 112, 68],
            [190, 152, 100],
            [120, 118, 116],
            [200, 198, 194],
            [104, 52, 28],
        ]
    )
    / 255
)
# Dyes that clothes are sold in, from dark to light.
CLOTH_TONES = (
    np.array(
        [
            [28, 29, 32],
            [34, 40, 62],
            [52, 56, 60],
            [44, 62, 96],
            [70, 88, 120],
            [96, 36, 42],
            [168, 44, 46],
            [58, 78, 58],
            [92, 98, 66],
            [132, 116, 84],
            [176, 158, 122],
            [208, 196, 170],
            [120, 124, 128],
            [170, 174, 178],
            [232, 232, 228],
            [196, 150, 58],
            [52, 112, 122],
            [112, 158, 190],
            [176, 204, 224],
            [206, 140, 140],
            [112, 76, 120],
            [196, 96, 48],
        ]
    )
    / 255
)
TROUSER_TONES = CLOTH_TONES[[0, 1, 2, 3, 3, 4, 8, 9, 10, 12]]
SHOE_TONES = CLOTH_TONES[[0, 0, 2, 9, 12, 14, 5]] * 0.9


def draw_skin(rng: np.random.Generator) -> NDArray[Any]:
    """Draw a skin material."""
    tone = SKIN_TONES[rng.integers(len(SKIN_TONES))] * rng.uniform(0.92, 1.04)
    tone = tone * rng.uniform(0.98, 1.02, 3)
    return material(
        tone,
        tone * [1.0, 0.93, 0.9],
        Pattern.BLOTCHES,
        (14, 14),
        specular=0.06,
        shininess=12,
        wrap=0.25,
    )


def draw_hair(rng: np.random.Generator, age_years: float) -> NDArray[Any]:
    """Draw a hair material; the old are grey."""
    grey = rng.random() < np.clip((age_years - 45) / 30, 0, 0.9)
    choice = (
        rng.choice([6, 7])
        if grey
        else rng.choice([0, 1, 2, 3, 4, 5, 8], p=[0.24, 0.24, 0.18, 0.14, 0.1, 0.05, 0.05])
    )
    tone = HAIR_TONES[choice] * rng.uniform(0.85, 1.1)
    return material(
        tone,
        tone * 0.8,
        Pattern.BLOTCHES,
        (130, 18),
        wrinkles=0.4,
        wrinkles_per_metre=70,
        specular=0.12,
        shininess=25,
        wrap=0.2,
    )


def draw_cloth(
    rng: np.random.Generator,
    tones: NDArray[Any] = CLOTH_TONES,
    plain: float = 0.62,
    textures: int = 0,
) -> NDArray[Any]:
    """Draw a cloth: dyes, patterns, wrinkles.

    :param plain: share without a pattern.
    :param textures: number of the first prints in the texture stack that cloth may carry.
    """
    first, second = (
        np.clip(tones[rng.integers(len(tones))] * rng.uniform(0.85, 1.12, 3), 0, 1)
        for _ in range(2)
    )
    woven = functools.partial(
        material,
        wrinkles=float(rng.uniform(0.15, 0.9)),
        wrinkles_per_metre=float(rng.uniform(10, 26)),
        wrap=0.15,
        specular=0.0 if rng.random() < 0.8 else float(rng.uniform(0.03, 0.2)),
    )
    if rng.random() < plain:
        grain = float(rng.uniform(40, 250))
        return woven(first, first * rng.uniform(0.8, 1.0), Pattern.BLOTCHES, (grain, grain))
    if textures and rng.random() < 0.45:
        size = float(rng.uniform(0.8, 6))
        picture = int(rng.integers(textures))
        return woven([1, 1, 1], None, Pattern.IMAGE, (size, size), texture=picture)
    patterns = [Pattern.STRIPES, Pattern.BARS, Pattern.CHECKS, Pattern.BLOTCHES]
    pattern = patterns[rng.integers(len(patterns))]
    scale = float(rng.uniform(5, 32))
    return woven(first, second, pattern, (scale, scale), float(rng.uniform(0.25, 0.8)))


# ---- textures -----------------------------------------------------------------------------------


def mipmaps(textures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Prepare textures for the renderer: each becomes a chain of halvings.

    :param textures: (T, S, S, 3), S = TEXTURE_SIZE.
    :return: (T, texels, 3), largest first, down to one texel.
    """
    chains = []
    for texture in textures:
        levels, size = [texture], TEXTURE_SIZE // 2
        while size > 0:
            levels.append(cv2.resize(texture, (size, size), interpolation=cv2.INTER_AREA))
            size //= 2
        chains.append(np.concatenate([level.reshape(-1, 3) for level in levels]))
    return np.stack(chains)


def tiling_noise(rng: np.random.Generator, cells: tuple[int, int], octaves: int) -> NDArray[Any]:
    """Smooth noise (S, S) of mean 0 and about unit spread that repeats without seams."""
    total = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE))
    for octave in range(octaves):
        rows, columns = (min(c << octave, TEXTURE_SIZE) for c in cells)
        grid = np.pad(rng.normal(size=(rows, columns)), 2, mode="wrap")
        size = tuple(TEXTURE_SIZE + 4 * TEXTURE_SIZE // n for n in (columns, rows))
        image = cv2.resize(grid, size, interpolation=cv2.INTER_CUBIC)
        top, left = 2 * TEXTURE_SIZE // rows, 2 * TEXTURE_SIZE // columns
        total += image[top : top + TEXTURE_SIZE, left : left + TEXTURE_SIZE] / 2**octave
    return np.asarray(total / max(float(total.std()), 1e-9))


def _coloured(tone: ArrayLike, brightness: NDArray[Any]) -> Texture:
    values = np.asarray(tone) * (1 + brightness[..., None]) * 255
    return np.asarray(np.clip(values, 0, 255), np.uint8)


def wood_planks(rng: np.random.Generator, tone: ArrayLike, planks: int = 6) -> Texture:
    """Floorboards along the rows."""
    height = TEXTURE_SIZE // planks
    image = np.zeros((TEXTURE_SIZE, TEXTURE_SIZE))
    grain = tiling_noise(rng, (64, 3), 2)
    for plank in range(planks):
        top = plank * height
        bottom = TEXTURE_SIZE if plank == planks - 1 else top + height
        rows = slice(top, bottom)
        image[rows] = np.roll(grain, rng.integers(TEXTURE_SIZE), 1)[rows] * 0.05
        joint = rng.integers(TEXTURE_SIZE)
        image[rows] += np.roll(
            np.where(np.arange(TEXTURE_SIZE) < TEXTURE_SIZE // 2, *rng.normal(0, 0.07, 2)), joint
        )
        image[rows, joint] -= 0.25
        image[rows, (joint + TEXTURE_SIZE // 2) % TEXTURE_SIZE] -= 0.25
        image[top : top + 2] -= 0.3
    return _coloured(tone, image)


def tiles(
    rng: np.random.Generator,
    tone: ArrayLike,
    across: int = 4,
    joint: float = -0.3,
    rows_shift: bool = False,
) -> Texture:
    """Square tiles, or bricks when every second row is shifted."""
    count_y = across * 3 if rows_shift else across
    y, x = np.mgrid[:TEXTURE_SIZE, :TEXTURE_SIZE]
    row = y * count_y // TEXTURE_SIZE
    shift = (row % 2) * TEXTURE_SIZE // (2 * across) if rows_shift else 0
    column = ((x + shift) % TEXTURE_SIZE) * across // TEXTURE_SIZE
    shade = rng.normal(0, 0.06 if rows_shift else 0.025, (count_y, across))
    image = shade[row, column] + 0.03 * tiling_noise(rng, (16, 16), 3)
    width = 5 if rows_shift else 4
    edge_x = ((x + shift) % TEXTURE_SIZE) % (TEXTURE_SIZE // across) < width
    edge_y = y % (TEXTURE_SIZE // count_y) < width
    image[edge_x | edge_y] = joint
    return _coloured(tone, image)


def rough(rng: np.random.Generator, tone: ArrayLike, contrast: float = 0.06) -> Texture:
    """Concrete, plaster, asphalt, carpet, grass: noise of many sizes."""
    coarse = tiling_noise(rng, (3, 3), 4)
    fine = tiling_noise(rng, (128, 128), 1)
    return _coloured(tone, contrast * (coarse * 0.6 + fine * rng.uniform(0.3, 1.0)))


def poster(rng: np.random.Generator) -> Texture:
    """A picture of nothing: coloured shapes, for walls, screens and printed cloth."""
    image = np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), CLOTH_TONES[rng.integers(22)] * 255)
    for _ in range(int(rng.integers(2, 14))):
        colour = tuple(float(c) for c in CLOTH_TONES[rng.integers(len(CLOTH_TONES))] * 255)
        centre = tuple(int(c) for c in rng.integers(0, TEXTURE_SIZE, 2))
        size = tuple(int(s) for s in rng.integers(6, TEXTURE_SIZE // 2, 2))
        if rng.random() < 0.4:
            cv2.ellipse(image, centre, size, float(rng.uniform(0, 180)), 0, 360, colour, -1)
        elif rng.random() < 0.7:
            corner = (centre[0] + size[0], centre[1] + size[1])
            cv2.rectangle(image, centre, corner, colour, -1)
        else:
            end = tuple(int(c) for c in rng.integers(0, TEXTURE_SIZE, 2))
            cv2.line(image, centre, end, colour, int(rng.integers(2, 24)), cv2.LINE_AA)
    return np.asarray(np.clip(image, 0, 255), np.uint8)
