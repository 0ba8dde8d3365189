"""People in another frame: what a rigid transform must do to a record, and tf2's look-up."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transforms3d.affines import compose
from transforms3d.quaternions import mat2quat, quat2mat, rotate_vector

from mppe_ros.frames import FrameError, TransformLookup, matrix_of, transform_record
from mppe_ros.records import pose_array_record
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Intrinsics, JointStatus, Person

CAMERA = Intrinsics(600, 600, 320, 240, 640, 480)
COUNT = len(HUMAN36M_17)


def make_person(rng, oriented=True):
    """Somewhere in front of the camera; one joint is invalid."""
    joints_mm = rng.uniform((-2000, -1000, 1500), (2000, 1000, 7000), (COUNT, 3))
    joints_mm[4] = np.nan
    status = np.zeros(COUNT, np.uint8)
    status[4] = JointStatus.INVALID
    return Person(
        score=0.9,
        bbox_xywh_px=rng.uniform(0, 400, 4),
        root_px=rng.uniform(0, 400, 2),
        root_mm=joints_mm[0],
        root_covariance_mm2=random_covariance(rng, 200.0),
        joints_px=rng.uniform(0, 400, (COUNT, 2)),
        joints_mm=joints_mm,
        joint_scores=np.ones(COUNT),
        joint_status=status,
        root_orientation_xyzw=np.roll(mat2quat(random_rotation(rng)), -1) if oriented else None,
        root_orientation_covariance=random_covariance(rng, 0.4) if oriented else None,
    )


def random_covariance(rng, size):
    root = rng.normal(0, size, (3, 3))
    return root @ root.T


def random_rotation(rng):
    quaternion = rng.normal(size=4)
    return quat2mat(quaternion / np.linalg.norm(quaternion))


def random_rigid(rng):
    return compose(rng.uniform(-20, 20, 3), random_rotation(rng), np.ones(3))


def make_record(seed, oriented=True):
    rng = np.random.default_rng(seed)
    people = [make_person(rng, oriented) for _ in range(2)]
    record = pose_array_record(
        people, skeleton=HUMAN36M_17, model="none", intrinsics=CAMERA, frame_id="camera"
    )
    for pose in record["poses"]:
        pose["velocity"] = dict(zip("xyz", rng.normal(0, 1, 3).tolist(), strict=True))
    return record


def positions(record):
    """(people, 1 + J, 3): roots and joints, m."""
    return np.array([
        [xyz(pose["root"]["pose"]["position"]), *(xyz(j["position"]) for j in pose["joints"])]
        for pose in record["poses"]
    ])  # fmt: skip


def xyz(point):
    return [point[axis] for axis in "xyz"]


def velocities(record):
    return np.array([xyz(pose["velocity"]) for pose in record["poses"]])


def body_axes(record):
    return np.array([
        quat2mat([pose["root"]["pose"]["orientation"][axis] for axis in "wxyz"])
        for pose in record["poses"]
    ])  # fmt: skip


def covariances(record):
    return np.array([pose["root"]["covariance"] for pose in record["poses"]]).reshape(-1, 6, 6)


seeds = st.integers(0, 2**32 - 1)


@given(seeds)
def test_points_move_and_directions_turn(seed):
    record, rigid = make_record(seed), random_rigid(np.random.default_rng([seed, 1]))
    moved = transform_record(record, rigid, "map")
    turn, shift = rigid[:3, :3], rigid[:3, 3]
    np.testing.assert_allclose(positions(moved), positions(record) @ turn.T + shift, atol=1e-9)
    np.testing.assert_allclose(velocities(moved), velocities(record) @ turn.T, atol=1e-9)
    np.testing.assert_allclose(body_axes(moved), turn @ body_axes(record), atol=1e-9)


@given(seeds)
def test_covariances_describe_the_same_ellipsoids(seed):
    """How far two points are apart, in sigma, doesn't depend on the frame."""
    record, rng = make_record(seed), np.random.default_rng([seed, 1])
    rigid, offset = random_rigid(rng), rng.normal(size=6)
    turned = np.concatenate([rigid[:3, :3] @ offset[:3], rigid[:3, :3] @ offset[3:]])
    before, after = covariances(record), covariances(transform_record(record, rigid, "map"))
    np.testing.assert_allclose(turned @ after @ turned, offset @ before @ offset, rtol=1e-9)
    np.testing.assert_allclose(after, after.transpose(0, 2, 1), atol=1e-9)


@given(seeds)
def test_there_and_back_changes_nothing(seed):
    record, rigid = make_record(seed), random_rigid(np.random.default_rng([seed, 1]))
    there = transform_record(record, rigid, "map")
    back = transform_record(there, np.linalg.inv(rigid), "camera")
    for part in (positions, velocities, body_axes, covariances):
        np.testing.assert_allclose(part(back), part(record), atol=1e-8)


