"""The field's figures, on cases whose answers are worked out by hand."""

import math

import numpy as np
import pytest

from mppe_ros.evaluation import metrics
from mppe_ros.evaluation.joints import common_joints, our_name, with_pelvis
from mppe_ros.evaluation.metrics import IGNORED, NOBODY, RootsOfImage
from mppe_ros.skeletons import HUMAN36M_17, HUMAN36M_18, LIMB_JOINTS, MUCO_21

MUPOTS_17 = MUCO_21.joint_names[:17]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


# --- pose ----------------------------------------------------------------------------------------


def test_mpjpe_is_the_mean_distance_of_each_person():
    true = np.zeros((2, 4, 3))
    predicted = true.copy()
    predicted[0, 1] = (3, 4, 0)  # 5 mm
    predicted[1, :, 2] = -7
    np.testing.assert_allclose(metrics.mpjpe(predicted, true), [5 / 4, 7])


def test_root_relative_forgets_where_the_person_is(rng):
    joints = rng.normal(size=(5, 17, 3))
    moved = joints + rng.normal(size=(5, 1, 3))
    relative = metrics.root_relative(joints, 3)
    np.testing.assert_allclose(metrics.root_relative(moved, 3), relative)
    np.testing.assert_array_equal(relative[:, 3], 0)


def turn(angle_deg):
    c, s = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


def test_alignment_undoes_rotation_and_translation(rng):
    true = rng.normal(size=(3, 17, 3))
    predicted = true @ turn(70) + (100, -20, 3000)
    np.testing.assert_allclose(metrics.rigid_align(predicted, true), true, atol=1e-9)


def test_alignment_keeps_the_scale():
    cross = 100.0 * np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
    # Every point of the doubled cross is 100 mm too far out; a similarity would have hidden that.
    assert metrics.pa_mpjpe(2 * cross @ turn(30) + 5, cross) == pytest.approx(100)


def test_alignment_does_not_mirror():
    true = np.array([(0, 0, 0), (300, 0, 0), (0, 200, 0), (0, 0, 100)], float)
    mirrored = true * (-1, 1, 1)
    aligned = metrics.rigid_align(mirrored, true)
    # A proper rotation leaves the handedness of the tetrahedron as it was.
    assert np.linalg.det(aligned[1:] - aligned[0]) == pytest.approx(
        np.linalg.det(mirrored[1:] - mirrored[0])
    )
    assert metrics.pa_mpjpe(mirrored, true) > 20


def test_alignment_is_the_best_of_many_rotations(rng):
    true, predicted = rng.normal(size=(2, 9, 3))
    best = (metrics.joint_errors(metrics.rigid_align(predicted, true), true) ** 2).sum()
    for _ in range(200):
        rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        rotation *= np.sign(np.linalg.det(rotation))
        centred = (predicted - predicted.mean(0)) @ rotation + true.mean(0)
        assert (metrics.joint_errors(centred, true) ** 2).sum() >= best


def test_pck_goes_by_the_larger_side_of_the_box():
    true = np.zeros((4, 2))
    predicted = np.array([(0, 0), (19.9, 0), (0, 20.1), (100, 0)])
    assert metrics.pck(predicted, true, [5, 5, 80, 200], 0.1) == 0.5
    assert metrics.pck(predicted, true, [5, 5, 80, 200], 0.2) == 0.75


# --- root ----------------------------------------------------------------------------------------


def test_mrpe_and_its_parts():
    true = np.zeros((2, 3))
    result = metrics.mrpe([[3, 0, -4], [0, 12, 5]], true)
    assert result == pytest.approx((9, 1.5, 6, 4.5))


def test_mrpe_of_nobody_is_not_a_number():
    assert np.isnan(metrics.mrpe(np.empty((0, 3)), np.empty((0, 3)))).all()


def test_gamma_error_is_the_relative_error_of_the_depth():
    k_mm, true_depth_mm = 4000.0, 5000.0
    gamma = 1.1 * true_depth_mm / k_mm
    assert metrics.gamma_error(gamma, true_depth_mm, k_mm) == pytest.approx(0.1)


def roots(*z_mm):
    return np.array([(0, 0, z) for z in z_mm], float).reshape(-1, 3)


