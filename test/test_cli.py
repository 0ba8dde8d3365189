"""The ``mppe`` command, run as users run it: real files, real exit codes."""

import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from mppe_ros.cli import main
from mppe_ros.networks import PoseNet, RootNet
from mppe_ros.skeletons import MUCO_21

ROOT = Path(__file__).parent.parent


def mppe(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    path = tmp_path_factory.mktemp("photos") / "noise.png"
    cv2.imwrite(str(path), cv2.GaussianBlur(image, (0, 0), 3))
    return path


@pytest.fixture(scope="module")
def boxes(photo: Path) -> Path:
    path = photo.parent / "boxes.json"
    path.write_text(json.dumps({"bbox_xywh_px": [[200, 40, 60, 150], [30, 20, 90, 200]]}))
    return path


def test_json_lines_have_the_message_fields_and_the_order_of_the_boxes(
    photo: Path, boxes: Path
) -> None:
    done = mppe("run", photo, "--fx", 400, "--cx", 160, "--cy", 120, "--boxes", boxes, "--json")
    assert done.exit_code == 0, done.stderr
    line = json.loads(done.stdout)
    fields = [
        part.split()[1].split("=")[0]
        for part in (ROOT / "msg" / "Pose3DArray.msg").read_text().splitlines()
        if part and not part.startswith("#") and "=" not in part.split("#")[0]
    ]
    assert set(fields) <= set(line)
    assert line["image"] == str(photo)
    assert (line["image_width"], line["image_height"]) == (320, 240)
    assert line["intrinsics_source"] == 0
    assert [pose["bbox"] for pose in line["poses"]] == [[200, 40, 60, 150], [30, 20, 90, 200]]
    for pose in line["poses"]:
        assert len(pose["joints"]) == len(line["joint_names"]) > 0
        root = pose["root"]["pose"]["position"]
        assert root["z"] > 0
        for joint in pose["joints"]:
            p = joint["position"]
            assert p["x"] / p["z"] * 400 + 160 == pytest.approx(joint["u"], abs=1e-3)
            assert p["y"] / p["z"] * 400 + 120 == pytest.approx(joint["v"], abs=1e-3)


def test_distance_is_proportional_to_the_focal_length(photo: Path, boxes: Path) -> None:
    depths = []
    for arguments in (("--fx", 400), ("--fx", 800), ("--fov", 60)):
        done = mppe("run", photo, *arguments, "--boxes", boxes, "--json")
        depths.append(json.loads(done.stdout)["poses"][0]["root"]["pose"]["position"]["z"])
    assert depths[1] == pytest.approx(2 * depths[0], rel=1e-6)
    assert depths[2] == pytest.approx(depths[0] * 160 / math.tan(math.radians(30)) / 400, rel=1e-6)


def test_an_assumed_camera_is_said_aloud(photo: Path) -> None:
    done = mppe("run", photo, "--json")
    assert done.exit_code == 0, done.stderr
    assert "60 degrees is assumed" in done.stderr
    assert json.loads(done.stdout)["intrinsics_source"] == 1


def test_given_checkpoints_are_used(photo: Path, boxes: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    for name, network in (("r", RootNet("resnet18")), ("p", PoseNet(MUCO_21, "resnet18"))):
        parameters = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"network": parameters}, tmp_path / f"{name}.pth.tar")
    done = mppe(
        "run", photo, "--fov", 60, "--boxes", boxes, "--json",
        "--rootnet", tmp_path / "r.pth.tar", "--posenet", tmp_path / "p.pth.tar",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    line = json.loads(done.stdout)
    assert line["skeleton"] == "muco_21" and len(line["poses"]) == 2


def test_overlays_are_written_and_broken_photos_skipped(
    photo: Path, boxes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "broken.jpg").write_bytes(b"no image")
    (folder / "fine.png").write_bytes(photo.read_bytes())
    done = mppe("run", folder, "--fov", 60, "--out", tmp_path / "new" / "out")
    assert done.exit_code == 1
    assert "broken.jpg" in done.stderr and "1 of 2 photos" in done.stderr
    overlay = cv2.imread(str(tmp_path / "new" / "out" / "fine_overlay.jpg"))
    assert overlay.shape[0] == 240 and overlay.shape[1] > 320


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run", "nowhere.jpg"], "nowhere.jpg"),
        (["run", "PHOTO", "--fx", "0"], "fx = 0.0"),
        (["run", "PHOTO", "--fov", "200"], "field of view 200.0"),
        (["run", "PHOTO", "--fov", "60", "--fx", "5"], "either --fx or --fov"),
        (["run", "PHOTO", "--cx", "5"], "need --fx"),
        (["run", "PHOTO", "--rootnet", "a.pth"], "--rootnet and --posenet go together"),
        (["run", "PHOTO", "--rootnet", "a.pth", "--posenet", "b.pth"], "a.pth"),
        (["run", "PHOTO", "--weights", "nonesuch"], "'nonesuch'"),
        (["run", "PHOTO", "--device", "cuda:99"], "cuda:99"),
        (["run", "PHOTO", "--precision", "fp8"], "'fp8'"),
        (["run", "PHOTO", "--boxes", "nowhere.json"], "nowhere.json"),
        (["weights", "show", "nonesuch"], "'nonesuch'"),
    ],
)
def test_errors_are_one_sentence(photo: Path, arguments: list[str], complaint: str) -> None:
    done = mppe(*(photo if argument == "PHOTO" else argument for argument in arguments))
    assert done.exit_code in (1, 2)
    assert complaint in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


def test_weights_are_listed_shown_and_verified() -> None:
    listing = mppe("weights", "list").stdout
    assert "open-v0" in listing and "3dmppe" in listing
    shown = mppe("weights", "show", "open-v0").stdout
    assert "not for products" in shown and "root_pose.safetensors" in shown
    verified = mppe("weights", "verify", "open-v0")
    assert verified.exit_code == 0 and "open-v0" in verified.stdout
