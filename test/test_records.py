"""People as message-shaped records: units, fields, strict JSON."""

import json
import math

import numpy as np

from mppe_ros.records import pose_array_record, to_json
from mppe_ros.skeletons import MUCO_21
from mppe_ros.structures import Intrinsics, Person


def person(z_mm: float = 3000.0) -> Person:
    joints = np.random.default_rng(1).normal((0, 0, z_mm), 300, (21, 3))
    joints[4] = math.nan
    return Person(
        score=0.75,
        bbox_xywh_px=np.array([1.0, 2, 3, 4]),
        root_px=np.array([50.0, 60]),
        root_mm=np.array([100.0, -200, z_mm]),
        root_covariance_mm2=np.diag([4e4, 9e4, 1e6]),
        joints_px=joints[:, :2],
        joints_mm=joints,
        joint_scores=np.linspace(0, 1, 21),
        joint_status=np.arange(21, dtype=np.uint8) % 4,
    )


def record(*people: Person) -> dict:
    return pose_array_record(
        people,
        skeleton=MUCO_21,
        model="m",
        intrinsics=Intrinsics.from_fov(60, 640, 480),
        stamp=(12, 34),
        frame_id="camera",
    )


def test_records_are_in_metres() -> None:
    pose = record(person())["poses"][0]
    assert pose["root"]["pose"]["position"] == {"x": 0.1, "y": -0.2, "z": 3.0}
    covariance = np.reshape(pose["root"]["covariance"], (6, 6))
    np.testing.assert_allclose(covariance[:3, :3], np.diag([0.04, 0.09, 1.0]))
    assert covariance[3, 3] == covariance[4, 4] == covariance[5, 5] == -1


def test_bones_are_flattened_pairs_of_joint_indices() -> None:
    whole = record()
    assert whole["poses"] == []
    assert len(whole["bones"]) == 2 * len(MUCO_21.bones)
    assert tuple(zip(whole["bones"][::2], whole["bones"][1::2], strict=True)) == MUCO_21.bones
    assert whole["intrinsics_source"] == 1
    assert whole["header"] == {"stamp": {"sec": 12, "nanosec": 34}, "frame_id": "camera"}


def test_json_is_strict_and_one_line() -> None:
    line = to_json(record(person(), person(5000)))
    assert "\n" not in line and "NaN" not in line

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    back = json.loads(line, parse_constant=refuse)
    assert back["poses"][0]["joints"][4]["position"] == {"x": None, "y": None, "z": None}
    assert len(back["poses"]) == 2
