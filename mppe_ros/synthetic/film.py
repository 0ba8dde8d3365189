"""What a real camera does to light: exposure, blur, noise, compression."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .surfaces import encoded

Image = NDArray[np.uint8]  # (H, W, 3), RGB, sRGB


def develop(
    radiance: Any, rng: np.random.Generator, noise: np.random.Generator | None = None
) -> Image:
    """Turn linear light into the picture of some camera.

    :param radiance: (H, W, 3), 1 = full exposure.
    :param noise: where grain comes from, so that frames of one camera differ; default ``rng``.
    """
    bright = float(np.percentile(radiance[::3, ::3].mean(axis=-1), 92))
    gain = rng.uniform(0.45, 1.1) / max(bright, 0.05)  # automatic exposure, more or less right
    light = radiance * (gain**0.8 * rng.uniform(0.9, 1.1, 3)).astype(np.float32)
    light = _blurred(light, rng)
    picture: Any = encoded(light).astype(np.float32)
    if rng.random() < 0.4:
        picture = 255 * (picture / 255) ** rng.uniform(0.7, 1.4)
    if rng.random() < 0.3:  # haze or faded colours
        picture = picture * rng.uniform(0.75, 1.0) + rng.uniform(0, 30)
    if rng.random() < 0.25:
        soft = cv2.GaussianBlur(picture, (0, 0), 1.0)
        picture = picture + rng.uniform(0.2, 1.0) * (picture - soft)
    if rng.random() < 0.5:
        channels = 1 if rng.random() < 0.5 else 3
        strength = rng.uniform(1, 9)
        grain = (noise or rng).standard_normal((*picture.shape[:2], channels), np.float32)
        picture = picture + grain * strength
    if rng.random() < 0.05:
        picture = np.repeat(picture.mean(axis=-1, keepdims=True), 3, axis=-1)
    result = np.asarray(np.clip(picture + 0.5, 0, 255), np.uint8)
    return _compressed(result, int(rng.uniform(25, 92))) if rng.random() < 0.4 else result


def _blurred(light: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Defocus, a low resolution, or motion; half of the time nothing."""
    kind = rng.random()
    if kind < 0.2:
        return cv2.GaussianBlur(light, (0, 0), rng.uniform(0.3, 1.2))
    if kind < 0.38:
        size = (light.shape[1], light.shape[0])
        share = rng.uniform(0.3, 0.85)
        small = cv2.resize(light, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
        return cv2.resize(small, size, interpolation=cv2.INTER_LINEAR)
    if kind < 0.46:
        return cv2.filter2D(light, -1, motion_kernel(rng.uniform(2, 9), rng.uniform(0, 180)))
    return light


def motion_kernel(length_px: float, degrees: float) -> NDArray[np.float32]:
    """Make the filter of a camera that moves along a line during exposure."""
    size = int(length_px) // 2 * 2 + 3
    kernel = np.zeros((size, size), np.float32)
    middle = (size - 1) / 2
    step = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]) * length_px / 2
    ends = [tuple(round(middle + s * d) for d in step) for s in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1, cv2.LINE_AA)
    return kernel / kernel.sum()


def _compressed(picture: Image, quality: int) -> Image:
    ok, data = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError("OpenCV cannot write JPEG")
    decoded: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    return np.ascontiguousarray(decoded[..., ::-1], np.uint8)
