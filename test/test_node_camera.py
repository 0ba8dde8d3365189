"""The node with its networks, over real DDS, behind lenses that distort strongly.

The sample clip is bent as each lens would bend it, so that there are people to find; OpenCV then
has to project the published 3D points onto the published pixels.
"""

import json

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from node_rig import CLIP, Host, Robot, make_host, make_image, make_info, stamp_of, wait_until
from sensor_msgs.msg import RegionOfInterest

from mppe_ros import camera, media
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Intrinsics, JointStatus

pytestmark = pytest.mark.ros

NAMESPACE = "/node_camera"
MAX_ERROR_PX = 0.5


@pytest.fixture(scope="module")
def robot():
    """A node with the embedded weights, and its camera."""
    robot, host = Robot(NAMESPACE), Host()
    # Large best-effort messages get lost where UDP buffers are small.
    reliable = f"qos_overrides.{NAMESPACE}/image_raw.subscription.reliability"
    host.start(NAMESPACE, device="cpu", **{reliable: "reliable"})
    yield robot
    host.close()
    robot.close()


@pytest.fixture(scope="module")
def picture():
    """A frame of the sample clip and the pinhole camera that took it."""
    with media.open_media(CLIP) as clip:
        rgb = next(iter(clip)).rgb
    truth = json.loads(CLIP.with_suffix(".json").read_text())
    names = ("fx", "fy", "cx", "cy", "width", "height")
    return rgb, Intrinsics(*(truth[name] for name in names))


def bend(picture, lens):
    """What ``lens`` shows of the scene; black where the picture ends."""
    rgb, pinhole = picture
    v, u = np.mgrid[: lens.height, : lens.width]
    rays = camera.pixel_rays(np.stack([u, v], axis=-1).astype(float), lens)
    pixels = camera.project(np.concatenate([rays, np.ones_like(rays[..., :1])], axis=-1), pinhole)
    u, v = np.nan_to_num(pixels, nan=-1).astype(np.float32).transpose(2, 0, 1)
    return cv2.remap(rgb, u, v, cv2.INTER_LINEAR)


def info_of(lens, **changes):
    info = make_info(np.empty((lens.height, lens.width)))
    info.k = lens.matrix.ravel().tolist()
    info.d, info.distortion_model = list(lens.distortion), lens.distortion_model
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def errors_px(message, matrix, lens):
    """Distances of published pixels to where OpenCV sees the published points."""
    found = []
    model = cv2.fisheye if lens.distortion_model == "equidistant" else cv2
    for joint in (joint for pose in message.poses for joint in pose.joints):
        if joint.status == JointStatus.INVALID:
            continue
        point = np.array([[[joint.position.x, joint.position.y, joint.position.z]]])
        still, d = np.zeros(3), np.array(lens.distortion or (0.0,) * 4)
        (((u, v),),), _ = model.projectPoints(point, still, still, np.array(matrix), d)
        found.append(np.hypot(u - joint.u, v - joint.v))
    return np.array(found)


def get_people(robot, image, info):
    """The answer to an image of which the node knew the camera_info."""
    robot.get_poses(image, info)
    message = robot.get_poses(image, info)
    assert message.poses, "nobody was found"
    return message


LENSES = {
    "plumb_bob": (-0.3, 0.09, 0.004, -0.005, -0.008),
    "rational_polynomial": (0.5, -0.1, 0.003, -0.002, 0.01, 1.2, 0.3, 0.05),
    "equidistant": (-0.05, 0.02, -0.01, 0.003),
}


@pytest.mark.parametrize("model", LENSES)
def test_opencv_projects_the_points_onto_their_pixels(robot, picture, model):
    _, pinhole = picture
    lens = Intrinsics(
        pinhole.fx * 0.9, pinhole.fy * 0.92, pinhole.cx + 11, pinhole.cy - 7,
        pinhole.width, pinhole.height, model, LENSES[model],
    )  # fmt: skip
    message = get_people(robot, bend(picture, lens), info_of(lens))
    assert (message.image_width, message.image_height) == (lens.width, lens.height)
    errors = errors_px(message, lens.matrix, lens)
    assert len(errors) >= 0.8 * sum(len(pose.joints) for pose in message.poses)
    assert errors.max() < MAX_ERROR_PX
    # Without its distortion the lens would have them elsewhere: this test sees a difference.
    straight = Intrinsics(lens.fx, lens.fy, lens.cx, lens.cy, lens.width, lens.height)
    assert errors_px(message, lens.matrix, straight).max() > 10 * MAX_ERROR_PX


def test_a_camera_that_changes_its_size_and_its_intrinsics(robot, picture):
    rgb, pinhole = picture
    narrow = rgb[:, : pinhole.width * 3 // 4]
    half = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    for image, zoom in ((rgb, 1.0), (narrow, 1.0), (half, 0.5), (rgb, 1.0), (rgb, 1.7)):
        height, width = image.shape[:2]
        lens = Intrinsics(
            pinhole.fx * zoom, pinhole.fy * zoom, width / 2, height / 2, width, height
        )
        message = get_people(robot, image, info_of(lens, distortion_model="plumb_bob"))
        assert (message.image_width, message.image_height) == (width, height)
        assert errors_px(message, lens.matrix, lens).max() < MAX_ERROR_PX
    assert not robot.log("failed")


def test_binning_and_a_window(robot, picture):
    """The clip as a binned window of a larger sensor; P is of the sensor, too."""
    _, pinhole = picture
    window = RegionOfInterest(
        x_offset=200, y_offset=100, width=2 * pinhole.width, height=2 * pinhole.height
    )
    sensor = Intrinsics(
        2 * pinhole.fx, 2 * pinhole.fy, 2 * pinhole.cx + 200.5, 2 * pinhole.cy + 100.5,
        2 * pinhole.width + 300, 2 * pinhole.height + 200,
    )  # fmt: skip
    info = info_of(sensor, roi=window, binning_x=2, binning_y=2, distortion_model="plumb_bob")
    message = get_people(robot, picture[0], info)
    assert errors_px(message, pinhole.matrix, pinhole).max() < MAX_ERROR_PX


def test_a_wrong_size_is_refused_and_said(robot, picture):
    rgb, pinhole = picture
    small = rgb[:100, :100]
    wait_until(
        lambda: robot.log("image is 100x100 px, camera_info is for"),
        lambda: robot.send(small, info_of(pinhole, distortion_model="plumb_bob")),
    )
    assert not any(message.image_width == 100 for message in robot.poses)


# --- synchronisation, without networks ---------------------------------------------------------


@pytest.fixture
def host(monkeypatch):
    host = make_host(monkeypatch)
    yield host
    host.close()


@pytest.mark.parametrize("mode", ["exact", "approximate"])
def test_only_images_with_their_camera_info_are_answered(host, mode):
    pytest.importorskip("message_filters", reason="needs ros-$ROS_DISTRO-message-filters")
    robot = Robot(f"/{mode}")
    host.start(f"/{mode}", camera_info_sync=mode)
    image = make_image(np.zeros((48, 64, 3), np.uint8))
    lonely = set()
    robot.get_poses(image, make_info(np.empty((48, 64))))
    wait_until(lambda: len(lonely) > 3, lambda: lonely.add(robot.send(image)))
    last = robot.get_poses(image, make_info(np.empty((48, 64))))
    assert stamp_of(last) not in lonely
    assert not lonely & {stamp_of(message) for message in robot.poses}
    assert all(
        list(message.joint_names) == list(HUMAN36M_17.joint_names) for message in robot.poses
    )
    robot.close()
