"""``mppe eval human36m``, ``mupots`` and ``3dpw`` on miniatures: answers worked out by hand for
made predictions, and the embedded networks from end to end."""

import json

import dataset_fixtures as fixtures
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.io import savemat

from mppe_ros.cli import main
from mppe_ros.crops import process_boxes
from mppe_ros.datasets import open_dataset
from mppe_ros.datasets.boxes import read_boxes
from mppe_ros.datasets.mupots import MuPoTS, sequence_truth
from mppe_ros.evaluation import curves, mupots, release
from mppe_ros.evaluation.predictions import (
    BoxesOfFile,
    Prediction,
    Roots,
    Runner,
    TrueBoxes,
    unprocessed,
)
from mppe_ros.networks import PoseNet, RootNet
from mppe_ros.pipeline import Pipeline
from mppe_ros.skeletons import HUMAN36M_18, MUCO_21, MUPOTS_17
from mppe_ros.structures import Intrinsics

LENS = Intrinsics(300, 305, 160.5, 119, 320, 240)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("datasets")
    return {
        "human36m": fixtures.human36m(root / "h36m", subjects=(9, 11), frames=(0, 64)),
        "mupots": fixtures.mupots(root / "mupots"),
        "3dpw": fixtures.pw3d(root / "3dpw", images=4, splits=("test",)),
    }


@pytest.fixture(scope="module")
def human36m(folders):
    return open_dataset("human36m", folders["human36m"], "test", protocol=2)


def mppe(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def figures(*arguments):
    done = mppe("eval", *arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def refused(*arguments):
    done = mppe("eval", *arguments)
    assert done.exit_code != 0 and "Traceback" not in done.output
    return done.output


# --- Human3.6M, from files -----------------------------------------------------------------------


def write_poses(folder, dataset, change, roots=None, rows=None):
    """What PoseNet's test writes, of joints that ``change`` makes of the true ones."""
    entries = []
    for row in range(len(dataset)) if rows is None else rows:
        sample = dataset[row]
        joints = change(row, (sample.joints_mm - sample.root_mm)[:17])
        root = sample.root_mm if roots is None else roots(row, sample.root_mm)
        entries.append({"image_id": sample.image_id, "bbox": [0, 0, 9, 9],
                        "joint_cam": joints.tolist(), "root_cam": root.tolist()})  # fmt: skip
    return fixtures.write_json(folder / release.HUMAN36M_POSES, entries)


def test_mpjpe_counts_the_pelvis_and_is_told_by_action(folders, human36m, tmp_path):
    """One joint of the first action's people is 34 mm off: 34/17 there, half of it overall."""

    def change(row, joints):
        joints[0] = 0
        joints[3, 0] += 34 * (human36m.groups[row] == "Directions")
        return joints

    path = write_poses(tmp_path, human36m, change)
    result = figures("human36m", folders["human36m"], "--predictions", path)
    assert result["metric"] == "mpjpe_mm"
    assert result["by"]["Directions"]["mpjpe_mm"] == pytest.approx(2, abs=1e-4)
    assert result["by"]["Discussion"]["mpjpe_mm"] == pytest.approx(0, abs=1e-4)
    assert result["mpjpe_mm"] == pytest.approx(1, abs=1e-4)
    assert 0 < result["by"]["Directions"]["pa_mpjpe_mm"] < 34
    assert result["error_per_joint"]["R_Ankle"] == pytest.approx(17, abs=1e-3)
    assert result["joints"] == list(human36m.skeleton.joint_names[:17]), "without the Thorax"
    assert (result["people"], result["missed"]) == (16, 0)
    assert result["variant"]["roots"] == "truth" and result["mrpe_mm"] is None


def test_protocol_1_takes_poses_that_are_aligned_as_they_are(folders, tmp_path):
    dataset = open_dataset("human36m", folders["human36m"], "test", protocol=1)

    def shift(row, joints):
        return joints + (0, 0, 5)

    path = write_poses(tmp_path, dataset, shift)
    result = figures("human36m", folders["human36m"], "--protocol", 1, "--predictions", path)
    assert result["metric"] == "pa_mpjpe_mm" and result["people"] == 8
    assert result["pa_mpjpe_mm"] == pytest.approx(5, abs=1e-4), "not aligned once more"
    assert result["mpjpe_mm"] is None and "aligned" in json.dumps(result["variant"])


def test_protocol_1_aligns_poses_that_are_not(folders, tmp_path):
    dataset = open_dataset("human36m", folders["human36m"], "test", protocol=1)
    turn = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])

    def turned(row, joints):
        joints[0] = 0
        return joints @ turn

    path = write_poses(tmp_path, dataset, turned)
    result = figures("human36m", folders["human36m"], "--protocol", 1, "--predictions", path)
    assert result["pa_mpjpe_mm"] == pytest.approx(0, abs=1e-3) and result["mpjpe_mm"] > 100
    assert result["variant"]["aligned_on_joints"] == 17


