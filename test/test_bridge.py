"""The bridge: PoseArray over DDS, REP 155's topics where hri_msgs is, and its executable."""

import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from domain import DOMAIN_ID
from geometry_msgs.msg import PoseArray
from node_host import make_host
from node_rig import (
    EXECUTABLE,
    SMALL,
    TIMEOUT_S,
    BuiltNode,
    Robot,
    make_info,
    messages,
    rclpy,
    stamp_of,
    wait_until,
)
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from mppe_ros import bridge
from mppe_ros.bridge import (
    BridgeError,
    PoseBridge,
    body_transform,
    normalised_box,
    orientation_known,
    root_poses,
    skeleton2d_points,
)
from mppe_ros.skeletons import HUMAN36M_17, SKELETONS

Pose3D, Joint3D, Pose3DArray = messages.Pose3D, messages.Joint3D, messages.Pose3DArray
WIDTH, HEIGHT = 640, 480


def make_pose(track_id=1, position=(1.0, 2.0, 3.0), state=Pose3D.STATE_TRACKED, known=True):
    pose = Pose3D(track_id=track_id, tracking_state=state, score=0.75)
    place = pose.root.pose.position
    place.x, place.y, place.z = position
    # Facing the camera: x of the body along -z of the camera, z along -y.
    if known:
        turn = pose.root.pose.orientation
        turn.w, turn.x, turn.y, turn.z = 0.5, -0.5, 0.5, 0.5
    covariance = np.diag([0.1, 0.1, 0.1, *([0.2] * 3 if known else [-1.0] * 3)])
    pose.root.covariance = covariance.ravel().tolist()
    pose.joints = [
        Joint3D(u=10.0 * index, v=5.0 * index, score=0.5) for index in range(len(HUMAN36M_17))
    ]
    pose.bbox = np.array([99.5, 49.5, 160.0, 240.0], np.float32)
    return pose


def make_poses(*people, stamp=(12, 345)):
    message = Pose3DArray(
        skeleton=HUMAN36M_17.name,
        joint_names=list(HUMAN36M_17.joint_names),
        image_width=WIDTH,
        image_height=HEIGHT,
        poses=list(people),
    )
    message.header.frame_id = "camera"
    message.header.stamp.sec, message.header.stamp.nanosec = stamp
    return message


# --- from message to message ---------------------------------------------------------------------


def test_roots_are_those_who_are_somewhere():
    lost = make_pose(2, state=Pose3D.STATE_LOST)
    nowhere = make_pose(3, position=(float("nan"), 0.0, 1.0))
    coasting = make_pose(4, position=(4.0, 0.0, 5.0), state=Pose3D.STATE_COASTING)
    message = make_poses(make_pose(1), lost, nowhere, coasting)
    roots = root_poses(message)
    assert roots.header == message.header
    assert [(p.position.x, p.position.z) for p in roots.poses] == [(1, 3), (4, 5)]
    assert root_poses(make_poses()).poses == []


def test_an_unknown_orientation_is_known_by_its_variance():
    assert orientation_known(make_pose(known=True))
    assert not orientation_known(make_pose(known=False))
    orientation = root_poses(make_poses(make_pose(known=False))).poses[0].orientation
    assert (orientation.x, orientation.y, orientation.z, orientation.w) == (0, 0, 0, 1)


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        # Pixel centres are whole numbers, so the image reaches from -0.5.
        ((-0.5, -0.5, WIDTH, HEIGHT), (0, 0, 1, 1)),
        ((99.5, 49.5, 160, 240), (100 / WIDTH, 50 / HEIGHT, 260 / WIDTH, 290 / HEIGHT)),
        ((-50, -50, 2000, 2000), (0, 0, 1, 1)),
    ],
)
def test_boxes_are_parts_of_the_image(bbox, expected):
    pose = make_pose()
    pose.bbox = np.array(bbox, np.float32)
    assert normalised_box(pose, WIDTH, HEIGHT) == pytest.approx(expected)


