"""Operating the node over real DDS: lifecycle, services, diagnostics, nothing for nobody."""

import os
import signal
import sys
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.srv import ChangeState, GetState
from node_rig import (
    FRAME_ID,
    SMALL,
    TIMEOUT_S,
    BuiltNode,
    Robot,
    added,
    deleted,
    make_image,
    make_info,
    messages,
    namespace_of,
    stamp_of,
    wait_until,
)
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image
from std_srvs.srv import SetBool, Trigger
from visualization_msgs.msg import Marker

from mppe_ros import node as node_module
from mppe_ros import outputs
from mppe_ros.checkpoints import CheckpointError
from mppe_ros.synchronisation import Frame

pytestmark = pytest.mark.ros

INFO = make_info(SMALL)


@pytest.fixture
def name(request):
    return namespace_of(request)


def is_deleteall(markers):
    return [marker.action for marker in markers.markers] == [Marker.DELETEALL]


def change_state(robot, transition):
    request = ChangeState.Request()
    request.transition.label = transition
    return robot.call(ChangeState, "change_state", transition=request.transition).success


def state(robot):
    return robot.call(GetState, "get_state").current_state.label


# --- lifecycle ---------------------------------------------------------------------------------


def test_a_managed_node_goes_through_its_states(robot, host):
    node = host.start(robot.namespace, autostart=False)
    assert state(robot) == "unconfigured"
    wait_until(lambda: robot.status(r"not active \(unconfigured\)"))
    assert change_state(robot, "configure")
    wait_until(lambda: robot.log("loaded in .* weights fake"))
    wait_until(lambda: robot.status(r"not active \(inactive\)"))

    def image_subscriptions():
        return robot.node.count_subscribers("image_raw")

    assert image_subscriptions() == 0
    for _ in range(2):
        del robot.poses[:], robot.markers[:]
        assert change_state(robot, "activate")
        wait_until(lambda: robot.markers and is_deleteall(robot.markers[0]))
        assert robot.get_poses(SMALL, INFO).poses
        wait_until(lambda: any(map(added, robot.markers)))
        assert change_state(robot, "deactivate")
        wait_until(lambda: is_deleteall(robot.markers[-1]) and not robot.poses[-1].poses)
        last = robot.poses[-1]
        assert last.header.frame_id == robot.poses[0].header.frame_id
        assert last.joint_names == robot.poses[0].joint_names
        wait_until(lambda: image_subscriptions() == 0)
    assert change_state(robot, "cleanup")
    assert node._processor is None
    assert state(robot) == "unconfigured"
    assert change_state(robot, "shutdown")
    assert state(robot) == "finalized"


def test_what_cannot_be_configured_says_why_and_can_be_tried_again(robot, host, monkeypatch):
    def refuse(*_, **__):
        raise CheckpointError("no such weights")

    with monkeypatch.context() as patch:
        patch.setattr(node_module.Pipeline, "load", refuse)
        host.start(robot.namespace, autostart=False)
        assert not change_state(robot, "configure")
        assert state(robot) == "unconfigured"
        wait_until(lambda: robot.log("cannot configure: no such weights"))
        level, _ = wait_until(lambda: robot.status("cannot configure: no such weights"))
        assert level == 2
    assert change_state(robot, "configure")
    assert change_state(robot, "activate")
    robot.get_poses(SMALL, INFO)
    wait_until(lambda: robot.status("images/s"))


def test_what_cannot_be_activated_leaves_nothing_behind(robot, host, monkeypatch):
    monkeypatch.setitem(sys.modules, "message_filters", None)
    node = host.start(robot.namespace, autostart=False, camera_info_sync="exact")
    assert change_state(robot, "configure")
    assert not change_state(robot, "activate")
    wait_until(lambda: robot.log("cannot activate: .*apt install ros-.*-message-filters"))
    assert state(robot) == "unconfigured"
    assert node._processor is None
    wait_until(lambda: robot.node.count_subscribers("image_raw") == 0)


@pytest.mark.slow
def test_cleaning_up_frees_the_memory(host, monkeypatch):
    """Of real networks that have seen an image, over and over."""
    monkeypatch.undo()
    node = host.start("/memory", autostart=False)
    frame = Frame(make_image(SMALL), INFO)
    sizes = []
    for _ in range(10):
        assert node.trigger_configure() == TransitionCallbackReturn.SUCCESS
        node._processor(frame, node.settings)
        networks = weakref.ref(node._processor.pipeline.estimator)
        assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
        assert networks() is None
        sizes.append(resident_bytes())
    assert max(sizes) < 1.05 * sizes[0]


