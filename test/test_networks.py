"""RootNet, PoseNet and the soft-argmax: shapes, decoding conventions, mirror symmetry."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from mppe_ros import weights
from mppe_ros.networks import DisjointRootPose, PoseNet, RootNet, SharedRootPose, soft_argmax
from mppe_ros.skeletons import HUMAN36M_17, MUCO_21
from mppe_ros.trunks import TRUNKS

EXPECTED = Path(__file__).parent / "data" / "root_pose_v0_expected.npz"


def peak(shape: tuple[int, ...], at: tuple[int, ...]) -> torch.Tensor:
    heatmap = torch.zeros(shape)
    heatmap[at] = 50.0
    return heatmap


def test_soft_argmax_finds_a_peak_in_x_y_z_order() -> None:
    volume = torch.stack([peak((16, 20, 24), (3, 5, 7)), peak((16, 20, 24), (0, 19, 23))])[None]
    cells, sharpness = soft_argmax(volume)
    torch.testing.assert_close(cells[0], torch.tensor([[7.0, 5, 3], [23, 19, 0]]))
    torch.testing.assert_close(sharpness, torch.ones(1, 2))
    flat, _ = soft_argmax(peak((1, 1, 8, 9), (0, 0, 2, 6)))
    torch.testing.assert_close(flat, torch.tensor([[[6.0, 2.0]]]))


def test_soft_argmax_of_nothing_in_particular_is_the_middle_and_not_sharp() -> None:
    cells, sharpness = soft_argmax(torch.zeros(2, 3, 8, 10, 12))
    torch.testing.assert_close(cells, torch.tensor([5.5, 4.5, 3.5]).expand(2, 3, 3))
    assert sharpness.abs().max() < 1e-3


def test_soft_argmax_equals_the_expectation_over_the_whole_volume() -> None:
    volume = torch.randn((2, 4, 6, 7, 8), generator=torch.Generator().manual_seed(0)) * 3
    probability = volume.flatten(2).softmax(-1).reshape(volume.shape)
    z, y, x = torch.meshgrid(*(torch.arange(float(n)) for n in (6, 7, 8)), indexing="ij")
    expected = torch.stack([(probability * axis).sum((2, 3, 4)) for axis in (x, y, z)], -1)
    cells, sharpness = soft_argmax(volume)
    torch.testing.assert_close(cells, expected)
    assert ((sharpness >= 0) & (sharpness <= 1)).all()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_soft_argmax_of_large_sharp_volumes_is_that_in_double_precision(
    memory_format: torch.memory_format,
) -> None:
    """Volumes of the published networks' size, which are summed up in parts."""
    random = torch.Generator().manual_seed(2)
    flat = 200 + 30 * torch.randn((1, 3 * 64, 64, 64), generator=random)
    volume = flat.contiguous(memory_format=memory_format).unflatten(1, (3, 64))
    volume.requires_grad_()
    exact = volume.detach().double().requires_grad_()
    probability = exact.flatten(2).softmax(-1).reshape(volume.shape)
    cells64 = torch.arange(64.0, dtype=torch.float64)
    sums = [probability.sum(axes) @ cells64 for axes in ((2, 3), (2, 4), (3, 4))]
    expected = torch.stack(sums, -1)
    cells, _ = soft_argmax(volume)
    torch.testing.assert_close(cells.double(), expected, atol=1e-3, rtol=0)
    cells.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(volume.grad.double(), exact.grad, atol=1e-4, rtol=1e-3)


def test_soft_argmax_in_a_graph_says_the_same() -> None:
    random = torch.Generator().manual_seed(3)
    blunt = torch.randn((2, 3 * 16, 8, 10), generator=random)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated
        graph = torch.jit.trace(lambda flat: soft_argmax(flat.unflatten(1, (3, 16))), blunt)
    for flat in (blunt, 1000 + 200 * blunt[:1], -1e4 * blunt.abs(), torch.zeros_like(blunt)):
        cells, sharpness = graph(flat)
        expected, expected_sharpness = soft_argmax(flat.unflatten(1, (3, 16)))
        torch.testing.assert_close(cells, expected, atol=1e-4, rtol=0)
        torch.testing.assert_close(sharpness, expected_sharpness, atol=1e-4, rtol=0)


