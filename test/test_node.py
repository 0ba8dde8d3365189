"""The node over real DDS: the built one in a subprocess, its rarer paths in this process.

Every test has a camera and a listener of its own; nodes are told apart by their namespaces.
"""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")
messages = pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

import torch  # noqa: E402
from rcl_interfaces.msg import Log  # noqa: E402
from rcl_interfaces.srv import SetParameters  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CameraInfo, CompressedImage, Image  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from mppe_ros import media  # noqa: E402
from mppe_ros import node as node_module  # noqa: E402
from mppe_ros.node import PoseNode, Throttle  # noqa: E402
from mppe_ros.skeletons import HUMAN36M_17  # noqa: E402
from mppe_ros.structures import Person  # noqa: E402

pytestmark = pytest.mark.ros

ROOT = Path(__file__).resolve().parents[1]
EXECUTABLE = ROOT / "install" / "mppe_ros" / "lib" / "mppe_ros" / "pose_node"
CLIP = ROOT / "mppe_ros" / "resources" / "sample" / "clip.mp4"
DOMAIN_ID = 1 + os.getpid() % 100  # other test runs on this machine have other ones
TIMEOUT_S = 60
FRAME_ID = "head_camera_optical_frame"
# What a node logged before we came, too.
KEPT_LOGS = QoSProfile(depth=1000, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def wait_until(condition, action=lambda: None, timeout_s=TIMEOUT_S):
    """Repeats ``action`` until ``condition`` holds."""
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        action()
        for _ in range(20):
            if result := condition():
                return result
            time.sleep(0.02)
    raise AssertionError(f"{condition} did not come true within {timeout_s} s")


# --- the other end -----------------------------------------------------------------------------


class Robot:
    """A camera and a listener around the node of one namespace."""

    def __init__(self, namespace):
        self.namespace = namespace
        self.poses, self.markers, self.logs = [], [], []
        self._count = 0
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN_ID)
        self.node = rclpy.create_node("robot", namespace=namespace, context=self._context)
        self.images = self.node.create_publisher(Image, "image_raw", 5)
        self.compressed = self.node.create_publisher(CompressedImage, "image_raw/compressed", 5)
        self.infos = self.node.create_publisher(CameraInfo, "camera_info", 5)
        listen = self.node.create_subscription
        listen(messages.Pose3DArray, "mppe/poses", self.poses.append, 10)
        listen(MarkerArray, "mppe/markers", self.markers.append, 10)
        listen(Log, "/rosout", self.logs.append, KEPT_LOGS)
        self.set_parameters = self.node.create_client(SetParameters, "mppe/set_parameters")
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def close(self):
        self._executor.shutdown()
        self._thread.join(TIMEOUT_S)
        self.node.destroy_node()
        rclpy.shutdown(context=self._context)

    def next_stamp(self):
        """A time that no other image of this robot has: s, ns."""
        self._count += 1
        return 1000 + self._count, 123456789

    def send(self, image, info=None, stamp=None):
        """Publishes camera_info, if any, and an image (array or message); the image's stamp."""
        stamp = stamp or self.next_stamp()
        if not isinstance(image, (Image, CompressedImage)):
            image = make_image(image)
        for message in (info, image):
            if message is not None:
                message.header.stamp.sec, message.header.stamp.nanosec = stamp
                message.header.frame_id = message.header.frame_id or FRAME_ID
        if info is not None:
            self.infos.publish(info)
        compressed = isinstance(image, CompressedImage)
        (self.compressed if compressed else self.images).publish(image)
        return stamp

    def poses_of(self, stamp):
        """The poses with this stamp, None if there are none (yet)."""
        return next((m for m in self.poses if stamp_of(m) == stamp), None)

    def get_poses(self, image, info=None):
        """Sends until one of the images is answered; that answer."""
        sent = set()
        wait_until(
            lambda: sent & {stamp_of(m) for m in self.poses},
            lambda: sent.add(self.send(image, info)),
        )
        return next(m for m in self.poses if stamp_of(m) in sent)

    def log(self, pattern):
        """The node's log messages that match."""
        name = f"{self.namespace}/mppe".strip("/").replace("/", ".")
        texts = [log.msg for log in list(self.logs) if log.name == name]
        return [text for text in texts if re.search(pattern, text)]

    def change(self, name, value):
        """Sets a parameter of the node; (successful, reason)."""
        assert self.set_parameters.wait_for_service(TIMEOUT_S)
        request = SetParameters.Request()
        request.parameters = [RosParameter(name, value=value).to_parameter_msg()]
        future = self.set_parameters.call_async(request)
        wait_until(future.done)
        (result,) = future.result().results
        return result.successful, result.reason


