"""Evaluating a run: its numbers, one JSON row and one picture."""

import pathlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxrobust import threats
from jaxrobust.commands._identity import evaluation_key, pgd_text, provenance_of, task_in
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._progress import EvaluationBar
from jaxrobust.evaluation import (
    Accuracy,
    EvaluationResult,
    RandomTransform,
    SpatialGrid,
    append_row,
    draw_adversarial_images,
    evaluate,
    pgd_attacks,
)
from jaxrobust.experiment import Evaluation, Experiment, to_dict
from jaxrobust.processes import is_first
from jaxrobust.storage import local_folder
from jaxrobust.training import Run, load_run, read_rows

SHOWN = 8  # images of a picture
NAMED = 20  # classes whose names are kept in rows, for figures of each class


def evaluate_run(
    workdir: pathlib.Path,
    *,
    checkpoint: str = "best",
    evaluation: Evaluation | None = None,
    keeper: Keeper | None = None,
    trust: Sequence[str] = (),
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Attacks a run's network on its test set with PGD on cross-entropy and on the margin.

    Says the accuracies, then appends a row to `results.jsonl` in the run's folder, then draws
    `adversarial.png` there; of several processes, which share the work, the first does. Where the
    folder cannot be written to, the accuracies are said all the same.

    Args:
      workdir: the run's folder.
      checkpoint: "best" or "last".
      evaluation: settings of the attacks; default: the experiment's.
      keeper: writes the row, and is closed by the caller; default: one of its own.
      trust: packages whose code the run's configuration may name, as in `training.load_run`.
      quiet: no progress bar, and no lines about progress in a log.
      say: where lines for the user go.

    Returns:
      The row: configuration, provenance and accuracies.

    Raises:
      OSError: at the end, if the row could not be written.
    """
    workdir = local_folder(workdir)
    run = load_run(workdir, checkpoint=checkpoint, trust=trust, say=say)
    own = keeper is None
    keeper = keeper or Keeper(workdir, say=say)
    settings = evaluation or run.experiment.evaluation
    images, labels = run.dataset.floats("test")
    names = getattr(run.dataset, "class_names", ())
    # Made first, so that an argument out of range does not cost the attacks before it.
    attacks, spatial = attacks_of(run.experiment, settings), _spatial_attacks(settings)

    def attacked(chosen: dict[str, Any], keep_images: bool | None) -> EvaluationResult:
        name = run.experiment.name
        with EvaluationBar(name, len(labels), quiet=quiet, say=say) as bar:
            return evaluate(
                run.logits_fn,
                images,
                labels,
                attacks=chosen,
                batch_size=settings.batch_size,
                seed=run.experiment.seed,
                keep_images=keep_images,
                advance=bar.advance,
            )

    result = attacked(attacks, None if keeper.usable else False)
    row = {
        "experiment": to_dict(run.experiment),
        "checkpoint": {"kind": checkpoint, "step": run.step},
        "evaluation": to_dict(settings),
        "threat": threat_text(run.experiment),
        **({"class_names": list(names)} if 0 < len(names) <= NAMED else {}),
        "seeds": {"training": run.experiment.seed, "attacks": run.experiment.seed},
        **result.figures(),
        **_spatial_figures(settings, attacked(spatial, False) if spatial else None),
        "provenance": provenance_of(run.experiment),
    }
    if is_first():
        for line in figure_lines(row):
            say(line)
    rows, picture = workdir / "results.jsonl", workdir / "adversarial.png"
    written = keeper.write(append_row, rows, row)
    title = f"{run.experiment.name}, step {run.step}: margin PGD-{pgd_text(row['evaluation'])}"
    drawn = keeper.draw(
        picture,
        lambda path, examples: draw_adversarial_images(
            path,
            *examples,
            title=f"{title}\n{row['threat']} (image units)",
            class_names=names,
        ),
        of=lambda: _examples(run, settings, images, labels, attacks["margin_pgd"], result),
    )
    if own:
        keeper.close()
    if written:
        say(f"row: {rows}" + (f"   picture: {picture}" if drawn else ""))
    return row


def attacks_of(experiment: Experiment, settings: Evaluation) -> dict[str, Any]:
    """The attacks in the experiment's own threat, by the names that results use.

    Args:
      experiment: with the threat.
      settings: of the attacks.

    Returns:
      PGD on cross-entropy and on the margin; for rotations and shifts also the search over a grid,
      because gradients with respect to angles say little beyond their neighbourhood.
    """
    threat = jax.tree.map(np.float32, experiment.build("threat"))
    steps = {"steps": settings.steps, "step_size": settings.step_size}
    found: dict[str, Any] = {**pgd_attacks(threat, restarts=settings.restarts, **steps)}
    if hasattr(threat, "on_grid"):
        found["spatial_grid"] = SpatialGrid(threat=threat, counts=settings.spatial_grid)
    return found


def _spatial_attacks(settings: Evaluation) -> dict[str, Any]:
    """The worst point of a grid of rotations and shifts, and random ones."""
    if not settings.spatial_degrees and not settings.spatial_shift_px:
        return {}
    threat = threats.spatial(settings.spatial_degrees, settings.spatial_shift_px)
    return {
        "spatial grid": SpatialGrid(threat=threat, counts=settings.spatial_grid),
        "random transform": RandomTransform(threat=threat),
    }


def _spatial_figures(settings: Evaluation, result: EvaluationResult | None) -> dict[str, Any]:
    if result is None:
        return {}
    name = f"{settings.spatial_degrees:g} degrees, {settings.spatial_shift_px:g} px"
    found = {f"{attack} ({name})": value._asdict() for attack, value in result.robust.items()}
    return {"spatial_accuracy": found, "spatial_checks": result.figures()["checks"]}


def figure_lines(row: dict[str, Any]) -> list[str]:
    """The accuracies of a row for people.

    Args:
      row: of `evaluate_run`.

    Returns:
      Lines of text.
    """
    at = row["checkpoint"]
    head = f"{row['experiment']['name']}, step {at['step']} ({at['kind']}), {row['threat']}"
    figures = {"clean": row["clean_accuracy"], **row["robust_accuracy"]}
    figures |= {"worst case": row["worst_case_accuracy"], **row.get("spatial_accuracy", {})}
    width = max(map(len, figures))
    lines = [f"{head}, PGD-{pgd_text(row['evaluation'])}"]
    lines += [f"  {k:<{width}} {Accuracy(**v)}" for k, v in figures.items()]
    checks = [*row.get("checks", []), *row.get("spatial_checks", [])]  # older rows have none
    return lines + warning_lines(checks)


def warning_lines(checks: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each check that did not pass, as rows hold them."""
    return list(dict.fromkeys(f"warning: {c['name']}: {c['message']}" for c in checks))


def earlier_row(
    workdir: pathlib.Path,
    *,
    experiment: Experiment,
    checkpoint: dict[str, Any],
    evaluation: Evaluation,
) -> dict[str, Any] | None:
    """The row of an earlier evaluation of the same checkpoint with the same settings.

    Args:
      workdir: the run's folder.
      experiment: of the run.
      checkpoint: `{"kind": ..., "step": ...}`.
      evaluation: settings of the attacks.

    Returns:
      The row, or `None`.
    """
    path, wanted = workdir / "results.jsonl", evaluation_key(experiment, evaluation, checkpoint)
    for row in reversed(read_rows(path) if path.exists() else []):
        try:
            task = task_in(row["experiment"])
            found = {"checkpoint": row["checkpoint"], "evaluation": row["evaluation"], "task": task}
        except (KeyError, TypeError, ValueError):  # a row of another kind, such as AutoAttack's
            continue
        if found == wanted:
            return row
    return None


def threat_text(experiment: Experiment) -> str:
    """The threat in words: `linf eps 0.1`."""
    threat, given = experiment.build("threat"), experiment.threat.kwargs
    # As they were given: in float32, 8/255 has another sixth digit.
    if ":" in experiment.threat.target:  # what its arguments mean is not known
        return threats.described(threat)
    names = getattr(threat, "__dataclass_fields__", {})
    exact = {name: given[name] for name in names if name in given}
    return threats.described(replace(threat, **exact) if exact else threat)


def _examples(
    run: Run,
    settings: Evaluation,
    images: np.ndarray,
    labels: np.ndarray,
    attack: Any,
    result: EvaluationResult,
) -> tuple[np.ndarray, ...]:
    """Images, attacked images, labels and predictions; examples that the attack turned first."""
    turned = result.masks["clean"] & ~result.masks["margin_pgd"]
    shown = np.argsort(~turned, kind="stable")[:SHOWN]
    chosen, classes = images[shown], labels[shown]
    if "margin_pgd" in result.adversarial_images:
        adversarial = result.adversarial_images["margin_pgd"][shown]
    else:  # large sets keep only who was right
        again = evaluate(
            run.logits_fn,
            chosen,
            classes,
            attacks={"margin_pgd": attack},
            batch_size=settings.batch_size,
            seed=run.experiment.seed,
        )
        adversarial = again.adversarial_images["margin_pgd"]
    predicted = jax.jit(lambda f, x: f(x).argmax(-1))(run.logits_fn, adversarial)
    return chosen, adversarial, classes, np.asarray(predicted)
