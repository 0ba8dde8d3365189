"""Images, cameras and records: every encoding against its own definition, and what is refused."""

import math
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs", reason="needs ROS 2")
messages = pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from image_encoders import (  # noqa: E402
    HEIGHT,
    WIDTH,
    encode,
    make_image,
    make_picture,
    tolerance,
)
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from mppe_ros.conversions import message_from_record, record_from_message  # noqa: E402
from mppe_ros.image_messages import (  # noqa: E402
    BYTES_PER_PIXEL,
    ConversionError,
    depth_to_m,
    image_to_rgb,
)
from mppe_ros.records import pose_array_record  # noqa: E402
from mppe_ros.skeletons import HUMAN36M_17  # noqa: E402
from mppe_ros.structures import Intrinsics, Person  # noqa: E402

# --- images ------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", BYTES_PER_PIXEL)
def test_every_encoding_gives_its_picture(encoding, padding):
    picture = make_picture(encoding)
    rgb = image_to_rgb(make_image(encode(picture, encoding), encoding, padding))
    assert rgb.shape == picture.shape
    assert rgb.dtype == np.uint8
    assert rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - picture).max() <= tolerance(encoding)


@pytest.mark.parametrize("encoding", [name for name in BYTES_PER_PIXEL if name.endswith("16")])
def test_both_byte_orders_give_the_same_picture(encoding):
    pixels = encode(make_picture(encoding), encoding)
    little, big = (image_to_rgb(make_image(pixels, encoding, big=big)) for big in (False, True))
    np.testing.assert_array_equal(little, big)


@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "bayer_rggb8"])
def test_the_byte_order_of_bytes_does_not_matter(encoding):
    pixels = encode(make_picture(encoding), encoding)
    message = make_image(pixels, encoding)
    message.is_bigendian = 1
    np.testing.assert_array_equal(image_to_rgb(message), make_picture(encoding))


def test_an_rgb8_image_is_not_copied():
    message = make_image(make_picture("rgb8"), "rgb8")
    rgb = image_to_rgb(message)
    message.data[0] ^= 255
    assert rgb[0, 0, 0] == message.data[0]


@pytest.mark.parametrize("extension", [".png", ".jpg"])
@pytest.mark.parametrize("grey", [False, True])
def test_compressed_images(extension, grey):
    picture = np.full((HEIGHT, WIDTH, 3), 90 if grey else (200, 60, 20), np.uint8)
    pixels = picture[..., 0] if grey else picture[..., ::-1]
    _, data = cv2.imencode(extension, pixels)
    message = CompressedImage(format=extension[1:], data=data.tobytes())
    rgb = image_to_rgb(message)
    assert rgb.shape == picture.shape and rgb.flags.c_contiguous
    assert np.abs(rgb.astype(int) - picture).max() <= (0 if extension == ".png" else 4)


def test_a_16_bit_png_is_scaled():
    pixels = np.full((HEIGHT, WIDTH), 100 * 257, np.uint16)
    message = CompressedImage(format="png", data=cv2.imencode(".png", pixels)[1].tobytes())
    assert np.abs(image_to_rgb(message).astype(int) - 100).max() <= 1


def compress(pixels: np.ndarray, extension: str, description: str) -> CompressedImage:
    data = cv2.imencode(extension, pixels)[1].tobytes()
    return CompressedImage(format=description, data=data)


@pytest.mark.parametrize(
    "description",
    ["jpeg", "jpg", "", "rgb8; jpeg compressed bgr8", "bgr8; jpeg compressed bgr8",
     "rgba8; jpeg compressed bgr8", "rgb8; jpeg compressed ", "bayer_rggb8; jpeg compressed bgr8"],
)  # fmt: skip
def test_the_colours_of_what_image_transport_compresses(description):
    picture = np.full((HEIGHT, WIDTH, 3), (200, 60, 20), np.uint8)
    rgb = image_to_rgb(compress(picture[..., ::-1], ".jpg", description))
    assert np.abs(rgb.astype(int) - picture).max() <= 4


def test_channels_that_were_compressed_the_wrong_way_round():
    picture = make_picture("rgb8")
    rgb = image_to_rgb(compress(picture, ".png", "rgb8; png compressed rgb8"))
    np.testing.assert_array_equal(rgb, picture)


