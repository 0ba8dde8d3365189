"""Batches in the order of training, made by other processes if there are any."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from .data import Batch, Source

# Which stream of random numbers a draw belongs to (others are those of the order of samples).
_AUGMENTATION = 2


class _Job(NamedTuple):
    clock: int  # samples before the first of this batch, over all processes
    indices: NDArray[np.int64]


class _Batches(Dataset[Batch]):
    """A batch is a function of a job and of the seed: it doesn't matter who makes it."""

    def __init__(self, source: Source, seed: int) -> None:
        self.source, self.seed = source, seed

    def __getitem__(self, job: _Job) -> Batch:
        if job.indices.max() >= len(self.source):  # the data has grown since this process began
            self.source.refresh()
        rng = np.random.default_rng([self.seed, _AUGMENTATION, job.clock])
        return self.source.batch(job.indices, rng)


@dataclass(frozen=True)
class Share:
    """Which stretch of each batch a process takes."""

    rank: int = 0
    processes: int = 1


class Feed:
    """Batches without end, from where the clock and the order stand when the first is asked for.

    :param batch_size: of this process.
    :param workers: processes that make batches ahead; 0: this one makes them when asked.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        batch_size: int,
        share: Share,
        *,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self.batch_size, self.share, self.clock = batch_size, share, 0
        self._order = source.order(seed)
        self._state = self._order.state()
        self._ahead: deque[Any] = deque()  # the order's states after batches not yet asked for
        self._loader = DataLoader(
            _Batches(source, seed),
            batch_size=None,
            sampler=_Jobs(self),
            num_workers=workers,
            pin_memory=pin_memory,
            worker_init_fn=_single_threaded if workers else None,
        )
        self._batches: Iterator[Batch] | None = None

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = iter(self._loader)
        batch = next(self._batches)
        self._state = self._ahead.popleft()
        self.clock += self.batch_size * self.share.processes
        return batch

    def state(self) -> Any:
        """Of the order, after the last batch that was asked for."""
        return self._state

    def resume(self, state: Any, clock: int) -> None:
        """Go on from another one's state, before the first batch.

        :raises DataError: samples that it counted on are no longer there.
        """
        self._order.resume(state)
        self._state, self.clock = state, clock

    def jobs(self) -> Iterator[_Job]:
        """What is to be made, in this order."""
        clock, size = self.clock, self.batch_size
        whole = size * self.share.processes
        start = size * self.share.rank
        while True:
            indices = self._order.take(whole)
            self._ahead.append(self._order.state())
            yield _Job(clock + start, indices[start : start + size])
            clock += whole


class _Jobs:
    """Jobs as a DataLoader wants them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def __iter__(self) -> Iterator[_Job]:
        return self._feed.jobs()


def _single_threaded(_: int) -> None:
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
