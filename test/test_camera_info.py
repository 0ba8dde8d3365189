"""CameraInfo to intrinsics: windows and binning against simulated sensors, and what is refused."""

import math

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs ROS 2")

from sensor_msgs.msg import CameraInfo, RegionOfInterest

from mppe_ros import camera
from mppe_ros.camera_info import MODEL_ALIASES, ImageSource, intrinsics_of
from mppe_ros.image_messages import ConversionError
from mppe_ros.structures import Intrinsics, IntrinsicsError

K = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
P = [450.0, 0.0, 310.0, 0.0, 0.0, 460.0, 235.0, 0.0, 0.0, 0.0, 1.0, 0.0]
SOURCE = ImageSource("camera", 640, 480)
PLUMB_BOB = (0.1, -0.2, 0.01, 0.02, 0.3)


def make_info(**changes) -> CameraInfo:
    info = CameraInfo(width=640, height=480, distortion_model="plumb_bob", k=K)
    info.header.frame_id = "camera"
    for name, value in changes.items():
        setattr(info, name, value)
    return info


# --- rectification -----------------------------------------------------------------------------

OF_K = Intrinsics(500, 510, 320, 240, 640, 480)
OF_K_AND_D = Intrinsics(500, 510, 320, 240, 640, 480, "plumb_bob", PLUMB_BOB)
OF_P = Intrinsics(450, 460, 310, 235, 640, 480)


@pytest.mark.parametrize(
    ("rectification", "info", "expected"),
    [
        ("auto", make_info(), OF_K),
        ("auto", make_info(d=PLUMB_BOB), OF_K_AND_D),
        ("auto", make_info(p=P), OF_P),
        ("auto", make_info(d=PLUMB_BOB, p=P), OF_K_AND_D),
        ("auto", make_info(d=[0.0] * 5, p=P), OF_P),
        ("auto", make_info(k=[0.0] * 9, p=P), OF_P),
        ("raw", make_info(), OF_K),
        ("raw", make_info(d=PLUMB_BOB, p=P), OF_K_AND_D),
        ("raw", make_info(p=P), OF_K),
        ("rectified", make_info(d=PLUMB_BOB, p=P), OF_P),
        ("rectified", make_info(k=[0.0] * 9, p=P), OF_P),
    ],
)
def test_raw_is_of_k_and_d_and_rectified_of_p(rectification, info, expected):
    assert intrinsics_of(SOURCE, info, rectification=rectification) == expected


def test_auto_is_the_default():
    assert intrinsics_of(SOURCE, make_info(d=PLUMB_BOB, p=P)) == OF_K_AND_D


def test_rectified_without_p_is_refused():
    with pytest.raises(IntrinsicsError, match="needs P"):
        intrinsics_of(SOURCE, make_info(), rectification="rectified")


def test_the_baseline_of_a_stereo_camera_moves_nothing():
    right = [*P[:3], -45.0, *P[4:]]
    assert intrinsics_of(SOURCE, make_info(p=right), rectification="rectified") == OF_P


# --- models ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "count"),
    [
        ("plumb_bob", 4),
        ("plumb_bob", 5),
        ("rational_polynomial", 8),
        ("rational_polynomial", 12),
        ("rational_polynomial", 14),
        ("equidistant", 4),
    ],
)
def test_distortion_is_taken(model, count):
    coefficients = tuple(0.01 * (i + 1) for i in range(count))
    intrinsics = intrinsics_of(SOURCE, make_info(distortion_model=model, d=coefficients))
    assert intrinsics.distortion_model == model
    assert intrinsics.distortion == coefficients


@pytest.mark.parametrize("alias", [*MODEL_ALIASES, "Fisheye", "PLUMB_BOB"])
def test_other_names_of_models(alias):
    model = MODEL_ALIASES.get(alias.lower(), alias.lower())
    info = make_info(distortion_model=alias, d=[0.1, 0.01, 0.02, 0.0])
    assert intrinsics_of(SOURCE, info).distortion_model == model


@pytest.mark.parametrize("rectification", ["auto", "raw"])
@pytest.mark.parametrize("coefficients", [[], [0.0] * 5])
@pytest.mark.parametrize("model", ["plumb_bob", ""])
def test_no_coefficients_are_no_distortion(model, coefficients, rectification):
    info = make_info(distortion_model=model, d=coefficients)
    assert intrinsics_of(SOURCE, info, rectification=rectification) == OF_K


