"""The reference way: what the 3DMPPE release does with an image, as it does it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from .. import camera, crops, weights
from ..devices import StageClock
from ..media import Rgb
from ..networks import DEPTH_BINS, DEPTH_RANGE_MM, HEATMAP_STRIDE
from ..structures import FloatArray, Intrinsics
from .networks import Files, whole_mask_rcnn


class ReferenceWay:
    """A whole Mask R-CNN, then one person at a time: warpAffine, RootNet, PoseNet twice (flip
    test), the softmax over each volume written out; all in float32.

    :param boxes_xywh_px: (N, 4) of the people, whatever the detector finds.
    """

    def __init__(
        self, files: Files, boxes_xywh_px: FloatArray, camera_: Intrinsics, device: torch.device
    ) -> None:
        root_net, pose_net = _paths(files)
        self._detector = whole_mask_rcnn(files, len(boxes_xywh_px)).to(device)
        self._root_net = weights.read_root_net(root_net).eval().to(device)
        self._pose_net = weights.read_pose_net(pose_net).eval().to(device)
        self._crop = weights.find(files.weight_set).crop
        self._camera, self._device = camera_, device
        self._boxes, _ = crops.process_boxes(boxes_xywh_px, camera_.width, camera_.height)
        self.joints_px: list[FloatArray] = []  # of the last call, in the image
        self.root_z_mm: list[float] = []

    @torch.inference_mode()
    def __call__(self, rgb: Rgb) -> Mapping[str, float]:
        """The people of an image; ms of the stages."""
        clock = StageClock(self._device)
        image = torch.from_numpy(rgb).to(self._device).permute(2, 0, 1).float() / 255
        self._detector([image])
        clock.lap("detect")
        self.joints_px, self.root_z_mm = [], []
        for box in self._boxes:
            self._person(rgb, box, clock)
        return clock.ms

    def _person(self, rgb: Rgb, box: FloatArray, clock: StageClock) -> None:
        size = self._crop.size
        x, y, side, _ = box.tolist()
        to_crop = np.array(
            [[size / side, 0, -x * size / side], [0, size / side, -y * size / side]]
        )
        cut = cv2.warpAffine(rgb, to_crop, (size, size), flags=cv2.INTER_LINEAR)
        pixels = torch.from_numpy(cut).to(self._device).permute(2, 0, 1)[None].float()
        seen = self._crop.normalise(pixels)
        clock.lap("crop")
        root, gamma = self._root_net(seen)
        clock.lap("root")
        joints = self._joints(seen)
        mirrored = self._joints(seen.flip(3))[self._pose_net.skeleton.mirrored]
        mirrored[:, 0] = size // HEATMAP_STRIDE - 1 - mirrored[:, 0]
        cells = ((joints + mirrored) / 2).double().cpu().numpy()
        clock.lap("pose")
        camera_ = self._camera
        k_mm = camera.k_value_mm(camera_.fx, camera_.fy, box[None])
        root_z = float(gamma[0].cpu()) * float(k_mm[0])
        in_image = cells[:, :2] * HEATMAP_STRIDE * side / size + (x, y)
        root_px = root[0].double().cpu().numpy() * HEATMAP_STRIDE * side / size + (x, y)
        depth_mm = (cells[:, 2] / DEPTH_BINS * 2 - 1) * DEPTH_RANGE_MM + root_z
        camera.back_project(in_image, depth_mm, camera_)
        camera.back_project(root_px, np.float64(root_z), camera_)
        self.joints_px.append(in_image)
        self.root_z_mm.append(root_z)
        clock.lap("place")

    def _joints(self, seen: torch.Tensor) -> torch.Tensor:
        """(J, 3) in cells, by the release's soft-argmax."""
        (volume,) = self._pose_net.stages(seen)[-1].contiguous()
        probability = F.softmax(volume.flatten(1), 1).reshape(volume.shape)
        cells = torch.arange(DEPTH_BINS, dtype=torch.float32, device=volume.device)
        marginals: Sequence[torch.Tensor] = (
            probability.sum((1, 2)),
            probability.sum((1, 3)),
            probability.sum((2, 3)),
        )
        return torch.stack([(marginal * cells).sum(1) for marginal in marginals], 1)


def _paths(files: Files) -> tuple[Path, Path]:
    chosen = weights.find(files.weight_set)
    paths = weights.locate(chosen)
    return paths["root"], paths["pose"]
