"""Matching predictions with ground truth, on cases whose answers are worked out by hand."""

import json

import numpy as np
import pytest

from mppe_ros.evaluation import matching
from mppe_ros.evaluation.matching import Body, Scores, TrueImage, TruthError
from mppe_ros.skeletons import HUMAN36M_17, MUCO_21


def body(x, y=0.0, width=100.0, height=200.0, root=(0.0, 0.0, 3000.0), limbs=0.0):
    """A person whose joints all lie ``limbs`` mm right of the root."""
    joints = np.array(root) + np.zeros((len(matching.MEASURED_JOINTS), 3))
    joints[1:, 0] += limbs
    return Body(np.array([x, y, width, height]), np.array(root), joints)


def test_overlap_of_boxes_worked_out_by_hand():
    a = np.array([[0, 0, 10, 10], [100, 100, 10, 10]], float)
    b = np.array([[5, 0, 10, 10], [0, 0, 10, 10]], float)
    np.testing.assert_allclose(matching.box_iou(a, b), [[1 / 3, 1], [0, 0]])


def test_a_person_without_area_overlaps_nothing():
    empty = np.zeros((1, 4))
    assert matching.box_iou(empty, empty) == 0


def test_pairs_are_the_best_in_all_not_the_first_found():
    # Prediction 0 fits person 0 best, but only it can be person 1.
    people = (body(0), body(30))
    predicted = [body(10), body(-5)]
    assert set(matching.match(predicted, TrueImage(people, ())).pairs) == {(0, 1), (1, 0)}


def test_overlaps_that_do_not_count_do_not_displace_those_that_do():
    # 0-0 counts alone (overlap 0.54); 0-1 and 1-0 (0.48 each) would add up to more.
    people = (body(0), body(-65))
    predicted = [body(-30), body(35)]
    assert matching.match(predicted, TrueImage(people, ())).pairs == ((0, 0),)


def test_counts_and_errors_of_two_images():
    scores = Scores()
    scores.add(
        [body(0, root=(0, 0, 3100), limbs=50), body(500)],
        TrueImage((body(5, root=(0, 0, 3000)), body(200)), ()),
    )
    scores.add([body(0, root=(0, 300, 3000), limbs=10)], TrueImage((body(0),), ()))
    joints = len(matching.MEASURED_JOINTS)
    moved = (joints - 1) / joints  # the pelvis' own error is zero and counts
    assert (scores.found, scores.missed, scores.false) == (2, 1, 1)
    summary = scores.summary()
    assert summary["detection_recall"] == pytest.approx(2 / 3)
    assert summary["detection_precision"] == pytest.approx(2 / 3)
    assert summary["root_error_mm"] == pytest.approx({"median": 200, "p90": 280})
    assert summary["mpjpe_mm"]["median"] == pytest.approx(30 * moved)


def test_somebody_ignored_is_neither_missed_nor_false():
    truth = TrueImage((body(0),), (body(300),))
    scores = Scores()
    scores.add([body(0), body(300), body(305), body(600)], truth)
    scores.add([body(0)], truth)
    assert (scores.found, scores.missed, scores.false) == (2, 0, 1)


def test_a_real_person_is_preferred_to_an_ignored_one():
    scores = Scores()
    scores.add([body(2)], TrueImage((body(10),), (body(2),)))
    assert (scores.found, scores.missed, scores.false) == (1, 0, 0)


@pytest.mark.parametrize("predicted", [[], [body(0)]])
def test_without_people_there_is_nothing_to_measure(predicted):
    scores = Scores()
    scores.add(predicted, TrueImage((), ()))
    summary = scores.summary()
    assert summary["detection_recall"] is None
    assert summary["detection_precision"] == (0 if predicted else None)
    assert summary["root_error_mm"] == {"median": None, "p90": None}
    assert summary["mpjpe_mm"] == {"median": None}


def test_joints_that_are_not_numbers_are_left_out():
    predicted = body(0, limbs=80)
    predicted.joints_mm[2:] = np.nan
    assert matching.mpjpe_mm(predicted, body(0)) == pytest.approx(40)
    predicted.joints_mm[:] = np.nan
    assert matching.percentile([matching.mpjpe_mm(predicted, body(0))], 50) is None


def truth_file(tmp_path, **changes):
    joints = [[float(index), 0.0, 4000.0] for index in range(len(MUCO_21))]
    person = {"id": 1, "bbox_xywh_px": [1, 2, 30, 60], "joints_camera_mm": joints}
    content = {
        "joint_names": MUCO_21.joint_names,
        "images": [
            {"frame": 3, "people": [person], "ignored": [person]},
            {"frame": 4, "people": []},
        ],
    }
    path = tmp_path / "clip.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_truth_is_read_by_frame_and_joints_by_name(tmp_path):
    truth = matching.read_truth(truth_file(tmp_path))
    assert sorted(truth) == [3, 4]
    assert (len(truth[3].people), len(truth[3].ignored), truth[4].people) == (1, 1, ())
    person = truth[3].people[0]
    np.testing.assert_allclose(person.root_mm, [MUCO_21.root_index, 0, 4000])
    names = matching.MEASURED_JOINTS
    assert [MUCO_21.joint_names[int(x)] for x in person.joints_mm[:, 0]] == list(names)


@pytest.mark.parametrize(
    "change", [{"images": None}, {"joint_names": ["Pelvis"]}, {"images": [{"frame": 0}]}]
)
def test_a_file_of_another_format_is_refused_by_name(tmp_path, change):
    path = truth_file(tmp_path, **change)
    with pytest.raises(TruthError, match=r"clip\.json"):
        matching.read_truth(path)


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(TruthError, match="nothing"):
        matching.read_truth(tmp_path / "nothing.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(TruthError, match="broken"):
        matching.read_truth(tmp_path / "broken.json")


def test_records_of_another_joint_set_are_measured_in_millimetres():
    def point(index):
        return {"x": 0.001 * index, "y": 0.0, "z": 2.0}

    joints = [{"position": point(index)} for index in range(len(HUMAN36M_17))]
    joints[3]["position"] = {"x": None, "y": None, "z": None}  # R_Ankle, as JSON has it
    record = {
        "joint_names": list(HUMAN36M_17.joint_names),
        "poses": [
            {
                "bbox": [1, 2, 3, 4],
                "root": {"pose": {"position": point(7)}},
                "joints": joints,
            }
        ],
    }
    (person,) = matching.predicted_bodies(record)
    np.testing.assert_allclose(person.root_mm, [7, 0, 2000])
    names = matching.MEASURED_JOINTS
    wrist = person.joints_mm[names.index("L_Wrist")]
    np.testing.assert_allclose(wrist, [HUMAN36M_17.joint_names.index("L_Wrist"), 0, 2000])
    assert np.isnan(person.joints_mm[names.index("R_Ankle")]).all()
