"""The messages Image and CompressedImage to arrays.

They are read by their fields, so that rclpy's messages and those that `rosbags` reads without ROS
both will do.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

ImageArray = npt.NDArray[np.uint8]


class ConversionError(ValueError):
    """An image that cannot be used; the message says why and what to do."""


# --- images ------------------------------------------------------------------------------------

# The encodings of sensor_msgs/Image that show what a camera sees, and their bytes per pixel.
BYTES_PER_PIXEL = {
    "rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4, "mono8": 1,
    "rgb16": 6, "bgr16": 6, "rgba16": 8, "bgra16": 8, "mono16": 2,
    "bayer_rggb8": 1, "bayer_bggr8": 1, "bayer_gbrg8": 1, "bayer_grbg8": 1,
    "bayer_rggb16": 2, "bayer_bggr16": 2, "bayer_gbrg16": 2, "bayer_grbg16": 2,
    "yuv422": 2, "uyvy": 2, "yuv422_yuy2": 2, "yuyv": 2,
}  # fmt: skip
# A robot's cv_bridge may know only these.
_OLDER_NAMES = {"uyvy": "yuv422", "yuyv": "yuv422_yuy2"}


def image_to_rgb(message: Any) -> ImageArray:
    """(H, W, 3) uint8 RGB, contiguous; of an unpadded rgb8 image without a copy.

    :param message: an Image or a CompressedImage.
    :raises ConversionError: an unknown encoding, or data that do not make such an image.
    """
    if not hasattr(message, "encoding"):
        return _decompress(message)
    rows = _rows(message, _bytes_per_pixel(message.encoding))
    height, width = message.height, message.width
    if message.encoding == "rgb8":
        return rows.reshape(height, width, 3)
    if message.encoding == "bgr8":
        return _swap_red_and_blue(rows.reshape(height, width, 3))
    return _convert(message, rows)


def _decompress(message: Any) -> ImageArray:
    _refuse_bomb(message.data)
    # The intrinsics are of the pixels as they are stored: an orientation tag must not turn them.
    flags = cv2.IMREAD_ANYCOLOR | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(message.data, np.uint8), flags)
    except cv2.error:  # no data at all
        image = None
    if image is None:
        raise ConversionError(
            f"compressed image of format {message.format!r} cannot be decoded "
            f"({len(message.data)} bytes): is it a whole JPEG or PNG?"
        )
    return _decoded_to_rgb(image, message.format)


def _refuse_bomb(data: Any) -> None:
    """A few bytes can claim to be an image that fills all memory."""
    try:
        with PIL.Image.open(io.BytesIO(bytes(data))):  # which reads the header only
            pass
    except PIL.Image.DecompressionBombError as error:
        raise ConversionError(f"compressed image is refused: {error}") from error
    except Exception:  # OpenCV may know the format
        pass


def _decoded_to_rgb(image: npt.NDArray[Any], description: str) -> ImageArray:
    """:param description: CompressedImage.format; image_transport's has the encoding of the raw
    image and that of the compressed one: ``rgb8; jpeg compressed bgr8``.
    """
    encoding, _, compressed = description.partition(";")
    if image.ndim == 2:
        # Named so, a mosaic was compressed as if it were grey, unless it was made grey before.
        if encoding.startswith("bayer_") and "mono" not in compressed:
            height, width = image.shape
            mosaic = SimpleNamespace(height=height, width=width, encoding=f"{encoding[:10]}8")
            return _convert(mosaic, image)
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2RGB), np.uint8)
    if "compressed rgb" in compressed:  # red was written where files have blue
        return np.asarray(image, np.uint8)
    return _swap_red_and_blue(image)


def _swap_red_and_blue(image: npt.NDArray[Any]) -> ImageArray:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _bytes_per_pixel(encoding: str) -> int:
    if encoding not in BYTES_PER_PIXEL:
        raise ConversionError(
            f"encoding {encoding!r} is not a colour or grey image that is understood; "
            f"use one of {', '.join(BYTES_PER_PIXEL)}"
        )
    return BYTES_PER_PIXEL[encoding]


def _rows(message: Any, bytes_per_pixel: int) -> ImageArray:
    """(height, bytes of a row) without padding; a view where there is none."""
    height, width, step = message.height, message.width, message.step
    if not (height and width):
        raise ConversionError(f"image size {width}x{height} px is empty")
    used = width * bytes_per_pixel
    if step < used:
        raise ConversionError(
            f"step of {step} bytes is too short for {width} px of {message.encoding}: "
            f"{used} bytes needed"
        )
    if len(message.data) != height * step:
        raise ConversionError(
            f"{len(message.data)} bytes of data, but height {height} times step {step} is "
            f"{height * step}: the image is truncated or wrongly described"
        )
    rows = np.frombuffer(message.data, np.uint8).reshape(height, step)
    return np.ascontiguousarray(rows[:, :used])


def _convert(message: Any, rows: ImageArray) -> ImageArray:
    """The rarer encodings, by the libraries that know them all."""
    compact = SimpleNamespace(
        height=message.height,
        width=message.width,
        encoding=_OLDER_NAMES.get(message.encoding, message.encoding),
        is_bigendian=getattr(message, "is_bigendian", 0),
        step=rows.shape[1],
        data=rows.reshape(-1),
    )
    to_colours = _converter()
    try:
        image = to_colours(compact, "rgb8")
    except Exception as error:  # each library has its own, and OpenCV's
        raise ConversionError(
            f"{message.encoding} image of {message.width}x{message.height} px cannot be "
            f"converted to rgb8: {error}"
        ) from error
    return np.ascontiguousarray(image, np.uint8)


def _converter() -> Callable[[Any, str], npt.NDArray[Any]]:
    """A robot's cv_bridge, or rosbags-image, which needs no ROS installation."""
    try:
        from cv_bridge import CvBridge

        return CvBridge().imgmsg_to_cv2
    # Built for another NumPy, it fails with more than an ImportError.
    except (ImportError, AttributeError):
        pass
    try:
        from rosbags.image import image_to_cvimage
    except ImportError as error:
        raise ConversionError(
            "this encoding needs cv_bridge: apt install ros-$ROS_DISTRO-cv-bridge, or "
            "pip install rosbags-image; rgb8 and bgr8 need neither"
        ) from error
    return image_to_cvimage


# --- depth -------------------------------------------------------------------------------------

# Encodings of depth images (REP 118): the type of a pixel, and metres per unit.
DEPTH_UNITS = {"16UC1": ("u2", 1e-3), "mono16": ("u2", 1e-3), "32FC1": ("f4", 1.0)}


def depth_to_m(message: Any) -> npt.NDArray[np.float32]:
    """(H, W) float32 Z, m; NaN where nothing was measured (zero, infinite or not a number).

    :raises ConversionError: an image of something else, or data that do not make one.
    """
    if message.encoding not in DEPTH_UNITS:
        raise ConversionError(
            f"encoding {message.encoding!r} is not depth; use 16UC1 (mm) or 32FC1 (m)"
        )
    kind, unit_m = DEPTH_UNITS[message.encoding]
    pixel = np.dtype(("<", ">")[bool(message.is_bigendian)] + kind)
    depth_m = _rows(message, pixel.itemsize).view(pixel).astype(np.float32) * np.float32(unit_m)
    depth_m[~(np.isfinite(depth_m) & (depth_m > 0))] = np.nan
    return np.asarray(depth_m, np.float32)
