#!/usr/bin/env python3
"""Writes docs/api.md from the docstrings of the Python interface; a test holds it up to date."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "api.md"

# Module and names, in the order of the page.
INTERFACE = (
    ("estimator", ("PoseEstimator", "Poses", "open_source")),
    ("calibration", ("Camera",)),
    ("structures", ("Intrinsics", "Person", "JointStatus", "Tracking", "TrackState")),
    ("pipeline", ("PipelineOptions",)),
    ("skeletons", ("Skeleton",)),
    ("sequence", ("PoseSequence",)),
    ("results", ("Results",)),
    ("exports", ("write_coco", "write_roots", "write_trc", "draw_scene")),
)

LINE_LENGTH = 88

HEAD = """\
# Python interface

Made from the docstrings by `python scripts/api_docs.py`. What is imported from `mppe_ros` itself
(`PoseEstimator`, `Poses`, `Camera`, `Intrinsics`, `Person`) stays; the rest lies in the module
that its heading names.
"""


def page() -> str:
    """The whole page."""
    from importlib import import_module

    parts = [HEAD]
    for module_name, names in INTERFACE:
        module = import_module(f"mppe_ros.{module_name}")
        for name in names:
            parts.append(_section(f"mppe_ros.{module_name}", name, getattr(module, name)))
    return "\n".join(parts)


def _section(module: str, name: str, thing: object) -> str:
    lines = [f"## `{name}`", "", f"*{module}*", ""]
    if inspect.isclass(thing):
        lines += _class(name, thing)
    else:
        lines += _callable(name, thing)
    return "\n".join(lines) + "\n"


def _class(name: str, cls: type) -> Iterator[str]:
    yield from _prose(cls)
    fields = _fields(cls)
    if fields:
        yield from ("```python", *fields, "```", "")
    if not fields and "__init__" in vars(cls):
        yield from _signature(name, cls.__init__)
    for member, value in vars(cls).items():
        function = getattr(value, "__func__", value)
        if member.startswith("_") and member != "__call__":
            continue
        if inspect.isfunction(function):
            yield f"### `{name}.{member}`" if member != "__call__" else f"### `{name}(...)`"
            yield ""
            yield from _callable(member, function)
        elif isinstance(value, property) or hasattr(value, "attrname"):
            yield f"### `{name}.{member}`"
            yield ""
            yield from _prose(value)


def _callable(name: str, function: object) -> Iterator[str]:
    yield from _signature(name, function)
    yield from _prose(function)


def _signature(name: str, function: object) -> Iterator[str]:
    """As it stands in the source, without self."""
    node = ast.parse(dedent(inspect.getsource(function))).body[0]  # type: ignore[arg-type]
    assert isinstance(node, ast.FunctionDef) and node.returns is not None
    if node.args.args and node.args.args[0].arg in ("self", "cls"):
        del node.args.args[0]
    parameters, result = ast.unparse(node.args), ast.unparse(node.returns)
    text = f"{name}({parameters}) -> {result}"
    if len(text) > LINE_LENGTH:
        # Commas between parameters, not those within brackets.
        rows = re.sub(r", (?=\*,|\w+: )(?![^\[]*\])", ",\n    ", parameters)
        text = f"{name}(\n    {rows},\n) -> {result}"
    yield from ("```python", text, "```", "")


def _fields(cls: type) -> list[str]:
    """The fields of a dataclass or the members of an enumeration, with their comments."""
    enumeration = hasattr(cls, "__members__")
    if not (dataclasses.is_dataclass(cls) or enumeration):
        return []
    source = dedent(inspect.getsource(cls))
    pattern = r"^    [A-Z_]+ = .*$" if enumeration else r"^    (?:# .*|\w+: .*)$"
    body = re.sub(r'""".*?"""', "", source, count=1, flags=re.S).split("\n    def ")[0]
    body = body.split("\n    @")[0]
    return [line[4:] for line in re.findall(pattern, body, re.M)]


def _prose(thing: object) -> Iterator[str]:
    """A docstring with its :param: lists as Markdown."""
    text = inspect.getdoc(thing) or ""
    text = re.sub(r":(?:class|func|meth|data|attr):`([^`]*)`", r"`\1`", text)
    text = re.sub(r"``([^`]*)``", r"`\1`", text)
    text = re.sub(r" ?::\n\n((?:    .*\n|\n)+)", _code, text + "\n").rstrip("\n")
    text = re.sub(r"^:param ([^:]*):", r"* **\1**:", text, flags=re.M)
    text = re.sub(r"^:raises ([^:]*):", r"* raises *\1*:", text, flags=re.M)
    text = re.sub(r"^:return:", "* **returns**", text, flags=re.M)
    yield from (text, "")


def _code(match: re.Match[str]) -> str:
    return f"\n\n```python\n{dedent(match.group(1)).strip()}\n```\n\n"


def main() -> int:
    """Writes the page."""
    TARGET.write_text(page(), encoding="utf-8")
    print(f"wrote {TARGET.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
