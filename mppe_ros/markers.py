"""People as RViz markers, one marker per person and namespace."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Quaternion, Vector3
from std_msgs.msg import ColorRGBA, Header
from transforms3d.quaternions import mat2quat
from visualization_msgs.msg import Marker, MarkerArray

from .conversions import message_from_record
from .records import Record
from .skeletons import Skeleton
from .structures import JointStatus

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

Points = dict[int, Point]  # by joint index, finite only


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
    ) -> MarkerArray:
        """Markers of the people of one image, and DELETE for every one that vanished.

        :param record: Pose3DArray's fields.
        :param min_lifetime_s: the backstop at high rates; at lower ones it is 3 periods.
        :param uncertainty: also an ellipsoid around each root, one standard deviation in size.
        :param up: the camera's upward direction in the record's frame, for the labels.
        """
        header = message_from_record(Header, record["header"])
        lifetime = _duration(self._lifetime_s(header, min_lifetime_s))
        markers = []
        for position, pose in enumerate(record["poses"]):
            # A person without an id is told from the others of this image by its position.
            marker_id = pose["track_id"] or 1 + position
            for marker in self._person(pose, marker_id, uncertainty, up):
                marker.header, marker.id, marker.lifetime = header, marker_id, lifetime
                markers.append(marker)
        now = {(marker.ns, marker.id) for marker in markers}
        gone = [
            Marker(header=header, ns=namespace, id=marker_id, action=Marker.DELETE)
            for namespace, marker_id in sorted(self._shown - now)
        ]
        self._shown = now
        return MarkerArray(markers=gone + markers)

    def clear(self) -> MarkerArray:
        """A lone DELETEALL: RViz takes it for everything of the topic."""
        self._shown.clear()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])

    def _lifetime_s(self, header: Header, min_lifetime_s: float) -> float:
        stamp_s = header.stamp.sec + header.stamp.nanosec * 1e-9
        period_s = 0.0 if self._last_stamp_s is None else stamp_s - self._last_stamp_s
        self._last_stamp_s = stamp_s
        # A negative period is a bag that starts anew.
        return max(min_lifetime_s, min(_PERIODS * period_s, _MAX_LIFETIME_S))

    def _person(
        self, pose: Record, marker_id: int, uncertainty: bool, up: Sequence[float]
    ) -> Iterator[Marker]:
        joints = _valid_joints(pose["joints"])
        if not joints:
            return
        colours = {side: _colour(marker_id * _HUE_STEP, *shade) for side, shade in _SHADES.items()}
        yield self._joints(joints, colours)
        bones = self._bones(joints, colours)
        if bones.points:
            yield bones
        yield _label(pose, joints, up)
        yield _box(joints, colours["middle"])
        if uncertainty:
            yield from _ellipsoid(pose["root"], colours["middle"])

    def _joints(self, joints: Points, colours: dict[str, ColorRGBA]) -> Marker:
        return _marker(
            "joints",
            Marker.SPHERE_LIST,
            Vector3(x=JOINT_DIAMETER_M, y=JOINT_DIAMETER_M, z=JOINT_DIAMETER_M),
            points=list(joints.values()),
            colors=[colours[self._skeleton.side(joint)] for joint in joints],
        )

    def _bones(self, joints: Points, colours: dict[str, ColorRGBA]) -> Marker:
        bones = [
            (parent, child)
            for parent, child in self._skeleton.bones
            if parent in joints and child in joints
        ]
        return _marker(
            "bones",
            Marker.LINE_LIST,
            Vector3(x=BONE_WIDTH_M),
            points=[joints[joint] for bone in bones for joint in bone],
            # A bone belongs to the side of its outer end.
            colors=[colours[self._skeleton.side(child)] for _, child in bones for _ in range(2)],
        )


def _label(pose: Record, joints: Points, up: Sequence[float]) -> Marker:
    """Id and distance, above the highest joint."""
    heights = {
        joint: sum(getattr(point, axis) * part for axis, part in zip("xyz", up, strict=True))
        for joint, point in joints.items()
    }
    highest = joints[max(heights, key=heights.__getitem__)]
    root = pose["root"]["pose"]["position"]
    distance_m = math.hypot(root["x"], root["y"], root["z"])
    # A position in the array is not shown: it would be taken for an id.
    name = f"{pose['track_id']}: " if pose["track_id"] else ""
    marker = _marker(
        "labels",
        Marker.TEXT_VIEW_FACING,
        Vector3(z=LABEL_HEIGHT_M),
        color=ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0),
        text=f"{name}{distance_m:.1f} m",
    )
    marker.pose.position = Point(**{
        axis: getattr(highest, axis) + LABEL_ABOVE_HEAD_M * part
        for axis, part in zip("xyz", up, strict=True)
    })  # fmt: skip
    return marker


def _box(joints: Points, colour: ColorRGBA) -> Marker:
    """The wire box, along the frame's axes, that holds the joints."""
    ranges = [
        (min(values), max(values))
        for values in zip(*((p.x, p.y, p.z) for p in joints.values()), strict=True)
    ]
    corners = [
        Point(**{axis: ranges[bit][corner >> bit & 1] for bit, axis in enumerate("xyz")})
        for corner in range(8)
    ]
    return _marker(
        "boxes",
        Marker.LINE_LIST,
        Vector3(x=BOX_WIDTH_M),
        points=[corners[end] for edge in _BOX_EDGES for end in edge],
        color=colour,
    )


def _ellipsoid(root: Record, colour: ColorRGBA) -> Iterator[Marker]:
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
        Marker.SPHERE,
        Vector3(**dict(zip("xyz", map(float, diameters), strict=True))),
        color=ColorRGBA(r=colour.r, g=colour.g, b=colour.b, a=UNCERTAINTY_ALPHA),
    )
    marker.pose.position = Point(**root["pose"]["position"])
    marker.pose.orientation = Quaternion(w=w, x=x, y=y, z=z)
    yield marker


def _marker(namespace: str, kind: int, scale: Vector3, **fields: Any) -> Marker:
    marker = Marker(ns=namespace, type=kind, action=Marker.ADD, scale=scale, **fields)
    marker.pose.orientation.w = 1.0
    return marker


def _valid_joints(joints: Sequence[Record]) -> Points:
    return {
        index: Point(**joint["position"])
        for index, joint in enumerate(joints)
        if joint["status"] != JointStatus.INVALID
        and all(math.isfinite(joint["position"][axis]) for axis in "xyz")
    }


def _colour(hue: float, saturation: float, value: float) -> ColorRGBA:
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return ColorRGBA(r=r, g=g, b=b, a=1.0)


def _duration(seconds: float) -> Duration:
    whole = int(seconds)
    return Duration(sec=whole, nanosec=int((seconds - whole) * 1e9))
