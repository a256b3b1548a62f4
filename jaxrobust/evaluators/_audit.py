"""Whether AutoAttack's robust accuracy can be trusted."""

import pathlib
from dataclasses import dataclass
from typing import Any

from jax import Array

from jaxrobust.evaluation import AuditReport, Number, Row, Work, audit, write_json
from jaxrobust.evaluators._autoattack import AutoAttack
from jaxrobust.evaluators._images import counts_by_class, first_images
from jaxrobust.files import replace_text
from jaxrobust.inputs import InputError, as_count
from jaxrobust.typing import LogitsFn

DEFAULTS = {"steps": 100, "queries": 1000, "rounds": 3}


@dataclass(frozen=True, kw_only=True)
class Audit:
    """An audit of the points that AutoAttack leaves, see `evaluation.audit`.

    AutoAttack runs first, or is taken from the run's folder where it is finished. Finished attacks
    of the audit are kept in `audit/` of that folder and reused after an interruption;
    `report.txt` and `report.json` are there too.

    Args:
      attack: the evaluator `autoattack` with the norm, the radius and the images.
      steps: of the gradient attacks in the first round.
      queries: queries of the random search, per image.
      rounds: largest number of rounds.

    Raises:
      ValueError: if `attack` is another evaluator, or a count is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.audit(attack=evaluators.autoattack(norm="linf", eps=8 / 255)).rounds
      3
    """

    attack: Any
    steps: int = DEFAULTS["steps"]
    queries: int = DEFAULTS["queries"]
    rounds: int = DEFAULTS["rounds"]

    def __post_init__(self) -> None:
        if not isinstance(self.attack, AutoAttack):
            raise InputError(f"attack must be the evaluator autoattack, got {self.attack!r}")
        for name in DEFAULTS:
            as_count(getattr(self, name), name=name)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images; all noise comes from the seed of `attack`."""
        first = self.attack.report(logits_fn, dataset, work)
        left, folder = list(first.masks.values())[-1], self._folder(work)
        report = audit(
            logits_fn,
            *first_images(dataset, self.attack.images),
            norm=self.attack.norm,
            eps=self.attack.eps,
            robust=left,
            seed=self.attack.seed,
            batch_size=work.autoattack_batch_size,
            folder=None if folder is None else folder / "items",
            progress=work.progress,
            **{name: getattr(self, name) for name in DEFAULTS},
        )
        work.say(report.text())
        if folder is not None and work.write(lambda: _save(report, folder)):
            work.say(f"report: {folder}")
        return self._row(report, dataset.num_classes)

    def _folder(self, work: Work) -> pathlib.Path | None:
        """Of the report and of finished attacks."""
        first = self.attack.folder(work)
        if work.folder is None or first is None:
            return None
        return work.folder / "audit" / (first.name + self._changed("_", ""))

    def _row(self, report: AuditReport, classes: int) -> Row:
        clean, *_, robust = report.masks.values()
        end = self._changed(", ", " ")
        detail = report.to_dict()
        seconds = detail.pop("seconds")
        detail["classes"] = counts_by_class(report.labels, classes, clean, robust)
        return Row(
            f"audit of {self.attack.column}{end}",
            (
                Number("clean", *report.clean_accuracy),
                Number(self.attack.column, *report.before),
                Number(f"audited {self.attack.column}{end}", *report.robust_accuracy),
            ),
            detail,
            {"audit_seconds": seconds},
        )

    def _changed(self, before: str, between: str) -> str:
        """The settings that are not the default, for names."""
        values = {name: getattr(self, name) for name in DEFAULTS}
        changed = (f"{n}{between}{v}" for n, v in values.items() if v != DEFAULTS[n])
        return "".join(before + words for words in changed)


def _save(report: AuditReport, folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    replace_text(folder / "report.txt", report.text() + "\n")
    write_json(folder / "report.json", report.to_dict())
