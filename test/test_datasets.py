"""Readers of all data sets on miniatures in their layout, and the checker on broken ones."""

import json
import shutil

import dataset_fixtures as fixtures
import numpy as np
import pytest
from click.testing import CliRunner
from scipy.io import savemat

from mppe_ros import camera
from mppe_ros.cli import main
from mppe_ros.datasets import DATASETS, DatasetError, open_dataset
from mppe_ros.datasets.boxes import read_boxes
from mppe_ros.datasets.human36m import Human36M
from mppe_ros.datasets.muco import ROOT_DEPTH_MM, MuCo, apart
from mppe_ros.datasets.mupots import MuPoTS, sequence_truth
from mppe_ros.skeletons import COCO_19, HUMAN36M_18, MUCO_21, MUPOTS_17

SPLITS = [(name, split) for name, kind in DATASETS.items() for split in kind.splits]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """All miniatures, by name; tests that break one copy it first."""
    root = tmp_path_factory.mktemp("datasets")
    return {name: make(root / name) for name, make in fixtures.MAKERS.items()}


@pytest.fixture
def broken(folders, tmp_path):
    """A copy of a miniature to break."""

    def copy(name):
        return shutil.copytree(folders[name], tmp_path / name)

    return copy


def mppe(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --- what all have in common ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_samples_fit_together(folders, name, split):
    """Images are there; boxes hold the joints; mm project to px; roots are the pelvis."""
    dataset = open_dataset(name, folders[name], split)
    root = dataset.skeleton.joint_names.index("Pelvis")
    assert len(dataset) > 0
    for sample in dataset:
        assert sample.image.is_file()
        assert (sample.intrinsics.width, sample.intrinsics.height) == (320, 240)
        assert sample.known.any() and np.isfinite(sample.joints_px[sample.known]).all()
        assert np.isnan(sample.joints_px[~sample.known]).all()
        x, y, w, h = sample.bbox_xywh_px
        inside = (sample.joints_px >= (x, y)) & (sample.joints_px <= (x + w, y + h))
        assert inside[sample.known].all()
        assert sample.root_index == root
        np.testing.assert_array_equal(sample.root_px, sample.joints_px[root])
        if not dataset.has_depth:
            assert sample.intrinsics.assumed and np.isnan(sample.joints_mm).all()
            continue
        assert not sample.intrinsics.assumed
        assert 2500 < sample.root_mm[2] < 5500
        np.testing.assert_allclose(sample.root_mm, sample.joints_mm[root], atol=1e-2)
        projected = camera.project(sample.joints_mm, sample.intrinsics)
        np.testing.assert_allclose(projected, sample.joints_px, atol=0.01)


@pytest.mark.parametrize("name", DATASETS)
def test_joints_are_where_their_names_say(folders, name):
    """The figure stands upright, and its left is on the other side than its right."""
    dataset = open_dataset(name, folders[name], DATASETS[name].splits[0])
    names = dataset.skeleton.joint_names
    where = {n: dataset.joints_px[:, i] for i, n in enumerate(names)}
    known = {n: dataset.known[:, i] for i, n in enumerate(names)}
    upper = "Head" if "Head" in names else "Nose"
    both = known["L_Ankle"] & known[upper] & known["R_Knee"]
    assert both.any()
    assert (where["L_Ankle"][both, 1] > where["R_Knee"][both, 1]).all()
    assert (where["R_Knee"][both, 1] > where[upper][both, 1]).all()
    shoulders = where["L_Shoulder"][:, 0] - where["R_Shoulder"][:, 0]
    elbows = where["L_Elbow"][:, 0] - where["R_Elbow"][:, 0]
    wide = np.abs(shoulders) > 8
    assert wide.any() and (np.sign(shoulders) == np.sign(elbows))[wide].all()


@pytest.mark.parametrize("target", [HUMAN36M_18, MUCO_21], ids=lambda s: s.name)
@pytest.mark.parametrize("name", DATASETS)
def test_mapping_keeps_joints_by_name_and_knows_no_others(folders, name, target):
    dataset = open_dataset(name, folders[name], DATASETS[name].splits[0])
    mapped = dataset.in_joints_of(target)
    assert mapped.joints_px.shape == (len(dataset), len(target), 2)
    for index, joint in enumerate(target.joint_names):
        if joint in dataset.skeleton.joint_names:
            own = dataset.skeleton.joint_names.index(joint)
            for column in ("joints_px", "joints_mm", "known", "visible"):
                np.testing.assert_array_equal(
                    getattr(mapped, column)[:, index], getattr(dataset, column)[:, own]
                )
        else:
            assert not mapped.known[:, index].any() and not mapped.visible[:, index].any()
            assert np.isnan(mapped.joints_px[:, index]).all()
    sample = mapped[0]
    assert sample.root_index == target.root_index
    np.testing.assert_array_equal(sample.root_mm, dataset[0].root_mm)
    assert dataset.skeleton is DATASETS[name].skeleton, "the original is as it was"


def test_by_image_gathers_the_people_of_an_image(folders):
    by_image = MuCo(folders["muco"]).by_image()
    assert len(by_image) == 4 and all(len(people) == 2 for people in by_image.values())


def test_an_empty_box_is_no_sample(broken):
    folder = broken("mpii")
    path = folder / "annotations" / "train.json"
    edit(path, lambda content: content["annotations"][1].update(bbox=[400, 50, 30, 30]))
    assert list(open_dataset("mpii", folder, "train").annotation_ids) == [0, 2, 3]


# --- one by one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "split", "subjects"),
    [(1, "train", {1, 5, 6, 7, 8, 9}), (1, "test", {11}),
     (2, "train", {1, 5, 6, 7, 8}), (2, "test", {9, 11})],
)  # fmt: skip
def test_human36m_protocols_choose_subjects_and_frames(folders, protocol, split, subjects):
    dataset = Human36M(folders["human36m"], split, protocol)
    names = [sample.image.name for sample in dataset]
    assert {int(name[2:4]) for name in names} == subjects
    frames = {int(name[-10:-4]) - 1 for name in names}
    assert frames == ({0, 5} if split == "train" else {0, 64})
    assert set(dataset.groups) == {"Directions", "Discussion"}
    assert all(("act_02" in n) == (g == "Directions") for n, g in zip(names, dataset.groups,
                                                                       strict=True))  # fmt: skip


