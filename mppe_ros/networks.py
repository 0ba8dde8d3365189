"""RootNet, PoseNet and the networks that combine them: crops in, poses in crop pixels out.

Module names follow the reference release (``backbone``, ``root``, ``head``), so that its
checkpoints load as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from .inference import constants
from .runtimes import Argument, Range, Runner, is_recorded
from .skeletons import Skeleton
from .trunks import (
    TRUNKS,
    BlazePose,
    EfficientNetLite0,
    StackedHourglass,
    Trunk,
    repeated,
    run_stages,
)

HEATMAP_STRIDE = 4  # crop px per heatmap cell, reference heads
DEPTH_BINS = 64
DEPTH_RANGE_MM = 1000.0  # the volume reaches this far before and behind the root


class CropPoses(NamedTuple):
    """What the networks say of N crops with J joints each."""

    root_px: torch.Tensor  # (N, 2) pelvis, crop px
    gamma: torch.Tensor  # (N,) correction of the k-value: Z = gamma * k
    joints_px: torch.Tensor  # (N, J, 2) crop px
    joints_z_mm: torch.Tensor  # (N, J) depth relative to the root
    joint_scores: torch.Tensor  # (N, J) sharpness of the heatmap, 0..1


class RootPoseEstimator(Protocol):
    """RootNet and PoseNet together, whatever they are made of."""

    skeleton: Skeleton

    def __call__(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        """``crops``: (N, 3, size, size) whole grey values 0..255 of any type, as they were cut."""
        ...


class Normalisation(Protocol):
    """What networks expect of grey values."""

    def normalise(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) whole grey values 0..255 to what the networks were trained on."""
        ...


