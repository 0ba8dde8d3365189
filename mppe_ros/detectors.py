"""DetectNet: images in, boxes of people out (paper, section 4).

To add a detector, write a class that is a :class:`Detector` (for a network: a
:class:`NetworkDetector`) and give it a row in :data:`DETECTORS`.
"""

from __future__ import annotations

import math
import pickle
import sys
from abc import ABC, abstractmethod
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from torchvision import ops
from torchvision.models import WeightsEnum
from torchvision.models import detection as zoo
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from .checkpoints import CheckpointError, read_state_dict
from .inference import Autocast, lower_precision, prepare
from .runtimes import Argument, FileRunner, Range, Runner
from .structures import Detections
from .trunks import EfficientNetLite0

# Low on purpose: the pipeline filters by its own threshold, which may change while it runs.
SCORE_THRESHOLD = 0.05
MAX_DETECTIONS = 100  # per image

_COCO_CLASSES = 91  # the background (0), person (1) and 89 more ids
_PERSON = 1


class Detector(Protocol):
    """Finds people in images."""

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        """Boxes of the people in each image, best first; nobody gives boxes of shape (0, 4).

        :param images: (H, W, 3) uint8 RGB on the detector's device; sizes may differ. None at
            all is fine.
        :return: one per image. Boxes lie inside the image, whose edges are 0, W and 0, H (as
            torchvision has it: a pixel is a cell, and the first one's centre is at 0.5).
        """
        ...


class FixedBoxes:
    """Boxes known beforehand, from ground truth or another detector, wherever a Detector fits.

    They come back as they are: same order, neither clipped nor filtered.

    :param boxes_xywh_px: for each image (N, 4), a tensor or nested sequences.
    :param scores: for each image (N,); all 1 if left out.
    :raises ValueError: boxes that are not (N, 4), or scores that do not fit them.
    """

    def __init__(
        self,
        boxes_xywh_px: Sequence[torch.Tensor | Sequence[Sequence[float]]],
        scores: Sequence[torch.Tensor | Sequence[float]] | None = None,
    ) -> None:
        boxes = [_float_tensor(rows).reshape(-1, 4) for rows in boxes_xywh_px]
        if scores is None:
            scores = [torch.ones(len(rows)) for rows in boxes]
        if list(map(len, scores)) != list(map(len, boxes)):
            raise ValueError("fixed boxes need one score per box of every image, or no scores")
        self._detections = [
            Detections(rows, _float_tensor(row_scores))
            for rows, row_scores in zip(boxes, scores, strict=True)
        ]

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        """
        :raises ValueError: another number of images than there are lists of boxes.
        """
        if len(images) != len(self._detections):
            raise ValueError(
                f"fixed boxes are for {len(self._detections)} images, got {len(images)}"
            )
        return [
            Detections(found.boxes_xywh_px.to(image.device), found.scores.to(image.device))
            for image, found in zip(images, self._detections, strict=True)
        ]


def _float_tensor(values: torch.Tensor | Sequence[Any]) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.float32)


