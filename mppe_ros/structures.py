"""What travels between the stages. Plain frozen dataclasses, units in the names.

Pixels follow OpenCV and ROS: (0, 0) is the *centre* of the top left pixel, u to the right, v down.
The camera frame is REP 103's optical frame: x right, y down, z forward. The core speaks
millimetres, as the method does; only the ROS messages are in metres.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # programs that only show or record people start without torch
    import torch

FloatArray = npt.NDArray[np.float64]
Image: TypeAlias = "npt.NDArray[np.uint8] | torch.Tensor"  # (H, W, 3) RGB
DepthImage = npt.NDArray[np.floating[Any]]  # (H, W) m
Array = TypeVar("Array", "torch.Tensor", FloatArray)  # of what is the same arithmetic in both

# Of a camera that nobody knows anything about; using it is said aloud.
ASSUMED_FOV_DEG = 60.0

# Coefficient counts that each distortion model of sensor_msgs/CameraInfo may carry.
DISTORTION_COEFFICIENTS = {
    "none": (0,),
    "plumb_bob": (4, 5),
    "rational_polynomial": (8, 12, 14),
    "equidistant": (4,),
}


# Focal lengths, and distances of the principal point, beyond these multiples of the image's size
# are no camera's, not even that of a small window of a telescope's picture.
_LEAST_FOCAL, _GREATEST_FOCAL, _GREATEST_CENTRE = 1e-2, 1e5, 1e5


class IntrinsicsError(ValueError):
    """Camera parameters that no camera can have; the message says which and what to do."""


@dataclass(frozen=True)
class Intrinsics:
    """A camera: pinhole parameters in pixels, image size, lens distortion.

    ``distortion`` holds the coefficients of ``distortion_model`` in OpenCV's order (k1, k2, p1,
    p2, k3, ... or k1..k4 for ``equidistant``); ``"none"`` means a rectified image.
    ``assumed`` is true where nobody calibrated the camera and a field of view was guessed.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion_model: str = "none"
    distortion: tuple[float, ...] = ()
    assumed: bool = False

    def __post_init__(self) -> None:
        for name in ("fx", "fy"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise IntrinsicsError(
                    f"{name} = {value} px: a focal length must be positive and finite "
                    "(is the camera calibrated?)"
                )
        for name in ("cx", "cy"):
            if not math.isfinite(getattr(self, name)):
                raise IntrinsicsError(f"{name} = {getattr(self, name)} px is not a finite number")
        if self.width <= 0 or self.height <= 0:
            raise IntrinsicsError(f"image size {self.width}x{self.height} px is empty")
        size = max(self.width, self.height)
        for name in ("fx", "fy"):
            if not _LEAST_FOCAL <= getattr(self, name) / size <= _GREATEST_FOCAL:
                raise IntrinsicsError(
                    f"{name} = {getattr(self, name)} px is no focal length of a camera whose "
                    f"image is {size} px long"
                )
        for name in ("cx", "cy"):
            if abs(getattr(self, name)) > _GREATEST_CENTRE * size:
                value = getattr(self, name)
                raise IntrinsicsError(f"{name} = {value} px is nowhere near the image")
        counts = DISTORTION_COEFFICIENTS.get(self.distortion_model)
        if counts is None:
            known = ", ".join(DISTORTION_COEFFICIENTS)
            raise IntrinsicsError(
                f"distortion model {self.distortion_model!r} is unknown; known: {known}"
            )
        if len(self.distortion) not in counts:
            wanted = " or ".join(map(str, counts))
            raise IntrinsicsError(
                f"{self.distortion_model} takes {wanted} coefficients, got {len(self.distortion)}"
            )
        if not all(map(math.isfinite, self.distortion)):
            raise IntrinsicsError(f"distortion {self.distortion} is not finite")

    @classmethod
    def from_fov(cls, horizontal_fov_deg: float, width: int, height: int) -> Intrinsics:
        """An ideal camera with square pixels that sees ``horizontal_fov_deg`` across."""
        if not 0 < horizontal_fov_deg < 180:
            raise IntrinsicsError(
                f"field of view {horizontal_fov_deg} deg: must lie between 0 and 180"
            )
        f = width / 2 / math.tan(math.radians(horizontal_fov_deg) / 2)
        return cls(f, f, (width - 1) / 2, (height - 1) / 2, width, height, assumed=True)

    @property
    def matrix(self) -> FloatArray:
        """K, (3, 3), px."""
        return np.array([[self.fx, 0, self.cx], [0, self.fy, self.cy], [0, 0, 1]], np.float64)


@dataclass(frozen=True)
class RootError:
    """Standard deviations of a weight set's roots, by ``mppe eval roots`` (docs/covariance.md).

    A crop shows every person at the same size. So the depth, a multiple of k, is off by a fraction
    of the distance, and the place in the image by a part of the body. The heading hangs on the
    joints' relative depth, the weakest of all estimates, and is now and then back to front.
    All of it grows where heatmaps are blunt: of people half hidden or cut off by the image's edge.
    """

    along: float  # along the viewing ray, as a fraction of the distance
    across_mm: float
    tilt_rad: float  # of the orientation, about the body's x and y axes
    heading_rad: float  # about its z axis
    fused_mm: float  # along the ray with a perfect depth image
    surface_mm: float | None = None  # across, of roots that a `SurfaceNet` moved
    usual_score: float = 1.0  # mean joint score of people for whom the above holds
    blur: float = 0.0  # the errors are exp(blur) times as large at a mean score lower by one

    def doubt(self, joint_scores: FloatArray) -> FloatArray:
        """How many times the above each person's standard deviations are.

        :param joint_scores: (..., J)
        :return: (...)
        """
        blunter = self.usual_score - np.mean(joint_scores, axis=-1)
        # Scores that were never seen tell nothing; those that are none, nothing good: of a number
        # and none, fmin takes the number.
        doubt = np.fmin(np.exp(self.blur * blunter), _MOST_DOUBT)
        return np.asarray(np.maximum(doubt, _LEAST_DOUBT))


_LEAST_DOUBT, _MOST_DOUBT = 0.5, 4.0


@dataclass(frozen=True)
class Detections:
    """People that DetectNet found in one image.

    Arrays on the host, whatever device found them: NumPy handles so few numbers fastest.
    """

    boxes_xywh_px: npt.NDArray[np.floating]  # (N, 4) left, top, width, height
    scores: npt.NDArray[np.floating]  # (N,) in 0..1

    def __len__(self) -> int:
        return len(self.scores)


class JointStatus(IntEnum):
    """How far a joint can be trusted; the values are those of Joint3D.msg."""

    OK = 0
    LOW_SCORE = 1
    TRUNCATED = 2  # outside the image, or its depth at the edge of the heatmap volume
    INVALID = 3  # not a number


class TrackState(IntEnum):
    """How far an id can be trusted; the values are those of Pose3D.msg."""

    UNTRACKED = 0
    TENTATIVE = 1  # found too few times to be trusted yet
    TRACKED = 2
    COASTING = 3  # predicted, not seen in this image
    LOST = 4  # last time that this id comes


@dataclass(frozen=True)
class Tracking:
    """Who a person is, from image to image (tracking.py)."""

    track_id: int  # from 1, never used again
    state: TrackState
    time_since_detection_s: float  # since DetectNet last found the person
    # Along the axes of the camera frame; None where it isn't known (well enough) yet.
    velocity_mm_s: FloatArray | None = None  # (3,)
    velocity_covariance_mm2_s2: FloatArray | None = None  # (3, 3)


@dataclass(frozen=True)
class Person:
    """One person in one image. J joints in the order of the weight set's skeleton.

    The root is RootNet's pelvis; joints are PoseNet's, placed at the root's depth, so that the
    pelvis joint may differ from the root by some millimetres.
    """

    score: float  # DetectNet's, 0..1
    bbox_xywh_px: FloatArray  # (4,)
    root_px: FloatArray  # (2,)
    root_mm: FloatArray  # (3,) camera frame
    root_covariance_mm2: FloatArray  # (3, 3) long along the viewing ray
    joints_px: FloatArray  # (J, 2) in the image as received, lens distortion included
    joints_mm: FloatArray  # (J, 3) camera frame
    joint_scores: FloatArray  # (J,) 0..1, sharpness of the heatmap, not a probability
    joint_status: npt.NDArray[np.uint8]  # (J,) JointStatus
    gamma: float = field(default=math.nan)  # RootNet's correction of the k-value (eq. 4)
    # REP 155's body frame in the camera's; both None where unknown (orientation.py).
    root_orientation_xyzw: FloatArray | None = None  # (4,) unit quaternion
    root_orientation_covariance: FloatArray | None = None  # (3, 3) rad², about the camera's axes
    colours: FloatArray | None = None  # (P, 3) of the body's parts, 0..255 (appearance.py)
    tracking: Tracking | None = None  # None = not tracked
