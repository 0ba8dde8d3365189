"""The package's own pipeline as jobs: stage by stage, its bare networks, people followed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from ..detectors import NetworkDetector
from ..image_messages import image_to_rgb
from ..networks import RootNet
from ..pipeline import Pipeline
from ..records import pose_array_record
from ..sequence import DETECTION_INTERVAL, PoseSequence
from ..structures import Detections, Person
from .scene import Scene, camera_of, first_frame


class Ours:
    """An image message to the fields of the message of poses.

    The detector runs; the people are then those of the scene, so that their number is known.
    """

    def __init__(self, pipeline: Pipeline, scene: Scene) -> None:
        self.pipeline, self._camera, self._message = pipeline, scene.camera, scene.message
        boxes = scene.boxes_xywh_px
        self._given = Detections(boxes, np.ones(len(boxes)))
        self.people: Sequence[Person | None] = ()  # of the last call
        self._root_ms = _watch_root_net(pipeline.estimator)

    def __call__(self) -> Mapping[str, float]:
        start_s = time.perf_counter()
        pipeline, cameras = self.pipeline, [self._camera]
        rgb = image_to_rgb(self._message)
        decoded_s = time.perf_counter()
        pixels = pipeline.upload([rgb], cameras)
        for found in pipeline.detect(pixels):
            pipeline.options.select(found)
        stages = {"decode": (decoded_s - start_s) * 1e3, **pipeline.stage_ms}
        (self.people,) = pipeline.estimate(pixels, cameras, [self._given])
        stages |= self._split(pipeline.stage_ms)
        before_s = time.perf_counter()
        pose_array_record(
            [person for person in self.people if person is not None],
            skeleton=pipeline.skeleton,
            model=pipeline.model,
            intrinsics=self._camera,
        )
        return {**stages, "publish": (time.perf_counter() - before_s) * 1e3}

    def _split(self, stage_ms: Mapping[str, float]) -> Mapping[str, float]:
        """RootNet's and PoseNet's part apart, where they are two networks."""
        stages = dict(stage_ms)
        both_ms = stages.pop("estimate")
        if not self._root_ms:
            return {**stages, "root and pose": both_ms}
        root_ms = sum(self._root_ms)
        self._root_ms.clear()
        return {**stages, "root": root_ms, "pose": both_ms - root_ms}


def _watch_root_net(estimator: Any) -> list[float]:
    """A list that gets the ms of each call of a RootNet that is a network of its own."""
    spent: list[float] = []
    start_s = 0.0

    def start(*_: Any) -> None:
        nonlocal start_s
        start_s = time.perf_counter()

    for network in estimator.modules():
        if isinstance(network, RootNet):
            network.register_forward_pre_hook(start)
            network.register_forward_hook(
                lambda *_: spent.append((time.perf_counter() - start_s) * 1e3)
            )
    return spent


class Following:
    """People followed as the node does by default, in an image that stands still: the detector's
    interval of images at once."""

    IMAGES = DETECTION_INTERVAL

    def __init__(self, pipeline: Pipeline) -> None:
        self._sequence, self._rgb = PoseSequence(pipeline), first_frame()
        self._camera = camera_of(self._rgb)
        self._seen = 0  # images
        self.people = 0  # of the last image

    def __call__(self) -> Mapping[str, float]:
        for _ in range(self.IMAGES):
            people = self._sequence.step(self._rgb, self._camera, self._seen / 30)
            self._seen += 1
        self.people = len(people)
        return {}


class BareNetworks:
    """Only what the networks compute for an image, from inputs that are ready: the floor."""

    def __init__(self, ours: Ours) -> None:
        """Runs ``ours`` once, to see what its networks are given."""
        pipeline, self._calls = ours.pipeline, list[Callable[[], None]]()
        self._device = pipeline.device.type
        detector, estimator = (
            cast(NetworkDetector, pipeline.detector),
            cast(nn.Module, pipeline.estimator),
        )
        hooks = [
            network.register_forward_pre_hook(self._note)
            for network in (detector.network, estimator)
        ]
        ours()
        for hook in hooks:
            hook.remove()

    def _note(self, network: nn.Module, arguments: Any) -> None:
        enabled = torch.is_autocast_enabled(self._device)
        precision = torch.get_autocast_dtype(self._device)

        def call() -> None:
            with torch.autocast(self._device, precision, enabled=enabled):
                network(*arguments)

        self._calls.append(call)

    @torch.inference_mode()
    def __call__(self) -> Mapping[str, float]:
        for call in self._calls:
            call()
        return {}
