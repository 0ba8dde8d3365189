"""Devices that fail, simulated where stages begin: the image is lost, the node is not."""

import re

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

import torch
from cases import NODES
from node_rig import wait_until
from rig import Rig, Shot, boxes, crop_poses, make_pipeline

from mppe_ros import node as node_module
from mppe_ros.structures import Detections

pytestmark = pytest.mark.ros

OUT_OF_MEMORY = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
LOST = RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.fixture
def broken(rig):
    """Breaks a stage, for one test."""
    yield rig.puppets.broken
    rig.puppets.broken.clear()


def raising(error):
    def stage(_):
        raise error

    return stage


ERRORS = {
    "out of GPU memory": OUT_OF_MEMORY,
    "out of memory": MemoryError("no 9 bytes"),
    "CPU memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    "GPU lost": LOST,
    "cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    "driver": OSError("libcuda.so.1: driver version mismatch"),
    "value": ValueError("expected 3 dimensions"),
    "key": KeyError("head"),
    "assertion": AssertionError(),
    "recursion": RecursionError("maximum recursion depth exceeded"),
    "without a word": Exception(),
    "of many lines": RuntimeError("line\n" * 2000),
}


@pytest.mark.parametrize("stage", ["detect", "estimate"])
@pytest.mark.parametrize("error", ERRORS.values(), ids=list(ERRORS))
def test_an_image_that_fails(rig, broken, stage, error, note_answer):
    with rig.case():
        broken[stage] = raising(error)
        stamps = rig.inflict(Shot.good, "failed")
        name = type(error).__name__
        level, _ = wait_until(lambda: rig.robot.status(f"failed; image on .* failed: {name}"))
        assert level >= 1
        # Before it heals: an image that was sent once more may still be waiting.
        assert not [stamp for stamp in stamps if rig.robot.poses_of(stamp)]
        broken.clear()
        note_answer(rig.answer())
        (complaint,) = rig.complaints
        assert re.search(f"image on {rig.robot.namespace}/image_raw failed: {name}", complaint)
        assert len(complaint) < 2000


NONSENSE = {
    "NaN": {"gamma": float("nan"), "joints_px": float("nan")},
    "NaN depth": {"gamma": float("nan")},
    "infinite depth": {"gamma": float("inf")},
    "no depth": {"gamma": 0.0},
    "negative depth": {"gamma": -1.0},
    "NaN root": {"root_px": float("nan")},
    "infinite root": {"root_px": float("inf")},
    "NaN joints": {"joints_px": float("nan")},
    "infinite joints": {"joints_px": float("inf")},
    "NaN joint depths": {"joints_z_mm": float("nan")},
    "joints behind the camera": {"joints_z_mm": -1e6},
    "joints at infinity": {"joints_z_mm": float("inf")},
    "NaN scores": {"joint_scores": float("nan")},
    "scores beyond 1": {"joint_scores": 1e30},
}


@pytest.mark.parametrize("changes", NONSENSE.values(), ids=list(NONSENSE))
def test_networks_that_say_nonsense(rig, broken, changes, note_answer):
    """What comes out all the same, `Rig.case` checks: no NaN but in joints marked INVALID."""
    with rig.case():
        broken["estimate"] = lambda crops: crop_poses(len(crops), **changes)
        rig.inflict(Shot.good, "processed")
        broken.clear()
        note_answer(rig.answer())


ODD_BOXES = {
    "NaN": np.full((3, 4), np.nan),
    "infinite": np.full((3, 4), np.inf),
    "negative size": np.array([[10.0, 10, -5, -5]]),
    "no size": np.zeros((50, 4)),
    "enormous": np.array([[-1e30, -1e30, 2e30, 2e30]]),
    "outside": np.array([[1000.0, 1000, 10, 10], [-50, -50, 10, 10]]),
    "a thousand of one": np.tile([10.0, 10, 20, 30], (1000, 1)),
}


@pytest.mark.parametrize("odd", ODD_BOXES.values(), ids=list(ODD_BOXES))
def test_a_detector_that_says_nonsense(rig, broken, odd, note_answer):
    with rig.case():
        broken["detect"] = lambda images: [Detections(odd, np.full(len(odd), 0.9))]
        rig.inflict(Shot.good, "processed")
        broken.clear()
        note_answer(rig.answer())
        assert rig.complaints == []


def test_in_a_crowd_memory_is_short_and_smaller_batches_do(host, note_answer):
    rig = Rig(host, "/faults_crowd", **NODES["plain"])
    sizes = []

    def estimate(crops):
        sizes.append(len(crops))
        if len(crops) > 2:
            raise OUT_OF_MEMORY
        return crop_poses(len(crops))

    try:
        with rig.case():
            rig.puppets.people, rig.puppets.broken["estimate"] = 4, estimate
            wait_until(
                lambda: rig.robot.poses and len(rig.robot.poses[-1].poses) == 4,
                lambda: rig.send(Shot.good()),
            )
            crowd = sizes[sizes.index(4) :]  # an image from before may still be looked at
            assert crowd[:3] == [4, 2, 2]
            level, _ = wait_until(
                lambda: rig.robot.status("only 2 people at once"), lambda: rig.send(Shot.good())
            )
            assert level == 1
            note_answer(rig.answer())
            assert max(sizes[sizes.index(4) + 1 :]) <= 2
            (complaint,) = rig.complaints
            assert "memory holds only 2 people at once" in complaint
    finally:
        rig.close()


def test_a_lost_gpu_is_replaced_by_the_cpu(host, monkeypatch, note_answer):
    """Networks are loaded anew; the device that failed stays away."""
    rig = Rig(host, "/faults_lost_gpu", **NODES["plain"])
    try:
        asked = []

        def load(*_, device, **__):
            asked.append(device)
            if device == "auto":
                raise LOST
            return make_pipeline(rig.puppets)

        monkeypatch.setattr(node_module.Pipeline, "load", load)
        with rig.case():
            rig.puppets.broken["detect"] = raising(LOST)
            rig.inflict(Shot.good, "failed", times=1)
            wait_until(lambda: asked[:2] == ["auto", "cpu"])
            rig.puppets.broken.clear()
            note_answer(rig.answer())
            level, _ = wait_until(
                lambda: rig.robot.status("GPU was lost"), lambda: rig.send(Shot.good())
            )
            assert level == 1
            assert len([text for text in rig.complaints if "GPU was lost" in text]) == 1
            first = min(pose.track_id for poses in rig.robot.poses for pose in poses.poses)
            assert first > 0
    finally:
        rig.close()


def test_networks_that_take_for_ever_keep_nobody_else(rig, broken, note_answer):
    """Services and diagnostics are another thread's."""
    import threading

    may_end = threading.Event()
    with rig.case():

        def hang(images):
            may_end.wait(60)
            return [Detections(boxes(1), np.ones(1)) for _ in images]

        broken["detect"] = hang
        rig.send(Shot.good())
        count = len(rig.robot.diagnostics)
        assert rig.change("max_persons", 5) == (True, "")
        wait_until(lambda: len(rig.robot.diagnostics) > count + 2)
        may_end.set()
        broken.clear()
        note_answer(rig.answer())
        assert rig.complaints == []
