"""The training loop: the same for every task, stoppable and resumable at any second.

The state is parameters, their moving average, the optimizer, and the number of samples seen. All
else (rates, augmentation, the order of samples) is a function of that number and of the seed, so a
resumed run takes the same steps as one that was never interrupted.
"""

from __future__ import annotations

import copy
import math
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import Precision
from torch import nn
from tqdm import tqdm

from ..checkpoints import CheckpointError
from . import curves
from .config import Config, Optimisation
from .data import Batch, Source
from .feed import Feed, Share
from .files import RunFolder, Snapshot, load_state, save_snapshot, save_state
from .machines import any_of, launch
from .task import Task, Terms


class DivergedError(RuntimeError):
    """Training that has gone wrong beyond repair."""


def rate_factor(options: Optimisation, samples: int) -> float:
    """What the learning rates are multiplied by after ``samples``."""
    progress = min(1.0, samples / options.total_samples)
    if options.schedule == "step":
        factor = 0.1 ** sum(progress >= at for at in options.steps_at)
    else:
        factor = 0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * progress))
    warm = (samples + options.batch_size) / max(options.warmup_samples, 1)
    return factor * min(1.0, warm)


def parameter_groups(network: nn.Module, options: Optimisation) -> list[dict[str, object]]:
    """The trunk learns slowly; vectors (biases, normalisation) don't decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            of_trunk = name.startswith(("trunk.", "backbone."))
            rate = options.trunk_rate if of_trunk else options.head_rate
            groups[rate, options.weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    return [
        {"params": parameters, "lr": rate, "base_rate": rate, "weight_decay": decay}
        for (rate, decay), parameters in groups.items()
    ]


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, weight: float) -> None:
    """Move every parameter and buffer of ``average`` by ``weight`` towards the network's."""
    for old, new in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
        if old.is_floating_point():
            old.lerp_(new, weight)
        else:
            old.copy_(new)


class Learner(nn.Module):
    """A network with its losses: what each process computes of its part of a batch."""

    def __init__(self, task: Task[Config], network: nn.Module) -> None:
        super().__init__()
        self.task, self.network = task, network

    def forward(self, batch: Batch) -> Terms:
        return self.task.losses(self.network, batch)


class Trainer:
    """One run in memory; in each process of it one.

    :param start: a snapshot to begin with, instead of what the task begins with.
    :param fabric: the processes; without it this one, on the CPU.
    :param workers: processes beside each that make its batches.
    """

    def __init__(
        self,
        task: Task[Config],
        data: Source,
        run: RunFolder,
        *,
        validation: Source | None = None,
        start: Snapshot | None = None,
        fabric: Fabric | None = None,
        workers: int = 0,
    ) -> None:
        self.task, self.data, self.validation, self.run = task, data, validation, run
        self.config = task.config
        self.fabric = fabric or launch(self.options.precision)
        torch.manual_seed(self.config.seed)
        self.network = task.trainable()
        if start is not None:
            _load(self.network, start, self.config.task)
        elif not run.state.is_file():
            task.pretrain(self.network)
        self.network.to(self.fabric.device)
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.network, self.options))
        self.feed = Feed(
            data,
            self.config.seed,
            self.options.batch_size,
            Share(self.fabric.global_rank, self.fabric.world_size),
            workers=workers,
            pin_memory=self.device.type == "cuda",
        )
        self.samples = 0
        if run.state.is_file():
            self._resume()
        self._learner, self._stepper = self.fabric.setup(
            Learner(task, self.network), self.optimizer
        )

    @property
    def options(self) -> Optimisation:
        return self.config.optimisation

    @property
    def device(self) -> torch.device:
        return self.fabric.device

    @property
    def step_samples(self) -> int:
        """Samples that all processes together take in a step."""
        return self.options.batch_size * self.fabric.world_size

    @property
    def finished(self) -> bool:
        return self.samples >= self.options.total_samples

    def step(self) -> dict[str, float]:
        """Learn from one batch; the loss' terms.

        :raises DivergedError: the loss is no number any more; nothing was learnt from it.
        """
        batch = self._to_device(next(self.feed))
        # What networks draw (torchvision's detectors do) is a function of the clock, too.
        torch.manual_seed((self.config.seed << 40) + self.samples + self.fabric.global_rank)
        self._learner.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * rate_factor(self.options, self.samples)
        self._stepper.zero_grad(set_to_none=True)
        terms = self._learner(batch)
        means = self.fabric.all_reduce(torch.stack(list(terms.values())).detach())
        assert isinstance(means, torch.Tensor)
        if not means.isfinite().all():
            raise DivergedError(
                f"the loss is {float(means.sum())} after {self.samples} samples: begin a run "
                "with lower rates, from a snapshot by --start"
            )
        self.fabric.backward(torch.stack(list(terms.values())).sum())
        if self.options.clip_norm:
            self.fabric.clip_gradients(
                self._learner,
                self._stepper,
                max_norm=self.options.clip_norm,
                error_if_nonfinite=False,  # fp16's scaler expects some
            )
        self._stepper.step()
        self.samples += self.step_samples
        update_average(self.average, self.network, self._average_weight())
        return dict(zip(terms, means.tolist(), strict=True))

    def _to_device(self, batch: Batch) -> Batch:
        return {name: value.to(self.device, non_blocking=True) for name, value in batch.items()}

    def _average_weight(self) -> float:
        """Small at last, larger in the beginning, when the average has nothing to keep yet."""
        if not self.options.average_samples:
            return 1.0
        steps = self.samples / self.step_samples
        return max(self.step_samples / self.options.average_samples, 9 / (10 + steps))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Figures of the averaged parameters on the validation data, as far as there are any."""
        assert self.validation is not None
        values = defaultdict(list)
        count = min(len(self.validation), self.config.recording.validation_count)
        for indices in np.array_split(np.arange(count), -(-count // self.options.batch_size)):
            batch = self._to_device(self.validation.batch(indices, None))
            with self.fabric.autocast():
                figures = self.task.figures(self.average, batch)
            for name, value in figures.items():
                values[name].append(value.float())
        joined = {name: torch.cat(parts) for name, parts in values.items()}
        return {name: float(value.mean()) for name, value in joined.items() if len(value)}

    def save(self) -> None:
        """Write all that resuming needs."""
        state = {
            "samples": self.samples,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.feed.state(),
            "precision": self._precision.state_dict(),
        }
        save_state(self.run.state, state)

    def snapshot(self) -> Path:
        """Keep the averaged parameters of this moment for good."""
        path = self.run.snapshot(self.samples)
        save_snapshot(path, Snapshot(self.average.state_dict(), self.config, self.samples))
        return path

    def _resume(self) -> None:
        state = load_state(self.run.state)
        try:
            self.network.load_state_dict(state["network"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise CheckpointError(
                f"{self.run.state} is of another network than {self.run.config} describes"
            ) from error
        self._precision.load_state_dict(state.get("precision", {}))
        self.samples = int(state["samples"])
        self.feed.resume(state["order"], self.samples)

    @property
    def _precision(self) -> Precision:
        """Keeps the scale of fp16's gradients."""
        return self.fabric.strategy.precision


