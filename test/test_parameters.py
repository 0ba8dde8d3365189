"""The parameter table, its YAML file, and what the node's parameters accept."""

import math
from pathlib import Path

import pytest
import yaml
from domain import DOMAIN_ID

rclpy = pytest.importorskip("rclpy", reason="needs ROS 2")

from rclpy.exceptions import ParameterException  # noqa: E402
from rclpy.parameter import Parameter as RosParameter  # noqa: E402

from mppe_ros import parameters  # noqa: E402
from mppe_ros.parameters import PARAMETERS, Settings  # noqa: E402
from mppe_ros.pipeline import PipelineOptions  # noqa: E402

CONFIG = Path(__file__).resolve().parents[1] / "config" / "mppe.yaml"
BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
FLOATS = [p.name for p in PARAMETERS if isinstance(p.default, float)]


@pytest.fixture(scope="module")
def context():
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture
def make_node(context):
    nodes = []

    def make(**overrides):
        node = rclpy.create_node(
            "parameters_under_test",
            context=context,
            parameter_overrides=[RosParameter(k, value=v) for k, v in overrides.items()],
        )
        nodes.append(node)
        parameters.declare(node)
        return node

    yield make
    for node in nodes:
        node.destroy_node()


def set_one(node, name, value):
    (result,) = node.set_parameters([RosParameter(name, value=value)])
    return result


# --- the table ---------------------------------------------------------------------------------


def test_the_yaml_file_is_the_table():
    (section,) = yaml.safe_load(CONFIG.read_text()).values()
    assert list(section["ros__parameters"].items()) == [(p.name, p.default) for p in PARAMETERS]
    types = {name: type(value) for name, value in section["ros__parameters"].items()}
    assert types == {p.name: type(p.default) for p in PARAMETERS}


def test_every_line_of_the_yaml_file_has_a_comment_that_marks_read_only_ones():
    lines = CONFIG.read_text().splitlines()
    for parameter in PARAMETERS:
        (line,) = (text for text in lines if text.strip().startswith(f"{parameter.name}:"))
        comment = line.partition("#")[2].strip()
        assert comment
        assert comment.startswith("*") == parameter.read_only


def test_every_default_is_allowed():
    for parameter in PARAMETERS:
        assert parameter.problem(parameter.default) is None
        assert parameter.description.endswith(".")


def test_defaults_of_the_pipeline_are_the_pipelines():
    options, home = Settings().pipeline_options, PipelineOptions()
    for name in ("detection_threshold", "joint_threshold", "max_persons", "flip_test"):
        assert getattr(options, name) == getattr(home, name)
    assert (options.min_range_m, options.max_range_m) == (0, math.inf)


def test_no_maximum_rate_is_no_least_period():
    assert Settings().min_period_s == 0
    assert Settings(max_rate=4.0).min_period_s == 0.25
    assert Settings(max_range=7.0).pipeline_options.max_range_m == 7


# --- on a node ---------------------------------------------------------------------------------


def test_a_node_starts_with_the_defaults(make_node):
    assert parameters.read(make_node()) == Settings()


def test_descriptors_tell_what_the_table_says(make_node):
    node = make_node()
    for parameter in PARAMETERS:
        descriptor = node.describe_parameter(parameter.name)
        assert descriptor.description == parameter.description
        assert descriptor.read_only == parameter.read_only
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        bounds = [(r.from_value, r.to_value) for r in ranges]
        assert bounds == ([parameter.bounds] if parameter.bounds else [])


@pytest.mark.parametrize("name", FLOATS)
def test_whole_numbers_are_taken_for_floats_at_start(make_node, name):
    value = 1
    settings = parameters.read(make_node(**{name: value}))
    got = getattr(settings, name.replace(".", "_"))
    assert got == value
    assert type(got) is float


def test_live_parameters_change(make_node):
    node = make_node()
    assert set_one(node, "detection_threshold", 0.75).successful
    assert set_one(node, "max_rate", 10).successful
    settings = parameters.read(node)
    assert settings.detection_threshold == settings.pipeline_options.detection_threshold == 0.75
    assert settings.min_period_s == 0.1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("detection_threshold", 1.5),
        ("detection_threshold", 2),
        ("detection_threshold", math.nan),
        ("detection_threshold", "high"),
        ("detection_threshold", True),
        ("detection_threshold", None),
        ("max_persons", 0),
        ("max_persons", 2.5),
        ("max_rate", -1.0),
        ("flip_test", 1),
        ("marker_lifetime", 0.0),
    ],
)
def test_bad_values_are_refused_with_the_reason(make_node, name, value):
    node = make_node()
    result = set_one(node, name, value)
    assert not result.successful
    assert result.reason
    assert parameters.read(node) == Settings()


@pytest.mark.parametrize("name", [p.name for p in PARAMETERS if p.read_only])
def test_read_only_parameters_do_not_change(make_node, name):
    node = make_node()
    value = BY_NAME[name].default
    result = set_one(node, name, value)
    assert not result.successful
    assert "read-only" in result.reason


@pytest.mark.parametrize(
    "overrides",
    [
        {"max_rate": -1.0},
        {"max_rate": "fast"},
        {"precision": "fp8"},
        {"image_transport": "theora"},
        {"assumed_fov_deg": 180.0},
        {"weights": 3},
        {"min_range": 5.0, "max_range": 4.0},
    ],
)
def test_a_bad_value_at_start_names_the_parameter(make_node, overrides):
    with pytest.raises(ParameterException, match="|".join(overrides)):
        make_node(**overrides)


def test_choices_are_listed_in_the_reason():
    reason = BY_NAME["precision"].problem("fp8")
    assert "fp8" in reason and "bf16" in reason


def test_ranges_must_not_cross(make_node):
    node = make_node(min_range=1.0, max_range=4.0)
    refused = set_one(node, "min_range", 4.0)
    assert not refused.successful
    assert "max_range" in refused.reason
    assert not set_one(node, "max_range", 0.5).successful
    assert set_one(node, "max_range", 0.0).successful  # no limit
    assert set_one(node, "min_range", 6.0).successful


def test_several_parameters_change_together_or_not_at_all(make_node):
    node = make_node(min_range=1.0, max_range=4.0)
    both = [RosParameter("min_range", value=5.0), RosParameter("max_range", value=8.0)]
    assert node.set_parameters_atomically(both).successful
    bad = [RosParameter("max_persons", value=3), RosParameter("max_rate", value=-1.0)]
    assert not node.set_parameters_atomically(bad).successful
    settings = parameters.read(node)
    assert (settings.min_range, settings.max_range) == (5, 8)
    assert settings.max_persons == Settings().max_persons
