"""Depth fusion: a person who stands in a depth image, and all that may be in the way."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orientations import root_orientation

from mppe_ros import camera
from mppe_ros.depth import (
    BACK_DEPTH_MM,
    FRONT_DEPTH_MM,
    SIDE_DEPTH_MM,
    fuse,
    torso_depth_mm,
)
from mppe_ros.orientation import TORSO
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Intrinsics, Person, RootError

SKELETON = HUMAN36M_17
ERROR = RootError(along=0.13, across_mm=40.0, tilt_rad=0.2, heading_rad=0.3, fused_mm=60.0)
CAMERA = Intrinsics(300, 300, 160, 120, 320, 240)
BENT = Intrinsics(250, 250, 150, 125, 320, 240, "plumb_bob", (-0.2, 0.02, 0.001, -0.001, 0.0))
FAR_M = 9.0  # the wall behind

# Hips and shoulders of somebody who faces the camera, from the pelvis, mm.
PLACES = dict(
    zip(TORSO, ([-110, 0, 0], [110, 0, 0], [-180, -480, 0], [180, -480, 0]), strict=True)
)


def make_person(true_z_mm=4000.0, off_mm=0.0, x_mm=300.0, intrinsics=CAMERA, places=PLACES):
    """RootNet's and PoseNet's view of somebody ``off_mm`` too far along the optical axis."""
    joints = np.tile([x_mm, 200.0, true_z_mm], (len(SKELETON), 1))
    for name, place in places.items():
        joints[SKELETON.joint_names.index(name)] += place
    joints_px = camera.project(joints, intrinsics)
    root_px = joints_px[SKELETON.root_index]
    seen = camera.back_project(joints_px, joints[:, 2] + off_mm, intrinsics)
    root = seen[SKELETON.root_index]
    orientation, covariance = root_orientation(seen, SKELETON, ERROR)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([100.0, 50, 80, 160]),
        root_px=root_px,
        root_mm=root,
        root_covariance_mm2=camera.ray_covariance(
            root, ERROR.along * np.linalg.norm(root), ERROR.across_mm
        ),
        joints_px=joints_px,
        joints_mm=seen,
        joint_scores=np.ones(len(SKELETON)),
        joint_status=np.zeros(len(SKELETON), np.uint8),
        root_orientation_xyzw=orientation,
        root_orientation_covariance=covariance,
    )


def make_depth(person, true_z_mm=4000.0):
    """The person's surface before a wall, m; NaN at random nowhere."""
    depth_m = np.full((CAMERA.height, CAMERA.width), FAR_M)
    depth_m[torso_of(person)] = (true_z_mm - torso_depth_mm(-1.0, ERROR.heading_rad)) / 1000
    return depth_m


def torso_of(person, margin_px=3):
    """Rows and columns around hips and shoulders."""
    corners = person.joints_px[SKELETON.indices(TORSO)]
    (left, top), (right, bottom) = corners.min(0) - margin_px, corners.max(0) + margin_px
    height = bottom - top
    return (
        slice(max(int(top), 0), int(bottom + 0.2 * height) + 1),
        slice(max(int(left), 0), int(right) + 1),
    )


def fused(person, depth_m, intrinsics=CAMERA):
    (better,) = fuse([person], depth_m, intrinsics, SKELETON, ERROR)
    return better


def along_and_across(person):
    ray = person.root_mm / np.linalg.norm(person.root_mm)
    along = ray @ person.root_covariance_mm2 @ ray
    return np.sqrt(along), np.sqrt((np.trace(person.root_covariance_mm2) - along) / 2)


true_depths = st.floats(1800, 7000)
# RootNet's error in standard deviations.
errors = st.floats(-2, 2)


