"""Nodes in this process, around a pipeline without networks."""

import threading
import time

import numpy as np
import torch
from domain import DOMAIN_ID
from node_rig import TIMEOUT_S, rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter as RosParameter

from mppe_ros import depth, subscriptions
from mppe_ros import node as node_module
from mppe_ros.node import PoseNode
from mppe_ros.pipeline import PipelineOptions
from mppe_ros.skeletons import HUMAN36M_17
from mppe_ros.structures import Detections, Person, RootError


class FakePipeline:
    """Sees one person in every image but a white one, on which it fails."""

    skeleton, model = HUMAN36M_17, "fake (0)"
    device, precision, sharpness = torch.device("cpu"), torch.float32, None
    root_error = RootError(along=0.1, across_mm=40.0, tilt_rad=0.2, heading_rad=0.6, fused_mm=50.0)

    def __init__(self):
        self.options = PipelineOptions()
        self.image = None  # the last one seen
        self.complaint = ""
        self.stage_ms = {"detect": 1.0, "crop": 2.0, "estimate": 3.0, "place": 4.0}
        self.starts_s = []
        self.may_end = threading.Event()
        self.may_end.set()

    def __call__(self, images, intrinsics):
        self.starts_s.append(time.monotonic())
        assert self.may_end.wait(TIMEOUT_S)
        (self.image,) = images
        if (self.image == 255).all():
            raise RuntimeError(f"no memory for {len(self.starts_s)} bytes")
        return [[make_person()] for _ in images]

    def fuse(self, people, depth_m, intrinsics):
        return depth.fuse(people, depth_m, intrinsics, self.skeleton, self.root_error)

    # The same in two steps, for tracking.

    def upload(self, images, intrinsics):
        return images

    def detect(self, images):
        return [Detections(np.array([[1.0, 1.0, 8.0, 8.0]]), np.array([0.9]))]

    def estimate(self, images, intrinsics, detections):
        (people,), (found,) = self(images, intrinsics), detections
        return [people * len(found)]


def make_person():
    count = len(HUMAN36M_17)
    return Person(
        score=0.9,
        bbox_xywh_px=np.array([1.0, 1.0, 8.0, 8.0]),
        root_px=np.array([5.0, 5.0]),
        root_mm=np.array([0.0, 0.0, 3000.0]),
        root_covariance_mm2=np.eye(3),
        joints_px=np.full((count, 2), 5.0),
        joints_mm=np.full((count, 3), 3000.0),
        joint_scores=np.ones(count),
        joint_status=np.zeros(count, np.uint8),
    )


class Host:
    """Runs nodes around a fake pipeline, in a thread of this process.

    They are configured and activated, unless ``autostart`` is false.
    """

    def __init__(self):
        self.pipeline = FakePipeline()
        self.nodes = []
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=DOMAIN_ID)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._thread = threading.Thread(target=self._executor.spin, daemon=True)
        self._thread.start()

    def start(self, namespace, **values):
        node = PoseNode(
            namespace=namespace,
            context=self._context,
            parameter_overrides=[RosParameter(k, value=v) for k, v in values.items()],
        )
        self.nodes.append(node)
        if node.settings.autostart:
            assert node.start()
        self._executor.add_node(node)
        self._executor.wake()
        return node

    @property
    def alive(self):
        """False as soon as a callback has raised."""
        return self._thread.is_alive()

    def close(self):
        if isinstance(self.pipeline, FakePipeline):
            self.pipeline.may_end.set()
        self._executor.shutdown()
        self._thread.join(TIMEOUT_S)
        for node in self.nodes:
            assert node.close()
        rclpy.shutdown(context=self._context)


def make_host(monkeypatch):
    """Nodes that complain soon, and never twice however slow this machine is."""
    host = Host()
    monkeypatch.setattr(node_module.Pipeline, "load", lambda *_, **__: host.pipeline)
    monkeypatch.setattr(subscriptions, "SILENCE_S", 0.3)
    monkeypatch.setattr(node_module, "_REPEAT_S", 3600.0)
    monkeypatch.setattr(node_module, "REPORT_PERIOD_S", 0.2)
    return host
