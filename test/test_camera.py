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


def test_fisheye_distortion_is_opencvs() -> None:
    intrinsics = CAMERAS["equidistant"]
    points = np.random.default_rng(3).uniform((-3, -2, 1), (3, 2, 4), (30, 3))
    expected, _ = cv2.fisheye.projectPoints(
        points[:, None], np.zeros(3), np.zeros(3), intrinsics.matrix,
        np.array(intrinsics.distortion),
    )  # fmt: skip
    np.testing.assert_allclose(camera.project(points, intrinsics), expected[:, 0], atol=1e-9)


# --- strong distortion --------------------------------------------------------------------------

STRONG = {
    "barrel": Intrinsics(
        450, 455, 330, 245, 640, 480, "plumb_bob", (-0.35, 0.12, 0.002, -0.003, -0.01)
    ),
    "barrel that turns back in the image": Intrinsics(
        400, 400, 320, 240, 640, 480, "plumb_bob", (-0.35, 0.0, 0.001, 0.002)
    ),
    "pincushion": Intrinsics(
        450, 455, 330, 245, 640, 480, "plumb_bob", (0.5, 0.3, 0.002, -0.003, 0.1)
    ),
    "Azure Kinect": Intrinsics(
        500, 500, 320, 240, 640, 480, "rational_polynomial",
        (7.1, 4.2, 1e-4, -2e-4, 0.2, 7.4, 6.1, 1.1),
    ),
    "thin prism": Intrinsics(
        500, 500, 320, 240, 640, 480, "rational_polynomial",
        (0.4, -0.1, 0.001, -0.002, 0.01, 0.7, 0.05, 0.02, 0.001, -0.002, 0.001, 0.002),
    ),
    "tilted sensor": Intrinsics(
        500, 500, 320, 240, 640, 480, "rational_polynomial",
        (0.4, -0.1, 1e-3, -2e-3, 0.01, 0.7, 0.05, 0.02, 1e-3, -2e-3, 1e-3, 2e-3, 0.02, -0.03),
    ),
    "fisheye": Intrinsics(
        230, 231, 319, 241, 640, 480, "equidistant", (0.05, -0.02, 0.01, -0.003)
    ),
    "fisheye of 190 degrees": Intrinsics(195, 195, 319, 241, 640, 480, "equidistant", (0.0,) * 4),
}  # fmt: skip


def all_pixels(intrinsics: Intrinsics, step: int = 8) -> np.ndarray:
    v, u = np.mgrid[0 : intrinsics.height : step, 0 : intrinsics.width : step]
    return np.stack([u, v], axis=-1).reshape(-1, 2).astype(float)


def project_by_opencv(rays: np.ndarray, intrinsics: Intrinsics) -> np.ndarray:
    points = np.concatenate([rays, np.ones_like(rays[:, :1])], axis=1)[:, None]
    model = cv2.fisheye if intrinsics.distortion_model == "equidistant" else cv2
    still, coefficients = np.zeros(3), np.array(intrinsics.distortion)
    return model.projectPoints(points, still, still, intrinsics.matrix, coefficients)[0][:, 0]


@pytest.mark.parametrize("name", STRONG)
def test_every_pixel_has_its_ray_or_none(name: str) -> None:
    """Out to the corners: what is not NaN lands where it came from, by OpenCV's projection."""
    intrinsics = STRONG[name]
    pixels = all_pixels(intrinsics)
    rays = camera.pixel_rays(pixels, intrinsics)
    known = np.isfinite(rays).all(1)
    assert known.mean() > 0.65
    np.testing.assert_allclose(
        project_by_opencv(rays[known], intrinsics), pixels[known], atol=1e-3
    )


@pytest.mark.parametrize("name", STRONG)
def test_the_ray_is_the_one_that_the_lens_means(name: str) -> None:
    """Of all rays that a turning polynomial sends to a pixel the one next to the axis.

    Straight out from the middle of the image pixels go outward, and so do their rays, to the end.
    """
    intrinsics = STRONG[name]
    for angle in np.linspace(0, 2 * np.pi, 16):
        radii = np.linspace(0, 1, 200) * 320
        line = np.stack([np.cos(angle) * radii, np.sin(angle) * radii], axis=1)
        outward = np.linalg.norm(
            camera.pixel_rays(line + (intrinsics.cx, intrinsics.cy), intrinsics), axis=1
        )
        seen = np.isfinite(outward)
        assert (np.diff(seen.astype(int)) <= 0).all(), "a hole"
        assert (np.diff(outward[seen]) > 0).all()


def test_a_pixel_beyond_the_lens_has_no_place() -> None:
    intrinsics = STRONG["barrel that turns back in the image"]
    pixels = [[0.0, 0.0], [320.0, 240.0], [639.0, 479.0], [math.nan, 5.0]]
    points = camera.back_project(pixels, [1000.0, 2000.0, 3000.0, 4000.0], intrinsics)
    np.testing.assert_array_equal(np.isnan(points).all(1), [True, False, True, True])
    np.testing.assert_array_equal(np.isnan(points).any(1), [True, False, True, True])
    np.testing.assert_allclose(points[1], [0, 0, 2000], atol=1e-6)


def test_a_fisheye_sees_no_farther_than_a_plane_in_front_of_it() -> None:
    intrinsics = STRONG["fisheye of 190 degrees"]
    pixels = intrinsics.cx + intrinsics.fx * np.radians([0, 45, 88, 91])
    rays = camera.pixel_rays(np.stack([pixels, np.full(4, 241.0)], axis=1), intrinsics)
    np.testing.assert_allclose(rays[:3, 0], np.tan(np.radians([0, 45, 88])), atol=1e-6)
    assert np.isnan(rays[3]).all()


