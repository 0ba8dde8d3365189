"""People as RViz markers, one marker per person and namespace.

Built as records with the fields of visualization_msgs/Marker, as `records.py` builds the poses:
they become messages of rclpy in the node (`conversions.py`) and of `rosbags` in a bag (`bags.py`).
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from transforms3d.quaternions import mat2quat

from .records import Record, present
from .skeletons import Skeleton
from .structures import JointStatus

# visualization_msgs/Marker's constants.
SPHERE, LINE_LIST, SPHERE_LIST, TEXT_VIEW_FACING = 2, 5, 7, 9
ADD, DELETE, DELETEALL = 0, 2, 3

JOINT_DIAMETER_M = 0.06
BONE_WIDTH_M = 0.03
BOX_WIDTH_M = 0.01
LABEL_HEIGHT_M = 0.18
LABEL_ABOVE_HEAD_M = 0.25
UNCERTAINTY_ALPHA = 0.35
# Thinner than this, RViz shows nothing.
_MIN_DIAMETER_M = 1e-3

# In a camera's optical frame, which has y point down.
OPTICAL_UP = (0.0, -1.0, 0.0)

# Markers live for this many periods, so that they don't blink when one image comes late ...
_PERIODS = 3
# ... but a camera that was paused for an hour doesn't make them stay for three.
_MAX_LIFETIME_S = 10.0

# Saturation and value of a person's hue: the right side dark, the left one pale.
_SHADES = {"left": (0.4, 1.0), "middle": (0.85, 0.9), "right": (1.0, 0.55)}
# Steps of the golden ratio keep the hues of consecutive ids far apart.
_HUE_STEP = (math.sqrt(5) - 1) / 2

# A box's corners are numbered by bits (x, y, z); an edge joins two that differ in one.
_BOX_EDGES = tuple((a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit)

Points = dict[int, Record]  # by joint index, finite only


class MarkerBuilder:
    """Markers of successive images. Remembers what it has shown, to delete what is gone."""

    def __init__(self, skeleton: Skeleton) -> None:
        self._skeleton = skeleton
        self._shown: set[tuple[str, int]] = set()
        self._last_stamp_s: float | None = None

    def build(
        self,
        record: Record,
        min_lifetime_s: float,
        uncertainty: bool = False,
        up: Sequence[float] = OPTICAL_UP,
    ) -> Record:
        """MarkerArray of the people of one image, and DELETE for every one that vanished.

        :param record: Pose3DArray's fields.
        :param min_lifetime_s: the backstop at high rates; at lower ones it is 3 periods.
        :param uncertainty: also an ellipsoid around each root, one standard deviation in size.
        :param up: the camera's upward direction in the record's frame, for the labels.
        """
        header = record["header"]
        lifetime = _duration(self._lifetime_s(header, min_lifetime_s))
        markers = []
        for position, pose in enumerate(present(record)):
            # A person without an id is told from the others of this image by its position.
            marker_id = pose["track_id"] or 1 + position
            for marker in self._person(pose, marker_id, uncertainty, up):
                markers.append({"header": header, "id": marker_id, "lifetime": lifetime, **marker})
        now = {(marker["ns"], marker["id"]) for marker in markers}
        gone = [
            {"header": header, "ns": namespace, "id": marker_id, "action": DELETE}
            for namespace, marker_id in sorted(self._shown - now)
        ]
        self._shown = now
        return {"markers": gone + markers}

    def clear(self) -> Record:
        """A lone DELETEALL: RViz takes it for everything of the topic."""
        self._shown.clear()
        return {"markers": [{"action": DELETEALL}]}

    def _lifetime_s(self, header: Record, min_lifetime_s: float) -> float:
        stamp_s = header["stamp"]["sec"] + header["stamp"]["nanosec"] * 1e-9
        period_s = 0.0 if self._last_stamp_s is None else stamp_s - self._last_stamp_s
        self._last_stamp_s = stamp_s
        # A negative period is a bag that starts anew.
        return max(min_lifetime_s, min(_PERIODS * period_s, _MAX_LIFETIME_S))

    def _person(
        self, pose: Record, marker_id: int, uncertainty: bool, up: Sequence[float]
    ) -> Iterator[Record]:
        joints = _valid_joints(pose["joints"])
        if not joints:
            return
        colours = {side: _colour(marker_id * _HUE_STEP, *shade) for side, shade in _SHADES.items()}
        yield self._joints(joints, colours)
        bones = self._bones(joints, colours)
        if bones["points"]:
            yield bones
        yield _label(pose, joints, up)
        yield _box(joints, colours["middle"])
        if uncertainty:
            yield from _ellipsoid(pose["root"], colours["middle"])

    def _joints(self, joints: Points, colours: dict[str, Record]) -> Record:
        return _marker(
            "joints",
            SPHERE_LIST,
            _xyz(JOINT_DIAMETER_M, JOINT_DIAMETER_M, JOINT_DIAMETER_M),
            points=list(joints.values()),
            colors=[colours[self._skeleton.side(joint)] for joint in joints],
        )

    def _bones(self, joints: Points, colours: dict[str, Record]) -> Record:
        bones = [
            (parent, child)
            for parent, child in self._skeleton.bones
            if parent in joints and child in joints
        ]
        return _marker(
            "bones",
            LINE_LIST,
            _xyz(x=BONE_WIDTH_M),
            points=[joints[joint] for bone in bones for joint in bone],
            # A bone belongs to the side of its outer end.
            colors=[colours[self._skeleton.side(child)] for _, child in bones for _ in range(2)],
        )


def _label(pose: Record, joints: Points, up: Sequence[float]) -> Record:
    """Id and distance, above the highest joint."""
    heights = {
        joint: sum(point[axis] * part for axis, part in zip("xyz", up, strict=True))
        for joint, point in joints.items()
    }
    highest = joints[max(heights, key=heights.__getitem__)]
    root = pose["root"]["pose"]["position"]
    distance_m = math.hypot(root["x"], root["y"], root["z"])
    # A position in the array is not shown: it would be taken for an id.
    name = f"{pose['track_id']}: " if pose["track_id"] else ""
    marker = _marker(
        "labels",
        TEXT_VIEW_FACING,
        _xyz(z=LABEL_HEIGHT_M),
        color={"r": 1.0, "g": 1.0, "b": 1.0, "a": 1.0},
        text=f"{name}{distance_m:.1f} m",
    )
    marker["pose"]["position"] = {
        axis: highest[axis] + LABEL_ABOVE_HEAD_M * part
        for axis, part in zip("xyz", up, strict=True)
    }
    return marker


def _box(joints: Points, colour: Record) -> Record:
    """The wire box, along the frame's axes, that holds the joints."""
    ranges = [
        (min(values), max(values))
        for values in zip(*((p["x"], p["y"], p["z"]) for p in joints.values()), strict=True)
    ]
    corners = [
        {axis: ranges[bit][corner >> bit & 1] for bit, axis in enumerate("xyz")}
        for corner in range(8)
    ]
    return _marker(
        "boxes",
        LINE_LIST,
        _xyz(x=BOX_WIDTH_M),
        points=[corners[end] for edge in _BOX_EDGES for end in edge],
        color=colour,
    )


