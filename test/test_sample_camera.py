"""The sample camera as its own process, over real DDS, and its settings."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from domain import DOMAIN_ID

rclpy = pytest.importorskip("rclpy")

from rclpy.context import Context  # noqa: E402
from rclpy.exceptions import ParameterException  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.parameter import Parameter  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image  # noqa: E402

from mppe_ros.sample_camera import Calibration, SampleCamera, read_calibration  # noqa: E402
from mppe_ros.structures import IntrinsicsError  # noqa: E402

ROOT = Path(__file__).parents[1]
PATIENCE_S = 60.0

pytestmark = pytest.mark.ros


def start(*parameters):
    """The camera's process with ``name:=value`` parameters."""
    arguments = ["--ros-args", *(part for p in parameters for part in ("-p", p))]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / "sample_camera"), *arguments],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "ROS_DOMAIN_ID": str(DOMAIN_ID),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        },
        stderr=subprocess.PIPE,
        text=True,
    )


class Receiver:
    """Collects what cameras publish."""

    def __init__(self, context):
        self.context, self.images, self.infos = context, [], []
        self._node = rclpy.create_node("receiver", context=context)
        self._node.create_subscription(Image, "image_raw", self.images.append, 100)
        self._node.create_subscription(CameraInfo, "camera_info", self.infos.append, 100)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)

    def spin_until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "nothing more came"
            self._executor.spin_once(0.1)

    def close(self):
        self._node.destroy_node()


@pytest.fixture
def receiver(monkeypatch):
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    receiver = Receiver(context)
    yield receiver
    receiver.close()
    context.try_shutdown()


def stamp_ns(message):
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def pictures(folder, count=6, height=48, width=64):
    """Lossless files, so that what arrives can be compared byte by byte."""
    noise = np.random.default_rng(7)
    images = noise.integers(0, 255, (count, height, width, 3), np.uint8)
    for index, image in enumerate(images):
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        assert cv2.imwrite(str(folder / f"{index:03}.png"), bgr)
    return images


def test_a_folder_arrives_complete_with_its_camera_and_ends(tmp_path, receiver):
    images = pictures(tmp_path)
    camera = start(
        f"source:={tmp_path}", "rate:=20", "fx:=70", "fy:=71.5", "cx:=30.25", "cy:=20",
        "frame_id:=eye", "wait_for_subscribers:=1",
    )  # fmt: skip
    try:
        receiver.spin_until(lambda: camera.poll() is not None)
        receiver.spin_until(lambda: len(receiver.images) == len(receiver.infos) == len(images))
    finally:
        camera.kill()
        _, log = camera.communicate()
    assert camera.returncode == 0, log
    for message, info, sent in zip(receiver.images, receiver.infos, images, strict=True):
        assert (message.encoding, message.step) == ("rgb8", 3 * 64)
        np.testing.assert_array_equal(np.reshape(message.data, sent.shape), sent)
        assert message.header == info.header
        assert info.header.frame_id == "eye"
        assert (info.width, info.height, info.distortion_model) == (64, 48, "plumb_bob")
        assert list(info.d) == [0] * 5
        assert list(info.k) == [70, 0, 30.25, 0, 71.5, 20, 0, 0, 1]
        assert list(info.r) == [1, 0, 0, 0, 1, 0, 0, 0, 1]
        assert list(info.p) == [70, 0, 30.25, 0, 0, 71.5, 20, 0, 0, 0, 1, 0]
    spacing = np.diff([stamp_ns(message) for message in receiver.images])
    np.testing.assert_allclose(spacing, 50e6, atol=2)


def test_a_looped_photo_goes_on_until_it_is_stopped(tmp_path, receiver):
    pictures(tmp_path, count=1)
    camera = start(
        f"source:={tmp_path}/000.png", "rate:=20", "fov_deg:=90", "loop:=true",
        "wait_for_subscribers:=1",
    )  # fmt: skip
    try:
        receiver.spin_until(lambda: len(receiver.images) >= 4)
        camera.send_signal(2)
        receiver.spin_until(lambda: camera.poll() is not None)
    finally:
        camera.kill()
        _, log = camera.communicate()
    assert camera.returncode == 0, log
    assert receiver.infos[0].k[0] == pytest.approx(32)
    spacing = np.diff([stamp_ns(message) for message in receiver.images])
    np.testing.assert_allclose(spacing, 50e6, atol=2)


def test_what_is_no_camera_ends_with_one_sentence():
    camera = start("source:=nowhere.mp4", "fov_deg:=60")
    _, log = camera.communicate(timeout=PATIENCE_S)
    assert camera.returncode == 1
    assert "nowhere.mp4" in log and "Traceback" not in log


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "fov_deg"),
        ({"fov_deg": 60, "fx": 500.0}, "not both"),
        ({"fov_deg": 60.0, "rate": -1.0}, "rate"),
        ({"fov_deg": "wide"}, "fov_deg"),
        ({"fov_deg": 60.0, "source": 97}, "camera 97"),
    ],
)
def test_bad_settings_are_refused_with_the_reason(tmp_path, receiver, settings, reason):
    pictures(tmp_path, count=1)
    values = {"source": str(tmp_path / "000.png"), **settings}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    with pytest.raises((ValueError, ParameterException), match=reason):
        SampleCamera(context=receiver.context, parameter_overrides=overrides)


def test_a_calibration_beside_the_video(tmp_path):
    path = tmp_path / "clip.json"
    path.write_text(json.dumps({"fx": 600, "cy": 230, "width": 640, "height": 480, "images": []}))
    camera = read_calibration(path).intrinsics(640, 480)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (600, 600, 319.5, 230)
    with pytest.raises(IntrinsicsError, match="320x240"):
        read_calibration(path).intrinsics(320, 240)


def test_a_field_of_view_suits_any_size():
    calibration = Calibration(fov_deg=90)
    assert calibration.intrinsics(100, 50).fx == pytest.approx(50)
    assert calibration.intrinsics(640, 480).fx == pytest.approx(320)
