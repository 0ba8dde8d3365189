"""BlazePose's parameters, read off the model in MediaPipe's wheel (Apache-2.0), to begin with.

Nothing of MediaPipe runs: its model is a table of arrays.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..checkpoints import CheckpointError
from ..trunks import BlazePose, InvertedResidual

WHEEL = "mediapipe==0.10.14"  # later ones carry no models
MEMBER = "mediapipe/modules/pose_landmark/pose_landmark_full.tflite"

Layer = tuple[NDArray[np.float32], NDArray[np.float32]]  # weight as TFLite has it, bias


def load_blazepose(trunk: BlazePose, file: Path) -> None:
    """Give the trunk the parameters of a TFLite file.

    :raises CheckpointError: a file that isn't the model of this wheel.
    """
    layers = _layers(_model(file), file)
    places = list(_places(trunk))
    if len(layers) != len(places):
        raise CheckpointError(
            f"{file} is another model than that of {WHEEL}: {len(layers)} convolutions, not "
            f"{len(places)}"
        )
    with torch.no_grad():
        for conv, (weight, bias) in zip(places, layers, strict=True):
            if conv is None:
                continue
            depthwise = conv.groups > 1
            axes = (3, 0, 1, 2) if depthwise else (0, 3, 1, 2)
            values = torch.from_numpy(weight).permute(axes)
            if conv.bias is None or values.shape != conv.weight.shape:
                raise CheckpointError(f"{file} is another model than that of {WHEEL}")
            conv.weight.copy_(values)
            conv.bias.copy_(torch.from_numpy(bias))


def _model(file: Path) -> bytes:
    try:
        model = file.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{file} can't be read: {error}") from error
    if model[4:8] != b"TFL3":
        raise CheckpointError(
            f"{file} is no TFLite model: {MEMBER} is meant, out of the wheel of {WHEEL}"
        )
    return model


def _layers(model: bytes, path: Path) -> list[Layer]:
    """All convolutions' parameters, in the order of the computation."""
    try:
        import tflite
    except ImportError as error:
        raise CheckpointError(
            "reading BlazePose needs the package tflite: pip install 'mppe_ros[train]'"
        ) from error
    try:
        file = tflite.Model.GetRootAs(model, 0)
        graph = file.Subgraphs(0)
        wanted = {tflite.BuiltinOperator.CONV_2D, tflite.BuiltinOperator.DEPTHWISE_CONV_2D}
        halves: dict[int, int] = {}  # tensors in fp32 to the fp16 ones that they are made of
        layers = []
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            code = file.OperatorCodes(operator.OpcodeIndex())
            kind = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            if kind == tflite.BuiltinOperator.DEQUANTIZE:
                halves[operator.Outputs(0)] = operator.Inputs(0)
            elif kind in wanted:
                weight, bias = (
                    _array(file, graph, halves.get(operator.Inputs(i), operator.Inputs(i)))
                    for i in (1, 2)
                )
                layers.append((weight, bias))
    except (AttributeError, IndexError, KeyError, ValueError, TypeError, struct.error) as error:
        raise CheckpointError(f"{path} is damaged: {error}") from error
    return layers


def _array(file: Any, graph: Any, number: int) -> NDArray[np.float32]:
    tensor = graph.Tensors(number)
    kind = {0: np.float32, 1: np.float16}[tensor.Type()]
    values = np.frombuffer(file.Buffers(tensor.Buffer()).DataAsNumpy().tobytes(), kind)
    return values.reshape(tensor.ShapeAsNumpy()).astype(np.float32)


def _places(trunk: BlazePose) -> Iterator[nn.Conv2d | None]:
    """Where the convolutions belong, in the order of the computation; None: we don't have it."""
    blocks = [block for block in trunk.blocks if isinstance(block, InvertedResidual)]
    yield trunk.stem
    for index, block in enumerate(blocks):
        if block.expand is not None:
            yield block.expand
        # Maps go to the pyramid before a block halves them: two layers each.
        if index in (1, 3):  # strides 2 and 4: for the segmentation and the heatmaps
            yield from (None, None)
        elif index == 5:
            yield from _separable(trunk.lateral8)
        elif index == 11:
            yield from _separable(trunk.lateral16)
        yield block.depthwise
        yield block.project
    yield trunk.expand
    yield trunk.depthwise
    yield from _separable(trunk.lateral32)
    yield from [None] * 12  # segmentation, heatmaps
    yield from _separable(trunk.reduce)
    for residual in trunk.down:
        yield from _separable(residual.separable)
    yield from (None, None, None)  # coordinates, in two frames; presence


def _separable(module: Any) -> tuple[nn.Conv2d, nn.Conv2d]:
    return module.depthwise, module.pointwise