def test_mrpe_and_its_parts(folders, human36m, tmp_path):
    """Half of the roots are 3, 4, 12 mm off (13), the others are right."""
    entries = [
        {"image_id": sample.image_id, "bbox": [0, 0, 9, 9],
         "root_cam": (sample.root_mm + np.array([3, -4, 12]) * (row % 2)).tolist()}
        for row, sample in enumerate(human36m)
    ]  # fmt: skip
    path = fixtures.write_json(tmp_path / release.HUMAN36M_ROOTS, entries)
    result = figures("human36m", folders["human36m"], "--predictions", path)
    parts = [result[f"mrpe{part}_mm"] for part in ("", "_x", "_y", "_z")]
    np.testing.assert_allclose(parts, [6.5, 1.5, 2, 6], atol=1e-6)
    assert result["mpjpe_mm"] is None and result["missed"] == 0
    assert [one["to_m"] - one["from_m"] for one in result["depth_error"]] == [1]
    assert result["depth_error"][0]["bias_mm"] == pytest.approx(6)


def test_roots_of_the_pose_file_count_where_they_arent_the_truth(folders, human36m, tmp_path):
    path = write_poses(tmp_path, human36m, lambda row, joints: joints - joints[0],
                       roots=lambda row, root: root + (0, 0, 50))  # fmt: skip
    result = figures("human36m", folders["human36m"], "--predictions", path)
    assert result["mrpe_mm"] == pytest.approx(50) and result["mrpe_z_mm"] == pytest.approx(50)


def test_people_without_a_prediction_are_told_and_not_averaged(folders, human36m, tmp_path):
    write_poses(tmp_path, human36m, lambda row, joints: joints - joints[0], rows=range(3))
    result = figures("human36m", folders["human36m"], "--predictions", tmp_path)
    assert (result["people"], result["missed"]) == (16, 13)
    assert result["mpjpe_mm"] == pytest.approx(0, abs=1e-4)
    assert result["pck_curve"]["relative"][-1] == pytest.approx(100 * 3 / 16), "missed is wrong"


@pytest.mark.parametrize(
    ("entries", "said"),
    [([{"image_id": 0, "joint_cam": [[0, 0, 0]] * 16}], "16 joints"),
     ([{"image_id": 10**6, "joint_cam": [[0, 0, 0]] * 17}], "none of the predicted poses"),
     ([{"image_id": 0, "joint_cam": [[0, 0, 0]] * 17},
       {"image_id": 1, "joint_cam": [[1, 0, 0]] * 17}], "some aren't"),
     ([{"joint_cam": [[0, 0, 0]] * 17}], "no field 'image_id'"),
     ([], "not a list of poses")],
)  # fmt: skip
def test_broken_poses_are_one_sentence(folders, tmp_path, entries, said):
    path = fixtures.write_json(tmp_path / release.HUMAN36M_POSES, entries)
    assert said in refused("human36m", folders["human36m"], "--predictions", path)


# --- 3DPW, from a file ---------------------------------------------------------------------------