def test_a_fisheye_with_coefficients_of_zero():
    """An ideal fisheye, unless the image may be rectified: P is there, and D says nothing."""
    info = make_info(distortion_model="equidistant", d=[0.0] * 4)
    assert intrinsics_of(SOURCE, info).distortion_model == "equidistant"
    info.p = P
    assert intrinsics_of(SOURCE, info, rectification="raw").distortion_model == "equidistant"
    assert intrinsics_of(SOURCE, info) == OF_P


# --- binning and region of interest ------------------------------------------------------------

DISTORTED = {
    "none": (),
    "plumb_bob": (-0.3, 0.1, 0.002, -0.003, -0.01),
    "rational_polynomial": (0.4, -0.1, 0.001, -0.002, 0.01, 0.7, 0.05, 0.02),
    "equidistant": (0.05, -0.02, 0.01, -0.003),
}
ROI = RegionOfInterest(x_offset=100, y_offset=50, width=400, height=300)


@pytest.mark.parametrize("model", DISTORTED)
@pytest.mark.parametrize("binning", [(0, 0), (1, 1), (2, 2), (4, 2)])
@pytest.mark.parametrize("roi", [RegionOfInterest(), ROI])
def test_windows_and_binning_against_opencv(model, binning, roi):
    """A point lands on the full sensor by OpenCV; the sensor's pixels are cropped, then joined."""
    info = make_info(
        d=DISTORTED[model], distortion_model=model, roi=roi,
        binning_x=binning[0], binning_y=binning[1],
    )  # fmt: skip
    joined = np.maximum(binning, 1)
    size = np.array([roi.width or 640, roi.height or 480]) // joined
    intrinsics = intrinsics_of(ImageSource("camera", *map(int, size)), info)
    assert (intrinsics.width, intrinsics.height) == tuple(size)

    points = np.random.default_rng(1).uniform((-1, -1, 2.5), (1, 1, 4), (50, 3))
    full = project_by_opencv(points, model)
    # Where in the window, from its corner, in units of joined pixels; centres are half a pixel in.
    expected = (full + 0.5 - (roi.x_offset, roi.y_offset)) / joined - 0.5
    np.testing.assert_allclose(camera.project(points, intrinsics), expected, atol=1e-6)
    np.testing.assert_allclose(
        camera.back_project(expected, points[:, 2], intrinsics), points, atol=1e-6
    )


def project_by_opencv(points, model):
    k, d, still = np.array(K).reshape(3, 3), np.array(DISTORTED[model]), np.zeros(3)
    if model == "equidistant":
        return cv2.fisheye.projectPoints(points[:, None], still, still, k, d)[0][:, 0]
    return cv2.projectPoints(points, still, still, k, d if len(d) else None)[0][:, 0]


def test_a_spot_stays_where_it_is_when_pixels_are_joined():
    """The picture itself: the centre of mass of a bright spot, before and after."""
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    point = np.array([[0.15, -0.1, 2.0]])
    u, v = camera.project(point, OF_K)[0]
    picture = np.exp(-((x - u) ** 2 + (y - v) ** 2) / 50)
    window = picture[50:350, 100:500].reshape(150, 2, 100, 4).mean((1, 3))
    j, i = np.meshgrid(np.arange(100), np.arange(150))
    found = [(window * j).sum() / window.sum(), (window * i).sum() / window.sum()]
    info = make_info(roi=ROI, binning_x=4, binning_y=2)
    intrinsics = intrinsics_of(ImageSource("camera", 100, 150), info)
    np.testing.assert_allclose(camera.project(point, intrinsics)[0], found, atol=1e-3)


@pytest.mark.parametrize("width", [106, 107])
def test_odd_sizes_may_be_rounded_either_way(width):
    intrinsics = intrinsics_of(
        ImageSource("camera", width, 80), make_info(binning_x=6, binning_y=6)
    )
    assert (intrinsics.width, intrinsics.height) == (width, 80)


