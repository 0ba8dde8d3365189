"""The ``mppe`` command: everything that needs no ROS."""

from __future__ import annotations

import sys

import click

from ..checkpoints import CheckpointError
from ..devices import DeviceError
from ..media import MediaError
from ..structures import IntrinsicsError
from .run import run
from .weights import weights


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mppe_ros")
def cli() -> None:
    """Absolute 3D human poses from a single camera (3DMPPE)."""


cli.add_command(run)
cli.add_command(weights)


def main() -> None:
    """Run the command; expected errors are one sentence, not a traceback."""
    try:
        cli()
    except (CheckpointError, DeviceError, IntrinsicsError, MediaError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