def test_3dpw_roots_are_in_metres(folders, tmp_path):
    dataset = open_dataset("3dpw", folders["3dpw"], "test")
    entries = [
        {"image_id": one.image_id, "ann_id": one.annotation_id, "bbox": [0, 0, 9, 9],
         "root_cam": ((one.root_mm + (0, 60, 80)) / 1000).tolist()}
        for one in dataset
    ]  # fmt: skip
    path = fixtures.write_json(tmp_path / "renamed.json", entries)
    result = figures("3dpw", folders["3dpw"], "--predictions", path)
    parts = [result[f"mrpe{part}_mm"] for part in ("", "_x", "_y", "_z")]
    np.testing.assert_allclose(parts, [100, 0, 60, 80], atol=1e-3)
    assert list(result["by"]) == ["street_test_00"] and result["split"] == "test"
    del entries[0]["ann_id"]
    fixtures.write_json(path, entries)
    assert "without ann_id" in refused("3dpw", folders["3dpw"], "--predictions", path)


# --- MuPoTS-3D, from files -----------------------------------------------------------------------


def mupots_frames(folder, change=lambda frame, people: people):
    """The truth as predictions, after ``change`` of (frame name, [(px, mm), ...])."""
    frames = {}
    for number in range(1, 21):
        for frame in sequence_truth(folder, f"TS{number}"):
            people = list(zip(frame.joints_px.copy(), frame.joints_mm.copy(), strict=True))
            people = change(frame.name, people)
            if people:
                px, mm = (np.array(part) for part in zip(*people, strict=True))
                frames[frame.name] = release.FramePrediction(px, mm)
    return frames


def test_perfect_predictions_of_mupots(folders, tmp_path):
    release.write_frames(tmp_path, mupots_frames(folders["mupots"]), MUPOTS_17)
    result = figures("mupots", folders["mupots"], "--predictions", tmp_path)
    for key in ("pck3d_rel", "pck3d_abs", "pck3d_rel_matched", "pck3d_abs_matched"):
        assert result[key] == 100
    # At the threshold of 0 nothing is nearer: 30 of 31.
    assert result["auc"] == pytest.approx(100 * 30 / 31)
    assert (result["people"], result["matched"]) == (77, 77)
    assert list(result["by"]) == [f"TS{number}" for number in range(1, 21)]
    assert len(result["joints"]) == 14 and result["ap_root_25"] is None


def test_mupots_headline_is_the_mean_of_the_sequences(folders, tmp_path):
    """TS1 has three valid people, TS2 two, the others four; TS1's and TS2's first frames lack
    their first person: a third and a half of them, however few they are."""

    def change(name, people):
        return people[1:] if name in ("TS1_img_000000", "TS2_img_000000") else people

    release.write_frames(tmp_path, mupots_frames(folders["mupots"], change), MUPOTS_17)
    result = figures("mupots", folders["mupots"], "--predictions", tmp_path)
    assert result["by"]["TS1"]["pck3d_rel"] == pytest.approx(200 / 3)
    assert result["by"]["TS2"]["pck3d_rel"] == pytest.approx(50)
    assert result["pck3d_rel"] == pytest.approx((200 / 3 + 50 + 18 * 100) / 20)
    assert result["pck3d_rel_matched"] == 100
    assert (result["people"], result["matched"]) == (77, 75)


def test_mupots_absolute_errors_move_and_relative_ones_dont(folders, tmp_path):
    """People 200 mm too far are wrong in the camera's frame only."""

    def change(name, people):
        return [(px, mm + (0, 0, 200)) for px, mm in people]

    release.write_frames(tmp_path, mupots_frames(folders["mupots"], change), MUPOTS_17)
    result = figures("mupots", folders["mupots"], "--predictions", tmp_path)
    assert result["pck3d_rel"] == 100 and result["pck3d_abs"] == 0 and result["auc_abs"] == 0
    medians = [one["median_mm"] for one in result["depth_error"]]
    assert medians == pytest.approx([200] * len(medians))


def test_frames_that_no_file_has_are_missed_people(folders, tmp_path):
    frames = mupots_frames(folders["mupots"])
    del frames["TS3_img_000000"]
    release.write_frames(tmp_path, frames, MUPOTS_17)
    result = figures("mupots", folders["mupots"], "--predictions", tmp_path)
    assert result["by"]["TS3"]["pck3d_rel"] == 50 and result["by"]["TS3"]["matched"] == 2


# MuPoTS-3D's Matlab code, loop by loop: each joint's neighbour towards the pelvis, and the order
# in which bones are resized, both counted from 1.
NEIGHBOUR = (2, 16, 2, 3, 4, 2, 6, 7, 15, 9, 10, 15, 12, 13, 15, 15, 2)
TRAVERSAL = (16, 2, 1, 17, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14)


