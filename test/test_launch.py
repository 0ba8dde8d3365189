"""The launch files and RViz's configuration; where there is no launch_ros they are only read."""

import ast
import importlib.util
import py_compile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
LAUNCH = ROOT / "launch"
LAUNCH_FILES = sorted(LAUNCH.glob("*.launch.py"))
ARGUMENTS = {
    "mppe": [
        "camera", "image_topic", "camera_info_topic", "namespace", "params_file", "rviz",
        "fixed_frame", "debug_image", "use_sim_time", "weights", "device",
    ],
    "demo": ["source", "fov_deg", "rviz", "debug_image", "weights", "device"],
    "multi_camera": [
        "cameras", "params_file", "rviz", "debug_image", "use_sim_time", "weights", "device",
    ],
}  # fmt: skip


def name_of(path):
    return path.name.removesuffix(".launch.py")


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=name_of)
def test_launch_files_compile(path, tmp_path):
    py_compile.compile(str(path), cfile=str(tmp_path / "compiled"), doraise=True)


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=name_of)
def test_the_arguments_of_the_launch_files(path):
    tables = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"
    ]
    assert [ast.literal_eval(key) for key in tables[0].keys] == ARGUMENTS[name_of(path)]


# --- as launch_ros sees them ---------------------------------------------------------------------


def load(name):
    """A launch file as a module."""
    pytest.importorskip(
        "launch_ros", reason="needs launch_ros: apt install ros-$ROS_DISTRO-launch-ros"
    )
    spec = importlib.util.spec_from_file_location(name, LAUNCH / f"{name}.launch.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def launch_file(monkeypatch):
    """mppe.launch.py as a module whose Node only notes its arguments."""
    module = load("mppe")
    monkeypatch.setattr(module, "Node", lambda **arguments: arguments)
    return module


def make_nodes(launch_file, **given):
    """Arguments of the pose node and, if asked for, of RViz."""
    from launch import LaunchContext

    context = LaunchContext()
    values = dict.fromkeys(launch_file.ARGUMENTS, "")
    context.launch_configurations.update({**values, "params_file": "file.yaml", **given})
    return launch_file.make_nodes(context)


@pytest.mark.parametrize("name", ARGUMENTS)
def test_every_argument_is_declared(name):
    description = load(name).generate_launch_description()
    declared = [argument.name for argument in description.get_launch_arguments()]
    # Those of an included launch file may follow.
    assert declared[: len(ARGUMENTS[name])] == ARGUMENTS[name]


def test_without_arguments_the_parameter_file_holds_and_there_is_no_rviz(launch_file):
    (node,) = make_nodes(launch_file, rviz="false")
    assert node["parameters"] == ["file.yaml"]
    assert node["remappings"] == []


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
    node, rviz = make_nodes(launch_file, rviz="true", **given)
    assert node["remappings"] == list(zip(("image_raw", "camera_info"), topics, strict=True))
    assert rviz["remappings"][0] == ("/image_raw", topics[0])


def test_arguments_that_are_given_override_the_parameter_file(launch_file):
    node, rviz = make_nodes(
        launch_file,
        namespace="robot", use_sim_time="true", weights="3dmppe", device="cuda:1", rviz="True",
    )  # fmt: skip
    assert node["namespace"] == rviz["namespace"] == "robot"
    assert node["parameters"][0] == "file.yaml"
    given = {key: value for more in node["parameters"][1:] for key, value in more.items()}
    assert given == {"use_sim_time": True, "weights": "3dmppe", "device": "cuda:1"}
    assert rviz["parameters"] == [{"use_sim_time": True}]


def test_rviz_looks_at_the_nodes_topics_in_the_frame_given(launch_file):
    _, rviz = make_nodes(launch_file, rviz="true")
    assert dict(rviz["remappings"]) == {
        "/image_raw": "image_raw",
        "/mppe/debug_image": "mppe/debug_image",
        "/mppe/markers": "mppe/markers",
    }
    assert rviz["arguments"][0] == "-d" and len(rviz["arguments"]) == 2
    _, rviz = make_nodes(launch_file, rviz="true", debug_image="true", fixed_frame="map")
    assert dict(rviz["remappings"])["/image_raw"] == "mppe/debug_image"
    assert rviz["arguments"][2:] == ["-f", "map"]


def test_a_debug_image_without_rviz_is_explained(launch_file):
    from launch.actions import LogInfo

    _, hint = make_nodes(launch_file, debug_image="true")
    assert isinstance(hint, LogInfo)


def test_every_camera_has_a_node_in_its_namespace(monkeypatch):
    from_files = []
    module = load("multi_camera")
    monkeypatch.setattr(module, "make_node", from_files.append)
    monkeypatch.setattr(module, "GroupAction", lambda actions: actions)
    from launch import LaunchContext

    context = LaunchContext()
    values = dict.fromkeys(module.ARGUMENTS, "")
    context.launch_configurations.update({**values, "cameras": "/front/color, rear"})
    assert len(module.make_nodes(context)) == 2
    assert [(given["namespace"], given["camera"]) for given in from_files] == [
        ("/front/color", "/front/color"),
        ("/rear", "/rear"),
    ]
    # What is handed on exists there.
    assert all(given.keys() <= set(ARGUMENTS["mppe"]) for given in from_files)


@pytest.mark.parametrize("text", ["", ",", "/a,", "/a,/a", "a, /a/"])
def test_cameras_are_named_once(text):
    with pytest.raises(ValueError, match="each of them once"):
        load("multi_camera").camera_names(text)


# --- files beside them ---------------------------------------------------------------------------


def test_the_demonstration_subscribes_reliably_to_its_camera():
    (section,) = yaml.safe_load((ROOT / "config" / "demo.yaml").read_text()).values()
    (overrides,) = section["ros__parameters"].values()
    text = (LAUNCH / "demo.launch.py").read_text()
    for topic, policies in overrides.items():
        assert policies == {"subscription": {"reliability": "reliable"}}
        namespace, _, name = topic.rpartition("/")
        assert f'CAMERA = "{namespace}"' in text and f'"{name}"' in text


def test_rviz_shows_the_camera_and_the_people():
    config = yaml.safe_load((ROOT / "config" / "mppe.rviz").read_text())["Visualization Manager"]
    displays = {display["Name"]: display for display in config["Displays"]}
    assert displays.keys() == {"Grid", "TF", "Image", "Debug image", "People"}
    # Nobody draws a debug image before somebody looks at it.
    assert {name for name in displays if not displays[name]["Enabled"]} == {"Debug image"}
    assert all(display["Enabled"] == display["Value"] for display in displays.values())
    people, image = displays["People"], displays["Image"]
    assert people["Class"] == "rviz_default_plugins/MarkerArray"
    assert people["Topic"]["Value"] == "/mppe/markers"
    assert {"joints", "bones", "labels"} <= people["Namespaces"].keys()
    assert image["Class"] == displays["Debug image"]["Class"] == "rviz_default_plugins/Image"
    assert image["Topic"]["Value"] == "/image_raw"
    assert image["Topic"]["Reliability Policy"] == "Best Effort"
    assert displays["Debug image"]["Topic"]["Value"] == "/mppe/debug_image"


def test_fast_dds_is_given_memory_for_images() -> None:
    profile = ElementTree.parse(ROOT / "config" / "fastdds.xml")
    (size,) = profile.iterfind(".//{*}segment_size")
    assert int(size.text or 0) > 1920 * 1080 * 3
    transports = {one.text for one in profile.iterfind(".//{*}transport_descriptor/{*}type")}
    assert transports == {"SHM", "UDPv4"}
