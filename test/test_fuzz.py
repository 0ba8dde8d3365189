"""Inputs that nobody would think of, by hypothesis: the same ones every time, counted at the end.

Whatever comes in, errors are the ones that are promised, and what comes out has a place: no NaN
but where the status says so, every joint projects back to its pixel, ids are unique.
MPPE_FUZZ_SCALE=10 tries ten times as many.
"""

from __future__ import annotations

import io
import json
import math
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from recordings import CAMERA, calibration, jpeg_image, person, raw_image, write_bag
from rosbags.rosbag2 import StoragePlugin
from safetensors.torch import save

from mppe_ros import camera, crops
from mppe_ros.bags import BagSource
from mppe_ros.camera_info import RECTIFICATIONS, ImageSource, intrinsics_of
from mppe_ros.checkpoints import CheckpointError, read_metadata, read_state_dict
from mppe_ros.image_messages import BYTES_PER_PIXEL, ConversionError, depth_to_m, image_to_rgb
from mppe_ros.media import MediaError
from mppe_ros.networks import CropPoses
from mppe_ros.pipeline import Pipeline, PipelineOptions
from mppe_ros.records import from_json, pose_array_record, to_json
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import (
    DISTORTION_COEFFICIENTS,
    Detections,
    Intrinsics,
    IntrinsicsError,
    JointStatus,
    RootError,
    TrackState,
)
from mppe_ros.throttle import Throttle
from mppe_ros.tracking import Seen, Tracker
from mppe_ros.weights import CropSpec

LEAST_INPUTS = 20_000
SCALE = float(os.environ.get("MPPE_FUZZ_SCALE", 1))
PLANNED: dict[str, int] = {}
TRIED: dict[str, int] = {}


def fuzz(count: int, **strategies: st.SearchStrategy) -> Callable:
    """Runs a test with so many inputs, the same in every run."""

    def decorate(test: Callable) -> Callable:
        PLANNED[test.__name__] = count

        @settings(
            max_examples=max(1, round(count * SCALE)),
            derandomize=True,
            database=None,
            deadline=None,
            phases=[Phase.generate],  # what fails is small enough, and shrinking it takes long
            suppress_health_check=list(HealthCheck),
        )
        @given(**strategies)
        def run(**values):
            TRIED[test.__name__] = TRIED.get(test.__name__, 0) + 1
            test(**values)

        run.__name__ = test.__name__
        return run

    return decorate


ANY_FLOAT = st.floats(width=64)  # NaN and infinities too
ANY_FLOAT_32 = st.floats(width=32)
UINT32 = st.integers(0, 2**32 - 1)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([640, 480, 2**31, 2**32 - 1]))
FRAMES = st.sampled_from(["", "optical", "other"])


def test_inputs_are_enough() -> None:
    assert sum(PLANNED.values()) >= LEAST_INPUTS


# --- cameras -----------------------------------------------------------------------------------


@st.composite
def lenses(draw) -> Intrinsics:
    model = draw(st.sampled_from(list(DISTORTION_COEFFICIENTS)))
    count = draw(st.sampled_from(DISTORTION_COEFFICIENTS[model]))
    usual, wild = st.floats(-0.3, 0.3), st.floats(-1e6, 1e6)
    values = draw(st.lists(draw(st.sampled_from([usual, usual, wild])), min_size=count,
                           max_size=count))  # fmt: skip
    width, height = draw(st.integers(1, 4000)), draw(st.integers(1, 4000))
    focal = st.floats(0.1, 20).map(lambda share: share * max(width, height))
    return Intrinsics(
        draw(focal), draw(focal), draw(st.floats(-width, 2 * width)),
        draw(st.floats(-height, 2 * height)), width, height, model, tuple(values),
    )  # fmt: skip


@fuzz(
    2500,
    lens=lenses(),
    share=st.tuples(st.floats(-1, 2), st.floats(-1, 2)),
    depth_mm=st.floats(1, 1e6),
)
def test_what_has_a_place_projects_back_to_its_pixel(lens, share, depth_mm) -> None:
    pixel = np.array(share) * (lens.width, lens.height)
    point = camera.back_project(pixel, depth_mm, lens)
    if np.isfinite(point).all():
        assert point[2] == depth_mm
        assert np.abs(camera.project(point, lens) - pixel).max() < 0.5
    else:
        assert np.isnan(point).all()
        assert lens.distortion_model != "none"


