"""Roots against their covariance: people of known errors, and generated scenes with depth."""

import json
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from orientations import root_orientation

from mppe_ros import camera, depth
from mppe_ros.evaluation import roots, synthetic
from mppe_ros.evaluation.depth_noise import DISPARITY_AT_1_M_PX, DISPARITY_STEP_PX, spoil
from mppe_ros.evaluation.joints import LIMBS_13, PELVIS
from mppe_ros.evaluation.roots import NOISY, PERFECT, WITHOUT, calibrated, figures, measure
from mppe_ros.evaluation.truth import Photo, PhotoSet, TruePerson
from mppe_ros.structures import Intrinsics, Person, RootError

ERROR = RootError(along=0.1, across_mm=40.0, tilt_rad=0.15, heading_rad=0.4, fused_mm=30.0)
CAMERA = Intrinsics(300, 300, 160, 120, 320, 240)
PELVIS_INDEX = LIMBS_13.joint_names.index(PELVIS)


# --- people whose errors are drawn from their covariance -----------------------------------------


def standing_person(x_mm, z_mm):
    """Joints of LIMBS_13, facing the camera: hips and shoulders where they belong."""
    joints = np.full((len(LIMBS_13), 3), np.nan)
    places = {
        "Pelvis": (0, 0), "R_Hip": (-110, 0), "L_Hip": (110, 0),
        "R_Shoulder": (-180, -480), "L_Shoulder": (180, -480),
    }  # fmt: skip
    for name, (right, down) in places.items():
        joints[LIMBS_13.joint_names.index(name)] = (x_mm + right, down, z_mm)
    return joints


def estimate(true_mm, rng, error=ERROR, joint_score=1.0):
    """A person off by what ``error`` says, at random."""
    root = true_mm[PELVIS_INDEX]
    distance = np.linalg.norm(root)
    scores = np.full(len(LIMBS_13), joint_score)
    doubt = error.doubt(scores)
    covariance = camera.ray_covariance(
        root, error.along * distance * doubt, error.across_mm * doubt
    )
    shift = rng.multivariate_normal(np.zeros(3), covariance)
    joints = true_mm + shift
    orientation, orientation_covariance = root_orientation(joints, LIMBS_13, error)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([100.0, 60, 100, 150]),
        root_px=camera.project(joints[PELVIS_INDEX], CAMERA),
        root_mm=joints[PELVIS_INDEX],
        root_covariance_mm2=camera.ray_covariance(
            joints[PELVIS_INDEX],
            error.along * np.linalg.norm(joints[PELVIS_INDEX]) * doubt,
            error.across_mm * doubt,
        ),
        joints_px=camera.project(joints, CAMERA),
        joints_mm=joints,
        joint_scores=scores,
        joint_status=np.zeros(len(LIMBS_13), np.uint8),
        root_orientation_xyzw=orientation,
        root_orientation_covariance=orientation_covariance,
    )


class Clairvoyant:
    """A pipeline that knows where people are, but for the errors it admits."""

    skeleton, root_error = LIMBS_13, ERROR

    def __init__(self, truths, seed=0):
        self._truths, self._rng = iter(truths), np.random.default_rng(seed)

    def __call__(self, images, intrinsics):
        return [[estimate(next(self._truths), self._rng)] for _ in images]

    def fuse(self, people, depth_m, intrinsics):
        return depth.fuse(people, depth_m, intrinsics, self.skeleton, self.root_error)


def make_scene_set(folder, count, seed=0, depth=False):
    """As many images with one person each; with depth, a wall at its torso's surface."""
    rng = np.random.default_rng(seed)
    truths = [standing_person(rng.uniform(-500, 500), rng.uniform(2000, 7000))
              for _ in range(count)]  # fmt: skip
    photos = []
    for index, joints in enumerate(truths):
        person = TruePerson(
            np.array([100.0, 60, 100, 150]), camera.project(joints, CAMERA), joints, 1.0
        )
        photos.append(Photo(f"{index}.png", CAMERA, (person,)))
        cv2.imwrite(str(folder / f"{index}.png"), np.zeros((240, 320, 3), np.uint8))
        if depth:
            surface_mm = joints[PELVIS_INDEX, 2] - 155
            image = np.full((240, 320), round(surface_mm), np.uint16)
            cv2.imwrite(str(folder / f"{index}.depth.png"), image)
    return truths, PhotoSet("scenes", LIMBS_13.joint_names, tuple(photos), folder)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """People whose errors are exactly as large as their covariances say."""
    truths, scenes = make_scene_set(tmp_path_factory.mktemp("honest"), 600)
    return [one[WITHOUT] for one in measure(Clairvoyant(truths), scenes)]


