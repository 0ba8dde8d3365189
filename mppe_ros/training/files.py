"""Files of a run: its folder, snapshots, averages of them, and exports that the core loads.

A run's folder has ``config.yaml``, ``state.pt`` (all that resuming needs), ``log.jsonl``,
``curves.png``, ``tensorboard/`` and ``snapshots/SAMPLES.safetensors`` (averaged parameters,
float32). Every file appears whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..checkpoints import CheckpointError
from .config import Config, ConfigError, config_from, plain, read_config, to_yaml
from .preparation import folded_state

Parameters = dict[str, torch.Tensor]


@dataclass(frozen=True)
class RunFolder:
    """Where the parts of a run lie."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def state(self) -> Path:
        return self.path / "state.pt"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def curves(self) -> Path:
        return self.path / "curves.png"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def snapshot(self, samples: int) -> Path:
        return self.path / "snapshots" / f"{samples:09d}.safetensors"

    def claim(self, config: Config) -> None:
        """Make the folder, or find it belonging to the same configuration.

        :raises ConfigError: it belongs to another one.
        """
        if not self.config.is_file():
            (self.path / "snapshots").mkdir(parents=True, exist_ok=True)
            # The processes of a run all come here, and some at the same time.
            tag = f".{os.getpid()}"
            write_whole(self.config, lambda part: part.write_text(to_yaml(config)), tag)
        elif (found := read_config(self.config)) != config:
            raise ConfigError(
                f"{self.path} belongs to another configuration ({_difference(found, config)}): "
                "choose another folder, or leave --config out to continue that run"
            )


def _difference(found: Config, given: Config) -> str:
    old, new = _flat(plain(found)), _flat(plain(given))
    return "; ".join(
        f"{key} {old.get(key)} there, {new.get(key)} given"
        for key in sorted(old | new)
        if old.get(key) != new.get(key)
    )


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        nested = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if nested else {prefix + key: value}
    return flat


def write_whole(path: Path, write: Callable[[Path], Any], tag: str = "") -> None:
    """Write beside ``path``, then rename: a crash leaves the old file or the new one.

    :param tag: for what several processes may write at once.
    """
    part = path.with_name(f"{path.name}{tag}.part")
    write(part)
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(path)


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Write all that resuming needs."""
    write_whole(path, lambda part: torch.save(state, part))


def load_state(path: Path) -> dict[str, Any]:
    """Read what :func:`save_state` wrote.

    :raises CheckpointError: a damaged file.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        missing = {"samples", "network", "average", "optimizer", "order"} - set(state)
    except Exception as error:  # zip, pickle, EOF: torch.load raises whatever the bytes provoke
        reason = str(error).strip().split("\n")[0][:120]
        raise CheckpointError(
            f"{path} is damaged ({reason}): remove it to start anew, from the last snapshot with "
            "--start"
        ) from error
    if missing:
        raise CheckpointError(f"{path} is no state of a run: it has no {', '.join(missing)}")
    return state


# ---------------------------------------------------------------- snapshots and exports


@dataclass(frozen=True)
class Snapshot:
    """Parameters in training's form, and what they were trained by."""

    parameters: Parameters
    config: Config
    samples: int
    averaged: int = 1  # snapshots that it is the mean of

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it: text only."""
        return {
            "task": self.config.task,
            "config": json.dumps(plain(self.config)),
            "samples": str(self.samples),
            "averaged": str(self.averaged),
        }


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write a snapshot as safetensors, float32."""
    tensors = {name: value.detach().contiguous() for name, value in snapshot.parameters.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: save_file(tensors, part, snapshot.metadata()))


def read_snapshot(path: Path) -> Snapshot:
    """A snapshot, or a run's latest averaged parameters where ``path`` is its folder.

    :raises CheckpointError: missing, damaged, or not written by training.
    """
    if path.is_dir():
        run = RunFolder(path)
        state = load_state(run.state)
        return Snapshot(state["average"], read_config(run.config), int(state["samples"]))
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            parameters = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read as a snapshot: {error}") from error
    if "config" not in metadata:
        raise CheckpointError(f"{path} is no snapshot of a training run: it has no configuration")
    config = config_from(json.loads(metadata["config"]), str(path))
    return Snapshot(parameters, config, int(metadata["samples"]), int(metadata["averaged"]))


def average(snapshots: Sequence[Snapshot]) -> Snapshot:
    """The mean of all parameters (stochastic weight averaging, Izmailov et al. 2018).

    :raises CheckpointError: they are of different networks.
    """
    first = snapshots[0]
    shapes = {name: value.shape for name, value in first.parameters.items()}
    for other in snapshots[1:]:
        if {name: value.shape for name, value in other.parameters.items()} != shapes:
            raise CheckpointError("snapshots of different networks have no average")
    parameters = {
        name: torch.stack([one.parameters[name].double() for one in snapshots]).mean(0).to(dtype)
        for name, dtype in ((name, value.dtype) for name, value in first.parameters.items())
    }
    samples = max(one.samples for one in snapshots)
    return Snapshot(parameters, first.config, samples, sum(one.averaged for one in snapshots))


def export(snapshot: Snapshot, path: Path, precision: str = "fp16") -> None:
    """Write the parameters as the core's network loads them: normalisation folded.

    :param precision: fp16 or fp32. Running means and variances are always fp32: they can be those
        of grey values.
    :raises CheckpointError: a parameter that fp16 can't hold.
    """
    folded = folded_state(snapshot.parameters)
    tensors = {
        name: value.half() if precision == "fp16" and _halves(name, value) else value
        for name, value in folded.items()
    }
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise CheckpointError(f"{broken[0]} has values that are no finite {precision} numbers")
    from .tasks import task_for  # imports torchvision, which takes seconds

    metadata = snapshot.metadata() | task_for(snapshot.config).metadata()
    tensors = {name: value.contiguous() for name, value in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: save_file(tensors, part, metadata))


def _halves(name: str, value: torch.Tensor) -> bool:
    return value.is_floating_point() and not name.endswith(("running_mean", "running_var"))
