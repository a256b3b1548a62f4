"""Evaluating a run: numbers, rows and pictures."""

import pathlib
from collections.abc import Callable, Sequence

from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._run_rows import RunRows, row_lines
from jaxrobust.evaluation import Evaluator, Row
from jaxrobust.experiment import evaluators_of
from jaxrobust.processes import is_first
from jaxrobust.storage import local_folder
from jaxrobust.training import load_run


def evaluate_run(
    workdir: pathlib.Path,
    *,
    checkpoint: str = "best",
    evaluators: Sequence[Evaluator] | None = None,
    trust: Sequence[str] = (),
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> list[Row]:
    """Evaluates a run's network on its test set.

    Prints the numbers, appends a row for each evaluator to `rows.jsonl` in the run's folder, and
    draws the evaluators' pictures there. Several processes share the work; the first of them prints
    and writes. If the folder is not writable, the numbers are still printed.

    Args:
      workdir: the run's folder.
      checkpoint: "best" or "last".
      evaluators: of `jaxrobust.evaluators`, or your own; default: the experiment's.
      trust: packages whose code the run's configuration may name, as in `training.load_run`.
      quiet: no progress bar, and no lines about progress in a log.
      say: called with each line of output for the user.

    Returns:
      The rows.

    Raises:
      OSError: at the end, if a row or a report could not be written.
    """
    workdir = local_folder(workdir)
    run = load_run(workdir, checkpoint=checkpoint, trust=trust, say=say)
    keeper = Keeper(workdir, say=say)
    rows = RunRows(
        workdir,
        experiment=run.experiment,
        checkpoint={"kind": checkpoint, "step": run.step},
        keeper=keeper,
        quiet=quiet,
        say=say,
        tell=say,
        run=run,
    )
    found = []
    for evaluator in evaluators_of(run.experiment) if evaluators is None else evaluators:
        found.append(rows.make(evaluator))
        if is_first():
            for line in row_lines(found[-1], held_out=run.experiment.validation.size > 0):
                say(line)
    drawn = rows.draw()
    keeper.close()
    if keeper.usable and is_first():
        pictures = f"   pictures: {', '.join(map(str, drawn))}" if drawn else ""
        say(f"rows: {rows.path}{pictures}")
    return found
