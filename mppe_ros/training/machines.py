"""Where a run computes: one device, several, or several machines, by Lightning Fabric."""

from __future__ import annotations

from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision, Precision

from ..devices import DeviceError, select_device


class _Autocast(MixedPrecision):
    """Fabric's, except that labels keep their digits: autocast lowers what it must by itself."""

    def convert_input(self, data: Any) -> Any:
        return data


_MIXED: dict[str, Literal["16-mixed", "bf16-mixed"]] = {"fp16": "16-mixed", "bf16": "bf16-mixed"}


def launch(
    precision: str = "fp32", *, device: str = "cpu", devices: int = 1, nodes: int = 1
) -> Fabric:
    """The processes of a run; each goes on from here with a part of every batch.

    Where they were not started by torchrun (or Slurm), this starts those of this machine.

    :param precision: of the convolutions.
    :param device: as ``devices.select_device`` has it; a GPU's number is for one device only.
    :param devices: how many of them on each machine; ``nodes`` machines.
    :raises DeviceError: devices that aren't here.
    """
    chosen = select_device(device)
    if devices > 1 and chosen.index is not None:
        raise DeviceError(f"{device} is one device, not {devices}: say {chosen.type}")
    here = torch.cuda.device_count() if chosen.type == "cuda" else devices
    if devices > here:
        raise DeviceError(f"{devices} GPUs asked for, {here} are here")
    plugin: Precision = Precision()
    if precision in _MIXED:
        plugin = _Autocast(_MIXED[precision], chosen.type)
    fabric = Fabric(
        accelerator=chosen.type,
        devices=devices if chosen.index is None else [chosen.index],
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        plugins=[plugin],
    )
    fabric.launch()
    return fabric


def any_of(fabric: Fabric, here: bool) -> bool:
    """Whether something is so in any of the processes."""
    if fabric.world_size == 1:
        return here
    told = torch.tensor(float(here), device=fabric.device)
    return bool(fabric.all_reduce(told, reduce_op="sum") > 0)  # type: ignore[operator]
