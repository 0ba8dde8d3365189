"""CameraInfo to the intrinsics of an image as it was received.

A calibration is for the sensor's full resolution. What arrives may be a window of it (ROI, in full
pixels), whose pixels were then combined (binning), and rectified or not; sensor_msgs/CameraInfo
defines these in this order. The message is read by its fields: rclpy's will do, and so will that
which `rosbags` reads without ROS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .image_messages import ConversionError
from .structures import Intrinsics, IntrinsicsError

CameraInfo = Any

# Names that cameras and calibration tools give to sensor_msgs' models.
MODEL_ALIASES = {
    "fisheye": "equidistant",
    "kannala_brandt": "equidistant",
    "kannala_brandt4": "equidistant",
    "radtan": "plumb_bob",
    "brown_conrady": "plumb_bob",
}

# Fractions of fx; shears the lower edge of a picture by a fraction of a pixel.
_MAX_SKEW = 1e-3


class ImageSource(NamedTuple):
    """What must agree between an image and its camera_info."""

    frame_id: str
    width: int  # px
    height: int  # px


class Calibration(NamedTuple):
    """A camera at full resolution: focal lengths, centre, px; distortion as in Intrinsics."""

    fx: float
    fy: float
    cx: float
    cy: float
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()


class Window(NamedTuple):
    """The part of the sensor that an image shows, in full pixels, and how many make one pixel."""

    x: int
    y: int
    width: int
    height: int
    binning_x: int
    binning_y: int

    def shows(self, source: ImageSource) -> bool:
        """Whether an image of that size may be this window; drivers round odd sizes either way."""
        return (
            abs(source.width * self.binning_x - self.width) < self.binning_x
            and abs(source.height * self.binning_y - self.height) < self.binning_y
        )


def intrinsics_of(
    source: ImageSource,
    camera_info: CameraInfo | None,
    *,
    assumed_fov_deg: float = 0.0,
    rectification: str = "auto",
) -> Intrinsics:
    """The camera of an image, in pixels of that image.

    :param camera_info: None or uncalibrated (K and P zero): ``assumed_fov_deg`` takes its place.
    :param assumed_fov_deg: horizontal field of view, deg; 0 insists on a calibration.
    :param rectification: a key of ``RECTIFICATIONS``.
    :raises IntrinsicsError: a calibration that no camera can have, or none.
    :raises ConversionError: a calibration that is not this image's, by size or frame.
    """
    if assumed_fov_deg and (camera_info is None or not _is_calibrated(camera_info)):
        return Intrinsics.from_fov(assumed_fov_deg, source.width, source.height)
    if camera_info is None:
        raise IntrinsicsError("there is no camera_info yet")
    _check_frame(source, camera_info)
    window = _window(camera_info)
    if not window.shows(source):
        raise ConversionError(_size_mismatch(source, camera_info, window))
    return _seen_through(window, RECTIFICATIONS[rectification](camera_info), source)


def _is_calibrated(info: CameraInfo) -> bool:
    # CameraInfo.msg: "K[0] == 0.0 indicates an uncalibrated camera". One may have P only.
    return bool(info.k[0] or info.p[0])


def _check_frame(source: ImageSource, info: CameraInfo) -> None:
    frames = source.frame_id, info.header.frame_id
    if all(frames) and frames[0] != frames[1]:
        raise ConversionError(
            f"the image's frame is {frames[0]!r}, camera_info's {frames[1]!r}: are both topics "
            "of one camera?"
        )


def _window(info: CameraInfo) -> Window:
    """The ROI, or all of the sensor.

    ``do_rectify`` asks for another window of a rectified image than of the raw one. Nothing of
    image_proc's makes such images: it rectifies within the raw window, so that one holds for both.
    """
    roi = info.roi
    binning = info.binning_x or 1, info.binning_y or 1
    if not (roi.width and roi.height):
        return Window(0, 0, info.width, info.height, *binning)
    if roi.x_offset + roi.width > info.width or roi.y_offset + roi.height > info.height:
        raise IntrinsicsError(
            f"camera_info's ROI of {roi.width}x{roi.height} px at ({roi.x_offset}, "
            f"{roi.y_offset}) leaves its image of {info.width}x{info.height} px"
        )
    return Window(roi.x_offset, roi.y_offset, roi.width, roi.height, *binning)


def _size_mismatch(source: ImageSource, info: CameraInfo, window: Window) -> str:
    described = f"{info.width}x{info.height} px"
    if (window.width, window.height) != (info.width, info.height):
        described += f", of which a ROI of {window.width}x{window.height} px"
    if (window.binning_x, window.binning_y) != (1, 1):
        described += f", binned {window.binning_x}x{window.binning_y}"
    return (
        f"the image is {source.width}x{source.height} px, camera_info is for {described}: "
        "calibrate at the image's size, or set its binning and ROI"
    )


def _seen_through(window: Window, full: Calibration, source: ImageSource) -> Intrinsics:
    """Distortion is a matter of rays, which neither a window nor binning changes."""

    def binned_centre(centre: float, offset: int, binning: int) -> float:
        # Pixel i holds the full pixels b·i to b·i + b - 1: its centre is at b·i + (b - 1)/2.
        return (centre - offset - (binning - 1) / 2) / binning

    return Intrinsics(
        fx=full.fx / window.binning_x,
        fy=full.fy / window.binning_y,
        cx=binned_centre(full.cx, window.x, window.binning_x),
        cy=binned_centre(full.cy, window.y, window.binning_y),
        width=source.width,
        height=source.height,
        distortion_model=full.distortion_model,
        distortion=full.distortion,
    )


# --- rectification -----------------------------------------------------------------------------


def _raw(info: CameraInfo) -> Calibration:
    """K and D: the camera's own picture."""
    fx, skew, cx, _, fy, cy, *_ = (float(value) for value in info.k)
    if abs(skew) > _MAX_SKEW * abs(fx) or math.isnan(skew):
        raise IntrinsicsError(f"K has a skew of {skew} px: calibrate without")
    model = info.distortion_model.lower()
    model = MODEL_ALIASES.get(model, model)
    # Coefficients of zero still bend a fisheye's picture, no other model's.
    if any(info.d) or (len(info.d) and model == "equidistant"):
        return Calibration(fx, fy, cx, cy, model, tuple(info.d))
    return Calibration(fx, fy, cx, cy)


def _rectified(info: CameraInfo) -> Calibration:
    """P: the picture without distortion.

    The baseline of a stereo pair's right camera (P's Tx) is left out: people are placed as that
    camera sees them, in its own frame.
    """
    fx, _, cx, _, _, fy, cy, *_ = (float(value) for value in info.p)
    if not (fx or fy):
        raise IntrinsicsError("a rectified image needs P, and camera_info has none (all zero)")
    return Calibration(fx, fy, cx, cy)


def _auto(info: CameraInfo) -> Calibration:
    """No message says whether an image is rectified: taken as raw where D is not zero.

    That is image_geometry's rule too. Without distortion P and K differ only where the image was
    cropped or scaled by rectification.
    """
    if any(info.d) or not info.p[0]:
        return _raw(info)
    return _rectified(info)


RECTIFICATIONS: Mapping[str, Callable[[CameraInfo], Calibration]] = {
    "auto": _auto,
    "raw": _raw,
    "rectified": _rectified,
}
