"""The ``mppe`` command: everything that needs no ROS."""

from __future__ import annotations

import os
from typing import Any

import click

# As in scripts/pose_node.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from ..checkpoints import CheckpointError
from ..datasets import DatasetError
from ..deployment import ExportError
from ..devices import DeviceError
from ..estimates import EstimatesError
from ..media import MediaError
from ..results import ResultsError
from ..structures import IntrinsicsError
from ..synthetic.cli import synth
from .bench import bench
from .data import data
from .eval import eval_
from .eval_datasets import human36m, mupots, pw3d
from .eval_tracking import tracking
from .export import export
from .run import run
from .train import train
from .view import view
from .weights import weights

# What users can mend.
MENDABLE = (
    CheckpointError, DatasetError, DeviceError, EstimatesError, ExportError, IntrinsicsError,
    MediaError, ResultsError,
)  # fmt: skip


class OneSentenceErrors(click.Group):
    """Errors that users can mend are one sentence and exit code 1, not a traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except MENDABLE as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=OneSentenceErrors, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mppe_ros")
def main() -> None:
    """Absolute 3D human poses from a single camera (3DMPPE)."""


for command in (human36m, mupots, pw3d, tracking):
    eval_.add_command(command)
main.add_command(bench)
main.add_command(data)
main.add_command(eval_)
main.add_command(export)
main.add_command(run)
main.add_command(synth)
main.add_command(train)
main.add_command(view)
main.add_command(weights)