def identities(true_px, predicted_px):
    """Greedy pairs of people and predictions, by joints 2 to 14 within 40 px; -1 for nobody."""
    taken, pairs = set(), []
    for person in true_px:
        scores = [0] * len(predicted_px)
        for j, other in enumerate(predicted_px):
            if j in taken:
                continue
            for joint in range(1, 14):
                near = abs(person[joint] - other[joint]) < 40
                scores[j] += bool(near.all() and other[joint].any())
        best = int(np.argmax(scores)) if scores else -1
        pairs.append(best if scores and scores[best] > 0 else -1)
        taken.add(pairs[-1])
    return pairs


def mapped(predicted, true):
    result = predicted.copy()
    for joint in (number - 1 for number in TRAVERSAL):
        parent = NEIGHBOUR[joint] - 1
        bone = predicted[joint] - predicted[parent]
        length = np.linalg.norm(true[joint] - true[parent])
        result[joint] = result[parent] + bone * length / np.linalg.norm(bone)
    return result


def benchmark_figures(folder, frames, relative, everybody):
    """Mean PCK and AUC of the sequences."""
    pck, auc = [], []
    for number in range(1, 21):
        errors = []
        for frame in sequence_truth(folder, f"TS{number}"):
            found = frames.get(frame.name, release.FramePrediction(np.empty((0, 17, 2)), []))
            for pair, true in zip(identities(frame.joints_px, found.joints_px), frame.joints_mm,
                                  strict=True):  # fmt: skip
                origin = true[14] if relative else 0
                predicted = np.full((17, 3), 1e5)
                if pair >= 0:
                    person = found.joints_mm[pair]
                    person = person - person[14] if relative else person
                    predicted = mapped(person, true - origin)
                if pair >= 0 or everybody:
                    errors.append(np.linalg.norm(predicted - (true - origin), axis=1)[:14])
        if not errors:
            continue
        shares = [np.mean(np.array(errors) < threshold) for threshold in range(0, 151, 5)]
        pck.append(100 * shares[-1])
        auc.append(100 * np.mean(shares))
    return np.mean(pck), np.mean(auc)


def test_3dpck_is_that_of_the_benchmarks_code(folders, tmp_path):
    rng = np.random.default_rng(0)

    def change(name, people):
        noisy = [(px + rng.normal(0, 12, px.shape), mm + rng.normal(0, 50, mm.shape)
                  + rng.normal(0, 50, 3)) for px, mm in people]  # fmt: skip
        stranger = (rng.uniform(0, 300, (17, 2)), rng.normal(0, 500, (17, 3)) + (0, 0, 4000))
        order = rng.permutation(len(people) + 1)[: rng.integers(0, 4)]
        return [[*noisy, stranger][index] for index in order]

    frames = mupots_frames(folders["mupots"], change)
    release.write_frames(tmp_path, frames, MUPOTS_17)
    ours = figures("mupots", folders["mupots"], "--predictions", tmp_path)
    for relative, kind, area in ((True, "rel", "auc"), (False, "abs", "auc_abs")):
        pck, auc = benchmark_figures(folders["mupots"], frames, relative, everybody=True)
        assert ours[f"pck3d_{kind}"] == pytest.approx(pck, abs=1e-9)
        assert ours[area] == pytest.approx(auc, abs=1e-9)
        assert 0 < auc < pck < 100
        pck, _ = benchmark_figures(folders["mupots"], frames, relative, everybody=False)
        assert ours[f"pck3d_{kind}_matched"] == pytest.approx(pck, abs=1e-9)


def test_joints_of_muco_are_written_as_those_of_mupots(folders, tmp_path, human36m):
    """Hands and toes are dropped; the order is the benchmark's."""
    rng = np.random.default_rng(0)
    frames = {"TS1_img_000000": release.FramePrediction(
        rng.normal(size=(2, 21, 2)), rng.normal(size=(2, 21, 3)))}  # fmt: skip
    release.write_frames(tmp_path, frames, MUCO_21)
    read = release.read_frames(tmp_path / release.MUPOTS_2D, tmp_path / release.MUPOTS_3D)
    for part, column in zip(read["TS1_img_000000"], frames["TS1_img_000000"], strict=True):
        np.testing.assert_allclose(part, column[:, :17])
    with pytest.raises(ValueError, match="hasn't got the joints"):
        release.write_frames(tmp_path, frames, human36m.skeleton)


