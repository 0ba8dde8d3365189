"""What a GPU says is what the CPU says, whichever way it is told to compute."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch

from mppe_ros import deployment, media, weights
from mppe_ros.benchmark import networks
from mppe_ros.devices import select_device
from mppe_ros.networks import CropPoses
from mppe_ros.pipeline import Pipeline, PipelineOptions
from mppe_ros.runtimes import CudaGraphs
from mppe_ros.structures import Detections, FloatArray, Intrinsics, Person

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

BACKENDS = ("torch", "cuda_graphs")
CAMERA = Intrinsics.from_fov(60, 640, 480)


class Shot(NamedTuple):
    rgb: media.Rgb
    boxes: FloatArray


def frames(count: int) -> list[media.Rgb]:
    capture = cv2.VideoCapture(str(weights.RESOURCES / "sample" / "clip.mp4"))
    found = []
    for _ in range(count):
        capture.set(cv2.CAP_PROP_POS_FRAMES, 20 * len(found))
        found.append(np.ascontiguousarray(capture.read()[1][..., ::-1]))
    return found


def load(backend: str, precision: str = "fp32", **options: bool) -> Pipeline:
    return Pipeline.load(
        device="cuda", backend=backend, precision=precision, options=PipelineOptions(**options)
    )


def boxes_of(cpu: Pipeline, rgb: media.Rgb) -> FloatArray:
    """Where people are: elsewhere networks aren't sure of anything."""
    (found,) = cpu.detect(cpu.upload([rgb], [CAMERA]))
    return cpu.options.select(found).boxes_xywh_px


def look(
    pipeline: Pipeline, rgb: media.Rgb, boxes: FloatArray, count: int | None = None
) -> list[Person | None]:
    rows = np.resize(boxes, (len(boxes) if count is None else count, 4))
    given = Detections(rows, np.ones(len(rows)))
    (people,) = pipeline.estimate(pipeline.upload([rgb], [CAMERA]), [CAMERA], [given])
    return people


def assert_same(found: list[Person | None], expected: list[Person | None], px, share) -> None:
    assert len(found) == len(expected) and None not in expected
    for one, other in zip(found, expected, strict=True):
        assert one is not None and other is not None
        np.testing.assert_allclose(one.joints_px, other.joints_px, atol=px)
        np.testing.assert_allclose(one.root_px, other.root_px, atol=px)
        np.testing.assert_allclose(one.root_mm[2], other.root_mm[2], rtol=share)
        np.testing.assert_allclose(one.joint_scores, other.joint_scores, atol=10 * share)


