"""The node's parameters: one table, from which everything else about them follows.

A new parameter is one row in :class:`Settings` and one line in ``config/mppe.yaml``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any, cast

from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from .camera_info import RECTIFICATIONS
from .declaration import Parameter, Value
from .devices import BACKENDS, PRECISIONS
from .pipeline import PipelineOptions
from .sequence import DETECTION_INTERVAL
from .smoothing import SmoothingOptions
from .synchronisation import MODES
from .tracking import TrackingOptions
from .weights import DEFAULT as DEFAULT_WEIGHTS

_OPTIONS, _TRACKING, _SMOOTHING = PipelineOptions(), TrackingOptions(), SmoothingOptions()


def _row(default: Value, description: str, group: str = "", **properties: Any) -> Any:
    metadata = {"group": group, "properties": {"description": description, **properties}}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Settings:
    """The parameters' values. Read-only ones are fixed at start, the others may change live.

    A field's name is the parameter's; of a ``group``, with a dot: ``smoothing_beta`` is
    ``smoothing.beta``.
    """

    weights: str = _row(
        DEFAULT_WEIGHTS,
        "Weight set, see `mppe weights list`, or the folder of an exported one.",
        read_only=True,
    )
    detector: str = _row("", "Detector of people; empty = the weight set's own.", read_only=True)
    detector_size: int = _row(
        0,
        "The image's shorter side for the detector, px; 0 = as it was trained.",
        bounds=(0, 4000),
        read_only=True,
    )
    device: str = _row("auto", "auto, cpu, cuda or cuda:N.", read_only=True)
    backend: str = _row(
        "auto",
        "What runs the networks: torch, openvino (CPUs) or cuda_graphs (GPUs), of exported "
        "networks onnxruntime or tensorrt.",
        choices=BACKENDS,
        read_only=True,
    )
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
    camera_info_sync: str = _row(
        "latest",
        "camera_info of an image: latest = the newest; exact, approximate = the one of its time.",
        choices=tuple(MODES),
        read_only=True,
    )
    rectification: str = _row(
        "auto",
        "Images are raw (K and D hold) or rectified (P holds); auto = raw where D is not zero.",
        choices=tuple(RECTIFICATIONS),
        read_only=True,
    )
    assumed_fov_deg: float = _row(
        0.0,
        "Horizontal field of view, deg, of a camera without calibration; distances are then "
        "a guess. 0 = wait for camera_info.",
        bounds=(0.0, 170.0),
        read_only=True,
    )
    depth_fusion: bool = _row(
        False,
        "Correct distances by the depth images on depth, registered to the image.",
        read_only=True,
    )
    output_frame: str = _row(
        "",
        "Frame that tf takes people to, at the image's stamp; empty = the image's own.",
        read_only=True,
    )
    tracking_enabled: bool = _row(
        True,
        "Give people ids and velocities; false = each image by itself.",
        group="tracking",
        read_only=True,
    )
    tracking_min_hits: int = _row(
        _TRACKING.min_hits,
        "Images in which the detector found a person before it is TRACKED.",
        bounds=(1, 100),
        group="tracking",
        read_only=True,
    )
    tracking_max_coasting: float = _row(
        _TRACKING.max_coasting_s,
        "Who is unseen for longer, s, is LOST.",
        bounds=(0.0, 60.0),
        group="tracking",
        read_only=True,
    )
    tracking_frame: str = _row(
        "",
        "Frame that doesn't move, by tf, in which people are tracked where the camera moves; "
        "empty = output_frame.",
        read_only=True,
    )
    tracking_on_floor: bool = _row(
        False,
        "People stand on the plane z = 0 of tracking_frame, which tells how far away they are.",
        group="tracking",
        read_only=True,
    )
    autostart: bool = _row(
        True, "Configure and activate at start; false = a lifecycle manager does.", read_only=True
    )
    detection_interval: int = _row(
        DETECTION_INTERVAL,
        "The detector looks at every n-th image, and when somebody is new or missing; 1 = at all.",
        bounds=(1, 1000),
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
    smoothing_enabled: bool = _row(
        _SMOOTHING.enabled,
        "Smooth tracked people's joints; false = exactly what the networks say.",
        group="smoothing",
    )
    smoothing_min_cutoff: float = _row(
        _SMOOTHING.min_cutoff_hz,
        "Cutoff frequency, Hz, for a joint at rest; lower = calmer.",
        bounds=(0.01, 1000.0),
        group="smoothing",
    )
    smoothing_beta: float = _row(
        _SMOOTHING.cutoff_slope_per_m,
        "By how much, Hz per m/s, the cutoff frequency rises with a joint's speed.",
        bounds=(0.0, 1000.0),
        group="smoothing",
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
    uncertainty_markers: bool = _row(
        False, "Show where a person may be as well, an ellipsoid of one standard deviation."
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
    def tracking_options(self) -> TrackingOptions:
        return TrackingOptions(self.tracking_min_hits, self.tracking_max_coasting)

    @property
    def smoothing_options(self) -> SmoothingOptions:
        return SmoothingOptions(
            self.smoothing_enabled, self.smoothing_min_cutoff, self.smoothing_beta
        )

    @property
    def min_period_s(self) -> float:
        """Least time between two images, s."""
        return 1 / self.max_rate if self.max_rate else 0.0


def _parameter(row: Field[Any]) -> Parameter:
    group = row.metadata["group"]
    name = row.name.replace(f"{group}_", f"{group}.", 1) if group else row.name
    return Parameter(name, default=cast(Value, row.default), **row.metadata["properties"])


_BY_FIELD = {row.name: _parameter(row) for row in fields(Settings)}
PARAMETERS = tuple(_BY_FIELD.values())
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
    typed: dict[str, Any] = {
        field_name: type(p.default)(values[p.name]) for field_name, p in _BY_FIELD.items()
    }
    return Settings(**typed)


def _values(node: Node) -> dict[str, Any]:
    """Current values; defaults of those not declared yet."""
    return {
        p.name: node.get_parameter(p.name).value if node.has_parameter(p.name) else p.default
        for p in PARAMETERS
    }