# OpenPose's order, as hri_msgs/Skeleton2D numbers it.
OPENPOSE_18 = (
    "Nose", "Neck", "R_Shoulder", "R_Elbow", "R_Wrist", "L_Shoulder", "L_Elbow", "L_Wrist",
    "R_Hip", "R_Knee", "R_Ankle", "L_Hip", "L_Knee", "L_Ankle",
    "L_Eye", "R_Eye", "L_Ear", "R_Ear",
)  # fmt: skip


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_joint_set_fills_the_limbs_of_the_skeleton(skeleton):
    pose = make_pose()
    pose.joints = [Joint3D(u=float(i), v=100.0, score=0.5) for i in range(len(skeleton))]
    points = skeleton2d_points(pose, skeleton.joint_names, WIDTH, HEIGHT)
    assert len(points) == len(OPENPOSE_18) == len(bridge.SKELETON2D)
    for name, point in list(zip(OPENPOSE_18, points, strict=True))[2:14]:
        index = skeleton.joint_names.index(name)
        assert point == pytest.approx(((index + 0.5) / WIDTH, 100.5 / HEIGHT, 0.5))
    assert points[14:] == [(0.0, 0.0, 0.0)] * 4  # no set has eyes or ears


@pytest.mark.parametrize("u", [-1.0, 640.0, float("nan"), float("inf")])
def test_a_joint_outside_the_image_has_no_confidence(u):
    pose = make_pose()
    index = HUMAN36M_17.joint_names.index("R_Knee")
    pose.joints[index].u = u
    points = skeleton2d_points(pose, HUMAN36M_17.joint_names, WIDTH, HEIGHT)
    assert points[OPENPOSE_18.index("R_Knee")] == (0.0, 0.0, 0.0)
    assert points[OPENPOSE_18.index("L_Knee")][2] == 0.5


def test_a_body_s_frame_is_its_root_in_the_frame_of_the_poses():
    message = make_poses(make_pose())
    transform = body_transform(message, message.poses[0], "b1")
    assert transform.header == message.header
    assert transform.child_frame_id == "body_b1"
    assert transform.transform.translation.z == 3
    assert transform.transform.rotation == message.poses[0].root.pose.orientation


# --- over DDS ------------------------------------------------------------------------------------


@pytest.fixture
def robot(request):
    robot = Robot(f"/{request.node.name.split('[')[0]}", listens=False)
    robot.outgoing = robot.node.create_publisher(Pose3DArray, "mppe/poses", 10)
    robot.roots = []
    robot.listen(PoseArray, "pose_bridge/root_poses", robot.roots.append, 10)
    yield robot
    robot.close()


@pytest.fixture
def start(robot):
    """Starts a bridge in this process, in the robot's namespace."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    executor = SingleThreadedExecutor(context=context)
    thread = threading.Thread(target=executor.spin, daemon=True)
    nodes = []

    def start(**values):
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        nodes.append(
            PoseBridge(
                namespace=robot.namespace, context=context, parameter_overrides=overrides
            )
        )
        executor.add_node(nodes[-1])
        thread.start()

    yield start
    executor.shutdown()
    if nodes:
        thread.join(TIMEOUT_S)
        nodes[-1].destroy_node()
    rclpy.shutdown(context=context)


def send_until(robot, condition, *people):
    wait_until(condition, lambda: robot.outgoing.publish(make_poses(*people)))


pytestmark = pytest.mark.ros


def test_planners_get_everybody_s_root(robot, start):
    start(rep155=False)
    send_until(robot, lambda: robot.roots, make_pose(1), make_pose(2, (4.0, 5.0, 6.0)))
    roots = robot.roots[0]
    assert (stamp_of(roots), roots.header.frame_id) == ((12, 345), "camera")
    assert [p.position.x for p in roots.poses] == [1, 4]
    assert roots.poses[0].orientation.y == 0.5
    # Nobody there is a message too: planners read it as free space.
    send_until(robot, lambda: robot.roots[-1].poses == [])


def test_it_reads_the_pose_node_beside_it(robot, start, monkeypatch):
    """The names fit without any remapping."""
    host = make_host(monkeypatch)
    try:
        host.start(robot.namespace)
        start(rep155=False)
        wait_until(lambda: robot.roots, lambda: robot.send(SMALL, make_info(SMALL)))
        assert robot.roots[0].poses[0].position.z == 3
    finally:
        host.close()


def bridge_log(robot, pattern):
    return [log.msg for log in list(robot.logs)
            if log.name.endswith("pose_bridge") and pattern in log.msg]  # fmt: skip


def test_without_hri_msgs_it_says_so_and_goes_on(robot, start, monkeypatch):
    monkeypatch.setitem(sys.modules, "hri_msgs", None)
    start()
    send_until(robot, lambda: robot.roots, make_pose())
    (text,) = wait_until(lambda: bridge_log(robot, "need hri_msgs"))
    assert "apt install ros-$ROS_DISTRO-hri-msgs" in text and "root_poses only" in text


class Bodies:
    """What a listener of REP 155 sees of a robot's bridge."""

    def __init__(self, robot):
        self._msg = pytest.importorskip(
            "hri_msgs.msg", reason="needs ros-$ROS_DISTRO-hri-msgs"
        )
        self._robot = robot
        self.tracked, self.boxes, self.skeletons = [], [], []
        robot.listen(self._msg.IdsList, "/humans/bodies/tracked", self.tracked.append, 10)

    def follow(self, body_id):
        topic = f"/humans/bodies/{body_id}"
        self._robot.listen(
            self._msg.NormalizedRegionOfInterest2D, f"{topic}/roi", self.boxes.append, 10
        )
        self._robot.listen(
            self._msg.Skeleton2D, f"{topic}/skeleton2d", self.skeletons.append, 10
        )

    def topics(self):
        names = self._robot.node.get_topic_names_and_types()
        return {name for name, _ in names if name.startswith("/humans/bodies/robot1_")}