class NetworkDetector(ABC):
    """A Detector around a network, which sees images of equal size as one batch.

    Only equal sizes: padding smaller images to a common size would change what is found in them.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        groups: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, image in enumerate(images):
            groups[tuple(image.shape)].append(index)
        found: dict[int, Detections] = {}
        for indices in groups.values():
            several = [images[index] for index in indices]
            batch = torch.stack(several) if len(several) > 1 else several[0][None]
            # The network has its own precision: autocast around all of it would round boxes.
            with torch.no_grad(), torch.autocast(batch.device.type, enabled=False):
                found.update(zip(indices, self.detect(batch), strict=True))
        return [found[index] for index in range(len(images))]

    @abstractmethod
    def detect(self, batch: torch.Tensor) -> list[Detections]:
        """``batch``: (B, H, W, 3) uint8 RGB."""


_LEAST_SIDE_PX = 1e-2  # of a box


def _detections(
    boxes_xyxy: torch.Tensor, scores: torch.Tensor, height: int, width: int
) -> Detections:
    """From corners in image px; clips, and drops what has no area inside the image."""
    boxes = ops.clip_boxes_to_image(boxes_xyxy.float(), (height, width))
    kept = ops.remove_small_boxes(boxes, min_size=_LEAST_SIDE_PX)
    return Detections(ops.box_convert(boxes[kept], "xyxy", "xywh"), scores[kept].float())


# ---------------------------------------------------------------- torchvision's detectors


_TRAINED_SIZE = 800  # px, the images' shorter side when Mask R-CNN was trained


class TorchvisionPersons(NetworkDetector):
    """A COCO detector of torchvision's, narrowed to people before non-maximum suppression.

    torchvision suppresses class by class, so that boxes and scores are those that the whole
    network gives for people.

    :param network: Faster R-CNN or SSDLite with all COCO classes; it is changed in place.
    :param precision: what torch computes convolutions in; anchors and boxes stay in float32.
    :param run: has all networks run by something else; anchors and boxes stay torch's.
    """

    def __init__(
        self,
        network: nn.Module,
        precision: torch.dtype = torch.float32,
        run: Runner | None = None,
    ) -> None:
        super().__init__(network)
        if isinstance(network, zoo.FasterRCNN):
            heads: Any = network.roi_heads
            heads.box_predictor = _PersonPredictor(heads.box_predictor)
        else:
            heads = network.head
            heads.classification_head = nn.Sequential(
                heads.classification_head, _PersonAgainstRest()
            )
        if run is not None:
            _run_by(run, network)
        elif precision != torch.float32:
            _lower_precision(network, precision)

    def detect(self, batch: torch.Tensor) -> list[Detections]:
        height, width = batch.shape[1:3]
        found = self.network(list(batch.permute(0, 3, 1, 2).float() / 255))
        return [_detections(one["boxes"], one["scores"], height, width) for one in found]


class _PersonAgainstRest(nn.Module):
    """Logits of all classes (..., C) to those of "not a person" and "person" (..., 2).

    The rest's logit is the log of its summed exponentials, so that the softmax over two gives a
    person the score of the softmax over C.
    """

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        rest = torch.cat([logits[..., :_PERSON], logits[..., _PERSON + 1 :]], -1)
        return torch.stack([rest.logsumexp(-1), logits[..., _PERSON]], -1)


class _PersonPredictor(nn.Module):
    """Fast R-CNN's last layers with two classes left, the background (0) and person (1)."""

    def __init__(self, full: Any) -> None:
        super().__init__()
        self.cls_score = nn.Sequential(full.cls_score, _PersonAgainstRest())
        rows = 4 * (_PERSON + 1)  # torchvision wants the background's box too
        self.bbox_pred = nn.Linear(full.bbox_pred.in_features, rows)
        self.bbox_pred.weight = nn.Parameter(full.bbox_pred.weight[:rows].detach().clone())
        self.bbox_pred.bias = nn.Parameter(full.bbox_pred.bias[:rows].detach().clone())

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.cls_score(features), self.bbox_pred(features)


def _lower_precision(network: Any, precision: torch.dtype) -> None:
    """The costly parts only: anchors made in fp16 or bf16 are off by whole pixels."""
    network.backbone = Autocast(network.backbone, precision)
    if isinstance(network, zoo.FasterRCNN):
        network.rpn.head.conv = Autocast(network.rpn.head.conv, precision)
        network.roi_heads.box_head = Autocast(network.roi_heads.box_head, precision)


