"""DetectNet: torchvision's detectors narrowed to people, our own small one, fixed boxes.

``data/detect_v0_expected.npz`` holds an image of three people drawn from capsules, and what the
prototype that ``open_v0`` was trained with (OpenCV for resizing, NumPy for suppression) gave for
it and for photographs that are not in this repository; boxes are left, top, right, bottom, score.
"""

from __future__ import annotations

import urllib.error
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import nn
from torchvision import ops
from torchvision.models import detection as zoo
from torchvision.models.detection import faster_rcnn, rpn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool

from mppe_ros.checkpoints import CheckpointError
from mppe_ros.detectors import (
    DETECTORS,
    MAX_DETECTIONS,
    CenterDetector,
    CenterPersons,
    Detector,
    FixedBoxes,
    NetworkDetector,
    build_detector,
    fetch,
)
from mppe_ros.detectors.center import area_means, resize_area
from mppe_ros.detectors.pyramid import FeaturePyramid
from mppe_ros.detectors.regions import ProposalHead, RegionHead, RegionPool
from mppe_ros.inference import Room
from mppe_ros.structures import Detections

EXPECTED = np.load(Path(__file__).parent / "data" / "detect_v0_expected.npz")
PHOTOS = Path(__file__).resolve().parents[2] / "shared" / "data" / "photos"
IMAGE = torch.from_numpy(EXPECTED["image"])  # (480, 640, 3)
SMALL_IMAGE = IMAGE[::2, ::2].contiguous()
MIN_SIZE = 256  # px of the shorter side, for speed

# torchvision's own whole networks, to compare with
WHOLE_NETWORKS = {
    "maskrcnn_r50_fpn": zoo.maskrcnn_resnet50_fpn,
    "fasterrcnn_mobilenet_v3_large_fpn": zoo.fasterrcnn_mobilenet_v3_large_fpn,
    "fasterrcnn_mobilenet_v3_large_320_fpn": zoo.fasterrcnn_mobilenet_v3_large_320_fpn,
    "ssdlite320_mobilenet_v3_large": zoo.ssdlite320_mobilenet_v3_large,
}
MOBILENET = "fasterrcnn_mobilenet_v3_large_320_fpn"
SSDLITE = "ssdlite320_mobilenet_v3_large"


@pytest.fixture(scope="module")
def open_v0() -> Detector:
    return build_detector("open_v0")


def whole_network(name: str) -> nn.Module:
    """torchvision's network with seeded weights that find people, and other things, anywhere."""
    torch.manual_seed(0)
    network = WHOLE_NETWORKS[name](weights=None, weights_backbone=None)
    normalise_signals(network)
    if name == "maskrcnn_r50_fpn":
        network = frozen(network)
    if name == SSDLITE:
        for block in network.head.classification_head.module_list:
            block[1].weight.data.mul_(8)
    else:
        network.transform.min_size = (MIN_SIZE,)
        spread_predictions(network)
    return network.eval()


def frozen(network: nn.Module) -> nn.Module:
    """The same Mask R-CNN with the normalisation that torchvision gives it for its weights."""
    norm = partial(ops.FrozenBatchNorm2d, eps=0.0)
    backbone = resnet_fpn_backbone(backbone_name="resnet50", weights=None, norm_layer=norm)
    # Ours looks at fewer proposals in smaller images than it was trained on.
    copy = zoo.MaskRCNN(backbone, num_classes=91, rpn_post_nms_top_n_test=300)
    copy.load_state_dict(network.state_dict())
    return copy


