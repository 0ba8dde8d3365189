"""The three stages in a row: images and intrinsics in, people out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from . import camera, crops, depth, weights
from .detectors import Detector, assemble_detector, build_detector
from .devices import (
    DeviceError,
    Portions,
    StageClock,
    insist_on_fp32,
    select_backend,
    select_device,
    select_exported_backend,
    select_precision,
)
from .inference import lower_precision, prepare
from .networks import (
    DEPTH_RANGE_MM,
    CompiledRootPose,
    CropPoses,
    GreyRootPose,
    RootPoseEstimator,
    compiled,
    network_name,
)
from .orientation import root_orientations
from .runtimes import RUNNERS, FileRunner, Runner
from .skeletons import SKELETONS, Skeleton
from .structures import (
    DepthImage,
    Detections,
    FloatArray,
    Image,
    Intrinsics,
    JointStatus,
    Person,
    RootError,
)
from .surface import SurfaceNet
from .weights import CropSpec

# A joint this near to the front or back of the heatmap volume was probably cut off by it.
_VOLUME_EDGE_MM = 0.95 * DEPTH_RANGE_MM
# So many times further off across the viewing ray are roots outside the image than blunt heatmaps
# tell (docs/covariance.md).
_UNSEEN_ACROSS = 2.0


@dataclass(frozen=True)
class PipelineOptions:
    """What may change from one image to the next."""

    detection_threshold: float = 0.3
    joint_threshold: float = 0.5  # joints with a lower score are LOW_SCORE
    max_persons: int = 20  # the best detections of each image
    min_range_m: float = -math.inf  # people with a nearer or farther root are left out
    max_range_m: float = math.inf
    flip_test: bool = False  # average with the mirrored crop: slower, a little better
    k_only_root: bool = False  # gamma = 1 and the box centre: the paper's baseline "k"

    def select(self, found: Detections) -> Detections:
        """One image's detections that are confident enough, the best of them."""
        chosen = (found.scores >= self.detection_threshold).nonzero()[0][: self.max_persons]
        return Detections(found.boxes_xywh_px[chosen], found.scores[chosen])


class _Boxes(NamedTuple):
    """One image's boxes that aren't empty."""

    processed: FloatArray  # (N, 4)
    detected: FloatArray  # (N, 4)
    scores: FloatArray  # (N,)
    kept: npt.NDArray[np.intp]  # (N,) which of all of the image's they are