def test_honest_covariances_hold_the_shares_of_a_normal_distribution(honest):
    measured = figures(honest)
    assert measured["people"] == 600
    assert measured["within_along"] == pytest.approx(68.3, abs=5)
    assert measured["within_across"] == pytest.approx(68.3, abs=5)
    assert measured["within_3d"] == pytest.approx(19.9, abs=5)
    assert measured["fell_back"] is None


def test_covariances_that_are_too_small_are_found_out(honest):
    boastful = [replace(one, parts_sigma_mm=one.parts_sigma_mm / 3) for one in honest]
    assert figures(boastful)["within_along"] < 40


def test_calibration_finds_the_errors_that_were_drawn(honest):
    found = calibrated(honest, [])
    assert found.along == pytest.approx(ERROR.along, rel=0.15)
    assert found.across_mm == pytest.approx(ERROR.across_mm, rel=0.15)
    assert np.isnan(found.fused_mm)


class Unsure(Clairvoyant):
    """One that sees some better than others, and knows it."""

    root_error = replace(ERROR, usual_score=0.7, blur=4.0)

    def __call__(self, images, intrinsics):
        return [
            [estimate(next(self._truths), self._rng, self.root_error, self._rng.uniform(0.4, 0.9))]
            for _ in images
        ]


def test_errors_that_grow_where_heatmaps_are_blunt_are_told_and_found(tmp_path):
    truths, scenes = make_scene_set(tmp_path, 600)
    people = [one[WITHOUT] for one in measure(Unsure(truths), scenes)]
    blunt = [one for one in people if one.joint_score < 0.55]
    sharp = [one for one in people if one.joint_score > 0.75]
    for some in (blunt, sharp):
        assert figures(some)["within_along"] == pytest.approx(68.3, abs=10)
        assert figures(some)["within_across"] == pytest.approx(68.3, abs=10)
    assert figures(blunt)["along_error_mm"] > 2 * figures(sharp)["along_error_mm"]
    found = calibrated(people, [])
    assert found.blur == pytest.approx(4.0, abs=1.0)
    at_usual = replace(found, along=found.along * float(found.doubt(np.full(13, 0.7))))
    assert at_usual.along == pytest.approx(ERROR.along, rel=0.15)


def test_orientation_errors_are_counted_about_the_body_s_axes(tmp_path):
    """Shoulders moved back by the tangent of 6 degrees tilt a body about its y axis only."""
    truths, scenes = make_scene_set(tmp_path, 1)

    class Leaning(Clairvoyant):
        def __call__(self, images, intrinsics):
            ((person,),) = super().__call__(images, intrinsics)
            joints = person.joints_mm.copy()
            for name in ("R_Shoulder", "L_Shoulder"):
                joints[LIMBS_13.joint_names.index(name), 2] += 480 * np.tan(np.radians(6))
            turned, covariance = root_orientation(joints, LIMBS_13, ERROR)
            return [[replace(person, root_orientation_xyzw=turned,
                             root_orientation_covariance=covariance)]]  # fmt: skip

    (one,) = measure(Leaning(truths), scenes)
    np.testing.assert_allclose(np.degrees(np.abs(one[WITHOUT].turn_rad)), [0, 6, 0], atol=1e-6)
    np.testing.assert_allclose(
        one[WITHOUT].turn_sigma_rad, [ERROR.tilt_rad, ERROR.tilt_rad, ERROR.heading_rad]
    )


def test_depth_beside_the_image_is_fused_as_it_is_and_spoilt(tmp_path):
    truths, scenes = make_scene_set(tmp_path, 12, depth=True)
    result = roots.record(list(measure(Clairvoyant(truths), scenes)))
    assert list(result["methods"]) == [WITHOUT, PERFECT, NOISY]
    along = {name: row["along_error_mm"] for name, row in result["methods"].items()}
    assert along[PERFECT] < 0.2 * along[WITHOUT]
    assert along[NOISY] < 0.5 * along[WITHOUT]
    assert result["methods"][PERFECT]["fell_back"] == 0
    assert result["root_error"]["fused_mm"] < 60


