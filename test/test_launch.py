"""The launch file and RViz's configuration; where there is no launch_ros they are only read."""

import importlib.util
import py_compile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_launch_files_compile(path, tmp_path):
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)


@pytest.fixture
def launch_file(monkeypatch):
    """mppe.launch.py as a module whose Node only notes its arguments."""
    pytest.importorskip(
        "launch_ros", reason="needs launch_ros: apt install ros-$ROS_DISTRO-launch-ros"
    )
    spec = importlib.util.spec_from_file_location("launch_file", ROOT / "launch/mppe.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "Node", lambda **arguments: arguments)
    return module


def make_nodes(launch_file, **given):
    """Arguments of the pose node and of RViz."""
    from launch import LaunchContext

    context = LaunchContext()
    values = dict.fromkeys(launch_file.ARGUMENTS, "")
    context.launch_configurations.update({**values, "params_file": "file.yaml", **given})
    return launch_file.make_nodes(context)


def test_every_argument_is_declared(launch_file):
    description = launch_file.generate_launch_description()
    declared = [argument.name for argument in description.get_launch_arguments()]
    assert declared == [
        "camera", "image_topic", "camera_info_topic", "namespace", "params_file", "rviz",
        "use_sim_time", "weights", "device",
    ]  # fmt: skip


def test_without_arguments_the_parameter_file_holds(launch_file):
    node, rviz = make_nodes(launch_file)
    assert node["parameters"] == ["file.yaml"]
    assert node["remappings"] == []
    assert rviz["remappings"] == [("/image_raw", "image_raw"), ("/mppe/markers", "mppe/markers")]


@pytest.mark.parametrize(
    ("given", "topics"),
    [
        ({"camera": "/cam/color"}, ("/cam/color/image_raw", "/cam/color/camera_info")),
        ({"camera": "/cam/"}, ("/cam/image_raw", "/cam/camera_info")),
        ({"camera": "/cam", "image_topic": "/x/rect"}, ("/x/rect", "/cam/camera_info")),
        ({"camera": "/cam", "camera_info_topic": "/y"}, ("/cam/image_raw", "/y")),
        ({"image_topic": "/x", "camera_info_topic": "/y"}, ("/x", "/y")),
    ],
)
def test_topics_that_are_given_win_over_the_cameras(launch_file, given, topics):
    node, rviz = make_nodes(launch_file, **given)
    assert node["remappings"] == list(zip(("image_raw", "camera_info"), topics, strict=True))
    assert rviz["remappings"][0] == ("/image_raw", topics[0])


def test_arguments_that_are_given_override_the_parameter_file(launch_file):
    node, rviz = make_nodes(
        launch_file, namespace="robot", use_sim_time="true", weights="3dmppe", device="cuda:1"
    )
    assert node["namespace"] == rviz["namespace"] == "robot"
    assert node["parameters"][0] == "file.yaml"
    given = {key: value for more in node["parameters"][1:] for key, value in more.items()}
    assert given == {"use_sim_time": True, "weights": "3dmppe", "device": "cuda:1"}
    assert rviz["parameters"] == [{"use_sim_time": True}]


def test_rviz_shows_the_camera_and_the_people():
    config = yaml.safe_load((ROOT / "config" / "mppe.rviz").read_text())["Visualization Manager"]
    displays = {display["Class"].split("/")[-1]: display for display in config["Displays"]}
    assert displays.keys() == {"Grid", "TF", "Image", "MarkerArray"}
    assert all(display["Enabled"] for display in displays.values())
    assert displays["MarkerArray"]["Topic"]["Value"] == "/mppe/markers"
    assert displays["Image"]["Topic"]["Value"] == "/image_raw"
    assert displays["Image"]["Topic"]["Reliability Policy"] == "Best Effort"
