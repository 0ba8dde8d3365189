"""Which camera_info and which depth image belong to an image, from three streams of messages.

Knows no node: callbacks put messages in and get the frames that are complete by that. Of anything
that waits for its counterpart only a few are kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol, TypeAlias, cast

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

ImageMessage: TypeAlias = "Image | CompressedImage"

# Half the period of a 30 Hz camera, and a little: farther off belongs to the next image.
SLOP_S = 0.02
# Of each stream, while its counterpart is under way.
QUEUE_SIZE = 10
# So many images without any depth, and nothing waits for it any more.
_PATIENCE = 5
# Stamps may be negative.
_BEFORE_ALL_NS = -(2**63)


class SynchronisationError(RuntimeError):
    """A mode that needs a package that is not there; the message names it."""


class Frame(NamedTuple):
    """An image and what belongs to it; None where nothing does (yet)."""

    image: ImageMessage
    camera_info: CameraInfo | None
    depth: Image | None = None


class CameraPairing:
    """Makes frames of a camera's messages, in the order of the images' stamps.

    The modes say which camera_info an image gets:

    * ``latest``: the newest when the image comes (None before the first one); nothing waits.
    * ``exact``: the one of the same stamp; the image waits for it.
    * ``approximate``: one within ``slop_s`` of its stamp; the image waits for it.

    A depth image belongs to an image within ``slop_s`` in every mode. A frame waits for it until
    the next one comes, but only while depth images keep coming.

    A stamp that goes backwards (a bag starts again, a simulation is reset) forgets what waits.
    To be used from one thread.

    :param mode: a key of ``MODES``.
    :param slop_s: how far stamps of what belongs together may be apart, s.
    :param queue_size: how many messages of a stream may wait.
    :raises SynchronisationError: a mode that needs message_filters where it is not installed.
    """

    def __init__(
        self, mode: str = "latest", *, slop_s: float = SLOP_S, queue_size: int = QUEUE_SIZE
    ) -> None:
        self.dropped = 0  # images that became no frame, and will not
        self._slop_ns = round(slop_s * 1e9)
        self._queue_size = queue_size
        self._matcher = MODES[mode](slop_s, queue_size)
        self._newest_ns: dict[str, int] = {}  # of each stream
        self._last_ns = _BEFORE_ALL_NS  # of the last image that became a frame
        self._unmatched: deque[int] = deque()  # stamps of images without their camera_info
        self._depths: deque[Image] = deque(maxlen=queue_size)
        self._images_without_depth = _PATIENCE  # since the last depth image
        self._held: Frame | None = None  # complete but for its depth

    def put_image(self, message: ImageMessage) -> list[Frame]:
        """The frames that are complete now: none, one, or two where a held one goes first."""
        self._note_time("image", message)
        self._unmatched.append(message_time_ns(message))
        frames = self._take(self._matcher.put_image(message))
        if len(self._unmatched) > self._queue_size:
            self._unmatched.popleft()
            self.dropped += 1
        return frames

    def put_camera_info(self, message: CameraInfo) -> list[Frame]:
        """The frames that waited for this camera_info."""
        self._note_time("camera_info", message)
        return self._take(self._matcher.put_camera_info(message))

    def put_depth(self, message: Image) -> list[Frame]:
        """The frame that waited for this depth image, if any."""
        self._note_time("depth", message)
        self._depths.append(message)
        self._images_without_depth = 0
        if self._held is None or not self._is_near(message, self._held):
            return []
        frame, self._held = self._held._replace(depth=message), None
        return [frame]

    # --- time ---

    def _note_time(self, stream: str, message: Any) -> None:
        stamp_ns = message_time_ns(message)
        if stamp_ns < self._newest_ns.get(stream, stamp_ns):
            self.dropped += len(self._unmatched) + (self._held is not None)
            self._forget()
        self._newest_ns[stream] = stamp_ns

    def _forget(self) -> None:
        self._newest_ns = {}  # the other streams will follow
        self._last_ns = _BEFORE_ALL_NS
        self._matcher.forget()
        self._unmatched.clear()
        self._depths.clear()
        self._held = None

    # --- frames ---

    def _take(self, matched: list[Frame]) -> list[Frame]:
        """Of frames with their camera_info those in order, with their depth."""
        frames = []
        for frame in matched:
            stamp_ns = message_time_ns(frame.image)
            if stamp_ns < self._last_ns:
                continue  # a later image was first, and this one counted as dropped
            self._last_ns = stamp_ns
            self._count_overtaken(stamp_ns)
            frames += self._with_depth(frame)
        return frames

    def _count_overtaken(self, stamp_ns: int) -> None:
        """Images before this one are not waited for any longer."""
        while self._unmatched and self._unmatched[0] <= stamp_ns:
            self.dropped += self._unmatched.popleft() < stamp_ns

    def _with_depth(self, frame: Frame) -> list[Frame]:
        """The held frame, which waited long enough, and this one unless it is to be held."""
        frames = [] if self._held is None else [self._held]
        self._held = None
        depth = self._nearest_depth(frame)
        if depth is not None:
            return [*frames, frame._replace(depth=depth)]
        self._images_without_depth += 1
        if self._images_without_depth > _PATIENCE:
            return [*frames, frame]
        self._held = frame
        return frames

    def _nearest_depth(self, frame: Frame) -> Image | None:
        oldest_ns = message_time_ns(frame.image) - self._slop_ns
        while self._depths and message_time_ns(self._depths[0]) < oldest_ns:
            self._depths.popleft()  # too old for all images to come, too
        return min(
            (depth for depth in self._depths if self._is_near(depth, frame)),
            key=lambda depth: _distance_ns(depth, frame.image),
            default=None,
        )

    def _is_near(self, depth: Image, frame: Frame) -> bool:
        return _distance_ns(depth, frame.image) <= self._slop_ns


def message_time_ns(message: Any) -> int:
    """A message's stamp, ns, however strange it is."""
    stamp = message.header.stamp
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def _distance_ns(one: Any, other: Any) -> int:
    return abs(message_time_ns(one) - message_time_ns(other))


