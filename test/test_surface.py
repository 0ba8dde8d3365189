"""What a depth image shows of a body, and the network that corrects roots by it."""

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from mppe_ros import camera, depth
from mppe_ros.checkpoints import CheckpointError
from mppe_ros.cli import main
from mppe_ros.evaluation import roots, synthetic
from mppe_ros.pipeline import Pipeline
from mppe_ros.skeletons import HUMAN36M_17, MUCO_21
from mppe_ros.structures import Intrinsics, Person, RootError
from mppe_ros.surface import CELL_MM, CELLS, SurfaceNet, View, look
from mppe_ros.training import surface_fit
from mppe_ros.training.surface_fit import Lessons

ERROR = RootError(along=0.13, across_mm=40.0, tilt_rad=0.2, heading_rad=0.3, fused_mm=60.0)
CAMERA = Intrinsics(600, 590, 320, 240, 640, 480)
BENT = Intrinsics(500, 505, 310, 250, 640, 480, "plumb_bob", (-0.2, 0.02, 0.001, -0.001, 0.0))
PELVIS = MUCO_21.root_index


def make_person(root_mm, lens=CAMERA, seed=0):
    """Joints at random around the root, but for a torso that faces the camera."""
    rng = np.random.default_rng(seed)
    joints = root_mm + rng.normal(0, 150, (len(MUCO_21), 3))
    joints[PELVIS] = root_mm
    places = ([-110, 0, 0], [110, 0, 0], [-180, -480, 0], [180, -480, 0])
    for index, place in zip(MUCO_21.indices(depth.TORSO), places, strict=True):
        joints[index] = root_mm + place
    distance = np.linalg.norm(root_mm)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([100.0, 50, 80, 160]),
        root_px=camera.project(joints[PELVIS], lens),
        root_mm=np.asarray(root_mm, float),
        root_covariance_mm2=camera.ray_covariance(joints[PELVIS], 0.13 * distance, 40.0),
        joints_px=camera.project(joints, lens),
        joints_mm=joints,
        joint_scores=rng.uniform(0, 1, len(MUCO_21)),
        joint_status=np.zeros(len(MUCO_21), np.uint8),
    )


@cache
def rays_of(lens):
    """Of all pixels, row by row; straightening them takes long."""
    u, v = np.meshgrid(np.arange(lens.width), np.arange(lens.height))
    pixels = np.stack([u, v], -1).reshape(-1, 2)
    return camera.back_project(pixels, np.ones(len(pixels)), lens)


def plane(normal, offset_mm, lens):
    """A depth image, m, of the points with normal · point = offset."""
    return (offset_mm / 1000 / (rays_of(lens) @ normal)).reshape(lens.height, lens.width)


def along_and_across(person):
    """Standard deviations, mm."""
    ray = person.root_mm / np.linalg.norm(person.root_mm)
    along = ray @ person.root_covariance_mm2 @ ray
    return np.sqrt([along, (np.trace(person.root_covariance_mm2) - along) / 2])


class Says(SurfaceNet):
    """A network that says the same of everybody."""

    def __init__(self, offset_mm):
        super().__init__(MUCO_21)
        self._says = torch.tensor(offset_mm)

    def forward(self, patches, bodies):
        return self._says.expand(len(patches), 3)


class Knows(SurfaceNet):
    """One that is sure, whatever the mirror says."""

    def __init__(self, offset_mm):
        super().__init__(MUCO_21)
        self._knows = np.array(offset_mm)

    def offsets_mm(self, view):
        return np.tile(self._knows, (len(view.patches), 1))