@pytest.mark.parametrize("encoding", ["bayer_rggb8", "bayer_bggr8", "bayer_gbrg8", "bayer_grbg8"])
def test_a_compressed_mosaic_becomes_colours(encoding):
    picture = make_picture(encoding)
    mosaic = encode(picture, encoding)
    rgb = image_to_rgb(compress(mosaic, ".png", f"{encoding}; png compressed "))
    np.testing.assert_array_equal(rgb, picture)
    grey = image_to_rgb(compress(mosaic, ".png", f"{encoding}; png compressed mono8"))
    np.testing.assert_array_equal(grey, np.repeat(mosaic[..., None], 3, axis=2))


def test_transparency_and_orientation_are_ignored():
    picture = make_picture("rgb8")
    pixels = np.dstack([picture[..., ::-1], np.full((HEIGHT, WIDTH), 7, np.uint8)])
    np.testing.assert_array_equal(image_to_rgb(compress(pixels, ".png", "png")), picture)


def broken(**changes) -> Image:
    message = make_image(make_picture("rgb8"), "rgb8")
    for name, value in changes.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (broken(encoding="32FC1"), ["32FC1", "rgb8"]),
        (broken(encoding=""), ["encoding"]),
        (broken(encoding="RGB8"), ["RGB8"]),
        (broken(width=0), ["0x6", "empty"]),
        (broken(height=0), ["8x0", "empty"]),
        (broken(step=7), ["step", "7", "24"]),
        (broken(step=0), ["step"]),
        (broken(height=7), ["144", "168", "truncated"]),
        (broken(data=[0] * 10), ["10 bytes", "144"]),
        (broken(data=[]), ["0 bytes"]),
        (CompressedImage(format="jpeg"), ["jpeg", "0 bytes"]),
        (CompressedImage(format="jpeg", data=[1, 2, 3]), ["jpeg", "3 bytes"]),
    ],
)
def test_broken_images_are_refused_with_the_reason(message, words):
    with pytest.raises(ConversionError) as caught:
        image_to_rgb(message)
    for word in words:
        assert word in str(caught.value)


def test_a_picture_that_its_library_refuses_is_a_conversion_error():
    pixels = np.zeros((HEIGHT, 7, 2), np.uint8)  # an odd width has half a pair
    with pytest.raises(ConversionError, match="yuyv"):
        image_to_rgb(make_image(pixels, "yuyv"))


def test_cv_bridge_is_used_where_it_is(monkeypatch):
    class CvBridge:
        def imgmsg_to_cv2(self, message, encoding):
            assert encoding == "rgb8"
            return np.full((message.height, message.width, 3), message.data[0], np.uint8)

    module = ModuleType("cv_bridge")
    module.CvBridge = CvBridge
    monkeypatch.setitem(sys.modules, "cv_bridge", module)
    rgb = image_to_rgb(make_image(np.full((HEIGHT, WIDTH), 7, np.uint8), "mono8", padding=3))
    assert rgb.shape == (HEIGHT, WIDTH, 3) and (rgb == 7).all()


def test_without_any_library_the_error_names_the_packages(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv_bridge", None)
    monkeypatch.setitem(sys.modules, "rosbags.image", None)
    with pytest.raises(ConversionError, match="apt install ros-.*cv-bridge"):
        image_to_rgb(make_image(make_picture("mono8")[..., 0], "mono8"))
    picture = make_picture("bgr8")
    rgb = image_to_rgb(make_image(picture[..., ::-1], "bgr8"))
    np.testing.assert_array_equal(rgb, picture)


# --- depth -------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "values", "kind"),
    [("16UC1", [0, 1, 1500, 65535], np.uint16), ("mono16", [0, 1, 1500, 65535], np.uint16),
     ("32FC1", [0.0, 0.001, 1.5, 65.535], np.float32)],
)  # fmt: skip
def test_depth_comes_in_metres(encoding, values, kind, big, padding):
    pixels = np.array([values, values[::-1]], kind)
    depth_m = depth_to_m(make_image(pixels, encoding, padding, big))
    assert depth_m.dtype == np.float32
    row = [math.nan, 0.001, 1.5, 65.535]
    np.testing.assert_allclose(depth_m, [row, row[::-1]], rtol=1e-6)


