#!/usr/bin/env python3
"""Builds TensorRT engines of the ONNX files beside this program, which stays where they are.

Needs TensorRT 10 or newer and the GPU that will run them: engines are for one kind of GPU and one
version of TensorRT. mppe_ros needn't be there.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


def main() -> None:
    """Builds what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--most", type=int, default=20, help="people, or images, at once (default 20)"
    )
    parser.add_argument("--again", action="store_true", help="build what is there already, too")
    parser.add_argument("--verbose", action="store_true", help="all that TensorRT says")
    options = parser.parse_args()
    if options.most < 1:
        parser.error("--most must be at least 1")
    try:
        tensorrt = import_module("tensorrt")
    except ImportError as error:
        sys.exit(f"there is no TensorRT for this Python ({error}): pip install tensorrt")
    level = tensorrt.Logger.VERBOSE if options.verbose else tensorrt.Logger.WARNING
    logger = tensorrt.Logger(level)
    networks = json.loads((FOLDER / "set.json").read_text(encoding="utf-8"))["networks"]
    for name, network in networks.items():
        engine = FOLDER / f"{name}.engine"
        if engine.exists() and not options.again:
            print(f"{engine.name} is there (--again builds it anew)")
            continue
        print(f"building {engine.name}, which may take minutes", flush=True)
        content = build(tensorrt, logger, FOLDER / network["file"], network, options.most)
        part = engine.with_suffix(".part")
        part.write_bytes(content)
        part.replace(engine)


def shapes(argument: dict[str, Any], most: int) -> tuple[list[int], list[int], list[int]]:
    """Least, usual and greatest shape of an argument for ``most`` people or images at once."""
    least, usual, greatest = (list(argument[key]) for key in ("least", "usual", "most"))
    if argument["shape"][0] < 0 and argument["name"] != "regions":
        greatest[0] = max(most, least[0])
        usual[0] = min(usual[0], greatest[0])
    return least, usual, greatest


def build(tensorrt: Any, logger: Any, path: Path, network: dict[str, Any], most: int) -> Any:
    """The engine of an ONNX file, serialised."""
    builder = tensorrt.Builder(logger)
    # Each step in the precision that it has in the file.
    flag = tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    definition = builder.create_network(1 << int(flag))
    parser = tensorrt.OnnxParser(definition, logger)
    if not parser.parse_from_file(str(path)):
        errors = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        sys.exit(f"TensorRT can't read {path}: {errors}")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for argument in network["arguments"]:
        profile.set_shape(argument["name"], *shapes(argument, most))
    config.add_optimization_profile(profile)
    content = builder.build_serialized_network(definition, config)
    if content is None:
        sys.exit(f"TensorRT built no engine of {path}: run again with --verbose")
    return content


if __name__ == "__main__":
    main()
