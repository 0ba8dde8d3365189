"""The three stages in a row, with small networks of known answers and with the embedded set."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mppe_ros import camera, weights
from mppe_ros.detectors import FixedBoxes
from mppe_ros.evaluation.methods import OnGivenBoxes
from mppe_ros.networks import CropPoses, DisjointRootPose, GreyRootPose, PoseNet, RootNet
from mppe_ros.pipeline import Pipeline, PipelineOptions
from mppe_ros.skeletons import HUMAN36M_17, MUCO_21
from mppe_ros.structures import Intrinsics, JointStatus, Person, RootError
from mppe_ros.weights import CropSpec

CAMERA = Intrinsics(600, 620, 321, 239, 640, 480)
UNIT_CROP = CropSpec(64, mean=(0, 0, 0), std=(1, 1, 1))
ERROR = RootError(along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0)
BOXES = [[100.0, 80, 120, 260], [300, 60, 90, 200], [420, 200, 150, 150]]


class Puppets:
    """Answers of a known kind: root and joints at fixed places of the crop."""

    skeleton = HUMAN36M_17

    def __init__(self, gamma: float = 0.9, joint_px: float = 40.0, z_mm: float = 100.0) -> None:
        self.gamma, self.joint_px, self.z_mm = gamma, joint_px, z_mm
        self.score, self.root_px = 0.8, 30.0
        self.calls: list[int] = []

    def __call__(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        count = len(crops)
        self.calls.append(count)
        return CropPoses(
            torch.full((count, 2), self.root_px),
            torch.full((count,), self.gamma),
            torch.full((count, 17, 2), self.joint_px),
            torch.full((count, 17), self.z_mm),
            torch.full((count, 17), self.score),
        )


def pipeline(
    boxes: list[list[list[float]]], estimator: object = None, **options: object
) -> Pipeline:
    return Pipeline(
        FixedBoxes(boxes),
        estimator or Puppets(),  # type: ignore[arg-type]
        UNIT_CROP,
        ERROR,
        model="puppets",
        device=torch.device("cpu"),
        options=PipelineOptions(detection_threshold=0, **options),  # type: ignore[arg-type]
    )


def photo(seed: int = 0, width: int = 640, height: int = 480) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_people_stand_where_gamma_and_k_put_them() -> None:
    people = pipeline([BOXES])([photo()], [CAMERA])[0]
    assert len(people) == 3
    for person, (x, y, w, h) in zip(people, BOXES, strict=True):
        np.testing.assert_allclose(person.bbox_xywh_px, (x, y, w, h))
        side = 1.25 * (max(w, h) - 1)
        k = 2000 * math.sqrt(CAMERA.fx * CAMERA.fy) / side
        assert person.root_mm[2] == pytest.approx(0.9 * k, rel=1e-5)
        root_px = np.array([x + (w - 1) / 2, y + (h - 1) / 2]) + (30 - 32) / 64 * side
        np.testing.assert_allclose(person.root_px, root_px, atol=1e-3)
        expected = camera.back_project(root_px, person.root_mm[2], CAMERA)
        np.testing.assert_allclose(person.root_mm, expected, rtol=1e-5)
        np.testing.assert_allclose(person.joints_mm[:, 2], person.root_mm[2] + 100, rtol=1e-5)
        np.testing.assert_allclose(
            camera.project(person.joints_mm, CAMERA), person.joints_px, atol=1e-6
        )
        assert (person.joint_status == JointStatus.OK).all()


def test_depth_scales_with_the_focal_length() -> None:
    longer = Intrinsics(1200, 1240, 321, 239, 640, 480)
    near, far = (pipeline([BOXES])([photo()], [k])[0] for k in (CAMERA, longer))
    for one, other in zip(near, far, strict=True):
        assert other.root_mm[2] == pytest.approx(2 * one.root_mm[2], rel=1e-6)


def test_k_only_takes_gamma_one_and_the_box_centre() -> None:
    person = pipeline([BOXES[:1]], k_only_root=True)([photo()], [CAMERA])[0][0]
    k = 2000 * math.sqrt(600 * 620) / (1.25 * 259)
    assert person.root_mm[2] == pytest.approx(k, rel=1e-5)
    np.testing.assert_allclose(person.root_px, [100 + 119 / 2, 80 + 259 / 2], atol=1e-3)
    assert person.gamma == 1


def test_blunt_heatmaps_widen_the_covariances() -> None:
    def seen(score: float) -> Person:
        puppets = Puppets()
        puppets.score = score
        one = pipeline([BOXES[:1]], puppets)
        one.root_error = replace(ERROR, usual_score=0.8, blur=4.0)
        return one([photo()], [CAMERA])[0][0]

    usual, blunt, nowhere, nonsense = (seen(score) for score in (0.8, 0.7, 0.0, math.nan))
    along = ERROR.along * np.linalg.norm(usual.root_mm)
    np.testing.assert_allclose(
        usual.root_covariance_mm2,
        camera.ray_covariance(usual.root_mm, along, ERROR.across_mm),
        rtol=1e-4,
    )
    for person, doubt in ((blunt, math.exp(0.4)), (nowhere, 4.0), (nonsense, 4.0)):
        np.testing.assert_allclose(
            person.root_covariance_mm2, doubt**2 * usual.root_covariance_mm2, rtol=1e-4
        )


@pytest.mark.parametrize("outside", [False, True])
def test_across_the_ray_a_root_outside_the_image_is_known_worse(outside: bool) -> None:
    puppets = Puppets()
    puppets.root_px = 5.0 if outside else 30.0
    person = pipeline([[[0.0, 80, 120, 260]]], puppets)([photo()], [CAMERA])[0][0]
    assert (person.root_px[0] < 0) == outside
    along = ERROR.along * np.linalg.norm(person.root_mm)
    across = ERROR.across_mm * (2.0 if outside else 1.0)
    np.testing.assert_allclose(
        person.root_covariance_mm2,
        camera.ray_covariance(person.root_mm, along, across),
        rtol=1e-4,
    )


def test_empty_in_gives_empty_out() -> None:
    assert pipeline([])([], []) == []
    puppets = Puppets()
    assert pipeline([[], []], puppets)([photo(), photo()], [CAMERA, CAMERA]) == [[], []]
    assert puppets.calls == []


def test_all_people_of_all_images_go_through_the_networks_at_once() -> None:
    puppets = Puppets()
    people = pipeline([BOXES, [], BOXES[:1]], puppets)([photo()] * 3, [CAMERA] * 3)
    assert [len(found) for found in people] == [3, 0, 1]
    assert puppets.calls == [4]


@pytest.fixture(scope="module")
def small_networks() -> GreyRootPose:
    torch.manual_seed(3)
    networks = DisjointRootPose(RootNet("resnet18"), PoseNet(MUCO_21, "resnet18"), MUCO_21).eval()
    networks.root_net.root.depth_layer.bias.data.fill_(0.9)
    return GreyRootPose(networks, UNIT_CROP)


def test_batched_equals_single_over_images_of_different_cameras(
    small_networks: GreyRootPose,
) -> None:
    images = [photo(1), photo(2, 320, 240)]
    cameras = [CAMERA, Intrinsics(300, 300, 160, 120, 320, 240)]
    boxes = [BOXES, [[30.0, 20, 100, 180]]]
    together = pipeline(boxes, small_networks)(images, cameras)
    for image, k, box, expected in zip(images, cameras, boxes, together, strict=True):
        alone = pipeline([box], small_networks)([image], [k])[0]
        assert len(alone) == len(expected)
        for a, b in zip(alone, expected, strict=True):
            np.testing.assert_allclose(a.joints_px, b.joints_px, atol=0.02)
            np.testing.assert_allclose(a.root_mm, b.root_mm, rtol=1e-4)


def test_bfloat16_is_near_float32(small_networks: GreyRootPose) -> None:
    exact = pipeline([BOXES], small_networks)([photo()], [CAMERA])[0]
    halved = pipeline([BOXES], small_networks)
    halved.precision = torch.bfloat16
    for a, b in zip(exact, halved([photo()], [CAMERA])[0], strict=True):
        np.testing.assert_allclose(a.joints_px, b.joints_px, atol=2.0)
        np.testing.assert_allclose(a.root_mm, b.root_mm, rtol=0.05)


def test_options_select_people() -> None:
    near = Intrinsics(600, 620, 321, 239, 640, 480)
    everyone = pipeline([BOXES])([photo()], [near])[0]
    depths = sorted(person.root_mm[2] / 1000 for person in everyone)
    middle = (depths[0] + depths[1]) / 2
    assert len(pipeline([BOXES], min_range_m=middle)([photo()], [near])[0]) == 2
    assert len(pipeline([BOXES], max_range_m=middle)([photo()], [near])[0]) == 1
    assert len(pipeline([BOXES], max_persons=2)([photo()], [near])[0]) == 2
    confident = pipeline([BOXES])
    confident.detector = FixedBoxes([BOXES], [[0.9, 0.2, 0.6]])
    confident.options = PipelineOptions(detection_threshold=0.5)
    assert [round(p.score, 3) for p in confident([photo()], [near])[0]] == [0.9, 0.6]


def test_people_at_no_distance_at_all_are_left_out() -> None:
    assert pipeline([BOXES], Puppets(gamma=math.nan))([photo()], [CAMERA]) == [[]]


@pytest.mark.parametrize(
    ("estimator", "status"),
    [
        (Puppets(joint_px=-500), JointStatus.TRUNCATED),
        (Puppets(z_mm=990), JointStatus.TRUNCATED),
        (Puppets(z_mm=math.nan), JointStatus.INVALID),
        (Puppets(joint_px=math.inf), JointStatus.INVALID),
    ],
)
def test_joint_status(estimator: Puppets, status: JointStatus) -> None:
    person = pipeline([BOXES[:1]], estimator)([photo()], [CAMERA])[0][0]
    assert (person.joint_status == status).all()


def test_low_scores_are_marked() -> None:
    person = pipeline([BOXES[:1]], joint_threshold=0.9)([photo()], [CAMERA])[0][0]
    assert (person.joint_status == JointStatus.LOW_SCORE).all()


@pytest.mark.parametrize(
    ("image", "complaint"),
    [
        (np.zeros((480, 640), np.uint8), "uint8 RGB"),
        (np.zeros((480, 640, 4), np.uint8), "uint8 RGB"),
        (np.zeros((480, 640, 3), np.float32), "float32"),
        (np.zeros((479, 640, 3), np.uint8), "640x479 px, its camera 640x480"),
    ],
)
def test_wrong_images_are_refused_with_a_reason(image: np.ndarray, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        pipeline([BOXES])([image], [CAMERA])


def test_embedded_set_loads_and_finds_nobody_in_the_dark() -> None:
    loaded = Pipeline.load(device="cpu")
    assert loaded.skeleton.name == weights.find(weights.DEFAULT).joints
    assert loaded.model.startswith(f"{weights.DEFAULT} (")
    assert loaded([np.zeros((480, 640, 3), np.uint8)], [CAMERA]) == [[]]


class TooSmall(Puppets):
    """A device whose memory holds so many people."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__()
        self.most, self.error = most, error

    def __call__(self, crops: torch.Tensor, flip_test: bool = False) -> CropPoses:
        poses = super().__call__(crops, flip_test)
        if len(crops) > self.most:
            raise self.error
        return poses


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory."),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["cuda", "python", "cpu", "cudnn", "cublas"],
)
def test_where_memory_is_short_people_are_seen_in_smaller_batches(error) -> None:
    boxes = [[BOXES[0], BOXES[1], BOXES[2]], [BOXES[1]]]
    images, cameras = [photo(0), photo(1)], [CAMERA, CAMERA]
    expected = pipeline(boxes)(images, cameras)
    small = pipeline(boxes, TooSmall(2, error))
    assert small.complaint == ""
    for _ in range(2):
        for row, wanted in zip(small(images, cameras), expected, strict=True):
            for person, other in zip(row, wanted, strict=True):
                np.testing.assert_array_equal(person.joints_mm, other.joints_mm)
                np.testing.assert_array_equal(person.bbox_xywh_px, other.bbox_xywh_px)
    # Once too many, and never again.
    assert small.estimator.calls == [4, 2, 2, 2, 2]
    assert "only 2 people at once" in small.complaint


