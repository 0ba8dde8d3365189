"""Which camera_info and depth image an image gets, message by message, without DDS."""

import sys

import pytest

pytest.importorskip("sensor_msgs", reason="needs ROS 2")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from mppe_ros.synchronisation import MODES, CameraPairing, SynchronisationError

SYNCHRONISED = ["exact", "approximate"]


def at(message_class, ms):
    message = message_class()
    message.header.stamp.sec, remainder_ms = divmod(ms, 1000)
    message.header.stamp.nanosec = remainder_ms * 1_000_000
    return message


def ms_of(message):
    if message is None:
        return None
    stamp = message.header.stamp
    return stamp.sec * 1000 + stamp.nanosec // 1_000_000


class Streams:
    """A pairing that is fed and read in milliseconds: frames as (image, camera_info, depth)."""

    def __init__(self, mode="latest", **options):
        if mode != "latest":
            pytest.importorskip("message_filters", reason="needs ros-$ROS_DISTRO-message-filters")
        self.pairing = CameraPairing(mode, **options)

    def image(self, ms):
        return self._read(self.pairing.put_image(at(Image, ms)))

    def info(self, ms):
        return self._read(self.pairing.put_camera_info(at(CameraInfo, ms)))

    def depth(self, ms):
        return self._read(self.pairing.put_depth(at(Image, ms)))

    @property
    def dropped(self):
        return self.pairing.dropped

    @staticmethod
    def _read(frames):
        return [tuple(map(ms_of, frame)) for frame in frames]


# --- latest ------------------------------------------------------------------------------------


def test_latest_takes_the_newest_camera_info_at_once():
    streams = Streams()
    assert streams.image(0) == [(0, None, None)]
    assert streams.info(5) == []
    assert streams.image(33) == [(33, 5, None)]
    assert streams.image(66) == [(66, 5, None)]
    streams.info(99)
    assert streams.image(99) == [(99, 99, None)]
    assert streams.dropped == 0


def test_latest_keeps_a_camera_info_that_was_sent_once_when_a_bag_starts_again():
    streams = Streams()
    streams.info(0)
    streams.image(5000)
    assert streams.image(100) == [(100, 0, None)]


def test_compressed_images_are_images():
    (frame,) = CameraPairing().put_image(at(CompressedImage, 7))
    assert ms_of(frame.image) == 7


# --- exact and approximate ---------------------------------------------------------------------


@pytest.mark.parametrize("mode", SYNCHRONISED)
@pytest.mark.parametrize("info_first", [False, True])
def test_a_frame_comes_with_the_second_of_its_messages(mode, info_first):
    streams = Streams(mode)
    first, second = (streams.info, streams.image) if info_first else (streams.image, streams.info)
    for ms in (0, 33, 66):
        assert first(ms) == []
        assert second(ms) == [(ms, ms, None)]
    assert streams.dropped == 0


def test_exact_takes_equal_stamps_only():
    streams = Streams("exact")
    assert streams.image(100) == streams.info(99) == []
    assert streams.info(100) == [(100, 100, None)]


def test_approximate_takes_stamps_within_the_slop():
    streams = Streams("approximate", slop_s=0.010)
    assert streams.image(100) == streams.info(89) == []
    assert streams.info(109) == [(100, 109, None)]
    assert streams.image(200) == streams.info(211) == []


def test_frames_come_in_order():
    """Where the slop is long enough for two images, the nearer one goes first and alone."""
    streams = Streams("approximate", slop_s=0.050)
    streams.image(0)
    streams.image(30)
    assert streams.info(29) == [(30, 29, None)]
    assert streams.info(40) == []
    assert streams.dropped == 1


@pytest.mark.parametrize("mode", SYNCHRONISED)
def test_an_overtaken_image_is_dropped_and_counted(mode):
    streams = Streams(mode)
    streams.image(0)
    streams.image(33)
    streams.image(66)
    assert streams.info(66) == [(66, 66, None)]
    assert streams.dropped == 2


@pytest.mark.parametrize("mode", SYNCHRONISED)
def test_memory_is_bounded_and_what_is_lost_counts(mode):
    streams = Streams(mode, queue_size=3)
    for ms in range(0, 1000, 50):
        streams.image(ms)
    assert streams.dropped == 17
    for ms in range(2000, 3000, 50):
        streams.info(ms)
    assert streams.image(2950) == [(2950, 2950, None)]
    assert streams.dropped == 20