class Pipeline:
    """DetectNet, RootNet and PoseNet, batched over people and images.

    :param model: name and short hash of the weights, for the messages.
    :param precision: the type that networks compute in; softmax and geometry stay in float32.
    :param sharpness: mean joint score of people who are really there: scores of detections whose
        joints are blunter fall, see :func:`judge`. None = scores are DetectNet's.
    :param surface_net: what improves roots by depth images, if anything does.
    """

    def __init__(
        self,
        detector: Detector,
        estimator: RootPoseEstimator,
        crop_spec: CropSpec,
        root_error: RootError,
        *,
        model: str,
        device: torch.device,
        precision: torch.dtype = torch.float32,
        sharpness: float | None = None,
        surface_net: SurfaceNet | None = None,
        options: PipelineOptions | None = None,
    ) -> None:
        self.detector, self.estimator = detector, estimator
        self.crop_spec, self.root_error, self.sharpness = crop_spec, root_error, sharpness
        self.surface_net = surface_net
        self.model, self.device, self.precision = model, device, precision
        self.options = options or PipelineOptions()
        self.stage_ms: dict[str, float] = {}  # of the last call
        self._images_at_once, self._people_at_once = Portions(), Portions()

    @classmethod
    def load(
        cls,
        weight_set: str = weights.DEFAULT,
        *,
        device: str = "auto",
        precision: str = "auto",
        backend: str = "auto",
        detector: str | Detector = "",
        detector_file: Path | None = None,
        detector_size: int | None = None,
        options: PipelineOptions | None = None,
    ) -> Pipeline:
        """A pipeline with the networks of a weight set.

        :param weight_set: a name of the registry, ``ROOTNET,POSENET`` (two paths), or a folder of
            exported networks.
        :param backend: torch, openvino, cuda_graphs, or auto: OpenVINO on a CPU, where it is
            installed, CUDA graphs on a GPU. Of exported networks onnxruntime, tensorrt, or auto:
            TensorRT's engines on a GPU, where they have been built.
        :param detector: a row of ``detectors.DETECTORS`` or a detector, instead of the set's own.
        :param detector_file: weights for that row.
        :param detector_size: px that the image's shorter side is scaled to for it; None = as the
            row has it.
        :raises CheckpointError: weights that are unknown, missing, damaged or of another network.
        :raises DeviceError: a device, precision or backend that is not there.
        :raises ValueError: a ``detector_size`` for a detector that has a fixed one.
        """
        torch_device = select_device(device)
        chosen = weights.find(weight_set)
        digest = weights.verify(chosen)
        paths = weights.locate(chosen)
        dtype = torch.float32 if chosen.exported else select_precision(precision, torch_device)
        if dtype == torch.float32:
            insist_on_fp32()
        estimator: RootPoseEstimator
        run = None
        if chosen.exported:
            networks = {name: path for name, path in paths.items() if name != weights.SURFACE}
            files = _exported_files(chosen, networks, torch_device, precision, backend)
            estimator = CompiledRootPose(
                SKELETONS[chosen.joints], lambda flip_test: files.open(network_name(flip_test))
            )
            if not detector and detector_file is None:
                size = detector_size or chosen.exported.detector_size
                detector = assemble_detector(chosen.detector, files, size)
        else:
            runner = RUNNERS.get(select_backend(backend, torch_device, dtype))
            run = runner(dtype) if runner else None
            estimator = _own_estimator(chosen, paths, torch_device, dtype, runner)
        if isinstance(detector, str):
            row = detector or chosen.detector
            if detector_file is None and row == chosen.detector:
                detector_file = paths.get("detector")
            detector = build_detector(
                row,
                detector_file,
                device=torch_device,
                precision=dtype,
                run=run,
                min_size=detector_size,
            )
        return cls(
            detector,
            estimator,
            chosen.crop,
            chosen.root_error,
            model=f"{chosen.name} ({digest})",
            device=torch_device,
            precision=dtype,
            sharpness=chosen.sharpness,
            surface_net=weights.read_surface_net(paths, chosen),
            options=options,
        )

    @property
    def skeleton(self) -> Skeleton:
        return self.estimator.skeleton

    @property
    def complaint(self) -> str:
        """What is worse than it could be since these networks were loaded; empty = nothing."""
        most = self._people_at_once.most
        return f"memory holds only {most} people at once: slower in crowds" if most else ""

    def __call__(
        self, images: Sequence[Image], intrinsics: Sequence[Intrinsics]
    ) -> list[list[Person]]:
        """People of each image, best detection first (or in the order of a fixed list of boxes).

        :param images: (H, W, 3) uint8 RGB each; sizes may differ.
        :param intrinsics: one camera per image.
        :raises ValueError: an image that is no colour image or not of its camera's size.
        """
        pixels = self.upload(images, intrinsics)
        found = [self.options.select(detections) for detections in self.detect(pixels)]
        detect_ms = self.stage_ms
        people = self.estimate(pixels, intrinsics, found)
        self.stage_ms = {**detect_ms, **self.stage_ms}
        judged = [[judge(one, self.sharpness) for one in row if one is not None] for row in people]
        least = self.options.detection_threshold
        return [[person for person in row if person.score >= least] for row in judged]

    def fuse(
        self, people: Sequence[Person], depth_m: DepthImage, intrinsics: Intrinsics
    ) -> list[Person]:
        """An image's people as a depth image places them, see :func:`depth.fuse`.

        :raises ValueError: a depth image of another size than the camera's image.
        """
        skeleton, error = self.skeleton, self.root_error
        return depth.fuse(people, depth_m, intrinsics, skeleton, error, self.surface_net)

    def upload(
        self, images: Sequence[Image], intrinsics: Sequence[Intrinsics]
    ) -> list[torch.Tensor]:
        """Images on the device, where both of the following steps look at them.

        :raises ValueError: as for a call.
        """
        return [self._upload(image, k) for image, k in zip(images, intrinsics, strict=True)]

    @torch.inference_mode()
    def detect(self, images: Sequence[torch.Tensor]) -> list[Detections]:
        """The first step alone, DetectNet: all boxes of each image, doubtful ones too.

        :param images: of `upload`.
        """
        clock = StageClock(self.device)
        with self._autocast():
            found = self._images_at_once(lambda part: self.detector(images[part]), len(images))
        clock.lap("detect")
        self.stage_ms = clock.ms
        return [detections for part in found for detections in part]

    @torch.inference_mode()
    def estimate(
        self,
        images: Sequence[torch.Tensor],
        intrinsics: Sequence[Intrinsics],
        detections: Sequence[Detections],
    ) -> list[list[Person | None]]:
        """The other steps, RootNet and PoseNet, for boxes from anywhere.

        :param images: of `upload`.
        :param detections: of each image.
        :return: for each image and box its person; None where the box is empty, where the person
            can't be placed, and where its distance is out of range.
        """
        clock = StageClock(self.device)
        clock.ms |= {"crop": 0.0, "estimate": 0.0}  # where nobody is, too
        boxes = [_processed(*one) for one in zip(detections, intrinsics, strict=True)]
        image_index = np.repeat(np.arange(len(boxes)), [len(row.kept) for row in boxes])
        squares = np.concatenate([np.empty((0, 4)), *(row.processed for row in boxes)])
        looks = self._people_at_once(
            lambda part: self._look(images, squares[part], image_index[part], clock), len(squares)
        )
        people: list[list[Person | None]] = [[None] * len(found) for found in detections]
        if looks:
            table = np.concatenate(looks)
            for index, (row, camera_) in enumerate(zip(boxes, intrinsics, strict=True)):
                placed = self._people(row, table[image_index == index], camera_)
                for box, person in zip(row.kept, placed, strict=True):
                    people[index][box] = person
        clock.lap("place")
        self.stage_ms = clock.ms
        return people

    def _look(
        self,
        images: Sequence[torch.Tensor],
        boxes: FloatArray,
        image_index: npt.NDArray[np.intp],
        clock: StageClock,
    ) -> FloatArray:
        """Poses within the crops of processed boxes, as rows of numbers, see `_table`."""
        spec = self.crop_spec
        with self._autocast():
            seen = crops.crop_people(images, boxes, image_index, spec.size, spec.antialias)
            clock.lap("crop")
            table = _table(self.estimator(seen, self.options.flip_test))
            clock.lap("estimate")
        return table

    def _upload(self, image: Image, intrinsics: Intrinsics) -> torch.Tensor:
        tensor = torch.as_tensor(image)
        if tensor.ndim != 3 or tensor.shape[2] != 3 or tensor.dtype != torch.uint8:
            raise ValueError(
                f"an image must be (height, width, 3) uint8 RGB, got {tuple(tensor.shape)} "
                f"{tensor.dtype}"
            )
        height, width = tensor.shape[:2]
        if (width, height) != (intrinsics.width, intrinsics.height):
            raise ValueError(
                f"the image is {width}x{height} px, its camera {intrinsics.width}x"
                f"{intrinsics.height} px"
            )
        return tensor.to(self.device, non_blocking=True)

    def _autocast(self) -> AbstractContextManager[object]:
        by_torch = not isinstance(self.estimator, CompiledRootPose)
        if self.precision == torch.float32 or not by_torch:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.precision)

    def _people(
        self, boxes: _Boxes, table: FloatArray, intrinsics: Intrinsics
    ) -> list[Person | None]:
        """Of one image; None where one can't be placed or is out of range.

        From crops to the camera frame: depth by gamma and k, then back-projection.

        :param table: of `_table`, a row for each box.
        """
        options, size, joints = self.options, self.crop_spec.size, len(self.skeleton)
        square, bbox, score = boxes.processed, boxes.detected, boxes.scores
        # np.split takes ten times as long.
        gamma, joints_z, scores = table[:, 0], table[:, -2 * joints : -joints], table[:, -joints:]
        pixels = table[:, 1 : -2 * joints].reshape(-1, 1 + joints, 2)
        if options.k_only_root:
            gamma, pixels[:, 0] = np.ones_like(gamma), size / 2
        pixels = crops.to_image(pixels, square, size)
        root_px, joints_px = pixels[:, 0], pixels[:, 1:]
        root_z = gamma * camera.k_value_mm(intrinsics.fx, intrinsics.fy, square)
        depths = root_z * camera.magnification(bbox, intrinsics)
        roots_mm, joints_mm = camera.back_project_pose(
            root_px, depths, joints_px, joints_z, intrinsics, self.crop_spec.ray_turn
        )
        distances = np.linalg.norm(roots_mm, axis=1)
        error, doubt = self.root_error, self.root_error.doubt(scores)
        across_mm = error.across_mm * doubt
        across_mm[~camera.inside(root_px, intrinsics)] *= _UNSEEN_ACROSS
        covariances = camera.ray_covariance(roots_mm, error.along * distances * doubt, across_mm)
        status = _joint_status(joints_px, joints_z, joints_mm, scores, intrinsics, options)
        range_m = roots_mm[:, 2] / 1000
        # Written so that NaN fails.
        placed = np.isfinite(roots_mm).all(axis=1) & (range_m > 0)
        placed &= (options.min_range_m <= range_m) & (range_m <= options.max_range_m)
        orientations, turn_covariances = root_orientations(
            joints_mm, self.skeleton, error, doubt
        )
        people: list[Person | None] = [None] * len(score)
        for i in placed.nonzero()[0]:
            has_front = not np.isnan(orientations[i, 0])
            people[i] = Person(
                score=float(score[i]),
                bbox_xywh_px=bbox[i],
                root_px=root_px[i],
                root_mm=roots_mm[i],
                root_covariance_mm2=covariances[i],
                joints_px=joints_px[i],
                joints_mm=joints_mm[i],
                joint_scores=scores[i],
                joint_status=status[i],
                gamma=float(gamma[i]),
                root_orientation_xyzw=orientations[i] if has_front else None,
                root_orientation_covariance=turn_covariances[i] if has_front else None,
            )
        return people


