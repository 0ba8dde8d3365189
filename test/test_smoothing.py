"""The 1€ filter of joints: calm at rest, never late when fast, and honest about what it lacks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mppe_ros.smoothing import FAST_MM_S, SmoothingOptions, SmoothJoints
from mppe_ros.structures import JointStatus

JOINTS = 21
DEFAULT = SmoothingOptions()
OK = np.full(JOINTS, JointStatus.OK, np.uint8)


def smooth(film, dt_s, options=DEFAULT, status=OK):
    """(T, J, 3) raw to (T, J, 3) smoothed."""
    state = SmoothJoints.start(film[0])
    result = [film[0]]
    for joints in film[1:]:
        state = state.next(joints, status, dt_s, options)
        result.append(state.where_seen(joints))
    return np.stack(result)


def rest(frames, noise_mm, seed=0):
    return np.random.default_rng(seed).normal(0, noise_mm, (frames, JOINTS, 3))


def start_moving(frames, dt_s, speed_mm_s, still=10):
    """Joints that rest, then all go along x."""
    x = np.maximum(np.arange(frames) - still, 0) * dt_s * speed_mm_s
    film = np.zeros((frames, JOINTS, 3))
    film[..., 0] = x[:, None]
    return film


def test_joints_at_rest_jitter_less():
    film = rest(200, noise_mm=10.0)
    smoothed = smooth(film, 1 / 15)[50:]
    assert np.diff(smoothed, axis=0).std() < 0.5 * np.diff(film[50:], axis=0).std()


@pytest.mark.parametrize("fps", [5, 10, 15, 30, 60, 120])
@pytest.mark.parametrize("speed_mm_s", [FAST_MM_S, 2000.0, 6000.0])
def test_a_fast_limb_is_never_more_than_one_frame_late(fps, speed_mm_s):
    film = start_moving(5 * fps + 20, 1 / fps, speed_mm_s)
    late_mm = film[..., 0] - smooth(film, 1 / fps)[..., 0]
    frame_mm = speed_mm_s / fps
    # In steady motion; the first moments of a start are looked at below.
    assert late_mm[-fps:].max() <= frame_mm * 1.001


@pytest.mark.parametrize("fps", [10, 15, 30, 60])
def test_a_limb_that_starts_fast_is_followed_at_once(fps):
    film = start_moving(3 * fps + 20, 1 / fps, 2000.0)
    late_mm = film[..., 0] - smooth(film, 1 / fps)[..., 0]
    assert late_mm.max() <= 2000.0 / fps * 1.001


def test_doubtful_joints_move_less():
    film = start_moving(40, 1 / 15, 500.0)
    doubtful = np.full(JOINTS, JointStatus.LOW_SCORE, np.uint8)
    sure, unsure = (smooth(film, 1 / 15, status=status) for status in (OK, doubtful))
    assert (unsure[15:, :, 0] < sure[15:, :, 0]).all()


def test_a_joint_without_a_place_stays_so_and_leaves_the_others_alone():
    film = rest(30, 10.0)
    whole = smooth(film, 1 / 15)
    broken = film.copy()
    broken[10:20, 3] = np.nan
    result = smooth(broken, 1 / 15)
    assert np.isnan(result[10:20, 3]).all()
    assert np.isfinite(result[20:, 3]).all()
    others = np.arange(JOINTS) != 3
    np.testing.assert_array_equal(result[:, others], whole[:, others])


def test_a_joint_that_appears_starts_where_it_is():
    film = np.full((3, JOINTS, 3), 100.0)
    film[0, 5] = np.nan
    np.testing.assert_array_equal(smooth(film, 1 / 15)[1:], film[1:])


@settings(max_examples=30, deadline=None)
@given(
    dt_s=st.floats(1e-3, 10.0),
    scale=st.floats(0.1, 1e4),
    seed=st.integers(0, 1000),
    beta=st.floats(0, 100),
    cutoff=st.floats(0.01, 100),
)
def test_smoothed_joints_lie_between_the_last_and_the_new(dt_s, scale, seed, beta, cutoff):
    film = rest(8, scale, seed)
    smoothed = smooth(film, dt_s, SmoothingOptions(True, cutoff, beta))
    low, high = np.minimum(smoothed[:-1], film[1:]), np.maximum(smoothed[:-1], film[1:])
    assert (smoothed[1:] >= low - 1e-6 * scale).all()
    assert (smoothed[1:] <= high + 1e-6 * scale).all()
