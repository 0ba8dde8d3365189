"""Depth images, other frames and what is known of a root's pose: the node over real DDS."""

from dataclasses import replace

import numpy as np
import pytest
from geometry_msgs.msg import Point
from node_host import FakePipeline, make_person
from node_rig import FRAME_ID, SMALL, added, make_image, make_info, stamp_of, wait_until
from sensor_msgs.msg import Image
from transforms3d.quaternions import mat2quat, quat2mat

from mppe_ros import camera
from mppe_ros import node as node_module
from mppe_ros.depth import torso_depth_mm
from mppe_ros.frames import FrameError
from mppe_ros.structures import JointStatus

pytestmark = pytest.mark.ros

TRUE_M, ROOTNET_M = 3.0, 3.3
# The fake person has no front.
SURFACE_M = TRUE_M - torso_depth_mm(0.0, np.inf) / 1000
INFO = make_info(SMALL)
PRINCIPAL_PX = np.array([8.0, 6.0])
ROOT_MM = np.array([0.0, 0.0, ROOTNET_M * 1000])


class SkewedPipeline(FakePipeline):
    """Sees its person 0.3 m too far, with an error of a tenth of the distance."""

    def __init__(self, **changes):
        super().__init__()
        along, across = self.root_error.along * ROOT_MM[2], self.root_error.across_mm
        self.person = replace(
            make_person(),
            root_px=PRINCIPAL_PX,
            joints_px=np.tile(PRINCIPAL_PX, (len(self.skeleton), 1)),
            root_mm=ROOT_MM,
            root_covariance_mm2=camera.ray_covariance(ROOT_MM, along, across),
            joints_mm=np.tile(ROOT_MM, (len(self.skeleton), 1)),
            **changes,
        )

    def __call__(self, images, intrinsics):
        super().__call__(images, intrinsics)
        return [[self.person] for _ in images]


@pytest.fixture
def start(robot, host):
    host.pipeline = SkewedPipeline()

    def start(pipeline=None, **values):
        host.pipeline = pipeline or host.pipeline
        # Each image for itself: tracks would blend what depth says with what was seen before.
        return host.start(robot.namespace, **{"tracking.enabled": False, **values})

    return start


# --- depth ---------------------------------------------------------------------------------------


def make_depth(depth_m, encoding="32FC1", shape=SMALL.shape[:2]):
    height, width = shape
    if encoding == "16UC1":
        pixels = np.full(shape, round(depth_m * 1000), np.uint16)
    else:
        pixels = np.full(shape, depth_m, np.float32)
    step = pixels.itemsize * width
    message = Image(height=height, width=width, encoding=encoding, step=step)
    message.data.frombytes(pixels.tobytes())
    return message


def root_of(poses):
    return poses.poses[0].root


def corrected(robot):
    """The poses of somebody whom depth has brought to the true place."""
    return [p for p in robot.poses if abs(root_of(p).pose.position.z - TRUE_M) < 0.05]


@pytest.mark.parametrize("encoding", ["16UC1", "32FC1"])
def test_depth_corrects_distance_and_covariance(robot, start, encoding):
    start(depth_fusion=True)
    before = root_of(robot.get_poses(SMALL, INFO)).covariance  # no depth yet
    wait_until(
        lambda: corrected(robot),
        lambda: robot.send(SMALL, INFO, depth=make_depth(SURFACE_M, encoding)),
    )
    poses = corrected(robot)[0]
    after = root_of(poses).covariance
    assert after[14] < before[14] / 9  # along the ray, which is z here
    assert after[0] == pytest.approx(before[0], rel=0.01)  # across
    assert poses.poses[0].joints[0].position.z == root_of(poses).pose.position.z
    wait_until(lambda: (robot.status("") or ({}, {}))[1].get("depth") == "1 of 1 people corrected")


NO_DEPTH = r"depth on /.*/depth is of no use: there is none of the image's time"


