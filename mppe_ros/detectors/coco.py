"""torchvision's detectors, trained on COCO. Importing torchvision takes seconds, so this module is
imported when one of them is wanted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import ops
from torchvision.models import detection as zoo
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from ..devices import has_bf16_tiles
from ..inference import Autocast, Room
from ..runtimes import Argument, OpenVinoRunner, Range, Runner
from ..structures import Detections
from .base import IMAGES, LEAST_SIDE_PX, MAX_DETECTIONS, SCORE_THRESHOLD, Kind, NetworkDetector
from .pyramid import FeaturePyramid
from .regions import ProposalHead, RegionHead, RegionPool

_COCO_CLASSES = 91  # the background (0), person (1) and 89 more ids
_PERSON = 1
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
            if next(network.parameters()).device.type == "cpu":
                computed = run.precision if isinstance(run, OpenVinoRunner) else precision
                heads.box_roi_pool = RegionPool(heads.box_roi_pool, computed)
                heads.box_head = RegionHead(heads.box_head, heads.box_roi_pool.output_size)
                if run is None or isinstance(run, OpenVinoRunner):
                    _multiply_less(network, computed)
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
        if not isinstance(network.rpn.head, ProposalHead):
            network.rpn.head.conv = Autocast(network.rpn.head.conv, precision)
        network.roi_heads.box_head = Autocast(network.roi_heads.box_head, precision)


def _multiply_less(network: Any, precision: torch.dtype) -> None:
    """Has large convolutions of a feature pyramid and of what proposes regions computed by
    Winograd's algorithm where that is faster, in place. The pyramid's maps are in ``precision``
    then."""
    if precision == torch.bfloat16 and has_bf16_tiles():
        return
    room = Room()
    network.backbone.fpn = FeaturePyramid(network.backbone.fpn, precision, room)
    network.rpn.head = ProposalHead(network.rpn.head, precision, room)
    network.rpn.anchor_generator = _Anchors(network.rpn.anchor_generator)


class _Anchors(nn.Module):
    """Anchors in float32, whatever maps are in: in bf16 they are off by whole pixels.

    They are kept, as a camera's images have one size.
    """

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator
        self._sizes: list[torch.Size] = []
        self._anchors: list[torch.Tensor] = []

    def forward(self, images: Any, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        sizes = [one.shape for one in (images.tensors, *maps)]
        if sizes != self._sizes:
            number = torch.zeros(())
            self._anchors = self.generator(images, [number.expand(size) for size in sizes[1:]])
            self._sizes = sizes
        return self._anchors


def _run_by(run: Runner, network: Any) -> None:
    """Has a detector's networks run by something, in place, for images of any size it may see."""
    is_two_stage = isinstance(network, zoo.FasterRCNN)
    run_stages = _run_two_stages if is_two_stage else _run_one_stage
    run_stages(run, network, next(network.parameters()).device)


def _run_one_stage(run: Runner, network: Any, device: torch.device) -> None:
    width, height = network.transform.fixed_size
    images = torch.zeros(2, 3, height, width, device=device)
    maps = _run_backbone(run, network, images, {})
    both = ["bbox_regression", "cls_logits"]
    network.head = _Heads(run("detector_heads", _Flat(network.head), maps, both), both)