def test_human36m_joints_are_the_world_seen_by_the_camera(folders):
    """R x + t in mm, and the Thorax in the middle of the shoulders."""
    folder = folders["human36m"]
    sample = Human36M(folder, "test", 1)[0]
    world = json.loads((folder / "annotations" / "Human36M_subject11_joint_3d.json").read_text())
    lens = json.loads((folder / "annotations" / "Human36M_subject11_camera.json").read_text())["1"]
    expected = np.array(world["2"]["1"]["0"]) @ np.array(lens["R"]).T + lens["t"]
    np.testing.assert_allclose(sample.joints_mm[:17], expected, atol=1e-2)
    names = HUMAN36M_18.joint_names
    shoulders = sample.joints_mm[[names.index("L_Shoulder"), names.index("R_Shoulder")]]
    np.testing.assert_allclose(sample.joints_mm[17], shoulders.mean(0), atol=1e-2)
    assert sample.intrinsics.fx == pytest.approx(300) and sample.intrinsics.fy == 305


def test_muco_takes_the_nearest_and_those_apart():
    roots = np.array([[0, 0, 3000], [300, 0, 2500], [2000, 0, 4000], [2300, 0, 9000]], float)
    assert list(apart(roots)) == [1]
    assert list(apart(roots[:3])) == [1, 2]
    assert list(apart(roots[:0])) == []


def test_muco_leaves_out_roots_that_rootnet_isnt_trained_on(broken):
    folder = broken("muco")

    def far(content):
        for joint in content["annotations"][0]["keypoints_cam"]:
            joint[2] += 6000

    edit(folder / "data" / "MuCo-3DHP.json", far)
    assert len(MuCo(folder)) == 8
    near = MuCo(folder, root_depth_mm=ROOT_DEPTH_MM)
    assert len(near) == 7 and near.roots_mm[:, 2].max() <= 7500