def test_what_is_not_of_space_stays_and_the_record_given_is_not_changed():
    record, rigid = make_record(1), random_rigid(np.random.default_rng(2))
    before = repr(record)
    moved = transform_record(record, rigid, "map")
    assert repr(record) == before
    assert moved["header"] == {**record["header"], "frame_id": "map"}
    for old, new in zip(record["poses"], moved["poses"], strict=True):
        assert new["bbox"] == old["bbox"]
        for one, other in zip(old["joints"], new["joints"], strict=True):
            assert {**one, "position": None} == {**other, "position": None}
    assert np.isnan(positions(moved)[:, 1 + 4]).all()  # the invalid joint, and no other
    assert np.isfinite(np.delete(positions(moved), 1 + 4, axis=1)).all()


def test_an_unknown_orientation_stays_unknown():
    record, rigid = make_record(1, oriented=False), random_rigid(np.random.default_rng(2))
    moved = transform_record(record, rigid, "map")
    for old, new in zip(record["poses"], moved["poses"], strict=True):
        assert new["root"]["pose"]["orientation"] == old["root"]["pose"]["orientation"]
    np.testing.assert_array_equal(covariances(moved)[:, 3:, 3:], [-np.eye(3)] * 2)
    np.testing.assert_allclose(  # the place is known all the same
        covariances(moved)[:, :3, :3],
        rigid[:3, :3] @ covariances(record)[:, :3, :3] @ rigid[:3, :3].T,
    )


# --- tf2 -----------------------------------------------------------------------------------------


def make_transform(translation=(1.0, 2.0, 3.0), rotation_wxyz=(1.0, 0.0, 0.0, 0.0)):
    return SimpleNamespace(
        translation=SimpleNamespace(**dict(zip("xyz", translation, strict=True))),
        rotation=SimpleNamespace(**dict(zip("wxyz", rotation_wxyz, strict=True))),
    )


@given(seeds)
def test_the_matrix_of_a_transform_does_what_the_transform_does(seed):
    rng = np.random.default_rng(seed)
    point, translation, quaternion = rng.normal(size=3), rng.normal(size=3), rng.normal(size=4)
    quaternion /= np.linalg.norm(quaternion)
    matrix = matrix_of(make_transform(translation, quaternion))
    moved = matrix @ [*point, 1]
    expected = rotate_vector(point, quaternion) + translation
    np.testing.assert_allclose(moved, [*expected, 1], atol=1e-9)


@pytest.mark.parametrize("quaternion", [(0, 0, 0, 0), (2, 0, 0, 0), (np.nan, 0, 0, 0)])
def test_a_quaternion_that_is_no_rotation_is_refused(quaternion):
    with pytest.raises(FrameError, match="quaternion has length"):
        matrix_of(make_transform(rotation_wxyz=quaternion))


class FakeTf2(ModuleType):
    """tf2_ros' Buffer and TransformListener by their signatures; knows "camera" in "map"."""

    class TransformException(Exception):  # noqa: N818 - tf2's name
        pass

    def __init__(self):
        super().__init__("tf2_ros")
        self.asked, self.listening = [], []
        tf2 = self

        class Buffer:
            def lookup_transform(self, target_frame, source_frame, time, timeout):
                tf2.asked.append((target_frame, source_frame, time.nanoseconds, timeout))
                if (target_frame, source_frame) != ("map", "camera"):
                    raise tf2.TransformException(f'"{target_frame}" does not exist')
                return SimpleNamespace(transform=make_transform())

        class TransformListener:
            def __init__(self, buffer, node):
                tf2.listening.append(node)

            def unregister(self):
                tf2.listening.clear()

        self.Buffer, self.TransformListener = Buffer, TransformListener


@pytest.fixture
def tf2(monkeypatch):
    pytest.importorskip("rclpy", reason="needs ROS 2")
    fake = FakeTf2()
    monkeypatch.setitem(sys.modules, "tf2_ros", fake)
    return fake


def make_stamp(sec, nanosec):
    from builtin_interfaces.msg import Time

    return Time(sec=sec, nanosec=nanosec)


def test_the_lookup_asks_for_the_images_time_and_waits_a_little(tf2):
    lookup = TransformLookup("the node", timeout_s=0.25)
    assert tf2.listening == ["the node"]
    matrix = lookup("map", "camera", make_stamp(12, 345))
    np.testing.assert_array_equal(matrix[:3, 3], [1, 2, 3])
    ((target, source, time_ns, timeout),) = tf2.asked
    assert (target, source, time_ns) == ("map", "camera", 12_000_000_345)
    assert timeout.nanoseconds == 250_000_000
    lookup.close()
    assert tf2.listening == []


def test_a_failed_lookup_says_which_frames_and_why(tf2):
    lookup = TransformLookup("the node")
    with pytest.raises(FrameError, match="'camera' to 'odom'.*\"odom\" does not exist"):
        lookup("odom", "camera", make_stamp(1, 0))


def test_a_frame_in_itself_needs_no_lookup(tf2):
    matrix = TransformLookup("the node")("camera", "camera", make_stamp(1, 0))
    np.testing.assert_array_equal(matrix, np.eye(4))
    assert tf2.asked == []


def test_without_tf2_ros_the_error_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    with pytest.raises(FrameError, match="apt install ros-.*-tf2-ros"):
        TransformLookup("the node")
