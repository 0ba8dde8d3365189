"""Records to ROS messages and back, and arrays to image messages."""

from __future__ import annotations

import array
import importlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, TypeVar, cast

from sensor_msgs.msg import Image
from std_msgs.msg import Header

from .image_messages import ImageArray
from .records import Record

Message = TypeVar("Message")


def image_message(rgb: ImageArray, header: Header) -> Image:
    """The message of an RGB image, (H, W, 3)."""
    height, width = rgb.shape[:2]
    # Other sequences are checked byte by byte by the message, which takes a second per image.
    data = array.array("B", rgb.tobytes())
    return Image(
        header=header, height=height, width=width, encoding="rgb8", step=3 * width, data=data
    )


def message_from_record(message_class: type[Message], record: Mapping[str, Any]) -> Message:
    """A message from a nested dict of its fields; fields that are not there keep their default.

    :raises KeyError: a field that the message does not have.
    """
    return cast(Message, _filled(message_class(), record))


def _filled(message: Any, record: Mapping[str, Any]) -> Any:
    """The message with the record's fields; the messages in it are filled where they are."""
    classes = _field_classes(cast(Any, type(message)))
    for name, value in record.items():
        field_class = classes[name]
        if field_class is None:
            setattr(message, name, value)
        elif isinstance(value, dict):  # a Mapping takes ten times as long to recognise
            _filled(getattr(message, name), value)
        else:
            setattr(message, name, [_filled(field_class(), item) for item in value])
    return message


@cache
def _field_classes(message_class: Any) -> Mapping[str, type | None]:
    """The message that each field holds, or holds many of; None of a plain value."""
    types: Mapping[str, str] = message_class.get_fields_and_field_types()
    return {name: _message_class(type_name) for name, type_name in types.items()}


def _message_class(type_name: str) -> type | None:
    """Of ROS type ``type_name``, such as ``sequence<std_msgs/Header>``."""
    nested = re.search(r"(\w+)/(\w+)", type_name)
    if nested is None:
        return None
    package, name = nested.groups()
    return cast(type, getattr(importlib.import_module(f"{package}.msg"), name))


def record_from_message(message: Any) -> Record:
    """The inverse: a nested dict of a message's fields, of plain Python values."""
    return {name: _plain(getattr(message, name)) for name in message.get_fields_and_field_types()}


def _plain(value: Any) -> Any:
    if hasattr(value, "get_fields_and_field_types"):
        return record_from_message(value)
    if isinstance(value, str | bytes | bool | int | float):
        return value
    if hasattr(value, "tolist"):  # array.array and NumPy's
        return value.tolist()
    return [_plain(item) for item in value]
