"""Evaluating a run: one JSON row and one picture."""

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from jaxrobust import threats
from jaxrobust.evaluation import (
    EvaluationResult,
    RandomTransform,
    SpatialGrid,
    append_row,
    draw_adversarial_images,
    evaluate,
    pgd_attacks,
    provenance,
)
from jaxrobust.experiment import Evaluation, Experiment, to_dict
from jaxrobust.processes import is_first
from jaxrobust.training import Run, load_run, local_folder, read_rows


def evaluate_run(
    workdir: pathlib.Path,
    *,
    checkpoint: str = "best",
    evaluation: Evaluation | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Attacks a run's network on its test set with PGD on cross-entropy and on the margin.

    Appends a row to `results.jsonl` in the run's folder and draws `adversarial.png` there; of
    several processes, which share the work, the first does.

    Args:
      workdir: the run's folder.
      checkpoint: "best" or "last".
      evaluation: settings of the attacks; default: the experiment's.
      quiet: no progress bar.
      say: told about unreadable checkpoints.

    Returns:
      The row: configuration, provenance and figures.
    """
    workdir = local_folder(workdir)
    run = load_run(workdir, checkpoint=checkpoint, say=say)
    settings = evaluation or run.experiment.evaluation
    images, labels = run.dataset.floats("test")
    attacks = pgd_attacks(
        jax.tree.map(np.float32, run.experiment.build("threat")),
        steps=settings.steps,
        step_size=settings.step_size,
        restarts=settings.restarts,
    )
    with EvaluationBar(run.experiment.name, len(labels), quiet=quiet) as bar:
        result = evaluate(
            run.logits_fn,
            images,
            labels,
            attacks=attacks,
            batch_size=settings.batch_size,
            seed=run.experiment.seed,
            advance=bar.advance,
        )
    row = {
        "experiment": to_dict(run.experiment),
        "checkpoint": {"kind": checkpoint, "step": run.step},
        "evaluation": to_dict(settings),
        "threat": threat_text(run.experiment),
        "seeds": {"training": run.experiment.seed, "attacks": run.experiment.seed},
        **result.figures(),
        **_spatial(run, settings, images, labels, quiet=quiet),
        "provenance": provenance(),
    }
    if is_first():
        append_row(workdir / "results.jsonl", row)
        _draw(workdir / "adversarial.png", run, images, labels, result)
    return row


def _spatial(
    run: Run, settings: Evaluation, images: np.ndarray, labels: np.ndarray, *, quiet: bool
) -> dict[str, Any]:
    """Accuracy under the worst point of a grid of rotations and shifts, and under random ones."""
    if not settings.spatial_degrees and not settings.spatial_shift_px:
        return {}
    threat = threats.spatial(settings.spatial_degrees, settings.spatial_shift_px)
    with EvaluationBar(run.experiment.name, len(labels), quiet=quiet) as bar:
        result = evaluate(
            run.logits_fn,
            images,
            labels,
            attacks={
                "spatial grid": SpatialGrid(threat=threat, counts=settings.spatial_grid),
                "random transform": RandomTransform(threat=threat),
            },
            batch_size=settings.batch_size,
            seed=run.experiment.seed,
            advance=bar.advance,
        )
    name = f"{settings.spatial_degrees:g} degrees, {settings.spatial_shift_px:g} px"
    found = {f"{attack} ({name})": value._asdict() for attack, value in result.robust.items()}
    return {"spatial_accuracy": found}


def earlier_row(
    workdir: pathlib.Path, *, checkpoint: str, evaluation: Evaluation
) -> dict[str, Any] | None:
    """The row of an earlier evaluation of the same run with the same settings, if there is one."""
    path = workdir / "results.jsonl"
    for row in reversed(read_rows(path) if path.exists() else []):
        if row.get("evaluation") == to_dict(evaluation) and row["checkpoint"]["kind"] == checkpoint:
            return row
    return None


def threat_text(experiment: Experiment) -> str:
    """The threat in words: `linf eps 0.1`."""
    spec = experiment.threat
    return " ".join([spec.name, *(f"{k} {v:.6g}" for k, v in spec.kwargs.items())])


def _draw(
    path: pathlib.Path,
    run: Run,
    images: np.ndarray,
    labels: np.ndarray,
    result: EvaluationResult,
) -> None:
    """Prefers examples that the attack turned, and tells which attack it was."""
    adversarial = result.adversarial_images["margin_pgd"]
    turned = result.masks["clean"] & ~result.masks["margin_pgd"]
    shown = np.argsort(~turned, kind="stable")[:8]
    predictions = np.asarray(
        jax.jit(lambda f, x: f(x).argmax(-1))(run.logits_fn, adversarial[shown])
    )
    draw_adversarial_images(
        path,
        images[shown],
        adversarial[shown],
        labels[shown],
        predictions,
        title=f"{run.experiment.name}: margin PGD, {threat_text(run.experiment)} (image units)",
    )


class EvaluationBar:
    """A progress bar over attacks; silent where output is not a terminal."""

    def __init__(self, name: str, total: int, *, quiet: bool = False) -> None:
        console = Console(stderr=True)
        self._name, self._total, self._attack = name, total, ""
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed}/{task.total} images"),
            TimeRemainingColumn(),
            console=console,
            disable=quiet or not is_first() or not console.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(name, total=total)

    def __enter__(self) -> "EvaluationBar":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def advance(self, attack: str, examples: int) -> None:
        """Moves on; a new attack starts the bar again."""
        if attack != self._attack:
            self._attack = attack
            self._progress.reset(
                self._task, description=f"{self._name} {attack}", total=self._total
            )
        self._progress.advance(self._task, examples)
