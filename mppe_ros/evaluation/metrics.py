"""The field's figures as pure functions: arrays in, numbers out, float64.

Joints are (..., J, 2) in px or (..., J, 3) in mm, camera frame; boxes are left, top, width,
height in px. Nothing here handles unknown joints: callers select those that both sides have.
Sources: the 3DMPPE paper (Moon et al. 2019, section 7) with the reference release's evaluation
code, MuPoTS-3D (Mehta et al. 2018) and COCO (Lin et al. 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..boxes import box_iou
from ..skeletons import LIMB_JOINTS
from ..structures import FloatArray

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

NOBODY, IGNORED = -1, -2


# --- pose ----------------------------------------------------------------------------------------


def joint_errors(predicted: npt.ArrayLike, true: npt.ArrayLike) -> FloatArray:
    """Distance of each joint to its truth: (..., J, D) to (..., J), in the unit of the input."""
    difference = np.asarray(predicted, np.float64) - np.asarray(true, np.float64)
    return np.asarray(np.linalg.norm(difference, axis=-1))


def root_relative(joints: npt.ArrayLike, root: int) -> FloatArray:
    """Joints (..., J, D) seen from one of them."""
    joints = np.asarray(joints, np.float64)
    return joints - joints[..., root : root + 1, :]


def mpjpe(predicted: npt.ArrayLike, true: npt.ArrayLike) -> FloatArray:
    """Mean per joint position error, (..., J, 3) to (...), mm.

    Human3.6M's protocol 2 wants both sides `root_relative` first and counts the root's zero.
    """
    return np.asarray(joint_errors(predicted, true).mean(axis=-1))


def rigid_align(predicted: npt.ArrayLike, true: npt.ArrayLike) -> FloatArray:
    """``predicted`` turned and moved onto ``true``, for the least squared error.

    A rotation and a translation, no scale and no mirroring (Kabsch 1976); the paper's
    Human3.6M protocol 1.

    :param predicted, true: (..., J, 3).
    :return: (..., J, 3).
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    from_centre, to_centre = (x.mean(axis=-2, keepdims=True) for x in (predicted, true))
    covariance = (predicted - from_centre).swapaxes(-1, -2) @ (true - to_centre)
    u, _, vt = np.linalg.svd(covariance)
    # The best orthogonal matrix may be a reflection: then the weakest direction is turned back.
    vt[..., -1, :] *= np.sign(np.linalg.det(u @ vt))[..., None]
    return (predicted - from_centre) @ (u @ vt) + to_centre


def pa_mpjpe(predicted: npt.ArrayLike, true: npt.ArrayLike) -> FloatArray:
    """MPJPE after `rigid_align`, (..., J, 3) to (...), mm."""
    return mpjpe(rigid_align(predicted, true), true)


def pck(
    predicted_px: npt.ArrayLike,
    true_px: npt.ArrayLike,
    bbox_xywh_px: npt.ArrayLike,
    fraction: float,
) -> float:
    """Share of joints nearer to their truth than ``fraction`` of the box's larger side.

    :param predicted_px, true_px: (J, 2), labelled joints of one person.
    :return: 0..1.
    """
    larger_side = np.max(np.asarray(bbox_xywh_px, np.float64)[2:])
    return float(np.mean(joint_errors(predicted_px, true_px) < fraction * larger_side))


# --- root ----------------------------------------------------------------------------------------


class Mrpe(NamedTuple):
    """Mean root position error and the means of its parts, mm (paper, section 7.1)."""

    total: float
    x: float
    y: float
    z: float


def mrpe(predicted_mm: npt.ArrayLike, true_mm: npt.ArrayLike) -> Mrpe:
    """MRPE of roots (N, 3); NaN without any."""
    difference = np.asarray(predicted_mm, np.float64) - np.asarray(true_mm, np.float64)
    if len(difference) == 0:
        return Mrpe(*[float("nan")] * 4)
    parts = np.abs(difference).mean(axis=0)
    return Mrpe(float(np.linalg.norm(difference, axis=1).mean()), *map(float, parts))


