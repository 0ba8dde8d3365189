"""What a ROS parameter is: its default, its range, and why a value is refused."""

from __future__ import annotations

from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

Value = bool | int | float | str


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
