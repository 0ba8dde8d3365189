"""rosbag2 without ROS: images in, people out, against what ROS itself makes of the messages."""

import dataclasses
import json
import math

import numpy as np
import pytest
from recordings import (
    CAMERA,
    EPOCH_S,
    FPS,
    calibration,
    jpeg_image,
    person,
    poses,
    raw_image,
    write_bag,
)
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin

from mppe_ros.bags import (
    STORAGES,
    AnnotatedBag,
    BagSource,
    message_folder,
    message_from_record,
    typestore,
)
from mppe_ros.calibration import Camera
from mppe_ros.estimator import open_source
from mppe_ros.media import MediaError, Shot
from mppe_ros.records import from_json
from mppe_ros.results import message_of
from mppe_ros.skeletons import HUMAN36M_17

POSE_ARRAY = "mppe_ros/msg/Pose3DArray"


def picture(seed: int, height: int = 480, width: int = 640) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.ascontiguousarray(small.repeat(height // 6, 0).repeat(width // 8, 1))


def shots_of(path, **options):
    reports = []
    with open_source(path, reports.append, **options) as source:
        return source, [(shot, shot.read()) for shot in source.shots()], reports


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", STORAGES.values(), ids=STORAGES)
@pytest.mark.parametrize("make", [raw_image, jpeg_image])
def test_images_come_with_stamp_frame_and_camera(tmp_path, storage, make):
    lens = dataclasses.replace(
        CAMERA, distortion_model="plumb_bob", distortion=(0.1, -0.2, 0.0, 0.0, 0.05)
    )
    pictures = [picture(i) for i in range(3)]
    topic = "/head/image_raw" if make is raw_image else "/head/image_raw/compressed"
    path = write_bag(
        tmp_path / "bag",
        [make(topic, rgb) for rgb in pictures],
        [("/head/camera_info", calibration(lens)), ("/camera_info", calibration(CAMERA))],
        storage,
    )
    source, shots, reports = shots_of(path)
    assert source.is_film and not source.live and source.frame_count == 3 and reports == []
    assert source.fps == pytest.approx(FPS, rel=1e-3)
    assert (source.image_topic, source.info_topic) == (topic, "/head/camera_info")
    for number, (shot, rgb) in enumerate(shots):
        assert np.abs(rgb.astype(int) - pictures[number]).mean() < (1 if make is raw_image else 4)
        assert shot.stamp[0] + shot.stamp[1] * 1e-9 == pytest.approx(EPOCH_S + number / FPS)
        assert shot.time_s == pytest.approx(number / FPS, abs=1e-6)
        assert shot.frame_id == "optical"
        assert Camera().intrinsics(640, 480, shot) == lens


def test_one_file_of_a_bag_will_do(tmp_path):
    path = write_bag(
        tmp_path / "bag", [raw_image("/image", picture(0))], storage=StoragePlugin.MCAP
    )
    _, shots, _ = shots_of(path / "bag.mcap")
    assert len(shots) == 1


def test_depth_is_not_taken_for_a_picture_and_other_cameras_are_told(tmp_path):
    depth = {"height": 2, "width": 2, "encoding": "16UC1", "step": 4, "data": np.ones(8, np.uint8)}
    images = [("/depth/image_raw", "sensor_msgs/msg/Image", depth)] * 5
    images += [raw_image("/left/image_raw", picture(0))]
    images += [raw_image("/right/image_raw", picture(i)) for i in range(2)]
    path = write_bag(tmp_path / "bag", images, [("/left/camera_info", calibration(CAMERA))])
    source, _, reports = shots_of(path)
    assert source.image_topic == "/left/image_raw"  # of which the camera is known
    assert len(reports) == 1 and "/right/image_raw" in reports[0] and "/depth/" not in reports[0]
    source, shots, _ = shots_of(path, image_topic="/right/image_raw")
    assert len(shots) == 2 and shots[0][0].camera_info is None
    with pytest.raises(MediaError, match=r"/nowhere is not a topic.*/left/image_raw"):
        open_source(path, image_topic="/nowhere")


def test_a_damaged_image_is_named_and_the_others_go_on(tmp_path):
    images = [jpeg_image("/image", picture(i), size=20 if i == 1 else None) for i in range(3)]
    with open_source(write_bag(tmp_path / "bag", images)) as source:
        shots = source.shots()
        next(shots).read()
        with pytest.raises(MediaError, match="image 1"):
            next(shots).read()
        assert next(shots).index == 2
        reports = []
    with open_source(tmp_path / "bag", reports.append) as source:
        assert len(list(source)) == 2 and len(reports) == 1


def test_what_is_no_bag_is_named(tmp_path):
    empty = write_bag(tmp_path / "empty", [])
    with pytest.raises(MediaError, match="no images"):
        open_source(empty)
    (tmp_path / "broken.mcap").write_bytes(b"nothing of the kind")
    with pytest.raises(MediaError, match="broken.mcap"):
        open_source(tmp_path / "broken.mcap")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "metadata.yaml").write_text("rosbag2_bagfile_information: {version: 5}")
    with pytest.raises(MediaError, match="folder"):
        open_source(folder)


# --- messages ----------------------------------------------------------------------------------


def test_our_definitions_have_the_hashes_of_the_built_messages():
    """Who compares types by their hash must see the same ones as from the node."""
    directory = pytest.importorskip("ament_index_python.packages", reason="needs ROS 2")
    try:
        share = directory.get_package_share_directory("mppe_ros")
    except directory.PackageNotFoundError:
        pytest.skip("the package isn't built: make setup")
    for path in message_folder().glob("*.msg"):
        with open(f"{share}/msg/{path.stem}.json") as file:
            hashes = {h["type_name"]: h["hash_string"] for h in json.load(file)["type_hashes"]}
        name = f"mppe_ros/msg/{path.stem}"
        assert typestore().hash_rihs01(name) == hashes[name]


def test_ros_reads_our_messages():
    serialization = pytest.importorskip("rclpy.serialization", reason="needs ROS 2")
    messages = pytest.importorskip("mppe_ros.msg", reason="needs the built package")
    from mppe_ros.conversions import record_from_message

    record = poses("a", 3, [person(1, 3, invalid=[2]), person(7, 3)]).record
    raw = typestore().serialize_cdr(message_from_record(POSE_ARRAY, record), POSE_ARRAY)
    message = serialization.deserialize_message(bytes(raw), messages.Pose3DArray)
    back = record_from_message(message)
    assert back.keys() == record.keys()
    assert back["header"] == record["header"] and back["bones"] == record["bones"]
    assert back["poses"][1]["track_id"] == 7 and back["poses"][1]["tracking_state"] == 2
    joints = [[j["position"][a] for a in "xyz"] for j in back["poses"][0]["joints"]]
    expected = person(1, 3, invalid=[2]).joints_mm / 1000
    np.testing.assert_allclose(joints, expected, rtol=1e-9)
    assert math.isnan(joints[2][0])


def test_an_unknown_field_is_an_error():
    with pytest.raises(KeyError, match="colour"):
        message_from_record("mppe_ros/msg/Joint3D", {"colour": 3})


# --- writing -----------------------------------------------------------------------------------


def annotate(path, storage, source=None, frames=3):
    """Writes and returns (topic -> connection), (topic -> deserialised messages)."""
    with AnnotatedBag(path, storage, HUMAN36M_17, source) as bag:
        shots = iter(source.shots()) if source else None
        for frame in range(frames):
            shot = next(shots) if shots else Shot("a", frame, frame / FPS, lambda: None)
            line = from_json(poses("a", frame, [person(1, frame)]).to_json())
            bag.write(message_of(line), shot, picture(frame), CAMERA)
    return read(path)


def read(path):
    with AnyReader([path]) as reader:
        messages = {}
        for connection, time_ns, raw in reader.messages():
            message = reader.deserialize(raw, connection.msgtype)
            messages.setdefault(connection.topic, []).append((time_ns, message))
        return {c.topic: c for c in reader.connections}, messages


@pytest.mark.parametrize("storage", STORAGES)
def test_an_annotated_bag_has_people_pictures_and_all_definitions(tmp_path, storage):
    connections, messages = annotate(tmp_path / "out", storage)
    assert {topic: c.msgtype for topic, c in connections.items()} == {
        "/camera/camera_info": "sensor_msgs/msg/CameraInfo",
        "/camera/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
        "/mppe/poses": POSE_ARRAY,
        "/mppe/markers": "visualization_msgs/msg/MarkerArray",
    }
    assert "Joint3D[] joints" in connections["/mppe/poses"].msgdef.data
    for number, (time_ns, array) in enumerate(messages["/mppe/poses"]):
        assert time_ns == round(number / FPS * 1e9)
        assert array.poses[0].root.pose.position.x == person(1, number).root_mm[0] / 1000
        markers = messages["/mppe/markers"][number][1].markers
        assert {m.ns for m in markers} == {"joints", "bones", "labels", "boxes"}
        for topic in ("/camera/image_raw/compressed", "/camera/camera_info"):
            header = messages[topic][number][1].header
            assert (header.frame_id, header.stamp) == ("optical", array.header.stamp)
            assert header.frame_id == markers[0].header.frame_id
    # What was written is a recording like any other.
    _, shots, _ = shots_of(tmp_path / "out")
    assert np.abs(shots[1][1].astype(int) - picture(1)).mean() < 4
    assert Camera().intrinsics(640, 480, shots[1][0]) == CAMERA


def test_a_bag_is_copied_as_it_is_and_its_old_annotation_replaced(tmp_path):
    path = write_bag(
        tmp_path / "in",
        [raw_image("/image_raw", picture(i)) for i in range(3)],
        [("/camera_info", calibration(CAMERA))],
    )
    with BagSource(path, lambda _: None) as source:
        before = [(c.topic, t, bytes(raw)) for c, t, raw in source.raw_messages()]
        annotate(tmp_path / "out", "mcap", source)
    with BagSource(tmp_path / "out", lambda _: None) as source:
        after = [(c.topic, t, bytes(raw)) for c, t, raw in source.raw_messages()]
        assert [row for row in after if not row[0].startswith("/mppe/")] == before
        assert [row[1] for row in after] == sorted(row[1] for row in after)
        _, messages = annotate(tmp_path / "again", "bag", source, frames=2)
    assert len(messages["/mppe/poses"]) == 2 and len(messages["/image_raw"]) == 3


def test_a_bag_appears_only_when_complete_and_replaces_an_older_one(tmp_path):
    annotate(tmp_path / "out", "mcap", frames=3)
    with pytest.raises(RuntimeError), AnnotatedBag(tmp_path / "out", "mcap", HUMAN36M_17):
        raise RuntimeError
    assert len(read(tmp_path / "out")[1]["/mppe/poses"]) == 3
    annotate(tmp_path / "out", "mcap", frames=1)
    assert len(read(tmp_path / "out")[1]["/mppe/poses"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