@settings(deadline=None)
@given(true_depths, errors)
def test_depth_brings_people_to_their_place(true_z_mm, error):
    off_mm = error * ERROR.along * true_z_mm
    person = make_person(true_z_mm, off_mm)
    better = fused(person, make_depth(person, true_z_mm))
    # What is left of RootNet's error is its weight against a far better measurement.
    assert abs(better.root_mm[2] - true_z_mm) <= 0.15 * abs(off_mm) + 5


@settings(deadline=None)
@given(true_depths, errors, st.sampled_from([CAMERA, BENT]))
def test_pixels_and_relative_depths_stay_and_only_the_ray_gets_surer(true_z_mm, error, lens):
    person = make_person(true_z_mm, error * ERROR.along * true_z_mm, intrinsics=lens)
    better = fused(person, make_depth(person, true_z_mm), lens)
    np.testing.assert_allclose(camera.project(better.root_mm, lens), person.root_px, atol=0.01)
    np.testing.assert_allclose(camera.project(better.joints_mm, lens), person.joints_px, atol=0.01)
    np.testing.assert_allclose(
        better.joints_mm[:, 2] - better.root_mm[2],
        person.joints_mm[:, 2] - person.root_mm[2],
        atol=1e-6,
    )
    (along, across), (before, across_before) = map(along_and_across, (better, person))
    assert along < min(0.7 * before, 1.1 * ERROR.fused_mm + 0.02 * true_z_mm)
    assert across == pytest.approx(across_before, rel=1e-6)
    for kept in ("score", "bbox_xywh_px", "joints_px", "joint_scores"):
        assert getattr(better, kept) is getattr(person, kept)


@pytest.mark.parametrize("lens", [CAMERA, BENT])
def test_the_root_whose_depth_is_known_is_posenet_s(lens):
    person = make_person(off_mm=600, intrinsics=lens)
    pelvis_px = person.joints_px[SKELETON.root_index]
    better = fused(replace(person, root_px=pelvis_px + (5.0, -3.0)), make_depth(person), lens)
    np.testing.assert_array_equal(better.root_px, pelvis_px)
    np.testing.assert_allclose(camera.project(better.root_mm, lens), pelvis_px, atol=0.01)


def test_rootnet_s_pixel_stands_where_posenet_has_no_pelvis():
    person = make_person(off_mm=600)
    lost = replace(person, joints_mm=person.joints_mm.copy())
    lost.joints_mm[SKELETON.root_index] = np.nan
    better = fused(replace(lost, root_px=person.root_px + 2.0), make_depth(person))
    np.testing.assert_allclose(camera.project(better.root_mm, CAMERA), person.root_px + 2.0)


def test_orientation_follows_the_moved_joints():
    turned = {name: [0.8 * x, y, 0.6 * x] for name, (x, y, _) in PLACES.items()}
    person = make_person(4000, 800, places=turned)
    better = fused(person, make_depth(person))
    expected, _ = root_orientation(better.joints_mm, SKELETON, ERROR)
    np.testing.assert_array_equal(better.root_orientation_xyzw, expected)
    assert np.abs(better.root_orientation_xyzw - person.root_orientation_xyzw).max() > 0.01


@pytest.mark.parametrize("hole", [0.0, np.nan, np.inf, -1.0])
def test_holes_don_t_matter_as_long_as_enough_is_seen(hole):
    person = make_person(off_mm=600)
    depth_m = make_depth(person)
    depth_m[np.random.default_rng(0).random(depth_m.shape) < 0.7] = hole
    assert fused(person, depth_m).root_mm[2] == pytest.approx(4000, abs=40)


def test_an_arm_before_the_torso_is_outvoted():
    person = make_person(off_mm=600)
    depth_m = make_depth(person)
    rows, columns = torso_of(person)
    middle = (columns.start + columns.stop) // 2
    depth_m[rows, middle - 4 : middle + 3] -= 0.35
    assert fused(person, depth_m).root_mm[2] == pytest.approx(4000, abs=40)