def _load(network: nn.Module, start: Snapshot, task: str) -> None:
    """Parameters of a snapshot; of one of another task, what both networks have."""
    parameters = start.parameters
    if start.config.task != task:
        own = network.state_dict()
        shared = {
            name: value
            for name, value in parameters.items()
            if name in own and own[name].shape == value.shape
        }
        if not shared:
            raise CheckpointError(
                f"the snapshot to start from is of {start.config.task}: {task} has none of that"
            )
        parameters = own | shared
    try:
        network.load_state_dict(parameters)
    except RuntimeError as error:
        raise CheckpointError(
            f"the snapshot to start from is of another network: {str(error).splitlines()[1]}"
        ) from error


# ---------------------------------------------------------------- a session of a run


class Stop:
    """Whether somebody asked to stop: SIGINT or SIGTERM, or a time limit."""

    def __init__(self, minutes: float | None = None) -> None:
        self._deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
        self._signalled = False

    @property
    def requested(self) -> bool:
        return self._signalled or time.monotonic() > self._deadline

    @contextmanager
    def listening(self) -> Iterator[Stop]:
        """Take the signals; a second one interrupts at once."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = [signal.signal(number, self._once) for number in numbers]
        try:
            yield self
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)

    def _once(self, number: int, frame: FrameType | None) -> None:
        if self._signalled:
            raise KeyboardInterrupt
        self._signalled = True


class Session:
    """Trains until the end of the run, or until it is stopped; writes the log meanwhile."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.run = trainer, trainer.run
        self.recording = trainer.config.recording
        self._writes = trainer.fabric.is_global_zero  # files, and the bar; others only compute
        self._sums: dict[str, float] = defaultdict(float)
        self._steps, self._since = 0, time.monotonic()
        self._saved_at = time.monotonic()
        self._log = curves.Log(self.run.log, self.run.tensorboard) if self._writes else None

    def train(self, stop: Stop) -> bool:
        """
        :return: whether the run is finished.
        """
        trainer = self.trainer
        if self._log is not None:
            self._log.begin(trainer.samples)
        bar = tqdm(
            total=trainer.options.total_samples,
            initial=trainer.samples,
            unit="sample",
            smoothing=0.02,
            disable=not self._writes,
        )
        with stop.listening(), bar:
            while not trainer.finished and not any_of(trainer.fabric, stop.requested):
                self._step(bar)
            self._save()
        if self._log is not None:
            self._log.end()
            curves.plot(self.run.log, self.run.curves)
        trainer.fabric.barrier()  # for the first process' files
        return trainer.finished

    def _step(self, bar: tqdm) -> None:
        trainer, recording = self.trainer, self.recording
        terms = trainer.step()
        bar.update(trainer.step_samples)
        for name, value in terms.items():
            self._sums[name] += value
        self._steps += 1
        if not self._writes:
            return
        if self._passed(recording.log_samples):
            means = self._record_terms()
            bar.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
        if trainer.validation is not None and self._passed(recording.validate_samples):
            self._append("validation", trainer.validate())
            curves.plot(self.run.log, self.run.curves)
        if self._passed(recording.snapshot_samples):
            trainer.snapshot()
        if time.monotonic() - self._saved_at > 60 * recording.checkpoint_minutes:
            self._save()

    def _save(self) -> None:
        if self._writes:
            self.trainer.save()
        self._saved_at = time.monotonic()

    def _passed(self, every: int) -> bool:
        """Whether the last batch crossed a multiple of ``every`` samples, or the run's end."""
        now, size = self.trainer.samples, self.trainer.step_samples
        return now // every > (now - size) // every or self.trainer.finished

    def _record_terms(self) -> dict[str, float]:
        """Write the mean terms since the last time."""
        means = {name: total / self._steps for name, total in self._sums.items()}
        seconds = time.monotonic() - self._since
        speed = self._steps * self.trainer.step_samples / max(seconds, 1e-9)
        self._append("train", means, samples_per_s=round(speed, 1))
        self._sums.clear()
        self._steps, self._since = 0, time.monotonic()
        return means

    def _append(self, kind: str, figures: dict[str, float], **more: float) -> None:
        record = {"kind": kind, "samples": self.trainer.samples, "figures": figures, **more}
        if self._log is not None:
            self._log.append(record)