def test_coco_has_middles_of_labelled_pairs_and_leaves_crowds_out(folders):
    dataset = open_dataset("mscoco", folders["mscoco"], "train")
    assert list(dataset.annotation_ids) == [0, 1, 2, 3]
    names = COCO_19.joint_names
    for sample in dataset:
        joints = dict(zip(names, sample.joints_px, strict=True))
        middle = (joints["L_Shoulder"] + joints["R_Shoulder"]) / 2
        np.testing.assert_allclose(joints["Thorax"], middle)
        known = dict(zip(names, sample.known, strict=True))
        assert known["Thorax"] and not known["L_Hip"] and not known["Pelvis"]
        assert sample.intrinsics.fx == 1500 and sample.intrinsics.cx == 160


def test_mupots_has_valid_people_and_the_benchmarks_own_truth(folders):
    dataset = MuPoTS(folders["mupots"])
    assert [dataset.groups.count(f"TS{number}") for number in (1, 2, 3)] == [3, 2, 4]
    frames = sequence_truth(folders["mupots"], "TS1")
    assert [frame.name for frame in frames] == ["TS1_img_000000", "TS1_img_000001"]
    assert [len(frame.joints_px) for frame in frames] == [2, 1]
    np.testing.assert_allclose(frames[0].joints_px, dataset.joints_px[:2], atol=1e-3)
    np.testing.assert_allclose(frames[0].joints_mm, 1.02 * dataset.joints_mm[:2], rtol=1e-5)


def test_3dpw_is_in_metres_in_the_file_only(folders):
    content = json.loads((folders["3dpw"] / "data" / "3DPW_test.json").read_text())
    sample = open_dataset("3dpw", folders["3dpw"], "test")[0]
    metres = np.array(content["annotations"][0]["joint_cam"]).reshape(24, 3)
    np.testing.assert_allclose(sample.joints_mm, 1000 * metres, rtol=1e-5)
    assert sample.group == "street_test_00"


def test_3dpw_images_may_lie_in_data(broken):
    folder = broken("3dpw")
    (folder / "imageFiles").rename(folder / "data" / "imageFiles")
    assert all(sample.image.is_file() for sample in open_dataset("3dpw", folder, "test"))


def test_synthetic_leaves_out_who_is_hardly_seen_and_joints_behind_the_camera(broken):
    folder = broken("synthetic")

    def behind(content):
        content["annotations"][0]["keypoints_cam"][3][2] = -50.0
        content["annotations"][0]["keypoints_img"][3] = [-1, -1]

    edit(folder / "annotations.json", behind)
    dataset = open_dataset("synthetic", folder, "train")
    assert len(dataset) == 7
    assert list(np.flatnonzero(~dataset[0].known)) == [3]


def test_joint_sets_of_mupots_are_mucos_first():
    assert MUPOTS_17.joint_names == MUCO_21.joint_names[:17]


# --- files of boxes ------------------------------------------------------------------------------


def test_box_files_tell_detections_from_roots(tmp_path):
    detected = fixtures.write_json(
        tmp_path / "bbox_mupots_output.json",
        [{"image_id": 3, "bbox": [1, 2, 30, 40], "score": 0.5}, {"image_id": 4, "bbox": [0] * 4}],
    )
    file = read_boxes(detected)
    assert not file.has_roots
    assert [(box.image_id, box.score) for box in file.boxes] == [(3, 0.5), (4, 1.0)]
    roots = fixtures.write_json(
        tmp_path / "rootnet_pw3d_output.json",
        [{"image_id": 3, "ann_id": 7, "bbox": [1, 2, 40, 40], "root_cam": [0.1, 0.2, 3]}],
    )
    (box,) = read_boxes(roots).boxes
    assert read_boxes(roots).has_roots and box.annotation_id == 7
    np.testing.assert_array_equal(box.root, [0.1, 0.2, 3])


@pytest.mark.parametrize(
    ("content", "said"),
    [([], "not a list"), ({"a": 1}, "not a list"), ([{"bbox": [1, 2, 3, 4]}], "image_id"),
     ([{"image_id": 1, "bbox": [1, 2, 3]}], "box 0"),
     ([{"image_id": 1, "bbox": [1, 2, 3, 4]},
       {"image_id": 1, "bbox": [1, 2, 3, 4], "root_cam": [1, 2, 3]}], "some have none")],
)  # fmt: skip
def test_a_broken_box_file_is_refused(tmp_path, content, said):
    with pytest.raises(DatasetError, match=said):
        read_boxes(fixtures.write_json(tmp_path / "boxes.json", content))