def _processed(found: Detections, intrinsics: Intrinsics) -> _Boxes:
    boxes = np.asarray(found.boxes_xywh_px, np.float64)
    squares, kept = crops.process_boxes(boxes, intrinsics.width, intrinsics.height)
    return _Boxes(squares, boxes[kept], np.asarray(found.scores, np.float64)[kept], kept)


def _table(poses: CropPoses) -> FloatArray:
    """(N, ...) columns of gamma, pixels of root and joints, depths, scores: a single transfer from
    the device."""
    parts = [poses.gamma[:, None], poses.root_px, poses.joints_px.flatten(1)]
    parts += [poses.joints_z_mm, poses.joint_scores]
    return torch.cat(parts, dim=1).cpu().numpy().astype(np.float64)


def _own_estimator(
    chosen: weights.WeightSet,
    paths: Mapping[str, Path],
    device: torch.device,
    precision: torch.dtype,
    runner: Callable[[torch.dtype], Runner] | None,
) -> RootPoseEstimator:
    """Of networks that aren't exported."""
    network = GreyRootPose(prepare(chosen.build(paths), device), chosen.crop)
    if runner is None:
        return lower_precision(network, precision)
    precise = runner(torch.float32) if precision != torch.float32 else None
    open_ = partial(compiled, network, chosen.crop.size, runner(precision), precise=precise)
    return CompiledRootPose(network.skeleton, open_)


