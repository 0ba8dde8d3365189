"""Weight sets and checkpoints: the registry, the release's format, digests, hostile files."""

import dataclasses
import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mppe_ros import weights
from mppe_ros.checkpoints import CheckpointError, read_state_dict
from mppe_ros.detectors import DETECTORS
from mppe_ros.networks import (
    LiteJointNet,
    LitePoseNet,
    LiteRootNet,
    LiteRootPose,
    PoseNet,
    RootNet,
)
from mppe_ros.skeletons import HUMAN36M_18, MUCO_21


def save_release_checkpoint(network: torch.nn.Module, path: Path) -> Path:
    """As the reference release saves: DataParallel's prefix, optimizer beside the network."""
    parameters = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"epoch": 18, "network": parameters, "optimizer": {"lr": 1e-5}}, path)
    return path


@pytest.mark.parametrize(
    ("trunk", "skeleton"),
    [
        ("resnet18", MUCO_21),
        ("resnet18", HUMAN36M_18),
        ("resnet34", MUCO_21),
        ("resnet50", HUMAN36M_18),
        ("efficientnet_lite0", MUCO_21),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_release_checkpoints_tell_trunk_and_joints(tmp_path: Path, trunk, skeleton) -> None:
    torch.manual_seed(0)
    pose = PoseNet(skeleton, trunk)
    path = save_release_checkpoint(pose, tmp_path / "snapshot_24.pth.tar")
    loaded = weights.read_pose_net(path)
    assert loaded.skeleton is skeleton
    for name, value in pose.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], value)


def test_two_files_make_a_set(tmp_path: Path) -> None:
    root = save_release_checkpoint(RootNet("resnet18"), tmp_path / "root.pth.tar")
    pose = save_release_checkpoint(PoseNet(MUCO_21, "resnet18"), tmp_path / "pose.pth.tar")
    chosen = weights.find(f"{root},{pose}")
    network = chosen.build(weights.locate(chosen))
    assert network.skeleton is MUCO_21
    assert chosen.crop == weights.find("3dmppe").crop
    assert len(weights.verify(chosen)) == 8