@torch.no_grad()
def normalise_signals(network: nn.Module) -> None:
    """Let batch normalisation see images once, without which signals fade or grow on the way."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    pixels = torch.stack([IMAGE[:256, left : left + 256] for left in (0, 160, 320)])
    features = network.backbone(pixels.permute(0, 3, 1, 2) / 128 - 1)
    if isinstance(network, zoo.ssd.SSD):
        network.head(list(features.values()))


@torch.no_grad()
def spread_predictions(network: nn.Module) -> None:
    """Let a random R-CNN's scores and boxes vary over its proposals as a trained one's do."""
    seen: list[torch.Tensor] = []
    predictor = network.roi_heads.box_predictor
    hook = predictor.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network.eval()
    network.roi_heads.mask_roi_pool = None  # masks come after the boxes and don't change them
    network([SMALL_IMAGE.permute(2, 0, 1) / 255])
    hook.remove()
    for layer in (predictor.cls_score, predictor.bbox_pred):
        outputs = layer(seen[0])
        gain = 1.5 / outputs.std(0)
        layer.bias.copy_((layer.bias - outputs.mean(0)) * gain)
        layer.weight.mul_(gain[:, None])
    predictor.cls_score.bias[1] += 3  # people are likelier than the other classes


def save(network: nn.Module, folder: Path) -> Path:
    path = folder / "detector.pth"
    torch.save(network.state_dict(), path)
    return path


def suppressor(network: nn.Module) -> nn.Module:
    """Where torchvision keeps the thresholds of its post-processing."""
    return getattr(network, "roi_heads", network)


def corners(found: Detections) -> torch.Tensor:
    """(N, 5): left, top, right, bottom, score."""
    boxes = ops.box_convert(torch.as_tensor(found.boxes_xywh_px), "xywh", "xyxy")
    return torch.cat([boxes, torch.as_tensor(found.scores)[:, None]], 1)


def assert_nobody(found: Detections) -> None:
    assert found.boxes_xywh_px.shape == (0, 4)
    assert found.scores.shape == (0,)


def unmatched(rows: np.ndarray, others: np.ndarray, tolerance_px: float) -> np.ndarray:
    """Rows (N, 5) whose box and score (to 0.01) none of the others has; order doesn't matter."""
    off = np.abs(rows[:, None] - others) / [*[tolerance_px] * 4, 0.01]
    return rows[~(off.max(2) < 1).any(1)]


def assert_same_people(found: Detections, expected: np.ndarray) -> None:
    """Each box with a score over 0.1 of one has its like in the other."""
    rows = corners(found).numpy()
    assert not len(unmatched(expected[expected[:, 4] > 0.1], rows, 0.5))
    assert not len(unmatched(rows[rows[:, 4] > 0.1], expected, 0.5))


# ---------------------------------------------------------------- what every detector does


def test_every_row_has_its_own_name_and_says_what_it_is() -> None:
    assert all(name == spec.name for name, spec in DETECTORS.items())
    assert all(spec.summary and spec.licence for spec in DETECTORS.values())


def test_no_images_give_no_detections(open_v0: Detector) -> None:
    assert open_v0([]) == []
    assert FixedBoxes([])([]) == []


def test_an_unknown_detector_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"no detector is called 'yolo'.*open_v0"):
        build_detector("yolo")


@pytest.mark.parametrize("name", ["open_v0", SSDLITE])
def test_a_fixed_input_size_cannot_be_changed(name: str) -> None:
    with pytest.raises(ValueError, match="fixed input size"):
        build_detector(name, min_size=320)


# ---------------------------------------------------------------- fixed boxes


def test_fixed_boxes_come_back_as_given() -> None:
    boxes = [[[30, 5, 10, 20], [-4, 0, 999, 7]], np.empty((0, 4)), [[1, 2, 3, 4]]]
    scores = [[0.2, 0.9], [], [0.5]]
    images = [torch.zeros(8, 8, 3, dtype=torch.uint8)] * 3
    first, nobody, last = FixedBoxes(boxes, scores)(images)
    assert first.boxes_xywh_px.tolist() == boxes[0]
    assert first.scores.tolist() == pytest.approx([0.2, 0.9])
    assert_nobody(nobody)
    assert last.boxes_xywh_px.tolist() == boxes[2]


def test_fixed_boxes_score_one_unless_told() -> None:
    (found,) = FixedBoxes([[[1, 2, 3, 4], [5, 6, 7, 8]]])([IMAGE])
    assert found.scores.tolist() == [1, 1]


def test_an_empty_list_of_fixed_boxes_is_nobody() -> None:
    (found,) = FixedBoxes([[]])([IMAGE])
    assert_nobody(found)


def test_fixed_boxes_must_fit_scores_and_images() -> None:
    with pytest.raises(ValueError, match="one score per box"):
        FixedBoxes([[[1, 2, 3, 4]]], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="for 1 images, got 2"):
        FixedBoxes([[[1, 2, 3, 4]]])([IMAGE, IMAGE])


# ---------------------------------------------------------------- torchvision's detectors


