"""``mppe view``: a result in the browser."""

from __future__ import annotations

import webbrowser
from functools import partial
from pathlib import Path

import click
from tqdm import tqdm

from ..page import write_page
from ..results import Results
from ..runs import open_film


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path),
              help="Write this one self-contained page and open nothing.")  # fmt: skip
@click.option("--every", type=click.IntRange(1),
              help="Only each n-th image; by default as needed for 300.")  # fmt: skip
def view(result: Path, html: Path | None, every: int | None) -> None:
    """Show RESULT (the --out folder of 'mppe run', or a poses.jsonl) in the browser.

    Picture, skeletons with ids and paths in 3D, the scene from above and depth over time, with a
    time slider. The page lies beside the result as view.html and needs no network. Pictures are
    taken from where 'mppe run' found them.

    \b
    mppe view out
    mppe view out --html page.html --every 10
    """
    results = Results(result)
    target = html or results.path.with_name("view.html")
    progress = partial(tqdm, desc="drawing", disable=None, unit="image")
    try:
        count = write_page(results, target, open_film, every=every or 0, progress=progress)
    except ModuleNotFoundError as error:
        raise click.ClickException(
            f"a page needs {error.name}: pip install 'mppe_ros[export]'"
        ) from error
    except OSError as error:
        raise click.ClickException(f"{target} cannot be written: {error.strerror}") from error
    click.echo(f"wrote {target}: {count} images", err=True)
    if html is None and not webbrowser.open(target.resolve().as_uri()):
        click.echo("There is no browser here: open the page in one.", err=True)