def _run_two_stages(run: Runner, network: Any, device: torch.device) -> None:
    transform, heads = network.transform, network.roi_heads
    shorter, longest = transform.min_size[0], transform.max_size
    usual, most = _padded(shorter), _padded(longest)
    wide = min(most, _padded(4 * usual // 3))
    sides = {2: Range(32, usual, most, step=32), 3: Range(32, wide, most, step=32)}
    images = torch.zeros(2, 3, 320, 320, device=device)
    channels = network.backbone.out_channels
    if isinstance(network.backbone.fpn, FeaturePyramid):
        # That stays with torch, and so does what proposes regions.
        pyramid = network.backbone.fpn
        network.backbone = _Rounded(network.backbone.body, pyramid.precision)
        _run_backbone(run, network, images, sides)
        network.backbone = nn.Sequential(network.backbone, pyramid)
    else:
        maps = _run_backbone(run, network, images, sides)
        each = [f"{kind}_{one.name}" for kind in ("objectness", "deltas") for one in maps]
        network.rpn.head = _Proposals(
            run("detector_proposals", _Flat(network.rpn.head), maps, each)
        )
    regions = network.rpn.post_nms_top_n()
    features = torch.zeros(3, channels, *heads.box_roi_pool.output_size, device=device)
    boxes = nn.Sequential(heads.box_head, heads.box_predictor)
    argument = Argument("regions", features, {0: Range(1, regions, IMAGES.most * regions)})
    heads.box_head = _Boxes(run("detector_boxes", boxes, [argument], ["logits", "deltas"]))
    heads.box_predictor = nn.Identity()


def _run_backbone(
    run: Runner, network: Any, images: torch.Tensor, sides: Mapping[int, Range]
) -> list[Argument]:
    """
    :param sides: how long the images' may be, as of `Argument.variable`.
    :return: its maps.
    """
    with torch.no_grad():
        maps: dict[str, torch.Tensor] = network.backbone(images)
    names = [f"map_{name}" for name in maps]
    argument = Argument("images", images, {0: IMAGES, **sides})
    backbone = run("detector_backbone", _Values(network.backbone), [argument], names)
    network.backbone = _Named(backbone, list(maps))
    arguments = []
    for name, map_ in zip(names, maps.values(), strict=True):
        stride = images.shape[2] // map_.shape[2]
        ranges = {side: Range(*(-(-n // stride) for n in row[:3])) for side, row in sides.items()}
        arguments.append(Argument(name, map_, {0: IMAGES, **ranges}))
    return arguments


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


class _Rounded(nn.Module):
    """A backbone whose maps are in some precision."""

    def __init__(self, backbone: nn.Module, precision: torch.dtype) -> None:
        super().__init__()
        self.backbone, self.precision = backbone, precision

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.backbone(images).items()
        return OrderedDict((name, map_.to(self.precision)) for name, map_ in maps)


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
            none = torch.zeros((0, 4 * (_PERSON + 1)), device=regions.device)
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


def _detections(
    boxes_xyxy: torch.Tensor, scores: torch.Tensor, height: int, width: int
) -> Detections:
    """From corners in image px; clips, and drops what has no area inside the image."""
    boxes = ops.clip_boxes_to_image(boxes_xyxy.float(), (height, width))
    kept = ops.remove_small_boxes(boxes, min_size=LEAST_SIDE_PX)
    table = torch.cat([ops.box_convert(boxes, "xyxy", "xywh"), scores[:, None].float()], 1)
    rows = table[kept].cpu().numpy()  # one transfer from the device
    return Detections(rows[:, :4], rows[:, 4])


# Rows of the table by name.
KINDS = {
    # This file's trunk had no epsilon in its frozen batch normalisation.
    "maskrcnn_r50_fpn": Kind(
        partial(_mask_rcnn_boxes, "resnet50", 0.0),
        TorchvisionPersons,
        zoo.MaskRCNN_ResNet50_FPN_Weights.COCO_V1,
    ),
    "maskrcnn_x101_32x8d_fpn": Kind(
        partial(_mask_rcnn_boxes, "resnext101_32x8d", 1e-5), TorchvisionPersons, None
    ),
    "fasterrcnn_mobilenet_v3_large_fpn": Kind(
        partial(zoo.fasterrcnn_mobilenet_v3_large_fpn, **_NO_DOWNLOAD, **_RCNN_OPTIONS),
        TorchvisionPersons,
        zoo.FasterRCNN_MobileNet_V3_Large_FPN_Weights.COCO_V1,
    ),
    "fasterrcnn_mobilenet_v3_large_320_fpn": Kind(
        partial(zoo.fasterrcnn_mobilenet_v3_large_320_fpn, **_NO_DOWNLOAD, **_RCNN_OPTIONS),
        TorchvisionPersons,
        zoo.FasterRCNN_MobileNet_V3_Large_320_FPN_Weights.COCO_V1,
    ),
    "ssdlite320_mobilenet_v3_large": Kind(
        partial(zoo.ssdlite320_mobilenet_v3_large, **_NO_DOWNLOAD, **_SSD_OPTIONS),
        TorchvisionPersons,
        zoo.SSDLite320_MobileNet_V3_Large_Weights.COCO_V1,
    ),
}
