"""Projection both ways, distortion against OpenCV, the k-value, covariances."""

import math

import cv2
import numpy as np
import pytest
import torch

from mppe_ros import camera
from mppe_ros.structures import Intrinsics, IntrinsicsError

CAMERAS = {
    "pinhole": Intrinsics(600, 610, 320, 240, 640, 480),
    "plumb_bob": Intrinsics(
        1145, 1143, 512, 515, 1000, 1002, "plumb_bob", (-0.3, 0.25, -0.0014, -0.001, -0.003)
    ),
    "rational_polynomial": Intrinsics(
        600, 600, 330, 250, 640, 480, "rational_polynomial",
        (0.4, -0.1, 0.001, -0.002, 0.01, 0.7, 0.05, 0.02),
    ),
    "equidistant": Intrinsics(
        300, 301, 319, 241, 640, 480, "equidistant", (0.05, -0.02, 0.01, -0.003)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CAMERAS)
def test_projection_and_back_projection_are_inverse(name: str) -> None:
    intrinsics = CAMERAS[name]
    random = np.random.default_rng(2)
    pixels = random.uniform(0.05, 0.95, (4, 50, 2)) * (intrinsics.width, intrinsics.height)
    depths = random.uniform(500, 9000, (4, 50))
    points = camera.back_project(pixels, depths, intrinsics)
    np.testing.assert_array_equal(points[..., 2], depths)
    np.testing.assert_allclose(camera.project(points, intrinsics), pixels, atol=1e-4)


def test_pinhole_is_the_formula() -> None:
    point = camera.back_project([[420.0, 118.0]], [3000.0], CAMERAS["pinhole"])
    np.testing.assert_allclose(point, [[(420 - 320) / 600 * 3000, (118 - 240) / 610 * 3000, 3000]])


@pytest.mark.parametrize("name", ["plumb_bob", "rational_polynomial"])
def test_distortion_is_opencvs(name: str) -> None:
    intrinsics = CAMERAS[name]
    points = np.random.default_rng(3).uniform((-800, -600, 2000), (800, 600, 6000), (30, 3))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), intrinsics.matrix, np.array(intrinsics.distortion)
    )
    np.testing.assert_allclose(camera.project(points, intrinsics), expected[:, 0], atol=1e-9)
    undistorted = camera.project(points, CAMERAS["pinhole"])
    assert np.abs(undistorted - expected[:, 0]).max() > 5


def test_no_points() -> None:
    for intrinsics in CAMERAS.values():
        assert camera.back_project(np.empty((0, 2)), np.empty(0), intrinsics).shape == (0, 3)
        assert camera.project(np.empty((0, 3)), intrinsics).shape == (0, 2)


def test_k_is_the_distance_where_two_metres_fill_the_box() -> None:
    boxes = torch.tensor([[0.0, 0.0, 200.0, 200.0], [5.0, 5.0, 400.0, 400.0]])
    k = camera.k_value_mm(torch.tensor(600.0), torch.tensor(600.0), boxes)
    torch.testing.assert_close(k, torch.tensor([6000.0, 3000.0]))
    k = camera.k_value_mm(torch.tensor(400.0), torch.tensor(900.0), boxes)
    torch.testing.assert_close(k, torch.tensor([6000.0, 3000.0]))


def test_ray_covariance_is_long_along_the_ray() -> None:
    point = np.array([1000.0, -500.0, 4000.0])
    covariance = camera.ray_covariance(point, along_mm=300, across_mm=20)
    values, vectors = np.linalg.eigh(covariance)
    np.testing.assert_allclose(values, [400, 400, 90000], rtol=1e-9)
    ray = point / np.linalg.norm(point)
    assert abs(vectors[:, 2] @ ray) == pytest.approx(1)


def test_from_fov_sees_that_much() -> None:
    intrinsics = Intrinsics.from_fov(60, 640, 480)
    edges = camera.pixel_rays([[-0.5, 0], [639.5, 0]], intrinsics)[:, 0]
    assert math.degrees(math.atan(edges[1]) - math.atan(edges[0])) == pytest.approx(60)
    assert intrinsics.assumed


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"fx": 0.0}, "fx = 0.0"),
        ({"fy": -3.0}, "fy = -3.0"),
        ({"fx": math.nan}, "fx = nan"),
        ({"cx": math.inf}, "cx = inf"),
        ({"width": 0}, "0x480"),
        ({"distortion_model": "magic"}, "'magic' is unknown"),
        ({"distortion_model": "plumb_bob", "distortion": (1.0,)}, "takes 4 or 5"),
        ({"distortion_model": "plumb_bob", "distortion": (0, 0, 0, math.nan)}, "not finite"),
    ],
)
def test_impossible_cameras_are_refused_with_a_reason(changes: dict, complaint: str) -> None:
    values = {"fx": 600.0, "fy": 600.0, "cx": 320.0, "cy": 240.0, "width": 640, "height": 480}
    with pytest.raises(IntrinsicsError, match=complaint):
        Intrinsics(**(values | changes))
