"""``mppe eval`` on real files with the embedded weights, and the truth it reads."""

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from mppe_ros import camera, media
from mppe_ros.cli import main
from mppe_ros.evaluation import blazepose, photos, synthetic
from mppe_ros.evaluation.joints import LIMBS_13
from mppe_ros.evaluation.matching import TruthError
from mppe_ros.evaluation.methods import OnGivenBoxes, k_values_mm, pair_by_boxes
from mppe_ros.evaluation.metrics import NOBODY
from mppe_ros.evaluation.report import Column, Tally, markdown
from mppe_ros.evaluation.synthetic import CLIP, Scene, Subject
from mppe_ros.evaluation.truth import Photo, TruePerson, read_folder, read_photo_set
from mppe_ros.pipeline import Pipeline
from mppe_ros.skeletons import MUCO_21
from mppe_ros.structures import Intrinsics, JointStatus, Person

SHARED = Path(__file__).parent.parent.parent / "shared" / "data" / "photos"
FRAMES = (20, 70)
CAMERA = Intrinsics(600, 610, 320, 240, 640, 480, "plumb_bob", (-0.2, 0.25, -0.001, -0.001, 0.0))
COCO_NAMES = ["nose"] + [
    f"{side}_{joint}"
    for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]


def mppe(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip():
    return json.loads(CLIP.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clip):
    """Two frames of the sample clip as photographs: a calibrated list and a 2D one."""
    folder = tmp_path_factory.mktemp("photos")
    with media.open_media(CLIP.with_suffix(".mp4")) as source:
        frames = {index: frame.rgb for index, frame in enumerate(source) if index in FRAMES}
    by_frame = {image["frame"]: image for image in clip["images"]}
    camera_keys = {key: clip[key] for key in ("fx", "fy", "cx", "cy", "width", "height")}
    calibrated, flat = [], []
    for index, rgb in frames.items():
        media.write_image(folder / f"{index}.jpg", rgb)
        people = by_frame[index]["people"]
        calibrated.append({"image": f"{index}.jpg", **camera_keys, "people": people})
        flat.append({"image": f"{index}.jpg", "people": [in_coco(one, clip) for one in people]})
    write(folder / "room.json", {"joint_names": clip["joint_names"], "images": calibrated})
    write(folder / "flat.json", {"keypoint_names": COCO_NAMES, "images": flat})
    write(folder / "notes.json", {"image": "20.jpg", "note": "no list of photographs"})
    return folder


def in_coco(person, clip):
    """2D truth only, the left wrist not labelled."""
    ours = [name.replace("left_", "L_").replace("right_", "R_") for name in COCO_NAMES]
    names = (name.lower() for name in clip["joint_names"])
    joints = dict(zip(names, person["joints_px"], strict=True))
    return {
        "bbox_xywh_px": person["bbox_xywh_px"],
        "iscrowd": 0,
        "keypoints_px_v": [
            [*joints[name.lower()], 2] if name not in ("nose", "L_wrist") else [0, 0, 0]
            for name in ours
        ],
    }


def write(path, content):
    path.write_text(json.dumps(content))
    return path


@pytest.fixture(scope="module")
def pipeline():
    return Pipeline.load(device="cpu")


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def measured(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("overlays")
    done = mppe("eval", "photos", folder, "--json", "--no-blazepose", "--out", out)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout), out


def test_photos_json_has_the_figures_of_each_set_and_of_all(measured, clip):
    result, _ = measured
    keys = (*photos.POSE_KEYS, *photos.DETECTION_KEYS)
    assert set(keys) <= set(result) and set(result["sets"]) == {"flat", "room"}
    assert "blazepose" not in result
    count = sum(len(clip["images"][frame]["people"]) for frame in FRAMES)
    assert result["people"]["mpjpe12_mm"] == result["people"]["pck10"] == count
    assert result["people"]["detection_recall"] == 2 * count
    flat, room = result["sets"]["flat"], result["sets"]["room"]
    for key in keys[:5]:
        assert flat[key] is None and room[key] == result[key] > 0
    for key in keys[5:7]:
        assert room[key] is None and flat[key] == result[key] > 0
    assert result["pck10"] <= result["pck20"] <= 1


def test_photos_figures_are_those_of_a_working_network(measured):
    result, _ = measured
    assert 20 < result["mpjpe12_mm"] < 250
    assert result["pa_mpjpe_mm"] < result["mpjpe12_mm"]
    assert result["root_error_pct"] < 20
    assert result["pck20"] > 0.7
    assert result["detection_recall"] > 0.6


def test_detected_people_are_measured_too(measured):
    detected = measured[0]["detected"]
    assert detected["mpjpe12_mm"] > 0
    assert 0 < detected["people"]["mpjpe12_mm"] <= measured[0]["people"]["mpjpe12_mm"]


def test_an_overlay_per_photo(measured):
    _, out = measured
    names = {path.name for path in out.iterdir()}
    assert names == {f"{one}_{frame}.jpg" for one in ("flat", "room") for frame in FRAMES}
    flat, room = (media.read_image(out / f"{one}_20.jpg") for one in ("flat", "room"))
    assert flat.shape[1] >= 2 * 640  # estimate and truth
    assert room.shape[1] >= flat.shape[1] + 400  # and both from above


def test_the_table_shows_how_many_people_are_behind_a_figure(folder, clip):
    done = mppe("eval", "photos", folder, "--no-blazepose")
    assert done.exit_code == 0, done.output
    count = sum(len(clip["images"][frame]["people"]) for frame in FRAMES)
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("| all, given"))
    assert f"({count})" in row and "–" in row


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no such folder"),
        ({"note": 1}, "no JSON file"),
        ({"images": [{"people": []}]}, "broken.json"),
        ({"joint_names": ["Pelvis"], "images": [{"image": "no.jpg", "people": []}]}, "no.jpg"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(tmp_path, content, words):
    folder = tmp_path / "photos"
    if content is not None:
        folder.mkdir()
        write(folder / "broken.json", content)
    done = mppe("eval", "photos", folder)
    assert done.exit_code == 1
    assert words in done.output and "Traceback" not in done.output


def test_blazepose_without_mediapipe_is_one_sentence(folder, monkeypatch):
    monkeypatch.setattr("mppe_ros.cli.eval.find_spec", lambda name: None)
    done = mppe("eval", "photos", folder, "--blazepose")
    assert done.exit_code == 1
    assert "pip install mediapipe" in done.output


def test_blazepose_on_the_same_boxes(folder):
    pytest.importorskip("mediapipe")
    done = mppe("eval", "photos", folder, "--blazepose", "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["blazepose"]["mpjpe12_mm"] > 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="the measured photographs are not here")
def test_the_shared_photographs():
    done = mppe("eval", "photos", SHARED, "--no-blazepose", "--weights", "open-v0", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert set(result["sets"]) == {"coco", "h36m"}
    assert (result["people"]["mpjpe12_mm"], result["people"]["pck10"]) == (4, 12)
    assert result["mpjpe12_mm"] == pytest.approx(157, abs=5)
    assert result["root_error_mm"] == pytest.approx(254, abs=25)
    assert result["pck20"] == pytest.approx(0.93, abs=0.02)


# --- the truth -----------------------------------------------------------------------------------


@pytest.mark.skipif(not SHARED.is_dir(), reason="the measured photographs are not here")
def test_distorted_cameras_see_the_shared_truth_where_it_lies():
    one = read_photo_set(SHARED / "h36m.json")
    for photo in one.photos:
        (person,) = photo.people
        seen = camera.project(person.joints_mm, photo.intrinsics)
        np.testing.assert_allclose(seen, person.joints_px, atol=0.3)
        pinhole = replace(photo.intrinsics, distortion_model="none", distortion=())
        assert np.abs(camera.project(person.joints_mm, pinhole) - person.joints_px).max() > 1


def test_joints_cameras_and_crowds_are_read(tmp_path):
    image = {
        "image": "a.png", "width": 64, "height": 48,
        "fx": 50, "fy": 51, "cx": 31, "cy": 23, "distortion_plumb_bob": [0.1, 0, 0, 0, 0],
        "people": [
            {"bbox_xywh_px": [1, 2, 3, 4], "joints_px": [[1, 2], [3, 4]],
             "joints_camera_mm": [[0, 0, 1000], [None, None, None]]},
            {"bbox_xywh_px": [0, 0, 60, 40], "iscrowd": 1},
        ],
    }  # fmt: skip
    path = write(tmp_path / "a.json", {"joint_names": ["left_hip", "R_Hip"], "images": [image]})
    one = read_photo_set(path)
    assert one.joint_names == ("L_Hip", "R_Hip", "Pelvis")
    (photo,) = one.photos
    assert photo.intrinsics.distortion == (0.1, 0, 0, 0, 0)
    (person,), (crowd,) = photo.people, photo.ignored
    np.testing.assert_array_equal(person.joints_px[-1], (2, 3))
    np.testing.assert_array_equal(np.isnan(person.joints_mm[:, 0]), [False, True, True])
    np.testing.assert_array_equal(crowd.bbox_xywh_px, (0, 0, 60, 40))


def test_a_photo_of_another_size_is_refused_and_two_pixels_are_forgiven(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((402, 400, 3), np.uint8))
    for height in (400, 300):
        image = {"image": "a.png", "width": 400, "height": height, "people": []}
        path = write(tmp_path / "a.json", {"joint_names": ["Pelvis"], "images": [image]})
        if height == 400:
            ((photo, _),) = read_photo_set(path).pictures()
            assert photo.intrinsics.height == 402
        else:
            with pytest.raises(TruthError, match="400x402"):
                list(read_photo_set(path).pictures())


# --- one person ----------------------------------------------------------------------------------


def person(joints_mm, lens=CAMERA, bbox=(0, 0, 100, 200), skeleton=LIMBS_13):
    joints_mm = np.asarray(joints_mm, float)
    root = joints_mm[skeleton.root_index]
    pixels = camera.project(joints_mm, lens)
    return Person(
        score=1.0, bbox_xywh_px=np.array(bbox, float), root_px=pixels[skeleton.root_index],
        root_mm=root, root_covariance_mm2=np.eye(3), joints_px=pixels, joints_mm=joints_mm,
        joint_scores=np.ones(len(joints_mm)),
        joint_status=np.full(len(joints_mm), JointStatus.OK, np.uint8),
    )  # fmt: skip


def joints_of(skeleton, seed=0, centre=(300, 100, 4000)):
    return np.random.default_rng(seed).normal(size=(len(skeleton), 3)) * 250 + centre


def truth_of(joints_mm, lens=CAMERA, calibrated=True):
    pixels = camera.project(joints_mm, lens)
    joints_mm = joints_mm if calibrated else np.full_like(joints_mm, np.nan)
    return TruePerson(np.array([0.0, 0, 100, 200]), pixels, joints_mm)


def test_a_perfect_estimate_has_no_error():
    joints = joints_of(LIMBS_13)
    scores = photos.score_person(person(joints), LIMBS_13, truth_of(joints), LIMBS_13.joint_names)
    assert scores == pytest.approx(dict.fromkeys(photos.POSE_KEYS[:5], 0), abs=1e-9)


def test_errors_of_root_and_limbs_are_told_apart():
    true = joints_of(LIMBS_13)
    moved = true + (0, 0, 200)
    moved[1:] += (130, 0, 0)
    scores = photos.score_person(person(moved), LIMBS_13, truth_of(true), LIMBS_13.joint_names)
    assert scores["mpjpe12_mm"] == pytest.approx(130)
    assert scores["mpjpe_mm"] == pytest.approx(130 * 12 / 13)  # the pelvis' zero counts
    assert scores["root_error_mm"] == pytest.approx(200)
    assert scores["root_error_pct"] == pytest.approx(100 * 200 / true[0, 2])


def test_joints_that_share_only_their_name_are_not_compared():
    true = joints_of(MUCO_21)
    wrong_head = true[MUCO_21.indices([*LIMBS_13.joint_names, "Head"])]
    wrong_head[-1] += 5000
    other = replace(LIMBS_13, joint_names=(*LIMBS_13.joint_names, "Head"))
    scores = photos.score_person(
        person(wrong_head, skeleton=other), other, truth_of(true), MUCO_21.joint_names
    )
    assert scores["mpjpe_mm"] == pytest.approx(0, abs=1e-9)


def test_flat_truth_gives_pck_and_nobody_found_gives_zero():
    joints = joints_of(LIMBS_13)
    truth = truth_of(joints, calibrated=False)
    names = LIMBS_13.joint_names
    assert photos.score_person(person(joints), LIMBS_13, truth, names) == {"pck10": 1, "pck20": 1}
    assert photos.score_person(None, LIMBS_13, truth, names) == {"pck10": 0, "pck20": 0}
    assert photos.score_person(None, LIMBS_13, truth_of(joints), names) == {}


def test_detections_in_a_crowd_are_not_false():
    true = joints_of(LIMBS_13)
    crowd = replace(truth_of(true), bbox_xywh_px=np.array([300.0, 0, 300, 300]))
    photo = Photo("a", CAMERA, (truth_of(true),), (crowd,))
    found = [
        person(true, bbox=box) for box in ((2, 0, 100, 200), (350, 50, 40, 90), (120, 300, 50, 90))
    ]
    pairing = pair_by_boxes(found, photo)
    assert (pairing.pairs, pairing.false) == (((0, 0),), (2,))


def test_boxes_without_area_leave_their_place_empty(pipeline):
    rgb = np.zeros((120, 160, 3), np.uint8)
    lens = Intrinsics(150, 150, 80, 60, 160, 120)
    boxes = np.array([[10.0, 10, 30, 80], [5, 5, 0, 0], [60, 10, 30, 80]])
    first, nothing, last = OnGivenBoxes(pipeline)(rgb, lens, boxes)
    assert nothing is None
    np.testing.assert_array_equal([first.bbox_xywh_px, last.bbox_xywh_px], boxes[[0, 2]])
    assert OnGivenBoxes(pipeline)(rgb, lens, boxes[:0]) == []
    k_mm = k_values_mm(boxes, lens)
    assert np.isnan(k_mm[1])
    assert first.root_mm[2] == pytest.approx(first.gamma * k_mm[0], rel=1e-5)


def test_blazepose_root_is_where_all_rays_meet():
    joints = joints_of(LIMBS_13)
    shift = np.array([-200.0, 50, 3500])
    pixels = camera.project(joints - (0, 0, 4000) + shift, CAMERA)
    found = blazepose.fit_translation(joints - (0, 0, 4000), pixels, CAMERA)
    np.testing.assert_allclose(found, shift, rtol=1e-6)


def test_tally_ignores_what_is_no_number():
    tally = Tally()
    tally.add({"a": 1.0, "b": float("nan")})
    tally.add({"a": 3.0})
    summary = tally.summary(["a", "b"])
    assert summary == {"a": 2.0, "b": None, "people": {"a": 2, "b": 0}}
    assert "2.0 (2)" in markdown({"row": summary}, [Column("a", "A", 1), Column("b", "B")])


# --- generated scenes ----------------------------------------------------------------------------


def test_synthetic_json_of_the_sample_clip():
    done = mppe("eval", "synthetic", "--clip", "--every", 30, "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    keys = {
        "mpjpe_mm", "pa_mpjpe_mm", "mrpe_mm", "mrpe_x_mm", "mrpe_y_mm", "mrpe_z_mm", "gamma_error",
        "pck3d_rel", "pck3d_abs", "auc", "ap_root_25", "detection_ap50",
    }  # fmt: skip
    assert keys <= set(result)
    assert result["images"] == 5
    assert 20 < result["mpjpe_mm"] < 250
    assert 0 < result["gamma_error"] < 0.2
    assert result["pck3d_abs"] <= result["pck3d_rel"] <= 100
    assert 0.5 < result["detection_ap50"] <= 1
    for ranges in result["by"].values():
        assert sum(one["people"] for one in ranges.values()) == result["people"]


def test_scenes_as_the_generator_writes_them_are_the_same_truth(tmp_path, folder):
    (room,) = (one for one in read_folder(folder) if one.name == "room")
    images, annotations = [], []
    for index, photo in enumerate(room.photos):
        lens = photo.intrinsics
        images.append({
            "id": index, "file_name": photo.name, "width": lens.width, "height": lens.height,
            "f": [lens.fx, lens.fy], "c": [lens.cx, lens.cy],
            "distortion_model": "none", "distortion": [],
        })  # fmt: skip
        annotations += [
            {
                "image_id": index, "bbox": one.bbox_xywh_px.tolist(), "iscrowd": 0,
                "keypoints_img": one.joints_px.tolist(), "keypoints_cam": one.joints_mm.tolist(),
                "visible_fraction": one.visible_fraction,
            }
            for one in photo.people
        ]  # fmt: skip
    content = {
        "categories": [{"keypoints": MUCO_21.joint_names}],
        "images": images,
        "annotations": annotations,
    }
    write(tmp_path / synthetic.SCENES_FILE, content)
    (read,) = synthetic.read(tmp_path)
    assert read.joint_names == room.joint_names
    for one, other in zip(read.photos, room.photos, strict=True):
        assert (one.name, one.intrinsics) == (other.name, other.intrinsics)
        for a, b in zip(one.people, other.people, strict=True):
            np.testing.assert_array_equal(a.joints_mm, b.joints_mm)
            np.testing.assert_array_equal(a.joints_px, b.joints_px)
    del content["annotations"][0]["bbox"]
    write(tmp_path / synthetic.SCENES_FILE, content)
    with pytest.raises(TruthError, match="annotations"):
        synthetic.read(tmp_path)


def subject(z_mm, *, error_mm=0.0, missed=False, occlusion=0.0):
    errors = np.full(14, np.inf if missed else error_mm)
    return Subject(
        root_mm=np.array([0.0, 0, z_mm]), occlusion=occlusion, truncation=0.0,
        mpjpe_mm=error_mm, pa_mpjpe_mm=error_mm, root_difference_mm=np.array([0.0, 0, error_mm]),
        gamma_error=error_mm / z_mm, relative_mm=errors, absolute_mm=errors,
    )  # fmt: skip


def test_figures_of_some_people_leave_the_others_out():
    near, far = subject(2500, error_mm=50), subject(6000, missed=True)
    second = subject(3000, error_mm=100)
    scenes = [
        Scene((near, far), np.empty((0, 3)), np.array([0.9, 0.8]),
              np.array([[0.0, 0, 2550], [0, 0, 7000]]), np.array([0, NOBODY])),
        Scene((second,), np.empty((0, 3)), np.array([0.7]), np.array([[0.0, 0, 3100]]),
              np.array([0])),
    ]  # fmt: skip
    everybody = synthetic.figures(scenes)
    assert everybody["people"] == 3
    assert everybody["pck3d_rel"] == pytest.approx(100 * 2 / 3)
    assert everybody["pck3d_rel_matched"] == 100
    result = synthetic.record(scenes)["by"]["distance"]
    assert list(result) == ["2–3.5 m", "5–8 m"]
    close = result["2–3.5 m"]
    assert (close["people"], close["mpjpe_mm"], close["mrpe_z_mm"]) == (2, 75, 75)
    # The far person's wrong root is no false one among the near people.
    assert close["ap_root_25"] == 50
    assert result["5–8 m"]["pck3d_rel"] == 0 and result["5–8 m"]["ap_root_25"] == 0


def test_the_plot_needs_matplotlib_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr("mppe_ros.cli.eval.find_spec", lambda name: None)
    done = mppe("eval", "synthetic", "--clip", "--out", tmp_path)
    assert done.exit_code == 1 and "mppe_ros[plot]" in done.output


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    scenes = [Scene((subject(2500), subject(6000)), *[np.empty((0, 3)), np.empty(0)],
                    np.empty((0, 3)), np.empty(0, int))]  # fmt: skip
    synthetic.plot(synthetic.record(scenes), tmp_path / "plot.png")
    assert media.read_image(tmp_path / "plot.png").size
