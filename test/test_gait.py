"""Speeds by swinging legs, with legs as numbers."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from walkers import CAMERA, ERROR, LEVEL, WalkersPipeline, draw_film, figure_mm, true_person

from mppe_ros import camera, gait
from mppe_ros.gait import WALK_MM_S, WALK_SPREAD_MM_S, Swing
from mppe_ros.kalman import SPEED_MM_S
from mppe_ros.orientation import body_axes
from mppe_ros.skeletons import MUCO_21, Skeleton
from mppe_ros.smoothing import SmoothingOptions
from mppe_ros.tracking import Seen, Tracker

FORWARD = np.array([0.6, 0.8, 0.0])
SIDE = np.array([-0.8, 0.6, 0.0])
EYES = WalkersPipeline(draw_film(0, people=1, frames=2))


def swinging(speed_mm_s, forward=FORWARD):
    return Swing(np.zeros(3), forward, np.array(float(speed_mm_s)))


def spread(forward_mm_s, side_mm_s=150.0):
    """A velocity's covariance."""
    axes = np.stack([FORWARD, SIDE, [0.0, 0, 1]], axis=1)
    return (axes * np.square([forward_mm_s, side_mm_s, 50.0])) @ axes.T


def test_who_swings_the_legs_walks():
    slow = 500 * FORWARD + 60 * SIDE
    velocity, covariance = swinging(2000).velocity(slow, spread(400))
    assert 700 < FORWARD @ velocity < WALK_MM_S
    assert SIDE @ velocity == pytest.approx(60)
    assert FORWARD @ covariance @ FORWARD < 400**2
    assert SIDE @ covariance @ SIDE == pytest.approx(150**2)


def test_legs_that_hang_leave_the_filters_word():
    """People also ride and roll."""
    for speed in (0.0, 300.0, 1500.0):
        velocity, covariance = swinging(0).velocity(speed * FORWARD, spread(300))
        assert FORWARD @ velocity == pytest.approx(speed, abs=60)
        assert FORWARD @ covariance @ FORWARD == pytest.approx(300**2, rel=0.2)


def test_a_well_known_speed_stays():
    for speed in (0.0, 400.0, 2500.0):
        velocity, _ = swinging(2000).velocity(speed * FORWARD, spread(40))
        assert FORWARD @ velocity == pytest.approx(speed, abs=50)


@pytest.mark.parametrize("swing", [swinging(math.nan), swinging(2000, np.full(3, np.nan))])
def test_unknown_legs_change_nothing(swing):
    before = np.array([300.0, -200.0, 10.0]), spread(300)
    for old, new in zip(before, swing.velocity(*before), strict=True):
        np.testing.assert_array_equal(old, new)


@given(speed=st.floats(-3000, 3000), deviation=st.floats(20, 690), swing=st.floats(0, 4000))
def test_it_is_the_mean_and_variance_of_the_mixture(speed, deviation, swing):
    """Compared with sums over all speeds."""
    velocity, covariance = swinging(swing).velocity(speed * FORWARD, spread(deviation))
    grid = np.arange(-9000.0, 9000.0, 2.0)

    def normal(mean, sigma):
        return np.exp(-(((grid - mean) / sigma) ** 2) / 2) / sigma

    likelihood_variance = 1 / (deviation**-2 - SPEED_MM_S**-2)
    # Logarithms, as the likelihood of one speed alone may be too small for numbers.
    exponent = -((grid - speed / deviation**2 * likelihood_variance) ** 2)
    exponent = exponent / (2 * likelihood_variance)
    walks = 0.95 / (1 + math.exp(-(swing - 680) / 170))
    expected = walks * normal(WALK_MM_S, WALK_SPREAD_MM_S) + (1 - walks) * normal(0, SPEED_MM_S)
    with np.errstate(divide="ignore"):
        logarithm = exponent + np.log(expected)
    density = np.exp(logarithm - logarithm.max())
    density /= density.sum()
    mean = float(density @ grid)
    assert FORWARD @ velocity == pytest.approx(mean, abs=3)
    variance = float(density @ (grid - mean) ** 2)
    assert FORWARD @ covariance @ FORWARD == pytest.approx(variance, rel=0.02, abs=20)


@given(st.floats(0, 2 * math.pi), st.floats(0, 4000), st.integers(0, 1000))
def test_covariances_stay_covariances(angle, swing, seed):
    rng = np.random.default_rng(seed)
    root = rng.normal(0, 500, (3, 3))
    forward = np.array([math.cos(angle), math.sin(angle), 0.0])
    velocity, covariance = swinging(swing, forward).velocity(rng.normal(0, 2000, 3), root @ root.T)
    assert np.isfinite(velocity).all()
    np.testing.assert_allclose(covariance, covariance.T, atol=1e-6)
    assert np.linalg.eigvalsh(covariance)[0] > -1e-3


