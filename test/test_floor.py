"""Distances by the floor: feet that stand on it tell how far away a person is."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walkers import (
    ANKLE_MM,
    CAMERA,
    ERROR,
    FPS,
    LEVEL,
    WalkersPipeline,
    draw_film,
    figure_mm,
    true_person,
)

from mppe_ros import camera, floor
from mppe_ros.sequence import PoseSequence
from mppe_ros.skeletons import ANKLES, MUCO_21
from mppe_ros.structures import JointStatus, Person


def camera_at(height_m, tilt_rad):
    """(4, 4): looks along the world's y axis, down by ``tilt_rad``."""
    c, s = np.cos(tilt_rad), np.sin(tilt_rad)
    pose = np.eye(4)
    pose[:3, :3] = np.array([[1, 0, 0], [0, -s, c], [0, -c, -s]])
    pose[2, 3] = height_m
    return pose


def standing(pose, distance_m, error=0.0):
    """Somebody on the floor, as seen with all pixels right and the distance wrong."""
    upright = figure_mm(np.zeros(3), np.zeros(3), 0.0) * [1, -1, -1]  # y up
    above = floor.ANKLE_HEIGHT_MM + ANKLE_MM + upright[:, 1]
    world = np.stack([upright[:, 0], 1000 * distance_m + upright[:, 2], above], axis=1)
    joints = (world - pose[:3, 3] * 1000) @ pose[:3, :3]
    truth = true_person(joints, 1)
    root = joints[MUCO_21.root_index]
    z = root[2] * (1 + error)
    seen = camera.back_project(truth.joints_px, joints[:, 2] + z - root[2], CAMERA)
    seen_root = seen[MUCO_21.root_index]
    along = ERROR.along * float(np.linalg.norm(seen_root))
    count = len(joints)
    person = Person(
        score=0.9, bbox_xywh_px=truth.bbox_xywh_px,
        root_px=truth.joints_px[MUCO_21.root_index], root_mm=seen_root,
        root_covariance_mm2=camera.ray_covariance(seen_root, along, ERROR.across_mm),
        joints_px=truth.joints_px, joints_mm=seen, joint_scores=np.ones(count),
        joint_status=np.full(count, JointStatus.OK, np.uint8),
    )  # fmt: skip
    return person, root


def fused(person, pose):
    return floor.fuse(person, pose, CAMERA, MUCO_21, ERROR)


@pytest.mark.parametrize("error", [-0.12, 0.12])
@pytest.mark.parametrize("tilt_rad", [0.1, 0.3])
def test_who_is_misplaced_comes_nearer_to_the_truth_and_keeps_all_pixels(error, tilt_rad):
    pose = camera_at(1.8, tilt_rad)
    person, true_root = standing(pose, 4.0, error)
    better = fused(person, pose)
    off = np.linalg.norm(person.root_mm - true_root)
    assert np.linalg.norm(better.root_mm - true_root) < 0.5 * off
    assert np.trace(better.root_covariance_mm2) < np.trace(person.root_covariance_mm2)
    projected = camera.project(better.joints_mm, CAMERA)
    np.testing.assert_allclose(projected, person.joints_px, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.6, 3), st.floats(0, 0.4), st.floats(2.5, 8))
def test_who_is_at_the_right_place_stays(height_m, tilt_rad, distance_m):
    pose = camera_at(height_m, tilt_rad)
    person, true_root = standing(pose, distance_m)
    np.testing.assert_allclose(fused(person, pose).root_mm, true_root, rtol=1e-6, atol=1e-3)


def test_the_lower_the_camera_the_less_feet_count():
    moved = []
    for height_m in (0.5, 1.0, 2.0):
        pose = camera_at(height_m, 0.1)
        person, _ = standing(pose, 4.0, 0.1)
        moved.append(np.linalg.norm(fused(person, pose).root_mm - person.root_mm))
    assert moved[0] < moved[1] < moved[2]


def test_a_lifted_foot_does_not_count():
    pose = camera_at(1.5, 0.1)
    person, _ = standing(pose, 4.0)
    lifted = person.joints_px.copy()
    lifted[MUCO_21.joint_names.index("L_Ankle")] -= (0, 20)
    lifted = dataclasses.replace(person, joints_px=lifted)
    np.testing.assert_allclose(fused(lifted, pose).root_mm, person.root_mm, atol=1e-6)


def test_without_feet_or_height_or_agreement_nothing_changes():
    pose = camera_at(1.5, 0.1)
    person, _ = standing(pose, 4.0, 0.1)
    status = person.joint_status.copy()
    status[MUCO_21.indices(ANKLES)] = JointStatus.TRUNCATED
    footless = dataclasses.replace(person, joint_status=status)
    assert fused(footless, pose) is footless
    assert fused(person, camera_at(0.25, 0.1)) is person
    assert fused(person, camera_at(-1.0, 0.1)) is person
    assert fused(person, camera_at(4.0, 0.1)) is person  # the floor is elsewhere


def test_a_sequence_asks_the_floor_only_where_it_knows_of_it():
    film = draw_film(2, people=2, frames=12)

    def error_mm(on_floor, pose):
        sequence = PoseSequence(WalkersPipeline(film, 2, recall=1.0), on_floor=on_floor)
        for index, (photo, rgb) in enumerate(film.pictures()):
            sequence.step(rgb, photo.intrinsics, index / FPS, pose)
        true = np.array([truth.joints_mm[MUCO_21.root_index] for truth in photo.people])
        roots = np.array([one.person.root_mm for one in sequence.seen])
        apart = np.linalg.norm(roots[:, None] - true, axis=-1)
        return apart.min(axis=1).mean()

    assert error_mm(True, LEVEL) < 0.8 * error_mm(True, None)
    assert error_mm(True, None) == error_mm(False, LEVEL)