def test_what_is_no_lack_of_memory_or_hopeless_is_an_error() -> None:
    lost = pipeline([BOXES], TooSmall(0, RuntimeError("CUDA error: device lost")))
    with pytest.raises(RuntimeError, match="device lost"):
        lost([photo()], [CAMERA])
    assert lost.estimator.calls == [3] and lost.complaint == ""
    hopeless = pipeline([BOXES], TooSmall(0, MemoryError()))
    with pytest.raises(MemoryError):
        hopeless([photo()], [CAMERA])
    assert hopeless.estimator.calls == [3, 1]


def test_where_heatmaps_are_blunt_detections_are_doubted() -> None:
    """Puppets' joints score 0.8; a score of 1 is not DetectNet's but knowledge."""
    seen = pipeline([BOXES])
    seen.detector = FixedBoxes([BOXES], [[0.9, 0.6, 1.0]])
    for sharpness, scores in ((None, [0.9, 0.6, 1]), (0.7, [0.9, 0.6, 1]), (1.6, [0.45, 0.3, 1])):
        seen.sharpness = sharpness
        found = seen([photo()], [CAMERA])[0]
        assert [person.score for person in found] == pytest.approx(scores)
    seen.options = PipelineOptions(detection_threshold=0.4)
    assert [person.score for person in seen([photo()], [CAMERA])[0]] == pytest.approx([0.45, 1])


def test_given_boxes_are_not_doubted() -> None:
    seen = pipeline([BOXES])
    seen.sharpness = 1.6
    found = OnGivenBoxes(seen)(photo(), CAMERA, np.array(BOXES))
    for person, box in zip(found, BOXES, strict=True):
        assert person is not None
        np.testing.assert_allclose(person.bbox_xywh_px, box)