def test_several_people_are_as_each_alone():
    rng = np.random.default_rng(0)
    swings = [swinging(speed) for speed in (0.0, 900.0, math.nan, 3000.0)]
    ankles, dt_s = rng.normal(0, 300, (4, 3)), np.array([0.05, 0.1, 0.1, 0.9])
    velocities, spreads = (
        rng.normal(0, 800, (4, 3)),
        np.stack([spread(s) for s in (50, 200, 300, 600)]),
    )
    together = Swing.stacked(swings).next(ankles, np.tile(FORWARD, (4, 1)), dt_s)
    told = together.velocity(velocities, spreads)
    for i, (one, of_all) in enumerate(zip(swings, together.each(), strict=True)):
        alone = one.next(ankles[i], FORWARD, dt_s[i])
        for a, b in zip(alone, of_all, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(alone.velocity(velocities[i], spreads[i]), told, strict=True):
            np.testing.assert_allclose(a, b[i], rtol=1e-9)


def walked(speed_mm_s, fps=15.0, seconds=2.0, skeleton=MUCO_21):
    """The legs of somebody after a walk."""
    swing, velocity = Swing.unknown(), np.array([speed_mm_s, 0.0, 0.0])
    for index in range(round(seconds * fps)):
        joints = figure_mm(np.zeros(3), velocity, 0.9 * index / fps)
        forward = gait.forward(body_axes(joints, MUCO_21), np.array([0.0, -1, 0]))
        swing = swing.next(gait.ankles_mm(joints, skeleton), forward, np.array(1 / fps))
    return swing


def test_legs_of_a_drawn_walker():
    # Each ankle goes to and fro by 0.22 s times the speed, 0.9 times a second: eight quarters.
    expected = 0.22 * 1200 * 8 * 0.9
    assert walked(1200).speed_mm_s == pytest.approx(expected, rel=0.3)
    np.testing.assert_allclose(walked(1200).forward, [1, 0, 0], atol=1e-9)
    assert walked(0).speed_mm_s == pytest.approx(0)


def test_what_legs_do_in_a_long_time_is_unknown():
    assert np.isnan(walked(1200, fps=2).speed_mm_s)
    one = swinging(800).next(np.full(3, 500.0), FORWARD, np.array(0.1))
    assert np.isfinite(one.next(np.zeros(3), FORWARD, np.array(0.1)).speed_mm_s)
    assert np.isnan(one.next(np.zeros(3), FORWARD, np.array(0.6)).speed_mm_s)


def test_joints_without_ankles_tell_nothing():
    torso = Skeleton("torso", MUCO_21.joint_names[:9], (), (), 1)
    swing = walked(1200, skeleton=torso)
    before = 500 * FORWARD, spread(300)
    assert np.isnan(swing.speed_mm_s)
    np.testing.assert_array_equal(swing.velocity(*before)[0], before[0])


def followed(seed, pose, legs):
    """Errors, m/s, of the speed of somebody who comes nearer."""
    rng, tracker = np.random.default_rng(seed), Tracker(MUCO_21, ERROR)
    for index in range(40):
        place = np.array([300.0, 0.0, 6000 - 1200 * index / 15])
        velocity = np.array([0.0, 0.0, -1200.0])
        joints = figure_mm(place, velocity, 0.9 * index / 15 if legs else 0.0)
        joints = joints + rng.normal(0, 0.03) * joints
        truth = true_person(joints, 1)
        seen = EYES.person(truth, truth.bbox_xywh_px, 0.9)
        root = joints[MUCO_21.root_index]
        covariance = camera.ray_covariance(
            root, ERROR.along * np.linalg.norm(root), ERROR.across_mm
        )
        seen = dataclasses.replace(
            seen, root_mm=root, joints_mm=joints, root_covariance_mm2=covariance
        )
        tracker.predict(index / 15, CAMERA, pose)
        (one,) = tracker.update([Seen(seen, True)], SmoothingOptions(enabled=False))
    return (one.tracking.velocity_mm_s[2] + 1200) / 1000


def test_speeds_along_the_ray_are_better_known_by_the_legs():
    with_legs, without = (
        [followed(seed, LEVEL, legs) for seed in range(12)] for legs in (True, False)
    )
    assert np.sqrt(np.mean(np.square(with_legs))) < 0.7 * np.sqrt(np.mean(np.square(without)))


def test_legs_tell_no_speed_relative_to_a_camera_that_may_move():
    np.testing.assert_allclose(followed(0, None, True), followed(0, None, False), atol=0.02)
