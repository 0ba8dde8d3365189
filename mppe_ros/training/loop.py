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
from torch import nn
from tqdm import tqdm

from ..checkpoints import CheckpointError
from . import curves
from .config import Config, Optimisation
from .data import Batch, SampleOrder, Source
from .files import RunFolder, Snapshot, load_state, save_snapshot, save_state
from .preparation import imagenet_file, load_imagenet, trunk_of
from .tasks import Task

# Which stream of random numbers a draw belongs to (1 is the order of samples, in data.py).
_AUGMENTATION = 2


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
            rate = options.trunk_rate if name.startswith("trunk.") else options.head_rate
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


class Trainer:
    """One run in memory.

    :param start: a snapshot to begin with, instead of ImageNet's trunk and random heads.
    """

    def __init__(
        self,
        task: Task[Config],
        data: Source,
        run: RunFolder,
        *,
        validation: Source | None = None,
        start: Snapshot | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.task, self.data, self.validation, self.run = task, data, validation, run
        self.config = task.config
        self.device = device or torch.device("cpu")
        torch.manual_seed(self.config.seed)
        self.network = task.trainable().to(self.device)
        if start is not None:
            _load(self.network, start)
        elif not run.state.is_file():
            load_imagenet(trunk_of(self.network), imagenet_file())
        self.average = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.network, self.options))
        self.order = SampleOrder(self.config.seed, data.refresh)
        self.samples = 0
        if run.state.is_file():
            self._resume()

    @property
    def options(self) -> Optimisation:
        return self.config.optimisation

    @property
    def finished(self) -> bool:
        return self.samples >= self.options.total_samples

    def step(self) -> dict[str, float]:
        """Learn from one batch; the loss' terms.

        :raises DivergedError: the loss is no number any more; nothing was learnt from it.
        """
        batch = self._batch()
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * rate_factor(self.options, self.samples)
        self.optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            terms = self.task.losses(self.network, batch)
        loss = torch.stack(list(terms.values())).sum()
        if not loss.isfinite():
            raise DivergedError(
                f"the loss is {float(loss.detach())} after {self.samples} samples: begin a run "
                "with lower rates, from a snapshot by --start"
            )
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip_norm)
        self.optimizer.step()
        self.samples += self.options.batch_size
        update_average(self.average, self.network, self._average_weight())
        return {name: float(value.detach()) for name, value in terms.items()}

    def _batch(self) -> Batch:
        rng = np.random.default_rng([self.config.seed, _AUGMENTATION, self.samples])
        batch = self.data.batch(self.order.take(self.options.batch_size), rng)
        return {name: value.to(self.device) for name, value in batch.items()}

    def _autocast(self) -> torch.autocast:
        lower = self.options.precision == "bf16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=lower)

    def _average_weight(self) -> float:
        """Small at last, larger in the beginning, when the average has nothing to keep yet."""
        steps = self.samples / self.options.batch_size
        return max(self.options.batch_size / self.options.average_samples, 9 / (10 + steps))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Figures of the averaged parameters on the validation data, as far as there are any."""
        assert self.validation is not None
        values = defaultdict(list)
        count = min(len(self.validation), self.config.recording.validation_count)
        for indices in np.array_split(np.arange(count), -(-count // self.options.batch_size)):
            batch = self.validation.batch(indices, None)
            batch = {name: value.to(self.device) for name, value in batch.items()}
            with self._autocast():
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
            "order": self.order.state(),
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
        self.order.resume(state["order"])
        self.samples = int(state["samples"])


def _load(network: nn.Module, start: Snapshot) -> None:
    try:
        network.load_state_dict(start.parameters)
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
        self._sums: dict[str, float] = defaultdict(float)
        self._steps, self._since = 0, time.monotonic()
        self._saved_at = time.monotonic()

    def train(self, stop: Stop) -> bool:
        """
        :return: whether the run is finished.
        """
        trainer = self.trainer
        curves.trim_log(self.run.log, trainer.samples)
        total = trainer.options.total_samples
        with (
            stop.listening(),
            tqdm(total=total, initial=trainer.samples, unit="sample", smoothing=0.02) as bar,
        ):
            while not trainer.finished and not stop.requested:
                self._step(bar)
            trainer.save()
        curves.plot(self.run.log, self.run.curves)
        return trainer.finished

    def _step(self, bar: tqdm) -> None:
        trainer, recording = self.trainer, self.recording
        terms = trainer.step()
        bar.update(trainer.options.batch_size)
        for name, value in terms.items():
            self._sums[name] += value
        self._steps += 1
        if self._passed(recording.log_samples):
            bar.set_postfix({name: f"{value:.4f}" for name, value in self._log().items()})
        if trainer.validation is not None and self._passed(recording.validate_samples):
            self._append("validation", trainer.validate())
            curves.plot(self.run.log, self.run.curves)
        if self._passed(recording.snapshot_samples):
            trainer.snapshot()
        if time.monotonic() - self._saved_at > 60 * recording.checkpoint_minutes:
            trainer.save()
            self._saved_at = time.monotonic()

    def _passed(self, every: int) -> bool:
        """Whether the last batch crossed a multiple of ``every`` samples, or the run's end."""
        now, size = self.trainer.samples, self.trainer.options.batch_size
        return now // every > (now - size) // every or self.trainer.finished

    def _log(self) -> dict[str, float]:
        """Write the mean terms since the last time."""
        means = {name: total / self._steps for name, total in self._sums.items()}
        seconds = time.monotonic() - self._since
        speed = self._steps * self.trainer.options.batch_size / max(seconds, 1e-9)
        self._append("train", means, samples_per_s=round(speed, 1))
        self._sums.clear()
        self._steps, self._since = 0, time.monotonic()
        return means

    def _append(self, kind: str, figures: dict[str, float], **more: float) -> None:
        record = {"kind": kind, "samples": self.trainer.samples, "figures": figures, **more}
        curves.append(self.run.log, record)
