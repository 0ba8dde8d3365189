"""Images in, people out: the node over real DDS, the built one in a process and in this one."""

import itertools
import signal
import sys
import time

import numpy as np
import pytest
from node_rig import (
    CLIP,
    FRAME_ID,
    SMALL,
    BuiltNode,
    Robot,
    added,
    deleted,
    make_image,
    make_info,
    messages,
    stamp_of,
    wait_until,
)
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from visualization_msgs.msg import Marker

from mppe_ros import deployment, media, throttle
from mppe_ros import node as node_module
from mppe_ros.depth import torso_depth_mm
from mppe_ros.frames import FrameError
from mppe_ros.throttle import Throttle
from mppe_ros.weights import DEFAULT

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def people():
    """A frame of the sample clip."""
    with media.open_media(CLIP) as clip:
        return next(iter(clip)).rgb


@pytest.fixture(scope="module")
def black(people):
    return np.zeros_like(people)


# --- the built node, in a process of its own -----------------------------------------------------


RELIABLE_CAMERA = [
    argument
    for topic in ("image_raw", "camera_info")
    for argument in ("-p", f"qos_overrides./built/{topic}.subscription.reliability:=reliable")
]


@pytest.fixture(scope="module")
def built():
    node = BuiltNode("/built", *RELIABLE_CAMERA, "-p", "marker_lifetime:=2")
    node.wait_for("listening on")
    yield node
    assert node.end(signal.SIGTERM) == 0, "".join(node.lines)


@pytest.fixture
def robot_of_built(built):
    robot = Robot("/built")
    yield robot
    robot.close()


def test_people_come_out_with_the_images_stamp_and_frame(robot_of_built, people):
    robot = robot_of_built
    poses = robot.get_poses(people, make_info(people))
    assert poses.header.frame_id == FRAME_ID
    assert (poses.image_width, poses.image_height) == (people.shape[1], people.shape[0])
    assert poses.intrinsics_source == messages.Pose3DArray.INTRINSICS_CALIBRATED
    assert poses.model.startswith(DEFAULT)
    assert poses.poses
    for pose in poses.poses:
        assert len(pose.joints) == len(poses.joint_names)
        assert pose.root.pose.position.z > 0
        assert 0 < pose.score <= 1
    for stamp in {stamp_of(m) for m in robot.poses}:
        assert stamp[1] == 123456789


def test_markers_of_people_who_left_are_deleted(robot_of_built, people, black):
    robot = robot_of_built
    shown = wait_until(
        lambda: next(filter(added, robot.markers), None),
        lambda: robot.get_poses(people, make_info(people)),
    )
    poses = wait_until(lambda: robot.poses_of(stamp_of(shown.markers[0])))
    assert {marker.header.frame_id for marker in shown.markers} == {FRAME_ID}
    assert min(m.lifetime.sec for m in shown.markers if m.action == Marker.ADD) >= 2
    assert {key[0] for key in added(shown)} == {"joints", "bones", "labels", "boxes"}
    # Time went back since the last test: those whom it saw may be in this message for a last time.
    there = [p for p in poses.poses if p.tracking_state != p.STATE_LOST]
    assert {key[1] for key in added(shown)} == {p.track_id for p in there}

    def come_and_go():
        del robot.markers[:]
        robot.get_poses(people, make_info(people))
        # They coast for a while: the stamps are a second apart.
        wait_until(lambda: not robot.get_poses(black, make_info(black)).poses)

    def all_gone():
        everything = set().union(*map(added, robot.markers))
        return everything and everything <= set().union(*map(deleted, robot.markers))

    # Only the newest markers are kept for a listener: on a busy machine it may miss some.
    wait_until(all_gone, come_and_go)


def test_exported_networks_serve_as_weights(tmp_path, people):
    deployment.export(DEFAULT, tmp_path / "set", "torchscript")
    node = BuiltNode("/exported", "-p", f"weights:={tmp_path / 'set'}", "-p", "device:=cpu")
    robot = Robot("/exported")
    try:
        node.wait_for("listening on")
        info = make_info(people)
        poses = wait_until(lambda: robot.get_poses(people, info).poses)
        assert {len(pose.joints) for pose in poses} == {21}
        # There is no network for this, and no end of the node.
        assert robot.change("flip_test", True) == (True, "")
        wait_until(
            lambda: robot.log(r"no root_pose_flip: run 'mppe export' with --flip-test"),
            lambda: robot.send(make_image(people), info),
        )
        assert robot.change("flip_test", False) == (True, "")
        assert wait_until(lambda: robot.get_poses(people, info).poses)
    finally:
        robot.close()
        ended = node.end(signal.SIGTERM)
    assert ended == 0, "".join(node.lines)