def gamma_error(
    gamma: npt.ArrayLike, true_depth_mm: npt.ArrayLike, k_mm: npt.ArrayLike
) -> FloatArray:
    """How far RootNet's γ is from the one that gives the true depth, relative to that.

    Z = γ · k (paper, eq. 4), so that |γ − Z/k| / (Z/k) is also the relative error of the depth.
    """
    true_gamma = np.asarray(true_depth_mm, np.float64) / np.asarray(k_mm, np.float64)
    return np.asarray(np.abs(np.asarray(gamma, np.float64) - true_gamma) / true_gamma)


class RootsOfImage(NamedTuple):
    """Predicted and true roots of one image, mm."""

    scores: FloatArray  # (P,) the detector's
    predicted_mm: FloatArray  # (P, 3)
    true_mm: FloatArray  # (G, 3)
    ignored_mm: FloatArray = np.empty((0, 3))  # of people who are neither missed nor false


def average_precision_root(images: Sequence[RootsOfImage], threshold_mm: float = 250) -> float:
    """AP_25^root, per cent: average precision of roots within 25 cm (paper, section 7.1).

    All images' predictions by falling score; each belongs to the nearest true root of its image
    and is right if within the threshold, and the first there. AP = Σ P[n+1]·(R[n+1] − R[n]), as
    the reference release adds it up: the first prediction's own recall is left out. Images
    without a true root are skipped. NaN if all are.
    """
    images = [image for image in images if len(image.true_mm)]
    truth_count = sum(len(image.true_mm) for image in images)
    if truth_count == 0:
        return float("nan")
    owners = [_owners_of_roots(image, threshold_mm) for image in images]
    correct = _first_claims(
        np.concatenate([image.scores for image in images]),
        np.concatenate(owners),
        np.concatenate([np.full(len(own), index) for index, own in enumerate(owners)]),
    )
    precision, recall = _precision_recall(correct, truth_count)
    return float(100 * np.sum(precision[1:] * np.diff(recall)))


def _owners_of_roots(image: RootsOfImage, threshold_mm: float) -> IntArray:
    """(P,) the nearest true root if near enough, else NOBODY; IGNORED where that one is."""
    if len(image.predicted_mm) == 0:
        return np.empty(0, np.int64)
    roots = np.concatenate([image.true_mm, image.ignored_mm])
    distance = joint_errors(image.predicted_mm[:, None], roots[None])
    nearest = distance.argmin(axis=1)
    owner = np.where(distance.min(axis=1) < threshold_mm, nearest, NOBODY)
    return np.where(nearest < len(image.true_mm), owner, IGNORED)


def _first_claims(scores: FloatArray, owners: IntArray, image_of: IntArray) -> BoolArray:
    """By falling score, without the ignored: is a prediction the first of its person?"""
    order = np.argsort(-scores, kind="stable")
    order = order[owners[order] != IGNORED]
    claimed: set[tuple[int, int]] = set()
    correct = np.zeros(len(order), bool)
    for rank, (owner, image) in enumerate(zip(owners[order], image_of[order], strict=True)):
        key = int(image), int(owner)
        correct[rank] = owner != NOBODY and key not in claimed
        claimed.add(key)
    return correct


def _precision_recall(correct: BoolArray, truth_count: int) -> tuple[FloatArray, FloatArray]:
    """Both after each prediction, by falling score."""
    hits = np.cumsum(correct)
    return hits / np.arange(1, len(correct) + 1), hits / truth_count


# --- 3DPCK as MuPoTS-3D measures it --------------------------------------------------------------