def stamp_of(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def make_image(rgb, encoding="rgb8"):
    height, width = rgb.shape[:2]
    message = Image(height=height, width=width, encoding=encoding, step=3 * width)
    message.data.frombytes(np.ascontiguousarray(rgb).tobytes())
    return message


def make_info(image, **changes):
    height, width = image.shape[:2]
    info = CameraInfo(width=width, height=height)
    info.k = [width * 1.0, 0.0, width / 2, 0.0, width * 1.0, height / 2, 0.0, 0.0, 1.0]
    for name, value in changes.items():
        setattr(info, name, value)
    return info


@pytest.fixture
def robot(request):
    robot = Robot(f"/{request.node.name.split('[')[0]}")
    yield robot
    robot.close()


@pytest.fixture(scope="module")
def people():
    """A frame of the sample clip."""
    with media.open_media(CLIP) as clip:
        return next(iter(clip)).rgb


@pytest.fixture(scope="module")
def black(people):
    return np.zeros_like(people)


# --- the built node, in a process of its own -----------------------------------------------------


class BuiltNode:
    """The installed executable; everything that it prints in ``lines``."""

    def __init__(self, namespace, *ros_arguments):
        if not EXECUTABLE.exists():
            pytest.skip(f"{EXECUTABLE} is not there: run make setup")
        self.lines = deque(maxlen=1000)
        self.process = subprocess.Popen(
            [sys.executable, EXECUTABLE, "--ros-args", "-r", f"__ns:={namespace}", *ros_arguments],
            env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN_ID), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        self.lines.extend(iter(self.process.stdout.readline, ""))

    def wait_for(self, pattern):
        wait_until(lambda: self.process.poll() is not None or self.has(pattern))
        assert self.has(pattern), "".join(self.lines)

    def has(self, pattern):
        return any(re.search(pattern, line) for line in list(self.lines))

    def end(self, with_signal):
        """Exit status after a signal."""
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        return self.wait()

    def wait(self):
        try:
            status = self.process.wait(TIMEOUT_S)
        finally:
            self.process.kill()
        self._reader.join(TIMEOUT_S)
        return status


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


def added(markers):
    return {(m.ns, m.id) for m in markers.markers if m.action == Marker.ADD}


def deleted(markers):
    return {(m.ns, m.id) for m in markers.markers if m.action == Marker.DELETE}


def test_people_come_out_with_the_images_stamp_and_frame(robot_of_built, people):
    robot = robot_of_built
    poses = robot.get_poses(people, make_info(people))
    assert poses.header.frame_id == FRAME_ID
    assert (poses.image_width, poses.image_height) == (people.shape[1], people.shape[0])
    assert poses.intrinsics_source == messages.Pose3DArray.INTRINSICS_CALIBRATED
    assert poses.model.startswith("open-v0")
    assert poses.poses
    for pose in poses.poses:
        assert len(pose.joints) == len(poses.joint_names)
        assert pose.root.pose.position.z > 0
        assert 0 < pose.score <= 1
    for stamp in {stamp_of(m) for m in robot.poses}:
        assert stamp[1] == 123456789


def test_markers_of_people_who_left_are_deleted(robot_of_built, people, black):
    robot = robot_of_built
    poses = robot.get_poses(people, make_info(people))
    shown = wait_until(lambda: next(filter(added, robot.markers), None))
    assert {marker.header.frame_id for marker in shown.markers} == {FRAME_ID}
    assert min(m.lifetime.sec for m in shown.markers if m.action == Marker.ADD) >= 2
    assert {key[0] for key in added(shown)} == {"joints", "bones", "labels", "boxes"}
    assert len({key[1] for key in added(shown)}) == len(poses.poses)

    assert robot.get_poses(black, make_info(black)).poses == []
    everything = set().union(*map(added, robot.markers))
    wait_until(lambda: everything <= set().union(*map(deleted, robot.markers)))


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
    assert robot.get_poses(people, info).poses
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
    assert node.has(r"FATAL.*cannot start: .*no_such_set")
    assert not node.has("Traceback")


# --- in this process, without networks -----------------------------------------------------------


class FakePipeline:
    """Sees one person in every image but a white one, on which it fails."""

    skeleton, model = HUMAN36M_17, "fake (0)"
    device, precision = torch.device("cpu"), torch.float32

    def __init__(self):
        self.options = None
        self.starts_s = []

    def __call__(self, images, intrinsics):
        self.starts_s.append(time.monotonic())
        if images[0].all():
            raise RuntimeError(f"no memory for {len(self.starts_s)} bytes")
        return [[make_person()] for _ in images]


def make_person():
    count = len(HUMAN36M_17)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([1.0, 1.0, 8.0, 8.0]),
        root_px=np.array([5.0, 5.0]),
        root_mm=np.array([0.0, 0.0, 3000.0]),
        root_covariance_mm2=np.eye(3),
        joints_px=np.full((count, 2), 5.0),
        joints_mm=np.full((count, 3), 3000.0),
        joint_scores=np.ones(count),
        joint_status=np.zeros(count, np.uint8),
    )


