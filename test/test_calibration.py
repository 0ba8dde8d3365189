"""Cameras that no ROS tells of: files, options, EXIF, in the documented order."""

import math

import numpy as np
import pytest
from PIL import Image

from mppe_ros.calibration import (
    ASSUMED,
    CAMERA_FILE,
    CAMERA_INFO,
    EXIF,
    OPTIONS,
    Camera,
    exif_focal_px,
    read_camera_file,
)
from mppe_ros.media import Shot
from mppe_ros.structures import IntrinsicsError

YAML = """
image_width: 640
image_height: 480
camera_name: head
camera_matrix: {rows: 3, cols: 3, data: [500., 0., 320., 0., 510., 240., 0., 0., 1.]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, -0.2, 0.01, 0.02, 0.3]}
rectification_matrix: {rows: 3, cols: 3, data: [1., 0., 0., 0., 1., 0., 0., 0., 1.]}
projection_matrix: {rows: 3, cols: 4, data: [450., 0., 310., 0., 0., 460., 235., 0., 0., 0., 1., 0.]}
"""  # noqa: E501

FOCAL_35MM, FOCAL, PLANE_X, PLANE_UNIT = 0xA405, 0x920A, 0xA20E, 0xA210


@pytest.fixture
def camera_file(tmp_path):
    path = tmp_path / "camera.yaml"
    path.write_text(YAML)
    return path


def photo(path, tags, size=(640, 480)):
    image = Image.fromarray(np.zeros((size[1], size[0], 3), np.uint8))
    exif = image.getexif()
    exif.get_ifd(0x8769).update(tags)
    image.save(path, exif=exif)
    return path


def shot(file=None, camera_info=None):
    return Shot("", 0, 0.0, lambda: None, file=file, camera_info=camera_info)


def test_a_camera_file_is_read_with_its_distortion(camera_file):
    camera = Camera(camera_file).intrinsics(640, 480)
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (500, 510, 320, 240)
    assert camera.distortion_model == "plumb_bob"
    assert camera.distortion == (0.1, -0.2, 0.01, 0.02, 0.3)
    assert not camera.assumed
    with pytest.raises(IntrinsicsError, match="320x240"):
        Camera(camera_file).intrinsics(320, 240)


@pytest.mark.parametrize(
    ("content", "words"),
    [("image_width: 5", "'image_height' is missing"), ("[1, 2]", "not a readable ROS camera"),
     ("{", "not a readable ROS camera")],
)  # fmt: skip
def test_what_is_no_camera_file_is_named(tmp_path, content, words):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(IntrinsicsError, match=words) as caught:
        Camera(path).intrinsics(640, 480)
    assert "broken.yaml" in str(caught.value)
    with pytest.raises(IntrinsicsError, match="nowhere"):
        Camera(tmp_path / "nowhere.yaml").intrinsics(640, 480)


def test_the_sources_in_their_order(camera_file, tmp_path):
    info = read_camera_file(camera_file)
    info.k[0] = 777.0
    with_exif = photo(tmp_path / "photo.jpg", {FOCAL_35MM: 36})
    everything = Camera(camera_file, fx=600, fov_deg=50)
    assert everything.find(640, 480, shot(with_exif, info))[1] == CAMERA_INFO
    assert everything.find(640, 480, shot(with_exif))[1] == CAMERA_FILE
    given, origin = Camera(fx=600, fov_deg=50).find(640, 480, shot(with_exif))
    assert (given.fx, origin) == (600, OPTIONS)
    given, origin = Camera(fov_deg=90).find(640, 480, shot(with_exif))
    assert (given.fx, origin) == (pytest.approx(320), OPTIONS)
    assert Camera().find(640, 480, shot(with_exif))[1] == EXIF
    assumed, origin = Camera().find(640, 480)
    assert origin == ASSUMED and assumed.assumed


def test_a_camera_info_without_calibration_is_passed_over(camera_file):
    info = read_camera_file(camera_file)
    info.k, info.p = [0.0] * 9, [0.0] * 12
    assert Camera(fov_deg=90).find(640, 480, shot(camera_info=info))[1] == OPTIONS


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1280, 960)])
def test_exif_focal_lengths_scale_with_the_image(tmp_path, size):
    """A 50 mm equivalent lens shows the diagonal of 36 mm x 24 mm film under 46.8 degrees."""
    path = photo(tmp_path / "a.jpg", {FOCAL_35MM: 50}, size)
    focal = exif_focal_px(path, *size)
    angle = math.degrees(2 * math.atan(math.hypot(*size) / 2 / focal))
    assert angle == pytest.approx(46.8, abs=0.05)


def test_exif_by_the_sensors_pixels(tmp_path):
    # 4 mm in front of pixels of 2 micrometres: 5000 per cm.
    path = photo(tmp_path / "b.jpg", {FOCAL: 4.0, PLANE_X: 5000.0, PLANE_UNIT: 3})
    assert exif_focal_px(path, 640, 480) == pytest.approx(2000)


@pytest.mark.parametrize("tags", [{}, {FOCAL: 4.0}, {FOCAL_35MM: 0}])
def test_exif_that_does_not_tell(tmp_path, tags):
    assert exif_focal_px(photo(tmp_path / "c.jpg", tags), 640, 480) is None


def test_what_is_no_photo_has_no_exif(tmp_path):
    path = tmp_path / "d.jpg"
    path.write_bytes(b"nothing")
    assert exif_focal_px(path, 640, 480) is None
    assert exif_focal_px(tmp_path / "nowhere.jpg", 640, 480) is None
