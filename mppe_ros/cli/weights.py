"""``mppe weights``: what sets there are, where their files are, fetching and verifying them."""

from __future__ import annotations

import click

from .. import detectors
from .. import weights as registry


@click.group()
def weights() -> None:
    """List, show, fetch and verify weight sets."""


@weights.command("list")
def list_() -> None:
    """One line per weight set.

    \b
    mppe weights list
    """
    for weight_set in registry.SETS.values():
        here = "here" if _is_here(weight_set) else "to fetch"
        default = " (default)" if weight_set.name == registry.DEFAULT else ""
        click.echo(f"{weight_set.name:10} {here:9} {weight_set.summary}{default}")


@weights.command()
@click.argument("name")
def show(name: str) -> None:
    """Everything the registry says of a set, and its model card.

    \b
    mppe weights show open-s
    """
    weight_set = registry.find(name)
    digests = registry.digests(weight_set)
    click.echo(f"{weight_set.name}: {weight_set.summary}")
    click.echo(f"  licence   {weight_set.licence}")
    click.echo(f"  detector  {weight_set.detector}")
    click.echo(f"  joints    {weight_set.joints}")
    click.echo(f"  input     {weight_set.crop.size}x{weight_set.crop.size} px crops")
    for file in weight_set.files:
        path = registry.path_of(weight_set, file)
        size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "not here"
        click.echo(f"  {file.role:9} {path} ({size})")
        click.echo(f"            sha256 {digests[file.filename] or 'recorded on the first fetch'}")
    card = registry.model_card(weight_set)
    if card:
        click.echo("\n" + card)


@weights.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Download a set into the cache folder, and the weights of its detector into torch's.

    \b
    mppe weights fetch 3dmppe
    """
    weight_set = registry.find(name)
    downloaded = registry.fetch(weight_set)
    detectors.fetch(weight_set.detector)
    for path in downloaded:
        click.echo(f"fetched {path}")
    if not downloaded:
        click.echo(f"{name} is here already")


@weights.command()
@click.argument("name", required=False)
def verify(name: str | None) -> None:
    """Compare the digests of a set's files (of all sets that are here without NAME).

    \b
    mppe weights verify
    mppe weights verify open-s
    """
    chosen = [registry.find(name)] if name else registry.SETS.values()
    for weight_set in chosen:
        if name or _is_here(weight_set):
            click.echo(f"{weight_set.name:10} ok ({registry.verify(weight_set)})")


def _is_here(weight_set: registry.WeightSet) -> bool:
    return all(registry.path_of(weight_set, file).is_file() for file in weight_set.files)