# --- the checker ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DATASETS)
def test_a_whole_data_set_is_fine(folders, name):
    done = mppe("data", "check", name, folders[name])
    assert done.exit_code == 0, done.output
    assert done.output.count(": fine") == len(DATASETS[name].splits)


def test_check_counts_in_json(folders):
    done = mppe("data", "check", "mscoco", folders["mscoco"], "--split", "val", "--json")
    report = json.loads(done.stdout)["val"]
    assert (report["people"], report["images"], report["problems"]) == (4, 4, [])


def test_a_missing_folder_is_said(tmp_path):
    done = mppe("data", "check", "muco", tmp_path / "nowhere")
    assert done.exit_code == 1 and "there is no such folder" in done.output


@pytest.mark.parametrize("name", DATASETS)
def test_the_folder_above_is_told_from_the_data_sets_own(tmp_path, name):
    (tmp_path / DATASETS[name].folder_name).mkdir()
    done = mppe("data", "check", name, tmp_path)
    assert done.exit_code == 1
    assert f"{tmp_path / DATASETS[name].folder_name} is" in done.output


@pytest.mark.parametrize(
    ("kind", "key", "said"),
    [
        ("camera", "2", "no camera 2"),
        ("joint_3d", "3", "no joints of action/subaction/frame 3/1/0"),
    ],
)
def test_human36m_says_which_of_its_files_lacks_something(broken, kind, key, said):
    folder = broken("human36m")
    path = folder / "annotations" / f"Human36M_subject11_{kind}.json"
    edit(path, lambda content: content.pop(key))
    done = mppe("data", "check", "human36m", folder, "--split", "test")
    assert done.exit_code == 1 and said in done.output


def test_every_missing_file_is_named(broken):
    folder = broken("human36m")
    lacking = [f"Human36M_subject{subject}_{kind}.json"
               for subject, kind in ((5, "camera"), (7, "data"), (7, "joint_3d"))]  # fmt: skip
    for name in lacking:
        (folder / "annotations" / name).unlink()
    done = mppe("data", "check", "human36m", folder)
    assert done.exit_code == 1
    assert all(f"{name} is missing" in done.output for name in lacking)
    assert "test: 8 people in 8 images: fine" in done.output


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_a_truncated_file_is_said(broken, name, split):
    folder = broken(name)
    path = DATASETS[name].annotation_files(folder, split)[0]
    path.write_bytes(path.read_bytes()[:-100])
    done = mppe("data", "check", name, folder, "--split", split)
    assert done.exit_code == 1
    assert f"{path} is no whole JSON file" in done.output and "cut off" in done.output
    with pytest.raises(DatasetError, match="no whole JSON"):
        open_dataset(name, folder, split, **({"protocol": 1} if name == "human36m" else {}))


FIELDS = {
    "human36m": "keypoints_vis", "muco": "keypoints_cam", "mpii": "keypoints",
    "mscoco": "num_keypoints", "mupots": "is_valid", "3dpw": "joint_cam", "synthetic": "bbox",
}  # fmt: skip


@pytest.mark.parametrize(("name", "field"), FIELDS.items())
def test_a_missing_field_is_named(broken, name, field):
    folder, split = broken(name), DATASETS[name].splits[0]
    path = DATASETS[name].annotation_files(folder, split)[0]
    edit(path, lambda content: content["annotations"][0].pop(field))
    done = mppe("data", "check", name, folder, "--split", split)
    assert done.exit_code == 1
    assert f"{path.name}: annotation" in done.output and f"no field '{field}'" in done.output


@pytest.mark.parametrize("content", [[], {"images": []}, {"images": 3, "annotations": []}])
def test_another_layout_is_said(broken, content):
    folder = broken("muco")
    fixtures.write_json(folder / "data" / "MuCo-3DHP.json", content)
    done = mppe("data", "check", "muco", folder)
    assert done.exit_code == 1 and "COCO's layout" in done.output