def test_soft_argmax_computes_in_float32_under_autocast() -> None:
    volume = torch.randn((1, 2, 8, 8, 8), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        cells, _ = soft_argmax(volume.bfloat16())
    assert cells.dtype == torch.float32
    torch.testing.assert_close(cells, soft_argmax(volume.bfloat16().float())[0])


@pytest.mark.parametrize("trunk", TRUNKS)
def test_every_trunk_carries_both_heads(trunk: str) -> None:
    torch.manual_seed(0)
    crops = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        root, gamma = RootNet(trunk).eval()(crops)
        joints, scores = PoseNet(MUCO_21, trunk).eval()(crops)
    assert root.shape == (2, 2) and gamma.shape == (2,)
    assert joints.shape == (2, 21, 3) and scores.shape == (2, 21)
    assert all(torch.isfinite(t).all() for t in (root, gamma, joints, scores))


def test_parameter_names_are_the_releases() -> None:
    root, pose = RootNet("resnet18").state_dict(), PoseNet(MUCO_21, "resnet18").state_dict()
    for name in ("backbone.layer4.1.conv2.weight", "root.deconv_layers.0.weight",
                 "root.deconv_layers.7.running_var", "root.xy_layer.bias",
                 "root.depth_layer.weight"):  # fmt: skip
        assert name in root
    assert pose["head.final_layer.weight"].shape[0] == 21 * 64
    assert not any("fc" in name for name in (*root, *pose))


@pytest.fixture(params=["disjoint", "shared"])
def estimator(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(1)
    if request.param == "shared":
        return SharedRootPose(MUCO_21).eval()
    return DisjointRootPose(RootNet("resnet18"), PoseNet(MUCO_21, "resnet18"), MUCO_21).eval()


@torch.inference_mode()
def test_batched_equals_single(estimator: torch.nn.Module) -> None:
    crops = torch.randn(3, 3, 96, 96)
    together = estimator(crops)
    for i in range(3):
        for all_, one in zip(together, estimator(crops[i : i + 1]), strict=True):
            torch.testing.assert_close(all_[i : i + 1], one, atol=1e-3, rtol=1e-4)


@torch.inference_mode()
def test_flip_test_of_a_mirrored_crop_mirrors_the_joints(estimator: torch.nn.Module) -> None:
    crops = torch.randn(2, 3, 96, 96)
    plain, mirrored = estimator(crops, True), estimator(crops.flip(3), True)
    order = MUCO_21.mirrored
    # The sum of a point's and its mirror image's x is one constant for all joints.
    total = plain.joints_px[..., 0] + mirrored.joints_px[:, order, 0]
    torch.testing.assert_close(total, total[0, 0].expand_as(total), atol=1e-2, rtol=0)
    torch.testing.assert_close(
        plain.joints_px[..., 1], mirrored.joints_px[:, order, 1], atol=1e-2, rtol=0
    )
    torch.testing.assert_close(plain.joints_z_mm, mirrored.joints_z_mm[:, order], atol=0.5, rtol=0)


@torch.inference_mode()
def test_embedded_network_equals_its_prototype() -> None:
    """Outputs stored from the program that trained it."""
    stored = np.load(EXPECTED)
    crops = torch.from_numpy(np.kron(stored["grid"], np.ones((16, 16), np.float32)))
    open_v0 = weights.find("open-v0")
    network = open_v0.build(weights.locate(open_v0))
    assert isinstance(network, SharedRootPose) and network.skeleton is HUMAN36M_17
    poses = network(crops)
    unit = stored["joints_unit"]
    np.testing.assert_allclose(poses.joints_px, unit[..., :2] * 160 - 0.5, atol=0.02)
    np.testing.assert_allclose(poses.joints_z_mm, unit[..., 2] * 1000, atol=0.5)
    np.testing.assert_allclose(poses.gamma, stored["gamma"], atol=1e-4)
    np.testing.assert_allclose(poses.root_px, poses.joints_px[:, 0], atol=0)