def _ellipsoid(root: Record, colour: Record) -> Iterator[Record]:
    """Where the root is, up to one standard deviation along each axis; nothing where unknown."""
    covariance = np.reshape(root["covariance"], (6, 6))[:3, :3]
    if not np.isfinite([*covariance.ravel(), *root["pose"]["position"].values()]).all():
        return
    variances, axes = np.linalg.eigh(covariance)
    axes[:, 0] *= np.sign(np.linalg.det(axes))  # right-handed
    w, x, y, z = map(float, mat2quat(axes))
    diameters = np.maximum(2 * np.sqrt(np.maximum(variances, 0)), _MIN_DIAMETER_M)
    marker = _marker(
        "uncertainty",
        SPHERE,
        _xyz(*map(float, diameters)),
        color={**colour, "a": UNCERTAINTY_ALPHA},
    )
    marker["pose"] = {
        "position": root["pose"]["position"],
        "orientation": {"w": w, "x": x, "y": y, "z": z},
    }
    yield marker


def _marker(namespace: str, kind: int, scale: Record, **fields: Any) -> Record:
    pose = {"position": _xyz(), "orientation": {**_xyz(), "w": 1.0}}
    return {"ns": namespace, "type": kind, "action": ADD, "scale": scale, "pose": pose, **fields}


def _xyz(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Record:
    return {"x": x, "y": y, "z": z}


def _valid_joints(joints: Sequence[Record]) -> Points:
    return {
        index: joint["position"]
        for index, joint in enumerate(joints)
        if joint["status"] != JointStatus.INVALID
        and all(math.isfinite(joint["position"][axis]) for axis in "xyz")
    }


def _colour(hue: float, saturation: float, value: float) -> Record:
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return {"r": r, "g": g, "b": b, "a": 1.0}


def _duration(seconds: float) -> Record:
    whole = int(seconds)
    return {"sec": whole, "nanosec": int((seconds - whole) * 1e9)}
