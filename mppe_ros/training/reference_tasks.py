"""The paper's networks, and what it compares them with: RootNet, PoseNet, both on one trunk.

Losses are those of the reference release: L1 in heatmap cells and mm, masked by what is known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..detectors import DETECTORS, CenterDetector, load_weights
from ..networks import (
    DECODERS,
    DEPTH_BINS,
    HEATMAP_STRIDE,
    JointNet,
    PoseNet,
    RootNet,
    soft_argmax,
)
from ..skeletons import SKELETONS
from ..weights import REFERENCE_CROP, UNIT_CROP, CropSpec
from . import losses, people
from .config import DetectNetConfig, JointConfig, PoseNetConfig, ReferenceConfig, RootNetConfig
from .data import Batch, CocoSource, Source
from .losses import JointTargets
from .open_tasks import DetectorTask
from .preparation import load_imagenet_trunk
from .task import Task, Terms, pose_figures, root_figures

ReferenceT = TypeVar("ReferenceT", bound=ReferenceConfig)

_HEAD_DEVIATION = 0.001  # of the heads' first weights, as the reference release has it


class CropTask(Task[ReferenceT]):
    """What the paper's networks on crops have in common."""

    roots = False  # whether it learns absolute depth

    @property
    def crop(self) -> CropSpec:
        """What the network sees."""
        spec = UNIT_CROP if self.config.input_scale == "unit" else REFERENCE_CROP
        return replace(spec, size=self.config.crop_size)

    def source(self, folder: Path) -> Source:
        return people.training_source(self.config, folder, roots=self.roots)

    def validation_source(self, folder: Path) -> Source | None:
        return people.validation_source(self.config, folder)

    def trainable(self) -> nn.Module:
        network = self.network()
        for name, layer in network.named_modules():
            head = name.startswith(("root.", "head."))
            if head and isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(layer.weight, std=_HEAD_DEVIATION)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        return network.to(memory_format=torch.channels_last)

    def pretrain(self, network: nn.Module) -> None:
        if self.config.pretrained:
            trunk: Any = network.get_submodule("backbone")
            load_imagenet_trunk(trunk, self.config.trunk)

    def metadata(self) -> dict[str, str]:
        return self.crop.metadata()

    def crops(self, batch: Batch) -> torch.Tensor:
        """A batch's images as the network sees them."""
        return self.crop.normalise(batch["image"]).contiguous(memory_format=torch.channels_last)

    @property
    def pelvis(self) -> int:
        return SKELETONS[self.config.skeleton].root_index

    # --- cells of the heatmap, whose cell 0 is at the crop's px 0 (as in mppe_ros.networks)

    def targets(self, batch: Batch) -> JointTargets:
        """The joints in cells; those outside the volume don't count."""
        joints = batch["joints"]
        xy = (joints[..., :2] * self.config.crop_size - 0.5) / HEATMAP_STRIDE
        cells = torch.cat([xy, joints[..., 2:] * DEPTH_BINS], -1)
        return JointTargets(cells, batch["inside"] * batch["deep"], batch["has_depth"][:, None])

    def to_unit(self, cells: torch.Tensor) -> torch.Tensor:
        """(..., 2 or 3) in cells to 0..1 of the crop and of the depth range."""
        xy = (cells[..., :2] * HEATMAP_STRIDE + 0.5) / self.config.crop_size
        return torch.cat([xy, cells[..., 2:] / DEPTH_BINS], -1)

    def root_losses(
        self, stages: Sequence[torch.Tensor], gamma: torch.Tensor, batch: Batch, z_weight: float
    ) -> Terms:
        """L1 of the pelvis in cells and of its depth in mm, both a third.

        :param stages: (N, 2) of each stage of the trunk.
        """
        true = self.targets(batch).cells[:, self.pelvis, :2]
        weight = (batch["inside"] * batch["visible"])[:, self.pelvis] / 3
        error_mm = batch["k_mm"] * (gamma - batch["gamma"]).abs() * batch["has_depth"]
        errors = [(found - true).abs().sum(-1) for found in stages]
        return {
            "root_xy": (torch.stack(errors).sum(0) * weight).mean(),
            "root_z": z_weight * (error_mm * weight).mean(),
        }


class RootNetTask(CropTask[RootNetConfig]):
    """The paper's RootNet (section 5)."""

    roots = True

    def network(self) -> nn.Module:
        return RootNet(self.config.trunk)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        assert isinstance(network, RootNet)
        stages, gamma = network.stages(self.crops(batch))
        return self.root_losses(stages, gamma, batch, self.config.z_weight)

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        root, gamma = network(self.crops(batch))
        return root_figures(self.to_unit(root), gamma, batch, self.pelvis, self.config)


