"""Exported networks say what torch's do, wherever they run, and bad files say what is wrong."""

import importlib.util
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from mppe_ros import deployment, weights
from mppe_ros.checkpoints import CheckpointError, sha256
from mppe_ros.cli import main
from mppe_ros.deployment import ExportError
from mppe_ros.detectors import DETECTORS
from mppe_ros.devices import DeviceError, select_exported_backend
from mppe_ros.networks import PoseNet, RootNet
from mppe_ros.pipeline import Pipeline, PipelineOptions, _exported_files
from mppe_ros.runtimes import Argument, FileRunner, Range
from mppe_ros.skeletons import HUMAN36M_18
from mppe_ros.structures import Detections, Intrinsics

CPU = torch.device("cpu")
TWO_STAGES = "fasterrcnn_mobilenet_v3_large_320_fpn"
NEEDED = [p for p in ("onnx", "onnxscript", "onnxruntime") if find_spec(p) is None]
needs_onnx = pytest.mark.skipif(bool(NEEDED), reason=f"needs {', '.join(NEEDED)}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="module")
def onnx_set(folder: Path) -> Path:
    deployment.export("open-s", folder / "onnx", "onnx", engine_builder=True)
    return folder / "onnx"


@pytest.fixture(scope="module")
def torchscript_set(folder: Path) -> Path:
    path = folder / "torchscript"
    done = CliRunner().invoke(
        main, ["export", str(path), "--format", "torchscript", "--flip-test"]
    )
    assert done.exit_code == 0, done.output
    for name in ("root_pose.pt", "root_pose_flip.pt", "detector.pt", "is a weight set"):
        assert name in done.output
    return path


@pytest.fixture(scope="module")
def pair(folder: Path) -> tuple[str, Path]:
    """The paper's two networks, small and untrained, and a two-stage detector's file."""
    torch.manual_seed(3)
    root, pose = RootNet("resnet18"), PoseNet(HUMAN36M_18, "resnet18")
    root.root.depth_layer.weight.data.mul_(0.1)
    root.root.depth_layer.bias.data.fill_(1.0)
    detector = DETECTORS[TWO_STAGES].network()
    # Sure of people, or it would find none.
    detector.roi_heads.box_predictor.cls_score.bias.data[1] = 4.0
    paths = [folder / f"{name}.pth.tar" for name in ("root", "pose", "detector")]
    for path, network in zip(paths, (root, pose, detector), strict=True):
        torch.save({"network": network.state_dict()}, path)
    return f"{paths[0]},{paths[1]}", paths[2]


def look(
    pipeline: Pipeline, size: tuple[int, int] = (120, 160), boxes: int = 3
) -> tuple[Detections, list]:
    """What a pipeline finds in noise, and whom it sees in given boxes."""
    height, width = size
    image = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    camera = Intrinsics.from_fov(60, width, height)
    pixels = pipeline.upload([image], [camera])
    given = np.array([[20.0, 10, 40, 100], [90, 5, 50, 110], [10, 60, 70, 50]])[:boxes]
    (found,) = pipeline.detect(pixels)
    (people,) = pipeline.estimate(pixels, [camera], [Detections(given, np.ones(boxes))])
    return found, people


def assert_same(found: tuple[Detections, list], expected: tuple[Detections, list]) -> None:
    """Within 0.1 px and 0.1 % of the distance."""
    assert len(found[0].scores) == len(expected[0].scores)
    np.testing.assert_allclose(found[0].scores, expected[0].scores, atol=1e-3, rtol=0)
    np.testing.assert_allclose(
        found[0].boxes_xywh_px, expected[0].boxes_xywh_px, atol=0.1, rtol=1e-3
    )
    assert any(expected[1])
    for one, other in zip(found[1], expected[1], strict=True):
        assert (one is None) == (other is None)
        if one is None:  # not to be placed by untrained networks
            continue
        np.testing.assert_allclose(one.joints_px, other.joints_px, atol=0.1)
        np.testing.assert_allclose(one.root_mm, other.root_mm, atol=1e-3 * other.root_mm[2])
        np.testing.assert_allclose(one.joints_mm, other.joints_mm, atol=2e-3 * other.root_mm[2])
        np.testing.assert_allclose(one.root_covariance_mm2, other.root_covariance_mm2, rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("form", [pytest.param("onnx", marks=needs_onnx), "torchscript"])
def test_exported_networks_say_what_torch_says(form: str, request: pytest.FixtureRequest) -> None:
    exported = Pipeline.load(str(request.getfixturevalue(f"{form}_set")))
    own = Pipeline.load("open-s", device="cpu", backend="torch")
    assert exported.skeleton is own.skeleton
    assert exported.crop_spec == own.crop_spec
    assert exported.root_error == own.root_error
    assert exported.sharpness == own.sharpness
    assert exported.surface_net is not None and own.surface_net is not None
    for name, value in own.surface_net.state_dict().items():
        assert torch.equal(exported.surface_net.state_dict()[name], value)
    for size, boxes in (((480, 640), 3), ((480, 640), 1), ((300, 200), 2), ((60, 400), 1)):
        expected = look(own, size, boxes)
        assert size != (480, 640) or len(expected[0].scores) > 0
        assert_same(look(exported, size, boxes), expected)


def test_a_two_stage_detector_and_the_papers_networks(
    pair: tuple[str, Path], tmp_path: Path
) -> None:
    names, detector_file = pair
    deployment.export(
        names,
        tmp_path / "pair",
        "torchscript",
        detector=TWO_STAGES,
        detector_file=detector_file,
        detector_size=200,
    )
    own = Pipeline.load(
        names,
        device="cpu",
        backend="torch",
        detector=TWO_STAGES,
        detector_file=detector_file,
        detector_size=200,
    )
    expected = look(own)
    assert len(expected[0].scores) > 0
    assert_same(look(Pipeline.load(str(tmp_path / "pair"))), expected)


@pytest.mark.slow
@needs_onnx
def test_two_stages_as_onnx(pair: tuple[str, Path], folder: Path) -> None:
    _, detector_file = pair
    writer = deployment._Writer(folder, deployment.FORMS["onnx"], CPU, "fp32", lambda line: None)
    exported = deployment.build_detector(TWO_STAGES, detector_file, run=writer, min_size=200)
    own = deployment.build_detector(TWO_STAGES, detector_file, min_size=200)
    parts = ["detector_backbone", "detector_proposals", "detector_boxes"]
    assert list(writer.written) == parts
    assert all(network["file"].endswith(".onnx") for network in writer.written.values())
    for height, width in ((120, 160), (200, 90)):
        image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
        (found,), (expected,) = exported([image]), own([image])
        assert len(found.scores) == len(expected.scores) > 0
        np.testing.assert_allclose(found.boxes_xywh_px, expected.boxes_xywh_px, atol=0.1, rtol=0)


# --- flip test and precision


@pytest.mark.slow
def test_the_flip_test_is_a_network_of_its_own(torchscript_set: Path) -> None:
    options = PipelineOptions(flip_test=True)
    exported = Pipeline.load(str(torchscript_set), options=options)
    own = Pipeline.load("open-s", device="cpu", backend="torch", options=options)
    expected = look(own)
    assert_same(look(exported), expected)
    without = look(Pipeline.load(str(torchscript_set)))
    assert not np.allclose(without[1][0].joints_px, expected[1][0].joints_px, atol=0.1)


def test_a_flip_test_that_was_not_exported_says_how(tmp_path: Path) -> None:
    files = FileRunner({"root_pose": tmp_path / "root_pose.onnx"}, "onnxruntime", CPU)
    with pytest.raises(CheckpointError, match="no root_pose_flip: run 'mppe export' with --flip"):
        files.open("root_pose_flip")


class Small(nn.Module):
    """Something that becomes something else in fp16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.linear = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        maps = self.convolution(pixels.float() / 255).relu()
        return self.linear(maps.mean((2, 3)))


SMALL_PIXELS = Argument(
    "pixels", torch.zeros(2, 3, 8, 8, dtype=torch.uint8), {0: Range(1, 2, 4), 2: Range(8, 8, 32)}
)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("form", [pytest.param("onnx", marks=needs_onnx), "torchscript"])
def test_half_precision_is_half_as_large_and_nearly_the_same(
    form: str, precision: str, tmp_path: Path
) -> None:
    network, lines = Small().eval(), []
    writer = deployment._Writer(tmp_path, deployment.FORMS[form], CPU, precision, lines.append)
    run = writer("small", network, [SMALL_PIXELS], ["sums"])
    seen = torch.randint(0, 256, (5, 3, 16, 8), dtype=torch.uint8)
    (found,) = run(seen)
    expected = network(seen)
    assert found.dtype == torch.float32
    off = (found - expected).abs().max() / expected.abs().max()
    assert off < (1e-5 if precision == "fp32" else 1e-2)
    assert (off > 1e-5) == (precision == "fp16")
    assert network.convolution.weight.dtype == torch.float32  # as it was
    assert len(lines) == 1


# --- what can't be exported


def test_a_file_that_does_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = deployment.FORMS["torchscript"]

    def write_another(network: nn.Module, *rest: object) -> None:
        class Other(nn.Module):
            def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
                first, *others = network(pixels)
                return (first * 1.01, *others)

        form.write(Other(), *rest)

    monkeypatch.setitem(deployment.FORMS, "torchscript", form._replace(write=write_another))
    done = CliRunner().invoke(main, ["export", str(tmp_path / "a" / "b"), "--format=torchscript"])
    assert done.exit_code == 1
    assert "root_pose.pt doesn't do what its network does" in done.output
    assert list((tmp_path / "a").iterdir()) == []


def test_a_network_that_has_no_such_form_says_so(tmp_path: Path) -> None:
    class Untraceable(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise NotImplementedError("not in a graph")

    writer = deployment._Writer(
        tmp_path, deployment.FORMS["torchscript"], CPU, "fp32", lambda line: None
    )
    with pytest.raises(ExportError, match="wild can't be written as pt: .*not in a graph"):
        writer("wild", Untraceable(), [Argument("x", torch.zeros(2))], ["y"])


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("precious")
    for name in ("mine", "mine/file"):
        with pytest.raises(ExportError, match="is there already: give another folder"):
            deployment.export("open-s", tmp_path / name, "torchscript")
    assert (tmp_path / "mine" / "file").read_text() == "precious"


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="can't be made: "):
        deployment.export("open-s", tmp_path / "file" / "below", "torchscript")


def test_a_fixed_detector_has_no_other_size(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="open_s has a fixed input size"):
        deployment.export("open-s", tmp_path / "x", "torchscript", detector_size=200)


@pytest.mark.slow
def test_an_export_is_not_exported_again(torchscript_set: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is exported already"):
        deployment.export(str(torchscript_set), tmp_path / "again", "torchscript")
    exported = weights.find(str(torchscript_set))
    with pytest.raises(CheckpointError, match="can only be run"):
        exported.build({})


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deployment, "find_spec", lambda name: None)
    with pytest.raises(DeviceError, match="needs onnx and onnxscript and onnxruntime: pip"):
        deployment.export("open-s", tmp_path / "x", "onnx")


def test_the_command_for_tensorrt_halves_and_adds_the_builder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(deployment, "export", lambda *a, **options: asked.append((a, options)))
    done = CliRunner().invoke(main, ["export", str(tmp_path / "x"), "--format", "tensorrt"])
    assert done.exit_code == 0, done.output
    ((arguments, options),) = asked
    assert arguments == ("open-s", tmp_path / "x", "onnx")
    assert (options["precision"], options["engine_builder"]) == ("fp16", True)
    assert f"python3 {tmp_path / 'x' / 'build_engines.py'}" in done.output


# --- reading


@pytest.fixture
def copied(torchscript_set: Path, tmp_path: Path) -> Path:
    shutil.copytree(torchscript_set, tmp_path / "copy")
    return tmp_path / "copy"


def change(folder: Path, **values: object) -> None:
    path = folder / "set.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"version": 99}, "is of version 99, this program reads version 1"),
        ({"joints": "octopus_8"}, "doesn't describe exported networks .*octopus_8"),
        ({"crop": {"size": 5}}, "doesn't describe"),
        ({"crop": 5}, "doesn't describe"),
        ({"networks": []}, "doesn't describe"),
        ({"networks": {"root_pose": {"file": "../x.pt", "sha256": ""}}}, "not in this folder"),
        ({"root_error": {}}, "doesn't describe"),
    ],
    ids=str,
)
def test_descriptions_that_are_none_say_so(
    copied: Path, values: dict[str, object], complaint: str
) -> None:
    change(copied, **values)
    with pytest.raises(CheckpointError, match=complaint):
        Pipeline.load(str(copied))


@pytest.mark.slow
def test_damaged_files_say_so(copied: Path) -> None:
    (copied / "set.json").write_text('{"version": 1, ')
    with pytest.raises(CheckpointError, match="doesn't describe exported networks"):
        weights.find(str(copied))
    (copied / "set.json").unlink()
    with pytest.raises(CheckpointError, match="has no set.json"):
        weights.find(str(copied))


@pytest.mark.slow
def test_a_damaged_network_is_not_run(copied: Path) -> None:
    path = copied / "root_pose.pt"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="has changed or is damaged"):
        Pipeline.load(str(copied))
    networks = json.loads((copied / "set.json").read_text())["networks"]
    networks["root_pose"]["sha256"] = sha256(path)
    change(copied, networks=networks)
    with pytest.raises(CheckpointError, match=r"root_pose\.pt cannot be used"):
        Pipeline.load(str(copied))
    path.unlink()
    with pytest.raises(CheckpointError, match=r"root_pose\.pt is missing"):
        Pipeline.load(str(copied))


class Malicious:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("touched"),)


def save_pickle(thing: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(thing))


@pytest.mark.parametrize("save", [torch.save, save_pickle])
def test_a_malicious_pickle_is_no_network(
    save: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save(Malicious(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match=r"net\.pt cannot be used"):
        FileRunner({"net": tmp_path / "net.pt"}, "torch", CPU).open("net")
    assert not (tmp_path / "touched").exists()


@needs_onnx
def test_garbage_is_no_onnx(tmp_path: Path) -> None:
    for content in (b"", b"garbage", bytes(1000)):
        (tmp_path / "net.onnx").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"net\.onnx cannot be used"):
            FileRunner({"net": tmp_path / "net.onnx"}, "onnxruntime", CPU).open("net")


@pytest.mark.slow
def test_what_they_are_not_for_is_refused(torchscript_set: Path) -> None:
    with pytest.raises(DeviceError, match="exported in fp32: leave precision auto"):
        Pipeline.load(str(torchscript_set), precision="bf16")
    with pytest.raises(DeviceError, match="doesn't run networks exported as torchscript"):
        Pipeline.load(str(torchscript_set), backend="openvino")
    chosen = weights.find(str(torchscript_set))
    with pytest.raises(DeviceError, match="for device cpu, not cuda: run 'mppe export"):
        _exported_files(chosen, {}, torch.device("cuda"), "auto", "auto")


def test_backends_of_exported_networks() -> None:
    gpu = torch.device("cuda")
    assert select_exported_backend("auto", CPU, "onnx", True) == "onnxruntime"
    assert select_exported_backend("auto", gpu, "onnx", True) == "tensorrt"
    assert select_exported_backend("auto", gpu, "onnx", False) == "onnxruntime"
    assert select_exported_backend("onnxruntime", gpu, "onnx", True) == "onnxruntime"
    assert select_exported_backend("auto", gpu, "torchscript", False) == "torch"
    with pytest.raises(DeviceError, match="tensorrt is for GPUs"):
        select_exported_backend("tensorrt", CPU, "onnx", True)
    with pytest.raises(DeviceError, match="torch doesn't run networks exported as onnx"):
        select_exported_backend("torch", CPU, "onnx", False)
    with pytest.raises(DeviceError, match="none of auto"):
        select_exported_backend("tvm", CPU, "onnx", False)
    with pytest.raises(DeviceError, match="onnxruntime runs exported networks"):
        Pipeline.load("open-s", device="cpu", backend="onnxruntime")


@pytest.mark.slow
def test_commands_take_the_folder_for_a_set(torchscript_set: Path) -> None:
    shown = CliRunner().invoke(main, ["weights", "show", str(torchscript_set)])
    assert "exported as torchscript" in shown.output
    verified = CliRunner().invoke(main, ["weights", "verify", str(torchscript_set)])
    assert "ok" in verified.output
    readme = (torchscript_set / "README.md").read_text()
    assert "Apache-2.0" in readme
    assert "pixels uint8 (any, 192, 192, 3)" in readme


# --- TensorRT


@pytest.fixture(scope="module")
def builder(onnx_set: Path) -> object:
    spec = importlib.util.spec_from_file_location("build", onnx_set / "build_engines.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@needs_onnx
def test_engines_are_built_for_what_the_networks_take(onnx_set: Path, builder) -> None:
    import onnx

    networks = json.loads((onnx_set / "set.json").read_text())["networks"]
    assert list(networks) == ["root_pose", "detector"]
    for network in networks.values():
        graph = onnx.load(onnx_set / network["file"]).graph
        assert [node.name for node in graph.output] == network["results"]
        for node, argument in zip(graph.input, network["arguments"], strict=True):
            assert node.name == argument["name"]
            # TensorRT does nothing else with uint8.
            assert {n.op_type for n in graph.node if node.name in n.input} == {"Cast"}
            dimensions = node.type.tensor_type.shape.dim
            for most in (1, 20):
                shapes = builder.shapes(argument, most)
                for d, least, usual, greatest in zip(dimensions, *shapes, strict=True):
                    fixed = d.HasField("dim_value")
                    assert least <= usual <= greatest
                    assert not fixed or least == greatest == d.dim_value
                assert shapes[2][0] == most


@pytest.mark.slow
@needs_onnx
@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is here")
def test_without_tensorrt_the_builder_says_so(onnx_set: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(onnx_set / "build_engines.py")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "there is no TensorRT for this Python" in done.stderr
    assert "pip install tensorrt" in done.stderr
    with pytest.raises(DeviceError, match="backend tensorrt needs a package"):
        FileRunner({"net": onnx_set / "root_pose.onnx"}, "tensorrt", CPU).open("net")


@pytest.mark.slow
@needs_onnx
def test_files_tell_nothing_of_who_made_them(onnx_set: Path) -> None:
    # Other tests import a program of the folder, which may leave a __pycache__ there.
    for path in filter(Path.is_file, onnx_set.iterdir()):
        content = path.read_bytes()
        for place in (Path(deployment.__file__).parents[1], Path(torch.__file__).parents[1]):
            assert str(place).encode() not in content, path.name
