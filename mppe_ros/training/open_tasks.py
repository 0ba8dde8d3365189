"""The tasks of our own networks, which stand on EfficientNet-Lite0 and learn from generated
people.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn
from torchvision import ops

from ..checkpoints import CheckpointError
from ..detectors import CenterDetector, decode_centers
from ..networks import LiteJointNet, LitePoseNet, LiteRootNet, shrink
from ..skeletons import SKELETONS
from ..trunks import EfficientNetLite0
from ..weights import BLAZEPOSE_CROP, CropSpec
from . import losses
from .config import Config, DetectorConfig, PoseConfig, RootConfig, RootPoseConfig
from .data import Batch, CropSource, SceneSource, Source
from .preparation import (
    add_batch_norm,
    imagenet_file,
    load_imagenet,
    normalise,
    prepare_trunk,
    trunk_of,
    zero_last,
)
from .task import Task, Terms, pose_figures, root_figures

ConfigT = TypeVar("ConfigT", bound=Config)


class OpenTask(Task[ConfigT]):
    """A network whose ``trunk`` begins with ImageNet's weights."""

    outputs: tuple[str, ...]  # layers without batch normalisation

    def trainable(self) -> nn.Module:
        network = self.network()
        for name in self.outputs:
            layer = network.get_submodule(name)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            zero_last(layer)
        add_batch_norm(network, self.outputs)
        prepare_trunk(trunk_of(network), self.config.optimisation.frozen_blocks)
        return network.to(memory_format=torch.channels_last)

    def pretrain(self, network: nn.Module) -> None:
        trunk = trunk_of(network)
        assert isinstance(trunk, EfficientNetLite0)
        load_imagenet(trunk, imagenet_file())