@pytest.fixture(autouse=True)
def few_graphs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes seconds."""
    monkeypatch.setattr(CudaGraphs, "AT_ONCE", (4,))


@pytest.fixture(scope="module")
def cpu() -> Pipeline:
    return Pipeline.load(device="cpu", backend="torch")


@pytest.fixture(scope="module")
def shots(cpu: Pipeline) -> list[Shot]:
    """Images with the boxes of their people."""
    return [Shot(rgb, boxes_of(cpu, rgb)) for rgb in frames(3)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("precision", "px", "share"), [("fp32", 0.3, 1e-3), ("fp16", 1.5, 0.01), ("bf16", 8, 0.03)]
)
def test_people_are_where_the_cpu_sees_them(
    cpu: Pipeline, shots: list[Shot], backend: str, precision: str, px: float, share: float
) -> None:
    gpu = load(backend, precision)
    for rgb, boxes in shots:
        assert_same(look(gpu, rgb, boxes), look(cpu, rgb, boxes), px, share)
        found = boxes_of(gpu, rgb)
        assert len(found) == len(boxes) > 0
        nearest = [np.abs(found - box).max(axis=1).min() for box in boxes]
        assert max(nearest) < (1.5 if precision == "fp32" else 6.0)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_graphs_say_what_torch_says_for_any_number_of_people(
    shots: list[Shot], precision: str, flip_test: bool
) -> None:
    plain, graphs = (load(backend, precision, flip_test=flip_test) for backend in BACKENDS)
    px, share = (0.1, 1e-3) if precision == "fp32" else (1.5, 0.01)
    wanted = [look(plain, *shot) for shot in shots[:2]]
    for count in (1, 2, 3, 5, 7, 4, 20, 33, 1):
        for shot, expected in zip(shots[:2], wanted, strict=True):
            found = look(graphs, *shot, count)
            repeated = [expected[index % len(expected)] for index in range(count)]
            assert_same(found, repeated, px, share)
    assert look(graphs, *shots[0], 0) == []


def test_images_of_many_sizes_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CudaGraphs, "MOST", 2)
    plain, graphs = (load(backend) for backend in BACKENDS)
    (rgb,) = frames(1)
    for width, height in [(640, 480), (480, 640), (800, 300), (1920, 1080)] * 2:
        image = cv2.resize(rgb, (width, height))
        camera = Intrinsics.from_fov(60, width, height)
        (found,), (expected,) = (
            pipeline.detect(pipeline.upload([image], [camera])) for pipeline in (graphs, plain)
        )
        sure = (found.scores > 0.3).sum()
        assert sure == (expected.scores > 0.3).sum()
        np.testing.assert_allclose(
            found.boxes_xywh_px[:sure], expected.boxes_xywh_px[:sure], atol=1.0
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_images_at_once_are_as_one_by_one(backend: str) -> None:
    gpu, images = load(backend), frames(3)
    together = gpu(images, [CAMERA] * 3)
    for people, rgb in zip(together, images, strict=True):
        alone = gpu([rgb], [CAMERA])[0]
        assert len(people) == len(alone) > 0
        assert_same(people, alone, 0.2, 2e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_does_not_grow(shots: list[Shot], backend: str) -> None:
    gpu, shot = load(backend, "fp16"), shots[0]
    counts = range(1, 34) if backend == "cuda_graphs" else (1, 5, 2)

    def used() -> int:
        gc.collect()
        torch.cuda.synchronize()
        return torch.cuda.memory_allocated()

    def run() -> None:
        for count in counts:
            gpu([shot.rgb], [CAMERA])
            look(gpu, *shot, count)

    run()
    before = used()
    for _ in range(5):
        run()
    assert used() <= before


@pytest.mark.parametrize("backend", BACKENDS)
def test_crowds_that_memory_does_not_hold_are_seen_in_parts(
    shots: list[Shot], backend: str
) -> None:
    expected = look(load(backend), *shots[0], 400)
    gpu = load(backend)
    look(gpu, *shots[0], 1)
    gc.collect()
    torch.cuda.empty_cache()
    _, total = torch.cuda.mem_get_info()
    reserved = torch.cuda.memory_reserved()
    try:
        torch.cuda.set_per_process_memory_fraction((reserved + 250e6) / total)
        found = look(gpu, *shots[0], 400)
        assert "people at once" in gpu.complaint
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert_same(found, expected, 0.2, 2e-3)
    assert len(look(gpu, *shots[0], 3)) == 3  # and goes on


def test_cameras_in_threads_of_their_own_get_their_own_people(shots: list[Shot]) -> None:
    expected = [look(load("torch"), *shot) for shot in shots]
    found: dict[int, list[list[Person | None]]] = {index: [] for index in range(3)}

    def camera(index: int) -> None:
        gpu = load("cuda_graphs")
        for _ in range(20):
            found[index].append(look(gpu, *shots[index]))

    threads = [threading.Thread(target=camera, args=(index,)) for index in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, every in found.items():
        assert len(every) == 20
        for people in every:
            assert_same(people, expected[index], 0.1, 1e-3)


def test_the_papers_networks_say_the_same(shots: list[Shot], tmp_path: Path) -> None:
    files = networks.find(networks.REFERENCE, tmp_path)
    plain, graphs, on_cpu = (
        files.load(device, "fp32", backend, detector_size=320)
        for device, backend in (("cuda", "torch"), ("cuda", "cuda_graphs"), ("cpu", "torch"))
    )
    rgb, boxes = shots[0]
    found, expected = (one.detect(one.upload([rgb], [CAMERA]))[0] for one in (graphs, plain))
    assert len(expected.scores) > 0
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
    for pipeline in (plain, graphs):
        assert_same(look(pipeline, rgb, boxes), look(on_cpu, rgb, boxes), 0.3, 1e-3)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_torchscript_for_a_gpu(
    cpu: Pipeline, shots: list[Shot], tmp_path: Path, precision: str
) -> None:
    deployment.export(
        weights.DEFAULT, tmp_path / "set", "torchscript", device="cuda", precision=precision
    )
    exported = Pipeline.load(str(tmp_path / "set"), device="cuda")
    px, share = (0.3, 1e-3) if precision == "fp32" else (1.5, 0.01)
    for rgb, boxes in shots:
        assert_same(look(exported, rgb, boxes), look(cpu, rgb, boxes), px, share)
        assert len(boxes_of(exported, rgb)) == len(boxes)


def test_no_result_is_written_over_by_the_next() -> None:
    estimator = load("cuda_graphs").estimator
    crops = torch.randint(0, 256, (4, 192, 192, 3), dtype=torch.uint8, device="cuda")
    first: CropPoses = estimator(crops.permute(0, 3, 1, 2))
    kept = [value.clone() for value in first]
    estimator(crops.flip(0).permute(0, 3, 1, 2))
    for value, before in zip(first, kept, strict=True):
        assert torch.equal(value, before)


def test_devices_are_counted() -> None:
    assert select_device("auto").type == "cuda"
    with pytest.raises(RuntimeError, match="only"):
        select_device(f"cuda:{torch.cuda.device_count()}")