def test_people_are_counted_by_how_they_are_seen(tmp_path):
    truths, scenes = make_scene_set(tmp_path, 20)
    result = roots.record(list(measure(Clairvoyant(truths), scenes)))
    distances = [row["people"] for name, row in result["by"].items() if "distance" in name]
    assert sum(distances) == 20 and len(distances) > 2
    assert [name for name in result["by"] if "occlusion" in name] == ["occlusion 0–10 %"]
    assert "RootNet" in roots.table(result)


def test_torsos_lie_as_deep_as_their_side_says(honest):
    rng = np.random.default_rng(0)
    seen = [
        replace(one, facing=facing, torso_depth_mm=150 - 20 * facing - 40 * facing**2 + error)
        for one, facing, error in zip(
            honest, rng.uniform(-1, 1, 600), rng.laplace(0, 20, 600), strict=True
        )
    ]
    assert roots.torso_depths(seen) == pytest.approx(
        {"front": 130, "side": 150, "back": 90}, abs=8
    )
    assert roots.torso_depths(honest) == {}  # there were no depth images


# --- what depth cameras do -----------------------------------------------------------------------


def test_spoilt_depth_has_holes_steps_and_noise_but_no_bias():
    wall = np.full((240, 320), 4.0)
    seen = spoil(wall, np.random.default_rng(0))
    known = seen > 0
    assert 0.6 < known.mean() < 0.95
    steps = DISPARITY_AT_1_M_PX / seen[known] / DISPARITY_STEP_PX
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-6)
    assert np.mean(seen[known]) == pytest.approx(4.0, rel=0.01)
    assert np.std(seen[known]) == pytest.approx(0.015 * 4.0, rel=0.3)


def test_spoilt_depth_ends_at_edges_and_at_its_range():
    step = np.full((100, 100), 2.0)
    step[:, 50:] = 4.0
    seen = spoil(step, np.random.default_rng(0), holes=0, dropouts=0)
    assert (seen[:, 48:52] == 0).all()
    assert (seen[:, :40] > 0).all()
    assert not spoil(step, np.random.default_rng(0), max_range_m=1.0).any()
    nothing = np.zeros((10, 10))
    assert not spoil(nothing, np.random.default_rng(0)).any()


# --- generated scenes ----------------------------------------------------------------------------


@pytest.mark.slow
def test_depth_brings_people_of_generated_scenes_to_their_places(tmp_path):
    """The embedded weights on a few held-out scenes; docs/depth.md has the whole measurement."""
    pytest.importorskip("anny", reason="needs mppe_ros[synth]")
    from mppe_ros.cli import main

    folder = tmp_path / "scenes"
    make = ("synth", "scenes", "--out", folder, "--count", 24, "--seed", 3, "--split", "test",
            "--width", 384, "--height", 288, "--depth")  # fmt: skip
    made = CliRunner().invoke(main, list(map(str, make)))
    assert made.exit_code == 0, made.output
    run = CliRunner().invoke(main, ["eval", "roots", str(folder), "--json", "--device", "cpu"])
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout[run.stdout.index("{") :])["methods"]
    assert result[WITHOUT]["people"] >= 15
    assert result[NOISY]["along_error_mm"] < result[WITHOUT]["along_error_mm"] / 3
    assert result[NOISY]["root_error_mm"] < result[WITHOUT]["root_error_mm"] / 2
    assert result[NOISY]["fell_back"] < 30
    # Of few people; docs/covariance.md has the calibration of many.
    for method in (WITHOUT, NOISY, PERFECT):
        for axis in ("within_along", "within_across", "within_tilt", "within_heading"):
            assert 45 < result[method][axis] < 92, (method, axis)


def test_a_folder_without_scenes_is_one_sentence(tmp_path):
    from mppe_ros.cli import main

    run = CliRunner().invoke(main, ["eval", "roots", str(tmp_path)])
    assert run.exit_code == 1
    assert "Error:" in run.output and "Traceback" not in run.output


def test_a_person_like_situation_is_all_that_conditions_need():
    seen = SimpleNamespace(root_mm=np.array([0, 0, 4000.0]), occlusion=0.2, truncation=0.0)
    labels = [label for c in synthetic.CONDITIONS for label, chosen in c.ranges() if chosen(seen)]
    assert labels == ["3.5–5 m", "10–40 %", "0–1 %"]
