"""The node with its networks, over real DDS, behind lenses that distort strongly.

The sample clip is bent as each lens would bend it, so that there are people to find; OpenCV then
has to project the published 3D points onto the published pixels.
"""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from node_host import Host
from node_rig import CLIP, Robot, make_image, make_info, stamp_of, wait_until
from sensor_msgs.msg import RegionOfInterest

from mppe_ros import media
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Intrinsics, JointStatus

pytestmark = pytest.mark.ros

MAX_ERROR_PX = 0.5
NO_WINDOW = RegionOfInterest()


@pytest.fixture(scope="module")
def start():
    """Starts nodes with the embedded weights; the camera of each."""
    host, robots = Host(), []

    def start_node(namespace, **values):
        robots.append(Robot(namespace))
        # Large best-effort messages get lost where UDP buffers are small.
        reliable = f"qos_overrides.{namespace}/image_raw.subscription.reliability"
        host.start(namespace, device="cpu", **{reliable: "reliable"}, **values)
        return robots[-1]

    yield start_node
    host.close()
    for robot in robots:
        robot.close()


@pytest.fixture(scope="module")
def robot(start):
    return start("/node_camera")


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
    pixels = np.stack([u, v], axis=-1).reshape(-1, 1, 2).astype(float)
    model = cv2.fisheye if lens.distortion_model == "equidistant" else cv2
    straight = model.undistortPoints(
        pixels, lens.matrix, np.array(lens.distortion), P=pinhole.matrix
    )
    u, v = straight.reshape(lens.height, lens.width, 2).astype(np.float32).transpose(2, 0, 1)
    return cv2.remap(rgb, u, v, cv2.INTER_LINEAR)


def info_of(lens, **changes):
    info = make_info(np.empty((lens.height, lens.width)))
    info.k = lens.matrix.ravel().tolist()
    info.d, info.distortion_model = list(lens.distortion), lens.distortion_model
    for name, value in changes.items():
        setattr(info, name, value)
    return info


def errors_px(message, lens, window=NO_WINDOW):
    """Distances of published pixels to where OpenCV sees the published points.

    :param lens: the camera of the whole sensor.
    :param window: its part that the image shows, whose pixels were joined two by two.
    """
    joints = [
        joint
        for pose in message.poses
        for joint in pose.joints
        if joint.status != JointStatus.INVALID
    ]
    points = np.array([[[j.position.x, j.position.y, j.position.z]] for j in joints])
    model = cv2.fisheye if lens.distortion_model == "equidistant" else cv2
    still, d = np.zeros(3), np.array(lens.distortion or (0.0,) * 4)
    projected, _ = model.projectPoints(points, still, still, lens.matrix, d)
    if window is not NO_WINDOW:
        projected = (projected - (window.x_offset + 0.5, window.y_offset + 0.5)) / 2
    return np.linalg.norm(projected[:, 0] - [(j.u, j.v) for j in joints], axis=1)


def sensor_of(lens, window):
    """The whole sensor of which ``lens`` shows a window, joined two by two."""
    return replace(
        lens,
        fx=2 * lens.fx,
        fy=2 * lens.fy,
        cx=2 * lens.cx + window.x_offset + 0.5,
        cy=2 * lens.cy + window.y_offset + 0.5,
        width=2 * lens.width + 300,
        height=2 * lens.height + 200,
    )


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


def make_lens(pinhole, model):
    return Intrinsics(
        pinhole.fx * 0.9, pinhole.fy * 0.92, pinhole.cx + 11, pinhole.cy - 7,
        pinhole.width, pinhole.height, model, LENSES[model],
    )  # fmt: skip


def make_window(lens):
    return RegionOfInterest(
        x_offset=200, y_offset=100, width=2 * lens.width, height=2 * lens.height
    )


@pytest.mark.parametrize("model", LENSES)
def test_opencv_projects_the_points_onto_their_pixels(robot, picture, model):
    """Behind each lens, of the whole sensor and of a binned window of it."""
    lens = make_lens(picture[1], model)
    image, window = bend(picture, lens), make_window(lens)
    sensor = sensor_of(lens, window)
    whole = get_people(robot, image, info_of(lens))
    binned = get_people(robot, image, info_of(sensor, roi=window, binning_x=2, binning_y=2))
    for message in (whole, binned):
        assert (message.image_width, message.image_height) == (lens.width, lens.height)
    for errors in (errors_px(whole, lens), errors_px(binned, sensor, window)):
        assert len(errors) >= 0.8 * sum(len(pose.joints) for pose in whole.poses)
        assert errors.max() < MAX_ERROR_PX
    # Without its distortion the lens would have them elsewhere: this test sees a difference.
    straight = replace(lens, distortion_model="none", distortion=())
    assert errors_px(whole, straight).max() > 10 * MAX_ERROR_PX


def test_opencv_projects_the_points_of_rectified_images_by_p(start, picture):
    robot, (rgb, pinhole) = start("/node_camera_rectified", rectification="rectified"), picture
    for lens, window in ((pinhole, NO_WINDOW), (pinhole, make_window(pinhole))):
        raw, changes = make_lens(pinhole, "plumb_bob"), {}
        if window is not NO_WINDOW:
            lens, raw = sensor_of(lens, window), sensor_of(raw, window)
            changes = {"roi": window, "binning_x": 2, "binning_y": 2}
        p = np.hstack([lens.matrix, np.zeros((3, 1))]).ravel().tolist()
        message = get_people(robot, rgb, info_of(raw, p=p, **changes))
        assert errors_px(message, lens, window).max() < MAX_ERROR_PX
        assert errors_px(message, raw, window).max() > 10 * MAX_ERROR_PX


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
        assert errors_px(message, lens).max() < MAX_ERROR_PX
    assert not robot.log("failed")


def test_a_wrong_size_is_refused_and_said(robot, picture):
    rgb, pinhole = picture
    small = rgb[:100, :100]
    wait_until(
        lambda: robot.log("image is 100x100 px, camera_info is for"),
        lambda: robot.send(small, info_of(pinhole, distortion_model="plumb_bob")),
    )
    assert not any(message.image_width == 100 for message in robot.poses)


# --- synchronisation, without networks ---------------------------------------------------------


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