def test_ap_root_by_hand(folders, tmp_path):
    """Two people of one frame: right at .9, a double at .8, right at .7. The first prediction's
    recall is left out: precision 2/3 times half of the recall, of 77 people."""
    dataset = MuPoTS(folders["mupots"])
    first, second = dataset[0], dataset[1]
    assert first.image_id == second.image_id
    entries = [
        {"image_id": first.image_id, "bbox": [0, 0, 9, 9], "score": score,
         "root_cam": (root + offset).tolist()}
        for score, root, offset in ((0.7, second.root_mm, 249), (0.9, first.root_mm, 0),
                                    (0.8, first.root_mm, 10))
        for offset in [np.array([0, 0, offset])]
    ]  # fmt: skip
    path = fixtures.write_json(tmp_path / release.MUPOTS_ROOTS, entries)
    result = figures("mupots", folders["mupots"], "--predictions", path)
    assert result["ap_root_25"] == pytest.approx(100 * (2 / 3) * (1 / 77))
    assert result["pck3d_rel"] is None and result["by"] == {}


def test_of_equal_scores_the_first_in_the_file_counts_first(folders):
    dataset = MuPoTS(folders["mupots"])
    a, b = (next(s for s in dataset if s.group == group) for group in ("TS5", "TS4"))
    wrong = np.array([0, 0, 1e4])

    def ap(*offsets):
        roots = [mupots.Root(sample.image_id, 0.5, sample.root_mm + offset)
                 for sample, offset in zip((a, b, b), offsets, strict=True)]  # fmt: skip
        return mupots.average_precision(dataset, roots)

    assert ap(wrong, 0, wrong) == pytest.approx(100 / 2 / 77)
    assert ap(0, wrong, wrong) == 0, "the first one's recall is left out"


def test_predictions_of_mupots_that_dont_fit_are_refused(folders, tmp_path):
    folder = folders["mupots"]
    assert "has none of" in refused("mupots", folder, "--predictions", tmp_path)
    assert "is missing" in refused("mupots", folder, "--predictions", tmp_path / "no.mat")
    savemat(tmp_path / release.MUPOTS_2D, {"TS1_img_000000": np.zeros((1, 17, 2))})
    flat = tmp_path / release.MUPOTS_2D
    assert "go together" in refused("mupots", folder, "--predictions", flat)
    savemat(tmp_path / release.MUPOTS_3D, {"TS1_img_000001": np.zeros((1, 17, 3))})
    assert "different frames" in refused("mupots", folder, "--predictions", tmp_path)
    savemat(tmp_path / release.MUPOTS_3D, {"TS1_img_000000": np.zeros((2, 17, 3))})
    assert "different people" in refused("mupots", folder, "--predictions", tmp_path)
    (tmp_path / release.MUPOTS_3D).write_bytes(b"cut off")
    assert "is no .mat file" in refused("mupots", folder, "--predictions", tmp_path)
    boxes = fixtures.write_json(tmp_path / "boxes.json", [{"image_id": 1, "bbox": [1, 2, 3, 4]}])
    assert "without root_cam" in refused("mupots", folder, "--predictions", boxes)


def test_missing_annotations_are_named(tmp_path):
    folder = fixtures.mupots(tmp_path, sequences=1)
    release.write_frames(tmp_path, mupots_frames_of_one(folder), MUPOTS_17)
    (folder / "data" / "MultiPersonTestSet" / "TS1" / "annot.mat").unlink()
    said = refused("mupots", folder, "--predictions", tmp_path)
    assert "annot.mat is missing" in said and "benchmark's own annotations" in said
    (folder / "data" / "MuPoTS-3D.json").unlink()
    assert "MuPoTS-3D.json is missing" in refused("mupots", folder, "--predictions", tmp_path)


def mupots_frames_of_one(folder):
    (frame, *_) = sequence_truth(folder, "TS1")
    return {frame.name: release.FramePrediction(frame.joints_px, frame.joints_mm)}