def zero_focal_length(image):
    return make_image(image), make_info(image, k=[0.0] * 9), r"camera_info on /built.*fx = 0"


def wrong_encoding(image):
    return make_image(image, "16SC1"), make_info(image), r"image on /built/image_raw.*16SC1"


def wrong_size(image):
    info = make_info(image, width=32, height=24)
    return make_image(image), info, r"px, camera_info is for 32x24 px"


def truncated(image):
    message = make_image(image)
    message.data = message.data[:100]
    return message, make_info(image), r"image on /built/image_raw.*100 bytes of data"


@pytest.mark.parametrize("fault", [zero_focal_length, wrong_encoding, wrong_size, truncated])
def test_a_fault_is_an_error_without_poses_and_the_next_good_image_works(
    robot_of_built, black, fault
):
    robot = robot_of_built
    image, info, error = fault(black)
    wait_until(lambda: robot.log(error), lambda: robot.send(image, info))
    # By now the node has this camera_info, so this image must fail whichever comes first.
    faulty = robot.send(image)
    robot.get_poses(black, make_info(black))
    assert robot.poses_of(faulty) is None


def test_parameters_change_live_and_bad_ones_are_refused(robot_of_built, people):
    robot, info = robot_of_built, make_info(people)
    # The detector may rest, as nobody was there in the images before.
    wait_until(lambda: robot.get_poses(people, info).poses)
    assert robot.change("max_persons", 1) == (True, "")
    wait_until(lambda: len(robot.get_poses(people, info).poses) == 1)
    successful, reason = robot.change("max_persons", 0)
    assert not successful and "max_persons" in reason
    successful, reason = robot.change("detection_threshold", "high")
    assert not successful and "must be a number" in reason
    successful, reason = robot.change("weights", "3dmppe")
    assert not successful and "read-only" in reason
    assert robot.change("max_persons", 20) == (True, "")


def test_qos_overrides_hold_and_an_incompatible_publisher_is_reported(robot_of_built):
    robot = robot_of_built

    def node_subscriptions(topic):
        found = robot.node.get_subscriptions_info_by_topic(f"/built/{topic}")
        return [item for item in found if item.node_name == "mppe"]

    for topic in ("image_raw", "camera_info"):
        (subscription,) = wait_until(lambda topic=topic: node_subscriptions(topic))
        assert subscription.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    robot.node.create_publisher(Image, "image_raw", best_effort)
    wait_until(lambda: robot.log(r"qos_overrides\./built/image_raw\.subscription\.reliability"))


def test_a_busy_node_ends_on_ctrl_c_with_its_markers_removed(robot, people):
    """Also: compressed images, best effort, no calibration."""
    cv2 = pytest.importorskip("cv2")
    arguments = ("-p", "image_transport:=compressed", "-p", "assumed_fov_deg:=60")
    node = BuiltNode(robot.namespace, *arguments)
    node.wait_for("listening on .*image_raw/compressed")
    data = cv2.imencode(".jpg", people[..., ::-1])[1].tobytes()
    poses = robot.get_poses(CompressedImage(format="jpeg", data=data))
    assert poses.intrinsics_source == messages.Pose3DArray.INTRINSICS_ASSUMED
    assert poses.poses
    for _ in range(3):
        robot.send(CompressedImage(format="jpeg", data=data))
    assert node.end(signal.SIGINT) == 0, "".join(node.lines)
    assert not node.has("Traceback")
    wait_until(lambda: [m.action for m in robot.markers[-1].markers] == [Marker.DELETEALL])


def test_an_impossible_start_is_one_sentence_and_exit_status_1():
    node = BuiltNode("/impossible", "-p", "weights:=no_such_set")
    assert node.wait() == 1
    assert node.has(r"ERROR.*cannot configure: .*no_such_set")
    assert not node.has("Traceback")


# --- in this process, without networks -----------------------------------------------------------


@pytest.fixture
def start(robot, host):
    """Starts a node with these parameters around a fake pipeline."""
    return lambda **values: host.start(robot.namespace, **values)