@pytest.mark.parametrize(
    ("depth", "complaint"),
    [
        pytest.param(make_depth(np.nan), "", id="nothing measured"),
        pytest.param(make_depth(0.0, "16UC1"), "", id="zeros"),
        pytest.param(make_depth(9.0), "", id="glass"),
        pytest.param(make_depth(0.9), "", id="occluder"),
        pytest.param(make_depth(SURFACE_M, shape=(6, 8)), "registered", id="size"),
        pytest.param(make_image(SMALL), "rgb8.* is not depth", id="no depth image"),
        pytest.param(None, NO_DEPTH, id="missing"),
    ],
)
def test_rootnet_s_word_stands_where_depth_is_of_no_use(robot, start, depth, complaint):
    start(depth_fusion=True)
    sent = set()
    wait_until(
        lambda: sent & {stamp_of(p) for p in robot.poses},
        lambda: sent.add(robot.send(SMALL, INFO, depth=depth)),
    )
    for poses in robot.poses:
        assert root_of(poses).pose.position.z == pytest.approx(ROOTNET_M)
    if complaint:  # one that tells the owner what to mend
        (level, _) = wait_until(
            lambda: robot.status(complaint), lambda: robot.send(SMALL, INFO, depth=depth)
        )
        assert level == 1
        assert len(wait_until(lambda: robot.log(complaint))) == 1
    wait_until(
        lambda: corrected(robot),
        lambda: robot.send(SMALL, INFO, depth=make_depth(SURFACE_M)),
    )


def test_stale_depth_is_not_used(robot, start):
    start(depth_fusion=True)

    def send():
        seconds, nanoseconds = robot.next_stamp()
        stale = make_depth(SURFACE_M)
        stale.header.stamp.sec, stale.header.frame_id = seconds, FRAME_ID  # 0.12 s earlier
        robot.depths.publish(stale)
        robot.send(SMALL, INFO, stamp=(seconds, nanoseconds))

    wait_until(lambda: robot.status(NO_DEPTH), send)
    assert robot.poses and corrected(robot) == []


def test_tracked_people_are_corrected_too(robot, start):
    start(depth_fusion=True, **{"tracking.enabled": True})
    robot.get_poses(SMALL, INFO)
    assert corrected(robot) == []
    wait_until(
        lambda: corrected(robot),
        lambda: robot.send(SMALL, INFO, depth=make_depth(SURFACE_M)),
    )


def test_without_depth_fusion_nobody_listens_to_depth(robot, start):
    start()
    robot.get_poses(SMALL, INFO)
    assert robot.node.count_subscribers(f"{robot.namespace}/depth") == 0


# --- another frame -------------------------------------------------------------------------------

# The camera looks along x of "map", 10 m east of its origin and 2 m high: columns are its axes.
LOOKING_EAST = np.array([[0, 0, 1, 10.0], [-1, 0, 0, 0], [0, -1, 0, 2], [0, 0, 0, 1]])


class Lookup:
    """tf2's place; knows where the camera is unless it is ``lost``."""

    lost = False

    def __init__(self, node):
        pass

    def __call__(self, frame_id, source_frame_id, stamp):
        if Lookup.lost:
            raise FrameError("extrapolation into the future")
        return LOOKING_EAST

    def close(self):
        pass


@pytest.fixture
def lookup(monkeypatch):
    monkeypatch.setattr(node_module, "TransformLookup", Lookup)
    monkeypatch.setattr(Lookup, "lost", False)
    return Lookup


def facing_person():
    """REP 155 in the camera's frame of somebody who faces the camera: x to it, z up."""
    axes = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float)
    return SkewedPipeline(
        root_orientation_xyzw=np.roll(mat2quat(axes), -1),
        root_orientation_covariance=np.diag([0.01, 0.04, 0.09]),
    )


def axes_of(pose):
    q = pose.orientation
    return quat2mat([q.w, q.x, q.y, q.z])


