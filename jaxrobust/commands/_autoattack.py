"""AutoAttack on a run's network."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxrobust.commands._identity import autoattack_name, provenance_of
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._progress import AttackBar
from jaxrobust.evaluation import (
    Accuracy,
    Report,
    append_row,
    autoattack,
    draw_sweep,
    write_json,
)
from jaxrobust.experiment import to_dict
from jaxrobust.processes import is_first
from jaxrobust.storage import local_folder
from jaxrobust.training import Run, load_run


class Protocol(NamedTuple):
    """What is asked of AutoAttack, but for the radius.

    Attributes:
      norm: "linf", "l2" or "l1".
      version: as in `evaluation.autoattack`.
      attacks: for version "custom".
      n: the first n test images; default all.
      seed: of all noise.
      individual: every attack on all correctly classified points.
    """

    norm: str
    version: str = "standard"
    attacks: tuple[str, ...] | None = None
    n: int | None = None
    seed: int = 0
    individual: bool = False


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

    Says each report, then writes it, then draws it. Work is kept in `autoattack/` of the run's
    folder, in a folder for each checkpoint and each setting: called again after an interruption, it
    goes on where it stopped; several processes share it. Each radius leaves `report.json`,
    `report.txt`, `adversarial.npz`, `model_card.json` and `cascade.png` there, and a row in
    `results.jsonl`; several radii also `sweep.png` and `sweep.json`. Where the run's folder cannot
    be written to, the reports are said all the same.

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
      quiet: no progress bar, and no lines about progress in a log.
      say: where lines for the user go.

    Returns:
      One `Report` per radius.

    Raises:
      OSError: at the end, if a report or a row could not be written.
    """
    workdir = local_folder(workdir)
    run = load_run(workdir, checkpoint=checkpoint, say=say)
    keeper = Keeper(workdir, say=say)
    chosen = None if attacks is None else tuple(attacks)
    asked = Protocol(norm, version, chosen, n, seed, individual)
    at, reports = {"kind": checkpoint, "step": run.step}, []
    for radius in eps:
        folder = workdir / "autoattack" / _name(at, asked, [radius])
        report = attack_run(
            run, asked, radius, folder=folder if keeper.usable else None,
            batch_size=batch_size, quiet=quiet, say=say,
        )  # fmt: skip
        if is_first():
            say(report.text())
        written = keep_report(keeper, folder, report, run)
        row = _row(run, report, at)
        keeper.write(append_row, workdir / "results.jsonl", row)
        if written:
            say(f"report: {folder}")
        reports.append(report)
    if len(reports) > 1:
        _sweep(keeper, workdir / "autoattack" / _name(at, asked, eps), reports, say)
    keeper.close()
    return reports


def attack_run(
    run: Run,
    asked: Protocol,
    eps: float,
    *,
    folder: pathlib.Path | None,
    batch_size: int | None = None,
    quiet: bool = False,
    say: Callable[[str], None] | None = None,
) -> Report:
    """AutoAttack on a loaded run at one radius.

    Args:
      run: the network and its data.
      asked: the protocol.
      eps: radius in image units.
      folder: where finished work is kept, in `items/`; `None` for nowhere.
      batch_size: largest batch.
      quiet: no progress bar, and no lines about progress in a log.
      say: where the lines of a log go.

    Returns:
      The report.

    Raises:
      ValueError: if there are fewer test images than asked for.
    """
    images, labels = run.dataset.floats("test")
    if asked.n is not None and not 1 <= asked.n <= len(labels):
        raise ValueError(f"n must be between 1 and the {len(labels)} test images, got {asked.n}")
    with AttackBar(quiet=quiet, say=say) as bar:
        return autoattack(
            run.logits_fn,
            images[: asked.n],
            labels[: asked.n],
            norm=asked.norm,  # type: ignore[arg-type]
            eps=eps,
            version=asked.version,
            attacks=asked.attacks,
            seed=asked.seed,
            individual=asked.individual,
            batch_size=batch_size,
            folder=None if folder is None else folder / "items",
            progress=bar.show,
        )


def _name(at: dict[str, Any], asked: Protocol, eps: Sequence[float]) -> str:
    return autoattack_name(at, eps=eps, **asked._asdict())


def keep_report(keeper: Keeper, folder: pathlib.Path, report: Report, run: Run | None) -> bool:
    """One evaluation's report, and of a run also its card for RobustBench.

    Args:
      keeper: of the folder that everything goes to.
      folder: of the report.
      report: the report.
      run: names the card, if there is one.

    Returns:
      Whether all was written; a picture that is not drawn is a warning.
    """

    def save() -> None:
        report.save(folder, picture=False)
        if run is not None:
            fields = {
                "dataset": run.experiment.data.target,
                "architecture": run.experiment.model.target,
            }
            card = report.model_card(name=run.experiment.name, **fields)
            write_json(folder / "model_card.json", card)

    written = keeper.write(save)
    if written:
        keeper.draw(folder / "cascade.png", lambda path, _: report.draw(path))
    return written


def _row(run: Run, report: Report, at: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment": to_dict(run.experiment),
        "checkpoint": at,
        "autoattack": report.protocol,
        "images": len(report.labels),
        "clean_accuracy": report.clean_accuracy._asdict(),
        "robust_accuracy": {"autoattack": report.robust_accuracy._asdict()},
        "checks": [c._asdict() for c in report.checks if not c.passed],
        "seconds": round(report.seconds, 2),
        "provenance": provenance_of(run.experiment),
    }


def _sweep(
    keeper: Keeper, folder: pathlib.Path, reports: Sequence[Report], say: Callable[[str], None]
) -> None:
    points: list[tuple[float, Accuracy]] = sorted(
        (report.eps, report.robust_accuracy) for report in reports
    )
    rows = [{"eps": eps, **accuracy._asdict()} for eps, accuracy in points]

    def save() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sweep.json", rows)

    written = keeper.write(save)
    picture, path = folder / "sweep.png", folder / "sweep.json"
    drawn = keeper.draw(
        picture,
        lambda path, _: draw_sweep(
            path,
            [(0.0, reports[0].clean_accuracy), *(p for p in points if p[0] > 0)],
            title=f"AutoAttack ({reports[0].version}), {reports[0].norm}",
        ),
    )
    if written:
        say(f"sweep: {picture if drawn else path}")
