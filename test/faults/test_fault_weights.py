"""Weight files that are damaged, of something else, or hostile: the node says so and lives on."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

import torch
from node_rig import Robot, wait_until
from rclpy.lifecycle import TransitionCallbackReturn
from rig import GOOD, Puppets, Shot, make_pipeline
from safetensors.torch import save, save_file

from mppe_ros import pipeline as pipeline_module
from mppe_ros.networks import LitePoseNet, LiteRootNet
from mppe_ros.pipeline import Pipeline
from mppe_ros.skeletons import MUCO_21

pytestmark = pytest.mark.ros

BAIT = "was_run"
SUCCESS = TransitionCallbackReturn.SUCCESS
LOAD = Pipeline.load  # before the host replaces it


class Hostile:
    """Would create a file when unpickled."""

    def __init__(self, folder: Path) -> None:
        self._bait = folder / BAIT

    def __reduce__(self) -> tuple:
        return Path.touch, (self._bait,)


def torch_bytes(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def zipped(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def of_joints(count: int) -> bytes:
    """A PoseNet's file for so many joints, small."""
    weight = torch.zeros(count * 64, 256, 1, 1)
    return torch_bytes({"network": {"module.head.final_layer.weight": weight}})


# The second file, PoseNet's, by what is wrong with it. A good one is `parameters`.
FILES: dict[str, tuple[str, Callable[[bytes, Path], bytes]]] = {
    "empty": (".safetensors", lambda good, folder: b""),
    "one byte": (".safetensors", lambda good, folder: good[:1]),
    "cut in the header": (".safetensors", lambda good, folder: good[:1000]),
    "cut in the middle": (".safetensors", lambda good, folder: good[: len(good) // 2]),
    "without its last byte": (".safetensors", lambda good, folder: good[:-1]),
    "with a byte too many": (".safetensors", lambda good, folder: good + b"x"),
    "of an enormous header": (".safetensors", lambda good, folder: b"\xff" * 8 + good[8:]),
    "of zeros": (".safetensors", lambda good, folder: bytes(100_000)),
    "a text": (".safetensors", lambda good, folder: b"<html>404</html>" * 99),
    "of nothing": (".safetensors", lambda good, folder: save({})),
    "another network": (".safetensors", lambda good, folder: save({"w": torch.zeros(3)})),
    "the other network": (".safetensors", lambda good, folder: save(_root().state_dict())),
    "of another shape": (".safetensors", lambda good, folder: save(_misshapen())),
    "of a part missing": (".safetensors", lambda good, folder: save(_without_volume())),
    "five joints": (".pth.tar", lambda good, folder: of_joints(5)),
    "no joints": (".pth.tar", lambda good, folder: of_joints(0)),
    "thousand joints": (".pth.tar", lambda good, folder: of_joints(1000)),
    "cut checkpoint": (".pth.tar", lambda good, folder: torch_bytes({"w": torch.ones(999)})[:999]),
    "a list": (".pth.tar", lambda good, folder: torch_bytes([1, 2, 3])),
    "numbers": (".pth.tar", lambda good, folder: torch_bytes({"network": {"w": 1.0}})),
    "a zip": (".pth.tar", lambda good, folder: zipped("readme", b"hello")),
    "a zip that climbs": (".pth.tar", lambda good, folder: zipped(f"../{BAIT}", b"hello")),
    "a pickle": (".pth.tar", lambda good, folder: pickle.dumps({"network": {"w": 1}})),
    "a hostile pickle": (".pth.tar", lambda good, folder: pickle.dumps(Hostile(folder))),
    "a hostile checkpoint": (
        ".pth.tar", lambda good, folder: torch_bytes({"network": {"w": Hostile(folder)}}),
    ),
    "a hostile pickle called safetensors": (
        ".safetensors", lambda good, folder: pickle.dumps(Hostile(folder)),
    ),
}  # fmt: skip


def _root() -> LiteRootNet:
    torch.manual_seed(0)
    return LiteRootNet()


def _pose() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return LitePoseNet(MUCO_21).state_dict()


def _misshapen() -> dict[str, torch.Tensor]:
    return _pose() | {"volume.weight": torch.zeros(13 * 16, 128, 1, 1)}


def _without_volume() -> dict[str, torch.Tensor]:
    return {name: value for name, value in _pose().items() if "volume" not in name}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    save_file(_root().state_dict(), folder / "root.safetensors")
    save_file(_pose(), folder / "good.safetensors")
    return folder


@pytest.fixture(scope="module")
def victims(host, folder):
    """By a file's suffix: its path, a node that is to read it, and the other end of the node."""
    found = {}
    for number, suffix in enumerate(dict.fromkeys(suffix for suffix, _ in FILES.values())):
        path, robot = folder / f"pose{suffix}", Robot(f"/faults_weights_{number}")
        weights = f"{folder / 'root.safetensors'},{path}"
        node = host.start(robot.namespace, autostart=False, weights=weights, device="cpu")
        found[suffix] = path, node, robot
    yield found
    for _, _, robot in found.values():
        robot.close()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_weights(host, victims, folder, monkeypatch, name):
    """The same node starts as soon as the file is right."""
    suffix, make = FILES[name]
    path, node, robot = victims[suffix]
    path.write_bytes(make((folder / "good.safetensors").read_bytes(), folder))
    del robot.logs[:]
    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "load", LOAD)
        # It is fine, and takes a while.
        patch.setattr(pipeline_module, "build_detector", lambda *_, **__: None)
        assert node.trigger_configure() != SUCCESS
    (text,) = wait_until(lambda: robot.log("cannot configure"))
    assert path.name in text
    assert "\n" not in text and len(text) < 1000
    wait_until(lambda: robot.status("cannot configure"))
    assert not (folder / BAIT).exists() and not (folder.parent / BAIT).exists()
    host.pipeline = make_pipeline(Puppets())
    assert node.start()
    assert robot.get_poses(GOOD, Shot.good().info).poses
    assert node.trigger_deactivate() == SUCCESS and node.trigger_cleanup() == SUCCESS


def test_the_good_file_is_good(folder):
    """What the damaged ones were made of."""
    weights = f"{folder / 'root.safetensors'},{folder / 'good.safetensors'}"
    assert LOAD(weights, device="cpu", detector=Puppets().detect).skeleton is MUCO_21