def _exported_files(
    chosen: weights.WeightSet,
    paths: Mapping[str, Path],
    device: torch.device,
    precision: str,
    backend: str,
) -> FileRunner:
    """
    :raises DeviceError: a precision, device or backend that they aren't for.
    """
    exported = chosen.exported
    assert exported is not None
    if precision not in ("auto", exported.precision):
        raise DeviceError(
            f"these networks were exported in {exported.precision}: leave precision auto, or run "
            f"'mppe export --precision {precision}'"
        )
    if exported.form == "torchscript" and device.type != exported.device:
        raise DeviceError(
            f"these networks were exported for device {exported.device}, not {device.type}: run "
            f"'mppe export --format torchscript --device {device.type}'"
        )
    has_engines = all(path.with_suffix(".engine").is_file() for path in paths.values())
    runs_on = select_exported_backend(backend, device, exported.form, has_engines)
    return FileRunner(paths, runs_on, device)


def judge(person: Person, sharpness: float | None) -> Person:
    """A detected person with DetectNet's score after PoseNet's word: where nobody is, heatmaps are
    blunt. A score of 1 is knowledge (`FixedBoxes`) and stays.

    :param sharpness: as of `Pipeline`.
    """
    if sharpness is None or person.score == 1:
        return person
    factor = min(1.0, float(person.joint_scores.mean()) / sharpness)
    return replace(person, score=person.score * factor)


def _joint_status(
    joints_px: FloatArray,
    joints_z_mm: FloatArray,
    joints_mm: FloatArray,
    scores: FloatArray,
    intrinsics: Intrinsics,
    options: PipelineOptions,
) -> npt.NDArray[np.uint8]:
    """(N, J) JointStatus; the worst that applies."""
    status = np.full(scores.shape, JointStatus.OK, np.uint8)
    status[scores < options.joint_threshold] = JointStatus.LOW_SCORE
    beyond = np.abs(joints_z_mm) > _VOLUME_EDGE_MM
    status[~camera.inside(joints_px, intrinsics) | beyond] = JointStatus.TRUNCATED
    # A pixel beyond the edge of what the lens can see has no place, though it is a number itself.
    finite = np.isfinite(joints_px).all(-1) & np.isfinite(joints_mm).all(-1) & np.isfinite(scores)
    status[~finite] = JointStatus.INVALID
    return status
