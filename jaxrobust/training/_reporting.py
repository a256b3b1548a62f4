"""What a run tells: JSON lines, TensorBoard if wanted, a progress bar or a line per epoch."""

import importlib.util
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from etils import epath
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

from jaxrobust.experiment import Experiment
from jaxrobust.progress import progress_bar
from jaxrobust.rows import append_row, read_rows, write_rows
from jaxrobust.storage import in_bucket


class MetricsFile:
    """Metrics as JSON lines, one row per call, the file closed after each.

    Buckets show, and keep when the machine goes, only what was written before a file was closed.

    On resuming, rows of steps after the restored one are dropped, so that every step appears
    once.

    Args:
      path: the `.jsonl` file.
      resume_step: the restored step; rows after it are removed.
      tensorboard: also write TensorBoard events beside it (needs `jaxrobust[tensorboard]`).

    Attributes:
      kept: the number of rows that the file had up to the restored step.
    """

    def __init__(
        self, path: epath.Path | pathlib.Path, *, resume_step: int = 0, tensorboard: bool = False
    ) -> None:
        steps = range(resume_step + 1)
        kept = read_rows(path) if path.exists() else []
        kept = [row for row in kept if row.get("step") in steps]
        write_rows(path, kept)
        self.kept = len(kept)
        self._path = path
        self._board = _board(path.parent) if tensorboard else None

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Appends one row."""
        append_row(self._path, {"step": step, **values})
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the TensorBoard events."""
        if self._board is not None:
            self._board.close()


def check_board(workdir: epath.Path) -> None:
    """Checks that TensorBoard events can be written in a folder.

    Raises:
      ValueError: in a bucket, or where tensorboardX is not installed.
    """
    if in_bucket(workdir):
        raise ValueError(f"tensorboard must be off where workdir is in a bucket: {workdir}")
    if importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            "TensorBoard output needs tensorboardX: pip install 'jaxrobust[tensorboard]'"
        )


def _board(workdir: epath.Path | pathlib.Path) -> Any:
    check_board(epath.Path(workdir))
    from tensorboardX import SummaryWriter

    return SummaryWriter(str(workdir / "tensorboard"))


def tell(line: str) -> None:
    """Prints a line at once, also into a file or a pipe."""
    print(line, flush=True)


class TrainingBar:
    """A progress bar with the run's numbers; where output is no terminal, a line per epoch.

    Args:
      name: of the run.
      total: number of steps.
      done: steps already taken (after a resume).
      quiet: show neither.
      say: prints a line.
    """

    def __init__(
        self, name: str, total: int, *, done: int, quiet: bool, say: Callable[[str], None]
    ) -> None:
        self._progress = progress_bar(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            quiet=quiet,
            transient=False,
        )
        self._task = self._progress.add_task(name, total=total, completed=done, figures="")
        self._progress.start()
        self._say = (lambda line: None) if quiet or not self._progress.disable else say

    def compiling(self) -> None:
        """Shows that the program is being compiled, until the next update."""
        self._progress.update(self._task, figures="compiling")

    def update(self, step: int, figures: dict[str, float]) -> None:
        """Moves the bar and shows some figures."""
        self._progress.update(self._task, completed=step, figures="  ".join(shown(figures)))

    def end_epoch(self, line: str) -> None:
        """Prints the line if there is no bar."""
        self._say(line)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._progress.stop()


def shown(figures: Mapping[str, float]) -> list[str]:
    """Figures as texts: accuracies in percent, rates whole, the rest with three digits."""
    texts = []
    for name, value in figures.items():
        if name.endswith("accuracy"):
            words = name.removesuffix("accuracy").replace("_", " ").strip()
            clean = "" if words.endswith("robust") else " clean"
            texts.append(f"{words}{clean} {value:.1%}".strip())
        elif name == "examples_per_second":
            texts.append(f"{value:,.0f} examples/s")
        else:
            texts.append(f"{name} {value:.3f}")
    return texts


def epoch_line(experiment: Experiment, rows: Sequence[Mapping[str, Any]], *, last: int) -> str:
    """An epoch in one line, for logs without a progress bar.

    Args:
      experiment: whose epoch it is.
      rows: the epoch's row of metrics, or one per run where several train together: the line then
        has their means.
      last: the last step of the run.

    Returns:
      The line.
    """
    first = rows[0]
    names = ["loss", *(n for n in first if n.endswith(("accuracy", "per_second")))]
    figures = {n: sum(row[n] for row in rows) / len(rows) for n in names}
    name = experiment.name
    if len(rows) > 1:
        name = f"mean of {len(rows)} runs, {experiment.name} and others"
    epoch = f"epoch {first['epoch']}/{experiment.epochs}, step {first['step']}/{last}"
    return ", ".join([f"{name}: {epoch}", *shown(figures)])