def test_images_wait_for_camera_info_and_silence_is_reported(robot, start):
    node = start()
    wait_until(lambda: robot.log("no image on /.*/image_raw for"))
    wait_until(lambda: robot.log("no camera_info on /.*/camera_info"), lambda: robot.send(SMALL))
    assert robot.poses == []
    assert node.stats.without_camera == node.stats.received == node.stats.dropped
    robot.get_poses(SMALL, make_info(SMALL))


def test_a_camera_that_changes_its_size_is_followed(robot, start):
    start()
    large = np.zeros((24, 32, 3), np.uint8)
    for image in (SMALL, large, SMALL):
        stamps = []

        def answered(stamps=stamps, width=image.shape[1]):
            return [m for m in robot.poses if stamp_of(m) in stamps and m.image_width == width]

        def send(stamps=stamps, image=image):
            stamps.append(robot.send(image, make_info(image)))

        wait_until(answered, send)


def test_a_failing_pipeline_is_reported_once_and_recovers(robot, start):
    node = start()
    info, white = make_info(SMALL), np.full_like(SMALL, 255)
    robot.get_poses(SMALL, info)
    wait_until(lambda: node.stats.failed >= 3, lambda: robot.send(white, info))
    robot.get_poses(SMALL, info)
    wait_until(lambda: robot.log("no memory"))
    assert len(robot.log("image on /.* failed: RuntimeError: no memory")) == 1
    stats = node.stats
    assert stats.processed + stats.failed + stats.dropped <= stats.received


def test_old_images_are_dropped_with_the_reason(robot, start):
    node = start(max_image_age=30.0)
    info = make_info(SMALL)
    wait_until(
        lambda: robot.log("older than max_image_age"), lambda: robot.send(SMALL, info)
    )  # of 1970
    assert node.stats.too_old > 0
    assert robot.poses == []

    def now():
        return node.get_clock().now().seconds_nanoseconds()

    wait_until(lambda: robot.poses, lambda: robot.send(SMALL, info, stamp=now()))
    assert robot.change("max_image_age", 0.0) == (True, "")
    robot.get_poses(SMALL, info)


def test_the_rate_is_limited_live(robot, start):
    node = start()
    info = make_info(SMALL)
    robot.get_poses(SMALL, info)
    assert robot.change("max_rate", 2) == (True, "")
    starts_s = node._processor.pipeline.starts_s
    before, began_s = len(starts_s), time.monotonic()
    wait_until(lambda: len(starts_s) >= before + 3, lambda: robot.send(SMALL, info))
    done = len(starts_s) - before
    assert done <= (time.monotonic() - began_s) * 2 + 1


def test_live_parameters_reach_the_pipeline(robot, start):
    node = start(detection_threshold=0.3)
    info, pipeline = make_info(SMALL), node._processor.pipeline
    robot.get_poses(SMALL, info)
    assert pipeline.options.detection_threshold == 0.3
    assert robot.change("max_range", 7) == (True, "")
    wait_until(lambda: pipeline.options.max_range_m == 7, lambda: robot.send(SMALL, info))
    assert not robot.change("max_range", -1.0)[0]
    assert node.settings.max_range == 7


# --- depth, other frames, uncertainty, synchronisation ------------------------------------------


def make_depth(depth_m, shape=SMALL.shape[:2]):
    height, width = shape
    message = Image(height=height, width=width, encoding="32FC1", step=4 * width)
    message.data.frombytes(np.full(shape, depth_m, np.float32).tobytes())
    message.header.frame_id = FRAME_ID
    return message


def depth_value(robot, pattern=""):
    status = robot.status(pattern)
    return status[1].get("depth") if status else None


def test_depth_images_correct_the_distances(robot, start):
    start(depth_fusion=True)

    def send(depth):
        robot.send(SMALL, make_info(SMALL), depth=depth)

    surface_m = 3.0 - torso_depth_mm(0.0, np.inf) / 1000  # the fake person has no front
    wait_until(
        lambda: depth_value(robot) == "1 of 1 people corrected",
        lambda: send(make_depth(surface_m)),
    )
    level, _ = wait_until(
        lambda: robot.status("depth on .* is of no use: .*registered"),
        lambda: send(make_depth(3.0, (6, 8))),
    )
    assert level == 1
    assert robot.poses[-1].poses  # people come out all the same
    assert len(wait_until(lambda: robot.log("depth on .*registered"))) == 1


