"""Reading weight files, which may come from anyone: never by unpickling arbitrary objects."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file


class CheckpointError(RuntimeError):
    """A weight file that is missing, broken or made for another network."""


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_state_dict(path: Path) -> dict[str, torch.Tensor]:
    """Parameters by name, floating point as float32, from safetensors or a torch checkpoint.

    Torch checkpoints may wrap the parameters (``{"network": ...}`` as the reference release does,
    ``"state_dict"``, ``"model"``) and prefix them with ``module.`` (DataParallel).

    :raises CheckpointError: missing, truncated or unsafe file, or no parameters in it.
    """
    if not path.is_file():
        raise CheckpointError(f"weight file {path} does not exist")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, EOFError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a weight file (truncated download?): {first_line(error)}"
        ) from error
    except Exception as error:  # pickle.UnpicklingError and whatever else a hostile file raises
        raise CheckpointError(
            f"{path} is refused: it is no plain checkpoint of tensors ({first_line(error)})"
        ) from error
    return _parameters(content, path)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing for torch checkpoints.

    :raises CheckpointError: a truncated file.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a weight file: {first_line(error)}"
        ) from error


def _parameters(content: object, path: Path) -> dict[str, torch.Tensor]:
    if isinstance(content, dict):
        for wrapper in ("network", "state_dict", "model"):
            if isinstance(content.get(wrapper), dict):
                content = content[wrapper]
                break
    if not (isinstance(content, dict) and content):
        raise CheckpointError(f"{path} holds no parameters")
    parameters = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path} holds {type(value).__name__} {name!r}, not a tensor")
        value = value.float() if value.is_floating_point() else value
        parameters[name.removeprefix("module.")] = value
    return parameters


def load_into(network: torch.nn.Module, parameters: dict[str, torch.Tensor], path: Path) -> None:
    """Give a network its parameters.

    :raises CheckpointError: names the first parameters that are missing, superfluous or of
        another shape.
    """
    expected = network.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in parameters]
    problems += [f"{name} is not in the network" for name in parameters if name not in expected]
    problems += [
        f"{name} is {tuple(parameters[name].shape)}, the network has {tuple(value.shape)}"
        for name, value in expected.items()
        if name in parameters and parameters[name].shape != value.shape
    ]
    # A counter that only training reads, and that some checkpoints leave out.
    problems = [p for p in problems if "num_batches_tracked" not in p]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise CheckpointError(
            f"{path} does not fit {type(network).__name__}: {'; '.join(problems[:3])}{more}"
        )
    network.load_state_dict(parameters, strict=False)


def first_line(error: BaseException) -> str:
    """What libraries say of a fault, without what they say about it."""
    return str(error).strip().split("\n")[0][:200]
