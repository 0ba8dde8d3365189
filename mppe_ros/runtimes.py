"""What runs networks instead of torch: OpenVINO, CUDA graphs, and for exported ones ONNX Runtime,
TorchScript and TensorRT.

They all take a network's arguments as torch has them and give a tuple of results, whatever
structure the network's own have. To add one, write a `Runner`.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from .cache import cache_folder
from .checkpoints import CheckpointError, first_line
from .devices import DeviceError, is_out_of_memory
from .inference import computed_in


class Range(NamedTuple):
    """How long a dimension of an argument may be."""

    least: int
    usual: int
    most: int  # what engines are built for; other runtimes take more, too
    step: int = 1  # all lengths are multiples of it


@dataclass(frozen=True)
class Argument:
    """What a network is called with."""

    name: str
    example: torch.Tensor
    variable: Mapping[int, Range] = field(default_factory=dict)  # the others are as in the example


class Runner(Protocol):
    """Has a detector's or an estimator's networks run by something."""

    def __call__(
        self,
        name: str,
        network: nn.Module,
        arguments: Sequence[Argument],
        results: Sequence[str],
    ) -> nn.Module:
        """
        :param name: of the network, unique within its weight set.
        :param results: names of what it gives.
        :return: takes what the network takes, and gives a tuple, which its next call may
            overwrite.
        """
        ...


# ---------------------------------------------------------------- OpenVINO


@dataclass(frozen=True)
class OpenVinoRunner:
    """Converts networks when they are loaded; those without convolutions stay with torch, which
    multiplies matrices no slower."""

    precision: torch.dtype = torch.float32

    def __call__(
        self, name: str, network: nn.Module, arguments: Sequence[Argument], results: Sequence[str]
    ) -> nn.Module:
        if any(isinstance(layer, nn.Conv2d) for layer in network.modules()):
            return OpenVino(network, arguments, self.precision)
        return computed_in(network, self.precision)


class OpenVino(nn.Module):
    """A network that OpenVINO runs on the CPU: on Intel's, about twice as fast as torch.

    What follows the last convolution or matrix product stays in float32 whatever the precision (of
    a soft-argmax, what follows the sums over depth).
    The first conversion of a network takes seconds; it is kept in the cache folder.
    """

    def __init__(
        self,
        network: nn.Module,
        arguments: Sequence[Argument],
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        model = _converted(network, [argument.example for argument in arguments])
        shapes = map(shape_of, arguments)
        model.reshape(dict(zip(model.inputs, shapes, strict=True)))
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": _OPENVINO_TYPES[precision],
        }
        _, core = _openvino()
        self._request = core.compile_model(model, "CPU", options).create_infer_request()

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All of the network's results, in their order, whatever structure they had.

        The next call overwrites them: a copy of a large detector's maps would take longer than
        some of its layers.
        """
        arrays = [argument.contiguous().numpy() for argument in arguments]
        results = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        return tuple(map(_tensor, results.to_tuple()))