def test_two_files_of_our_own_training_make_a_set(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = {"root": LiteRootNet(), "pose": LitePoseNet(MUCO_21)}
    for role, network in networks.items():
        save_file(network.state_dict(), tmp_path / f"{role}.safetensors")
    chosen = weights.find(f"{tmp_path}/root.safetensors,{tmp_path}/pose.safetensors")
    built = chosen.build(weights.locate(chosen))
    assert isinstance(built, LiteRootPose) and chosen.crop.size == 128
    crops = torch.randn(2, 3, 128, 128)
    with torch.inference_mode():
        expected, _ = networks["pose"].eval()(crops)
        torch.testing.assert_close(built(crops).joints_px, expected[..., :2] * 128 - 0.5)


def test_one_file_of_our_own_joint_training_makes_a_set(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = LiteJointNet(MUCO_21).eval()
    path = tmp_path / "joint.safetensors"
    crop = dataclasses.replace(weights.find("open-s").crop, size=160)
    save_file(network.state_dict(), path, crop.metadata())
    chosen = weights.find(f"{path},{path}")
    built = chosen.build(weights.locate(chosen))
    assert chosen.crop == crop
    crops = torch.rand(2, 3, 160, 160)
    with torch.inference_mode():
        gamma, joints, _ = network(crops)
        poses = built(crops)
    torch.testing.assert_close(poses.gamma, gamma)
    torch.testing.assert_close(poses.joints_px, joints[..., :2] * 160 - 0.5)
    torch.testing.assert_close(poses.root_px, poses.joints_px[:, MUCO_21.root_index])


def test_swapped_checkpoints_are_named(tmp_path: Path) -> None:
    root = save_release_checkpoint(RootNet("resnet18"), tmp_path / "root.pth.tar")
    pose = save_release_checkpoint(PoseNet(MUCO_21, "resnet18"), tmp_path / "pose.pth.tar")
    with pytest.raises(CheckpointError, match="is not a RootNet .it is a PoseNet"):
        weights.read_root_net(pose)
    with pytest.raises(CheckpointError, match="is not a PoseNet .it is a RootNet"):
        weights.read_pose_net(root)


def test_another_number_of_joints_is_refused(tmp_path: Path) -> None:
    network = PoseNet(MUCO_21, "resnet18")
    network.head.final_layer = torch.nn.Conv2d(256, 5 * 64, 1)
    path = save_release_checkpoint(network, tmp_path / "five.pth.tar")
    with pytest.raises(CheckpointError, match="320 output channels: no joint set has 5 joints"):
        weights.read_pose_net(path)


def test_missing_and_misshapen_parameters_are_named(tmp_path: Path) -> None:
    parameters = RootNet("resnet18").state_dict()
    parameters.pop("root.xy_layer.bias")
    parameters["root.depth_layer.weight"] = torch.zeros(1, 7, 1, 1)
    save_file(parameters, tmp_path / "broken.safetensors")
    with pytest.raises(CheckpointError, match=r"root.xy_layer.bias is missing.*\(1, 7, 1, 1\)"):
        weights.read_root_net(tmp_path / "broken.safetensors")


class Hostile:
    """Would create a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_a_malicious_pickle_does_not_run(tmp_path: Path, how: str) -> None:
    bait, path = tmp_path / "owned", tmp_path / "evil.pth.tar"
    if how == "pickle":
        path.write_bytes(pickle.dumps({"network": Hostile(bait)}))
    else:
        torch.save({"network": {"w": Hostile(bait)}}, path)
    with pytest.raises(CheckpointError, match=r"evil\.pth\.tar"):
        read_state_dict(path)
    assert not bait.exists()


@pytest.mark.parametrize("suffix", ["pth.tar", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_truncated_files_are_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole = tmp_path / f"whole.{suffix}"
    parameters = {"w": torch.arange(10000.0)}
    if suffix == "safetensors":
        save_file(parameters, whole)
    else:
        torch.save(parameters, whole)
    assert torch.equal(read_state_dict(whole)["w"], parameters["w"])
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: int(share * whole.stat().st_size)])
    with pytest.raises(CheckpointError, match="cut"):
        read_state_dict(cut)


def test_files_without_parameters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        read_state_dict(tmp_path / "nothing.pth")
    for content in ({}, [1, 2], {"network": {}}, {"epoch": 3}):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(CheckpointError, match=r"odd\.pth holds"):
            read_state_dict(tmp_path / "odd.pth")


@pytest.mark.parametrize("weight_set", weights.SETS.values(), ids=weights.SETS)
def test_registry_rows_are_complete(weight_set: weights.WeightSet) -> None:
    assert weight_set.detector in DETECTORS
    assert weight_set.licence and weight_set.summary
    assert len({file.role for file in weight_set.files}) == len(weight_set.files)
    for file in weight_set.files:
        assert file.google_drive_id or file.sha256  # the package's own files are pinned


def test_embedded_files_are_the_registered_ones() -> None:
    assert len(weights.verify(weights.find("open-v0"))) == 8
    assert "Not for products" in weights.model_card(weights.find("open-v0"))


def test_the_set_for_products_has_all_its_files_and_a_card() -> None:
    open_s = weights.find("open-s")
    assert len(weights.verify(open_s)) == 8
    paths = weights.locate(open_s)
    assert sum(path.stat().st_size for path in paths.values()) < 25e6
    assert paths["detector"] == DETECTORS[open_s.detector].weights
    network = open_s.build(paths)
    assert network.skeleton is MUCO_21
    assert "CC-BY-SA" in weights.model_card(open_s)


def test_unknown_sets_are_refused_with_the_known_names() -> None:
    with pytest.raises(CheckpointError, match="'nonesuch'; there are: open-s, open-v0, 3dmppe"):
        weights.find("nonesuch")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MPPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_missing_set_says_how_to_get_it(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        weights.locate(weights.find("3dmppe"))
    message = str(caught.value)
    assert "mppe weights fetch 3dmppe" in message
    assert "1ZHoXNFxBBsmis-5Xzu7dfXYGNxjpntgt" in message
    assert str(cache / "3dmppe" / "snapshot_24.pth.tar") in message


def test_first_digest_is_recorded_and_compared_afterwards(cache: Path) -> None:
    published = weights.find("3dmppe")
    folder = cache / "3dmppe"
    folder.mkdir(parents=True)
    save_release_checkpoint(RootNet("resnet18"), folder / "snapshot_18.pth.tar")
    save_release_checkpoint(PoseNet(MUCO_21, "resnet18"), folder / "snapshot_24.pth.tar")
    assert set(weights.digests(published).values()) == {None}
    first = weights.verify(published)
    assert len(json.loads((folder / "sha256.json").read_text())) == 2
    assert weights.verify(published) == first
    with (folder / "snapshot_24.pth.tar").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="has changed or is damaged"):
        weights.verify(published)


def test_fetch_downloads_atomically_what_is_missing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gdown = pytest.importorskip("gdown")
    source = cache.parent / "source.pth"
    save_release_checkpoint(RootNet("resnet18"), source)
    asked = []

    def download(id: str, output: str) -> None:
        asked.append(id)
        Path(output).write_bytes(source.read_bytes())

    monkeypatch.setattr(gdown, "download", download)
    published = weights.find("3dmppe")
    assert len(weights.fetch(published)) == 2
    assert weights.fetch(published) == [] and len(asked) == 2
    assert not list(cache.rglob("*.part"))


def test_a_failed_download_says_how_to_place_the_files_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gdown = pytest.importorskip("gdown")

    def download(id: str, output: str) -> None:
        Path(output).write_bytes(b"half")
        raise OSError("network is unreachable")

    monkeypatch.setattr(gdown, "download", download)
    with pytest.raises(CheckpointError, match="place the files by hand: https://drive"):
        weights.fetch(weights.find("3dmppe"))
    assert not [path for path in cache.rglob("*") if path.is_file()]
