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


# ---------------------------------------------------------------- the paper's networks


class JointTargets(NamedTuple):
    """Where the joints of N crops are, in heatmap cells."""

    cells: torch.Tensor  # (N, J, 3) x, y, z; finite everywhere
    weight: torch.Tensor  # (N, J) 0 for joints that are not known or outside the volume
    depth_known: torch.Tensor  # (N, 1) 0 for people of 2D data sets


def coordinate_l1(predicted: torch.Tensor, targets: JointTargets) -> dict[str, torch.Tensor]:
    """L1 on coordinates (paper, section 6), in cells; its mean as the reference release takes it:
    over all three coordinates of all joints, known or not.

    :param predicted: (N, J, 3)
    """
    error = (predicted - targets.cells).abs() * targets.weight[..., None] / 3
    return {
        "xy": error[..., :2].sum(-1).mean(),
        "z": (error[..., 2] * targets.depth_known).mean(),
    }


def cell_cross_entropy(volume: torch.Tensor, targets: JointTargets) -> torch.Tensor:
    """Of the joint's cell among all cells; without depth, of its column among all columns.

    :param volume: (N, J, D, H, W) logits
    """
    x, y, z = _nearest_cells(volume, targets)
    batch = torch.arange(len(volume), device=volume.device)[:, None]
    joint = torch.arange(volume.shape[1], device=volume.device)
    volume = volume.float()
    columns = volume[batch, joint, :, y, x]  # (N, J, D)
    known = columns.take_along_dim(z[..., None], -1)[..., 0]
    right = torch.where(targets.depth_known > 0, known, columns.logsumexp(-1))
    return ((volume.flatten(2).logsumexp(-1) - right) * targets.weight).mean()


def _nearest_cells(volume: torch.Tensor, targets: JointTargets) -> tuple[torch.Tensor, ...]:
    sizes = volume.shape[2:][::-1]
    nearest = targets.cells.round().long()
    return tuple(nearest[..., axis].clamp(0, size - 1) for axis, size in enumerate(sizes))


def gaussian_error(
    volume: torch.Tensor, targets: JointTargets, sigma_cells: float
) -> torch.Tensor:
    """Squared error against a Gaussian around the joint, relative to that of an empty volume.

    Without depth, the highest values along z are compared with a flat Gaussian.

    :param volume: (N, J, D, H, W)
    """
    x, y, z = (
        _gaussian(targets.cells[..., axis], size, sigma_cells)
        for axis, size in enumerate(volume.shape[2:][::-1])
    )
    volume = volume.float()
    flat = y[..., :, None] * x[..., None, :]
    deep = z[..., :, None, None] * flat[..., None, :, :]
    error_2d = _relative_square(volume.amax(2), flat)
    error_3d = _relative_square(volume, deep)
    error = torch.where(targets.depth_known > 0, error_3d, error_2d)
    return (error * targets.weight).mean()


def _gaussian(centre: torch.Tensor, size: int, sigma: float) -> torch.Tensor:
    """(N, J) to (N, J, size)."""
    offset = torch.arange(size, device=centre.device) - centre[..., None]
    return (-0.5 * (offset / sigma).square()).exp()


def _relative_square(predicted: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """(N, J, ...) to (N, J)."""
    error = (predicted - true).square().flatten(2).sum(-1)
    return error / true.square().flatten(2).sum(-1).clamp(min=1e-3)


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