def _tensor(result: Any) -> torch.Tensor:
    """An array of OpenVINO's, whose bf16 NumPy takes for fp16."""
    if result.dtype == np.float16:
        return torch.from_numpy(result.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(result)


_OPENVINO_TYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def _converted(network: nn.Module, examples: Sequence[torch.Tensor]) -> Any:
    """A network as OpenVINO has it, from the cache folder or for it.

    Converting takes ten times as long as reading, and some megabytes of memory for ever; so does
    tracing, less of both. So what this process has seen before it only reads.
    """
    openvino, core = _openvino()
    description = _description(network, examples)
    if description not in _FOLDERS:
        traced = trace(network, examples)
        digest = _digest(traced, openvino.__version__)
        _FOLDERS[description] = folder = cache_folder() / "openvino" / digest
        if not (folder / _MODEL).is_file():
            return _convert(traced, examples, folder)
    folder = _FOLDERS[description]
    try:
        return core.read_model(folder / _MODEL)
    except RuntimeError:  # it has gone, or is damaged
        return _convert(trace(network, examples), examples, folder)


_FOLDERS: dict[str, Path] = {}  # by descriptions of networks
_MODEL = "network.xml"


def shape_of(argument: Argument) -> list[int]:
    """With -1 for what may change from call to call."""
    lengths = enumerate(argument.example.shape)
    return [-1 if i in argument.variable else length for i, length in lengths]


def is_recorded() -> bool:
    """Whether the network that asks is being made a graph, which must fit other sizes, too."""
    return torch.jit.is_tracing() or torch.compiler.is_compiling()


def trace(network: nn.Module, examples: Sequence[torch.Tensor]) -> Any:
    """A network as TorchScript, which holds the examples' dimensions of 1 for constants."""
    # In fp32, whatever surrounds this; OpenVINO lowers the precision itself.
    no_autocast = torch.autocast(examples[0].device.type, enabled=False)
    with torch.no_grad(), no_autocast, warnings.catch_warnings():
        # The tracer's, of shapes that are constants here.
        warnings.simplefilter("ignore")
        return torch.jit.trace(network, tuple(examples), strict=False, check_trace=False).eval()


def _convert(traced: Any, examples: Sequence[torch.Tensor], folder: Path) -> Any:
    """Convert a traced network and keep it in a folder, if that can be."""
    openvino, _ = _openvino()
    with torch.no_grad():
        model = openvino.convert_model(traced, example_input=tuple(examples))
    with suppress(OSError):  # a robot's disk may be full, or not to be written on
        shutil.rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as part:
            openvino.save_model(model, Path(part, _MODEL), compress_to_fp16=False)
            # Whole or not at all; if another process was faster, its files stay.
            Path(part).rename(folder)
    return model


def _description(network: nn.Module, examples: Sequence[torch.Tensor]) -> str:
    """Of what a network computes: its parameters, and all else that its modules hold."""
    digest = hashlib.sha256(str([example.shape for example in examples]).encode())
    usual = vars(nn.Module()).keys()
    for name, module in network.named_modules():
        own = {key: value for key, value in vars(module).items() if key not in usual}
        digest.update(f"{name} {type(module)} {own}".encode())
    return _with_tensors(digest, network.state_dict().values())


def _digest(traced: Any, version: str) -> str:
    """Of what a traced network computes, on any machine, and of who converts it."""
    graph = traced.inlined_graph
    # torch numbers the types of what it traces.
    text = re.sub(r"___torch_mangle_\d+\.", "", graph.str(False))
    digest = hashlib.sha256(f"{torch.__version__} {version} {text}".encode())
    constants = (node for node in graph.nodes() if node.hasAttribute("value"))
    tensors = [node.t("value") for node in constants if node.kindOf("value") == "t"]
    return _with_tensors(digest, [*traced.state_dict().values(), *tensors])[:16]


def _with_tensors(digest: Any, tensors: Iterable[torch.Tensor]) -> str:
    for tensor in tensors:
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    return str(digest.hexdigest())


@cache
def _openvino() -> tuple[Any, Any]:
    """OpenVINO and its core, which lives as long as the process.

    A core gives the thread that makes it a stack for signals, and takes it back in whichever
    thread it ends in: the first thread's next signal would crash the process.
    """
    # It would tell its makers of every import and conversion; without this package it can't.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    openvino = import_module("openvino")
    return openvino, openvino.Core()


# ---------------------------------------------------------------- CUDA graphs


@dataclass(frozen=True)
class CudaGraphRunner:
    """Has a GPU repeat what torch once told it to do, kernel by kernel (CUDA graphs).

    Small networks take longer to be told than to be computed.
    """

    precision: torch.dtype = torch.float32

    def __call__(
        self, name: str, network: nn.Module, arguments: Sequence[Argument], results: Sequence[str]
    ) -> nn.Module:
        return CudaGraphs(computed_in(network, self.precision), arguments)


class CudaGraphs(nn.Module):
    """A network as graphs: one for each size of its arguments, made when that size first comes.

    Each new size takes cuDNN seconds. So a batch is filled up to a power of two, and where only
    the batch's size varies, the graphs of the usual ones are made at once. The least recently used
    graph goes when there are too many: a camera has one size of images.

    :param network: of whose arguments' and results' first dimensions each is the batch's.
    """

    AT_ONCE = (1, 2, 4, 8, 16)  # items in a batch
    MOST = 12  # graphs

    def __init__(self, network: nn.Module, arguments: Sequence[Argument]) -> None:
        super().__init__()
        self.network = network
        self._graphs: OrderedDict[tuple[torch.Size, ...], _Graph] = OrderedDict()
        self._pool = torch.cuda.graph_pool_handle()  # no two of them run at once
        if all(set(argument.variable) == {0} for argument in arguments):
            self._make_usual_ones(arguments)

    def _make_usual_ones(self, arguments: Sequence[Argument]) -> None:
        """As many as memory holds."""
        examples = [argument.example[:1] for argument in arguments]
        usual = arguments[0].variable[0].usual
        for count in self.AT_ONCE:
            if not usual / 4 <= count <= 4 * usual:
                continue
            try:
                self(*(one.expand(count, *one.shape[1:]) for one in examples))
            except Exception as error:
                if not self._graphs or not is_out_of_memory(error):
                    raise
                return

    @torch.inference_mode()
    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """All of the network's results, in their order, whatever structure they had."""
        count = arguments[0].shape[0]
        batch = 1 << (count - 1).bit_length()
        key = tuple(torch.Size((batch, *argument.shape[1:])) for argument in arguments)
        graph = self._graphs.pop(key, None)
        if graph is None:
            while len(self._graphs) >= self.MOST:
                self._graphs.popitem(last=False)
            graph = _Graph(self.network, arguments, batch, self._pool)
        self._graphs[key] = graph
        return graph(*arguments)


class _Graph:
    """A network's graph for one size of its arguments."""

    def __init__(
        self, network: nn.Module, arguments: Sequence[torch.Tensor], batch: int, pool: Any
    ) -> None:
        self._inputs = [_room_for(argument, batch) for argument in arguments]
        network(*self._inputs)  # libraries choose their kernels, and too little memory shows
        self._graph = torch.cuda.CUDAGraph()
        # Other threads, of other cameras, may go on meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            results = network(*self._inputs)
        self._results = (results,) if isinstance(results, torch.Tensor) else tuple(results)

    def __call__(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = len(arguments[0])
        for place, argument in zip(self._inputs, arguments, strict=True):
            place[:count].copy_(argument)
        self._graph.replay()
        # The next run writes where this one did.
        return tuple(result[:count].clone() for result in self._results)


def _room_for(argument: torch.Tensor, batch: int) -> torch.Tensor:
    """Zeros for ``batch`` rows like an argument's, that lie in memory as those do."""
    columns = argument.is_contiguous(memory_format=torch.channels_last)
    layout = torch.channels_last if columns else torch.contiguous_format
    zeros = argument.new_zeros((batch, *argument.shape[1:]))
    return zeros.contiguous(memory_format=layout) if argument.ndim == 4 else zeros


RUNNERS: dict[str, Callable[[torch.dtype], Runner]] = {
    "openvino": OpenVinoRunner,
    "cuda_graphs": CudaGraphRunner,
}


# ---------------------------------------------------------------- exported networks


@dataclass(frozen=True)
class FileRunner:
    """Runs what `mppe export` wrote, instead of the networks that it is given.

    :param files: by names of networks.
    :param backend: a row of `OPENERS`.
    """

    files: Mapping[str, Path]
    backend: str
    device: torch.device

    def __call__(
        self, name: str, network: nn.Module, arguments: Sequence[Argument], results: Sequence[str]
    ) -> nn.Module:
        return self.open(name)

    def open(self, name: str) -> nn.Module:
        """
        :raises CheckpointError: there is no such network, or its file can't be used.
        :raises DeviceError: the runtime is missing, or can't use the device.
        """
        if name not in self.files:
            option = " with --flip-test" if name.endswith("flip") else ""
            raise CheckpointError(
                f"these exported networks have no {name}: run 'mppe export'{option} again"
            )
        return OPENERS[self.backend](self.files[name], self.device)


def _runtime(module: str, advice: str) -> Any:
    try:
        return import_module(module)
    except ImportError as error:
        raise DeviceError(f"backend {module} needs a package: {advice} ({error})") from error


class OnnxRuntime(nn.Module):
    """An ONNX file, run where torch's tensors are."""

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        runtime = _runtime("onnxruntime", "pip install onnxruntime, or onnxruntime-gpu for a GPU")
        self._device, self._index = device, device.index or 0
        providers: list[Any] = ["CPUExecutionProvider"]
        if device.type == "cuda":
            if "CUDAExecutionProvider" not in runtime.get_available_providers():
                raise DeviceError(
                    "this ONNX Runtime knows no GPU: pip install onnxruntime-gpu, or use "
                    "device cpu"
                )
            # Torch's stream, so that nobody waits for anybody.
            stream = str(torch.cuda.current_stream(device).cuda_stream)
            choice = {"device_id": self._index, "user_compute_stream": stream}
            providers.insert(0, ("CUDAExecutionProvider", choice))
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        # Threads that spin after their work keep those of the next network from the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # its own errors have no common base
            raise CheckpointError(f"{path} cannot be used: {first_line(error)}") from error
        self._inputs = [node.name for node in self._session.get_inputs()]
        self._outputs = [node.name for node in self._session.get_outputs()]

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        binding = self._session.io_binding()
        whole = [argument.contiguous() for argument in arguments]
        place = self._device.type, self._index
        for name, argument in zip(self._inputs, whole, strict=True):
            dtype = _NUMPY_TYPES[argument.dtype]
            shape = tuple(argument.shape)
            binding.bind_input(name, *place, dtype, shape, argument.data_ptr())
        for name in self._outputs:
            binding.bind_output(name, *place)
        self._session.run_with_iobinding(binding)
        return tuple(torch.from_dlpack(value._get_c_value()) for value in binding.get_outputs())


_NUMPY_TYPES = {torch.uint8: np.uint8, torch.float32: np.float32}


class TorchScript(nn.Module):
    """A network that torch runs without its Python.

    Such a file is a program, though one that can do little: read those only that you trust.
    """

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it is deprecated
                self._network = torch.jit.load(path, map_location=device)
        except (RuntimeError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be used: {first_line(error)}") from error

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        results = self._network(*arguments)
        return (results,) if isinstance(results, torch.Tensor) else tuple(results)


class TensorRt(nn.Module):
    """An engine that ``build_engines.py`` built of an ONNX file, on this GPU."""

    def __init__(self, path: Path, device: torch.device) -> None:
        super().__init__()
        tensorrt = _runtime("tensorrt", "pip install tensorrt, or NVIDIA's for your system")
        self._device = device
        advice = f"run {path.parent / 'build_engines.py'} here"
        if not path.is_file():
            raise CheckpointError(f"there is no {path}: {advice}")
        with torch.cuda.device(device):
            runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
            self._engine = runtime.deserialize_cuda_engine(path.read_bytes())
            if self._engine is None:
                raise CheckpointError(
                    f"{path} is no engine for this GPU and this TensorRT: {advice}"
                )
            self._context = self._engine.create_execution_context()
        tensors = self._engine.num_io_tensors
        names = [self._engine.get_tensor_name(i) for i in range(tensors)]
        is_input = [
            self._engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT for name in names
        ]
        self._inputs = [name for name, given in zip(names, is_input, strict=True) if given]
        self._outputs = [name for name, given in zip(names, is_input, strict=True) if not given]

    def forward(self, *arguments: torch.Tensor) -> tuple[torch.Tensor, ...]:
        whole = [argument.contiguous() for argument in arguments]
        for name, argument in zip(self._inputs, whole, strict=True):
            if not self._context.set_input_shape(name, tuple(argument.shape)):
                most = self._engine.get_tensor_profile_shape(name, 0)[2]
                raise DeviceError(
                    f"the engine takes {name} of at most {tuple(most)}, got "
                    f"{tuple(argument.shape)}: run build_engines.py --most with what you need"
                )
            self._context.set_tensor_address(name, argument.data_ptr())
        results = []
        for name in self._outputs:
            shape = tuple(self._context.get_tensor_shape(name))
            results.append(torch.empty(shape, device=self._device))  # all are float32
            self._context.set_tensor_address(name, results[-1].data_ptr())
        stream = torch.cuda.current_stream(self._device).cuda_stream
        if not self._context.execute_async_v3(stream):
            raise RuntimeError("CUDA error: TensorRT failed to run an engine")
        return tuple(results)


def _open_engine(path: Path, device: torch.device) -> TensorRt:
    return TensorRt(path.with_suffix(".engine"), device)


OPENERS: dict[str, Callable[[Path, torch.device], nn.Module]] = {
    "onnxruntime": OnnxRuntime,
    "tensorrt": _open_engine,
    "torch": TorchScript,
}
