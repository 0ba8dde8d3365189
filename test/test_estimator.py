"""The Python interface: from pictures to skeletons."""

import subprocess
import sys

import numpy as np
import pytest
from recordings import CAMERA, CLIP, FPS, clip_frames

import mppe_ros
from mppe_ros import Camera, Intrinsics, PoseEstimator, Poses
from mppe_ros.media import MediaError, write_image
from mppe_ros.records import from_json
from mppe_ros.structures import IntrinsicsError


@pytest.fixture(scope="module")
def estimate():
    return PoseEstimator(device="cpu")


@pytest.fixture(scope="module")
def picture():
    return clip_frames(1)[0]


@pytest.fixture(scope="module")
def poses(estimate, picture):
    return estimate(picture, fov_deg=60)


def test_a_picture_gives_skeletons(poses, picture):
    assert isinstance(poses, Poses) and len(poses) >= 2 and list(poses) == list(poses.people)
    count, height, width = len(poses), *picture.shape[:2]
    assert poses.roots_m.shape == (count, 3)
    assert poses.joints_m.shape == (count, len(poses.skeleton), 3)
    np.testing.assert_allclose(poses.roots_m[0] * 1000, poses.people[0].root_mm)
    assert poses.intrinsics == Intrinsics.from_fov(60, width, height)
    assert from_json(poses.to_json())["poses"][0]["bbox"] == list(poses.people[0].bbox_xywh_px)
    drawn = poses.draw()
    assert drawn.shape == picture.shape and (drawn != picture).any()


def test_a_file_is_its_picture(estimate, poses, picture, tmp_path):
    write_image(tmp_path / "photo.png", picture)
    again = estimate(tmp_path / "photo.png", fov_deg=60)
    np.testing.assert_array_equal(again.roots_m, poses.roots_m)
    assert again.image == str(tmp_path / "photo.png")


def test_what_is_known_of_the_camera_is_used(estimate, picture):
    twice = [estimate(picture, Camera(fx=f)).roots_m[0, 2] for f in (500, 1000)]
    assert twice[1] == pytest.approx(2 * twice[0], rel=1e-4)
    assert estimate(picture).intrinsics.assumed
    with pytest.raises(ValueError, match="either camera or fov_deg"):
        estimate(picture, CAMERA, fov_deg=60)
    with pytest.raises(ValueError, match="camera 99x99"):
        estimate(picture, Intrinsics(500, 500, 50, 50, 99, 99))
    with pytest.raises(IntrinsicsError, match="field of view"):
        estimate(picture, fov_deg=0)


def test_what_is_no_picture_is_named(estimate, tmp_path):
    with pytest.raises(MediaError, match="nowhere"):
        estimate(tmp_path / "nowhere.jpg")
    with pytest.raises(MediaError, match="nowhere"):
        next(estimate.film(tmp_path / "nowhere.mp4"))


def test_a_film_comes_image_by_image(estimate):
    film = estimate.film(CLIP, fov_deg=60)
    first, second = next(film), next(film)
    film.close()
    assert (first.frame, second.frame) == (0, 1)
    assert second.stamp[1] * 1e-9 == pytest.approx(1 / FPS, abs=1e-6)
    ids = [{person.tracking.track_id for person in poses} for poses in (first, second)]
    assert len(ids[0] & ids[1]) >= 2


def test_without_its_picture_nothing_can_be_drawn(poses):
    bare = Poses(poses.people, poses.skeleton, poses.intrinsics, poses.model)
    with pytest.raises(ValueError, match="give draw"):
        bare.draw()


def test_the_package_alone_loads_nothing():
    """Nodes that only show or record start without torch."""
    program = "import sys, mppe_ros; assert 'torch' not in sys.modules; mppe_ros.Intrinsics; " \
              "assert 'torch' not in sys.modules"  # fmt: skip
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mppe_ros.nonsense
