"""What depth cameras do to depth: quantised disparity, noise, holes at edges, dropouts."""

from __future__ import annotations

import cv2
import numpy as np

from ..structures import FloatArray

# A stereo camera's disparity of a point at 1 m, px, and the steps in which it is found: 55 mm
# between the lenses, 640 px focal length, eighths of a pixel. At 4 m one step is 57 mm.
DISPARITY_AT_1_M_PX = 35.0
DISPARITY_STEP_PX = 1 / 8


def spoil(
    depth_m: FloatArray,
    rng: np.random.Generator,
    *,
    noise: float = 0.015,
    dropouts: float = 0.1,
    holes: int = 20,
    max_range_m: float = np.inf,
) -> FloatArray:
    """Perfect depth (H, W), m, as a depth camera gives it; 0 where it sees nothing.

    :param noise: standard deviation of the disparity, as a fraction; neighbouring pixels share it.
    :param dropouts: share of pixels without depth, anywhere.
    :param holes: blobs without depth, of 1 to 8 % of the image's width.
    """
    height, width = depth_m.shape
    known = (depth_m > 0) & (depth_m < max_range_m)
    disparity = DISPARITY_AT_1_M_PX / np.where(known, depth_m, 1.0)
    grain = cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), 1.5)
    disparity = disparity * (1 + noise * grain / grain.std())
    disparity = np.maximum(np.rint(disparity / DISPARITY_STEP_PX), 1) * DISPARITY_STEP_PX
    # Beside a step in depth one of the lenses sees what the other doesn't.
    near, far = (f(depth_m, np.ones((5, 5))) for f in (cv2.erode, cv2.dilate))
    known &= far - near < 0.1 * np.maximum(near, 0.1)
    known &= rng.random((height, width)) >= dropouts
    blobs = np.zeros((height, width), np.uint8)
    for _ in range(holes):
        centre = int(rng.integers(width)), int(rng.integers(height))
        cv2.circle(blobs, centre, int(width * rng.uniform(0.005, 0.04)), 1, -1)
    return np.where(known & (blobs == 0), DISPARITY_AT_1_M_PX / disparity, 0.0)