@st.composite
def camera_infos(draw) -> SimpleNamespace:
    numbers = st.one_of(st.sampled_from([0.0, 1.0, 300.0, 320.0]), ANY_FLOAT)

    def row(count: int, good: list[float]) -> list[float]:
        values = list(good)
        for index in draw(st.sets(st.integers(0, count - 1), max_size=3)):
            values[index] = draw(numbers)
        return values

    return SimpleNamespace(
        header=SimpleNamespace(frame_id=draw(FRAMES)),
        width=draw(st.one_of(st.just(640), SIZES)),
        height=draw(st.one_of(st.just(480), SIZES)),
        k=row(9, [300.0, 0, 320, 0, 300, 240, 0, 0, 1]),
        p=row(12, [300.0, 0, 320, 0, 0, 300, 240, 0, 0, 0, 1, 0]),
        d=draw(st.lists(ANY_FLOAT, max_size=14)),
        distortion_model=draw(st.sampled_from(["", *DISTORTION_COEFFICIENTS, "Fisheye", "x"])),
        binning_x=draw(st.one_of(st.just(0), UINT32)),
        binning_y=draw(st.one_of(st.just(0), UINT32)),
        roi=SimpleNamespace(
            **{name: draw(st.one_of(st.just(0), UINT32)) for name in
               ("x_offset", "y_offset", "width", "height")},
        ),
    )  # fmt: skip


@fuzz(
    4000,
    info=camera_infos(),
    source=st.builds(
        ImageSource, FRAMES, st.one_of(st.just(640), SIZES), st.one_of(st.just(480), SIZES)
    ),
    rectification=st.sampled_from(list(RECTIFICATIONS)),
    fov_deg=st.sampled_from([0.0, 60.0]),
)
def test_camera_info_makes_a_camera_or_says_why_not(info, source, rectification, fov_deg) -> None:
    try:
        lens = intrinsics_of(
            source, info, assumed_fov_deg=fov_deg, rectification=rectification
        )
    except (IntrinsicsError, ConversionError) as error:
        assert str(error)
        return
    assert (lens.width, lens.height) == (source.width, source.height)
    assert lens.fx > 0 and lens.fy > 0
    assert np.isfinite([lens.fx, lens.fy, lens.cx, lens.cy, *lens.distortion]).all()


# --- boxes -------------------------------------------------------------------------------------


@fuzz(
    1500,
    rows=st.lists(st.tuples(*[ANY_FLOAT_32] * 4), min_size=1, max_size=4),
    near=st.lists(st.tuples(*[st.floats(-50, 700, width=32)] * 4), max_size=4),
    size=st.tuples(st.integers(1, 4000), st.integers(1, 4000)),
)
def test_boxes_that_are_kept_are_squares_at_the_image(rows, near, size) -> None:
    width, height = size
    given = np.array([*rows, *near]).reshape(-1, 4)
    boxes, kept = crops.process_boxes(given, width, height)
    assert np.isfinite(boxes).all()
    assert (boxes[:, 2] > 0).all() and (boxes[:, 2] == boxes[:, 3]).all()
    assert len(set(kept.tolist())) == len(kept) <= len(rows) + len(near)
    assert (boxes[:, 2] <= 1.25 * max(size)).all()
    points = np.tile([[0.0, 0.0], [160, 160], [40, 120]], (len(boxes), 1, 1))
    there_and_back = crops.to_crop(crops.to_image(points, boxes, 160), boxes, 160)
    # As far as numbers go, for boxes of less than a pixel.
    slack = 1e-6 + 1e-6 / boxes[:, 2, None, None]
    assert (np.abs(there_and_back - points) <= slack).all()


# --- images ------------------------------------------------------------------------------------

ENCODINGS = st.one_of(st.sampled_from(list(BYTES_PER_PIXEL)), st.text(max_size=8))


