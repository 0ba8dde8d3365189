"""``mppe synth``: generated people as training crops, annotated scenes, and the sample clip."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ..devices import keep_memory
from . import dataset
from .dataset import DatasetError, Shard
from .kernel import KernelError
from .library import Library, Split


@contextmanager
def mended() -> Iterator[None]:
    """Errors that users can mend are one sentence, not a traceback."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "anny":
            raise
        raise click.ClickException(
            "generating people needs the bodies of Anny: pip install 'mppe_ros[synth]'"
        ) from error
    except (DatasetError, KernelError) as error:
        raise click.ClickException(str(error)) from error


class SynthErrors(click.Group):
    """A group whose commands tell such errors."""

    def invoke(self, context: click.Context) -> Any:
        """Run, and shorten what may go wrong."""
        keep_memory()
        with mended():
            return super().invoke(context)


class ShardType(click.ParamType):
    """i/n, i from 0."""

    name = "i/n"

    def convert(self, value: Any, param: Any, ctx: Any) -> Shard:
        """Parse, or tell what is wrong."""
        if isinstance(value, Shard):
            return value
        try:
            return Shard.parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that crops and scenes share."""
    folder = click.Path(exists=True, file_okay=False, path_type=Path)
    for option in reversed(
        [
            click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True,
                         help="Folder; what it holds already is kept and continued."),
            click.option("--count", type=click.IntRange(1), required=True),
            click.option("--seed", type=click.IntRange(0), default=1, show_default=True),
            click.option("--assets", type=folder,
                         help="Folder of free assets (docs/synthetic.md); without it clothes, "
                              "poses and places are procedural."),
            click.option("--split", type=click.Choice([s.value for s in Split]),
                         default=Split.TRAIN.value, show_default=True,
                         help="Which identities, clothes, motions and places are used."),
            click.option("--shard", type=ShardType(), default="0/1", show_default=True,
                         help="Make every n-th part, from part i on."),
        ]
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(cls=SynthErrors)
def synth() -> None:
    """Generate people: the same samples for the same seed, on any machine."""


@synth.command()
@_common
@click.option("--size", type=click.IntRange(32, 512), default=160, show_default=True, help="px")
def crops(
    out: Path, count: int, seed: int, assets: Path | None, split: str, shard: Shard, size: int
) -> None:
    """Make crops of single people, to train RootNet and PoseNet.

    \b
    mppe synth crops --out data/crops --count 100000 --shard 0/4
    """
    from .person_crops import CropGenerator

    generator = CropGenerator(Library.load(assets, Split(split)), seed, size)
    dataset.write_crops(out, generator, count, shard)


@synth.command()
@_common
@click.option("--width", type=click.IntRange(64), default=640, show_default=True)
@click.option("--height", type=click.IntRange(64), default=480, show_default=True)
@click.option("--depth", is_flag=True, help="Also write depth (mm) and person masks as PNG.")
def scenes(
    out: Path,
    count: int,
    seed: int,
    assets: Path | None,
    split: str,
    shard: Shard,
    width: int,
    height: int,
    depth: bool,
) -> None:
    """Make whole pictures with COCO-style JSON, to train DetectNet and to test the pipeline.

    \b
    mppe synth scenes --out scenes --count 384 --split test --depth
    """
    from .scenes import SceneGenerator

    generator = SceneGenerator(Library.load(assets, Split(split)), seed, width, height)
    dataset.write_scenes(out, generator, count, shard, depth)


@synth.command()
@_common
@click.option("--frames", type=click.IntRange(2), default=90, show_default=True)
@click.option("--fps", type=click.FloatRange(1), default=15.0, show_default=True)
@click.option("--width", type=click.IntRange(64), default=640, show_default=True)
@click.option("--height", type=click.IntRange(64), default=480, show_default=True)
def clips(
    out: Path,
    count: int,
    seed: int,
    assets: Path | None,
    split: str,
    shard: Shard,
    frames: int,
    fps: float,
    width: int,
    height: int,
) -> None:
    """Make RGB-D films with camera_info and track ids, one folder each.

    \b
    mppe synth clips --out clips --count 8 --split test --frames 60
    """
    from .clips import ClipGenerator, write_clip

    library = Library.load(assets, Split(split))
    generator = ClipGenerator(library, seed, width, height, frames, fps)
    for index in range(shard.index, count, shard.of):
        folder = out / f"clip-{index:05d}"
        if not (folder / "truth.json").exists():  # written last
            write_clip(generator, index, folder)


@synth.command()
@click.option("--assets", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.option("--seed", default=7, show_default=True)
def clip(assets: Path, out: Path, seed: int) -> None:
    """Make the package's sample clip and its ground truth again.

    \b
    mppe synth clip --assets people_assets --out sample
    """
    from .sample_clip import make_clip

    make_clip(assets, out, seed)


@synth.command()
@click.option("--assets", type=click.Path(exists=True, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option("--seed", default=1, show_default=True)
@click.option("--split", type=click.Choice([s.value for s in Split]), default=Split.TRAIN.value)
def sheet(assets: Path | None, out: Path, seed: int, split: str) -> None:
    """Draw a contact sheet of samples (JPEG).

    \b
    mppe synth sheet --out sheet.jpg --seed 3
    """
    import cv2

    from .sheet import contact_sheet

    picture = contact_sheet(Library.load(assets, Split(split)), seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(out), picture, [cv2.IMWRITE_JPEG_QUALITY, 80]):
        raise click.ClickException(f"cannot write {out}")
