"""docs/ros.md says what the code does: its tables against the code and a running node."""

import ast
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from node_host import make_host
from node_rig import Robot, make_info, wait_until

from mppe_ros import bridge, sample_camera
from mppe_ros.camera_info import MODEL_ALIASES, RECTIFICATIONS
from mppe_ros.image_messages import BYTES_PER_PIXEL, DEPTH_UNITS
from mppe_ros.parameters import PARAMETERS
from mppe_ros.pipeline import Pipeline
from mppe_ros.structures import DISTORTION_COEFFICIENTS, Intrinsics
from mppe_ros.synchronisation import MODES, SLOP_S

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = re.split(r"^## ", (ROOT / "docs" / "ros.md").read_text(), flags=re.M)[1:]
(POSE_NODE, BRIDGE, SAMPLE_CAMERA, _) = SECTIONS


def tables(text):
    """Rows (lists of cells) below each table's head, by the first cell that says something."""
    found = {}
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.M):
        head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]]
                          for line in block.splitlines())  # fmt: skip
        found[next(filter(None, head)).strip("`")] = rows
    return found


def code(cell):
    """Its words in code style."""
    return re.findall(r"`([^`]+)`", cell)


def first_words(rows):
    return [code(row[0])[0] for row in rows]


def as_yaml(value):
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


IN_NODE = tables(POSE_NODE)


# --- parameters --------------------------------------------------------------------------------


def range_of(parameter):
    if parameter.bounds:
        return "{:g} to {:g}".format(*parameter.bounds)
    return ", ".join(parameter.choices)


def test_the_parameters_of_the_pose_node():
    comments = re.findall(
        r"^    ([\w.]+): .*?  # (?:\* )?(.*)$", (ROOT / "config" / "mppe.yaml").read_text(), re.M
    )
    expected = [
        [f"`{p.name}`", as_yaml(p.default), range_of(p), "no" if p.read_only else "yes", meaning]
        for p, (_, meaning) in zip(PARAMETERS, comments, strict=True)
    ]
    assert IN_NODE["parameter"] == expected


@pytest.mark.parametrize(
    ("section", "module"), [(BRIDGE, bridge), (SAMPLE_CAMERA, sample_camera)]
)
def test_the_parameters_of_the_other_nodes(section, module):
    assert tables(section)["parameter"] == [
        [f"`{p.name}`", as_yaml(p.default), p.description] for p in module.PARAMETERS
    ]


# --- modes -------------------------------------------------------------------------------------


def test_the_modes_of_the_camera():
    assert first_words(IN_NODE["camera_info_sync"]) == list(MODES)
    assert f"{SLOP_S * 1e3:g} ms" in IN_NODE["camera_info_sync"][-1][1]
    assert first_words(IN_NODE["rectification"]) == list(RECTIFICATIONS)
    models = {
        code(model)[0]: (tuple(map(int, re.findall(r"\d+", counts))), set(code(aliases)))
        for model, counts, aliases in IN_NODE["distortion model"]
    }
    assert models == {
        model: (counts, {a for a, meant in MODEL_ALIASES.items() if meant == model})
        for model, counts in DISTORTION_COEFFICIENTS.items()
        if counts != (0,)
    }


def test_the_encodings_of_images():
    encodings = dict(IN_NODE["image encodings"])
    assert set(code(encodings.pop("depth"))) == DEPTH_UNITS.keys()
    assert {name for cell in encodings.values() for name in code(cell)} == BYTES_PER_PIXEL.keys()


# --- topics, services and diagnostics of a running node ------------------------------------------


def topics_of(node):
    """Direction, type, reliability and depth by name, apart from what every node has."""
    namespace, found = node.get_namespace(), {}
    for direction, endpoints in (("sub", node.subscriptions), ("pub", node.publishers)):
        for endpoint in endpoints:
            package = endpoint.msg_type.__module__.split(".")[0]
            if package in ("rcl_interfaces", "lifecycle_msgs"):
                continue
            name = endpoint.topic_name.replace(f"{namespace}/mppe/", "~/")
            qos = endpoint.qos_profile
            found[name.removeprefix(f"{namespace}/")] = (
                direction,
                f"{package}/{endpoint.msg_type.__name__}",
                qos.reliability.name.lower().replace("_", " "),
                qos.depth,
            )
    return found


def services_of(node):
    namespace = node.get_namespace()
    return {
        name.replace(f"{namespace}/mppe", "~"): types[0].replace("/srv/", "/")
        for name, types in node.get_service_names_and_types_by_node("mppe", namespace)
        if types[0].startswith(("std_srvs/", "mppe_ros/"))
    }


def documented_topics(rows):
    topics = {}
    for direction, name, message_type, qos in rows:
        if direction != "srv":
            (reliability,) = re.findall("best effort|reliable", qos)
            (depth,) = re.findall(r"keep last (\d+)", qos)
            topics[code(name)[0]] = direction, message_type, reliability, int(depth)
    return topics


@pytest.mark.ros
def test_topics_services_and_diagnostics(monkeypatch):
    robot, host = Robot("/ros_docs"), make_host(monkeypatch)
    other = Robot("/ros_docs_compressed", listens=False)
    rows = IN_NODE["name"]
    try:
        node = host.start(robot.namespace, depth_fusion=True)
        compressed = host.start(other.namespace, image_transport="compressed")
        assert documented_topics(rows) == {**topics_of(compressed), **topics_of(node)}
        documented = {code(row[1])[0]: row[2] for row in rows if row[0] == "srv"}
        wait_until(lambda: services_of(node) == documented)

        image = np.zeros((12, 16, 3), np.uint8)
        wait_until(
            lambda: robot.status("images/s|depth on"), lambda: robot.send(image, make_info(image))
        )
        _, values = robot.status("")
        assert list(values) == first_words(IN_NODE["key"])
    finally:
        host.close()
        robot.close()
        other.close()


def test_the_stages_are_those_of_a_real_pipeline():
    """The node above had a fake one."""
    pipeline = Pipeline.load(device="cpu")
    pipeline([np.zeros((12, 16, 3), np.uint8)], [Intrinsics.from_fov(60, 16, 12)])
    stages = [f"{stage} (ms)" for stage in pipeline.stage_ms]
    assert stages and stages == [key for key in first_words(IN_NODE["key"]) if key in stages]


# --- launch files ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((ROOT / "launch").glob("*.py")), ids=lambda p: p.name)
def test_the_arguments_of_launch_files(path):
    (table,) = [
        node.value
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and node.targets[0].id == "ARGUMENTS"
    ]
    rows = tables(SECTIONS[-1])[path.name]
    assert first_words(rows) == [ast.literal_eval(key) for key in table.keys]
    for row, value in zip(rows, table.values, strict=True):
        default = value.elts[0]
        if isinstance(default, ast.Constant):
            assert row[1] == ("required" if default.value is None else default.value)
        else:  # a path
            assert code(row[1])[0].split("/")[-1] in ast.unparse(default)