# --- boxes and roots of files --------------------------------------------------------------------


def test_processed_boxes_are_found_again():
    """The networks see exactly the crop that the release's file says, at the image's edges too."""
    rng = np.random.default_rng(0)
    corners = rng.uniform((-40, -30), (300, 220), (500, 2))
    boxes = np.concatenate([corners, rng.uniform(5, 400, (500, 2))], axis=1)
    processed, _ = process_boxes(boxes, 320, 240)
    again, kept = process_boxes(unprocessed(processed, LENS), 320, 240)
    assert len(kept) == len(processed) > 400
    np.testing.assert_allclose(again, processed, atol=1e-6)


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.load(device="cpu")


def run(pipeline, dataset, roots=Roots.ROOTNET, boxes=None):
    images = list(dataset.by_image())
    return [one for found in Runner(pipeline, roots, boxes)(dataset, images) for one in found]


def same(a, b, atol_mm=5.0):
    """Crops are whole grey values: the last digit of a box may move a joint by a millimetre. A
    box that was enlarged twice moves it by hundreds."""
    np.testing.assert_allclose(a.joints_mm, b.joints_mm, atol=atol_mm)
    np.testing.assert_allclose(a.root_mm, b.root_mm, atol=atol_mm)


def test_given_roots_move_people_along_their_rays(pipeline, human36m):
    """Root-relative depths stay, and every joint stays in its pixel."""
    found = run(pipeline, human36m, boxes=TrueBoxes(human36m))
    moved = run(pipeline, human36m, Roots.TRUTH, TrueBoxes(human36m, roots=True))
    assert [one.sample for one in found] == list(range(16))
    for a, b, sample in zip(found, moved, human36m, strict=True):
        np.testing.assert_allclose(b.root_mm, sample.root_mm)
        np.testing.assert_allclose(a.joints_px, b.joints_px)
        relative = [one.joints_mm[:, 2] - one.root_mm[2] for one in (a, b)]
        np.testing.assert_allclose(*relative, atol=1e-6)
        projected = b.joints_mm[:, :2] / b.joints_mm[:, 2:]
        np.testing.assert_allclose(projected * (300, 305) + (160.5, 119), b.joints_px, atol=1e-3)


def test_k_is_the_baseline_without_rootnet(pipeline, human36m):
    for one in run(pipeline, human36m, Roots.K, TrueBoxes(human36m)):
        (box,), _ = process_boxes([one.bbox_xywh_px], 320, 240)
        assert one.root_mm[2] == pytest.approx(2000 * np.sqrt(300 * 305) / box[2], rel=1e-4)


def test_boxes_and_roots_of_the_releases_file_are_used_as_they_are(pipeline, human36m, tmp_path):
    """RootNet's file of the pipeline's own roots gives the same people; so do its plain boxes."""
    found = run(pipeline, human36m, boxes=TrueBoxes(human36m))
    path = tmp_path / release.HUMAN36M_ROOTS
    release.write_roots(path, human36m, found)
    for a, b in zip(found, run(pipeline, human36m, boxes=boxes_of(path, human36m)), strict=True):
        same(a, b)
    plain = [{"image_id": s.image_id, "bbox": s.bbox_xywh_px.tolist()} for s in human36m]
    path = fixtures.write_json(tmp_path / "bbox_human36m_output.json", plain)
    for a, b in zip(found, run(pipeline, human36m, boxes=boxes_of(path, human36m)), strict=True):
        same(a, b)


def boxes_of(path, dataset):
    return BoxesOfFile(read_boxes(path), dataset)


def test_boxes_of_another_data_set_are_refused(human36m, tmp_path):
    path = fixtures.write_json(tmp_path / "b.json", [{"image_id": 10**7, "bbox": [1, 2, 3, 4]}])
    with pytest.raises(ValueError, match="none of its boxes"):
        boxes_of(path, human36m)


# --- from end to end -----------------------------------------------------------------------------

POSE_KEYS = {"mpjpe_mm", "pa_mpjpe_mm", "mrpe_mm", "mrpe_x_mm", "mrpe_y_mm", "mrpe_z_mm"}
DRAWN_KEYS = {"error_per_joint", "pck_curve", "depth_error", "joints", "by", "variant", "people"}