PoseT = TypeVar("PoseT", bound=PoseNetConfig)


class _PoseTask(CropTask[PoseT]):
    """What PoseNet and joint learning have in common."""

    def metadata(self) -> dict[str, str]:
        return super().metadata() | {"decoder": self.config.decoder}

    def pose_losses(self, stages: Sequence[torch.Tensor], batch: Batch) -> Terms:
        """Of each stage's volumes (or coordinates), summed: intermediate supervision."""
        targets = self.targets(batch)
        each = [self._stage_losses(stage, targets) for stage in stages]
        return {name: torch.stack([terms[name] for terms in each]).sum(0) for name in each[0]}

    def _stage_losses(self, stage: torch.Tensor, targets: JointTargets) -> Terms:
        if self.config.decoder == "cross_entropy":
            return {"heatmap": losses.cell_cross_entropy(stage, targets)}
        if self.config.decoder == "gaussian":
            return {"heatmap": losses.gaussian_error(stage, targets, self.config.sigma_cells)}
        if self.config.decoder == "integral":
            return losses.coordinate_l1(soft_argmax(stage)[0], targets)
        cells = self.config.crop_size // HEATMAP_STRIDE
        return losses.coordinate_l1(DECODERS["regression"].decode(stage, cells)[0], targets)


class PoseNetTask(_PoseTask[PoseNetConfig]):
    """The paper's PoseNet (section 6), with a decoder of one's choice."""

    def network(self) -> nn.Module:
        config = self.config
        return PoseNet(SKELETONS[config.skeleton], config.trunk, config.decoder)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        assert isinstance(network, PoseNet)
        return self.pose_losses(network.stages(self.crops(batch)), batch)

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        joints, _ = network(self.crops(batch))
        return pose_figures(self.to_unit(joints), batch, self.config)


class JointTask(_PoseTask[JointConfig]):
    """Both on one trunk; the loss is the sum."""

    roots = True

    def network(self) -> nn.Module:
        config = self.config
        return JointNet(SKELETONS[config.skeleton], config.trunk, config.decoder)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        assert isinstance(network, JointNet)
        roots, gamma, volumes = network.stages(self.crops(batch))
        root_terms = self.root_losses(roots, gamma, batch, self.config.z_weight)
        return root_terms | self.pose_losses(volumes, batch)

    def figures(self, network: nn.Module, batch: Batch) -> Terms:
        (root, gamma), (joints, _) = network(self.crops(batch))
        of_root = root_figures(self.to_unit(root), gamma, batch, self.pelvis, self.config)
        return of_root | pose_figures(self.to_unit(joints), batch, self.config)


class DetectNetTask(DetectorTask):
    """A detector of the core's table on pictures in COCO's layout."""

    config: DetectNetConfig

    def network(self) -> nn.Module:
        spec, size = DETECTORS[self.config.detector], self.config.min_size
        return spec.network(min_size=size) if size else spec.network()

    def trainable(self) -> nn.Module:
        return super().trainable() if self._ours else self.network()

    def pretrain(self, network: nn.Module) -> None:
        if self._ours:
            super().pretrain(network)
        elif self.config.pretrained:
            load_weights(network, DETECTORS[self.config.detector])

    @property
    def _ours(self) -> bool:
        return DETECTORS[self.config.detector].network is CenterDetector

    def source(self, folder: Path) -> Source:
        return self._source(folder, self.config.annotations, self.config.images)

    def validation_source(self, folder: Path) -> Source | None:
        annotations, images = self.config.validation_annotations, self.config.validation_images
        return self._source(folder, annotations, images) if annotations else None

    def _source(self, folder: Path, annotations: str, images: str) -> Source:
        config = self.config
        how = config.sizes, config.part, config.min_box_px, config.augmentation
        return CocoSource(folder / annotations, folder / images, *how)

    def losses(self, network: nn.Module, batch: Batch) -> Terms:
        if self._ours:
            return super().losses(network, batch)
        # Whom nobody could find is neither a target nor, as torchvision has it, left out.
        targets = [
            {"boxes": boxes[kind == 1], "labels": kind[kind == 1]}
            for boxes, kind in zip(batch["boxes"], batch["kind"], strict=True)
        ]
        terms: Terms = network(list(batch["image"] / 255), targets)
        return terms

    def found(
        self, network: nn.Module, batch: Batch
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        if self._ours:
            return super().found(network, batch)
        found = network(list(batch["image"] / 255))
        people = [one["labels"] == 1 for one in found]
        return (
            [one["boxes"][who] for one, who in zip(found, people, strict=True)],
            [one["scores"][who] for one, who in zip(found, people, strict=True)],
        )