def test_the_wall_behind_a_narrow_person_is_outvoted():
    person = make_person(off_mm=-600)
    depth_m = make_depth(person)
    rows, columns = torso_of(person)
    depth_m[rows, columns.start : columns.start + 12] = 4.6  # within RootNet's doubt
    assert fused(person, depth_m).root_mm[2] == pytest.approx(4000, abs=60)


def whole(depth_m, person, value):
    depth_m[:] = value


def torso(depth_m, person, value):
    depth_m[torso_of(person, margin_px=8)] = value


def scattered(depth_m, person, value):
    """One pixel in ten is known: too few."""
    unknown = np.random.default_rng(0).random(depth_m.shape) > value
    depth_m[unknown] = np.nan


def stepped(depth_m, person, value):
    """Every pixel says something else: no surface at all."""
    noise = np.random.default_rng(0).uniform(-value, value, depth_m.shape)
    depth_m += noise


@pytest.mark.parametrize(
    ("spoil", "value"),
    [
        pytest.param(whole, np.nan, id="nothing was measured"),
        pytest.param(whole, 0.0, id="zero everywhere"),
        pytest.param(torso, 0.9, id="an occluder, too near to be the person"),
        pytest.param(torso, FAR_M, id="glass, the wall behind it is seen"),
        pytest.param(scattered, 0.1, id="too little is known"),
        pytest.param(stepped, 4.0, id="no surface"),
    ],
)
def test_rootnet_s_word_stands_where_depth_is_of_no_use(spoil, value):
    person = make_person(off_mm=300)
    depth_m = make_depth(person)
    assert fused(person, depth_m) is not person  # it was of use until now
    spoil(depth_m, person, value)
    assert fused(person, depth_m) is person


def test_rootnet_s_word_stands_where_the_torso_is_not_in_the_image():
    beside = make_person(x_mm=-4000.0)
    assert fused(beside, np.full((240, 320), 4.0)) is beside
    nowhere = make_person()
    nowhere.joints_px[SKELETON.indices(TORSO)[0]] = np.nan
    assert fused(nowhere, make_depth(make_person())) is nowhere


def test_without_an_orientation_depth_still_helps():
    person = replace(
        make_person(off_mm=600), root_orientation_xyzw=None, root_orientation_covariance=None
    )
    assert fused(person, make_depth(person)).root_mm[2] == pytest.approx(4000, abs=100)


@pytest.mark.parametrize("shape", [(120, 160), (240, 321), (320, 240)])
def test_a_depth_image_of_another_size_is_refused(shape):
    with pytest.raises(ValueError, match=f"{shape[1]}x{shape[0]} px.*320x240 px.*registered"):
        fused(make_person(), np.full(shape, 4.0))


# --- how deep the torso lies under its surface ---------------------------------------------------


def test_a_sure_heading_tells_the_side_and_an_unsure_one_nothing():
    assert torso_depth_mm(-1.0, 0.0) == pytest.approx(FRONT_DEPTH_MM)
    assert torso_depth_mm(0.0, 0.0) == pytest.approx(SIDE_DEPTH_MM)
    assert torso_depth_mm(1.0, 0.0) == pytest.approx(BACK_DEPTH_MM)
    unsure = [torso_depth_mm(cosine, np.inf) for cosine in (-1.0, 0.0, 0.7, 1.0)]
    assert unsure == pytest.approx([unsure[0]] * 4)
    assert BACK_DEPTH_MM < unsure[0] < SIDE_DEPTH_MM


@settings(deadline=None, max_examples=30)
@given(st.floats(-np.pi, np.pi), st.floats(0.05, 1.5))
def test_it_is_the_mean_over_the_headings_that_are_meant(heading, deviation):
    rng = np.random.default_rng(0)
    drawn = heading + deviation * rng.standard_normal(2000)
    mean = np.mean([torso_depth_mm(cosine, 0.0) for cosine in np.cos(drawn)])
    assert torso_depth_mm(np.cos(heading), deviation) == pytest.approx(mean, abs=5)
