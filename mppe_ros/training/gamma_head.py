"""γ's layers of a finished `LiteJointNet`, fitted anew to what its trunk sees.

While everything learns together, γ's layers go along with a trunk that moves, and learn to tell
generated people apart. On a trunk that stands still they are a small regression, done in minutes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from ..checkpoints import CheckpointError
from ..networks import LiteJointNet
from ..weights import BLAZEPOSE_CROP
from .data import Source
from .files import Snapshot
from .losses import relative_error
from .task import Task

HEAD = ("gamma_hidden.", "log_gamma.")
_BATCH, _FIT_BATCH, _PASSES = 50, 256, 6
_RATE, _DECAY = 1e-3, 1e-2
_LEAST_DEVIATION = 0.2  # of features, which are 0 to 6


def fit(snapshot: Snapshot, task: Task, source: Source, samples: int) -> tuple[Snapshot, float]:
    """
    :param source: of crops, varied as in training.
    :param samples: crops to look at.
    :return: the snapshot with new layers, and their mean relative error on what they learnt from.
    :raises CheckpointError: a snapshot of another network.
    """
    network = task.trainable()
    if not isinstance(network, LiteJointNet):
        raise CheckpointError("γ's layers are fitted to a network of the task root_pose only")
    body = {k: v for k, v in snapshot.parameters.items() if not k.startswith(HEAD)}
    if body.keys() != {key for key in network.state_dict() if not key.startswith(HEAD)}:
        raise CheckpointError("the snapshot is of another network than its configuration says")
    network.load_state_dict(network.state_dict() | body)
    features, gamma = _look(network.eval(), source, samples, task.config.seed)
    error = _regress(network, features, gamma, task.config.seed)
    return replace(snapshot, parameters=network.state_dict()), error


@torch.no_grad()
def _look(
    network: LiteJointNet, source: Source, samples: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """What γ is told from (N, F), and γ (N,), of varied crops."""
    rng = np.random.default_rng(seed)
    order = np.concatenate(
        [rng.permutation(len(source)) for _ in range(-(-samples // len(source)))]
    )[:samples]
    seen, gamma = [], []
    for start in tqdm(range(0, samples, _BATCH), unit="batch", disable=None):
        batch = source.batch(order[start : start + _BATCH], rng)
        # In fp32: the layers are to learn from what they will be given.
        seen.append(network.evidence(BLAZEPOSE_CROP.normalise(batch["image"])))
        gamma.append(batch["gamma"])
    return torch.cat(seen), torch.cat(gamma)


def _regress(
    network: LiteJointNet, features: torch.Tensor, gamma: torch.Tensor, seed: int
) -> float:
    """Fit the layers in place, to standardised features; the last pass' error."""
    torch.manual_seed(seed)
    # Features that hardly vary on generated people may on others: they are not to be blown up.
    mean, scale = features.mean(0), features.std(0) + _LEAST_DEVIATION
    features = (features - mean) / scale
    hidden, last = network.gamma_hidden, network.log_gamma
    hidden.reset_parameters()
    last.reset_parameters()
    nn.init.constant_(last.bias, float(gamma.log().mean()))
    optimizer = torch.optim.AdamW(
        [*hidden.parameters(), *last.parameters()], _RATE, weight_decay=_DECAY
    )
    steps = max(1, len(features) // _FIT_BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _PASSES * steps)
    error = float("nan")
    for _ in range(_PASSES):
        total = 0.0
        for rows in torch.randperm(len(features)).tensor_split(steps):
            loss = relative_error(network.gamma(features[rows]), gamma[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        error = total / steps
    with torch.no_grad():  # the layers see features as they are
        hidden.weight.div_(scale)
        hidden.bias.sub_(hidden.weight @ mean)
    return error