# Each joint's neighbour towards the pelvis, parents first: mpii_get_joints' "o1" of MuPoTS-3D.
TOWARDS_PELVIS = {
    "Spine": "Pelvis", "Thorax": "Spine", "Head_top": "Thorax", "Head": "Thorax",
    "R_Shoulder": "Thorax", "R_Elbow": "R_Shoulder", "R_Wrist": "R_Elbow",
    "L_Shoulder": "Thorax", "L_Elbow": "L_Shoulder", "L_Wrist": "L_Elbow",
    "R_Hip": "Pelvis", "R_Knee": "R_Hip", "R_Ankle": "R_Knee",
    "L_Hip": "Pelvis", "L_Knee": "L_Hip", "L_Ankle": "L_Knee",
}  # fmt: skip
PCK3D_MATCHED = ("Thorax", *LIMB_JOINTS)  # joints 2-14, which pair predictions with people
PCK3D_SCORED = ("Head_top", *PCK3D_MATCHED)  # joints 1-14
PCK3D_THRESHOLD_MM = 150.0
AUC_THRESHOLDS_MM = tuple(float(step) for step in range(0, 151, 5))
_MATCH_PX = 40.0


def match_by_joints(predicted_px: npt.ArrayLike, true_px: npt.ArrayLike) -> IntArray:
    """Pairs people with predictions as MuPoTS-3D does: greedily, in the order of the people.

    A person gets the free prediction with most joints within 40 px in u and in v; one is enough.
    A predicted joint at (0, 0) doesn't count.

    :param predicted_px: (P, J, 2). :param true_px: (G, J, 2); the joints of `PCK3D_MATCHED`.
    :return: (G,) index of the prediction or NOBODY.
    """
    predicted, true = np.asarray(predicted_px, np.float64), np.asarray(true_px, np.float64)
    pairs = np.full(len(true), NOBODY)
    if len(predicted) == 0 or len(true) == 0:
        return pairs
    near = (np.abs(true[:, None] - predicted[None]) < _MATCH_PX).all(axis=-1)
    count = (near & (predicted != 0).any(axis=-1)).sum(axis=-1)
    for person in range(len(true)):
        best = int(count[person].argmax())
        if count[person, best] > 0:
            pairs[person] = best
            count[:, best] = 0
    return pairs


def rescale_bones(
    predicted: npt.ArrayLike, true: npt.ArrayLike, joint_names: Sequence[str]
) -> FloatArray:
    """Predicted joints with the bone lengths of the truth; directions and the pelvis stay.

    Where a joint set lacks a joint, its children hang on the next one towards the pelvis (for
    MuPoTS-3D's 17 joints nothing is lacking).

    :param predicted, true: (..., J, 3). :param joint_names: J names of MuCo's, with the Pelvis.
    :return: (..., J, 3).
    """
    predicted, true = np.asarray(predicted, np.float64), np.asarray(true, np.float64)
    result = predicted.copy()
    for name in TOWARDS_PELVIS:
        if name not in joint_names:
            continue
        joint, parent = joint_names.index(name), _next_towards_pelvis(name, joint_names)
        bone = predicted[..., joint, :] - predicted[..., parent, :]
        length = np.linalg.norm(bone, axis=-1, keepdims=True)
        true_length = joint_errors(true[..., joint, :], true[..., parent, :])[..., None]
        direction = np.divide(bone, length, out=np.zeros_like(bone), where=length > 0)
        result[..., joint, :] = result[..., parent, :] + direction * true_length
    return result


def _next_towards_pelvis(name: str, joint_names: Sequence[str]) -> int:
    name = TOWARDS_PELVIS[name]
    while name not in joint_names:
        name = TOWARDS_PELVIS[name]
    return joint_names.index(name)


