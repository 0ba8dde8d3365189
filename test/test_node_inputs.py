"""What cameras may send, over real DDS: the pixels that arrive at the pipeline."""

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from image_encoders import encode, make_image, make_picture, tolerance
from node_host import make_host
from node_rig import SMALL, Robot, make_info, stamp_of, wait_until
from sensor_msgs.msg import CompressedImage

from mppe_ros.image_messages import BYTES_PER_PIXEL

pytestmark = pytest.mark.ros


@pytest.fixture(scope="module")
def host():
    with pytest.MonkeyPatch.context() as patch:
        host = make_host(patch)
        yield host
        host.close()


@pytest.fixture(scope="module")
def start(host):
    """Starts nodes around the host's pipeline; the camera of each."""
    robots = []

    def start_node(namespace, **values):
        robots.append(Robot(namespace))
        host.start(namespace, **values)
        return robots[-1]

    yield start_node
    for robot in robots:
        robot.close()


@pytest.fixture(scope="module")
def robot(start):
    return start("/inputs")


@pytest.fixture(scope="module")
def robot_of_compressed(start):
    return start("/inputs_compressed", image_transport="compressed")


@pytest.mark.parametrize("big", [False, True], ids=["little endian", "big endian"])
@pytest.mark.parametrize("encoding", BYTES_PER_PIXEL)
def test_every_encoding_with_padded_rows(robot, host, encoding, big):
    picture = make_picture(encoding)
    message = make_image(encode(picture, encoding), encoding, padding=5, big=big)
    poses = robot.get_poses(message, make_info(picture))
    assert (poses.image_height, poses.image_width) == picture.shape[:2]
    assert np.abs(host.pipeline.image.astype(int) - picture).max() <= tolerance(encoding)


@pytest.mark.parametrize("extension", ["png", "jpg"])
@pytest.mark.parametrize("colour", [(200, 60, 20), (90, 90, 90)], ids=["colour", "grey"])
def test_compressed_images(robot_of_compressed, host, extension, colour):
    picture = np.full((16, 24, 3), colour, np.uint8)
    pixels = picture[..., 0] if len(set(colour)) == 1 else picture[..., ::-1]
    _, data = cv2.imencode(f".{extension}", pixels)
    message = CompressedImage(format=extension, data=data.tobytes())
    robot_of_compressed.get_poses(message, make_info(picture))
    assert host.pipeline.image.shape == picture.shape
    allowed = 0 if extension == "png" else 4
    assert np.abs(host.pipeline.image.astype(int) - picture).max() <= allowed


def test_several_cameras_side_by_side(start):
    front, rear = start("/front/color"), start("/rear/color")
    wide, high = np.zeros((8, 32, 3), np.uint8), np.zeros((32, 8, 3), np.uint8)
    for robot, image in ((front, wide), (rear, high), (front, wide)):
        poses = robot.get_poses(image, make_info(image))
        assert (poses.image_height, poses.image_width) == image.shape[:2]
    for robot, width in ((front, 32), (rear, 8)):
        assert {message.image_width for message in robot.poses} == {width}
        wait_until(lambda robot=robot: robot.markers and robot.status("images/s"))


def test_a_camera_without_calibration(start):
    """Either it sends no camera_info, or one of zeros; a calibrated one is better."""
    robot = start("/inputs_uncalibrated", assumed_fov_deg=60.0)
    assumed = robot.get_poses(SMALL)
    assert assumed.intrinsics_source == assumed.INTRINSICS_ASSUMED
    zeros = robot.get_poses(SMALL, make_info(SMALL, k=[0.0] * 9))
    assert zeros.intrinsics_source == zeros.INTRINSICS_ASSUMED
    robot.get_poses(SMALL, make_info(SMALL))
    calibrated = robot.get_poses(SMALL, make_info(SMALL))
    assert calibrated.intrinsics_source == calibrated.INTRINSICS_CALIBRATED
    assert stamp_of(assumed) < stamp_of(calibrated)