# --- what it looks at ----------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(
    st.floats(-400, 400),
    st.floats(-200, 200),
    st.floats(2500, 6000),
    st.sampled_from([CAMERA, BENT]),
)
def test_neither_place_nor_lens_matters(x_mm, y_mm, z_mm, lens):
    """A wall square to the viewing ray, 200 mm before the root, looks the same to all."""
    person = make_person(np.array([x_mm, y_mm, z_mm]), lens)
    along = camera.ray_axes(person.root_mm)[0]
    depth_m = plane(along, along @ person.root_mm - 200, lens)
    view = look([person], depth_m, lens)
    behind, known, inside = view.patches[0].numpy()
    middle = slice(CELLS // 2 - 4, CELLS // 2 + 4)
    assert known[middle, middle].all() and inside[middle, middle].all()
    points = behind[middle, middle] * 300
    # The wall's Z differs from the root's by the tilt of the ray, too.
    steps = (np.arange(CELLS) - (CELLS - 1) / 2)[middle] * CELL_MM
    level, down = camera.ray_axes(person.root_mm)[1:]
    tilt = steps * level[2] + steps[:, None] * down[2]
    # Pixels are read at their nearest, and the wall is seen a little off the ray.
    np.testing.assert_allclose(points, tilt - 200 * along[2], atol=25)


def test_a_root_that_is_off_shifts_what_is_seen():
    """As training says: a root a cell too far to the right sees everything a cell farther left."""
    rng = np.random.default_rng(0)
    lens = Intrinsics(4000, 4000, 2000, 2000, 4001, 4001)  # pixels finer than cells by far
    coarse = rng.uniform(3.8, 4.2, (81, 81))
    depth_m = np.kron(coarse, np.ones((50, 50)))[:4001, :4001]
    person = make_person(np.array([0.0, 0.0, 4000.0]), lens)
    moved = replace(person, root_mm=person.root_mm + [CELL_MM, 2 * CELL_MM, 0])
    here = look([person], depth_m, lens).patches[0, 0].numpy()
    there = look([moved], depth_m, lens).patches[0, 0].numpy()
    same = np.isclose(there[:-2, :-1], here[2:, 1:])
    assert same.mean() > 0.9  # the moved root's plane is turned by a degree
    assert np.isclose(there, here).mean() < 0.2


def test_what_depth_doesn_t_know_and_what_the_image_doesn_t_show_are_told_apart():
    person = make_person(np.array([-1500.0, 0.0, 4000.0]))  # near the left edge
    depth_m = np.full((480, 640), 3.8)
    depth_m[:240] = np.nan
    depth_m[240:, ::2] = 0
    behind, known, inside = look([person], depth_m, CAMERA).patches[0].numpy()
    assert not inside[:, :5].any() and inside[:, CELLS // 2 :].all()
    assert not known[: CELLS // 2 - 1].any()
    assert 0.3 < known[CELLS // 2 + 1 :, CELLS // 2 :].mean() < 0.7
    assert np.isfinite(behind).all() and not behind[known == 0].any()


def test_unknown_joints_are_nowhere_and_far_walls_are_no_farther_than_the_farthest():
    person = make_person(np.array([0.0, 0.0, 2000.0]))
    person.joints_mm[3] = np.nan
    view = look([person], np.full((480, 640), 9.0), CAMERA)
    assert view.bodies.isfinite().all() and not view.bodies[0, 3, :3].any()
    assert float(view.patches[0, 0].max()) == pytest.approx(1.5)


# --- what becomes of it --------------------------------------------------------------------------


@pytest.mark.parametrize("lens", [CAMERA, BENT])
def test_the_root_moves_and_takes_the_pelvis_along(lens):
    person = make_person(np.array([300.0, 200.0, 4000.0]), lens)
    depth_m = np.full((480, 640), 3.85)
    (voted,) = depth.fuse([person], depth_m, lens, MUCO_21, ERROR)
    offset = np.array([30.0, -20.0, 50.0])
    (better,) = depth.fuse([person], depth_m, lens, MUCO_21, ERROR, Knows(offset))
    axes = camera.ray_axes(voted.root_mm)
    np.testing.assert_allclose(axes @ (voted.root_mm - better.root_mm), offset, atol=1e-3)
    np.testing.assert_allclose(better.joints_mm[PELVIS], better.root_mm, atol=0.1)
    np.testing.assert_allclose(camera.project(better.root_mm, lens), better.root_px, atol=0.01)
    others = np.arange(len(MUCO_21)) != PELVIS
    np.testing.assert_array_equal(better.joints_px[others], person.joints_px[others])
    np.testing.assert_allclose(
        camera.project(better.joints_mm[others], lens), person.joints_px[others], atol=0.02
    )
    np.testing.assert_allclose(
        better.joints_mm[others, 2] - better.root_mm[2],
        person.joints_mm[others, 2] - person.root_mm[2],
        atol=1e-6,
    )
    along, across = along_and_across(voted)
    np.testing.assert_allclose(along_and_across(better), [along, across], rtol=1e-3)
    surer = replace(ERROR, surface_mm=25.0)
    (better,) = depth.fuse([person], depth_m, lens, MUCO_21, surer, Knows(offset))
    np.testing.assert_allclose(along_and_across(better), [along, 25.0], rtol=1e-3)


def test_people_whom_depth_didn_t_correct_stay_as_they_are():
    near, far = (make_person(np.array([x, 0.0, 4000.0])) for x in (-700.0, 700.0))
    depth_m = np.full((480, 640), 3.85)
    depth_m[:, 320:] = np.nan
    net = Knows([10.0, 10.0, 10.0])
    better, same = depth.fuse([near, far], depth_m, CAMERA, MUCO_21, ERROR, net)
    assert better is not near and same is far
    assert depth.fuse([far], depth_m, CAMERA, MUCO_21, ERROR, net) == [far]
    assert depth.fuse([], depth_m, CAMERA, MUCO_21, ERROR, net) == []


@pytest.mark.parametrize(
    ("says", "believed"),
    [([9e9, 0.0, 3.0], [250, 0, 3]), ([0.0, 1.0, -9e9], [0, 0, -250]), ([np.nan] * 3, [0, 0, 0])],
)
def test_a_network_that_talks_nonsense_moves_nobody_far(says, believed):
    view = look([make_person(np.array([0.0, 0.0, 3000.0]))], np.full((480, 640), 2.8), CAMERA)
    assert Says(says).offsets_mm(view).tolist() == [believed]


def test_it_says_the_same_in_a_mirror():
    torch.manual_seed(0)
    network = SurfaceNet(MUCO_21).eval()
    rng = np.random.default_rng(0)
    people = [
        make_person(np.array([x, 0.0, 3500.0]), seed=seed) for seed, x in enumerate((0, 400))
    ]
    view = look(people, rng.uniform(3.2, 3.8, (480, 640)), CAMERA)
    offsets = network.offsets_mm(view)
    assert np.abs(offsets).min() > 0
    np.testing.assert_allclose(
        network.offsets_mm(view.mirrored(MUCO_21)), offsets * [1, -1, 1], atol=1e-4
    )


# --- learning it ---------------------------------------------------------------------------------


def make_lessons(count, seed=0):
    """Surfaces with a ball in them, whose middle is where the root should be."""
    generator = torch.Generator().manual_seed(seed)
    offsets = (torch.rand((count, 3), generator=generator) - 0.5) * 240
    steps = (torch.arange(CELLS) - (CELLS - 1) / 2) * CELL_MM
    right = steps + offsets[:, 1, None, None]
    down = steps[:, None] + offsets[:, 2, None, None]
    ball = (right**2 + down**2 < 400**2).float()
    behind = (1 - ball) * 1.5 - ball * (offsets[:, 0, None, None] + 150) / 300
    ones = torch.ones_like(behind)
    bodies = torch.zeros((count, len(MUCO_21), 4))
    return Lessons(View(torch.stack([behind, ones, ones], 1), bodies), offsets)


def test_it_learns_where_the_middle_is():
    lessons = make_lessons(512)
    network = surface_fit.fit(lessons, MUCO_21, passes=25)
    test = make_lessons(128, seed=1)
    with torch.no_grad():
        left = (network(*test.view) - test.offsets_mm).norm(dim=1).median()
    assert left < 0.4 * test.offsets_mm.norm(dim=1).median()


def test_lessons_stay_true_however_they_are_varied():
    """The ball's middle is where the offset says, mirrored and shifted too."""
    torch.manual_seed(0)
    for _ in range(10):
        varied = surface_fit._varied(make_lessons(32), MUCO_21)
        ball = (varied.view.patches[:, 0] < 1.5).float()
        steps = (torch.arange(CELLS) - (CELLS - 1) / 2) * CELL_MM
        shares = ball / ball.sum((1, 2), keepdim=True)
        middle = [(shares * along).sum((1, 2)) for along in (steps, steps[:, None])]
        middle = torch.stack(middle, 1)
        torch.testing.assert_close(middle, -varied.offsets_mm[:, 1:], atol=12.0, rtol=0)


def test_a_written_network_says_the_same(tmp_path):
    network = surface_fit.fit(make_lessons(64), MUCO_21, passes=1)
    path = tmp_path / "surface.safetensors"
    surface_fit.write(network, path)
    again = SurfaceNet.load(path, MUCO_21)
    lessons = make_lessons(8, seed=2)
    with torch.no_grad():
        said, says = (one(*lessons.view) for one in (network, again))
    torch.testing.assert_close(said, says, atol=1.0, rtol=0.01)
    with pytest.raises(CheckpointError, match="does not fit SurfaceNet"):
        SurfaceNet.load(path, HUMAN36M_17)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="does not fit SurfaceNet"):
        SurfaceNet.load(path, MUCO_21)


@pytest.mark.slow
def test_the_command_learns_from_generated_scenes(tmp_path):
    scenes, out = tmp_path / "scenes", tmp_path / "surface.safetensors"
    make = ["synth", "scenes", "--out", str(scenes), "--count", "6", "--seed", "3"]
    learn = ["train", "surface", str(scenes), "--passes", "2", "--out", str(out)]
    assert invoke(*make).exit_code == 0
    without = invoke(*learn)
    assert without.exit_code == 1 and "depth images" in without.output and not out.exists()
    shutil.rmtree(scenes)
    assert invoke(*make, "--depth").exit_code == 0
    learnt = invoke(*learn)
    assert learnt.exit_code == 0, learnt.output
    assert "views of people" in learnt.output
    pipeline = Pipeline.load("open-s", device="cpu")
    pipeline.surface_net = SurfaceNet.load(out, pipeline.skeleton)
    (one,) = synthetic.read(scenes)
    samples = list(roots.measure(pipeline, one))
    assert any(sample[roots.PERFECT].fused for sample in samples)
    nobody = tmp_path / "nobody"
    nobody.mkdir()
    assert invoke("train", "surface", str(nobody), "--out", str(out)).exit_code == 1


def test_sets_bring_their_own():
    assert Pipeline.load("open-s", device="cpu").surface_net is not None
    assert Pipeline.load("open-v0", device="cpu").surface_net is None


def invoke(*arguments):
    return CliRunner().invoke(main, list(arguments))