def _run_by(run: Runner, network: Any) -> None:
    """Has a detector's networks run by something, in place, for images of any size it may see."""
    is_two_stage = isinstance(network, zoo.FasterRCNN)
    device = next(network.parameters()).device
    transform = network.transform
    if is_two_stage:
        shorter, longest = transform.min_size[0], transform.max_size
        usual, most = _padded(shorter), _padded(longest)
        wide = min(most, _padded(4 * usual // 3))
        sides = {2: Range(32, usual, most, step=32), 3: Range(32, wide, most, step=32)}
        images = torch.zeros(2, 3, 320, 320, device=device)
    else:
        width, height = transform.fixed_size
        sides, images = {}, torch.zeros(2, 3, height, width, device=device)
    with torch.no_grad():
        maps: dict[str, torch.Tensor] = network.backbone(images)
    names = [f"map_{name}" for name in maps]
    argument = Argument("images", images, {0: _IMAGES, **sides})
    backbone = run("detector_backbone", _Values(network.backbone), [argument], names)
    network.backbone = _Named(backbone, list(maps))
    map_arguments = []
    for name, map_ in zip(names, maps.values(), strict=True):
        stride = images.shape[2] // map_.shape[2]
        ranges = {side: Range(*(-(-n // stride) for n in row[:3])) for side, row in sides.items()}
        map_arguments.append(Argument(name, map_, {0: _IMAGES, **ranges}))
    if not is_two_stage:
        both = ["bbox_regression", "cls_logits"]
        network.head = _Heads(
            run("detector_heads", _Flat(network.head), map_arguments, both), both
        )
        return
    each = [f"{kind}_{name}" for kind in ("objectness", "deltas") for name in maps]
    network.rpn.head = _Proposals(
        run("detector_proposals", _Flat(network.rpn.head), map_arguments, each)
    )
    heads = network.roi_heads
    regions = network.rpn.post_nms_top_n()
    shape = next(iter(maps.values())).shape[1], *heads.box_roi_pool.output_size
    features = torch.zeros(3, *shape, device=device)
    boxes = nn.Sequential(heads.box_head, heads.box_predictor)
    argument = Argument("regions", features, {0: Range(1, regions, _IMAGES.most * regions)})
    heads.box_head = _Boxes(run("detector_boxes", boxes, [argument], ["logits", "deltas"]))
    heads.box_predictor = nn.Identity()


_IMAGES = Range(1, 1, 4)  # at once


def _padded(side: int) -> int:
    """As torchvision pads images for a feature pyramid, px."""
    return -(-side // 32) * 32


class _Named(nn.Module):
    """A backbone that gives its maps by name, from one that gives a tuple."""

    def __init__(self, backbone: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.backbone, self.names = backbone, names

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return OrderedDict(zip(self.names, self.backbone(images), strict=True))


class _Proposals(nn.Module):
    """Logits and boxes of the region proposal network, a map each for each map of features."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, maps: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        results = list(self.network(*maps))
        return results[: len(maps)], results[len(maps) :]


class _Heads(nn.Module):
    """SSD's two results for each anchor, by name."""

    def __init__(self, network: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.network, self.names = network, names

    def forward(self, maps: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return dict(zip(self.names, self.network(*maps), strict=True))


class _Boxes(nn.Module):
    """Class logits and box deltas of regions."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not len(regions):
            none = regions.new_zeros((0, 4 * (_PERSON + 1)))
            return none[:, : _PERSON + 1], none
        logits, deltas = self.network(regions)
        return logits, deltas


class _Values(nn.Module):
    """A module that gives a dictionary, without the keys."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return tuple(self.module(x).values())


class _Flat(nn.Module):
    """A module that takes a list and gives lists or a dictionary, without all of those."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *maps: torch.Tensor) -> tuple[torch.Tensor, ...]:
        found = self.module(list(maps))
        if isinstance(found, dict):
            return tuple(found.values())
        return tuple(one for several in found for one in several)


def _mask_rcnn_boxes(
    trunk: str, batch_norm_eps: float, min_size: int = _TRAINED_SIZE
) -> nn.Module:
    """Mask R-CNN without its mask branch, which is Faster R-CNN to the letter.

    In smaller images than it was trained on it looks at fewer proposals: as many as Faster R-CNN
    did at first (Ren et al. 2015, section 3.3), in half of the detector's time.
    """
    proposals = 1000 if min_size >= _TRAINED_SIZE else 300
    norm = partial(ops.FrozenBatchNorm2d, eps=batch_norm_eps)
    backbone = resnet_fpn_backbone(backbone_name=trunk, weights=None, norm_layer=norm)
    return zoo.FasterRCNN(
        backbone,
        _COCO_CLASSES,
        min_size=min_size,
        rpn_post_nms_top_n_test=proposals,
        **_RCNN_OPTIONS,
    )


_RCNN_OPTIONS: dict[str, Any] = {
    "box_score_thresh": SCORE_THRESHOLD,
    "box_detections_per_img": MAX_DETECTIONS,
}
_SSD_OPTIONS: dict[str, Any] = {
    "score_thresh": SCORE_THRESHOLD,
    "detections_per_img": MAX_DETECTIONS,
}
_NO_DOWNLOAD: dict[str, Any] = {"weights": None, "weights_backbone": None}


# ---------------------------------------------------------------- our own small detector


class CenterDetector(nn.Module):
    """One class, one map: where people's box centres are, and how far the box sides are away.

    EfficientNet-Lite0 and a feature pyramid down to stride 8; heatmap of centres as in "Objects
    as Points" (Zhou et al. 2019), distances to the sides as in FCOS (Tian et al. 2019). The 96
    channels and the missing batch normalisation (folded into the convolutions) are those of
    ``resources/open-v0/detect.safetensors``, which was trained on generated people.
    """

    STRIDE = 8  # network px per cell

    def __init__(self, channels: int = 96) -> None:
        super().__init__()
        stride8, stride16, stride32 = EfficientNetLite0.pyramid_channels
        self.trunk = EfficientNetLite0()
        self.lateral32 = nn.Sequential(nn.Conv2d(stride32, channels, 1), nn.ReLU())
        self.lateral16 = nn.Conv2d(stride16, channels, 1)
        self.lateral8 = nn.Conv2d(stride8, channels, 1)
        self.mix32 = _conv_relu(channels)
        self.mix16 = _conv_relu(channels)
        self.mix8 = nn.Sequential(_conv_relu(channels), _conv_relu(channels))
        self.head = nn.Conv2d(channels, 5, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        :param x: (B, 3, H, W) RGB, (grey value - 127) / 128, H and W multiples of 32.
        :return: logits of the heatmap (B, H/8, W/8), and distances from the cell's centre to the
            box's left, top, right and bottom side (B, 4, H/8, W/8) in network px; float32.
        """
        stride8, stride16, stride32 = self.trunk.pyramid(x)
        features = self.mix32(self.lateral32(stride32))
        features = self.mix16(F.relu(self.lateral16(stride16) + _twice(features)))
        features = self.mix8(F.relu(self.lateral8(stride8) + _twice(features)))
        maps = self.head(features).float()
        return maps[:, 0], 2 * self.STRIDE * maps[:, 1:].clamp(-4, 4).exp()


def _conv_relu(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU())


def _twice(features: torch.Tensor) -> torch.Tensor:
    return F.interpolate(features, scale_factor=2, mode="nearest")


class _Grey(nn.Module):
    """A :class:`CenterDetector` behind its normalisation."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``pixels``: (B, H, W, 3) grey values."""
        maps: tuple[torch.Tensor, torch.Tensor]
        maps = self.network((pixels.float().permute(0, 3, 1, 2) - 127) / 128)
        return maps


class CenterPersons(NetworkDetector):
    """People from a :class:`CenterDetector`.

    :param precision: what torch computes the network in; its maps are float32 again.
    :param run: has it run by something else.
    """

    LONG_SIDE = 384  # network px
    MIN_HEIGHT = 24  # network px: people smaller than this were not trained
    IOU_THRESHOLD = 0.55

    def __init__(
        self,
        network: nn.Module,
        precision: torch.dtype = torch.float32,
        run: Runner | None = None,
    ) -> None:
        grey = _Grey(network)
        if run is not None:
            device = next(network.parameters()).device
            example = torch.zeros(2, 256, 256, 3, dtype=torch.uint8, device=device)
            side = Range(32, self.LONG_SIDE, self.LONG_SIDE, step=32)
            pixels = Argument("pixels", example, {0: _IMAGES, 1: side, 2: side})
            super().__init__(run("detector", grey, [pixels], ["heatmap", "distances_px"]))
            self.precision = torch.float32  # of what torch does
        else:
            network.to(memory_format=torch.channels_last)
            super().__init__(lower_precision(grey, precision))
            self.precision = precision

    def detect(self, batch: torch.Tensor) -> list[Detections]:
        height, width = batch.shape[1:3]
        scale = self.LONG_SIDE / max(height, width)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        lower = self.precision != torch.float32
        with torch.autocast(batch.device.type, self.precision, enabled=lower):
            heatmaps, distances = self.network(_network_input(batch, size))
        # So few numbers NumPy handles faster than torch.
        maps = zip(heatmaps.cpu().numpy(), distances.cpu().numpy(), strict=True)
        found = (self._select(*decode_centers(*one), size, height, width) for one in maps)
        return [
            Detections(*(torch.from_numpy(part).to(batch.device) for part in parts))
            for parts in found
        ]

    def _select(
        self,
        boxes: NDArray[np.float32],
        scores: NDArray[np.float32],
        size: tuple[int, int],
        height: int,
        width: int,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One image's (K, 4) corners in network px and (K,) scores, best first, suppressed and
        filtered.

        :return: (M, 4) left, top, width and height in image px, and (M,) scores.
        """
        xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
        # Torch's wakes its threads for the sorting alone, which takes 20 times as long.
        found: Any = cv2.dnn.NMSBoxes(xywh, scores, 0.0, self.IOU_THRESHOLD)  # type: ignore[arg-type]
        kept = np.array(found, np.intp)
        boxes, scores = boxes[kept], scores[kept]
        first, last = np.clip(boxes.reshape(-1, 2, 2), 0, size[::-1]).swapaxes(0, 1)
        sides = last - first
        to_image = np.array([width / size[1], height / size[0]])
        boxes = np.concatenate([first * to_image, sides * to_image], 1, dtype=np.float32)
        whole = (sides[:, 1] >= self.MIN_HEIGHT) & (boxes[:, 2] >= _LEAST_SIDE_PX)
        return boxes[whole], scores[whole]


def decode_centers(
    heatmap: NDArray[np.float32],
    distances_px: NDArray[np.float32],
    least: float = SCORE_THRESHOLD,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The peaks of :class:`CenterDetector`'s maps of one image, before non-maximum suppression.

    :param heatmap: (H, W) logits.
    :param distances_px: (4, H, W)
    :param least: score of a peak.
    :return: corners (K, 4) in network px and scores (K,), best first, K at most 100. A peak is no
        less than its eight neighbours.
    """
    peaks = heatmap >= cv2.dilate(heatmap, np.ones((3, 3), np.uint8))
    if least > 0:
        peaks &= heatmap > math.log(least / (1 - least))
    rows, columns = peaks.nonzero()
    logits = heatmap[rows, columns]
    best = np.argsort(-logits, kind="stable")[:MAX_DETECTIONS]
    rows, columns = rows[best], columns[best]
    centers = (np.stack([columns, rows], -1) + 0.5) * CenterDetector.STRIDE
    sides = distances_px[:, rows, columns].T
    corners = np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], 1, dtype=np.float32)
    return corners, np.asarray(1 / (1 + np.exp(-logits[best])), np.float32)


def _network_input(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, *size, 3) uint8, padded to multiples of 32 with middle grey."""
    resized, (bottom, right) = resize_area(batch, size), (-side % 32 for side in size)
    return F.pad(resized, (0, 0, 0, right, 0, bottom), value=127) if bottom or right else resized


def resize_area(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(B, H, W, 3) uint8 to (B, *size, 3) uint8, as OpenCV's INTER_AREA.

    It shrinks by the exact mean over each new pixel's area (torch's "area" mode rounds the area
    to whole pixels, and its antialiasing blurs more than the network was trained with) and
    enlarges bilinearly.
    """
    if size[0] < batch.shape[1] and size[1] < batch.shape[2] and batch.device.type == "cpu":
        # OpenCV itself, which takes a fraction of the time.
        return torch.stack([
            torch.from_numpy(cv2.resize(image.numpy(), size[::-1], interpolation=cv2.INTER_AREA))
            for image in batch
        ])  # fmt: skip
    if size[0] * size[1] < batch.shape[1] * batch.shape[2]:
        return area_means(batch, size)
    channels_first = batch.permute(0, 3, 1, 2).float()
    enlarged = F.interpolate(channels_first, size, mode="bilinear").round()
    return enlarged.permute(0, 2, 3, 1).to(torch.uint8)


def area_means(batch: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """What :func:`resize_area` does to large images, on any device."""
    return _shrink(_shrink(batch, size[0], 1), size[1], 2).round().to(torch.uint8)


def _shrink(x: torch.Tensor, length: int, dim: int) -> torch.Tensor:
    """Average ``dim`` over ``length`` equal intervals; a pixel counts by how much of it is in."""
    pixels = x.shape[dim]
    step = pixels / length
    start = torch.arange(length, dtype=torch.float64, device=x.device) * step
    along = [-1 if axis == dim else 1 for axis in range(x.ndim)]
    total = torch.zeros((), device=x.device)
    for tap in range(math.ceil(step) + 1):
        pixel = start.floor() + tap
        inside = torch.minimum(start + step, pixel + 1) - torch.maximum(start, pixel)
        weight = (inside.clamp(min=0) / step).float().view(along)
        index = pixel.long().clamp(max=pixels - 1)
        total = total + x.index_select(dim, index) * weight
    return total


# ---------------------------------------------------------------- the table


@dataclass(frozen=True)
class DetectorSpec:
    """A row of :data:`DETECTORS`.

    ``network`` builds the untrained network; a ``resizable`` one takes ``min_size``, the px to
    which an image's shorter side is scaled. ``detector`` makes a Detector of the loaded network.
    ``weights`` are used when no file is given: a file of the package, torchvision's download (a
    ``WeightsEnum``), or None where there is only what the user has.
    """

    name: str
    summary: str
    licence: str
    network: Callable[..., nn.Module]
    detector: Callable[[nn.Module, torch.dtype, Runner | None], NetworkDetector]
    weights: Any
    resizable: bool = False


_COCO_LICENCE = "BSD-3-Clause (torchvision); trained on COCO, whose photographs have own terms"

DETECTORS: dict[str, DetectorSpec] = {
    spec.name: spec
    for spec in (
        DetectorSpec(
            name="open_s",
            summary="small centre detector for CPUs, trained on generated people; in the package",
            licence="Apache-2.0; trained on free parts alone",
            network=CenterDetector,
            detector=CenterPersons,
            weights=Path(__file__).parent / "resources" / "open-s" / "detector.safetensors",
        ),
        DetectorSpec(
            name="open_v0",
            summary="small centre detector for CPUs, trained on generated people; in the package",
            licence="trained by us; motion clips of unestablished licence: not for products",
            network=CenterDetector,
            detector=CenterPersons,
            weights=Path(__file__).parent / "resources" / "open-v0" / "detect.safetensors",
        ),
        DetectorSpec(
            name="maskrcnn_r50_fpn",
            summary="the paper's Mask R-CNN, ResNet-50-FPN, boxes only",
            licence=_COCO_LICENCE,
            # This file's trunk had no epsilon in its frozen batch normalisation.
            network=partial(_mask_rcnn_boxes, "resnet50", 0.0),
            detector=TorchvisionPersons,
            weights=zoo.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
            resizable=True,
        ),
        DetectorSpec(
            name="maskrcnn_x101_32x8d_fpn",
            summary="the paper's best Mask R-CNN, ResNeXt-101-32x8d-FPN, boxes only",
            licence="that of your file",
            network=partial(_mask_rcnn_boxes, "resnext101_32x8d", 1e-5),
            detector=TorchvisionPersons,
            weights=None,
            resizable=True,
        ),
        DetectorSpec(
            name="fasterrcnn_mobilenet_v3_large_fpn",
            summary="Faster R-CNN, MobileNetV3-Large-FPN",
            licence=_COCO_LICENCE,
            network=partial(
                zoo.fasterrcnn_mobilenet_v3_large_fpn, **_NO_DOWNLOAD, **_RCNN_OPTIONS
            ),
            detector=TorchvisionPersons,
            weights=zoo.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
            resizable=True,
        ),
        DetectorSpec(
            name="fasterrcnn_mobilenet_v3_large_320_fpn",
            summary="the same for images scaled to 320 px: several times faster",
            licence=_COCO_LICENCE,
            network=partial(
                zoo.fasterrcnn_mobilenet_v3_large_320_fpn, **_NO_DOWNLOAD, **_RCNN_OPTIONS
            ),
            detector=TorchvisionPersons,
            weights=zoo.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
            resizable=True,
        ),
        DetectorSpec(
            name="ssdlite320_mobilenet_v3_large",
            summary="SSDLite, MobileNetV3-Large, images squeezed to 320x320 px: the fastest",
            licence=_COCO_LICENCE,
            network=partial(zoo.ssdlite320_mobilenet_v3_large, **_NO_DOWNLOAD, **_SSD_OPTIONS),
            detector=TorchvisionPersons,
            weights=zoo.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
        ),
    )
}


def build_detector(
    name: str,
    weights_file: Path | None = None,
    *,
    device: torch.device | str = "cpu",
    precision: torch.dtype = torch.float32,
    run: Runner | None = None,
    min_size: int | None = None,
) -> Detector:
    """A detector of :data:`DETECTORS`, loaded and ready.

    :param weights_file: safetensors or torch checkpoint; without it the row's own weights, which
        for torchvision's detectors are downloaded once into torch's cache.
    :param run: has the network run by something else than torch.
    :param min_size: scale the image's shorter side to this many px instead of the detector's
        default; smaller is faster and misses small people.
    :raises ValueError: unknown detector, or a ``min_size`` for one with a fixed input size.
    :raises CheckpointError: weights that are missing, broken, another network's, or that cannot
        be downloaded; the message says what to do.
    """
    spec = _row(name, min_size)
    network = _untrained(spec, min_size)
    load_weights(network, spec, weights_file)
    return spec.detector(prepare(network, device), precision, run)


def assemble_detector(name: str, run: FileRunner, min_size: int | None = None) -> Detector:
    """A detector of :data:`DETECTORS` whose networks are all in files.

    :raises ValueError: as :func:`build_detector`.
    """
    spec = _row(name, min_size)
    network = _untrained(spec, min_size)
    return spec.detector(prepare(network, run.device), torch.float32, run)


def _row(name: str, min_size: int | None) -> DetectorSpec:
    if name not in DETECTORS:
        raise ValueError(f"no detector is called {name!r}; there are: {', '.join(DETECTORS)}")
    spec = DETECTORS[name]
    if min_size is not None and not spec.resizable:
        raise ValueError(f"detector {name} has a fixed input size: leave min_size out")
    return spec


def _untrained(spec: DetectorSpec, min_size: int | None) -> nn.Module:
    return spec.network() if min_size is None else spec.network(min_size=min_size)


def load_weights(network: nn.Module, spec: DetectorSpec, weights_file: Path | None = None) -> None:
    """Give a row's network its parameters: those of a file, or the row's own.

    :raises CheckpointError: as :func:`build_detector`.
    """
    source = spec.weights if weights_file is None else Path(weights_file)
    parameters = _read_parameters(spec, source)
    complaint = f"{getattr(source, 'url', source)} does not fit detector {spec.name}"
    _load(network, parameters, complaint)


def _read_parameters(spec: DetectorSpec, source: Any) -> dict[str, torch.Tensor]:
    if source is None:
        raise CheckpointError(
            f"detector {spec.name} has no published weights in torchvision's format: give a file "
            "of your own, or use detector open_s, which needs no download"
        )
    parameters = read_state_dict(source) if isinstance(source, Path) else _download(spec)
    return {k: v for k, v in parameters.items() if not k.startswith("roi_heads.mask_")}


def fetch(name: str) -> None:
    """Download the weights of one of torchvision's detectors, if they are not here yet.

    :raises CheckpointError: as :func:`build_detector`.
    """
    if isinstance(DETECTORS[name].weights, WeightsEnum):
        _download(DETECTORS[name])


def _download(spec: DetectorSpec) -> dict[str, torch.Tensor]:
    try:
        # torch says aloud what it downloads and where to; standard output is for results.
        with redirect_stdout(sys.stderr):
            return spec.weights.get_state_dict(
                progress=True, check_hash=True, weights_only=True, map_location="cpu"
            )
    except (OSError, RuntimeError, EOFError, HTTPException, pickle.UnpicklingError) as error:
        raise CheckpointError(
            f"the weights of detector {spec.name} could not be downloaded ({error}): place "
            f"{spec.weights.url} by hand in {torch.hub.get_dir()}/checkpoints, or use detector "
            "open_s, which needs no download"
        ) from error


def _load(network: nn.Module, parameters: dict[str, torch.Tensor], complaint: str) -> None:
    """As checkpoints.load_into, but torchvision may rename what its older files call otherwise."""
    try:
        missing, unexpected = network.load_state_dict(parameters, strict=False)
    except RuntimeError as error:  # shapes: one per line, after a headline
        raise CheckpointError(_first(complaint, str(error).split("\n")[1:])) from error
    problems = [f"{key} is missing" for key in missing]
    problems += [f"{key} is not in the network" for key in unexpected]
    problems = [problem for problem in problems if "num_batches_tracked" not in problem]
    if problems:
        raise CheckpointError(_first(complaint, problems))


def _first(complaint: str, problems: Iterable[str]) -> str:
    lines = [problem.strip().rstrip(".") for problem in problems]
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return f"{complaint}: {'; '.join(lines[:3])}{more}"