# --- size in the picture ------------------------------------------------------------------------


def seen_box(intrinsics: Intrinsics, angle_deg: float, depth_mm: float) -> np.ndarray:
    """(4,) the box of somebody who stands there: a cylinder, 1.7 m tall."""
    random = np.random.default_rng(4)
    turn, height = random.uniform(0, 2 * np.pi, 3000), random.uniform(-850, 850, 3000)
    body = np.stack([250 * np.cos(turn), height, 150 * np.sin(turn)], axis=1)
    x = depth_mm * math.tan(math.radians(angle_deg))
    pixels = camera.project(body + (x, 0, depth_mm), intrinsics)
    return np.concatenate([pixels.min(0), np.ptp(pixels, axis=0)])


@pytest.mark.parametrize("angle_deg", [0, 20, 40])
@pytest.mark.parametrize("depth_mm", [1500.0, 4000.0])
@pytest.mark.parametrize("name", ["fisheye", "barrel"])
def test_people_are_as_far_as_an_undistorted_picture_says(
    name: str, depth_mm: float, angle_deg: float
) -> None:
    distorted = STRONG[name]
    pinhole = Intrinsics(500, 500, 320, 240, 640, 480)
    k = []
    for intrinsics in (distorted, pinhole):
        box = seen_box(intrinsics, angle_deg, depth_mm)
        focal_px = math.sqrt(intrinsics.fx * intrinsics.fy)
        k.append(focal_px / box[2:].max() * camera.magnification(box[None], intrinsics)[0])
    assert k[0] == pytest.approx(k[1], rel=0.02)


def test_magnification_by_nothing_is_one() -> None:
    boxes = np.array([[10.0, 20.0, 30.0, 90.0], [300.0, 200.0, 300.0, 20.0]])
    np.testing.assert_array_equal(camera.magnification(boxes, CAMERAS["pinhole"]), [1, 1])
    none = Intrinsics(600, 610, 320, 240, 640, 480, "plumb_bob", (0.0,) * 5)
    np.testing.assert_allclose(camera.magnification(boxes, none), [1, 1], rtol=1e-9)
    assert camera.magnification(np.empty((0, 4)), STRONG["barrel"]).shape == (0,)


def test_magnification_of_a_box_that_leaves_the_lens() -> None:
    intrinsics = STRONG["fisheye of 190 degrees"]
    inside, across, outside = camera.magnification(
        [[480.0, 231.0, 10.0, 20.0], [450.0, -210.0, 70.0, 902.0], [-300.0, 0.0, 10.0, 40.0]],
        intrinsics,
    )
    assert 0 < across == pytest.approx(inside, rel=0.02)
    assert outside == 1


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


def test_a_pose_is_relative_to_the_axis_or_to_the_ray() -> None:
    rng = np.random.default_rng(8)
    camera_ = Intrinsics.from_fov(90, 640, 480)
    pixels = rng.uniform((300, 100), (600, 400), (2, 21, 2))
    relative = rng.normal(0, 200, (2, 21))
    roots_px, roots_z = pixels[:, 14], np.array([3000.0, 2000.0])
    seen = roots_px, roots_z, pixels, relative, camera_
    roots, joints = camera.back_project_pose(*seen)
    np.testing.assert_allclose(roots, camera.back_project(roots_px, roots_z, camera_))
    depths = roots_z[:, None] + relative
    np.testing.assert_allclose(joints, camera.back_project(pixels, depths, camera_))

    _, turned = camera.back_project_pose(*seen, (1, 1))
    np.testing.assert_allclose(camera.project(turned, camera_), pixels, atol=1e-6)
    _, level = camera.back_project_pose(*seen, (1, 0))
    for i, (x, y, z) in enumerate(roots):
        ray = np.array([x, y, z]) / np.linalg.norm([x, y, z])
        np.testing.assert_allclose((turned[i] - roots[i]) @ ray, relative[i])
        ray = np.array([x, 0, z]) / np.hypot(x, z)
        np.testing.assert_allclose((level[i] - roots[i]) @ ray, relative[i])


@pytest.mark.parametrize("turn", [(0, 0), (1, 1)])
def test_a_pose_in_part_behind_the_camera_or_the_lens(turn: tuple[float, float]) -> None:
    camera_ = Intrinsics.from_fov(90, 640, 480)
    pixels = np.array([[[320.0, 240], [np.inf, 240], [400, 200], [np.nan, 3]]])
    relative = np.array([[0.0, 0, -700, 0]])
    roots, joints = camera.back_project_pose(
        pixels[:, 0], np.array([500.0]), pixels, relative, camera_, turn
    )
    assert np.isfinite(roots).all()
    assert np.isfinite(joints).all(-1).tolist() == [[True, False, False, False]]
    assert np.isnan(joints[0, 1:]).all()


def test_pixels_on_the_image_s_edge_are_inside_and_no_numbers_are_not() -> None:
    tiny = Intrinsics(10, 10, 1, 1, 4, 3)
    inside = [(-0.5, -0.5), (3.5, 2.5), (0, 0)]
    outside = [(-0.6, 0), (3.6, 0), (0, -0.6), (0, 2.6), (np.nan, 0), (0, np.inf)]
    assert camera.inside([inside], tiny).tolist() == [[True] * 3]
    assert not camera.inside(outside, tiny).any()