def test_human36m_written_predictions_give_the_same_figures(folders, tmp_path):
    out = tmp_path / "figures"
    ran = figures("human36m", folders["human36m"], "--boxes", "truth", "--device", "cpu",
                  "--weights", "open-v0", "--out", out)  # fmt: skip
    assert set(ran) >= POSE_KEYS | DRAWN_KEYS | {"dataset", "protocol", "metric", "missed"}
    assert 50 < ran["mpjpe_mm"] < 500 and ran["pa_mpjpe_mm"] < ran["mpjpe_mm"]
    assert ran["variant"]["boxes"] == "truth" and ran["variant"]["aligned_on_joints"] == 17
    assert json.loads((out / "human36m.json").read_text()) == ran
    assert "| Directions |" in (out / "human36m.md").read_text()
    for picture in ("error_per_joint", "pck_curve", "depth_error"):
        assert fixtures.cv2.imread(str(out / f"human36m_{picture}.png")).std() > 10
    read = figures("human36m", folders["human36m"], "--predictions", out)
    for key in POSE_KEYS:
        assert read[key] == pytest.approx(ran[key], rel=1e-5), key


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Untrained networks as the reference release saves them, 18 joints; no detector of theirs is
    on this machine."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    networks = {"root": RootNet("resnet18"), "pose": PoseNet(HUMAN36M_18, "resnet18")}
    for name, network in networks.items():
        state = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"network": state}, folder / f"{name}.pth.tar")
    return "--rootnet", folder / "root.pth.tar", "--posenet", folder / "pose.pth.tar"


def test_in_given_boxes_no_detector_is_loaded_and_the_thorax_helps_to_align(
    folders, checkpoints, monkeypatch
):
    monkeypatch.setattr("mppe_ros.pipeline.build_detector", None)
    result = figures("human36m", folders["human36m"], "--protocol", 1, "--boxes", "truth",
                     *checkpoints, "--every", 4, "--device", "cpu")  # fmt: skip
    assert result["variant"]["aligned_on_joints"] == 18
    assert len(result["joints"]) == 17 and "Thorax" not in result["joints"]


def test_human36m_oracles_and_detector(folders):
    given = figures("human36m", folders["human36m"], "--protocol", 1, "--boxes", "truth",
                    "--roots", "truth", "--device", "cpu")  # fmt: skip
    assert given["mrpe_mm"] is None and given["depth_error"] == []
    assert given["people"] == 8 and given["pa_mpjpe_mm"] > 0
    quick = figures("human36m", folders["human36m"], "--every", 8, "--device", "cpu")
    assert quick["people"] == 2 and quick["variant"]["boxes"] == "detector"
    assert quick["mpjpe_mm"] is None or quick["missed"] < 2


def test_mupots_with_given_boxes_and_roots(folders, tmp_path):
    out = tmp_path / "figures"
    result = figures("mupots", folders["mupots"], "--boxes", "truth", "--roots", "truth",
                     "--every", 4, "--device", "cpu", "--out", out)  # fmt: skip
    assert set(result) >= DRAWN_KEYS | {
        "pck3d_rel", "pck3d_abs", "pck3d_rel_matched", "pck3d_abs_matched", "auc", "auc_abs",
        "ap_root_25", "matched", "dataset",
    }  # fmt: skip
    # Roots of the reference release's JSON, all of them right: all but the first one's recall.
    people = result["people"]
    assert result["ap_root_25"] == pytest.approx(100 * (people - 1) / people)
    assert len(result["joints"]) == 14
    assert (out / "mupots_pck_curve.png").is_file() and (out / release.MUPOTS_ROOTS).is_file()
    assert "| TS1 " in (out / "mupots.md").read_text()
    again = figures("mupots", folders["mupots"], "--predictions", out / release.MUPOTS_ROOTS)
    assert again["ap_root_25"] == pytest.approx(100 * (people - 1) / 77)


