"""The node's parameters: one table, from which everything else about them follows.

A new parameter is one row in :class:`Settings` and one line in ``config/mppe.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from .devices import PRECISIONS
from .pipeline import PipelineOptions
from .weights import DEFAULT as DEFAULT_WEIGHTS

Value = bool | int | float | str

_OPTIONS = PipelineOptions()


@dataclass(frozen=True)
class Parameter:
    """What a parameter is and which values it takes; its type is its default's.

    :param bounds: least and greatest value.
    :param choices: the texts allowed; none = any.
    :param read_only: fixed at start; otherwise it may change while the node runs.
    """

    name: str
    default: Value
    description: str
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False

    def problem(self, value: object) -> str | None:
        """Why ``value`` is refused, or None."""
        wanted = type(self.default)
        # A number without a point, as in max_rate:=10, is as good for a float.
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            return f"{self.name} must be {_TYPE_NAMES[wanted]}, got {value!r}"
        if self.choices and value not in self.choices:
            return f"{self.name} must be one of {', '.join(self.choices)}, got {value!r}"
        if self.bounds is not None:
            low, high = self.bounds
            assert isinstance(value, int | float)
            if not low <= value <= high:
                return f"{self.name} must lie between {low:g} and {high:g}, got {value!r}"
        return None

    def descriptor(self) -> ParameterDescriptor:
        """The same for ROS tools, which show and enforce it."""
        descriptor = ParameterDescriptor(
            name=self.name,
            description=self.description,
            read_only=self.read_only,
            # Static typing would refuse whole numbers for floats; ``problem`` checks types.
            dynamic_typing=isinstance(self.default, float),
        )
        if self.choices:
            descriptor.additional_constraints = f"one of {', '.join(self.choices)}"
        if self.bounds is not None:
            low, high = self.bounds
            if isinstance(self.default, float):
                descriptor.floating_point_range = [
                    FloatingPointRange(from_value=float(low), to_value=float(high))
                ]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        return descriptor


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def _row(default: Value, description: str, **properties: Any) -> Any:
    return field(default=default, metadata={"description": description, **properties})


@dataclass(frozen=True)
class Settings:
    """The parameters' values. Read-only ones are fixed at start, the others may change live."""

    weights: str = _row(DEFAULT_WEIGHTS, "Weight set, see `mppe weights list`.", read_only=True)
    detector: str = _row("", "Detector of people; empty = the weight set's own.", read_only=True)
    device: str = _row("auto", "auto, cpu, cuda or cuda:N.", read_only=True)
    precision: str = _row(
        "auto",
        "Type that the networks compute in; auto = fp16 on a GPU, fp32 on a CPU.",
        choices=("auto", *PRECISIONS),
        read_only=True,
    )
    image_transport: str = _row(
        "raw",
        "raw: image_raw; compressed: image_raw/compressed.",
        choices=("raw", "compressed"),
        read_only=True,
    )
    assumed_fov_deg: float = _row(
        0.0,
        "Horizontal field of view, deg, of a camera without calibration; distances are then "
        "a guess. 0 = wait for camera_info.",
        bounds=(0.0, 170.0),
        read_only=True,
    )
    detection_threshold: float = _row(
        _OPTIONS.detection_threshold,
        "Least score, 0..1, of a person that is published.",
        bounds=(0.0, 1.0),
    )
    joint_threshold: float = _row(
        _OPTIONS.joint_threshold,
        "Joints with a lower score, 0..1, are LOW_SCORE.",
        bounds=(0.0, 1.0),
    )
    max_persons: int = _row(
        _OPTIONS.max_persons,
        "Most people per image; the best detections are kept.",
        bounds=(1, 1000),
    )
    min_range: float = _row(
        0.0, "Nearer people, m along the optical axis, are left out.", bounds=(0.0, 1000.0)
    )
    max_range: float = _row(
        0.0,
        "Farther people, m along the optical axis, are left out; 0 = no limit.",
        bounds=(0.0, 1000.0),
    )
    flip_test: bool = _row(
        _OPTIONS.flip_test, "Average with the mirrored image: slower, a little better."
    )
    max_image_age: float = _row(
        0.0,
        "Older images, s by the node's clock, are dropped; 0 = no limit.",
        bounds=(0.0, 3600.0),
    )
    max_rate: float = _row(
        0.0,
        "Most images processed per second, Hz; 0 = as many as the machine can.",
        bounds=(0.0, 1000.0),
    )
    marker_lifetime: float = _row(
        0.5,
        "Least time, s, that markers stay in RViz when nothing more comes; at a lower rate it "
        "is 3 periods.",
        bounds=(0.1, 60.0),
    )

    @property
    def pipeline_options(self) -> PipelineOptions:
        return PipelineOptions(
            detection_threshold=self.detection_threshold,
            joint_threshold=self.joint_threshold,
            max_persons=self.max_persons,
            min_range_m=self.min_range,
            max_range_m=self.max_range or math.inf,
            flip_test=self.flip_test,
        )

    @property
    def min_period_s(self) -> float:
        """Least time between two images, s."""
        return 1 / self.max_rate if self.max_rate else 0.0


PARAMETERS = tuple(
    Parameter(row.name, default=cast(Value, row.default), **row.metadata)
    for row in fields(Settings)
)
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}


def problem(changes: Mapping[str, object], current: Mapping[str, object]) -> str | None:
    """Why ``changes`` of the ``current`` values are refused, or None. Other names are ignored."""
    for name, value in changes.items():
        if name in _BY_NAME and (reason := _BY_NAME[name].problem(value)):
            return reason
    both = {**current, **changes}
    low, high = both["min_range"], both["max_range"]
    assert isinstance(low, int | float) and isinstance(high, int | float)
    if 0 < high <= low:
        return f"min_range ({low:g} m) must be below max_range ({high:g} m)"
    return None


def declare(node: Node) -> None:
    """Declares every parameter and refuses bad values, now and later, with the reason.

    :raises rclpy.exceptions.ParameterException: a bad value at start; the text says why.
    """

    def validate(changed: list[RosParameter]) -> SetParametersResult:
        reason = problem({item.name: item.value for item in changed}, _values(node))
        return SetParametersResult(successful=reason is None, reason=reason or "")

    node.add_on_set_parameters_callback(validate)
    for parameter in PARAMETERS:
        node.declare_parameter(parameter.name, parameter.default, parameter.descriptor())


def read(node: Node) -> Settings:
    """The current values."""
    values = _values(node)
    # Whole numbers given for floats become floats here.
    typed: dict[str, Any] = {p.name: type(p.default)(values[p.name]) for p in PARAMETERS}
    return Settings(**typed)


def _values(node: Node) -> dict[str, Any]:
    """Current values; defaults of those not declared yet."""
    return {
        p.name: node.get_parameter(p.name).value if node.has_parameter(p.name) else p.default
        for p in PARAMETERS
    }