SMALL = np.zeros((12, 16, 3), np.uint8)


@pytest.fixture
def start(robot, monkeypatch):
    """Starts a node with these parameters around a fake pipeline."""
    monkeypatch.setattr(node_module.Pipeline, "load", lambda *_, **__: FakePipeline())
    monkeypatch.setattr(node_module, "_SILENCE_S", 0.3)
    monkeypatch.setattr(node_module, "_REPEAT_S", 3600.0)  # however slow this machine is
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    executor = SingleThreadedExecutor(context=context)
    thread = threading.Thread(target=executor.spin, daemon=True)
    nodes = []

    def make(**values):
        node = PoseNode(
            namespace=robot.namespace,
            context=context,
            parameter_overrides=[RosParameter(k, value=v) for k, v in values.items()],
        )
        nodes.append(node)
        node.load()
        node.start()
        executor.add_node(node)
        thread.start()
        return node

    yield make
    executor.shutdown()
    thread.join(TIMEOUT_S)
    for node in nodes:
        assert node.stop()
        node.destroy_node()
    rclpy.shutdown(context=context)


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
    starts_s = node._pipeline.starts_s
    before, began_s = len(starts_s), time.monotonic()
    wait_until(lambda: len(starts_s) >= before + 3, lambda: robot.send(SMALL, info))
    done = len(starts_s) - before
    assert done <= (time.monotonic() - began_s) * 2 + 1


def test_live_parameters_reach_the_pipeline(robot, start):
    node = start(detection_threshold=0.3)
    assert node._pipeline.options.detection_threshold == 0.3
    assert robot.change("max_range", 7) == (True, "")
    assert node._pipeline.options.max_range_m == 7
    assert not robot.change("max_range", -1.0)[0]
    assert node._pipeline.options.max_range_m == 7


def test_a_throttle_counts_texts_that_differ_in_numbers_as_one(monkeypatch):
    now_s = 0.0
    monkeypatch.setattr(node_module.time, "monotonic", lambda: now_s)
    throttle = Throttle(period_s=5.0)
    assert throttle.allows("100 bytes short")
    assert not throttle.allows("2 bytes short")
    assert throttle.allows("another fault")
    now_s = 5.0
    assert throttle.allows("3 bytes short")