def test_average_precision_of_the_root_worked_out_by_hand():
    """By score: right, wrong (300 mm off), right, wrong (claimed already), right."""
    images = [
        RootsOfImage(np.array([0.9, 0.5]), roots(3100, 3050), roots(3000, 9000)),
        RootsOfImage(np.array([0.8, 0.7]), roots(5300, 4000), roots(4000, 5000)),
        RootsOfImage(np.array([0.3]), roots(2200), roots(2000)),
        RootsOfImage(np.array([1.0]), roots(1000), roots()),  # nobody there: skipped
    ]
    # Precision 1, 1/2, 2/3, 2/4, 3/5 at recall 1/5, 1/5, 2/5, 2/5, 3/5; the first is left out.
    expected = 100 * (2 / 3 * 1 / 5 + 3 / 5 * 1 / 5)
    assert metrics.average_precision_root(images) == pytest.approx(expected)


def test_the_root_next_to_somebody_ignored_counts_neither_way():
    plain = RootsOfImage(np.array([0.9, 0.8]), roots(3000, 6000), roots(3000, 6000))
    more = RootsOfImage(
        np.array([0.9, 0.95, 0.8]), roots(3000, 4500, 6000), roots(3000, 6000), roots(4400)
    )
    assert metrics.average_precision_root([more]) == metrics.average_precision_root([plain]) == 50


def test_without_true_roots_there_is_no_precision():
    assert math.isnan(metrics.average_precision_root([]))


# --- 3DPCK ---------------------------------------------------------------------------------------


def test_people_choose_predictions_greedily_and_one_joint_is_enough():
    joints = len(metrics.PCK3D_MATCHED)
    true = np.zeros((3, joints, 2)) + np.array([100, 300, 900])[:, None, None]
    first = np.full((joints, 2), 139.0)  # everything within 40 px of person 0
    second = np.full((joints, 2), 100.0)
    second[0] = 310  # one joint of person 1, the rest of person 0
    pairs = metrics.match_by_joints([second, first], true)
    # Person 0 prefers the one with all joints; the other is left for person 1; 2 has nobody.
    np.testing.assert_array_equal(pairs, [1, 0, NOBODY])


def test_forty_px_are_too_far_and_joints_at_the_origin_do_not_count():
    true = np.full((1, 2, 2), 20.0)
    assert metrics.match_by_joints(np.full((1, 2, 2), 60.0), true) == NOBODY
    assert metrics.match_by_joints(np.zeros((1, 2, 2)), true) == NOBODY
    assert metrics.match_by_joints(np.empty((0, 2, 2)), true) == NOBODY


def test_bones_get_the_true_lengths_and_keep_their_directions(rng):
    predicted, true = 1000 * rng.normal(size=(2, 4, 17, 3))
    mapped = metrics.rescale_bones(predicted, true, MUPOTS_17)
    for joint, parent in metrics.TOWARDS_PELVIS.items():
        pair = [MUPOTS_17.index(joint), MUPOTS_17.index(parent)]
        bone, before, length = (
            joints[:, pair[0]] - joints[:, pair[1]] for joints in (mapped, predicted, true)
        )
        np.testing.assert_allclose(np.linalg.norm(bone, axis=1), np.linalg.norm(length, axis=1))
        np.testing.assert_allclose(
            bone / np.linalg.norm(bone, axis=1)[:, None],
            before / np.linalg.norm(before, axis=1)[:, None],
        )
    pelvis = MUPOTS_17.index("Pelvis")
    np.testing.assert_array_equal(mapped[:, pelvis], predicted[:, pelvis])


def test_a_scaled_person_is_right_after_rescaling(rng):
    true = 500 * rng.normal(size=(1, 17, 3))
    true -= true[:, [14]]
    np.testing.assert_allclose(metrics.rescale_bones(1.7 * true, true, MUPOTS_17), true)


def test_without_spine_and_neck_the_shoulders_hang_on_the_pelvis():
    names = ("Pelvis", *LIMB_JOINTS)
    predicted, true = np.zeros((2, len(names), 3))
    shoulder = names.index("R_Shoulder")
    predicted[shoulder], true[shoulder] = (0, -100, 0), (300, 0, 400)
    np.testing.assert_allclose(
        metrics.rescale_bones(predicted, true, names)[shoulder], (0, -500, 0)
    )


