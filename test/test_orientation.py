"""Which way people face: bodies turned around, REP 155's axes, how uncertain they are."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from orientations import root_orientation
from transforms3d.axangles import axangle2mat
from transforms3d.quaternions import quat2mat

from mppe_ros.orientation import TORSO, body_axes
from mppe_ros.skeletons import HUMAN36M_17, SKELETONS
from mppe_ros.structures import RootError

ERROR = RootError(along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0)

# The torso in the body's own frame, mm: x forward, y to the person's left, z to the head.
IN_BODY = dict(
    zip(TORSO, ([0, -110, 0], [0, 110, 0], [20, -180, 480], [20, 180, 480]), strict=True)
)
# A person who faces the camera, upright: columns are the body's axes in the camera's frame.
FACING = np.array([[0, 1, 0], [0, 0, -1], [-1, 0, 0]], float)

angles = st.floats(-np.pi, np.pi)
seeds = st.integers(0, 2**32 - 1)


def make_body(turn, skeleton=HUMAN36M_17, in_body=IN_BODY, origin_mm=(500, 200, 4000)):
    """Joints in the camera's frame; those that say nothing about the torso are nowhere."""
    joints_mm = np.full((len(skeleton), 3), np.nan)
    for name, place in in_body.items():
        joints_mm[skeleton.joint_names.index(name)] = turn @ place + origin_mm
    return joints_mm


def random_rotation(seed):
    quaternion = np.random.default_rng(seed).normal(size=4)
    return quat2mat(quaternion / np.linalg.norm(quaternion))


def orientation_of(joints_mm, skeleton=HUMAN36M_17):
    xyzw, covariance = root_orientation(joints_mm, skeleton, ERROR)
    return quat2mat(np.roll(xyzw, 1)), covariance


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_whoever_faces_the_camera_looks_against_its_axis(skeleton):
    axes, _ = orientation_of(make_body(FACING, skeleton), skeleton)
    forward, left, headward = axes.T
    assert forward @ [0, 0, -1] > 0.99  # the shoulders are a little in front of the hips
    assert left @ [1, 0, 0] > 0.99
    assert headward @ [0, -1, 0] > 0.99


@given(angles)
def test_whoever_turns_around_is_turned_as_far(angle):
    """About the body's own vertical axis: by half a turn one looks where the camera looks."""
    before, _ = orientation_of(make_body(FACING))
    about_vertical = axangle2mat([0, 1, 0], angle)  # of the camera's frame, downwards
    after, _ = orientation_of(make_body(about_vertical @ FACING))
    np.testing.assert_allclose(after, about_vertical @ before, atol=1e-9)


@given(seeds)
def test_axes_turn_with_the_body_whatever_its_place_and_size(seed):
    turn = random_rotation(seed)
    upright, _ = orientation_of(make_body(np.eye(3), origin_mm=(0, 0, 0)))
    large = {name: 1.3 * np.array(place) for name, place in IN_BODY.items()}
    turned, _ = orientation_of(make_body(turn, in_body=large, origin_mm=(-900, 0, 7000)))
    np.testing.assert_allclose(turned, turn @ upright, atol=1e-9)
    np.testing.assert_allclose(turned.T @ turned, np.eye(3), atol=1e-9)
    assert np.linalg.det(turned) == pytest.approx(1)


@given(seeds)
def test_heading_is_the_least_certain_of_the_body_s_axes(seed):
    axes, covariance = orientation_of(make_body(random_rotation(seed)))
    expected = np.diag([ERROR.tilt_rad**2, ERROR.tilt_rad**2, ERROR.heading_rad**2])
    np.testing.assert_allclose(axes.T @ covariance @ axes, expected, atol=1e-9)


def test_who_is_seen_badly_has_an_orientation_that_is_known_badly():
    joints = make_body(FACING)
    _, usual = root_orientation(joints, HUMAN36M_17, ERROR)
    _, doubted = root_orientation(joints, HUMAN36M_17, ERROR, doubt=3.0)
    np.testing.assert_allclose(doubted, 9 * usual)


def test_shoulders_that_twist_against_the_hips_count_half():
    twisted = dict(IN_BODY)
    for name in ("R_Shoulder", "L_Shoulder"):
        twisted[name] = axangle2mat([0, 0, 1], np.radians(40)) @ IN_BODY[name]
    still, both = (body_axes(make_body(np.eye(3), in_body=b), HUMAN36M_17)
                   for b in (IN_BODY, twisted))  # fmt: skip
    angle = np.degrees(np.arccos(np.clip(still[:, 1] @ both[:, 1], -1, 1)))
    assert 10 < angle < 40


def without(joint):
    return {name: place for name, place in IN_BODY.items() if name != joint}


@pytest.mark.parametrize(
    "in_body",
    [
        *(without(joint) for joint in TORSO),
        {name: np.zeros(3) for name in IN_BODY},  # a point
        {name: [0, 0, place[2]] for name, place in IN_BODY.items()},  # a line upwards
        {name: [0, place[1], 0] for name, place in IN_BODY.items()},  # and one across
        {name: [0, place[1], 2 * place[1]] for name, place in IN_BODY.items()},  # and a slanted
    ],
)
def test_a_torso_that_is_invalid_or_flat_has_no_orientation(in_body):
    assert root_orientation(make_body(FACING, in_body=in_body), HUMAN36M_17, ERROR) == (None, None)