def test_cleaning_up_waits_for_the_image_that_is_being_processed(robot, host, monkeypatch):
    node = host.start(robot.namespace)
    host.pipeline.may_end.clear()
    wait_until(lambda: host.pipeline.starts_s, lambda: robot.send(SMALL, INFO))
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    threading.Timer(0.2, host.pipeline.may_end.set).start()
    monkeypatch.setattr(node_module, "_STOP_TIMEOUT_S", TIMEOUT_S)
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    assert node.stats.late == 1
    assert not robot.log("memory is freed later")


def test_cleaning_up_does_not_wait_for_ever(robot, host, monkeypatch):
    node = host.start(robot.namespace)
    host.pipeline.may_end.clear()
    wait_until(lambda: host.pipeline.starts_s, lambda: robot.send(SMALL, INFO))
    assert node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    monkeypatch.setattr(node_module, "_STOP_TIMEOUT_S", 0.01)
    assert node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    wait_until(lambda: robot.log("memory is freed later"))
    monkeypatch.undo()


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_result_that_comes_after_deactivation_is_not_published(robot, host):
    node = host.start(robot.namespace)
    robot.get_poses(SMALL, INFO)
    host.pipeline.may_end.clear()
    before = len(host.pipeline.starts_s)
    stamp = robot.send(SMALL, INFO)
    wait_until(lambda: len(host.pipeline.starts_s) > before, lambda: robot.send(SMALL, INFO))
    assert change_state(robot, "deactivate")
    assert change_state(robot, "activate")
    host.pipeline.may_end.set()
    wait_until(lambda: node.stats.late == 1)
    robot.get_poses(SMALL, INFO)
    assert robot.poses_of(stamp) is None


def test_a_built_node_waits_for_its_manager_and_ends_on_ctrl_c():
    node = BuiltNode("/managed", "-p", "autostart:=false")
    robot = Robot("/managed")
    try:
        assert state(robot) == "unconfigured"
        assert change_state(robot, "configure")
        assert change_state(robot, "activate")
        robot.get_poses(SMALL, INFO)  # from now on what the node publishes comes through
        answered = len(robot.poses)
        assert node.end(signal.SIGINT) == 0, "".join(node.lines)
        wait_until(lambda: len(robot.poses) > answered and not robot.poses[-1].poses)
        wait_until(lambda: is_deleteall(robot.markers[-1]))
        assert not node.has("Traceback")
    finally:
        node.end(signal.SIGKILL)
        robot.close()


# --- services ----------------------------------------------------------------------------------


def test_processing_is_switched_off_and_on(robot, host):
    host.start(robot.namespace)
    robot.get_poses(SMALL, INFO)
    response = robot.call(SetBool, "enable", data=False)
    assert response.success and "off" in response.message
    wait_until(lambda: not robot.poses[-1].poses and is_deleteall(robot.markers[-1]))
    wait_until(lambda: robot.status("processing is off"), lambda: robot.send(SMALL, INFO))
    done = len(host.pipeline.starts_s)
    for _ in range(3):
        robot.send(SMALL, INFO)
    assert state(robot) == "active"
    assert robot.call(SetBool, "enable", data=False).success  # again
    assert len(host.pipeline.starts_s) == done
    assert "on" in robot.call(SetBool, "enable", data=True).message
    assert robot.get_poses(SMALL, INFO).poses


def test_resetting_deletes_the_markers(robot, host):
    host.start(robot.namespace, autostart=False)
    assert not robot.call(Trigger, "reset_tracks").success
    assert change_state(robot, "configure") and change_state(robot, "activate")
    robot.get_poses(SMALL, INFO)
    wait_until(lambda: any(map(added, robot.markers)))
    response = robot.call(Trigger, "reset_tracks")
    assert response.success and "markers are deleted" in response.message
    wait_until(lambda: is_deleteall(robot.markers[-1]))
    robot.get_poses(SMALL, INFO)
    assert not any(map(deleted, robot.markers))


# --- diagnostics -------------------------------------------------------------------------------


def test_diagnostics_tell_how_it_goes(robot, host):
    host.start(robot.namespace)
    level, _ = wait_until(lambda: robot.status("no image on"))
    assert level == 2
    level, _ = wait_until(lambda: robot.status("no camera_info on"), lambda: robot.send(SMALL))
    assert level == 2
    _, values = wait_until(
        lambda: robot.status(r"images/s, 1 people"), lambda: robot.send(SMALL, INFO)
    )
    assert float(values["rate in (Hz)"]) > 0 and float(values["rate out (Hz)"]) > 0
    assert values["weights"] == "fake (0)" and values["device"] == "cpu"
    assert values["precision"] == "float32" and values["intrinsics"] == "calibrated"
    for stage in ("convert", "detect", "crop", "estimate", "place", "publish"):
        assert float(values[f"{stage} (ms)"]) >= 0
    assert float(values["age (ms)"]) > 0
    assert robot.diagnostics[-1].hardware_id == f"{robot.namespace}/image_raw"
    assert robot.diagnostics[-1].name == f"{robot.namespace}/mppe: people"