class RootTask(OpenTask[RootConfig]):
    """RootNet: the pelvis in the crop, and γ (paper, section 5)."""

    outputs = ("heatmap", "log_gamma")

    def network(self) -> nn.Module:
        return LiteRootNet(self.config.channels, self.config.gamma_channels)

    def source(self, folder: Path) -> Source:
        config = self.config
        return CropSource(folder, config.crop_size, config.augmentation, config.skeleton)

    @property
    def _pelvis(self) -> int:
        return SKELETONS[self.config.skeleton].root_index

    def _predict(self, network: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        # Shrunk as LiteRootPose does it, from crops of the size that PoseNet gets.
        root, gamma = network(normalise(shrink(batch["image"], self.config.image_size)))
        return root, gamma

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        root, gamma = self._predict(network, batch)
        true, inside = batch["joints"][:, self._pelvis, :2], batch["inside"][:, self._pelvis]
        return {
            "root_xy": losses.masked_l1(root, true, inside),
            "gamma": self.config.gamma_weight
            * losses.relative_error(gamma, batch["gamma"]).mean(),
        }

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        return root_figures(*self._predict(network, batch), batch, self._pelvis, self.config)


PoseConfigT = TypeVar("PoseConfigT", bound=PoseConfig)


class JointsTask(OpenTask[PoseConfigT]):
    """What has joints to find in crops."""

    def source(self, folder: Path) -> Source:
        config = self.config
        return CropSource(folder, config.crop_size, config.augmentation, config.skeleton)

    def _joint_losses(self, joints: torch.Tensor, batch: Batch) -> Terms:
        true, hidden = batch["joints"], self.config.hidden_weight
        weight = hidden + (1 - hidden) * batch["visible"]
        return {
            "xy": losses.masked_l1(joints[..., :2], true[..., :2], weight * batch["inside"]),
            "z": self.config.z_weight
            * losses.masked_l1(joints[..., 2:], true[..., 2:], weight * batch["deep"]),
        }


class PoseTask(JointsTask[PoseConfig]):
    """PoseNet: root-relative joints by integral regression (paper, section 6)."""

    outputs = ("volume",)

    def network(self) -> nn.Module:
        return LitePoseNet(SKELETONS[self.config.skeleton], self.config.channels)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        joints, _ = network(normalise(batch["image"]))
        return self._joint_losses(joints, batch)

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        joints, _ = network(normalise(batch["image"]))
        return pose_figures(joints, batch, self.config)


class RootPoseTask(JointsTask[RootPoseConfig]):
    """RootNet and PoseNet on one trunk (the paper's ablation "joint learning", table 1)."""

    outputs = ("volume", "log_gamma")

    @property
    def crop(self) -> CropSpec:
        """What the network sees, which the exported file says."""
        return replace(BLAZEPOSE_CROP, size=self.config.crop_size)

    def metadata(self) -> dict[str, str]:
        return self.crop.metadata()

    def pretrain(self, network: nn.Module) -> None:
        raise CheckpointError(
            "this network begins with BlazePose's parameters: 'mppe train blazepose MODEL --out "
            "FILE' reads them, --start FILE takes them"
        )

    def network(self) -> nn.Module:
        config = self.config
        return LiteJointNet(SKELETONS[config.skeleton], config.channels, config.gamma_channels)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        gamma, joints, _ = network(self.crop.normalise(batch["image"]))
        gamma_error = losses.relative_error(gamma, batch["gamma"]).mean()
        return {
            **self._joint_losses(joints, batch),
            "gamma": self.config.gamma_weight * gamma_error,
        }

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        gamma, joints, _ = network(self.crop.normalise(batch["image"]))
        pelvis = SKELETONS[self.config.skeleton].root_index
        return {
            **pose_figures(joints, batch, self.config),
            **root_figures(joints[:, pelvis, :2], gamma, batch, pelvis, self.config),
        }


class DetectorTask(OpenTask[DetectorConfig]):
    """DetectNet: centres and boxes of people in scenes."""

    outputs = ("head",)
    SCORE, IOU = 0.35, 0.5  # of the figures

    def network(self) -> nn.Module:
        return CenterDetector(self.config.channels)

    def trainable(self) -> nn.Module:
        network = super().trainable()
        # At the start one cell in thirty is a person, of 16 e^0.8 = 36 network px to each side.
        head = network.get_submodule("head")
        assert isinstance(head, nn.Conv2d) and head.bias is not None
        with torch.no_grad():
            head.bias.copy_(torch.tensor([-3.5, 0.8, 0.8, 0.8, 0.8]))
        return network

    def source(self, folder: Path) -> Source:
        config = self.config
        return SceneSource(
            folder, config.sizes, config.part, config.min_box_px, config.augmentation
        )

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        heatmap, distances = network(normalise(batch["image"]))
        targets = losses.centre_targets(batch["boxes"], batch["kind"], *heatmap.shape[1:])
        return {
            "centre": losses.centre_focal_loss(heatmap, targets),
            "box": self.config.box_weight * losses.box_loss(distances, targets),
        }

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        """Recall and precision at a score of 0.35; ``mppe eval`` measures whole curves."""
        found, scores = self.found(network, batch)
        recalled, right = [], []
        for boxes, score, true, kind in zip(
            found, scores, batch["boxes"], batch["kind"], strict=True
        ):
            likely = score > self.SCORE
            boxes = boxes[likely][ops.nms(boxes[likely], score[likely], 0.55)]
            matched, correct = _match(boxes, true[kind == 1], true[kind == 2], self.IOU)
            recalled.append(matched)
            right.append(correct)
        return {"recall": torch.cat(recalled).float(), "precision": torch.cat(right).float()}

    def found(
        self, network: nn.Module, batch: Batch
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Each picture's boxes (K, 4) and scores (K,), best first."""
        heatmaps, distances = network(normalise(batch["image"]))
        maps = zip(heatmaps.cpu().numpy(), distances.cpu().numpy(), strict=True)
        found = [decode_centers(heatmap, sides, least=0.0) for heatmap, sides in maps]
        device = batch["image"].device
        boxes, scores = zip(*found, strict=True)
        return (
            [torch.from_numpy(one).to(device) for one in boxes],
            [torch.from_numpy(one).to(device) for one in scores],
        )


def _match(
    found: torch.Tensor, true: torch.Tensor, ignored: torch.Tensor, threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Greedily, best detection first: which people were found, which detections are right.

    Detections of nobody that lie half in an ignored box are left out.
    """
    matched = torch.zeros(len(true), dtype=torch.bool, device=true.device)
    right = []
    overlaps = ops.box_iou(found, true)
    for box, overlap in zip(found, overlaps, strict=True):
        free = torch.where(matched, torch.zeros_like(overlap), overlap)
        best = int(free.argmax()) if len(free) else -1
        if best >= 0 and free[best] >= threshold:
            matched[best] = True
            right.append(True)
        elif not _covered(box, ignored):
            right.append(False)
    return matched, torch.tensor(right, dtype=torch.bool, device=true.device)


def _covered(box: torch.Tensor, by: torch.Tensor) -> bool:
    low, high = torch.maximum(box[:2], by[:, :2]), torch.minimum(box[2:], by[:, 2:])
    inside = (high - low).clamp(min=0).prod(-1)
    return bool((inside > 0.5 * (box[2:] - box[:2]).prod()).any())
