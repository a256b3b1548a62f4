"""The rows of a run: read from its folder, or evaluated now and kept there."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from jaxrobust.commands._identity import (
    DataDigests,
    card_fields,
    checkpoint_words,
    digest_of_checkpoint,
    digests_of_data,
    provenance_of,
    task_of,
    threat_text,
)
from jaxrobust.commands._keeper import Keeper
from jaxrobust.commands._progress import EvaluationBar
from jaxrobust.evaluation import (
    Evaluator,
    Number,
    Row,
    Work,
    append_row,
    row_of,
    settings_of,
)
from jaxrobust.experiment import Experiment, evaluator_name
from jaxrobust.files import to_json
from jaxrobust.inputs import InputError
from jaxrobust.keys import key_of
from jaxrobust.processes import from_first, is_first
from jaxrobust.rows import read_rows
from jaxrobust.training import Run, load_run

ROWS = "rows.jsonl"


class RunRows:
    """Evaluates one run. Each row is a line of `rows.jsonl` in the run's folder.

    A row is reused only if evaluator, settings, task, checkpoint and seed agree, and also the
    contents of the checkpoint and of the test data. Pictures are drawn in `draw`, after the rows.

    Args:
      folder: the run's folder.
      experiment: the run's experiment.
      checkpoint: as rows name it, `{"kind": "best", "step": ...}`.
      keeper: writes the rows; rows that cannot be written are still computed.
      quiet: no progress bars, and no lines about progress in a log.
      say: called with each line of output for the user.
      tell: called with the evaluators' own lines.
      run: the network, if it is loaded already.
      data: digests of test data, which other runs may share.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        experiment: Experiment,
        checkpoint: dict[str, Any],
        keeper: Keeper,
        quiet: bool = False,
        say: Callable[[str], None] = print,
        tell: Callable[[str], None] = lambda line: None,
        run: Run | None = None,
        data: DataDigests | None = None,
    ) -> None:
        self.path, self.keeper = folder / ROWS, keeper
        self._folder, self._experiment, self._checkpoint = folder, experiment, checkpoint
        self._quiet, self._say, self._tell = quiet, say, tell
        self._pictures: list[tuple[Any, ...]] = []
        self._returned = False  # whether somebody has a row
        self._made: list[Row] = []  # also those that could not be written
        self._bar: EvaluationBar | None = None
        self._data = DataDigests() if data is None else data
        if run is not None:
            self.run = run  # instead of the cached property

    @cached_property
    def run(self) -> Run:
        """The network; loaded only if something is left to do.

        Where its checkpoint is damaged, it is that of another one, and so are all rows.
        """
        run = load_run(
            self._folder,
            checkpoint=self._checkpoint["kind"],
            trust=self._experiment.packages(),
            say=self._say,
        )
        asked = self._checkpoint["step"]
        if run.step != asked:
            if self._returned:  # the run was trained meanwhile
                kind = self._checkpoint["kind"]
                raise ValueError(
                    f"{self._folder}: the {kind} checkpoint has step {run.step} but its evaluation "
                    f"step {asked}; run the same command again"
                )
            self._checkpoint = {**self._checkpoint, "step": run.step}
            self.__dict__.pop("_weights", None)
        return run

    @cached_property
    def _weights(self) -> dict[str, str]:
        return {"checkpoint": digest_of_checkpoint(self._folder, self._checkpoint["step"])}

    @cached_property
    def _loaded_data(self) -> dict[str, str]:
        found = digests_of_data(self.run.dataset)
        kept = [row.evaluated.get("images") for row in kept_rows(self.path)]
        others = sum(digest not in (None, found["images"]) for digest in kept)
        if others and is_first():
            self._say(
                f"warning: the test images have changed since {self.path} was written ({others} "
                "rows are of others); tables keep them apart"
            )
        return found

    def row(self, evaluator: Evaluator) -> Row:
        """The row of an evaluator: an earlier one, or a new one."""
        loaded = "run" in self.__dict__
        found = None if loaded else self._kept(evaluator, self._data.of(self._experiment))
        if found is None:  # loads the network, which may be that of another checkpoint
            found = self._kept(evaluator, self._loaded_data)
        self._returned = True
        return self.make(evaluator) if found is None else found

    def _kept(self, evaluator: Evaluator, data: dict[str, str]) -> Row | None:
        """The latest row of an evaluator; `None` where there is none."""
        wanted = row_of(self._asked(evaluator, data).to_dict()).of()  # as it would be read

        def kept() -> Row | None:
            rows = [*kept_rows(self.path), *self._made]
            return next((row for row in reversed(rows) if row.of() == wanted), None)

        return from_first(kept)  # several processes must not decide differently

    def make(self, evaluator: Evaluator) -> Row:
        """A new row of an evaluator."""
        asked, started = self._asked(evaluator, self._loaded_data), time.perf_counter()
        with self._progress() as bar:
            key, work = key_of(self._experiment.seed), self._work(bar.show)
            found = evaluator(self.run.logits_fn, self.run.dataset, key=key, work=work)
        if not isinstance(found, Row):
            raise InputError(f"evaluator {asked.kind} must return a Row, got {found!r}")
        seconds = round(time.perf_counter() - started, 2)
        row = replace(
            asked,
            title=found.title,
            numbers=found.numbers,
            detail=found.detail,
            cost={**found.cost, "seconds": seconds},
            provenance=provenance_of(self._experiment, evaluator),
        )
        row = row_of(row.to_dict())  # as it will be read
        self._made.append(row)
        self.keeper.write(append_row, self.path, row.to_dict())
        return row

    def draw(self) -> list[pathlib.Path]:
        """Draws the pictures of the new rows; returns those that could be drawn."""
        pictures, self._pictures = self._pictures, []
        return [path for path, draw, of in pictures if self.keeper.draw(path, draw, of=of)]

    @property
    def made(self) -> int:
        """The number of new rows."""
        return len(self._made)

    @contextlib.contextmanager
    def _progress(self) -> Iterator[EvaluationBar]:
        """One bar, also for an evaluator whose row another evaluator requests."""
        if self._bar is not None:
            yield self._bar
            return
        with EvaluationBar(self._experiment.name, quiet=self._quiet, say=self._say) as self._bar:
            try:
                yield self._bar
            finally:
                self._bar = None

    def _asked(self, evaluator: Evaluator, data: dict[str, str]) -> Row:
        """A row without results."""
        return Row(
            "",
            (),
            kind=evaluator_name(evaluator),
            settings=settings_of(evaluator),
            run=self._experiment.name,
            task=task_of(self._experiment),
            checkpoint=self._checkpoint,
            seed=self._experiment.seed,
            evaluated={**data, **self._weights},
        )

    def _work(self, progress: Callable[[str, int, int], None]) -> Work:
        experiment, at = self._experiment, self._checkpoint
        return Work(
            threat=jax.tree.map(np.float32, experiment.build("threat")),
            threat_text=threat_text(experiment),
            seed=experiment.seed,
            batch_size=experiment.evaluation.batch_size,
            folder=self._folder if self.keeper.usable else None,
            title=f"{experiment.name}, step {at['step']}",
            name=f"{at['kind']}_step{at['step']}",
            card=card_fields(experiment),
            progress=progress,
            say=lambda line: self._tell(line) if is_first() else None,
            write=self.keeper.write,
            draw=lambda path, draw, *, of: self._pictures.append((path, draw, of)),
            row=self.row,
        )