class FakeLookup:
    """A camera 10 m east of the origin of "map", after its first image."""

    def __init__(self, node):
        self.calls = 0

    def __call__(self, frame_id, source_frame_id, stamp):
        assert (frame_id, source_frame_id) == ("map", FRAME_ID)
        assert stamp.nanosec == 123456789
        self.calls += 1
        if self.calls == 1:
            raise FrameError("no map yet")
        matrix = np.eye(4)
        matrix[0, 3] = 10.0
        return matrix

    def close(self):
        pass


def test_people_are_taken_to_the_output_frame(robot, start, monkeypatch):
    monkeypatch.setattr(node_module, "TransformLookup", FakeLookup)
    # Pixels of smoothed joints would be those of their places.
    start(output_frame="map", **{"smoothing.enabled": False})
    first = robot.send(SMALL, make_info(SMALL))
    poses = robot.get_poses(SMALL, make_info(SMALL))
    assert poses.header.frame_id == "map"
    assert poses.poses[0].root.pose.position.x == pytest.approx(10.0)
    assert poses.poses[0].joints[0].u == 5
    assert robot.poses_of(first) is None
    wait_until(lambda: robot.log("have no place in output_frame: no map yet"))
    shown = wait_until(lambda: next(filter(added, robot.markers), None))
    assert {marker.header.frame_id for marker in shown.markers} == {"map"}


def test_an_output_frame_needs_tf2_and_says_so(robot, start, monkeypatch):
    monkeypatch.setitem(sys.modules, "tf2_ros", None)
    node = start(output_frame="map", autostart=False)
    assert node.trigger_configure() != TransitionCallbackReturn.SUCCESS
    wait_until(lambda: robot.log("cannot configure: .*apt install ros-.*-tf2-ros"))


def test_people_are_taken_to_the_output_frame_by_tf2(robot, start):
    tf2_ros = pytest.importorskip("tf2_ros", reason="needs ros-$ROS_DISTRO-tf2-ros")
    from geometry_msgs.msg import TransformStamped

    broadcaster = tf2_ros.StaticTransformBroadcaster(robot.node)
    transform = TransformStamped(child_frame_id=FRAME_ID)
    transform.header.frame_id = "map"
    transform.transform.translation.x = 10.0
    transform.transform.rotation.w = 1.0
    broadcaster.sendTransform(transform)
    start(output_frame="map")
    poses = robot.get_poses(SMALL, make_info(SMALL))
    assert poses.header.frame_id == "map"
    assert poses.poses[0].root.pose.position.x == pytest.approx(10.0)


def test_uncertainty_is_shown_on_demand(robot, start):
    start()
    robot.get_poses(SMALL, make_info(SMALL))
    shown = wait_until(lambda: next(filter(added, robot.markers), None))
    assert "uncertainty" not in {namespace for namespace, _ in added(shown)}
    assert robot.change("uncertainty_markers", True) == (True, "")
    wait_until(
        lambda: ("uncertainty", 1) in added(robot.markers[-1]),
        lambda: robot.send(SMALL, make_info(SMALL)),
    )
    assert robot.change("uncertainty_markers", False) == (True, "")
    wait_until(
        lambda: any(("uncertainty", 1) in deleted(markers) for markers in robot.markers),
        lambda: robot.send(SMALL, make_info(SMALL)),
    )


@pytest.mark.parametrize("mode", ["exact", "approximate"])
def test_images_wait_for_the_camera_info_of_their_time(robot, start, mode):
    pytest.importorskip("message_filters", reason="needs ros-$ROS_DISTRO-message-filters")
    node = start(camera_info_sync=mode)
    poses = robot.get_poses(SMALL, make_info(SMALL))
    assert poses.poses
    # One at a time: of two that come together the node takes the newest.
    alone, infos = set(), itertools.cycle([None, make_info(SMALL)])

    def send():
        info = next(infos)
        stamp = robot.send(SMALL, info)
        if info is None:
            alone.add(stamp)

    wait_until(lambda: node.stats.unpaired > 0, send)
    assert not alone & {stamp_of(message) for message in robot.poses}


def test_a_throttle_counts_texts_that_differ_in_numbers_as_one(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(throttle.time, "monotonic", lambda: now_s)
    limit = Throttle(period_s=5.0)
    assert limit.allows("100 bytes short")
    assert not limit.allows("2 bytes short")
    assert limit.allows("another fault")
    now_s = 5.0
    assert limit.allows("3 bytes short")