# --- images and their camera_info --------------------------------------------------------------


class _Matcher(Protocol):
    def put_image(self, message: ImageMessage) -> list[Frame]: ...

    def put_camera_info(self, message: CameraInfo) -> list[Frame]: ...

    def forget(self) -> None: ...


class _Latest:
    def __init__(self) -> None:
        self._camera_info: CameraInfo | None = None

    def put_image(self, message: ImageMessage) -> list[Frame]:
        return [Frame(message, self._camera_info)]

    def put_camera_info(self, message: CameraInfo) -> list[Frame]:
        self._camera_info = message
        return []

    def forget(self) -> None:
        """A camera outlives its clock: its camera_info may have been sent once for all."""


class _Synchronised:
    """A synchroniser of message_filters, fed by hand instead of by subscriptions.

    :param make: the synchroniser of message_filters' module and two of its filters.
    """

    def __init__(self, make: Callable[[Any, list[Any]], Any]) -> None:
        self._filters = _message_filters()
        self._make = make
        self.forget()

    def forget(self) -> None:
        # The synchronisers drop what is oldest, which after a jump backwards is all that is new.
        self._images, self._infos = self._filters.SimpleFilter(), self._filters.SimpleFilter()
        self._matched: list[Frame] = []
        synchroniser = self._make(self._filters, [self._images, self._infos])
        synchroniser.registerCallback(lambda image, info: self._matched.append(Frame(image, info)))

    def put_image(self, message: ImageMessage) -> list[Frame]:
        self._images.signalMessage(message)
        return self._take()

    def put_camera_info(self, message: CameraInfo) -> list[Frame]:
        self._infos.signalMessage(message)
        return self._take()

    def _take(self) -> list[Frame]:
        matched, self._matched = self._matched, []
        return matched


def _message_filters() -> ModuleType:
    try:
        import message_filters
    except ImportError as error:
        raise SynchronisationError(
            "camera_info_sync exact and approximate need message_filters: "
            "apt install ros-$ROS_DISTRO-message-filters; latest needs nothing"
        ) from error
    return cast(ModuleType, message_filters)


def _latest(slop_s: float, queue_size: int) -> _Matcher:
    return _Latest()


def _exact(slop_s: float, queue_size: int) -> _Matcher:
    return _Synchronised(lambda filters, inputs: filters.TimeSynchronizer(inputs, queue_size))


def _approximate(slop_s: float, queue_size: int) -> _Matcher:
    return _Synchronised(
        lambda filters, inputs: filters.ApproximateTimeSynchronizer(inputs, queue_size, slop_s)
    )


MODES: Mapping[str, Callable[[float, int], _Matcher]] = {
    "latest": _latest,
    "exact": _exact,
    "approximate": _approximate,
}
