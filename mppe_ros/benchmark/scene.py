"""Images with a known number of people in them."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from .. import media
from ..structures import FloatArray, Intrinsics
from ..weights import RESOURCES

_CLIP = RESOURCES / "sample" / "clip.mp4"
_FOV_DEG = 60.0


@dataclass(frozen=True)
class Scene:
    """A frame of the sample clip in some size, and boxes for as many people as are wanted.

    Networks take the same time whatever they see, so the boxes need not be those of people.
    """

    rgb: media.Rgb
    boxes_xywh_px: FloatArray  # (N, 4)

    @classmethod
    def make(cls, width: int, height: int, people: int) -> Scene:
        frame = first_frame()
        rgb = np.asarray(
            cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), np.uint8
        )
        tall, wide = 0.6 * height, 0.2 * height
        left = np.linspace(0, width - wide, people) if people > 1 else np.array([width / 2])
        top = np.resize([0.2 * height, 0.3 * height], people)
        size = np.full(people, wide), np.full(people, tall)
        return cls(rgb, np.stack([left, top, *size], 1))

    @property
    def camera(self) -> Intrinsics:
        return camera_of(self.rgb)

    @property
    def message(self) -> Any:
        """As a camera's driver sends it: the fields of a bgr8 sensor_msgs/Image."""
        height, width = self.rgb.shape[:2]
        data = np.ascontiguousarray(self.rgb[..., ::-1]).ravel()
        return SimpleNamespace(
            height=height, width=width, encoding="bgr8", step=3 * width, is_bigendian=0, data=data
        )


def camera_of(rgb: media.Rgb) -> Intrinsics:
    """One that may have taken an image."""
    height, width = rgb.shape[:2]
    return Intrinsics.from_fov(_FOV_DEG, width, height)


def first_frame() -> media.Rgb:
    """Of the sample clip: 640x480, four people."""
    capture = cv2.VideoCapture(str(_CLIP))
    read, bgr = capture.read()
    if not read:
        raise media.MediaError(f"{_CLIP} cannot be read: OpenCV has no decoder for it")
    return np.ascontiguousarray(bgr[..., ::-1])