@torch.inference_mode()
@pytest.mark.parametrize(
    ("names", "size"), [(["0", "1", "2", "3"], 7), (["0", "1"], (7, 5)), (["2", "3"], 3)]
)
def test_regions_features_are_those_of_torchvision(
    names: list[str], size: int | tuple[int, int]
) -> None:
    torch.manual_seed(6)
    sizes, samples = [(200, 264), (180, 256)], 2
    pool = ops.MultiScaleRoIAlign(names, size, samples)
    maps = {str(i): torch.randn(2, 5, 50 >> i, 68 >> i) for i in range(4)}
    boxes = []
    for (height, width), count in zip(sizes, (300, 80), strict=True):
        image = torch.tensor([width, height])
        corner = torch.rand(count, 2) * image
        # Of all sizes; many leave the image, and are cut off at its edge.
        far = torch.minimum(corner + torch.rand(count, 2) ** 3 * image, image)
        boxes.append(torch.cat([corner, far], 1))
    boxes[0][:2] = torch.tensor([[0, 0, 264, 200], [263.9, 199.9, 264, 200]])
    ours = RegionPool(pool)
    for found in (boxes, [boxes[1], boxes[0][:1]], [boxes[0][:0], boxes[1]]):
        torch.testing.assert_close(
            ours(maps, found, sizes), pool(maps, found, sizes), atol=1e-4, rtol=0
        )
    nobody = [rows[:0] for rows in boxes]
    assert ours(maps, nobody, sizes).shape == pool(maps, nobody, sizes).shape


@torch.inference_mode()
def test_regions_features_in_bfloat16_stay_near() -> None:
    torch.manual_seed(8)
    pool = ops.MultiScaleRoIAlign(["0"], 7, 2)
    maps = {"0": torch.randn(1, 5, 50, 68)}
    corners = torch.rand(300, 2) * torch.tensor([200.0, 140.0])
    boxes = [torch.cat([corners, corners + 50], 1)]
    found = RegionPool(pool, torch.bfloat16)(maps, boxes, [(200, 272)])
    assert found.dtype == torch.bfloat16
    expected = pool(maps, boxes, [(200, 272)])
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.01)