def test_rectified_images_are_windows_of_p():
    info = make_info(p=P, d=PLUMB_BOB, roi=ROI, binning_x=2, binning_y=2)
    info.roi.do_rectify = True
    intrinsics = intrinsics_of(ImageSource("camera", 200, 150), info, rectification="rectified")
    assert intrinsics == Intrinsics(225, 230, 104.75, 92.25, 200, 150)


@pytest.mark.parametrize(
    ("size", "changes", "words"),
    [
        ((640, 480), {"width": 320, "height": 240}, ["640x480", "320x240"]),
        ((640, 480), {"width": 0}, ["0x480"]),
        ((640, 480), {"binning_x": 2, "binning_y": 2}, ["640x480", "binned 2x2"]),
        ((640, 480), {"roi": ROI}, ["640x480", "ROI of 400x300"]),
        ((320, 240), {}, ["320x240", "640x480"]),
        ((400, 300), {"roi": ROI, "binning_x": 2}, ["400x300", "ROI", "binned 2x1"]),
    ],
)
def test_another_size_than_the_images_is_refused(size, changes, words):
    with pytest.raises(ConversionError) as caught:
        intrinsics_of(ImageSource("camera", *size), make_info(**changes))
    for word in words:
        assert word in str(caught.value)


def test_a_window_outside_of_the_sensor_is_refused():
    roi = RegionOfInterest(x_offset=300, y_offset=0, width=400, height=300)
    with pytest.raises(IntrinsicsError, match=r"400x300 px at \(300, 0\).*640x480"):
        intrinsics_of(ImageSource("camera", 400, 300), make_info(roi=roi))


# --- what is no camera, or not the image's -----------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"k": [0.0] * 9}, ["fx", "calibrated"]),
        ({"k": [500.0, 0, 320, 0, 0, 240, 0, 0, 1]}, ["fy"]),
        ({"k": [math.nan, *K[1:]]}, ["fx", "nan"]),
        ({"k": [*K[:2], math.inf, *K[3:]]}, ["cx"]),
        ({"k": [500.0, 20.0, *K[2:]]}, ["skew", "20"]),
        ({"d": [0.1, 0.2]}, ["plumb_bob", "2"]),
        ({"d": [0.1] * 5, "distortion_model": "fisheye"}, ["equidistant", "4", "5"]),
        ({"d": [0.1] * 5, "distortion_model": "rational_polynomial"}, ["8 or 12 or 14", "5"]),
        ({"d": [math.nan] * 5}, ["finite"]),
        ({"d": [0.1], "distortion_model": "wavy"}, ["wavy"]),
    ],
)
def test_impossible_cameras_are_refused_with_the_reason(changes, words):
    with pytest.raises(IntrinsicsError) as caught:
        intrinsics_of(SOURCE, make_info(**changes))
    for word in words:
        assert word in str(caught.value)


def test_frames_must_agree_where_both_are_named():
    info = make_info()
    with pytest.raises(ConversionError, match=r"'other'.*'camera'"):
        intrinsics_of(SOURCE._replace(frame_id="other"), info)
    assert intrinsics_of(SOURCE._replace(frame_id=""), info)
    info.header.frame_id = ""
    assert intrinsics_of(SOURCE, info)


@pytest.mark.parametrize("info", [None, make_info(k=[0.0] * 9)])
def test_an_assumed_field_of_view_stands_in_for_a_missing_calibration(info):
    intrinsics = intrinsics_of(SOURCE, info, assumed_fov_deg=90.0)
    assert intrinsics.assumed
    assert intrinsics.fx == pytest.approx(320)
    assert (intrinsics.width, intrinsics.height) == (640, 480)


def test_a_calibration_is_better_than_an_assumption():
    assert not intrinsics_of(SOURCE, make_info(), assumed_fov_deg=90.0).assumed


def test_without_camera_info_and_assumption_there_is_no_camera():
    with pytest.raises(IntrinsicsError, match="no camera_info"):
        intrinsics_of(SOURCE, None)


def test_what_a_subscription_delivers():
    """Through serialisation, as from DDS: data of another Python type, maybe."""
    serialization = pytest.importorskip("rclpy.serialization")
    received = serialization.deserialize_message(
        serialization.serialize_message(make_info(d=PLUMB_BOB)), CameraInfo
    )
    assert intrinsics_of(SOURCE, received) == OF_K_AND_D
