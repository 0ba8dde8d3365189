"""`SurfaceNet`, fitted to what a finished weight set makes of generated scenes with depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from .. import camera, depth, surface
from ..evaluation import roots
from ..evaluation.depth_noise import spoil
from ..evaluation.truth import PhotoSet
from ..pipeline import Pipeline
from ..skeletons import Skeleton
from ..surface import CELL_MM, MIRRORED, SurfaceNet, View
from .files import write_whole

_BATCH, _RATE, _DECAY = 128, 2e-3, 0.02
# How often each depth image is spoilt, beside being used as it is.
_SPOILT = 2
# How far the root is shifted at random, cells; noise of joints, m.
_SHIFT, _JOINT_NOISE = 1, 0.01
# Who is farther off is left out: depth found somebody else.
_MOST_MM = 400.0


class Lessons(NamedTuple):
    """N people, each as one depth image shows them."""

    view: View
    offsets_mm: torch.Tensor  # (N, 3) what is to be learnt

    def some(self, rows: torch.Tensor) -> Lessons:
        """Those of some rows."""
        return Lessons(View(*(column[rows] for column in self.view)), self.offsets_mm[rows])


def collect(pipeline: Pipeline, sets: Sequence[PhotoSet], seed: int = 0) -> Lessons:
    """What the pipeline finds in pictures that have depth images.

    :raises ValueError: nobody was found.
    """
    rng = np.random.default_rng(seed)
    parts = [
        part
        for one in sets
        for part in tqdm(_parts(pipeline, one, rng), disable=None, unit="picture")
    ]
    if not parts:
        raise ValueError(f"nobody was found in pictures with depth images ({sets[0].folder})")
    patches, bodies, offsets_mm = (torch.cat(column) for column in zip(*parts, strict=True))
    return Lessons(View(patches, bodies), offsets_mm)


def _parts(
    pipeline: Pipeline, photo_set: PhotoSet, rng: np.random.Generator
) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    for photo, people, truths in roots.met(pipeline, photo_set):
        metres = roots.depth_image(photo_set, photo)
        if metres is None:
            continue
        for depth_m in (metres, *(spoil(metres, rng) for _ in range(_SPOILT))):
            fused = depth.fuse(
                people, depth_m, photo.intrinsics, pipeline.skeleton, pipeline.root_error
            )
            known = [
                (new, truth.root_mm)
                for new, old, truth in zip(fused, people, truths, strict=True)
                if new is not old and np.linalg.norm(new.root_mm - truth.root_mm) < _MOST_MM
            ]
            if not known:
                continue
            view = surface.look([person for person, _ in known], depth_m, photo.intrinsics)
            offsets = [camera.ray_axes(one.root_mm) @ (one.root_mm - true) for one, true in known]
            yield *view, torch.tensor(np.array(offsets)).float()


def fit(lessons: Lessons, skeleton: Skeleton, passes: int, seed: int = 0) -> SurfaceNet:
    """Least mean distance of the root from the truth."""
    torch.manual_seed(seed)
    network = SurfaceNet(skeleton).train()
    optimizer = torch.optim.AdamW(network.parameters(), _RATE, weight_decay=_DECAY)
    count = len(lessons.offsets_mm)
    batches = max(count // _BATCH, 1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=passes * batches)
    for _ in (bar := tqdm(range(passes), disable=None, unit="pass")):
        total = 0.0
        for rows in torch.randperm(count).tensor_split(batches):
            some = _varied(lessons.some(rows), skeleton)
            wrong = network(*some.view) - some.offsets_mm
            loss = wrong.norm(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        bar.set_postfix(mean_error_mm=f"{total / batches:.1f}")
    return network.eval()


def _varied(lessons: Lessons, skeleton: Skeleton) -> Lessons:
    """Mirrored, shifted, and with noisy joints."""
    (patches, bodies), offsets = lessons.view, lessons.offsets_mm.clone()
    turned = torch.rand(len(offsets)) < 0.5
    of_mirror = View(patches, bodies).mirrored(skeleton)
    patches = torch.where(turned[:, None, None, None], of_mirror.patches, patches)
    bodies = torch.where(turned[:, None, None], of_mirror.bodies, bodies)
    offsets[turned] *= torch.tensor(MIRRORED)
    # Who is a cell farther left in the patch has a root that is a cell too far right.
    right, down = (int(n) for n in torch.randint(-_SHIFT, _SHIFT + 1, (2,)))
    patches = patches.roll((-down, -right), (2, 3))
    offsets += torch.tensor([0.0, right, down]) * CELL_MM
    bodies[..., :3] += _JOINT_NOISE * torch.randn_like(bodies[..., :3])
    return Lessons(View(patches, bodies), offsets)


def write(network: SurfaceNet, path: Path) -> None:
    """In fp16."""
    tensors = {name: value.half().contiguous() for name, value in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda part: save_file(tensors, part))