def test_diagnostics_tell_of_failing_images(robot, host):
    host.start(robot.namespace)
    white = np.full_like(SMALL, 255)
    level, _ = wait_until(
        lambda: robot.status("failed; .*no memory"), lambda: robot.send(white, INFO)
    )
    assert level == 2
    assert robot.change("max_image_age", 30.0) == (True, "")
    wait_until(
        lambda: (
            (robot.status("") or [0, {}])[1].get("dropped: older than max_image_age", "0") != "0"
        ),
        lambda: robot.send(SMALL, INFO),
    )


def test_camera_info_that_stops_coming_is_reported_where_each_image_needs_its_own(robot, host):
    pytest.importorskip("message_filters", reason="needs ros-$ROS_DISTRO-message-filters")
    host.start(robot.namespace, camera_info_sync="exact")
    robot.get_poses(SMALL, INFO)
    level, _ = wait_until(lambda: robot.status("no camera_info on"), lambda: robot.send(SMALL))
    assert level == 2
    wait_until(lambda: robot.status("images/s"), lambda: robot.send(SMALL, INFO))


@pytest.mark.parametrize("topic", ["image_raw", "camera_info", "depth"])
def test_a_publisher_whose_qos_does_not_fit_is_reported(robot, host, topic):
    name = f"{robot.namespace}/{topic}"
    override = f"qos_overrides.{name}.subscription.reliability"
    host.start(robot.namespace, depth_fusion=True, **{override: "reliable"})
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = robot.node.create_publisher(
        CameraInfo if topic == "camera_info" else Image, topic, best_effort
    )
    wait_until(lambda: robot.log(f"publisher of {name} offers another reliability .*{override}"))
    robot.node.destroy_publisher(publisher)


def test_the_camera_info_of_a_camera_that_sends_it_once(robot, host):
    """Before the node is there."""
    once = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = robot.node.create_publisher(CameraInfo, "camera_info", once)
    publisher.publish(INFO)
    topic = f"qos_overrides.{robot.namespace}/camera_info.subscription"
    host.start(
        robot.namespace,
        **{f"{topic}.durability": "transient_local", f"{topic}.reliability": "reliable"},
    )
    assert robot.get_poses(SMALL).poses


# --- nothing for nobody ------------------------------------------------------------------------


def test_nothing_is_computed_when_nobody_subscribes(name, host):
    robot = Robot(name, listens=False)
    try:
        node = host.start(name)
        wait_until(lambda: node.stats.idle >= 3, lambda: robot.send(SMALL, INFO))
        level, _ = wait_until(lambda: robot.status("idle: nobody subscribes"))
        assert level == 0
        assert host.pipeline.starts_s == []
        robot.listen(messages.Pose3DArray, "mppe/poses", robot.poses.append, 10)
        robot.get_poses(SMALL, INFO)
    finally:
        robot.close()


def test_the_debug_image_is_drawn_for_subscribers_only(name, host, monkeypatch):
    robot = Robot(name, listens=False)
    try:
        node = host.start(name)
        (publisher,) = (p for p in node.publishers if p.topic.endswith("debug_image"))
        subscription = robot.watch_debug_image()
        wait_until(lambda: robot.debug_images, lambda: robot.send(SMALL, INFO))
        image = robot.debug_images[0]
        assert (image.width, image.height, image.encoding) == (16, 12, "rgb8")
        assert image.header.frame_id == FRAME_ID
        assert stamp_of(image)[1] == 123456789
        assert any(image.data)  # the image is black, the person is not

        robot.node.destroy_subscription(subscription)
        wait_until(lambda: publisher.get_subscription_count() == 0)
        robot.listen(messages.Pose3DArray, "mppe/poses", robot.poses.append, 10)
        wait_until(lambda: robot.poses, lambda: robot.send(SMALL, INFO))
        drawn, before = [], len(robot.poses)
        monkeypatch.setattr(outputs, "draw_people", lambda *arguments: drawn.append(arguments))
        wait_until(lambda: len(robot.poses) > before + 3, lambda: robot.send(SMALL, INFO))
        assert drawn == []
    finally:
        robot.close()
