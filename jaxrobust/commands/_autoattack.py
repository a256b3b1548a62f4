"""AutoAttack on a run's network."""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from jaxrobust.evaluation import (
    Accuracy,
    Report,
    append_row,
    autoattack,
    draw_sweep,
    provenance,
    write_json,
)
from jaxrobust.experiment import to_dict
from jaxrobust.processes import is_first
from jaxrobust.training import Run, load_run, local_folder


def autoattack_run(
    workdir: pathlib.Path,
    *,
    norm: str,
    eps: Sequence[float],
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    individual: bool = False,
    checkpoint: str = "best",
    batch_size: int | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> list[Report]:
    """Runs AutoAttack on a run's test set for one or several radii.

    Work is kept in `autoattack/` of the run's folder: called again after an interruption, it
    goes on where it stopped; several processes share it. Each radius leaves `report.json`,
    `report.txt`, `adversarial.npz`, `model_card.json` and `cascade.png` there, and a row in
    `results.jsonl`; several radii also `sweep.png` and `sweep.json`.

    Args:
      workdir: the run's folder.
      norm: "linf", "l2" or "l1".
      eps: one or several radii in image units.
      version: as in `evaluation.autoattack`.
      attacks: for version "custom".
      n: the first n test images; default all.
      seed: of all noise.
      individual: every attack on all correctly classified points.
      checkpoint: "best" or "last".
      batch_size: largest batch.
      quiet: no progress bar.
      say: where lines for the user go.

    Returns:
      One `Report` per radius.
    """
    workdir = local_folder(workdir)
    run = load_run(workdir, checkpoint=checkpoint, say=say)
    images, labels = run.dataset.floats("test")
    if n is not None and not 1 <= n <= len(labels):
        raise ValueError(f"n must be between 1 and the {len(labels)} test images, got {n}")
    images, labels = images[:n], labels[:n]
    reports = []
    for radius in eps:
        folder = workdir / "autoattack" / folder_name(norm, radius, version, seed, individual, n)
        with AttackBar(quiet=quiet) as bar:
            report = autoattack(
                run.logits_fn,
                images,
                labels,
                norm=norm,  # type: ignore[arg-type]
                eps=radius,
                version=version,
                attacks=attacks,
                seed=seed,
                individual=individual,
                batch_size=batch_size,
                folder=folder / "items",
                progress=bar.show,
            )
        if is_first():
            _keep(workdir, folder, run, report, checkpoint)
            say(report.text())
            say(f"report: {folder}")
        reports.append(report)
    if len(reports) > 1 and is_first():
        _sweep(workdir / "autoattack", reports)
        say(f"sweep: {workdir / 'autoattack' / 'sweep.png'}")
    return reports


def _keep(
    workdir: pathlib.Path, folder: pathlib.Path, run: Run, report: Report, checkpoint: str
) -> None:
    """One evaluation's report, its card for RobustBench, and its row."""
    report.save(folder)
    card = report.model_card(
        name=run.experiment.name,
        dataset=run.experiment.data.name,
        architecture=run.experiment.model.name,
    )
    write_json(folder / "model_card.json", card)
    append_row(workdir / "results.jsonl", _row(run, report, checkpoint))


def folder_name(
    norm: str, eps: float, version: str, seed: int, individual: bool, n: int | None
) -> str:
    """One folder per evaluation: `linf_0.0313725_standard_seed0`."""
    parts = [norm, f"{eps:.6g}", version, f"seed{seed}"]
    parts += ["individual"] * individual + [f"first{n}"] * (n is not None)
    return "_".join(parts)


def _row(run: Run, report: Report, checkpoint: str) -> dict[str, Any]:
    return {
        "experiment": to_dict(run.experiment),
        "checkpoint": {"kind": checkpoint, "step": run.step},
        "autoattack": report.protocol,
        "clean_accuracy": report.clean_accuracy._asdict(),
        "robust_accuracy": {"autoattack": report.robust_accuracy._asdict()},
        "checks": [c._asdict() for c in report.checks if not c.passed],
        "seconds": round(report.seconds, 2),
        "provenance": provenance(),
    }


def _sweep(folder: pathlib.Path, reports: Sequence[Report]) -> None:
    points: list[tuple[float, Accuracy]] = sorted(
        (report.eps, report.robust_accuracy) for report in reports
    )
    draw_sweep(
        folder / "sweep.png",
        [(0.0, reports[0].clean_accuracy), *(p for p in points if p[0] > 0)],
        title=f"AutoAttack ({reports[0].version}), {reports[0].norm}",
    )
    rows = [{"eps": eps, **accuracy._asdict()} for eps, accuracy in points]
    (folder / "sweep.json").write_text(json.dumps(rows, indent=2) + "\n")


class AttackBar:
    """A progress bar over attacks, targets and points; silent where output is no terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("[bold]{task.description:<22}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} points"),
            TimeElapsedColumn(),
            console=console,
            disable=quiet or not is_first() or not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task("", total=1)

    def __enter__(self) -> "AttackBar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def show(self, item: str, done: int, total: int) -> None:
        """Shows how many of the still robust points the item is through."""
        self._progress.update(self._task, description=item, completed=done, total=max(total, 1))