def soft_argmax(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Integral regression: the expected cell under the heatmap's softmax (paper, section 6).

    Fastest on channels_last maps.

    :param heatmaps: (N, J, D, H, W) logits, or (N, J, H, W) for a flat heatmap.
    :return: (N, J, 3) x, y, z (or (N, J, 2) x, y) in cells, and (N, J) sharpness in x and y:
        1 for a single point, 0 where the softmax is as wide as a uniform one.
    """
    # In fp32 always: sums over 64^3 cells lose whole cells in half precision.
    with torch.autocast(heatmaps.device.type, enabled=False):
        depths: list[torch.Tensor] = []
        if heatmaps.ndim == 4:
            probability = _softmax(heatmaps.float())
        else:
            probability, depth = (_over_depth_in_graph if is_recorded() else _over_depth)(heatmaps)
            depths = [depth]
        means, variances = [], []
        for axis in (3, 2):
            marginal = probability.sum(5 - axis)
            cells = torch.arange(marginal.shape[-1], device=heatmaps.device, dtype=torch.float32)
            # No matrix product: OpenVINO does those in lower precision, and what comes before.
            mean = (marginal * cells).sum(-1)
            means.append(mean)
            # Relative to a uniform distribution over n cells, whose variance is (n^2 - 1) / 12.
            offset = cells - mean[..., None]
            variance = (marginal * offset.square()).sum(-1)
            variances.append(variance * 12 / max(len(cells) ** 2 - 1, 1))
        spread = ((variances[0] + variances[1]) / 2).sqrt()
    return torch.stack(means + depths, -1), (1 - spread).clamp(0, 1)


def _softmax(logits: torch.Tensor) -> torch.Tensor:
    """Over both dimensions of maps (N, J, H, W)."""
    return logits.flatten(2).softmax(-1).reshape(logits.shape)


# So many logits of a volume (0.5 MB in fp32) stay in a CPU core's cache from one step to the next.
_CACHED_LOGITS = 2**17


def _over_depth(volumes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, J, D, H, W) logits to the softmax over x and y (N, J, H, W), and to the mean z (N, J).

    The softmax over the volume is that over x and y times that over z there. So no array of the
    volume's size is written.
    """
    count, joints, depth, height, width = volumes.shape
    cells = torch.arange(depth, device=volumes.device, dtype=torch.float32)
    columns = volumes.permute(0, 3, 4, 1, 2).reshape(-1, joints, depth)
    in_parts = volumes.device.type == "cpu"
    step = max(1, _CACHED_LOGITS // (joints * depth))
    logits, depths = [], []
    for part in columns.split(step) if in_parts else [columns]:
        values = part.float()
        top = values.amax(-1, keepdim=True)
        exponentials = (values - top).exp()
        total = exponentials.sum(-1)
        logits.append(top[..., 0] + total.log())
        depths.append((exponentials * cells).sum(-1) / total)
    shape = (count, height, width, joints)
    flat, expected = (torch.cat(v).reshape(shape).permute(0, 3, 1, 2) for v in (logits, depths))
    probability = _softmax(flat)
    return probability, (probability * expected).sum((2, 3))


def _over_depth_in_graph(volumes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As above, for who optimises graphs: nothing but the convolution before it, exponentials
    and a convolution, so that memory keeps its order (OpenVINO took a third of PoseNet's time in
    bf16 for changing it).

    OpenVINO computes these products in the network's precision: each exponential loses a
    thousandth in bf16, of which there are many in a sum. No mean over x and y is taken so.
    """
    count, joints, depth = volumes.shape[:3]
    channels = volumes.flatten(1, 2).float()
    tops = channels.amax((2, 3)).unflatten(1, (joints, depth)).amax(2, keepdim=True)
    exponentials = (channels - tops.expand(-1, -1, depth).reshape(count, -1, 1, 1)).exp()
    cells = torch.arange(depth, device=volumes.device, dtype=torch.float32)
    # For each joint the sum over z, and that of z.
    kernel = torch.stack([torch.ones_like(cells), cells]).repeat(joints, 1)[..., None, None]
    sums = F.conv2d(exponentials, kernel, groups=joints).unflatten(1, (joints, 2))
    total = sums.sum((3, 4))
    return sums[:, :, 0] / total[:, :, :1, None], total[:, :, 1] / total[:, :, 0]


def hard_argmax(heatmaps: torch.Tensor) -> torch.Tensor:
    """The cell with the highest value; arguments and cells as in :func:`soft_argmax`."""
    cells = heatmaps.flatten(2).argmax(-1)
    axes = []
    for size in reversed(heatmaps.shape[2:]):
        axes.append(cells % size)
        cells = cells // size
    return torch.stack(axes, -1).float()


def _deconvolutions(inputs: int) -> nn.Sequential:
    """Three times: 4x4 deconvolution of stride 2 to 256 channels, BN, ReLU (Xiao et al. 2018)."""
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [
            nn.ConvTranspose2d(inputs, 256, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(inplace=True),
        ]
        inputs = 256
    return nn.Sequential(*layers)


class _MapHead(nn.Module):
    """Features to ``outputs`` maps of stride 4.

    Three deconvolutions and a 1x1 convolution; for stacked hourglasses, which are at stride 4
    already, a 1x1 convolution per stack and one that feeds its maps back.
    """

    def __init__(self, trunk: Trunk, outputs: int, last: str) -> None:
        super().__init__()
        self._last = last  # the release's name of the convolution that makes the maps
        channels = trunk.channels
        if isinstance(trunk, StackedHourglass):
            stacks = len(trunk.hourglasses)
            self.stack_layers = nn.ModuleList(
                nn.Conv2d(channels, outputs, 1) for _ in range(stacks)
            )
            self.feedback_layers = nn.ModuleList(
                nn.Conv2d(outputs, channels, 1) for _ in range(stacks - 1)
            )
        else:
            self.deconv_layers = _deconvolutions(channels)
            self.add_module(last, nn.Conv2d(256, outputs, 1))

    def maps(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """A stage's maps (N, outputs, H/4, W/4) and their feedback, as ``trunks.Predict``."""
        if self._last in self._modules:
            return self.get_submodule(self._last)(self.deconv_layers(features)), None
        maps = self.stack_layers[stage](features)
        last = stage == len(self.feedback_layers)
        return maps, None if last else self.feedback_layers[stage](maps)


class _RootHead(_MapHead):
    def __init__(self, trunk: Trunk) -> None:
        super().__init__(trunk, 1, "xy_layer")
        self.depth_layer = nn.Conv2d(trunk.channels, 1, 1)

    def gamma(self, features: torch.Tensor) -> torch.Tensor:
        return self.depth_layer(features.mean((2, 3), keepdim=True)).float().flatten()


class _PoseHead(_MapHead):
    def __init__(self, trunk: Trunk, joint_count: int) -> None:
        super().__init__(trunk, joint_count * DEPTH_BINS, "final_layer")
        self.joint_count = joint_count

    def maps(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        maps, feedback = super().maps(stage, features)
        return maps.unflatten(1, (self.joint_count, DEPTH_BINS)), feedback


class _RegressionHead(nn.Module):
    """Coordinates straight from pooled features, without a map."""

    def __init__(self, trunk: Trunk, joint_count: int) -> None:
        super().__init__()
        if isinstance(trunk, StackedHourglass):
            raise ValueError("direct regression has no maps, which stacked hourglasses pass on")
        self.coordinates = nn.Conv2d(trunk.channels, joint_count * 3, 1)

    def maps(self, stage: int, features: torch.Tensor) -> tuple[torch.Tensor, None]:
        pooled = features.mean((2, 3), keepdim=True)
        return self.coordinates(pooled).float().flatten(1).unflatten(1, (-1, 3)), None


class Decoder(NamedTuple):
    """How the joints are found in what the pose head gives."""

    head: Callable[[Trunk, int], _PoseHead | _RegressionHead]
    # a stage's maps, and the crop's side in cells, to joints (N, J, 3) in cells and scores (N, J)
    decode: Callable[[torch.Tensor, int], tuple[torch.Tensor, torch.Tensor]]


def _decode_classes(volume: torch.Tensor, _: int) -> tuple[torch.Tensor, torch.Tensor]:
    return hard_argmax(volume), soft_argmax(volume)[1]


def _decode_gaussians(volume: torch.Tensor, _: int) -> tuple[torch.Tensor, torch.Tensor]:
    return hard_argmax(volume), volume.flatten(2).amax(-1).float().clamp(0, 1)


def _decode_coordinates(unit: torch.Tensor, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    # 0 is the middle, so that a network that knows nothing says something sensible. It doesn't
    # know how sure it is.
    scale = constants([cells, cells, DEPTH_BINS], unit)
    return (unit + 0.5) * scale, torch.ones_like(unit[..., 0])


# The paper's, and what it is better than (Sun et al. 2018, section 2): the cell with the highest
# value, of maps trained by cross entropy or to be Gaussians; no map at all.
DECODERS = {
    "integral": Decoder(_PoseHead, lambda volume, _: soft_argmax(volume)),
    "cross_entropy": Decoder(_PoseHead, _decode_classes),
    "gaussian": Decoder(_PoseHead, _decode_gaussians),
    "regression": Decoder(_RegressionHead, _decode_coordinates),
}


# A RootNet's pelvis and γ, a PoseNet's joints and scores.
_Root = tuple[torch.Tensor, torch.Tensor]
_Pose = tuple[torch.Tensor, torch.Tensor]


class RootNet(nn.Module):
    """The pelvis in the crop and γ, the correction of the k-value (paper, section 5)."""

    def __init__(self, trunk: str = "resnet50") -> None:
        super().__init__()
        self.backbone = TRUNKS[trunk]()
        self.root = _RootHead(self.backbone)

    def stages(self, crops: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The pelvis (N, 2) in heatmap cells as each stage of the trunk has it, and γ (N,)."""
        return self.told(*run_stages(self.backbone, crops, self.root.maps))

    def told(
        self, features: torch.Tensor, heatmaps: list[torch.Tensor]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The same, of what the trunk gives and of each stage's heatmap."""
        return [soft_argmax(heatmap)[0][:, 0] for heatmap in heatmaps], self.root.gamma(features)

    def forward(self, crops: torch.Tensor) -> _Root:
        """(N, 3, 256, 256) to the pelvis (N, 2) in heatmap cells and γ (N,)."""
        roots, gamma = self.stages(crops)
        return roots[-1], gamma


class PoseNet(nn.Module):
    """Root-relative 3D joints, by integral regression if nothing else is said (section 6)."""

    def __init__(
        self, skeleton: Skeleton, trunk: str = "resnet50", decoder: str = "integral"
    ) -> None:
        super().__init__()
        self.skeleton, self.decoder = skeleton, DECODERS[decoder]
        self.backbone = TRUNKS[trunk]()
        self.head = self.decoder.head(self.backbone, len(skeleton))

    def stages(self, crops: torch.Tensor) -> list[torch.Tensor]:
        """Each stage's volumes (N, J, 64, H/4, W/4), or coordinates (N, J, 3) of a regression."""
        return run_stages(self.backbone, crops, self.head.maps)[1]

    def forward(self, crops: torch.Tensor) -> _Pose:
        """(N, 3, 256, 256) to x, y, z (N, J, 3) in heatmap cells and scores (N, J)."""
        return self.decoder.decode(self.stages(crops)[-1], crops.shape[-1] // HEATMAP_STRIDE)


class JointNet(nn.Module):
    """RootNet and PoseNet with one trunk: the paper's ablation "joint learning" (table 1)."""

    def __init__(
        self, skeleton: Skeleton, trunk: str = "resnet50", decoder: str = "integral"
    ) -> None:
        super().__init__()
        self.skeleton, self.decoder = skeleton, DECODERS[decoder]
        self.backbone = TRUNKS[trunk]()
        self.root = _RootHead(self.backbone)
        self.head = self.decoder.head(self.backbone, len(skeleton))

    def stages(
        self, crops: torch.Tensor
    ) -> tuple[list[torch.Tensor], torch.Tensor, list[torch.Tensor]]:
        """What RootNet's and PoseNet's ``stages`` give: pelvises, γ, volumes."""
        features, maps = run_stages(self.backbone, crops, self._maps)
        roots = [soft_argmax(root)[0][:, 0] for root, _ in maps]
        return roots, self.root.gamma(features), [pose for _, pose in maps]

    def _maps(
        self, stage: int, features: torch.Tensor
    ) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor | None]:
        root, root_feedback = self.root.maps(stage, features)
        pose, pose_feedback = self.head.maps(stage, features)
        if root_feedback is None or pose_feedback is None:
            return (root, pose), None
        return (root, pose), root_feedback + pose_feedback

    def forward(self, crops: torch.Tensor) -> tuple[_Root, _Pose]:
        """(N, 3, 256, 256) to what RootNet and what PoseNet says of it."""
        roots, gamma, volumes = self.stages(crops)
        cells = crops.shape[-1] // HEATMAP_STRIDE
        return (roots[-1], gamma), self.decoder.decode(volumes[-1], cells)


class _CellRootPose(nn.Module):
    """Poses from positions in cells, as the reference release means them."""

    skeleton: Skeleton

    def root_and_pose(self, crops: torch.Tensor, every: torch.Tensor) -> tuple[_Root, _Pose]:
        """What the networks say: RootNet of (N, 3, size, size) normalised crops, PoseNet of every
        one, which may be the crops and their mirror images."""
        raise NotImplementedError

    def forward(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        every = torch.cat([crops, crops.flip(3)]) if flip_test else crops
        (root, gamma), (joints, scores) = self.root_and_pose(crops, every)
        if flip_test:
            joints, mirrored = _halves(joints, crops)
            scores, mirrored_scores = _halves(scores, crops)
            mirrored = _swapped(mirrored, self.skeleton)
            # The reference mirrors about cell 31.5 although its cells start at px 0, not at
            # their centres; the published figures include this.
            last_cell = crops.shape[-1] // HEATMAP_STRIDE - 1
            mirrored_x = last_cell - mirrored[..., :1]
            joints = (joints + torch.cat([mirrored_x, mirrored[..., 1:]], -1)) / 2
            scores = (scores + _swapped(mirrored_scores, self.skeleton)) / 2
        depth = (joints[..., 2] / DEPTH_BINS * 2 - 1) * DEPTH_RANGE_MM
        return CropPoses(
            root * HEATMAP_STRIDE, gamma, joints[..., :2] * HEATMAP_STRIDE, depth, scores
        )


def _halves(both: torch.Tensor, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What was found in crops, and what in their mirror images."""
    # Neither chunk() nor len(), of which graphs take the number of crops for a constant.
    count = crops.shape[0]
    return both[:count], both[count:]


class DisjointRootPose(_CellRootPose):
    """The paper's pair: RootNet and PoseNet trained apart, each with a trunk of its own.

    :param root_net, pose_net: or what runs them.
    """

    def __init__(self, root_net: nn.Module, pose_net: nn.Module, skeleton: Skeleton) -> None:
        super().__init__()
        self.root_net, self.pose_net, self.skeleton = root_net, pose_net, skeleton

    def root_and_pose(self, crops: torch.Tensor, every: torch.Tensor) -> tuple[_Root, _Pose]:
        return self.root_net(crops), self.pose_net(every)


class JointRootPose(_CellRootPose):
    """Both from one trunk."""

    def __init__(self, network: JointNet) -> None:
        super().__init__()
        self.network, self.skeleton = network, network.skeleton

    def root_and_pose(self, crops: torch.Tensor, every: torch.Tensor) -> tuple[_Root, _Pose]:
        (root, gamma), pose = self.network(every)
        if every is not crops:
            root, gamma = _halves(root, crops)[0], _halves(gamma, crops)[0]
        return (root, gamma), pose


class _UnitRootPose(nn.Module):
    """Poses from positions in 0..1 of the crop and of the depth range, cells read at centres."""

    skeleton: Skeleton

    def unit_poses(self, crops: torch.Tensor) -> _UnitPoses:
        """What the networks say of (N, 3, size, size) normalised crops."""
        raise NotImplementedError

    def forward(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        poses = self.unit_poses(torch.cat([crops, crops.flip(3)]) if flip_test else crops)
        if flip_test:
            plain, mirrored = zip(*(_halves(both, crops) for both in poses), strict=True)
            turned = _UnitPoses(*mirrored).mirrored(self.skeleton)
            poses = _UnitPoses(*((a + b) / 2 for a, b in zip(plain, turned, strict=True)))
        size = crops.shape[-1]
        depth = (poses.joints[..., 2] * 2 - 1) * DEPTH_RANGE_MM
        return CropPoses(
            poses.root * size - 0.5,
            poses.gamma,
            poses.joints[..., :2] * size - 0.5,
            depth,
            poses.scores,
        )


class _UnitPoses(NamedTuple):
    root: torch.Tensor  # (N, 2)
    gamma: torch.Tensor  # (N,)
    joints: torch.Tensor  # (N, J, 3)
    scores: torch.Tensor  # (N, J)

    def mirrored(self, skeleton: Skeleton) -> _UnitPoses:
        joints, scores = (_swapped(both, skeleton) for both in (self.joints, self.scores))
        return _UnitPoses(_mirror_x(self.root), self.gamma, _mirror_x(joints), scores)


def _swapped(joints: torch.Tensor, skeleton: Skeleton) -> torch.Tensor:
    """(N, J, ...) with left and right exchanged."""
    # An index would be copied from the host, which CUDA graphs can't.
    return torch.stack([joints[:, index] for index in skeleton.mirrored], 1)


def _mirror_x(unit: torch.Tensor) -> torch.Tensor:
    return torch.cat([1 - unit[..., :1], unit[..., 1:]], -1)


def _unit_soft_argmax(heatmaps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """:func:`soft_argmax` with positions as fractions of the map, cells read at their centres."""
    cells, scores = soft_argmax(heatmaps)
    sizes = heatmaps.shape[2:][::-1]  # width, height and, of a volume, depth
    return (cells + 0.5) / constants([int(n) for n in sizes], cells), scores


class SharedRootPose(_UnitRootPose):
    """RootNet and PoseNet on one small trunk, with a 16-cell-deep volume at stride 16.

    For CPUs.
    """

    DEPTH_BINS = 16

    def __init__(self, skeleton: Skeleton, channels: int = 192) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.trunk = EfficientNetLite0()
        _, stride16, stride32 = EfficientNetLite0.pyramid_channels
        self.lateral = _conv_bn(stride16, channels, 1)
        self.top = _conv_bn(stride32, channels, 1)
        self.mix = _conv_bn(channels, channels, 3)
        self.volume = nn.Conv2d(channels, len(skeleton) * self.DEPTH_BINS, 1)
        self.gamma_features = _conv_bn(stride32, 2 * channels, 1)
        self.gamma = nn.Linear(2 * channels, 1)

    def unit_poses(self, crops: torch.Tensor) -> _UnitPoses:
        _, stride16, stride32 = self.trunk.pyramid(crops)
        top = F.interpolate(self.top(stride32), size=stride16.shape[-2:], mode="nearest")
        features = F.relu(self.mix(F.relu(self.lateral(stride16) + top)))
        volume = self.volume(features).unflatten(1, (len(self.skeleton), self.DEPTH_BINS))
        joints, scores = _unit_soft_argmax(volume)
        pooled = F.relu(self.gamma_features(stride32)).mean((2, 3))
        gamma = self.gamma(pooled).float()[:, 0]
        return _UnitPoses(joints[:, self.skeleton.root_index, :2], gamma, joints, scores)


def _conv_bn(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
    )


# ---------------------------------------------------------------- two small networks for CPUs


class _LitePyramid(nn.Module):
    """A trunk's maps of stride 8, 16 and 32 as one of stride 8 (FPN, Lin et al. 2017).

    Convolutions have no batch normalisation here: training folds it into them.
    """

    def __init__(
        self,
        channels: int,
        trunk_channels: tuple[int, int, int] = EfficientNetLite0.pyramid_channels,
    ) -> None:
        super().__init__()
        stride8, stride16, stride32 = trunk_channels
        self.lateral32 = nn.Conv2d(stride32, channels, 1)
        self.lateral16 = nn.Conv2d(stride16, channels, 1)
        self.lateral8 = nn.Conv2d(stride8, channels, 1)
        self.mix16 = nn.Conv2d(channels, channels, 3, padding=1)
        self.mix8 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(
        self,
        maps: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
        context: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """
        :param maps: (N, ..., H/8, W/8), (N, ..., H/16, W/16), (N, ..., H/32, W/32)
        :param context: (N, C), added to every cell.
        :return: (N, C, H/8, W/8)
        """
        stride8, stride16, stride32 = maps
        x = self.lateral16(stride16) + repeated(self.lateral32(stride32))
        if context is not None:
            x = x + context[..., None, None]
        x = F.relu(self.mix16(F.relu(x)))
        return F.relu(self.mix8(F.relu(self.lateral8(stride8) + repeated(x))))


class LiteRootNet(nn.Module):
    """RootNet for CPUs: the pelvis from a heatmap of stride 8, γ from pooled features."""

    def __init__(self, channels: int = 48, gamma_channels: int = 384) -> None:
        super().__init__()
        self.trunk = EfficientNetLite0()
        self.pyramid = _LitePyramid(channels)
        self.heatmap = nn.Conv2d(channels, 1, 1)
        self.gamma_features = nn.Conv2d(EfficientNetLite0.channels, gamma_channels, 1)
        self.log_gamma = nn.Linear(gamma_channels, 1)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param crops: (N, 3, size, size) RGB, (grey value - 127) / 128, size a multiple of 32.
        :return: the pelvis (N, 2) in 0..1 of the crop, and γ (N,).
        """
        maps = self.trunk.pyramid(crops)
        root, _ = _unit_soft_argmax(self.heatmap(self.pyramid(maps)))
        pooled = F.relu(self.gamma_features(maps[-1])).mean((2, 3))
        return root[:, 0], self.log_gamma(pooled).float()[:, 0].exp()


class LitePoseNet(nn.Module):
    """PoseNet for CPUs: integral regression from a volume of stride 8, 16 cells deep."""

    DEPTH_BINS = 16

    def __init__(self, skeleton: Skeleton, channels: int = 128) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.trunk = EfficientNetLite0()
        self.pyramid = _LitePyramid(channels)
        self.volume = nn.Conv2d(channels, len(skeleton) * self.DEPTH_BINS, 1)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param crops: as for :class:`LiteRootNet`.
        :return: joints (N, J, 3) in 0..1 of the crop and of the depth range; sharpness (N, J).
        """
        volume = self.volume(self.pyramid(self.trunk.pyramid(crops)))
        return _unit_soft_argmax(volume.unflatten(1, (len(self.skeleton), self.DEPTH_BINS)))


class LiteJointNet(nn.Module):
    """Both on one trunk ("joint learning", table 1). The pelvis is PoseNet's.

    γ depends on how large the body appears to be, given how it is bent: so it is told from the
    joints, too.
    """

    DEPTH_BINS = LitePoseNet.DEPTH_BINS

    def __init__(self, skeleton: Skeleton, channels: int = 128, gamma_channels: int = 384) -> None:
        super().__init__()
        self.skeleton = skeleton
        self.trunk = BlazePose()
        self.pyramid = _LitePyramid(channels, BlazePose.pyramid_channels)
        self.context = nn.Linear(BlazePose.whole_channels, channels)
        self.volume = nn.Conv2d(channels, len(skeleton) * self.DEPTH_BINS, 1)
        known = BlazePose.whole_channels + 3 * len(skeleton)
        self.gamma_hidden = nn.Linear(known, gamma_channels)
        self.log_gamma = nn.Linear(gamma_channels, 1)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        :param crops: (N, 3, size, size) RGB in 0..1; ``size`` as :class:`BlazePose` takes it.
        :return: γ (N,); joints (N, J, 3) in 0..1 of the crop and of the depth range; sharpness
            (N, J).
        """
        whole, joints, scores = self._look(crops)
        return self.gamma(self._evidence(whole, joints)), joints, scores

    def evidence(self, crops: torch.Tensor) -> torch.Tensor:
        """(N, F) what γ is told from."""
        whole, joints, _ = self._look(crops)
        return self._evidence(whole, joints)

    def gamma(self, evidence: torch.Tensor) -> torch.Tensor:
        """(N,) from (N, F)"""
        hidden = F.relu(self.gamma_hidden(evidence))
        return self.log_gamma(hidden).float()[:, 0].exp()

    def _look(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        features = self.trunk(crops)
        # Every cell is told what the whole person looks like: a depth isn't seen at its place.
        maps = self.pyramid(features[:3], self.context(features.whole))
        volume = self.volume(maps).unflatten(1, (len(self.skeleton), self.DEPTH_BINS))
        return features.whole, *_unit_soft_argmax(volume)

    def _evidence(self, whole: torch.Tensor, joints: torch.Tensor) -> torch.Tensor:
        # The joints learn from what is known of them, not from γ.
        body = joints.detach()
        body = 4 * (body - body[:, self.skeleton.root_index, None]).flatten(1)
        return torch.cat([whole.float(), body], 1)


class LiteJointRootPose(_UnitRootPose):
    """One small network for both, with the interface of two."""

    def __init__(self, net: LiteJointNet) -> None:
        super().__init__()
        self.net, self.skeleton = net, net.skeleton

    def unit_poses(self, crops: torch.Tensor) -> _UnitPoses:
        gamma, joints, scores = self.net(crops)
        return _UnitPoses(joints[:, self.skeleton.root_index, :2], gamma, joints, scores)


class LiteRootPose(_UnitRootPose):
    """Both small networks, trained apart. RootNet sees the crop shrunk to a size of its own."""

    def __init__(self, root_net: LiteRootNet, pose_net: LitePoseNet, root_size: int = 96) -> None:
        super().__init__()
        self.root_net, self.pose_net, self.root_size = root_net, pose_net, root_size
        self.skeleton = pose_net.skeleton

    def unit_poses(self, crops: torch.Tensor) -> _UnitPoses:
        joints, scores = self.pose_net(crops)
        root, gamma = self.root_net(shrink(crops, self.root_size))
        return _UnitPoses(root, gamma, joints, scores)


class GreyRootPose(nn.Module):
    """Any of the networks above as a RootPoseEstimator: behind its normalisation."""

    def __init__(self, network: _CellRootPose | _UnitRootPose, expects: Normalisation) -> None:
        super().__init__()
        self.network, self.expects, self.skeleton = network, expects, network.skeleton

    def forward(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        """As RootPoseEstimator."""
        poses: CropPoses = self.network(self.expects.normalise(crops), flip_test)
        return poses


class CompiledRootPose(nn.Module):
    """A RootPoseEstimator that something else than torch runs, normalisation included.

    :param open_: the network without flip test (False) and with it (True), as :func:`compiled`
        gives it.
    """

    def __init__(self, skeleton: Skeleton, open_: Callable[[bool], nn.Module]) -> None:
        super().__init__()
        self.skeleton, self._open = skeleton, open_
        self._networks = {False: open_(False)}

    def forward(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        """As RootPoseEstimator; the first flip test waits for its network."""
        if flip_test not in self._networks:
            self._networks[flip_test] = self._open(flip_test)
        # Crops lie in memory as images do (channels_last): nothing is copied.
        pixels = crops.to(torch.uint8).permute(0, 2, 3, 1)
        results = self._networks[flip_test](pixels)
        return CropPoses(*(result.clone() for result in results))  # the next run overwrites them


def compiled(
    network: GreyRootPose, size: int, run: Runner, flip_test: bool, precise: Runner | None = None
) -> nn.Module:
    """A network for :class:`CompiledRootPose`.

    :param size: of the crops, px.
    :param precise: runs the early layers of a RootNet of its own where there is a flip test: who
        waits for one wants accuracy, and no network loses more of it in low precision than the one
        that tells γ.
    """
    pair = network.network
    if precise and flip_test and isinstance(pair, DisjointRootPose):
        apart = _compiled_apart(pair, size, precise, run)
        return _Bound(GreyRootPose(apart, network.expects), flip_test)
    # Two people, as tracers take a dimension of one for a constant.
    pixels = torch.zeros(2, size, size, 3, dtype=torch.uint8, device=_device(network))
    crops = Argument("pixels", pixels, {0: Range(1, 4, 64)})
    return run(network_name(flip_test), _Bound(network, flip_test), [crops], CropPoses._fields)


def _compiled_apart(
    pair: DisjointRootPose, size: int, precise: Runner, run: Runner
) -> DisjointRootPose:
    """The same pair, run by two; PoseNet sees mirror images, too."""
    example = torch.zeros(2, 3, size, size, device=_device(pair))
    crops, every = (Argument("crops", example, {0: Range(n, 4 * n, 64 * n)}) for n in (1, 2))
    root_net = _compiled_root_net(pair.root_net, crops, precise, run)
    pose_net = run("pose", pair.pose_net, [every], ("joints", "scores"))
    return DisjointRootPose(root_net, pose_net, pair.skeleton)


def _compiled_root_net(root_net: Any, crops: Argument, precise: Runner, run: Runner) -> nn.Module:
    names = "root", "gamma"
    if not hasattr(root_net.backbone, "early"):
        return precise("root", root_net, [crops], names)
    early = _EarlyRootNet(root_net)
    with torch.no_grad():
        features = Argument("features", early(crops.example), crops.variable)
    return _InTurn(
        precise("root_early", early, [crops], [features.name]),
        run("root_later", _LaterRootNet(root_net), [features], names),
    )


class _EarlyRootNet(nn.Module):
    """What a RootNet with a ResNet does first."""

    def __init__(self, root_net: Any) -> None:
        super().__init__()
        self.trunk = root_net.backbone

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.trunk.early(crops)
        return features


class _LaterRootNet(nn.Module):
    """And what it does then."""

    def __init__(self, root_net: Any) -> None:
        super().__init__()
        self.root_net = root_net

    def forward(self, features: torch.Tensor) -> _Root:
        features = self.root_net.backbone.later(features)
        heatmap, _ = self.root_net.root.maps(0, features)
        (root,), gamma = self.root_net.told(features, [heatmap])
        return root, gamma


class _InTurn(nn.Module):
    """A network of two, each of which gives a tuple."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results: tuple[torch.Tensor, ...] = self.second(*self.first(x))
        return results


def network_name(flip_test: bool) -> str:
    """What a :class:`Runner` knows an estimator's network by."""
    return "root_pose_flip" if flip_test else "root_pose"


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device


class _Bound(nn.Module):
    """Grey values as images have them, (N, size, size, 3) uint8, to poses."""

    def __init__(self, network: nn.Module, flip_test: bool) -> None:
        super().__init__()
        self.network, self.flip_test = network, flip_test

    def forward(self, pixels: torch.Tensor) -> CropPoses:
        # To floats first: TensorRT does nothing else with uint8.
        poses: CropPoses = self.network(pixels.float().permute(0, 3, 1, 2), self.flip_test)
        return poses


def shrink(crops: torch.Tensor, size: int) -> torch.Tensor:
    """Crops (N, 3, S, S) shrunk to ``size`` px; no pixel of theirs is skipped."""
    if crops.shape[-1] == size:
        return crops
    return F.interpolate(crops, (size, size), mode="bilinear", antialias=True)
