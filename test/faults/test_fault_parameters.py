"""Parameters set to garbage: refused with the reason, and nothing changes."""

import math
from collections.abc import Iterator

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2")
pytest.importorskip("mppe_ros.msg", reason="needs the built package: make setup")

from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue

from mppe_ros.parameters import PARAMETERS

pytestmark = pytest.mark.ros

_UNSET = object()
_NUMBERS = (math.nan, math.inf, -math.inf, -1.0, -1e-300, 1e300, -(2**63), 2**63 - 1)
_OTHERS = ("", "x", "nan", [1.0], [1], ["x"], [True], b"x", _UNSET)


def garbage() -> Iterator[tuple[str, object]]:
    """For each parameter, values of other types or out of its range."""
    for parameter in PARAMETERS:
        wrong: tuple = (*_OTHERS, True)
        if isinstance(parameter.default, bool):
            wrong = (*_OTHERS, 1, 0, 1.0)
        elif isinstance(parameter.default, str):
            wrong = (1, 1.0, True, ["x"], _UNSET, *(("?",) if parameter.choices else ()))
        elif isinstance(parameter.default, float):
            wrong = (*wrong, *_NUMBERS)
        else:
            wrong = (*wrong, *_NUMBERS, 1.5)
        for value in wrong:
            yield parameter.name, value
    yield "no_such_parameter", 1
    yield "use_sim_time", "x"


def message_of(name: str, value: object) -> Parameter:
    if value is _UNSET:
        return Parameter(name=name, value=ParameterValue(type=ParameterType.PARAMETER_NOT_SET))
    from rclpy.parameter import Parameter as RosParameter

    kind = RosParameter.Type.BYTE_ARRAY if isinstance(value, bytes) else None
    given = [bytes([byte]) for byte in value] if isinstance(value, bytes) else value
    return RosParameter(name, kind, given).to_parameter_msg()


def ids(value: object) -> str:
    return "unset" if value is _UNSET else str(value)[:20]


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in garbage()))
def test_garbage_is_refused(rig, name, note_answer):
    values = [value for other, value in garbage() if other == name]
    with rig.case():
        before = rig.node.settings
        for value in values:
            successful, reason = rig.set_parameter(message_of(name, value))
            assert not successful, (name, value)
            assert reason, (name, value)
            assert rig.node.settings == before
        note_answer(rig.answer())
        assert rig.complaints == []
