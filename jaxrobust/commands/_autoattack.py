"""AutoAttack on a run's network, at one or several radii."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from jaxrobust import evaluators
from jaxrobust.commands._evaluate import evaluate_run
from jaxrobust.commands._keeper import Keeper
from jaxrobust.evaluation import Accuracy, Number, Row, draw_sweep, write_json
from jaxrobust.storage import local_folder


def autoattack_run(
    workdir: pathlib.Path,
    *,
    norm: str,
    eps: Sequence[float],
    attacks: Sequence[str] | None = None,
    n: int | None = None,
    checkpoint: str = "best",
    quiet: bool = False,
    say: Callable[[str], None] = print,
    **settings: Any,
) -> list[Row]:
    """Evaluates a run by `evaluators.autoattack` at one or several radii.

    For several radii, `sweep.png` and `sweep.json` are also written, to a separate folder.

    Args:
      workdir: the run's folder.
      norm: "linf", "l2" or "l1".
      eps: one or several radii in image units.
      attacks: the attacks, for version "custom".
      n: the first n test images; default all.
      checkpoint: "best" or "last".
      quiet: no progress bar, and no lines about progress in a log.
      say: called with each line of output for the user.
      **settings: `version`, `seed` and `individual` of the evaluator.

    Returns:
      The rows, one for each radius.

    Raises:
      OSError: at the end, if a report or a row could not be written.
    """
    workdir = local_folder(workdir)
    chosen = None if attacks is None else tuple(attacks)
    asked = [
        evaluators.autoattack(
            norm=norm,  # type: ignore[arg-type]
            eps=radius,
            attacks=chosen,
            images=n,
            **settings,
        )
        for radius in eps
    ]
    rows = evaluate_run(workdir, checkpoint=checkpoint, evaluators=asked, quiet=quiet, say=say)
    if len(rows) > 1:
        start = f"{rows[0].checkpoint['kind']}_step{rows[0].checkpoint['step']}"
        folder = workdir / "autoattack" / evaluators.folder_name(start, asked[0], eps)
        _sweep(Keeper(workdir, say=say), folder, rows, say)
    return rows


def _sweep(
    keeper: Keeper, folder: pathlib.Path, rows: Sequence[Row], say: Callable[[str], None]
) -> None:
    clean = _accuracy(rows[0].numbers[0])
    points = sorted((row.settings["eps"], _accuracy(row.numbers[-1])) for row in rows)
    values = [{"eps": eps, **accuracy._asdict()} for eps, accuracy in points]

    def save() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "sweep.json", values)

    written = keeper.write(save)
    picture, path = folder / "sweep.png", folder / "sweep.json"
    settings = rows[0].settings
    drawn = keeper.draw(
        picture,
        lambda path, _: draw_sweep(
            path,
            [(0.0, clean), *(point for point in points if point[0] > 0)],
            title=f"AutoAttack ({settings['version']}), {settings['norm']}",
        ),
    )
    if written:
        say(f"sweep: {picture if drawn else path}")
    keeper.close()


def _accuracy(number: Number) -> Accuracy:
    correct, total = number.correct or 0, number.total or 0
    return Accuracy(number.value, number.low, number.high, correct, total)