def test_what_was_not_measured_is_not_a_number():
    pixels = np.array([[math.nan, math.inf, -math.inf, -1.0, 0.0, 2.0]], np.float32)
    depth_m = depth_to_m(make_image(pixels, "32FC1"))
    np.testing.assert_array_equal(np.isnan(depth_m), [[True] * 5 + [False]])


def test_depth_of_no_depth_image_is_refused():
    with pytest.raises(ConversionError, match=r"'rgb8' is not depth; use 16UC1"):
        depth_to_m(broken())
    message = make_image(np.ones((2, 3), np.uint16), "16UC1")
    message.step = 4
    with pytest.raises(ConversionError, match="step of 4 bytes"):
        depth_to_m(message)


# --- records -----------------------------------------------------------------------------------


def make_person(rng: np.random.Generator) -> Person:
    count = len(HUMAN36M_17)
    return Person(
        score=0.75,
        bbox_xywh_px=np.array([10.0, 20.0, 30.0, 40.0]),
        root_px=np.array([25.0, 40.0]),
        root_mm=np.array([100.0, -200.0, 4000.0]),
        root_covariance_mm2=np.diag([100.0, 100.0, 8100.0]),
        joints_px=rng.uniform(0, 600, (count, 2)),
        joints_mm=rng.uniform(-5000, 5000, (count, 3)),
        joint_scores=rng.uniform(0, 1, count),
        joint_status=rng.integers(0, 3, count).astype(np.uint8),
    )


def make_record(people: int) -> dict:
    rng = np.random.default_rng(7)
    return pose_array_record(
        [make_person(rng) for _ in range(people)],
        skeleton=HUMAN36M_17,
        model="open-v0 (0123abcd)",
        intrinsics=Intrinsics.from_fov(60, 640, 480),
        stamp=(12, 345678901),
        frame_id="camera",
    )


def assert_close(left, right):
    """Equal up to float32, which some fields are."""
    if isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_close(left[key], right[key])
    elif isinstance(left, list):
        assert len(left) == len(right)
        for one, other in zip(left, right, strict=True):
            assert_close(one, other)
    elif isinstance(left, float):
        assert right == pytest.approx(left, rel=1e-6, nan_ok=True)
    else:
        assert left == right and type(left) is type(right)


@pytest.mark.parametrize("people", [0, 1, 3])
def test_a_record_survives_its_message(people):
    record = make_record(people)
    message = message_from_record(messages.Pose3DArray, record)
    assert len(message.poses) == people
    assert_close(record, record_from_message(message))


def test_a_record_fills_every_field_of_its_message():
    record = make_record(1)
    assert record.keys() == messages.Pose3DArray.get_fields_and_field_types().keys()
    (pose,) = record["poses"]
    assert pose.keys() == messages.Pose3D.get_fields_and_field_types().keys()
    for joint in pose["joints"]:
        assert joint.keys() == messages.Joint3D.get_fields_and_field_types().keys()


def test_the_message_can_be_sent():
    serialization = pytest.importorskip("rclpy.serialization")
    record = make_record(2)
    record["poses"][0]["joints"][3]["position"]["x"] = math.nan
    message = message_from_record(messages.Pose3DArray, record)
    received = serialization.deserialize_message(
        serialization.serialize_message(message), messages.Pose3DArray
    )
    assert_close(record_from_message(message), record_from_message(received))


def test_an_unknown_field_is_an_error():
    with pytest.raises(KeyError, match="colour"):
        message_from_record(messages.Joint3D, {"colour": 3})


def test_conversions_work_on_what_a_subscription_delivers():
    """Through serialisation, as from DDS: data of another Python type, maybe."""
    serialization = pytest.importorskip("rclpy.serialization")
    picture = make_picture("rgb8")
    for message in (
        make_image(picture, "rgb8"),
        CompressedImage(data=cv2.imencode(".png", picture[..., ::-1])[1].tobytes()),
    ):
        received = serialization.deserialize_message(
            serialization.serialize_message(message), type(message)
        )
        np.testing.assert_array_equal(image_to_rgb(received), picture)