def pck3d_errors(
    predicted_mm: npt.ArrayLike,
    true_mm: npt.ArrayLike,
    pairs: IntArray,
    joint_names: Sequence[str],
    *,
    relative: bool,
) -> FloatArray:
    """One image's joint errors for `pck3d` and `auc3d`.

    :param predicted_mm: (P, J, 3). :param true_mm: (G, J, 3).
    :param pairs: (G,) from `match_by_joints`.
    :param joint_names: J names, with the Pelvis.
    :param relative: both sides' pelvis at the origin.
    :return: (G, S) mm, those of the J joints that are in `PCK3D_SCORED`; inf for missed people.
    """
    predicted, true = np.asarray(predicted_mm, np.float64), np.asarray(true_mm, np.float64)
    if relative:
        pelvis = joint_names.index("Pelvis")
        predicted, true = root_relative(predicted, pelvis), root_relative(true, pelvis)
    scored = [index for index, name in enumerate(joint_names) if name in PCK3D_SCORED]
    errors = np.full((len(true), len(scored)), np.inf)
    found = pairs != NOBODY
    if found.any():
        mapped = rescale_bones(predicted[pairs[found]], true[found], joint_names)
        errors[found] = joint_errors(mapped, true[found])[:, scored]
    return errors


def pck3d(errors_mm: npt.ArrayLike, threshold_mm: float = PCK3D_THRESHOLD_MM) -> float:
    """3DPCK, per cent: joints nearer than the threshold. "All": missed people count as wrong.

    :param errors_mm: (N, S) from `pck3d_errors`; leave out rows of inf for "matched".
    """
    errors = np.asarray(errors_mm, np.float64)
    return float(100 * np.mean(errors < threshold_mm)) if errors.size else float("nan")


def auc3d(errors_mm: npt.ArrayLike) -> float:
    """Mean 3DPCK over the thresholds 0, 5, ..., 150 mm, per cent."""
    return float(np.mean([pck3d(errors_mm, threshold) for threshold in AUC_THRESHOLDS_MM]))


# --- detection -----------------------------------------------------------------------------------


def match_detections(
    boxes: FloatArray, scores: FloatArray, people: FloatArray, ignored: FloatArray
) -> IntArray:
    """Whom each detection shows, as COCO has it: by falling score, the free person of most
    overlap, at least 0.5. One that lies at least half in an ignored box is ignored.

    :param boxes: (P, 4). :param scores: (P,). :param people, ignored: (G, 4), (I, 4).
    :return: (P,) index into ``people``, NOBODY or IGNORED.
    """
    owner = np.full(len(boxes), NOBODY)
    if len(boxes) == 0:
        return owner
    overlap = box_iou(boxes, people)
    for index in np.argsort(-scores, kind="stable"):
        if len(people) and overlap[index].max() >= 0.5:
            owner[index] = overlap[index].argmax()
            overlap[:, owner[index]] = 0
        elif covered(boxes[index : index + 1], ignored)[0]:
            owner[index] = IGNORED
    return owner


def covered(boxes: FloatArray, ignored: FloatArray) -> BoolArray:
    """(P,) whether at least half of a box (P, 4) lies in one of the ignored boxes (I, 4)."""
    near = np.maximum(boxes[:, None, :2], ignored[None, :, :2])
    far = np.minimum(
        boxes[:, None, :2] + boxes[:, None, 2:], ignored[None, :, :2] + ignored[None, :, 2:]
    )
    inside = np.clip(far - near, 0, None).prod(-1)
    return (inside >= 0.5 * boxes[:, None, 2:].prod(-1)).any(axis=1)


def average_precision(scores: FloatArray, correct: BoolArray, truth_count: int) -> float:
    """Average precision, 0..1, at COCO's 101 recalls, of the best precision at or beyond each.

    :param scores: (P,) of all images. :param correct: (P,) whether a detection shows somebody.
    :param truth_count: people there are. NaN without any.
    """
    if truth_count == 0:
        return float("nan")
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    precision, recall = _precision_recall(np.asarray(correct, bool)[order], truth_count)
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0)
    return float(best[np.searchsorted(recall, np.linspace(0, 1, 101))].mean())