def test_bodies_come_under_their_ids_and_go_with_their_people(robot, start):
    bodies = Bodies(robot)
    start(id_prefix="robot1_")
    two = make_pose(7), make_pose(9), make_pose(0)  # the last has no id: tracking is off
    send_until(robot, lambda: bodies.tracked, *two)
    assert bodies.tracked[0].ids == ["robot1_7", "robot1_9"]
    assert stamp_of(bodies.tracked[0]) == (12, 345)
    bodies.follow("robot1_7")
    send_until(robot, lambda: bodies.boxes and bodies.skeletons, *two)
    box, skeleton = bodies.boxes[0], bodies.skeletons[0]
    assert (box.xmin, box.ymax) == pytest.approx((100 / WIDTH, 290 / HEIGHT))
    assert box.c == pytest.approx(0.75)
    knee = HUMAN36M_17.joint_names.index("R_Knee")
    assert len(skeleton.skeleton) == 18
    assert skeleton.skeleton[9].x == pytest.approx((10 * knee + 0.5) / WIDTH)
    (text,) = wait_until(lambda: bridge_log(robot, "without track_id"))
    assert "tracking" in text

    send_until(robot, lambda: bodies.tracked[-1].ids == ["robot1_9"], make_pose(9))
    wait_until(
        lambda: (
            robot.node.count_publishers("/humans/bodies/robot1_7/roi") == 0
            and robot.node.count_publishers("/humans/bodies/robot1_9/roi") == 1
        )
    )


def test_bodies_have_frames_where_their_orientation_is_known(robot, start):
    pytest.importorskip("hri_msgs.msg", reason="needs ros-$ROS_DISTRO-hri-msgs")
    tf2_msgs = pytest.importorskip("tf2_msgs.msg", reason="needs ros-$ROS_DISTRO-tf2-msgs")
    frames = []
    robot.listen(tf2_msgs.TFMessage, "/tf", frames.append, 10)
    start(id_prefix="frames_")
    send_until(robot, lambda: frames, make_pose(3), make_pose(4, known=False))
    (transform,) = frames[0].transforms
    assert transform.child_frame_id == "body_frames_3"
    assert transform.header.frame_id == "camera"


def test_bodies_need_hri_msgs_and_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "hri_msgs", None)
    with pytest.raises(BridgeError, match="apt install ros-.*-hri-msgs"):
        bridge.Bodies(None, "b")


# --- the executable ------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_the_built_bridge_ends_on_signals_with_status_0(how):
    node = BuiltNode("/built_bridge", executable=EXECUTABLE.with_name("pose_bridge"))
    node.wait_for("listening on /built_bridge/mppe/poses")
    assert node.end(how) == 0, "".join(node.lines)
    assert not node.has("Traceback")


def test_a_bad_parameter_is_one_sentence_and_status_1():
    executable = EXECUTABLE.with_name("pose_bridge")
    if not executable.exists():
        pytest.skip(f"{executable} is not there: run make setup")
    done = subprocess.run(
        [sys.executable, executable, "--ros-args", "-p", "rep155:=perhaps"],
        capture_output=True, text=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot start" in done.stderr and "Traceback" not in done.stderr