@pytest.mark.parametrize("mode", SYNCHRONISED)
@pytest.mark.parametrize("info_first", [False, True])
def test_time_may_start_again(mode, info_first):
    streams = Streams(mode)
    first, second = (streams.info, streams.image) if info_first else (streams.image, streams.info)
    for ms in range(9000, 10000, 50):
        first(ms)
    for ms in (100, 133, 166):
        first(ms)
        assert second(ms) == [(ms, ms, None)]
    assert streams.dropped == (0 if info_first else 20)


@pytest.mark.parametrize("mode", SYNCHRONISED)
def test_a_camera_whose_stamps_stand_still(mode):
    streams = Streams(mode)
    for _ in range(3):
        assert streams.image(0) == []
        assert streams.info(0) == [(0, 0, None)]
    assert streams.dropped == 0


@pytest.mark.parametrize("mode", SYNCHRONISED)
def test_without_message_filters_the_error_names_its_package(mode, monkeypatch):
    monkeypatch.setitem(sys.modules, "message_filters", None)
    with pytest.raises(SynchronisationError, match="apt install ros-.*-message-filters"):
        CameraPairing(mode)
    CameraPairing("latest")


def test_the_modes():
    assert list(MODES) == ["latest", "exact", "approximate"]


# --- depth -------------------------------------------------------------------------------------


def test_depth_that_came_before_is_there_at_once():
    streams = Streams()
    streams.depth(0)
    streams.depth(30)
    assert streams.image(33) == [(33, None, 30)]


def test_a_frame_waits_for_its_depth():
    streams = Streams()
    streams.depth(0)
    assert streams.image(33) == []
    assert streams.depth(35) == [(33, None, 35)]
    assert streams.depth(40) == []


def test_a_frame_whose_depth_is_lost_goes_with_the_next_image():
    streams = Streams()
    streams.depth(0)
    assert streams.image(33) == []
    assert streams.image(66) == [(33, None, None)]
    assert streams.depth(66) == [(66, None, 66)]
    assert streams.dropped == 0


def test_without_any_depth_nothing_waits():
    streams = Streams()
    for ms in (0, 33, 66):
        assert streams.image(ms) == [(ms, None, None)]


def test_when_depth_ends_images_stop_waiting_for_it():
    streams = Streams()
    streams.depth(0)
    images = range(33, 660, 33)
    frames = [streams.image(ms) for ms in images]
    assert sorted(frame[0] for now in frames for frame in now) == list(images)
    assert frames[-1] == [(images[-1], None, None)]
    assert streams.dropped == 0


def test_depth_at_half_the_rate_reaches_every_second_image():
    streams = Streams()
    frames = []
    for ms in range(0, 660, 33):
        frames += streams.image(ms)
        if ms % 66 == 0:
            frames += streams.depth(ms + 2)
    images = [image for image, _, _ in frames]
    assert images == sorted(images)
    assert all(depth == image + 2 for image, _, depth in frames[1:] if image % 66 == 0)
    assert all(depth is None for image, _, depth in frames if image % 66)


def test_the_nearest_depth_within_the_slop_is_taken():
    streams = Streams(slop_s=0.02)
    for ms in (15, 25, 40):
        streams.depth(ms)
    assert streams.image(30) == [(30, None, 25)]
    assert streams.image(90) == []
    assert streams.depth(111) == []
    assert streams.image(123) == [(90, None, None), (123, None, 111)]


def test_old_depth_is_forgotten_when_time_starts_again():
    streams = Streams()
    streams.depth(5000)
    assert streams.image(5000) == [(5000, None, 5000)]
    streams.image(5033)  # held
    assert streams.image(100) == []
    assert streams.dropped == 1
    assert streams.depth(100) == [(100, None, 100)]


@pytest.mark.parametrize("mode", SYNCHRONISED)
def test_depth_in_the_other_modes(mode):
    streams = Streams(mode)
    for ms in (0, 33):
        assert streams.image(ms) == []
        assert streams.depth(ms) == []
        assert streams.info(ms) == [(ms, ms, ms)]
    streams.image(66)
    assert streams.info(66) == []
    assert streams.depth(66) == [(66, 66, 66)]