def test_another_number_of_joints_is_said(broken):
    folder = broken("3dpw")
    edit(folder / "data" / "3DPW_test.json",
         lambda content: content["annotations"][1]["joint_cam"].pop())  # fmt: skip
    done = mppe("data", "check", "3dpw", folder, "--split", "test")
    assert done.exit_code == 1 and "annotation 1:" in done.output


def test_missing_and_broken_images_are_counted(broken):
    folder = broken("mpii")
    first, second, third, _ = sorted((folder / "images").iterdir())
    first.unlink()
    second.write_bytes(b"no picture")
    done = mppe("data", "check", "mpii", folder)
    assert done.exit_code == 1
    assert f"1 of 4 images looked at are missing, such as {first}" in done.output
    assert f"1 of 4 images looked at can't be read as images, such as {second}" in done.output
    fixtures.cv2.imwrite(str(third), np.zeros((50, 60, 3), np.uint8))
    assert "60x50, not 320x240" in mppe("data", "check", "mpii", folder).output


def test_a_camera_of_another_version_is_noticed(broken):
    """The reference release's converter writes the camera's place, its loader wants R x + t."""
    folder = broken("human36m")

    def place(content):
        for lens in content.values():
            lens["t"] = (-np.array(lens["R"]).T @ np.array(lens["t"])).tolist()

    for subject in (1, 5, 6, 7, 8, 9):
        edit(folder / "annotations" / f"Human36M_subject{subject}_camera.json", place)
    done = mppe("data", "check", "human36m", folder, "--split", "train")
    assert done.exit_code == 1 and ("beside their boxes" in done.output or "units" in done.output)


def test_other_units_are_noticed(broken):
    folder = broken("3dpw")

    def millimetres(content):
        for one in content["annotations"]:
            one["joint_cam"] = [1000 * x for x in one["joint_cam"]]

    edit(folder / "data" / "3DPW_test.json", millimetres)
    done = mppe("data", "check", "3dpw", folder, "--split", "test")
    assert done.exit_code == 1 and "other units?" in done.output


def test_joints_of_another_camera_are_noticed(broken):
    folder = broken("muco")

    def zoom(content):
        for image in content["images"]:
            image["f"] = [2 * f for f in image["f"]]

    edit(folder / "data" / "MuCo-3DHP.json", zoom)
    done = mppe("data", "check", "muco", folder)
    assert done.exit_code == 1 and "not the same camera?" in done.output


def test_mupots_own_annotations_are_checked(broken):
    folder = broken("mupots")
    sequences = folder / "data" / "MultiPersonTestSet"
    (sequences / "TS3" / "annot.mat").unlink()
    (sequences / "TS4" / "annot.mat").write_bytes(b"MATLAB 5.0 MAT-file, cut off")
    savemat(sequences / "TS5" / "annot.mat", {"something": 1})
    shutil.copy(sequences / "TS2" / "annot.mat", sequences / "TS6" / "annot.mat")
    done = mppe("data", "check", "mupots", folder)
    assert done.exit_code == 1
    assert f"{sequences / 'TS3' / 'annot.mat'} is missing" in done.output
    assert "TS4/annot.mat is no annot.mat" in done.output
    assert "TS5/annot.mat is no annot.mat" in done.output
    assert "TS6: 4 valid people in MuPoTS-3D.json, 2 in annot.mat" in done.output


def test_a_broken_optional_file_is_a_problem_a_missing_one_a_note(broken):
    folder = broken("mupots")
    fixtures.write_json(folder / "bbox" / "bbox_mupots_output.json", [{"image_id": 1}])
    done = mppe("data", "check", "mupots", folder)
    assert done.exit_code == 1 and "no field 'bbox'" in done.output
    assert "(note)" in done.output and "bbox_root_mupots_output.json is not there" in done.output


def test_unknown_names_and_splits_are_refused(folders):
    with pytest.raises(DatasetError, match="human36m"):
        open_dataset("h36m", folders["human36m"], "train")
    with pytest.raises(DatasetError, match="no split 'test'"):
        open_dataset("muco", folders["muco"], "test")
    done = mppe("data", "check", "muco", folders["muco"], "--split", "test")
    assert done.exit_code == 1 and "no split" in done.output and "Traceback" not in done.output


def test_the_list_has_every_data_set():
    listed = mppe("data", "list").output
    assert all(name in listed for name in DATASETS)
