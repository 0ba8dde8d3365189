"""Generated people: what must hold for every sample."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("anny", reason="generating people needs anny: pip install 'mppe_ros[synth]'")

from mppe_ros.camera import project
from mppe_ros.skeletons import MUCO_21
from mppe_ros.synthetic import (
    acting,
    bodies,
    dataset,
    kernel,
    motion,
    people,
    render,
    rotations,
    surfaces,
)
from mppe_ros.synthetic.benchmark import Benchmark, digest
from mppe_ros.synthetic.clothing import Wardrobe
from mppe_ros.synthetic.dataset import DatasetError, Manifest, Shard
from mppe_ros.synthetic.environment import analyse, directions, harmonics
from mppe_ros.synthetic.kernel import View
from mppe_ros.synthetic.library import Library, Split
from mppe_ros.synthetic.person_crops import CropGenerator
from mppe_ros.synthetic.scenes import SceneGenerator, draw_intrinsics

pytestmark = pytest.mark.skipif(
    kernel.compiler() is None, reason="the renderer needs a C compiler (cc, or $CC)"
)


@pytest.fixture(scope="module")
def library() -> Library:
    return Library.load(bank=bodies.load_bank(16))


@pytest.fixture(scope="module")
def crop_generator(library: Library) -> CropGenerator:
    return CropGenerator(library, seed=3, size=96)


@pytest.fixture(scope="module")
def scenes(library: Library) -> list:
    generator = SceneGenerator(library, seed=3, width=320, height=240)
    return [generator(i) for i in range(8)]


# ---- rotations ----------------------------------------------------------------------------------


def test_rotation_vectors_round_trip() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 3))
    matrices = rotations.from_rotation_vectors(vectors)
    again = rotations.from_rotation_vectors(rotations.to_rotation_vectors(matrices))
    np.testing.assert_allclose(again, matrices, atol=1e-9)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0.0, -0.8]])
def test_half_a_turn_keeps_its_axis(axis: list[float]) -> None:
    matrix = rotations.from_rotation_vectors(np.pi * np.array(axis))
    vector = rotations.to_rotation_vectors(matrix)
    np.testing.assert_allclose(rotations.from_rotation_vectors(vector), matrix, atol=1e-6)


def test_align_turns_one_direction_into_another() -> None:
    a, b = np.random.default_rng(1).normal(size=(2, 30, 3))
    turned = (rotations.align(a, b) @ a[..., None])[..., 0]
    np.testing.assert_allclose(np.cross(turned, b), 0, atol=1e-9)
    assert ((turned * b).sum(-1) > 0).all()


# ---- bodies and poses ---------------------------------------------------------------------------


def test_a_smaller_bank_is_the_beginning_of_a_larger_one(tmp_path: Path) -> None:
    few = bodies.load_bank(2, cache=tmp_path).bodies
    for one, other in zip(few, bodies.load_bank(16).bodies, strict=False):
        np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-6)


def test_upright_pose_stands_with_hanging_arms(library: Library) -> None:
    figure = library.cast(seed=1, number=0)
    pose = motion.angles_to_pose({})
    joints = people.place_on_ground(library.bank.model, figure, pose, person=1).joints_m
    at = dict(zip(MUCO_21.joint_names, joints, strict=True))
    assert at["Head_top"][2] == pytest.approx(figure.body.height_m, rel=0.03)
    for side in "RL":
        shoulder, elbow, wrist = (at[f"{side}_{j}"] for j in ("Shoulder", "Elbow", "Wrist"))
        np.testing.assert_allclose(shoulder[:2], wrist[:2], atol=0.01)
        assert shoulder[2] > elbow[2] > wrist[2]
        assert at[f"{side}_Toe"][1] < at[f"{side}_Ankle"][1], "toes point forward, to -y"
    assert at["L_Hip"][0] > 0 > at["R_Hip"][0], "it faces -y, so its left is +x"


def test_bones_keep_their_length_in_any_pose(library: Library) -> None:
    model, figure = library.bank.model, library.cast(seed=1, number=1)
    lengths = []
    for seed in range(3):
        pose, _ = library.draw_pose(np.random.default_rng(seed))
        joints = people.place(model, figure, pose, person=1).joints_m
        pairs = [("R_Elbow", "R_Wrist"), ("L_Hip", "L_Knee"), ("L_Knee", "L_Ankle")]
        ends = np.array([MUCO_21.indices(pair) for pair in pairs])
        lengths.append(np.linalg.norm(joints[ends[:, 0]] - joints[ends[:, 1]], axis=1))
    np.testing.assert_allclose(lengths[1:], [lengths[0]] * 2, rtol=1e-3)


def test_a_gait_repeats_and_advances() -> None:
    t = np.arange(90) / 30
    swing = np.stack(
        [
            motion.angles_to_pose(
                motion.leg("L", 25 * np.sin(2 * np.pi * s / 1.1), 0, 10)
            ).rotations
            for s in t
        ]
    )
    steps = np.stack([np.zeros_like(t), -1.2 * t, np.full_like(t, 0.9)], axis=1)
    gait = motion.find_gait(motion.Clip("walk", swing, steps, leg_m=0.85))
    assert gait.stride_m == pytest.approx(1.2 * 1.1, rel=0.05)
    start, end = gait.pose(0.0, 0.85), gait.pose(gait.stride_m * (1 - 1e-6), 0.85)
    np.testing.assert_allclose(start.rotations, end.rotations, atol=0.02)


def test_a_walker_keeps_its_speed_and_is_slower_in_tight_turns_only() -> None:
    gait = motion.drawn_gait()
    route = np.array([[0.0, 0.0], [3.0, 0.5], [0.5, 0.9], [3.0, 1.5]])
    act = acting.walk(gait, gait.clip.leg_m, route, start_s=1.0)
    own_m_s = gait.stride_m / gait.clip.duration_s
    times_s = np.arange(0, 10, 0.01)
    places = np.array([act(time_s).position_m[:2] for time_s in times_s])
    steps = np.diff(places, axis=0)
    speeds = np.linalg.norm(steps, axis=1) / 0.01
    headings = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    turns = np.abs(np.gradient(headings)) / 0.01
    assert speeds.max() < 1.02 * own_m_s
    assert turns.max() < 3.0
    straight = turns < 0.5
    assert straight.mean() > 0.5
    np.testing.assert_allclose(speeds[straight], own_m_s, rtol=0.02)
    assert speeds.min() < 0.8 * own_m_s
    # The route's first point at the time asked for, and nobody waits before or after it.
    np.testing.assert_allclose(act(1.0).position_m[:2], route[0], atol=1e-6)
    assert np.linalg.norm(act(0.0).position_m[:2] - route[0]) == pytest.approx(own_m_s, rel=0.01)


# ---- the renderer -------------------------------------------------------------------------------


def test_a_square_covers_the_pixels_it_should() -> None:
    view = View.looking([0, -2, 0], [0, 0, 0], 100, 64, 48)
    corners = [[-0.2, 0, -0.1], [0.2, 0, -0.1], [0.2, 0, 0.1], [-0.2, 0, 0.1]]
    mesh = render.quad_mesh([corners], [surfaces.material([1, 1, 1])])
    seen = render.truth(view, render.Scene.of([mesh]))
    rows, columns = np.nonzero(seen.depth_m)
    assert (columns.min(), columns.max()) == (22, 41)  # 31.5 +- 10
    assert (rows.min(), rows.max()) == (19, 28)  # 23.5 +- 5
    np.testing.assert_allclose(seen.depth_m[seen.depth_m > 0], 2.0, rtol=1e-6)


def test_a_floor_under_the_camera_needs_no_clipping() -> None:
    view = View.looking([0, 0, 1.5], [0, 5, 1.5], 60, 64, 48)
    corners = [[-50, -50, 0], [50, -50, 0], [50, 50, 0], [-50, 50, 0]]
    mesh = render.quad_mesh([corners], [surfaces.material([1, 1, 1])])
    depth = render.truth(view, render.Scene.of([mesh])).depth_m
    below = np.arange(48) - view.cy
    expected = 1.5 * view.fy / np.maximum(below, 1e-9)
    near = (below > 3) & (expected < 45)
    np.testing.assert_allclose(depth[near, 32], expected[near], rtol=1e-4)
    assert (depth[below < 0] == 0).all()


def test_harmonics_of_a_uniform_sky_light_every_side_alike() -> None:
    sh = harmonics(np.ones((32, 64, 3)))
    np.testing.assert_allclose(sh[0], 1.0, rtol=0.01)
    np.testing.assert_allclose(sh[1:], 0.0, atol=0.01)


def test_the_sun_is_found_where_it_shines() -> None:
    way = directions(64, 128)
    sun = np.array([0.6, 0.0, 0.8])
    disc = way @ sun > np.cos(np.radians(4))
    found = analyse("sky", 0.3 + 200.0 * disc[..., None] * np.ones(3))
    assert found.sun_direction @ sun > np.cos(np.radians(4))
    assert found.sun_color.min() > 0.2


def test_clothes_leave_no_stray_vertices(library: Library) -> None:
    layer = library.cast(seed=5, number=3).layer
    assert layer.faces.max() < len(layer.vertices)
    assert layer.face_material.max() < len(layer.materials)
    np.testing.assert_allclose(layer.weights.sum(axis=1), 1, atol=1e-4)
    assert Wardrobe.load(library.bank.model, None).garments == {}


# ---- crops --------------------------------------------------------------------------------------


def test_crops_depend_on_seed_and_number_alone(library: Library) -> None:
    size = 64
    one = CropGenerator(library, seed=3, size=size)
    other = CropGenerator(library, seed=3, size=size)
    other(130)  # another block first
    for index in (5, 0):
        for name, value in one(index).fields().items():
            np.testing.assert_array_equal(value, other(index).fields()[name], err_msg=name)
    assert not np.array_equal(one(1).image, CropGenerator(library, seed=4, size=size)(1).image)


def test_crop_joints_are_the_projected_joints(crop_generator: CropGenerator) -> None:
    for index in range(6):
        crop = crop_generator(index)
        fx, fy, cx, cy = crop.intrinsics
        x, y, z = crop.joints_camera_mm.T
        image = np.stack([fx * x / z + cx, fy * y / z + cy], -1)
        scale = crop_generator.size / crop.box_xywh_px[2]
        np.testing.assert_allclose(
            (image - crop.box_xywh_px[:2]) * scale, crop.joints_px, atol=0.02
        )
        inside = ((crop.joints_px > -0.5) & (crop.joints_px < crop_generator.size)).all(axis=1)
        assert not (crop.visible & ~inside).any()
        assert crop.visible.sum() >= 4


# ---- scenes -------------------------------------------------------------------------------------


def test_scene_joints_project_through_the_lens(scenes: list) -> None:
    people_seen = 0
    for picture in scenes:
        for one in picture.annotations:
            ahead = one.joints_camera_mm[:, 2] > 0
            pixels = project(one.joints_camera_mm[ahead], picture.intrinsics)
            np.testing.assert_allclose(one.joints_px[ahead], pixels, atol=1e-6)
            people_seen += 1
    assert people_seen > 5


def test_boxes_hold_exactly_the_visible_pixels(scenes: list) -> None:
    for picture in scenes:
        for one in picture.annotations:
            x, y, w, h = one.bbox_xywh_px
            rows, columns = np.nonzero(picture.person == one.person)
            assert (columns.min() - 0.5, rows.min() - 0.5) == (x, y)
            assert (columns.max() + 0.5, rows.max() + 0.5) == (x + w, y + h)
            assert 0 < one.visible_fraction <= 1


def test_masks_and_depth_agree(scenes: list) -> None:
    for picture in scenes:
        assert (picture.depth_mm[picture.person > 0] > 0).all()
        for one in picture.annotations:
            depth = picture.depth_mm[picture.person == one.person].astype(float)
            nearest, farthest = one.joints_camera_mm[:, 2].min(), one.joints_camera_mm[:, 2].max()
            assert depth.min() > nearest - 500
            assert depth.max() < farthest + 500
            u, v = np.rint(one.joints_px[one.visible]).astype(int).T
            surface = picture.depth_mm[v, u].astype(float)
            assert (one.joints_camera_mm[one.visible, 2] - surface < 201).all()


def test_lenses_never_fold_the_image(library: Library) -> None:
    for seed in range(60):
        lens = draw_intrinsics(np.random.default_rng(seed), 64, 48)
        if lens.distortion_model == "none":
            continue
        rays = np.stack([np.linspace(0, 3, 600), np.zeros(600), np.ones(600)], -1)
        u = project(rays * 1000, lens)[:, 0]
        seen = u <= 63
        assert (np.diff(u[: np.argmin(seen) if not seen.all() else None]) > 0).all()


# ---- folders ------------------------------------------------------------------------------------


def test_sharded_equals_unsharded(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "CROPS_PER_PART", 2)
    generator = CropGenerator(library, seed=9, size=48)
    dataset.write_crops(tmp_path / "whole", generator, 5, Shard())
    for index in (1, 0):
        dataset.write_crops(tmp_path / "parts", generator, 5, Shard(index, 2))
    whole, parts = (dataset.open_crops(tmp_path / name) for name in ("whole", "parts"))
    assert [len(part["image"]) for part in whole] == [2, 2, 1]
    for a, b in itertools.zip_longest(whole, parts):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_a_stopped_run_is_continued(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "CROPS_PER_PART", 2)
    made: list[int] = []
    real = CropGenerator(library, seed=9, size=48)

    class Counting(CropGenerator):
        def __call__(self, index: int):
            made.append(index)
            return real(index)

    counting = Counting(library, seed=9, size=48)
    dataset.write_crops(tmp_path, counting, 3, Shard())
    dataset.write_crops(tmp_path, counting, 3, Shard())
    assert made == [0, 1, 2], "finished parts are not made again"
    dataset.write_crops(tmp_path, counting, 4, Shard())
    assert made == [0, 1, 2, 2, 3], "a part that was short is made again, longer"


def test_a_folder_of_other_data_is_refused(tmp_path: Path) -> None:
    manifest = Manifest("crops", 1, "train", 10, 4, 64, 64, False)
    dataset.open_folder(tmp_path, manifest)
    assert dataset.read_manifest(tmp_path) == manifest
    with pytest.raises(DatasetError, match="seed 1 instead of 2"):
        dataset.open_folder(tmp_path, Manifest("crops", 2, "train", 10, 4, 64, 64, False))


@pytest.mark.parametrize("text", ["2/2", "-1/2", "1", "a/b", ""])
def test_bad_shards_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Shard.parse(text)


def test_scene_folder_is_in_the_loaders_layout(library: Library, tmp_path: Path) -> None:
    generator = SceneGenerator(library, seed=3, width=160, height=120)
    dataset.write_scenes(tmp_path, generator, 3, Shard(), depth=True)
    data = json.loads((tmp_path / "annotations.json").read_text())
    assert [image["id"] for image in data["images"]] == [0, 1, 2]
    for image in data["images"]:
        stored = cv2.imread(str(tmp_path / image["file_name"]))
        assert stored.shape == (120, 160, 3)
        depth = tmp_path / image["file_name"].replace(".jpg", ".depth.png")
        assert cv2.imread(str(depth), cv2.IMREAD_UNCHANGED).dtype == np.uint16
    for one in data["annotations"]:
        assert np.shape(one["keypoints_img"]) == (21, 2)
        assert np.shape(one["keypoints_cam"]) == (21, 3)
        assert len(one["keypoints_vis"]) == 21


def test_the_benchmark_is_checked_when_it_is_made_and_when_it_is_found(tmp_path: Path) -> None:
    library = Library.load(split=Split.TEST, bank=bodies.load_bank(16))
    small = {"scenes": 4, "seed": 5, "width": 96, "height": 64}
    with pytest.raises(DatasetError, match="is not the benchmark"):
        Benchmark("0" * 64, **small).prepare(tmp_path / "a", library)
    frozen = Benchmark(digest(tmp_path / "a" / "annotations.json"), **small)
    folder = frozen.prepare(tmp_path / "b", library)
    annotations = folder / "annotations.json"
    assert digest(annotations) == frozen.digest, "the same seed gives the same people"
    before = annotations.stat().st_mtime_ns
    assert frozen.prepare(folder, library) == folder
    assert annotations.stat().st_mtime_ns == before, "what is there is not made again"
    content = json.loads(annotations.read_text())
    assert content["annotations"], "nobody to lose"
    content["annotations"].pop()
    annotations.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match="delete it"):
        frozen.prepare(folder, library)


def test_poses_of_the_benchmark_come_from_a_source_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(motion, "draw_pose", None)
    tested = Library.load(split=Split.TEST, bank=bodies.load_bank(16))
    styles = {tested.draw_pose(np.random.default_rng(i))[1] for i in range(40)}
    assert styles <= {"free", "sit", "lie"} and len(styles) > 1


def test_train_and_test_share_nobody() -> None:
    bank = bodies.load_bank(16)
    train, test = (Library.load(split=split, bank=bank) for split in Split)
    assert not {b.index for b in train.bodies} & {b.index for b in test.bodies}
    assert train.bodies and test.bodies
    assert not np.array_equal(train.textures, test.textures)
