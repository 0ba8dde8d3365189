"""Boxes and crops: the reference's arithmetic, OpenCV's pixels, round trips, gradients."""

import cv2
import numpy as np
import pytest
import torch

from mppe_ros import crops


def smooth_noise(seed: int, height: int, width: int) -> np.ndarray:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return cv2.GaussianBlur(image, (0, 0), 1.0)


def warp_affine(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The crop as method.md defines it, by OpenCV and three points."""
    x, y, w, h = box
    centre = np.array([x + w / 2, y + h / 2])
    source = np.float32([centre, centre + (0, h / 2), centre + (w / 2, 0)])
    half = size / 2
    target = np.float32([[half, half], [half, size], [size, half]])
    matrix = cv2.getAffineTransform(source, target)
    return cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR)


@pytest.mark.parametrize("size", [64, 160, 256])
def test_crops_equal_opencv_in_the_interior(size: int) -> None:
    image = smooth_noise(1, 480, 640)
    boxes = np.array(
        [[200.3, 100.7, 180.0, 180.0], [-40.5, -20.25, 300.0, 300.0], [500, 350, 260, 260],
         [310.1, 220.9, 31.7, 31.7]]
    )  # fmt: skip
    ours = crops.crop_people(
        [torch.from_numpy(image)],
        boxes,
        np.zeros(len(boxes)),
        size,
    )
    assert ours.shape == (len(boxes), 3, size, size)
    for crop, box in zip(ours, boxes, strict=True):
        expected = warp_affine(image.astype(np.float32), box, size)
        difference = np.abs(crop.permute(1, 2, 0).numpy() - expected)
        inside = cv2.erode((expected > 0).all(-1).astype(np.uint8), np.ones((5, 5)))
        assert inside.any()
        # OpenCV 4 rounds positions to 1/32 px, OpenCV 5 does not.
        tolerance = 1.0 if int(cv2.__version__[0]) >= 5 else 4.0
        assert difference[inside.astype(bool)].max() <= tolerance


def test_outside_the_image_is_black() -> None:
    image = torch.full((100, 100, 3), 255, dtype=torch.uint8)
    box = np.array([[-100.0, -100.0, 200.0, 200.0]])
    crop = crops.crop_people([image], box, [0], 64)[0]
    assert crop[:, :31, :31].abs().max() == 0
    assert crop[:, 34:, 34:].min() == 255


def test_batched_equals_single_over_people_and_images() -> None:
    images = [torch.from_numpy(smooth_noise(s, 120 + 40 * s, 200)) for s in range(3)]
    boxes = np.array([[10.0, 20, 60, 60], [30, 5, 100, 100], [-5, 60, 80, 80], [1, 2, 33, 33]])
    index = [2, 0, 2, 1]
    batched = crops.crop_people(images, boxes, index, 48)
    for i, box in enumerate(boxes):
        alone = crops.crop_people([images[index[i]]], box[None], [0], 48)
        torch.testing.assert_close(batched[i], alone[0])


def test_nobody_gives_no_crops() -> None:
    none = crops.crop_people([torch.zeros((9, 9, 3), dtype=torch.uint8)], np.empty((0, 4)), [], 32)
    assert none.shape == (0, 3, 32, 32)


@pytest.mark.parametrize("antialias", [False, True])
def test_crops_are_differentiable_in_box_and_image(antialias: bool) -> None:
    image = torch.from_numpy(smooth_noise(4, 90, 90)).float().requires_grad_()
    boxes = torch.tensor([[3.3, 4.4, 70.0, 70.0]], requires_grad=True)
    crops.crop_people([image], boxes, [0], 16, antialias).square().mean().backward()
    assert image.grad is not None and image.grad.abs().sum() > 0
    assert boxes.grad is not None and boxes.grad.abs().sum() > 0


def test_antialiasing_averages_instead_of_skipping() -> None:
    stripes = torch.zeros((512, 512, 3), dtype=torch.uint8)
    stripes[:, ::2] = 200
    box = np.array([[0.0, 0.0, 512.0, 512.0]])
    crop = crops.crop_people([stripes], box, [0], 64, antialias=True).float()
    assert (crop[..., 2:-2, 2:-2] - 100).abs().max() < 1e-3


def test_antialiased_crops_keep_positions() -> None:
    """A smooth gradient reads the same from every pyramid level."""
    ramp = torch.arange(400.0)[None, :, None].expand(400, 400, 3) / 2
    box = np.array([[50.2, 31.7, 300.0, 300.0]])
    plain, smooth = (crops.crop_people([ramp], box, [0], 32, antialias) for antialias in (0, 1))
    torch.testing.assert_close(plain, smooth, atol=1e-3, rtol=0)


def test_points_round_trip_between_crop_and_image() -> None:
    generator = torch.Generator().manual_seed(3)
    boxes = torch.rand((5, 4), generator=generator) * 200 + 20
    points = torch.rand((5, 21, 2), generator=generator) * 256
    back = crops.to_crop(crops.to_image(points, boxes, 256), boxes, 256)
    torch.testing.assert_close(back, points, atol=1e-3, rtol=0)


def test_a_marked_pixel_is_found_where_to_crop_says() -> None:
    image = torch.zeros((200, 300, 3), dtype=torch.uint8)
    image[77, 123] = 255
    box = np.array([[60.0, 20.0, 128.0, 128.0]])
    crop = crops.crop_people([image], box, [0], 256)[0, 0].numpy()
    cells = np.arange(256)
    found = [np.average(cells, weights=crop.sum(axis, dtype=float)) for axis in (0, 1)]
    expected = crops.to_crop(np.array([[123.0, 77.0]]), box, 256)[0]
    np.testing.assert_allclose(found, expected, atol=0.02)


def reference_box(box: list[float], width: int, height: int) -> list[float] | None:
    """Steps 1 to 3 of method.md, written out for one box."""
    x, y, w, h = box
    x1, y1 = max(0, x), max(0, y)
    x2, y2 = min(width - 1, x1 + max(0, w - 1)), min(height - 1, y1 + max(0, h - 1))
    if w * h <= 0 or x2 < x1 or y2 < y1:
        return None
    w, h = x2 - x1, y2 - y1
    cx, cy = x1 + w / 2, y1 + h / 2
    side = max(w, h) * 1.25
    return [cx - side / 2, cy - side / 2, side, side]


def test_processed_boxes_equal_the_written_out_steps() -> None:
    random = np.random.default_rng(5)
    boxes = np.concatenate(
        [random.uniform(-100, 700, (300, 2)), random.uniform(-20, 500, (300, 2))], 1
    )
    processed, kept = crops.process_boxes(boxes, 640, 480)
    expected = {i: reference_box(list(box), 640, 480) for i, box in enumerate(boxes)}
    expected = {i: box for i, box in expected.items() if box is not None and box[2] > 0}
    assert kept.tolist() == list(expected)
    np.testing.assert_allclose(processed, list(expected.values()), atol=1e-9)


def test_boxes_that_are_empty_outside_or_not_numbers_are_dropped() -> None:
    nan = float("nan")
    boxes = np.array(
        [[10, 10, 0, 5], [10, 10, -3, 5], [700, 10, 20, 20], [nan, 1, 2, 3], [1, 2, nan, 3],
         [5, 5, 1, 1], [5, 5, 30, 40]]
    )  # fmt: skip
    _, kept = crops.process_boxes(boxes, 640, 480)
    assert kept.tolist() == [6]
    none, kept = crops.process_boxes(np.empty((0, 4)), 640, 480)
    assert none.shape == (0, 4) and len(kept) == 0


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(("height", "width"), [(480, 640), (333, 517), (1080, 1919)])
def test_opencv_and_torch_cut_the_same(antialias: bool, height: int, width: int) -> None:
    """What a CPU does with whole grey values is what any device does with the same numbers."""
    image = smooth_noise(7, height, width)
    rng = np.random.default_rng(height)
    sides = rng.uniform(40, 1.2 * height, 12)
    corners = rng.uniform(-0.3, 0.9, (12, 2)) * [width, height]
    boxes = np.column_stack([corners, sides, sides])
    index = np.zeros(len(boxes))
    whole, real = (
        crops.crop_people([pixels], boxes, index, 64, antialias)
        for pixels in (torch.from_numpy(image), torch.from_numpy(image).float())
    )
    assert whole.dtype == torch.uint8 and whole.stride() == real.stride()
    difference = (whole.float() - real).abs()
    assert difference.max() <= 6 and difference.mean() < 0.5, (difference.max(), difference.mean())
