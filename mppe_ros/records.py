"""People as plain records with the fields of Pose3DArray.msg: the bridge to messages and JSON.

A record mirrors the message field by field, in SI units, so that ROS and JSON consumers see the
same. A new message field is one line in ``msg/`` and one here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .skeletons import Skeleton
from .structures import FloatArray, Intrinsics, Person, Tracking, TrackState

METRES_PER_MM = 1e-3

INTRINSICS_CALIBRATED = 0
INTRINSICS_ASSUMED = 1

Record = dict[str, Any]

_UNTRACKED = Tracking(0, TrackState.UNTRACKED, 0.0)


def pose_array_record(
    people: Sequence[Person],
    *,
    skeleton: Skeleton,
    model: str,
    intrinsics: Intrinsics,
    stamp: tuple[int, int] = (0, 0),
    frame_id: str = "",
) -> Record:
    """Pose3DArray.msg of the people of one image.

    :param model: weight set and short hash, as Pose3DArray.model.
    :param stamp: the image's time, s and ns.
    """
    return {
        "header": {"stamp": {"sec": stamp[0], "nanosec": stamp[1]}, "frame_id": frame_id},
        "skeleton": skeleton.name,
        "joint_names": list(skeleton.joint_names),
        "bones": [joint for bone in skeleton.bones for joint in bone],
        "root_index": skeleton.root_index,
        "model": model,
        "intrinsics_source": INTRINSICS_ASSUMED if intrinsics.assumed else INTRINSICS_CALIBRATED,
        "image_width": intrinsics.width,
        "image_height": intrinsics.height,
        "poses": [_pose_record(person) for person in people],
    }


def present(record: Record) -> list[Record]:
    """The poses of a Pose3DArray's record without those of people who are LOST."""
    return [pose for pose in record["poses"] if pose.get("tracking_state") != TrackState.LOST]


def _pose_record(person: Person) -> Record:
    tracking = person.tracking or _UNTRACKED
    velocity = tracking.velocity_mm_s
    return {
        "track_id": tracking.track_id,
        "tracking_state": int(tracking.state),
        "time_since_detection": float(tracking.time_since_detection_s),
        "score": float(person.score),
        "root": {
            "pose": {
                "position": _xyz(person.root_mm * METRES_PER_MM),
                "orientation": _quaternion(person.root_orientation_xyzw),
            },
            "covariance": _pose_covariance(
                person.root_covariance_mm2 * METRES_PER_MM**2, person.root_orientation_covariance
            ),
        },
        "velocity_valid": velocity is not None,
        "velocity": _xyz(np.zeros(3) if velocity is None else velocity * METRES_PER_MM),
        "joints": [
            {
                "position": dict(zip("xyz", xyz, strict=True)),
                "u": u,
                "v": v,
                "score": score,
                "status": status,
            }
            for xyz, (u, v), score, status in zip(
                (person.joints_mm * METRES_PER_MM).tolist(),
                person.joints_px.tolist(),
                person.joint_scores.tolist(),
                person.joint_status.tolist(),
                strict=True,
            )
        ],
        "bbox": person.bbox_xywh_px.tolist(),
    }


def _xyz(point: FloatArray) -> Record:
    return dict(zip("xyz", point.tolist(), strict=True))


def _quaternion(xyzw: FloatArray | None) -> Record:
    """No rotation where it is unknown: a quaternion must be valid all the same."""
    values = (0.0, 0.0, 0.0, 1.0) if xyzw is None else map(float, xyzw)
    return dict(zip("xyzw", values, strict=True))


def _pose_covariance(position_m2: FloatArray, orientation_rad2: FloatArray | None) -> list[float]:
    """geometry_msgs' 6x6, row-major; -1 on the diagonal marks an unknown orientation."""
    covariance = np.zeros((6, 6))
    covariance[:3, :3] = position_m2
    covariance[3:, 3:] = -np.eye(3) if orientation_rad2 is None else orientation_rad2
    flat: list[float] = covariance.ravel().tolist()
    return flat


def to_json(record: Record) -> str:
    """One line of strict JSON; what is not a number becomes null."""
    return json.dumps(_without_nan(record), allow_nan=False, separators=(",", ":"))


def from_json(line: str) -> Record:
    """The inverse: null becomes what is not a number.

    :raises ValueError: not JSON, or not one object.
    """
    record = _with_nan(json.loads(line))
    if not isinstance(record, dict):
        raise ValueError("not a JSON object")
    return record


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return math.nan if value is None else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
