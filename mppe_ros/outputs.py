"""What the node publishes: poses, markers, debug image."""

from __future__ import annotations

import threading

from rclpy.duration import Duration
from rclpy.node import Node
from sensor_msgs.msg import Image
from visualization_msgs.msg import MarkerArray

from mppe_ros.msg import Pose3DArray

from .conversions import image_message, message_from_record
from .drawing import draw_people
from .markers import MarkerBuilder
from .parameters import Settings
from .pipeline import Pipeline
from .processing import Seen
from .records import Record

_ACKNOWLEDGE_TIMEOUT = Duration(seconds=0.3)


class Outputs:
    """The publishers. Closed, which they are at first, they send nothing.

    They are opened and closed by the executor's thread and used by the worker's. A result that was
    begun before the last closing is not sent any more: see :attr:`session`.
    """

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        self._poses = node.create_publisher(Pose3DArray, "~/poses", 10)
        self._markers = node.create_publisher(MarkerArray, "~/markers", 1)
        self._debug_image = node.create_publisher(Image, "~/debug_image", 1)
        self._lock = threading.Lock()
        self._builder: MarkerBuilder | None = None  # None = closed
        self._session = 0
        self._blank: Record = {}  # the last poses without people

    @property
    def topics(self) -> list[str]:
        return [str(p.topic_name) for p in (self._poses, self._markers, self._debug_image)]

    @property
    def wanted(self) -> bool:
        """Open, and somebody subscribes."""
        publishers = self._poses, self._markers, self._debug_image
        return self.is_open and any(p.get_subscription_count() for p in publishers)

    @property
    def is_open(self) -> bool:
        return self._builder is not None

    @property
    def session(self) -> int:
        """Changes with every opening; to be asked for before an image is looked at."""
        return self._session

    def open(self, pipeline: Pipeline) -> None:
        """Sends from now on; first that nothing is shown from before."""
        skeleton = pipeline.skeleton
        with self._lock:
            self._session += 1
            self._builder = MarkerBuilder(skeleton)
            self._blank = {
                "skeleton": skeleton.name,
                "joint_names": list(skeleton.joint_names),
                "bones": [joint for bone in skeleton.bones for joint in bone],
                "root_index": skeleton.root_index,
                "model": pipeline.model,
            }
            self._markers.publish(message_from_record(MarkerArray, self._builder.clear()))

    def close(self) -> None:
        """Says that nobody is known to be there any more, then sends nothing."""
        with self._lock:
            if self._builder is None:
                return
            self._poses.publish(self._nobody())
            self._markers.publish(message_from_record(MarkerArray, self._builder.clear()))
            self._builder = None

    def reset_markers(self) -> bool:
        """Deletes what is shown; ids begin anew. False when closed."""
        with self._lock:
            if self._builder is None:
                return False
            self._markers.publish(message_from_record(MarkerArray, self._builder.clear()))
            return True

    def publish(self, session: int, seen: Seen, settings: Settings) -> bool:
        """Sends one image's results to those who subscribe; false if their session is over."""
        debug_image = self._draw(seen)  # before the lock: it takes a while
        with self._lock:
            if self._builder is None or session != self._session:
                return False
            self._blank = {**seen.record, "poses": []}
            self._poses.publish(message_from_record(Pose3DArray, seen.record))
            if self._markers.get_subscription_count():
                markers = self._builder.build(
                    seen.record,
                    settings.marker_lifetime,
                    uncertainty=settings.uncertainty_markers,
                    up=seen.up,
                )
                self._markers.publish(message_from_record(MarkerArray, markers))
            if debug_image is not None:
                self._debug_image.publish(debug_image)
            return True

    def flush(self) -> None:
        """Waits a little until subscribers have what was sent."""
        for publisher in (self._poses, self._markers):
            publisher.wait_for_all_acked(_ACKNOWLEDGE_TIMEOUT)

    def _draw(self, seen: Seen) -> Image | None:
        if not self._debug_image.get_subscription_count():
            return None
        return image_message(draw_people(seen.rgb, seen.in_camera), seen.header)

    def _nobody(self) -> Pose3DArray:
        poses = message_from_record(Pose3DArray, self._blank)
        poses.header.stamp = self._clock.now().to_msg()  # no image says it
        return poses
