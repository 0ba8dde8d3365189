"""Some of the faults against the installed node in its own process, with its own networks."""

import signal
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from cases import FAULTS
from node_rig import CLIP, BuiltNode, Robot, make_info, stamp_of, wait_until
from rig import check_poses

from mppe_ros import media

pytestmark = pytest.mark.ros

# Complaints that differ: the same one is not repeated for a while.
CHOSEN = (
    "image of 0 bytes instead of 9216", "image of 0x0 px", "step of 0", "encoding 'h264'",
    "image of 128x96 px, not its camera's size", "image of frame 'other'", "fx of nan",
    "fx of -1.0", "cx of 1e+30", "fy of 1e-09", "skew of 5.0", "distortion of NaN",
    "three coefficients", "unknown distortion model", "ROI beyond the image",
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def people():
    """A frame of the sample clip."""
    with media.open_media(CLIP) as clip:
        return next(iter(clip)).rgb


@pytest.fixture(scope="module")
def robot():
    node = BuiltNode("/faults_built", "-p", "smoothing.enabled:=false")
    node.wait_for("listening on")
    robot = Robot("/faults_built")
    robot.process = node.process
    yield robot
    robot.close()
    assert node.end(signal.SIGTERM) == 0, "".join(node.lines)
    assert not node.has("Traceback")


@pytest.mark.parametrize("name", CHOSEN)
def test_a_faulty_message(robot, people, name, note_answer):
    fault, info = BY_NAME[name], make_info(people)
    robot.get_poses(people, info)
    sent, first, said = set(), len(robot.poses), len(robot.log(fault.complaint))

    def send():
        shot = fault.make()
        sent.add(robot.send(shot.image, shot.info))

    wait_until(lambda: len(robot.log(fault.complaint)) > said, send)
    note_answer(_answer(robot, people, info))
    assert robot.process.poll() is None
    # With the camera_info before it an image of a faulty one may have been answered, rightly.
    if "camera_info" not in fault.complaint:
        assert not sent & {stamp_of(message) for message in robot.poses[first:]}
    for message in robot.poses[first:]:
        check_poses(message, info if message.image_width == people.shape[1] else None)


def _answer(robot, people, info):
    began_s = time.monotonic()
    assert robot.get_poses(people, info).image_width == people.shape[1]
    return time.monotonic() - began_s


def test_black_and_noise_are_nobody(robot, people):
    """Nothing false: the networks see nobody in nothing."""
    black = np.zeros_like(people)
    wait_until(lambda: not robot.get_poses(black, make_info(black)).poses)
    noise = np.random.default_rng(0).integers(0, 256, people.shape, np.uint8)
    poses = robot.get_poses(noise, make_info(noise))
    check_poses(poses, make_info(noise))