@torch.inference_mode()
@pytest.mark.parametrize(
    ("precision", "least", "most"), [(torch.float32, 0, 1e-5), (torch.bfloat16, 1e-4, 0.03)]
)
@pytest.mark.parametrize("extra", [LastLevelMaxPool(), None])
def test_feature_pyramid_is_that_of_torchvision(
    precision: torch.dtype, least: float, most: float, extra: nn.Module | None
) -> None:
    torch.manual_seed(10)
    pyramid = FeaturePyramidNetwork([7, 9, 11, 5], 6, extra).requires_grad_(False)
    for block in pyramid.inner_blocks:
        nn.init.normal_(block[0].bias)
    ours = FeaturePyramid(pyramid, precision, Room())
    # A map as large as the next one, too, as MobileNet's are. One call after the other with the
    # same memory: nothing of a size may be left in the next one.
    for height, width in [(24, 40), (8, 8), (24, 40)]:
        sides = [(height, width), (height // 2, width // 2), *[(height // 4, width // 4)] * 2]
        for count in (1, 2):
            maps = {
                str(i): torch.randn(count, channels, *side)
                for i, (channels, side) in enumerate(zip([7, 9, 11, 5], sides, strict=True))
            }
            columns = {
                name: map_.contiguous(memory_format=torch.channels_last)
                for name, map_ in maps.items()
            }
            expected = pyramid(maps)
            for same in (maps, columns):
                found = ours(same)
                assert list(found) == list(expected)
                for name, map_ in found.items():
                    assert map_.dtype == precision and map_.shape == expected[name].shape
                    error = (map_.float() - expected[name]).norm() / expected[name].norm()
                    assert least <= error < most


@torch.inference_mode()
@pytest.mark.parametrize("anchors", [1, 3, 4])
def test_proposals_head_is_that_of_torchvision(anchors: int) -> None:
    torch.manual_seed(9)
    with torch.inference_mode(False):
        head = rpn.RPNHead(6, anchors)
        for layer in (head.cls_logits, head.bbox_pred):
            nn.init.normal_(layer.bias)
        ours = ProposalHead(head, torch.float32, Room())
    maps = [torch.randn(2, 6, 17, 25), torch.randn(2, 6, 9, 13), torch.randn(2, 6, 1, 1)]
    for found, expected in zip(ours(maps), head(maps), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_regions_head_is_that_of_torchvision() -> None:
    torch.manual_seed(7)
    head = faster_rcnn.TwoMLPHead(6 * 3 * 2, 10)
    features = torch.randn(4, 6, 3, 2)
    expected = head(features)
    columns = features.contiguous(memory_format=torch.channels_last)
    ours = RegionHead(head, (3, 2))
    for same in (features, columns):
        torch.testing.assert_close(ours(same), expected)


@pytest.mark.parametrize("name", WHOLE_NETWORKS)
def test_people_equal_those_of_torchvisions_whole_network(name: str, tmp_path: Path) -> None:
    whole = whole_network(name)
    options = {} if name == SSDLITE else {"min_size": MIN_SIZE}
    detector = build_detector(name, save(whole, tmp_path), **options)
    assert isinstance(detector, NetworkDetector)
    reference, narrowed = suppressor(whole), suppressor(detector.network)
    reference.score_thresh = 0.05
    reference.detections_per_img = 100_000  # of all classes; ours are people only
    for iou_threshold in (reference.nms_thresh, 1.0):  # 1: before suppression
        reference.nms_thresh = narrowed.nms_thresh = iou_threshold
        (found,) = detector([SMALL_IMAGE])
        with torch.no_grad():
            (everything,) = whole([SMALL_IMAGE.permute(2, 0, 1) / 255])
        person = everything["labels"] == 1
        expected = torch.cat([everything["boxes"], everything["scores"][:, None]], 1)[person]
        assert 5 < len(found) <= MAX_DETECTIONS
        # Boxes of equal score may come in either order.
        best = expected[:MAX_DETECTIONS, 4]
        np.testing.assert_allclose(found.scores, best, atol=0.01)
        # Folded normalisation rounds otherwise, and decides a near tie of proposals otherwise.
        assert len(unmatched(corners(found).numpy(), expected.numpy(), 0.02)) <= 0.05 * len(found)


@pytest.mark.parametrize("name", [MOBILENET, SSDLITE])
def test_images_of_different_sizes_in_one_call_equal_single_calls(
    name: str, tmp_path: Path
) -> None:
    detector = build_detector(name, save(whole_network(name), tmp_path))
    images = [IMAGE[:300], IMAGE[:, 100:500], IMAGE[:300].flip(1)]
    together = detector(images)
    for image, found in zip(images, together, strict=True):
        (alone,) = detector([image])
        assert len(found) > 5
        torch.testing.assert_close(corners(found), corners(alone), rtol=1e-4, atol=1e-2)
        height, width = image.shape[:2]
        left, top, right, bottom, score = corners(found).T
        assert left.min() >= 0 and top.min() >= 0
        assert right.max() <= width + 1e-3 and bottom.max() <= height + 1e-3
        assert (score.diff() <= 0).all()


def test_unsure_torchvision_detectors_see_nobody(tmp_path: Path) -> None:
    whole = whole_network(MOBILENET)
    nn.init.constant_(whole.roi_heads.box_predictor.cls_score.bias[1:2], -30)
    (found,) = build_detector(MOBILENET, save(whole, tmp_path))([IMAGE])
    assert_nobody(found)


def test_mask_branch_is_never_built() -> None:
    with torch.device("meta"):
        ours = DETECTORS["maskrcnn_r50_fpn"].network()
        theirs = zoo.maskrcnn_resnet50_fpn(weights=None, weights_backbone=None)
    assert not ours.roi_heads.has_mask()
    names = {name for name in theirs.state_dict() if "num_batches_tracked" not in name}
    masks = {name for name in names if "mask" in name}
    assert masks and set(ours.state_dict()) == names - masks


def test_x101_is_a_resnext_101_32x8d() -> None:
    with torch.device("meta"):
        network = DETECTORS["maskrcnn_x101_32x8d_fpn"].network(min_size=640)
    body = network.backbone.body
    assert len(body.layer3) == 23
    assert body.layer1[0].conv2.groups == 32
    assert body.layer1[0].conv2.weight.shape == (256, 8, 3, 3)
    assert network.transform.min_size == (640,)


@pytest.mark.parametrize("name", [MOBILENET, SSDLITE])
def test_lower_precision_is_for_the_convolutions_only(name: str, tmp_path: Path) -> None:
    path = save(whole_network(name), tmp_path)
    exact, lower = (build_detector(name, path, precision=p) for p in (torch.float, torch.bfloat16))
    assert isinstance(exact, NetworkDetector) and isinstance(lower, NetworkDetector)
    pixels = SMALL_IMAGE[:224, :320].permute(2, 0, 1)[None] / 128 - 1
    with torch.no_grad():
        # The next call may write where this one did.
        full = {level: maps.clone() for level, maps in exact.network.backbone(pixels).items()}
        rounded = lower.network.backbone(pixels)
        with torch.autocast("cpu", torch.bfloat16):
            expected = exact.network.backbone(pixels)
    for level, features in rounded.items():
        assert features.dtype == torch.float32
        # torch rounds its convolutions alone, not all of the pyramid.
        off = (features - expected[level]).norm() / expected[level].norm()
        assert off < 0.05
        assert not torch.equal(features, full[level])
    (found,) = lower([SMALL_IMAGE])
    assert len(found) > 5
    assert found.boxes_xywh_px.dtype == found.scores.dtype == np.float32


# ---------------------------------------------------------------- weights and their errors


def test_weights_with_torchvisions_older_names_load(tmp_path: Path) -> None:
    """The downloads are from before the pyramid and the RPN were wrapped in Sequential."""
    whole = whole_network(MOBILENET)
    new = whole.state_dict()
    old = {
        name.replace(".0.0.", ".").replace("_blocks.0.0.", "_blocks.0.")
        if name.startswith("rpn.head.conv")
        else name.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        if name.startswith("backbone.fpn")
        else name: value
        for name, value in new.items()
        if "num_batches_tracked" not in name
    }
    assert "rpn.head.conv.weight" in old and "backbone.fpn.inner_blocks.0.weight" in old
    torch.save(old, tmp_path / "old.pth")
    (from_old,) = build_detector(MOBILENET, tmp_path / "old.pth")([IMAGE])
    (from_new,) = build_detector(MOBILENET, save(whole, tmp_path))([IMAGE])
    assert len(from_old) > 5
    assert torch.equal(corners(from_old), corners(from_new))


def test_a_download_that_is_there_already_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / Path(DETECTORS[SSDLITE].weights.url).name
    cached.parent.mkdir()
    save(whole_network(SSDLITE), tmp_path).rename(cached)
    (found,) = build_detector(SSDLITE)([IMAGE])
    assert len(found) > 5


def test_a_failed_download_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match="no route to host") as caught:
        build_detector("maskrcnn_r50_fpn")
    assert DETECTORS["maskrcnn_r50_fpn"].weights.url in str(caught.value)
    assert "by hand" in str(caught.value) and "open_s" in str(caught.value)


def test_fetching_downloads_only_what_is_torchvisions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(url: str, dst: str, *_: object, **__: object) -> None:
        asked.append(url)
        torch.save({}, dst)

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    fetch("open_v0")
    fetch("maskrcnn_x101_32x8d_fpn")
    assert asked == []
    fetch(SSDLITE)
    fetch(SSDLITE)
    assert asked == [DETECTORS[SSDLITE].weights.url]


def test_x101_wants_a_file() -> None:
    with pytest.raises(CheckpointError, match=r"x101.*give a file.*open_s"):
        build_detector("maskrcnn_x101_32x8d_fpn")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nowhere\.pth does not exist"):
        build_detector(MOBILENET, tmp_path / "nowhere.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_truncated_file_is_named(suffix: str, tmp_path: Path) -> None:
    broken = tmp_path / f"broken.{suffix}"
    if suffix == "pth":
        source = save(CenterDetector(), tmp_path)
    else:
        source = DETECTORS["open_v0"].weights
    broken.write_bytes(source.read_bytes()[:100_000])
    with pytest.raises(CheckpointError, match=rf"broken\.{suffix}"):
        build_detector("open_v0", broken)


def test_another_networks_file_is_refused_with_the_first_differing_keys() -> None:
    with pytest.raises(CheckpointError) as caught:
        build_detector(MOBILENET, DETECTORS["open_v0"].weights)
    message = str(caught.value)
    assert "detect.safetensors does not fit detector fasterrcnn_mobilenet" in message
    assert "backbone.body.0.0.weight is missing" in message
    assert len(message) < 600


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"open_v0: size mismatch for lateral32.*more"):
        build_detector("open_v0", save(CenterDetector(channels=8), tmp_path))


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    torch.save(CenterPersons(CenterDetector()), tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match=r"hostile\.pth is refused"):
        build_detector("open_v0", tmp_path / "hostile.pth")


# ---------------------------------------------------------------- open_v0


def test_open_v0_file_says_what_it_is() -> None:
    with safe_open(DETECTORS["open_v0"].weights, "pt") as file:
        assert file.metadata()["architecture"] == "open_v0 detector"


def test_open_v0_maps_equal_the_prototypes(open_v0: NetworkDetector) -> None:
    with torch.no_grad():
        heatmap, distances = open_v0.network(torch.from_numpy(EXPECTED["network_pixels"])[None])
    np.testing.assert_allclose(heatmap[0], EXPECTED["heatmap"], atol=1e-3)
    np.testing.assert_allclose(distances[0], EXPECTED["distances"], atol=1e-3, rtol=1e-4)


def test_open_v0_finds_the_people_that_the_prototype_finds(open_v0: Detector) -> None:
    (found,) = open_v0([IMAGE])
    assert len(found) == 3
    assert_same_people(found, EXPECTED["image_people"])


def test_open_v0_enlarges_small_images_as_the_prototype_does(open_v0: Detector) -> None:
    (found,) = open_v0([SMALL_IMAGE])
    assert_same_people(found, EXPECTED["enlarged_people"])


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="../shared/data/photos is not here")
def test_open_v0_agrees_with_the_prototype_on_photographs(open_v0: Detector) -> None:
    names = [name for name in EXPECTED.files if name.startswith("photo:")]
    assert len(names) == 8
    for name in names:
        photo = cv2.imread(str(PHOTOS / name.removeprefix("photo:")))[..., ::-1]
        (found,) = open_v0([torch.from_numpy(photo.copy())])
        assert_same_people(found, EXPECTED[name])


class ThreePeaks(nn.Module):
    """Maps of a 384x384 image: boxes of 100x100 px in a row, 16 and 40 px apart."""

    def forward(self, _: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        heatmap = torch.full((1, 48, 48), -9.0)
        heatmap[0, 20, [20, 22, 27]] = torch.tensor([2.0, 1.0, 0.0])
        return heatmap, torch.full((1, 4, 48, 48), 50.0)


def test_open_v0_keeps_the_better_of_two_boxes_on_one_person() -> None:
    (found,) = CenterPersons(ThreePeaks())([torch.zeros(384, 384, 3, dtype=torch.uint8)])
    # IoU 0.72 with the first: suppressed; 0.28: another person.
    assert found.boxes_xywh_px.tolist() == [[114, 114, 100, 100], [170, 114, 100, 100]]
    assert found.scores.tolist() == pytest.approx([0.881, 0.5], abs=1e-3)


@pytest.mark.parametrize("grey", [0, 127, 255])
def test_open_v0_sees_nobody_in_an_empty_image(grey: int, open_v0: Detector) -> None:
    (found,) = open_v0([torch.full_like(IMAGE, grey)])
    assert_nobody(found)


def test_open_v0_takes_different_sizes_in_one_call(open_v0: Detector) -> None:
    images = [IMAGE, IMAGE[:, :300], IMAGE.flip(1), IMAGE[:1, :40], IMAGE[:, :300].flip(1)]
    together = open_v0(images)
    assert [len(found) > 0 for found in together] == [True, True, True, False, True]
    for image, found in zip(images, together, strict=True):
        (alone,) = open_v0([image])
        torch.testing.assert_close(corners(found), corners(alone), rtol=1e-4, atol=1e-2)


def test_open_v0_clips_boxes_to_the_image(open_v0: Detector) -> None:
    (found,) = open_v0([IMAGE[100:400, 130:580].contiguous()])  # cuts all three people
    left, top, right, bottom, _ = corners(found).T
    assert len(found) >= 1
    assert left.min() >= 0 and top.min() >= 0
    assert right.max() <= 450 + 1e-3 and bottom.max() <= 300 + 1e-3


def test_open_v0_in_bfloat16_stays_near(open_v0: Detector) -> None:
    (exact,) = open_v0([IMAGE])
    (found,) = build_detector("open_v0", precision=torch.bfloat16)([IMAGE])
    sure = corners(found)[found.scores > 0.4]
    assert found.boxes_xywh_px.dtype == np.float32
    assert ops.box_iou(corners(exact)[:, :4], sure[:, :4]).amax(1).min() > 0.9


def test_autocast_around_a_detector_changes_nothing(open_v0: Detector) -> None:
    (expected,) = open_v0([IMAGE])
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = open_v0([IMAGE])
    assert torch.equal(corners(found), corners(expected))


@pytest.mark.parametrize("size", [(288, 384), (240, 320), (101, 77), (480, 640)])
def test_shrinking_equals_opencvs_inter_area(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    expected = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_AREA)
    for resize in (resize_area, area_means):
        shrunk = resize(torch.from_numpy(noise)[None], size)[0].int().numpy()
        assert np.abs(shrunk - expected).max() <= 1  # ties may round either way
