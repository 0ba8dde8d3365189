"""What the networks are punished for. Means over the batch; terms are weighted by the tasks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torchvision.ops import generalized_box_iou_loss

from ..detectors import CenterDetector


def masked_l1(predicted: torch.Tensor, true: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Mean L1 distance over points with a weight (paper, section 6: L1 on coordinates).

    :param predicted, true: (..., D); the distance is summed over the D coordinates.
    :param weight: (...) 0 for points that are not known.
    """
    distance = (predicted - true).abs().sum(-1)
    return (distance * weight).sum() / weight.sum().clamp(min=1e-6)


def relative_error(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """(N,) |error| / truth: of γ, the error of the depth as a fraction of the depth."""
    return (predicted - true).abs() / true


# ---------------------------------------------------------------- centres and boxes


class CentreTargets(NamedTuple):
    """What :class:`~mppe_ros.detectors.CenterDetector` should say of B images."""

    heatmap: torch.Tensor  # (B, h, w) 1 at centres, falling off as Gaussians
    ignored: torch.Tensor  # (B, h, w) bool: no background to be learned here
    boxes: torch.Tensor  # (B, h, w, 4) corners, network px, of the box that a cell belongs to
    box_weight: torch.Tensor  # (B, h, w) sums to 1 over the cells of each box


SPREAD = 0.54 / 6  # a Gaussian's sigma, in box sides (TTFNet, Liu et al. 2020)
CORE = 0.15  # cells where the heatmap is higher learn the box
IGNORED_CORE = 0.8  # middle part of the sides of a box to be ignored


def centre_targets(
    boxes: torch.Tensor, kind: torch.Tensor, height: int, width: int
) -> CentreTargets:
    """
    :param boxes: (B, P, 4) corners, network px; ``kind`` (B, P): 1 person, 2 ignored, 0 nothing.
    :param height, width: of the maps, cells.
    """
    stride = CenterDetector.STRIDE
    centre, sides = (boxes[..., 2:] + boxes[..., :2]) / 2, boxes[..., 2:] - boxes[..., :2]
    limit = centre.new_tensor([width, height])
    # The peak is a cell's centre, so that exactly one cell per person is a positive.
    peak = (centre / stride).floor().clamp(min=0).minimum(limit - 1)
    sigma = (sides * SPREAD / stride).clamp(min=0.25)
    cells = [torch.arange(n, device=boxes.device) for n in (width, height)]

    def spread(axis: int) -> torch.Tensor:
        offset = (cells[axis] - peak[..., axis, None]) / sigma[..., axis, None]
        return (-0.5 * offset.square()).exp()

    def covered(axis: int) -> torch.Tensor:
        offset = (cells[axis] + 0.5) * stride - centre[..., axis, None]
        return offset.abs() < sides[..., axis, None] * (IGNORED_CORE / 2)

    each = spread(1)[..., :, None] * spread(0)[..., None, :] * (kind == 1)[..., None, None]
    heatmap, owner = each.max(1)
    ignored = covered(1)[..., :, None] & covered(0)[..., None, :] & (kind == 2)[..., None, None]
    owned = boxes.take_along_dim(owner.flatten(1)[..., None], 1).unflatten(1, owner.shape[1:])
    return CentreTargets(heatmap, ignored.any(1), owned, _per_box(heatmap, owner, boxes.shape[1]))


def _per_box(heatmap: torch.Tensor, owner: torch.Tensor, count: int) -> torch.Tensor:
    """Weights of the cells around centres, so that large people count no more than small ones."""
    weight = (heatmap * (heatmap > CORE)).flatten(1)
    total = weight.new_zeros(len(weight), count).scatter_add_(1, owner.flatten(1), weight)
    share = weight / total.take_along_dim(owner.flatten(1), 1).clamp(min=1e-6)
    return share.view_as(heatmap)


def centre_focal_loss(logits: torch.Tensor, targets: CentreTargets) -> torch.Tensor:
    """Focal loss of the heatmap per person ("Objects as Points", equation 1)."""
    probability = logits.sigmoid().clamp(1e-4, 1 - 1e-4)
    peak = targets.heatmap == 1
    found = -(1 - probability).square() * probability.log()
    false = -(1 - targets.heatmap).pow(4) * probability.square() * (1 - probability).log()
    background = false.masked_fill(targets.ignored, 0)
    return torch.where(peak, found, background).sum() / peak.sum().clamp(min=1)


def box_loss(distances_px: torch.Tensor, targets: CentreTargets) -> torch.Tensor:
    """1 - GIoU (Rezatofighi et al. 2019), mean over people.

    :param distances_px: (B, 4, h, w) from cells' centres to left, top, right, bottom.
    """
    batch, row, column = targets.box_weight.nonzero(as_tuple=True)
    centre = (torch.stack([column, row], -1) + 0.5) * CenterDetector.STRIDE
    sides = distances_px[batch, :, row, column]
    predicted = torch.cat([centre - sides[:, :2], centre + sides[:, 2:]], -1)
    loss = generalized_box_iou_loss(predicted, targets.boxes[batch, row, column])
    people = (targets.heatmap == 1).sum().clamp(min=1)
    return (loss * targets.box_weight[batch, row, column]).sum() / people