@st.composite
def image_messages(draw, encodings: st.SearchStrategy, pixel_bytes: int = 8) -> SimpleNamespace:
    """Now and then consistent ones."""
    height, width, encoding = draw(SIZES), draw(SIZES), draw(encodings)
    step = draw(st.one_of(st.just(width * BYTES_PER_PIXEL.get(encoding, 1)),
                          st.just(width * pixel_bytes), UINT32))  # fmt: skip
    size = draw(st.one_of(st.just(height * step), st.integers(0, 9000)))
    fill = draw(st.binary(min_size=1, max_size=16))
    data = (fill * (min(size, 20_000) // len(fill) + 1))[: min(size, 20_000)]
    return SimpleNamespace(
        height=height, width=width, step=step, encoding=encoding, data=data,
        is_bigendian=draw(st.integers(0, 255)),
    )  # fmt: skip


@fuzz(3000, message=image_messages(ENCODINGS))
def test_an_image_is_rgb_or_refused(message) -> None:
    try:
        rgb = image_to_rgb(message)
    except ConversionError as error:
        assert str(error)
        return
    assert rgb.shape == (message.height, message.width, 3) and rgb.dtype == np.uint8


@fuzz(1500, message=image_messages(st.sampled_from(["16UC1", "32FC1", "mono16", "rgb8"]), 4))
def test_a_depth_image_is_metres_or_refused(message) -> None:
    try:
        depth_m = depth_to_m(message)
    except ConversionError as error:
        assert str(error)
        return
    assert depth_m.shape == (message.height, message.width)
    known = depth_m[~np.isnan(depth_m)]
    assert np.isfinite(known).all() and (known > 0).all()


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The bytes with some of them changed, left out or put in."""
    places = st.integers(0, len(whole))
    changes = st.tuples(places, st.integers(0, 8), st.binary(max_size=8))

    def apply(edits: list[tuple[int, int, bytes]], end: int) -> bytes:
        result = whole[:end]
        for at, removed, added in edits:
            result = result[:at] + added + result[at + removed :]
        return result

    ends = st.one_of(st.just(len(whole)), places)
    return st.builds(apply, st.lists(changes, max_size=4), ends)


PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
JPEG, PNG = (cv2.imencode(suffix, PICTURE)[1].tobytes() for suffix in (".jpg", ".png"))


@fuzz(
    1500,
    data=st.one_of(damaged(JPEG), damaged(PNG), st.binary(max_size=60)),
    description=st.sampled_from(["jpeg", "png", "", "rgb8; jpeg compressed bgr8"]),
)
def test_a_compressed_image_is_rgb_or_refused(data, description) -> None:
    try:
        rgb = image_to_rgb(SimpleNamespace(data=data, format=description))
    except ConversionError as error:
        assert str(error)
        return
    assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8


# --- people ------------------------------------------------------------------------------------

VALUES = st.one_of(st.floats(-1e3, 1e3, width=32), ANY_FLOAT_32)


class Said:
    """Networks whose words are given."""

    skeleton = HUMAN36M_17

    def __init__(self, root, gamma, joints_px, joints_z, scores) -> None:
        self.words = root, gamma, joints_px, joints_z, scores

    def __call__(self, seen: torch.Tensor, flip_test: bool = False) -> CropPoses:
        count, joints = len(seen), len(self.skeleton)
        root, gamma, joints_px, joints_z, scores = self.words

        def spread(values: list[float], *shape: int) -> torch.Tensor:
            repeated = torch.tensor(values, dtype=torch.float32).repeat(math.prod(shape))
            return repeated[: math.prod(shape)].reshape(shape)

        return CropPoses(
            spread(root, count, 2), spread(gamma, count), spread(joints_px, count, joints, 2),
            spread(joints_z, count, joints), spread(scores, count, joints),
        )  # fmt: skip


@fuzz(
    700,
    lens=lenses().filter(lambda lens: lens.width * lens.height <= 40_000),
    rows=st.lists(st.tuples(*[st.floats(-50, 300, width=32)] * 4), max_size=3),
    words=st.tuples(*[st.lists(VALUES, min_size=1, max_size=5)] * 5),
)
def test_people_are_where_their_pixels_are(lens, rows, words) -> None:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    pipeline = Pipeline(
        lambda images: [Detections(boxes, np.ones(len(boxes)))],
        Said(*words),
        CropSpec(8, mean=(0, 0, 0), std=(1, 1, 1)),
        RootError(along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0),
        model="said",
        device=torch.device("cpu"),
        options=PipelineOptions(),
    )
    (people,) = pipeline([np.zeros((lens.height, lens.width, 3), np.uint8)], [lens])
    for one in people:
        assert np.isfinite(one.root_mm).all() and one.root_mm[2] > 0
        assert np.isfinite(one.root_covariance_mm2).all()
        valid = one.joint_status != JointStatus.INVALID
        assert np.isfinite(one.joints_mm[valid]).all() and (one.joints_mm[valid, 2] > 0).all()
        # Farther out than any image, float64 has no half pixels any more.
        near = valid & (np.abs(one.joints_px) < 1e6).all(axis=1)
        seen = camera.project(one.joints_mm[near], lens)
        assert np.abs(seen - one.joints_px[near]).max(initial=0) < 0.5
    lines = to_json(
        pose_array_record(people, skeleton=HUMAN36M_17, model="said", intrinsics=lens)
    )
    assert len(from_json(lines)["poses"]) == len(people)


STAMPS = st.one_of(st.floats(0, 3), st.sampled_from([0.0, -1e9, 2e9]))


@fuzz(
    500,
    film=st.lists(
        st.tuples(STAMPS, st.lists(st.tuples(st.integers(1, 4), st.integers(0, 90), st.booleans()),
                                   max_size=5)),
        min_size=1, max_size=8,
    ),
)  # fmt: skip
def test_ids_are_unique_and_end_once(film) -> None:
    error = RootError(along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0)
    tracker, lost = Tracker(HUMAN36M_17, error), set()
    for stamp_s, people in film:
        tracker.predict(stamp_s, CAMERA)
        found = tracker.update([Seen(person(who, at), by) for who, at, by in people])
        ids = [one.tracking.track_id for one in found]
        assert len(ids) == len(set(ids))
        assert not lost & set(ids)
        lost |= {i for i, one in zip(ids, found, strict=True)
                 if one.tracking.state == TrackState.LOST}  # fmt: skip
        assert all(np.isfinite(one.root_mm).all() for one in found)
        # Nobody is kept for ever.
        assert len(tracker) <= sum(len(people) for _, people in film)


@fuzz(1500, values=st.recursive(
    st.one_of(ANY_FLOAT, st.text(max_size=5), st.integers(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=4),
                            st.dictionaries(st.text(max_size=4), inner, max_size=4)),
    max_leaves=12,
))  # fmt: skip
def test_json_is_strict_and_comes_back(values) -> None:
    line = to_json({"record": values})
    json.loads(line, parse_constant=pytest.fail)  # NaN and Infinity aren't JSON
    assert "\n" not in line
    assert to_json(from_json(line)) == line


@fuzz(2000, texts=st.lists(st.text(max_size=30), max_size=6))
def test_a_complaint_comes_once(texts) -> None:
    throttle = Throttle(3600.0)
    for text in texts:
        throttle.allows(text)
        assert not throttle.allows(text)
        assert not throttle.allows(f"{text}")


# --- files -------------------------------------------------------------------------------------


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"network": {"module.w": torch.arange(6.0), "b": torch.ones(2, 2)}}, buffer)
    return buffer.getvalue()


_FOLDER = tempfile.TemporaryDirectory(prefix="fuzz")


def folder() -> Path:
    return Path(_FOLDER.name)


SAFETENSORS = save({"w": torch.arange(6.0), "b": torch.ones(2, 2)}, {"crop": "{}"})


@fuzz(
    1000,
    data=st.one_of(damaged(SAFETENSORS), st.binary(max_size=80)),
)
def test_safetensors_are_tensors_or_refused(data) -> None:
    path = folder() / "w.safetensors"
    path.write_bytes(data)
    for read in (read_state_dict, read_metadata):
        try:
            content = read(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert all(isinstance(name, str) for name in content)


@fuzz(700, data=st.one_of(damaged(torch_file()), st.binary(max_size=80)))
def test_checkpoints_are_tensors_or_refused(data) -> None:
    path = folder() / "w.pth.tar"
    path.write_bytes(data)
    try:
        content = read_state_dict(path)
    except CheckpointError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(value, torch.Tensor) for value in content.values())


@cache
def bag_files(storage: StoragePlugin) -> dict[str, bytes]:
    bag = write_bag(
        folder() / f"whole_{storage.name}",
        [raw_image("/cam/image_raw", PICTURE), jpeg_image("/cam/other", PICTURE)],
        [("/cam/camera_info", calibration(CAMERA))],
        storage,
    )
    return {path.name: path.read_bytes() for path in bag.iterdir()}


@pytest.mark.parametrize("storage", list(StoragePlugin), ids=lambda storage: storage.name)
@pytest.mark.parametrize("victim", ["metadata.yaml", "messages"])
def test_bags_are_read_or_refused(storage, victim) -> None:
    files = bag_files(storage)
    name = next(n for n in files if (n == victim) == (victim == "metadata.yaml"))
    bag = folder() / f"bag_{storage.name}"
    bag.mkdir(exist_ok=True)

    @fuzz(150, data=damaged(files[name]))
    def read(data) -> None:
        for other, content in files.items():
            (bag / other).write_bytes(data if other == name else content)
        try:
            with BagSource(bag, report=lambda text: None) as source:
                for shot in source.shots():
                    with_picture(shot)
        except MediaError as error:
            assert str(error)

    read()


def with_picture(shot) -> None:
    try:
        rgb = shot.read()
    except MediaError:
        return
    assert rgb.ndim == 3 and rgb.dtype == np.uint8
