"""What is known of a camera when no ROS tells it: calibration files, options, a photo's EXIF."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from PIL import ExifTags, Image

from .camera_info import ImageSource, intrinsics_of
from .image_messages import ConversionError
from .media import Shot
from .structures import ASSUMED_FOV_DEG, Intrinsics, IntrinsicsError

# Of a 36 mm x 24 mm frame: what "35 mm equivalent" focal lengths refer to.
_FILM_DIAGONAL_MM = math.hypot(36, 24)
_MM_PER_UNIT = {2: 25.4, 3: 10.0}  # EXIF's FocalPlaneResolutionUnit: inch, cm

CAMERA_INFO, CAMERA_FILE, OPTIONS, EXIF, ASSUMED = (
    "the recording's camera_info", "the camera file", "the options", "EXIF", "an assumption"
)  # fmt: skip


@dataclass(frozen=True)
class Camera:
    """What the user says of a camera; images of any size.

    Where it comes from, first to last: an image's own camera_info, ``file`` (a ROS camera YAML),
    ``fx``..., ``fov_deg``, the focal length in a photo's EXIF, :data:`ASSUMED_FOV_DEG`.

    :param file: as the ROS camera calibrators write it.
    :param fx, fy, cx, cy: px; ``fy`` as ``fx``, the centre that of the image if left out.
    :param distortion: 4 or 5 coefficients (plumb_bob), or 8, 12 or 14 (rational_polynomial).
    :param fov_deg: horizontal field of view.
    """

    file: Path | None = None
    fx: float | None = None
    fy: float | None = None
    cx: float | None = None
    cy: float | None = None
    distortion: tuple[float, ...] = ()
    fov_deg: float | None = None

    def intrinsics(self, width: int, height: int, shot: Shot | None = None) -> Intrinsics:
        """The camera of an image of this size.

        :param shot: where the image comes from: its camera_info or EXIF may tell.
        :raises IntrinsicsError: values that no camera can have, or of other images.
        """
        return self.find(width, height, shot)[0]

    def find(
        self, width: int, height: int, shot: Shot | None = None
    ) -> tuple[Intrinsics, str]:
        """As :meth:`intrinsics`, and where it is from: ``CAMERA_INFO`` ... ``ASSUMED``."""
        info = shot.camera_info if shot else None
        if info is not None and (info.k[0] or info.p[0]):
            return _of_message(info, width, height, shot.frame_id if shot else ""), CAMERA_INFO
        if self.file is not None:
            return _of_message(read_camera_file(self.file), width, height), CAMERA_FILE
        if self.fx is not None:
            return self._given(self.fx, width, height), OPTIONS
        if self.fov_deg is not None:
            return Intrinsics.from_fov(self.fov_deg, width, height), OPTIONS
        focal_px = exif_focal_px(shot.file, width, height) if shot and shot.file else None
        if focal_px is not None:
            centre = (width - 1) / 2, (height - 1) / 2
            return Intrinsics(focal_px, focal_px, *centre, width, height, assumed=True), EXIF
        return Intrinsics.from_fov(ASSUMED_FOV_DEG, width, height), ASSUMED

    def _given(self, fx: float, width: int, height: int) -> Intrinsics:
        model = "plumb_bob" if len(self.distortion) <= 5 else "rational_polynomial"
        return Intrinsics(
            fx,
            fx if self.fy is None else self.fy,
            (width - 1) / 2 if self.cx is None else self.cx,
            (height - 1) / 2 if self.cy is None else self.cy,
            width,
            height,
            model if self.distortion else "none",
            self.distortion,
        )


def _of_message(info: Any, width: int, height: int, frame_id: str = "") -> Intrinsics:
    try:
        return intrinsics_of(ImageSource(frame_id, width, height), info)
    except ConversionError as error:
        raise IntrinsicsError(str(error)) from error


def read_camera_file(path: str | Path) -> SimpleNamespace:
    """A ROS camera YAML as CameraInfo's fields.

    :raises IntrinsicsError: not readable, or something is missing in it.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return SimpleNamespace(
            header=SimpleNamespace(frame_id=""),
            width=int(content["image_width"]),
            height=int(content["image_height"]),
            distortion_model=str(content.get("distortion_model", "plumb_bob")),
            d=[float(v) for v in content.get("distortion_coefficients", {"data": []})["data"]],
            k=[float(v) for v in content["camera_matrix"]["data"]],
            p=[float(v) for v in content.get("projection_matrix", {"data": [0] * 12})["data"]],
            binning_x=0,
            binning_y=0,
            roi=SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0),
        )
    except KeyError as error:
        raise IntrinsicsError(f"{path}: {error} is missing; a ROS camera YAML has it") from error
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise IntrinsicsError(f"{path}: not a readable ROS camera YAML ({error})") from error


def exif_focal_px(path: Path, width: int, height: int) -> float | None:
    """The focal length that a photo's EXIF tells, in pixels of an image of this size; or None.

    It tells of the whole sensor: an image that was cropped since then is seen too narrow.
    """
    try:
        with Image.open(path) as image:
            tags = image.getexif().get_ifd(ExifTags.IFD.Exif)
        equivalent_mm = float(tags.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        focal_mm = float(tags.get(ExifTags.Base.FocalLength, 0))
        px_per_unit = float(tags.get(ExifTags.Base.FocalPlaneXResolution, 0))
        unit_mm = _MM_PER_UNIT.get(tags.get(ExifTags.Base.FocalPlaneResolutionUnit, 2), 25.4)
        taken_px = float(tags.get(ExifTags.Base.ExifImageWidth, 0)) or max(width, height)
    except (OSError, ValueError, TypeError, ZeroDivisionError, SyntaxError):
        return None
    if equivalent_mm > 0:
        return equivalent_mm * math.hypot(width, height) / _FILM_DIAGONAL_MM
    if focal_mm > 0 and px_per_unit > 0:
        # Turned photos have swapped sides; the longer one is the sensor's longer one.
        return focal_mm * px_per_unit / unit_mm * max(width, height) / max(taken_px, 1)
    return None


def described(camera: Intrinsics) -> str:
    """In a few words, for a log."""
    fov_deg = math.degrees(2 * math.atan(camera.width / 2 / camera.fx))
    return f"fx {camera.fx:.0f} px, {fov_deg:.0f} degrees across"
