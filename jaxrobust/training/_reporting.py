"""What a run tells: JSON lines, TensorBoard if wanted, a progress bar on a terminal."""

import json
import pathlib
from typing import Any

from etils import epath
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from jaxrobust.training._bucket import append, in_bucket, write_whole


class MetricsFile:
    """Metrics as JSON lines, one row per call, the file closed after each.

    Buckets show, and keep when the machine goes, only what was written before a file was closed.

    On resuming, rows of steps after the restored one are dropped, so that every step appears
    once.

    Args:
      path: the `.jsonl` file.
      resume_step: the restored step; rows after it are removed.
      tensorboard: also write TensorBoard events beside it (needs `jaxrobust[tensorboard]`).
    """

    def __init__(
        self, path: epath.Path | pathlib.Path, *, resume_step: int = 0, tensorboard: bool = False
    ) -> None:
        if path.exists():
            kept = [row for row in read_rows(path) if row["step"] <= resume_step]
            write_whole(path, "".join(json.dumps(row) + "\n" for row in kept))
        else:
            write_whole(path, "")
        self._path = path
        self._board = _board(path.parent / "tensorboard") if tensorboard else None

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends one row."""
        append(self._path, json.dumps({"step": step, **values}) + "\n")
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the TensorBoard events."""
        if self._board is not None:
            self._board.close()


def read_rows(path: epath.Path | pathlib.Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file; a last line cut off by a crash is left out.

    Args:
      path: the `.jsonl` file.

    Returns:
      One dictionary per line.
    """
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def _board(folder: epath.Path | pathlib.Path) -> Any:
    if in_bucket(folder):
        raise ValueError(f"tensorboard must be off where workdir is in a bucket: {folder.parent}")
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        raise ValueError(
            "TensorBoard output needs tensorboardX: pip install 'jaxrobust[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder))


class TrainingBar:
    """A progress bar with the run's figures; silent where output is not a terminal.

    Args:
      name: of the run.
      total: number of steps.
      done: steps already taken (after a resume).
      quiet: never show it.
    """

    def __init__(self, name: str, total: int, *, done: int = 0, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not console.is_terminal,
        )
        self._task = self._progress.add_task(name, total=total, completed=done, figures="")
        self._progress.start()

    def update(self, step: int, figures: dict[str, float]) -> None:
        """Moves the bar; shows `loss` with three digits, accuracies in percent, rates whole."""
        shown = []
        for name, value in figures.items():
            if "accuracy" in name:
                shown.append(
                    f"{name.replace('_accuracy', '').replace('accuracy', 'clean')} {value:.1%}"
                )
            elif name.endswith("per_second"):
                shown.append(f"{value:,.0f}/s")
            else:
                shown.append(f"{name} {value:.3f}")
        self._progress.update(self._task, completed=step, figures="  ".join(shown))

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._progress.stop()