def test_everything_of_a_pose_is_in_the_output_frame(robot, start, lookup):
    start(facing_person(), output_frame="map")
    poses = robot.get_poses(SMALL, INFO)
    root = root_of(poses)
    assert poses.header.frame_id == "map"
    place = root.pose.position
    assert (place.x, place.y, place.z) == pytest.approx((13.3, 0, 2))
    assert poses.poses[0].joints[0].position == Point(x=place.x, y=place.y, z=place.z)
    assert (poses.poses[0].joints[0].u, poses.poses[0].joints[0].v) == (8, 6)
    # Long along x of the map, where the camera looks.
    covariance = np.reshape(root.covariance, (6, 6))
    np.testing.assert_allclose(np.diag(covariance)[:3], [0.33**2, 0.04**2, 0.04**2], rtol=1e-3)
    np.testing.assert_allclose(np.diag(covariance)[3:], [0.09, 0.01, 0.04], rtol=1e-3)
    # Facing the camera is looking west.
    np.testing.assert_allclose(axes_of(root.pose), [[-1, 0, 0], [0, -1, 0], [0, 0, 1]], atol=1e-6)
    shown = wait_until(lambda: next(filter(added, robot.markers), None))
    assert {marker.header.frame_id for marker in shown.markers} == {"map"}
    label = next(marker for marker in shown.markers if marker.ns == "labels")
    assert label.pose.position.z > 2.1  # above the head, in the map's sense


def test_a_failed_lookup_publishes_nothing_and_the_next_good_one_works(robot, start, lookup):
    node = start(output_frame="map")
    robot.get_poses(SMALL, INFO)
    lookup.lost = True
    failed_before, sent = node.stats.failed, []
    wait_until(
        lambda: node.stats.failed >= failed_before + 3,
        lambda: sent.append(robot.send(SMALL, INFO)),
    )
    wait_until(lambda: robot.status("no place in output_frame: extrapolation"))
    lookup.lost = False
    good = robot.get_poses(SMALL, INFO)
    assert good.header.frame_id == "map" and good.poses
    # Whatever was sent while lost: no message at all, not an empty one either.
    answered = {stamp_of(poses) for poses in robot.poses}
    assert len(answered & set(sent)) <= 1  # the first may have been looked at before
    assert all(poses.poses and poses.header.frame_id == "map" for poses in robot.poses)
    assert len(wait_until(lambda: robot.log("no place in output_frame"))) == 1


# --- what is known of a pose ---------------------------------------------------------------------


def test_orientations_and_joint_status_are_told_as_they_are(robot, start):
    pipeline = facing_person()
    status = np.zeros(len(pipeline.skeleton), np.uint8)
    status[:4] = list(JointStatus)
    joints_mm = pipeline.person.joints_mm.copy()
    joints_mm[3] = np.nan
    pipeline.person = replace(pipeline.person, joint_status=status, joints_mm=joints_mm)
    start(pipeline)
    pose = robot.get_poses(SMALL, INFO).poses[0]
    assert [joint.status for joint in pose.joints[:5]] == [0, 1, 2, 3, 0]
    assert np.isnan(pose.joints[3].position.x) and np.isfinite(pose.joints[2].position.x)
    np.testing.assert_allclose(axes_of(pose.root.pose)[:, 0], [0, 0, -1], atol=1e-6)
    assert np.reshape(pose.root.covariance, (6, 6))[5, 5] == pytest.approx(0.09)


def test_an_unknown_orientation_has_variance_minus_one(robot, start):
    start()
    root = root_of(robot.get_poses(SMALL, INFO))
    covariance = np.reshape(root.covariance, (6, 6))
    np.testing.assert_array_equal(covariance[3:, 3:], -np.eye(3))
    assert (covariance[:3, 3:] == 0).all()
    np.testing.assert_array_equal(axes_of(root.pose), np.eye(3))
