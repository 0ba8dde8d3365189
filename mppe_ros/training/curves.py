"""A run's figures over samples: JSON lines, and a plot of them."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

Record = dict[str, Any]  # kind ("train" or "validation"), samples, and figures by name


def read_log(path: Path) -> list[Record]:
    """All records; a last line that was cut off is left out."""
    if not path.is_file():
        return []
    records = []
    for line in path.read_text().splitlines():
        try:
            records.append(json.loads(line))
        except ValueError:
            break
    return records


def append(path: Path, record: Record) -> None:
    """Add one record."""
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


class Log:
    """A run's records, as JSON lines and, where it is installed, for TensorBoard."""

    def __init__(self, path: Path, tensorboard: Path) -> None:
        self.path, self._tensorboard = path, tensorboard
        self._writer: Any = None

    def begin(self, samples: int) -> None:
        """Forget what came after the state from which a run is resumed."""
        kept = [record for record in read_log(self.path) if record["samples"] <= samples]
        self.path.write_text("".join(json.dumps(record) + "\n" for record in kept))
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(self._tensorboard, purge_step=samples + 1)

    def append(self, record: Record) -> None:
        """Add one record."""
        append(self.path, record)
        if self._writer is not None:
            for name, value in record["figures"].items():
                self._writer.add_scalar(f"{name}/{record['kind']}", value, record["samples"])

    def end(self) -> None:
        """Write what is still on its way."""
        if self._writer is not None:
            self._writer.close()


def plot(log: Path, picture: Path) -> bool:
    """Draw every figure of the log against samples; False where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    curves: dict[str, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for record in read_log(log):
        for name, value in record["figures"].items():
            curves[name][record["kind"]].append((record["samples"], value))
    if not curves:
        return False
    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure((4.5 * columns, 3 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (name, kinds) in enumerate(curves.items()):
        axes = figure.add_subplot(rows, columns, index + 1)
        for kind, points in kinds.items():
            axes.plot(*zip(*points, strict=True), label=kind, marker="." * (kind != "train"))
        axes.set(title=name, xlabel="samples")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(picture, dpi=90)
    return True