def test_3dpck_absolute_relative_all_and_matched():
    """One person 200 mm too far but of perfect pose, one missed."""
    true = np.random.default_rng(1).normal(size=(2, 17, 3)) * 300
    predicted = true[:1] + (0, 0, 200)
    pairs = np.array([0, NOBODY])
    absolute = metrics.pck3d_errors(predicted, true, pairs, MUPOTS_17, relative=False)
    relative = metrics.pck3d_errors(predicted, true, pairs, MUPOTS_17, relative=True)
    assert absolute.shape == relative.shape == (2, 14)
    np.testing.assert_allclose(absolute[0], 200)
    assert metrics.pck3d(absolute) == 0
    assert metrics.pck3d(relative) == 50
    assert metrics.pck3d(relative[:1]) == 100
    assert metrics.pck3d(absolute, threshold_mm=201) == 50


def test_auc_averages_thirty_one_thresholds():
    # 72 mm is below 75, 80, ..., 150: 16 of 31 thresholds; inf below none.
    assert metrics.auc3d([[72.0], [np.inf]]) == pytest.approx(100 * 16 / 31 / 2)


# --- detection -----------------------------------------------------------------------------------

A, B = (0.0, 0.0, 100.0, 200.0), (300.0, 0.0, 100.0, 200.0)
CROWD = (600.0, 0.0, 400.0, 400.0)


def test_detections_belong_to_the_best_free_person():
    boxes = np.array([A, (10, 0, 100, 200), B, (500, 500, 50, 50), (650, 20, 60, 100)])
    scores = np.array([0.5, 0.9, 0.8, 0.7, 0.6])
    shown = metrics.match_detections(boxes, scores, np.array([A, B]), np.array([CROWD]))
    # The second claims A by its higher score; the last lies in the crowd.
    np.testing.assert_array_equal(shown, [NOBODY, 0, 1, NOBODY, IGNORED])


def test_nobody_detected_and_nobody_there():
    none, boxes = np.empty((0, 4)), np.array([A])
    assert len(metrics.match_detections(none, np.empty(0), boxes, none)) == 0
    np.testing.assert_array_equal(
        metrics.match_detections(boxes, np.ones(1), none, none), [NOBODY]
    )


def test_average_precision_worked_out_by_hand():
    # Right, wrong, right of 4 people: precision 1 up to recall 1/4 (26 of COCO's 101 recalls),
    # 2/3 up to 1/2 (25 more), then 0.
    result = metrics.average_precision(
        np.array([0.2, 0.9, 0.5]), np.array([True, True, False]), truth_count=4
    )
    assert result == pytest.approx((26 + 25 * 2 / 3) / 101)
    assert metrics.average_precision(np.empty(0), np.empty(0, bool), 3) == 0
    assert math.isnan(metrics.average_precision(np.ones(1), np.zeros(1, bool), 0))


# --- joints --------------------------------------------------------------------------------------


def test_joints_of_the_same_name_differ_between_families():
    assert set(common_joints(MUCO_21.joint_names, HUMAN36M_18.joint_names)) == {
        "Pelvis", *LIMB_JOINTS
    }  # fmt: skip
    assert common_joints(HUMAN36M_17.joint_names, HUMAN36M_18.joint_names) == list(
        HUMAN36M_17.joint_names
    )
    assert common_joints(MUPOTS_17, MUCO_21.joint_names) == list(MUPOTS_17)


def test_a_head_of_unknown_family_is_compared_with_none():
    names = ("Pelvis", *LIMB_JOINTS, "Head")
    for skeleton in (MUCO_21, HUMAN36M_17):
        assert "Head" not in common_joints(names, skeleton.joint_names)


def test_cocos_names_become_ours():
    assert [our_name(n) for n in ("left_hip", "right_wrist", "nose", "L_Knee")] == [
        "L_Hip", "R_Wrist", "nose", "L_Knee"
    ]  # fmt: skip


def test_a_missing_pelvis_lies_between_the_hips():
    names, joints = with_pelvis(("L_Hip", "Nose", "R_Hip"), [[0, 0], [9, 9], [4, 2]])
    assert names[-1] == "Pelvis"
    np.testing.assert_array_equal(joints[-1], (2, 1))
    own = (*names[:2], "Pelvis")
    assert with_pelvis(own, joints[:3])[0] == own
