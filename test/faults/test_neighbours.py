"""Cameras that die, hurry, are silent or two; listeners that don't read; clocks that stop."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

import rclpy
from cases import NODES
from domain import DOMAIN_ID
from node_rig import TIMEOUT_S, make_image, make_info, wait_until
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rig import GOOD, Rig, Shot
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from mppe_ros import subscriptions

pytestmark = pytest.mark.ros

HERE = Path(__file__).parent


@contextmanager
def neighbour(kind, rig, rate_hz=20):
    process = subprocess.Popen(
        [sys.executable, HERE / "neighbour.py", kind, rig.robot.namespace, str(rate_hz)],
        env={
            **os.environ,
            "ROS_DOMAIN_ID": str(DOMAIN_ID),
            "PYTHONPATH": os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")]),
        },
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait(TIMEOUT_S)


# --- programs that end or hang -------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL", "SIGSTOP"])
@pytest.mark.parametrize("kind", ["camera", "listener"])
def test_a_neighbour_that_ends(rig, kind, how, note_answer):
    """Or stops in the middle of what it does, with all its connections open."""
    with rig.case():
        subscribers = rig.robot.node.count_subscribers
        before, listeners = rig.node.stats.processed, subscribers("mppe/poses")
        with neighbour(kind, rig) as process:
            if kind == "camera":
                wait_until(lambda: rig.node.stats.processed >= before + 2)
            else:
                wait_until(lambda: subscribers("mppe/poses") > listeners)
                rig.answer()
            process.send_signal(getattr(signal, how))
            if how != "SIGSTOP":
                process.wait(TIMEOUT_S)
            for _ in range(15):  # more than what is kept for a subscriber
                rig.answer()
        note_answer(rig.answer())
        assert rig.complaints == []


def test_a_camera_of_100_hz(rig, note_answer):
    """What is too much is dropped, and counted."""
    with rig.case():
        before = rig.node.stats.received
        with neighbour("camera", rig, rate_hz=100):
            wait_until(lambda: rig.node.stats.received >= before + 200)
        note_answer(rig.answer())
        stats = rig.node.stats
        assert stats.processed + stats.failed + stats.dropped <= stats.received
        assert stats.failed == 0


def test_two_cameras_on_one_topic(host, note_answer):
    rig = Rig(host, "/faults_two_cameras", **NODES["plain"])
    try:
        with rig.case():
            with neighbour("camera", rig):
                wait_until(lambda: rig.robot.log("2 publishers on /faults_two_cameras/image_raw"))
                level, _ = wait_until(lambda: rig.robot.status("2 publishers on"), rig.answer)
                assert level == 1
                for _ in range(10):
                    rig.answer()
            note_answer(rig.answer())
            assert rig.complaints == []
            assert len([text for text in rig.notices if "publishers on /" in text]) <= 2
            # Time jumps with every image; that is said once in a while, not every time.
            assert len([text for text in rig.notices if "people get new ids" in text]) <= 4
    finally:
        rig.close()


# --- silence -----------------------------------------------------------------------------------


def test_a_camera_that_dies_and_comes_back(rig, monkeypatch, note_answer):
    robot = rig.robot
    with rig.case():
        for publisher in (robot.images, robot.infos):
            robot.node.destroy_publisher(publisher)
        with monkeypatch.context() as patch:
            patch.setattr(subscriptions, "SILENCE_S", 0.3)
            level, _ = wait_until(lambda: robot.status("no image on .*/image_raw for"))
            assert level == 2
        robot.images = robot.node.create_publisher(Image, "image_raw", 5)
        robot.infos = robot.node.create_publisher(CameraInfo, "camera_info", 5)
        note_answer(rig.answer())
        (complaint,) = rig.complaints
        assert "no image on" in complaint


def begin_anew(rig):
    """As at the start: no camera_info yet."""
    assert rig.node.trigger_deactivate() and rig.node.trigger_activate()


def test_camera_info_that_is_missing_and_late(rig, monkeypatch, note_answer):
    with rig.case():
        begin_anew(rig)
        with monkeypatch.context() as patch:
            patch.setattr(subscriptions, "SILENCE_S", 0.3)
            stamps = rig.inflict(lambda: Shot(make_image(GOOD)), "without_camera")
            level, _ = wait_until(
                lambda: rig.robot.status("no camera_info on .*, and images wait"),
                lambda: rig.send(Shot(make_image(GOOD))),
            )
            assert level == 2
        note_answer(rig.answer())
        assert not [stamp for stamp in stamps if rig.robot.poses_of(stamp)]
        assert any("no camera_info on" in text for text in rig.complaints)


def test_camera_info_without_images(rig, note_answer):
    with rig.case():
        for _ in range(20):
            rig.send(Shot(info=make_info(GOOD)))
        note_answer(rig.answer())
        assert rig.complaints == []


def test_a_camera_that_changes_with_every_image(rig, note_answer):
    with rig.case():
        for size in (1, 3, 2, 1, 2):
            image = GOOD.repeat(size, 0).repeat(size, 1)
            before = rig.node.stats.processed
            wait_until(
                lambda before=before: rig.node.stats.processed > before,
                lambda image=image: rig.send(Shot(make_image(image), make_info(image))),
            )
        note_answer(rig.answer())
        assert rig.complaints == []


# --- subscribers and clocks ----------------------------------------------------------------------


def test_a_subscriber_that_is_never_spun(rig, note_answer):
    """In a context of its own, with all reliability there is."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    node = rclpy.create_node("sleeper", namespace=rig.robot.namespace, context=context)
    try:
        with rig.case():
            from mppe_ros.msg import Pose3DArray

            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
            before = rig.robot.node.count_subscribers("mppe/poses")
            node.create_subscription(Pose3DArray, "mppe/poses", print, qos)
            wait_until(lambda: rig.robot.node.count_subscribers("mppe/poses") > before)
            for _ in range(25):
                rig.answer()
            note_answer(rig.answer())
            assert rig.complaints == []
    finally:
        node.destroy_node()
        rclpy.shutdown(context=context)


@pytest.mark.parametrize("ticks", [0, 5], ids=["never runs", "stops"])
def test_a_simulated_clock_that(host, ticks, note_answer):
    namespace = f"/faults_clock_{ticks}"
    rig = Rig(host, namespace, **NODES["plain"], use_sim_time=True)
    try:
        with rig.case():
            clock = rig.robot.node.create_publisher(Clock, "/clock", 5)
            for tick in range(ticks):
                message = Clock()
                message.clock.sec = 1000 + tick
                wait_until(
                    lambda tick=tick: rig.node.get_clock().now().nanoseconds >= tick * 10**9,
                    lambda message=message: clock.publish(message),
                )
            count = len(rig.robot.diagnostics)
            wait_until(lambda: len(rig.robot.diagnostics) > count + 2)  # by another clock
            note_answer(rig.answer())
            assert rig.complaints == []
            rig.robot.node.destroy_publisher(clock)
    finally:
        rig.close()


def test_old_images_of_a_clock_that_lies(rig, note_answer):
    with rig.case():
        assert rig.change("max_image_age", 5.0) == (True, "")
        stamps = rig.inflict(Shot.good, "too_old")
        assert rig.change("max_image_age", 0.0) == (True, "")
        note_answer(rig.answer())
        assert not [stamp for stamp in stamps if rig.robot.poses_of(stamp)]
        (complaint,) = rig.complaints
        assert "older than max_image_age" in complaint
