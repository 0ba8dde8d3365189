"""Whatever makes networks faster changes their outputs by no more than it says."""

import copy
import functools
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mppe_ros import runtimes
from mppe_ros.detectors import DETECTORS, CenterDetector, CenterPersons, coco
from mppe_ros.detectors.coco import TorchvisionPersons
from mppe_ros.devices import DeviceError, select_backend
from mppe_ros.inference import Autocast, fold_batch_norms, lower_precision, prepare
from mppe_ros.networks import (
    CompiledRootPose,
    CropPoses,
    DisjointRootPose,
    GreyRootPose,
    PoseNet,
    RootNet,
    compiled,
)
from mppe_ros.pipeline import Pipeline
from mppe_ros.runtimes import Argument, OpenVino, OpenVinoRunner, Range
from mppe_ros.skeletons import MUCO_21
from mppe_ros.structures import Intrinsics
from mppe_ros.weights import CropSpec

CPU = torch.device("cpu")
SIZE = 96
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs openvino")


def settle(network: nn.Module, images: torch.Tensor) -> nn.Module:
    """Batch normalisations get the statistics of images, as training gives them."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.uniform_(-0.2, 0.2)
    with torch.no_grad():
        network.train()(images)
    return network.eval()


def crops(seed: int = 0) -> torch.Tensor:
    """Three crops that differ: noise of a coarse grain."""
    grain = torch.randn(3, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(grain, (SIZE, SIZE), mode="bilinear")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(4)
    root = settle(RootNet("resnet18"), crops())
    pose = settle(PoseNet(MUCO_21, "resnet18"), crops())
    return DisjointRootPose(_near_one(root), pose, MUCO_21).eval()


def _near_one(network: nn.Module) -> nn.Module:
    """γ as trained networks have it."""
    network.get_submodule("root.depth_layer").weight.data.mul_(0.1)
    network.get_submodule("root.depth_layer").bias.data.fill_(1.0)
    return network


def assert_near(found: CropPoses, expected: CropPoses, px: float, share: float) -> None:
    """:param share: of a depth, which γ is proportional to."""
    torch.testing.assert_close(found.root_px, expected.root_px, atol=px, rtol=0)
    torch.testing.assert_close(found.joints_px, expected.joints_px, atol=px, rtol=0)
    torch.testing.assert_close(found.gamma, expected.gamma, atol=share, rtol=share)
    # At the distance at which people fill the crop, where a mm is least of the whole.
    torch.testing.assert_close(found.joints_z_mm, expected.joints_z_mm, atol=2000 * share, rtol=0)
    torch.testing.assert_close(found.joint_scores, expected.joint_scores, atol=share * 10, rtol=0)


@torch.inference_mode()
def test_folded_networks_say_the_same(network: nn.Module) -> None:
    folded = prepare(copy.deepcopy(network), CPU)
    assert_near(folded(crops(1)), network(crops(1)), px=0.1, share=1e-3)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in folded.modules())


@torch.inference_mode()
def test_hourglasses_fold_where_a_convolution_comes_first() -> None:
    torch.manual_seed(4)
    network = settle(PoseNet(MUCO_21, "hourglass2"), crops()[..., :64, :64])
    folded = prepare(copy.deepcopy(network), CPU)
    seen = crops(1)[..., :64, :64]
    expected, found = network.stages(seen)[-1], folded.stages(seen)[-1]
    torch.testing.assert_close(found, expected, atol=1e-3 * expected.std().item(), rtol=1e-3)


@torch.inference_mode()
@pytest.mark.parametrize("flip_test", [False, True])
def test_bfloat16_is_within_a_pixel_and_a_hundredth(network: nn.Module, flip_test: bool) -> None:
    seen = crops(1)
    lower = lower_precision(prepare(copy.deepcopy(network), CPU), torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = lower(seen, flip_test)
    assert_near(found, network(seen, flip_test), px=1.0, share=0.01)


class _Sum(nn.Module):
    """A network of several arguments, with several results."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, first: torch.Tensor, second: torch.Tensor) -> tuple[torch.Tensor, ...]:
        both = self.linear(first) + self.linear(second)
        return both, both.sum(1)