def test_3dpw_in_true_boxes_and_detected(folders, tmp_path):
    out = tmp_path / "figures"
    result = figures("3dpw", folders["3dpw"], "--boxes", "truth", "--device", "cpu", "--out", out)
    assert set(result) >= POSE_KEYS | DRAWN_KEYS and result["people"] == 4
    assert len(result["joints"]) == 13 and result["missed"] == 0
    read = figures("3dpw", folders["3dpw"], "--predictions", out)
    assert read["mrpe_mm"] == pytest.approx(result["mrpe_mm"], rel=1e-5)
    detected = figures("3dpw", folders["3dpw"], "--threshold", 0, "--device", "cpu")
    assert detected["people"] == 4 and 0 <= detected["missed"] <= 4


def test_the_table_names_the_variant(folders):
    done = mppe("eval", "3dpw", folders["3dpw"], "--boxes", "truth", "--roots", "k", "--every", 2,
                "--flip-test", "--device", "cpu")  # fmt: skip
    assert done.exit_code == 0, done.output
    for words in ("3DPW, test", "boxes: truth", "roots: k", "flip test: True", "every: 2",
                  "PA-MPJPE", "13 joints", "| street_test_00 "):  # fmt: skip
        assert words in done.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--roots", "truth"), "--roots truth goes with --boxes truth"),
     (("--boxes", "nowhere.json"), "nowhere.json is missing"),
     (("--predictions", ".", "--boxes", "truth"), "--predictions goes without"),
     (("--rootnet", "a.pth.tar", "--boxes", "truth"), "--rootnet and --posenet go together")],
)  # fmt: skip
def test_what_doesnt_go_together_is_said(folders, arguments, said):
    assert said in refused("3dpw", folders["3dpw"], *arguments)


def test_a_missing_data_set_or_image_is_one_sentence(folders, tmp_path):
    said = refused("human36m", tmp_path / "nowhere")
    assert "Human36M_subject9_data.json is missing" in said
    folder = fixtures.pw3d(tmp_path, images=2, splits=("test",))
    (lacking, *_) = sorted((folder / "imageFiles").rglob("*.jpg"))
    lacking.unlink()
    said = refused("3dpw", folder, "--boxes", "truth", "--device", "cpu")
    assert f"{lacking} is missing" in said


def test_plots_need_matplotlib_and_say_so(folders, monkeypatch, tmp_path):
    monkeypatch.setattr("mppe_ros.cli.eval.find_spec", lambda name: None)
    said = refused("mupots", folders["mupots"], "--out", tmp_path / "figures")
    assert "--out needs matplotlib" in said and "mppe_ros[plot]" in said


# --- 3DPW's pairs, curves ------------------------------------------------------------------------


def test_detections_belong_to_the_person_they_overlap(folders, pipeline):
    from mppe_ros.evaluation import pw3d
    from mppe_ros.skeletons import SMPL_24

    dataset = open_dataset("3dpw", folders["3dpw"], "test")

    def prediction(row, shift_px):
        sample = dataset[row]
        return Prediction(dataset.image_names[row], 0.9, sample.bbox_xywh_px + (shift_px, 0, 0, 0),
                          sample.root_mm, sample.joints_px, sample.joints_mm)  # fmt: skip

    width = float(dataset[1].bbox_xywh_px[2])
    found = [prediction(0, 2.0), prediction(1, 0.9 * width)]
    measured = pw3d.measure(dataset, found, SMPL_24)
    np.testing.assert_allclose(measured.relative_mm[0], 0, atol=1e-3)
    assert np.isnan(measured.relative_mm[1:]).all(), "beside its box, or nobody"


def test_curves_leave_out_what_nobody_has():
    nobody = np.full((3, 2), np.nan)
    assert curves.pck_curve(nobody, nobody) == {} and curves.error_per_joint(nobody, "ab") == {}
    some = np.array([[10.0, 200.0], [np.inf, np.inf]])
    curve = curves.pck_curve(some, nobody)
    assert curve["relative"][-1] == 25 and "absolute" not in curve
    assert curves.error_per_joint(some, "ab") == {"a": 10, "b": 200}
    ranges = curves.depth_errors(np.array([2500, 2600, 4100, 9000.0]),
                                 np.array([10, -30, 50, np.nan]))  # fmt: skip
    assert [(one["from_m"], one["people"], one["median_mm"]) for one in ranges] == [
        (2, 2, 20), (4, 1, 50)
    ]  # fmt: skip
