"""The colours of people's clothes, read off drawn people."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from walkers import CAMERA, figure_mm

from mppe_ros import appearance, camera
from mppe_ros.skeletons import HUMAN36M_17, MUCO_21
from mppe_ros.structures import JointStatus

SHIRT, TROUSERS = (200, 40, 10), (20, 60, 180)
CHEST, THIGHS, SHINS = 0, 4, 5


def drawn(x_m=0.0, shirt=SHIRT, trousers=TROUSERS, skeleton=MUCO_21):
    """A picture of somebody 3 m away, and the joints (1, J, 2) in it."""
    figure = figure_mm(np.array([x_m * 1000, 0.0, 3000.0]), np.zeros(3), 0.0)
    pixels = camera.project(figure, CAMERA)
    image = np.full((CAMERA.height, CAMERA.width, 3), 128, np.uint8)
    at = dict(zip(MUCO_21.joint_names, np.rint(pixels).astype(int), strict=True))
    for side in "RL":
        legs = [at[f"{side}_{joint}"] for joint in ("Hip", "Knee", "Ankle")]
        cv2.polylines(image, [np.array(legs)], False, trousers, 12)
    corners = [at[name] for name in ("R_Shoulder", "L_Shoulder", "L_Hip", "R_Hip")]
    cv2.fillPoly(image, [np.array(corners)], shirt)
    known = [name for name in skeleton.joint_names if name in at]
    joints = np.zeros((1, len(skeleton), 2))
    joints[:, skeleton.indices(known)] = pixels[MUCO_21.indices(known)]
    return image, joints


def colours(image, joints, status=None, skeleton=MUCO_21):
    if status is None:
        status = np.full(joints.shape[:2], JointStatus.OK, np.uint8)
    return appearance.colours(image, joints, status, skeleton)


@pytest.mark.parametrize("skeleton", [MUCO_21, HUMAN36M_17], ids=lambda one: one.name)
def test_clothes_have_the_colours_they_were_drawn_in(skeleton):
    (found,) = colours(*drawn(skeleton=skeleton), skeleton=skeleton)
    np.testing.assert_allclose(found[CHEST], SHIRT, atol=1)
    np.testing.assert_allclose(found[[THIGHS, SHINS]], [TROUSERS] * 2, atol=1)


def test_images_on_a_device_give_the_same():
    image, joints = drawn()
    np.testing.assert_array_equal(colours(torch.from_numpy(image), joints), colours(image, joints))


def test_several_people_are_as_each_alone():
    (left, at), (right, there) = drawn(-1.0), drawn(1.0, TROUSERS, SHIRT)
    image = np.concatenate([left[:, :320], right[:, 320:]], axis=1)
    both = colours(image, np.concatenate([at, there]))
    np.testing.assert_array_equal(both[:1], colours(left, at))
    np.testing.assert_array_equal(both[1:], colours(right, there))


def test_a_part_without_a_sure_joint_or_outside_the_image_is_unseen():
    image, joints = drawn()
    status = np.full(joints.shape[:2], JointStatus.OK, np.uint8)
    status[0, MUCO_21.indices(["R_Ankle", "L_Ankle"])] = JointStatus.LOW_SCORE
    (found,) = colours(image, joints, status)
    assert np.isnan(found[SHINS]).all() and np.isfinite(found[THIGHS]).all()
    for away in (1e4, -1e4):
        assert np.isnan(colours(image, joints + away)).all()


def test_joints_without_a_place_are_unseen():
    image, joints = drawn()
    status = np.full(joints.shape[:2], JointStatus.INVALID, np.uint8)
    assert np.isnan(colours(image, np.full_like(joints, np.nan), status)).all()


_LOOKS = arrays.arrays(
    np.float64, appearance.UNSEEN.shape, elements=st.floats(0, 255) | st.just(np.nan)
)


@given(_LOOKS, _LOOKS)
def test_likeness(a, b):
    apart = appearance.unlike(a, b)
    np.testing.assert_equal(apart, appearance.unlike(b, a))
    seen = np.isfinite(a).all(-1) & np.isfinite(b).all(-1)
    assert np.isnan(apart) if not seen.any() else 0 <= apart <= 1
    own = appearance.unlike(a, a)
    assert np.isnan(own) or own == 0


def test_people_in_other_clothes_are_unlike():
    one, other = colours(*drawn()), colours(*drawn(shirt=(240, 240, 240), trousers=(0, 0, 0)))
    assert appearance.unlike(one, other)[0] > 0.5


@given(_LOOKS, _LOOKS)
def test_memory_keeps_what_it_knows_and_learns_the_rest(before, now):
    kept = appearance.remembered(before, now)
    np.testing.assert_array_equal(np.isnan(kept), np.isnan(before) & np.isnan(now))
    known = np.isfinite(kept)
    low, high = np.fmin(before, now), np.fmax(before, now)
    assert ((low - 1e-9 <= kept) & (kept <= high + 1e-9))[known].all()
    only_before = np.isfinite(before) & np.isnan(now)
    np.testing.assert_array_equal(kept[only_before], before[only_before])