@torch.inference_mode()
def test_lower_precision_passes_all_arguments_and_gives_float32() -> None:
    torch.manual_seed(0)
    network = _Sum()
    seen = torch.randn(3, 4), torch.randn(3, 4)
    expected = network(*seen)
    found = Autocast(copy.deepcopy(network), torch.bfloat16)(*seen)
    for value, wanted in zip(found, expected, strict=True):
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, wanted, atol=0.1, rtol=0)
        assert not torch.equal(value, wanted)


@needs_openvino
@torch.inference_mode()
@pytest.mark.parametrize(
    ("precision", "px", "share"), [(torch.float32, 0.1, 1e-3), (torch.bfloat16, 1.0, 0.01)]
)
def test_openvino_says_the_same_for_any_number_of_people(
    network: nn.Module, precision: torch.dtype, px: float, share: float
) -> None:
    grey = (40 * crops(1) + 128).clamp(0, 255).to(torch.uint8)
    grey = grey.contiguous(memory_format=torch.channels_last)
    spec = CropSpec(grey.shape[-1], mean=(128, 120, 130), std=(40, 41, 42))
    prepared = GreyRootPose(prepare(copy.deepcopy(network), CPU), spec)
    run = OpenVinoRunner(precision)
    estimator = CompiledRootPose(
        prepared.skeleton, functools.partial(compiled, prepared, spec.size, run)
    )
    calls = (1, False), (3, False), (1, False), (2, True)
    together = []
    for count, flip_test in calls:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            # The first flip test compiles.
            together.append(estimator(grey[-count:], flip_test))
    # None is overwritten by a later one.
    for (count, flip_test), found in zip(calls, together, strict=True):
        assert_near(found, network(spec.normalise(grey[-count:]), flip_test), px, share)


@needs_openvino
@torch.inference_mode()
def test_early_layers_in_float32_keep_the_distances_of_a_flip_test(network: nn.Module) -> None:
    grey = (40 * crops(1) + 128).clamp(0, 255).to(torch.uint8)
    spec = CropSpec(grey.shape[-1], mean=(128, 120, 130), std=(40, 41, 42))
    prepared = GreyRootPose(prepare(copy.deepcopy(network), CPU), spec)
    low, precise = OpenVinoRunner(torch.bfloat16), OpenVinoRunner()
    all_low, estimator = (
        CompiledRootPose(
            MUCO_21, functools.partial(compiled, prepared, spec.size, low, precise=early)
        )
        for early in (None, precise)
    )
    for count in (1, 3):
        expected = network(spec.normalise(grey[:count]), True)
        found = estimator(grey[:count], True)
        assert_near(found, expected, 1.0, 0.01)
        assert not torch.allclose(found.joints_px, expected.joints_px, atol=1e-4)  # PoseNet's
        torch.testing.assert_close(found.gamma, expected.gamma, atol=0, rtol=2e-3)
        other = all_low(grey[:count], True)
        off, off_otherwise = (
            (one.root_px - expected.root_px).square().mean() for one in (found, other)
        )
        assert off < off_otherwise / 2


def test_transposed_convolutions_fold_too() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.ConvTranspose2d(4, 6, 4, 2, 1, bias=False), nn.BatchNorm2d(6))
    x = torch.randn(2, 4, 8, 8)
    settle(layers, x)
    expected = layers(x)
    fold_batch_norms(layers)
    assert isinstance(layers[1], nn.Identity)
    torch.testing.assert_close(layers(x), expected, atol=1e-5, rtol=1e-5)


# --- detectors


def random_detector(name: str) -> nn.Module:
    torch.manual_seed(5)
    network = DETECTORS[name].network().eval().requires_grad_(False)
    if name.startswith("fasterrcnn"):
        # Sure of people, or it would find none.
        network.roi_heads.box_predictor.cls_score.bias.data[1] = 4.0
    return network


IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 120, 160, 3), np.uint8))


@pytest.mark.parametrize(
    "run", [None, pytest.param(OpenVinoRunner(), marks=needs_openvino)], ids=["torch", "openvino"]
)
def test_a_prepared_detector_finds_the_same(run: OpenVinoRunner | None) -> None:
    network = random_detector("fasterrcnn_mobilenet_v3_large_320_fpn")
    expected = TorchvisionPersons(copy.deepcopy(network))(IMAGES)
    found = TorchvisionPersons(prepare(network, CPU), run=run)(IMAGES)
    for one, other in zip(found, expected, strict=True):
        assert len(one.scores) == len(other.scores) > 0
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-3, rtol=0)
        np.testing.assert_allclose(one.boxes_xywh_px, other.boxes_xywh_px, atol=0.1, rtol=1e-3)


@pytest.mark.parametrize(
    "run",
    [None, pytest.param(OpenVinoRunner(torch.bfloat16), marks=needs_openvino)],
    ids=["torch", "openvino"],
)
@pytest.mark.parametrize("has_tiles", [False, True])
def test_anchors_are_exact_in_bfloat16(
    has_tiles: bool, run: OpenVinoRunner | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In it, numbers above 256 are even."""
    # Processors with AMX have other layers of the detector run by OpenVINO.
    monkeypatch.setattr(coco, "has_bf16_tiles", lambda: has_tiles)
    network = random_detector("fasterrcnn_mobilenet_v3_large_320_fpn")
    for end in (network.rpn.head.bbox_pred, network.rpn.head.cls_logits):
        nn.init.zeros_(end.weight)  # boxes are the anchors
    persons = TorchvisionPersons(prepare(network, CPU), torch.bfloat16, run)
    seen: list[torch.Tensor] = []
    persons.network.rpn.register_forward_hook(lambda *call: seen.extend(call[2][0]))
    persons([torch.zeros((320, 640, 3), dtype=torch.uint8)])
    (boxes,) = seen
    # Centres are 32 px apart, sides whole numbers from the middle; some end at odd numbers.
    far = boxes[:, 2][(boxes[:, 2] > 256) & (boxes[:, 2] < 640)]
    assert torch.equal(boxes, boxes.round()) and (far % 2).any()


@needs_openvino
@torch.inference_mode()
def test_openvino_runs_our_own_detector_on_images_of_any_size() -> None:
    network = random_detector("open_v0")
    assert isinstance(network, CenterDetector)
    openvino = CenterPersons(copy.deepcopy(network), run=OpenVinoRunner()).network
    for height, width in ((96, 128), (160, 96)):
        images = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8)
        says = network((images.permute(0, 3, 1, 2).float() - 127) / 128)
        for found, expected in zip(openvino(images), says, strict=True):
            torch.testing.assert_close(found, expected, atol=1e-2, rtol=1e-3)


@needs_openvino
def test_a_pipeline_on_openvino_sees_what_one_on_torch_sees() -> None:
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8)
    camera = Intrinsics.from_fov(60, 160, 120)
    poses = []
    for backend in ("torch", "openvino"):
        pipeline = Pipeline.load(device="cpu", backend=backend)
        pixels = pipeline.upload([image], [camera])
        boxes = torch.tensor([[20.0, 10, 40, 100], [90, 5, 50, 110]])
        found = pipeline.detect(pixels)[0]
        given = type(found)(boxes, torch.ones(2))
        poses.append(pipeline.estimate(pixels, [camera], [given])[0])
    for one, other in zip(*poses, strict=True):
        np.testing.assert_allclose(one.joints_px, other.joints_px, atol=0.1)
        np.testing.assert_allclose(one.root_mm, other.root_mm, rtol=1e-3)


def test_backends_are_chosen_by_name_device_and_precision() -> None:
    assert select_backend("torch", CPU, torch.float32) == "torch"
    assert select_backend("auto", torch.device("cuda"), torch.float16) == "cuda_graphs"
    installed = find_spec("openvino") is not None
    assert select_backend("auto", CPU, torch.float32) == ("openvino" if installed else "torch")
    with pytest.raises(DeviceError, match="backend auto or torch on a GPU"):
        select_backend("openvino", torch.device("cuda"), torch.float16)
    with pytest.raises(DeviceError, match="backend auto or torch on a CPU"):
        select_backend("cuda_graphs", CPU, torch.float32)
    with pytest.raises(DeviceError, match="none of auto, torch, openvino, cuda_graphs, onnx"):
        select_backend("tvm", CPU, torch.float32)


@needs_openvino
@torch.inference_mode()
def test_openvino_gives_results_in_the_type_that_a_network_has_them_in() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x.to(torch.bfloat16), x / 2

    run = OpenVino(Both(), [Argument("x", torch.zeros(2, 3), {0: Range(1, 2, 4)})])
    for count in (1, 4):
        x = torch.randn(count, 3).to(torch.bfloat16)
        same, half = run(x.float())
        assert same.dtype == torch.bfloat16 and torch.equal(same, x)
        assert half.dtype == torch.float32 and torch.equal(half, x.float() / 2)


# In a process of its own: a signal to one whose main thread has lost its signal stack ends it.
_SIGNALLED = """
import signal, threading, torch
from mppe_ros.runtimes import Argument, OpenVino

x = Argument("x", torch.zeros(1, 3))
networks = [OpenVino(torch.nn.Identity(), [x]) for _ in range(2)]
threads = [threading.Thread(target=lambda: networks.pop()) for _ in range(2)]
for thread in threads:
    thread.start()
    thread.join()
signal.signal(signal.SIGINT, lambda number, frame: print("signalled", number))
signal.raise_signal(signal.SIGINT)
"""


@needs_openvino
def test_signals_reach_a_process_whose_networks_ended_in_other_threads() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SIGNALLED], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "signalled 2\n"), done.stderr


@needs_openvino
def test_conversions_are_kept_and_made_again_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPPE_CACHE", str(tmp_path))
    monkeypatch.setattr(runtimes, "_FOLDERS", {})
    conversions = []
    convert = runtimes._convert
    monkeypatch.setattr(
        runtimes, "_convert", lambda *args: (conversions.append(args), convert(*args))[1]
    )
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    networks = [nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3, padding=1)]

    def outputs_are_right() -> int:
        """:return: how many networks were converted."""
        conversions.clear()
        for network in networks:
            run = OpenVino(network.eval(), [Argument("x", x, {0: Range(1, 2, 4)})])
            torch.testing.assert_close(run(x)[0], network(x), atol=1e-5, rtol=1e-4)
        return len(conversions)

    assert [outputs_are_right() for _ in range(2)] == [3, 0]
    runtimes._FOLDERS.clear()  # as in another process
    assert outputs_are_right() == 0
    files = list((tmp_path / "openvino").glob("*/*.xml"))
    assert len(files) == 3
    files[0].write_bytes(files[0].read_bytes()[:100])
    assert [outputs_are_right() for _ in range(2)] == [1, 0]


@needs_openvino
def test_without_a_folder_to_write_to_networks_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MPPE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(runtimes, "_FOLDERS", {})
    network = nn.Linear(3, 2).eval()
    for _ in range(2):
        torch.testing.assert_close(
            OpenVino(network, [Argument("x", torch.ones(1, 3))])(torch.ones(1, 3))[0],
            network(torch.ones(1, 3)),
        )


_LOAD_AND_LIST = """
import sys
import mppe_ros.cli
from mppe_ros.pipeline import Pipeline
Pipeline.load("open-s", device="cpu", backend="torch")
print("torchvision" in sys.modules)
"""


def test_command_and_default_set_do_without_torchvision_which_takes_seconds_to_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOAD_AND_LIST], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr
