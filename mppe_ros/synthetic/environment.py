"""Light from all around: panoramas as backgrounds, their light as harmonics and a sun."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float32]

# Normalisation of kernel.c's nine basis functions, times the cosine lobe's transfer over pi.
_BASIS_SCALE = np.array(
    [0.282095, *[0.488603] * 3, 1.092548, 1.092548, 0.315392, 1.092548, 0.546274]
)
_TRANSFER = np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])


@dataclass(frozen=True)
class Environment:
    """A panorama taken apart into an ambient part and a sun."""

    name: str
    panorama: Floats  # (h, w, 3), radiance; columns as in kernel.c, the middle one is +y
    ambient: Floats  # (9, 3), irradiance without the sun, for albedo 1
    sun_direction: NDArray[np.float64]  # (3,), towards the sun
    sun_color: NDArray[np.float64]  # (3,), irradiance

    def turned(self, columns: int) -> Environment:
        """Turn the surroundings about the vertical by panorama columns."""
        return analyse(self.name, np.roll(self.panorama, columns, axis=1))


def directions(height: int, width: int) -> NDArray[np.float64]:
    """Give the direction of every panorama pixel: (h, w, 3)."""
    polar = (np.arange(height) + 0.5)[:, None] / height * math.pi
    azimuth = ((np.arange(width) + 0.5)[None] / width - 0.5) * 2 * math.pi
    x, y = np.sin(polar) * np.sin(azimuth), np.sin(polar) * np.cos(azimuth)
    return np.stack([x, y, np.broadcast_to(np.cos(polar), x.shape)], -1)


def harmonics(panorama: NDArray[Any]) -> Floats:
    """Project radiance on the nine harmonics of kernel.c's ``ambient``: (9, 3)."""
    height, width = panorama.shape[:2]
    x, y, z = np.moveaxis(directions(height, width), -1, 0)
    solid = np.sin((np.arange(height) + 0.5) / height * math.pi)[:, None]
    solid = solid * (math.pi / height) * (2 * math.pi / width)
    basis = np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z**2 - 1, x * z, x**2 - y**2])
    projected = np.einsum("khw,hwc,hw->kc", basis, panorama, np.broadcast_to(solid, x.shape))
    scale = (_BASIS_SCALE**2 * _TRANSFER)[:, None]
    return np.ascontiguousarray(projected * scale, np.float32)


def analyse(name: str, panorama: NDArray[Any]) -> Environment:
    """Split off the brightest spot as a sun; the rest lights from all sides."""
    small = cv2.resize(panorama, (128, 64), interpolation=cv2.INTER_AREA).astype(np.float64)
    luminance = small.mean(-1)
    limit = max(8 * float(np.median(luminance[:32])), float(luminance.mean()) * 4)
    way = directions(64, 128)
    bright = np.minimum(luminance, limit)
    excess = small * (1 - bright / np.maximum(luminance, 1e-6))[..., None]
    row, column = np.unravel_index(int(luminance.argmax()), luminance.shape)
    near = (way @ way[row, column] > math.cos(math.radians(20)))[..., None]
    solid = np.sin((np.arange(64) + 0.5) / 64 * math.pi)[:, None, None] * (math.pi / 64) ** 2
    sun = (excess * near * solid).sum((0, 1)) / math.pi
    return Environment(
        name,
        np.ascontiguousarray(panorama, np.float32),
        harmonics(small - excess * near),
        way[row, column],
        sun,
    )


def exposed(panorama: NDArray[Any], level: float = 0.42) -> Floats:
    """Scale a panorama so that a grey floor under it looks well exposed.

    :param level: radiance of a white upward surface, sun included.
    """
    up = np.array([1, 0, 1, 0, 0, 0, 2, 0, 0])
    light = float((harmonics(panorama) * up[:, None]).sum(0).mean())
    return np.asarray(panorama * (level / max(light, 1e-6)), np.float32)


def read_panoramas(folder: Path) -> list[Environment]:
    """Read every Radiance ``.hdr`` panorama (equirectangular) of a folder, sorted by name."""
    environments = []
    for path in sorted(folder.glob("*.hdr")):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if image is None:
            raise ValueError(f"{path} is no picture that OpenCV can read")
        environments.append(analyse(path.stem, exposed(np.ascontiguousarray(image[..., ::-1]))))
    return environments


def plain_light(up: ArrayLike, down: ArrayLike, bias: ArrayLike = (0.0, 0.0)) -> Floats:
    """Make ambient light by hand: what an upward and a downward white surface receive.

    :param up: (3,) colour from above; ``down``: (3,) colour from below.
    :param bias: share by which light from +x and +y is stronger.
    :return: (9, 3).
    """
    up, down = np.asarray(up, np.float64), np.asarray(down, np.float64)
    sh = np.zeros((9, 3), np.float32)
    sh[0] = (up + down) / 2
    sh[2] = (up - down) / 2
    sh[3], sh[1] = sh[0] * np.asarray(bias)[0], sh[0] * np.asarray(bias)[1]
    return sh


def procedural_sky(rng: np.random.Generator, height: int = 64) -> Environment:
    """Make an outdoor panorama of sky, clouds, far silhouettes and ground."""
    width = 2 * height
    way = directions(height, width)
    zenith = np.array([0.25, 0.42, 0.8]) * rng.uniform(0.6, 1.1)
    haze = np.array([0.75, 0.8, 0.88]) * rng.uniform(0.6, 1.1)
    rise = np.clip(way[..., 2:], 0, 1) ** 0.6
    image = haze * (1 - rise) + zenith * rise
    clouds = cv2.resize(
        rng.random((6, 12)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
    )[..., None]
    image = image + np.clip(clouds - rng.uniform(0.4, 1.0), 0, 1) * (1.1 - image)
    ground = np.array([0.22, 0.2, 0.17]) * rng.uniform(0.5, 1.4, 3)
    skyline = cv2.resize(
        rng.uniform(-0.02, 0.22, (1, 24)).astype(np.float32),
        (width, 1),
        interpolation=cv2.INTER_NEAREST,
    )[0]
    image = np.where(way[..., 2:] < skyline[None, :, None], ground * rng.uniform(0.6, 1.6), image)
    image = np.where(way[..., 2:] < -0.02, ground, image)
    azimuth, rise_rad = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(15, 70))
    sun = np.array(
        [
            math.cos(rise_rad) * math.sin(azimuth),
            math.cos(rise_rad) * math.cos(azimuth),
            math.sin(rise_rad),
        ]
    )
    disc = way @ sun > math.cos(math.radians(4))
    strength = 0.0 if rng.random() < 0.35 else rng.uniform(60, 260)
    image = image + disc[..., None] * np.array([1.0, 0.93, 0.82]) * strength
    return analyse("procedural", exposed(image, rng.uniform(0.3, 0.6)))
