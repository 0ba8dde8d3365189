"""The topics of one camera: images, camera_info and depth in, frames out."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import (
    HistoryPolicy,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_policy_name_from_kind,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from .diagnostics import Stats
from .parameters import Settings
from .synchronisation import CameraPairing, Frame

SILENCE_S = 5.0  # without images or camera_info: worth a complaint

# Durability too: transient local gets the camera_info of a camera that sends it only once.
_OVERRIDABLE = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)


class CameraSubscriptions:
    """Subscribes on behalf of a node, until closed.

    :param stats: counts images received and unpaired.
    :param take: gets every frame, in the executor's thread.
    """

    def __init__(
        self, node: Node, settings: Settings, stats: Stats, take: Callable[[Frame], None]
    ) -> None:
        self._node, self._stats, self._take = node, stats, take
        self._pairing = CameraPairing(settings.camera_info_sync)
        self._dropped = 0  # by the pairing, as far as counted
        # The newest one is enough, or every image needs its own.
        self._one_info_is_enough = settings.camera_info_sync == "latest"
        self._needs_info = not (self._one_info_is_enough and settings.assumed_fov_deg)
        self._last_image_s = self._last_info_s = time.monotonic()
        self._subscriptions: list[Subscription] = []
        compressed = settings.image_transport == "compressed"
        image_type = CompressedImage if compressed else Image
        try:
            self.image_topic = self._subscribe(
                image_type, image_topic(node, settings), self._on_image
            )
            self.info_topic = self._subscribe(CameraInfo, "camera_info", self._on_camera_info)
            if settings.depth_fusion:
                self._subscribe(Image, "depth", self._on_depth)
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    @property
    def silence(self) -> str:
        """What the camera should send but doesn't; empty = nothing."""
        now_s = time.monotonic()
        image_s, info_s = now_s - self._last_image_s, now_s - self._last_info_s
        if image_s >= SILENCE_S:
            return f"no image on {self.image_topic} for {image_s:.0f} s"
        if self._needs_info and info_s >= SILENCE_S:
            return (
                f"no camera_info on {self.info_topic} for {info_s:.0f} s, and images wait for it; "
                "for a camera without it: assumed_fov_deg and camera_info_sync latest"
            )
        return ""

    @property
    def doubt(self) -> str:
        """What may be wrong though images come; empty = nothing."""
        for topic in (self.image_topic, self.info_topic):
            count = self._node.count_publishers(topic)
            if count > 1:
                return f"{count} publishers on {topic}: their cameras are taken for one"
        return ""

    def _subscribe(self, message_type: type, topic: str, callback: Any) -> str:
        """The topic's full name."""
        # A profile of its own for each: overrides write into it.
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.BEST_EFFORT
        )
        resolved = self._node.resolve_topic_name(topic)

        def report_incompatible(event: Any) -> None:
            policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
            self._node.get_logger().error(
                f"the publisher of {resolved} offers another {policy} than is asked for: nothing "
                f"comes from it; set qos_overrides.{resolved}.subscription.{policy} to match"
            )

        subscription = self._node.create_subscription(
            message_type,
            topic,
            callback,
            qos,
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=report_incompatible),
            qos_overriding_options=QoSOverridingOptions(_OVERRIDABLE),
        )
        self._subscriptions.append(subscription)
        return str(subscription.topic_name)

    def _on_image(self, message: Image | CompressedImage) -> None:
        self._last_image_s = time.monotonic()
        self._stats.received += 1
        self._hand_on(self._pairing.put_image(message))

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._last_info_s = time.monotonic()
        self._needs_info &= not self._one_info_is_enough
        self._hand_on(self._pairing.put_camera_info(message))

    def _on_depth(self, message: Image) -> None:
        self._hand_on(self._pairing.put_depth(message))

    def _hand_on(self, frames: list[Frame]) -> None:
        self._stats.unpaired += self._pairing.dropped - self._dropped
        self._dropped = self._pairing.dropped
        for frame in frames:
            self._take(frame)


def image_topic(node: Node, settings: Settings) -> str:
    """The full name of the topic of images, subscribed to or not."""
    name = str(node.resolve_topic_name("image_raw"))
    if settings.image_transport == "raw":
        return name
    # image_transport's rule: below the raw topic, wherever that was remapped to.
    return str(node.resolve_topic_name(f"{name}/compressed"))