def kept_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a file; damaged lines and rows in another format are left out."""
    found = []
    for values in read_rows(path) if path.is_file() else []:
        try:
            found.append(row_of(values))
        except InputError:
            continue
    return found


def latest_rows(rows: Sequence[Row]) -> list[Row]:
    """Rows without those that a later one of the same run repeats, also on other weights of it."""

    def of(row: Row) -> str:
        same = {k: v for k, v in row.evaluated.items() if k != "checkpoint"}
        return to_json({**row.of(), "run": row.run, "evaluated": same})

    return list({of(row): row for row in rows}.values())


def row_lines(row: Row, *, held_out: bool) -> list[str]:
    """A row as text: the evaluation, its numbers, and the checks that failed.

    Args:
      row: of a run.
      held_out: whether its training held examples out, by which one checkpoint is the best.

    Returns:
      Lines.
    """
    at = row.checkpoint
    place = f", step {at['step']} ({checkpoint_words(at['kind'], held_out=held_out)})" if at else ""
    found = row.numbers or tuple(
        Number(f"eps {p['eps']:.6g}", p["value"], p["low"], p["high"])
        for p in row.detail.get("points", [])  # of a curve, which has no column in tables
    )
    width = max((len(number.column) for number in found), default=0)
    shown = [
        f"  {n.column:<{width}} {100 * n.value:.2f} % [{100 * n.low:.1f}, {100 * n.high:.1f}]"
        for n in found
    ]
    return [f"{row.run}{place}, evaluated: {row.title}", *shown, *warning_lines(row)]


def warning_lines(row: Row) -> list[str]:
    """A line for each failed check."""
    checks = row.detail.get("checks", [])
    return list(dict.fromkeys(f"warning: {c['name']}: {c['message']}" for c in checks))
