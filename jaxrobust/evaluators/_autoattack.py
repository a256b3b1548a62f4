"""AutoAttack, resumable, with its report in the run's folder."""

import hashlib
import pathlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from jaxrobust.evaluation import Number, Report, Row, Work, autoattack, packed_right
from jaxrobust.evaluators._images import check_images, counts_by_class, first_images, suffix
from jaxrobust.evaluators._settings import check_radius
from jaxrobust.inputs import InputError, as_choice, as_seed
from jaxrobust.typing import LogitsFn, Norm

VERSIONS = ("standard", "plus", "rand", "custom")
LONGEST = 120  # characters of a part of a folder's name


@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """AutoAttack at one radius.

    Finished work is kept in `autoattack/` of the run's folder and reused after an
    interruption. The report is there too: `report.json`, `report.txt`, `adversarial.npz`,
    `model_card.json` and `cascade.png`.

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in image units.
      version: as in `evaluation.autoattack`.
      attacks: for version "custom".
      images: number of test images, the first ones; default all.
      seed: of all noise.
      individual: run every attack on all correctly classified points.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.autoattack(norm="linf", eps=8 / 255).version
      'standard'

    References:
      Croce and Hein, 2020 (arXiv:2003.01690).
    """

    norm: Norm
    eps: float
    version: str = "standard"
    attacks: tuple[str, ...] | None = None
    images: int | None = None
    seed: int = 0
    individual: bool = False

    def __post_init__(self) -> None:
        check_radius("eps", self.norm, self.eps)
        as_choice(self.version, name="version", choices=VERSIONS)
        if (self.version == "custom") != (self.attacks is not None):
            raise InputError(
                "attacks must be given for version 'custom' and for no other, got "
                f"{self.attacks} for {self.version!r}"
            )
        check_images(self.images)
        as_seed(self.seed)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images; all noise comes from the evaluator's own seed."""
        report, folder = self.report(logits_fn, dataset, work), self.folder(work)
        work.say(report.text())
        if folder is not None:
            if work.write(lambda: report.save(folder, picture=False, card=work.card)):
                work.say(f"report: {folder}")
            work.draw(
                folder / "cascade.png",
                lambda path, _: report.draw(path, name=work.title),
                of=lambda: None,
            )
        return self._row(report, dataset.num_classes)

    def folder(self, work: Work) -> pathlib.Path | None:
        """Where this evaluation is kept, if it is."""
        name = folder_name(work.name, self, [self.eps])
        return None if work.folder is None else work.folder / "autoattack" / name

    def report(self, logits_fn: LogitsFn, dataset: Any, work: Work) -> Report:
        """Attacks the test images, or takes up what is finished of it."""
        folder = self.folder(work)
        return autoattack(
            logits_fn,
            *first_images(dataset, self.images),
            norm=self.norm,
            eps=self.eps,
            version=self.version,
            attacks=self.attacks,
            seed=self.seed,
            individual=self.individual,
            batch_size=work.autoattack_batch_size,
            folder=None if folder is None else folder / "items",
            progress=work.progress,
        )

    @property
    def column(self) -> str:
        """The name of the robust accuracy in tables."""
        return f"AutoAttack {self._column()}"

    def _row(self, report: Report, classes: int) -> Row:
        clean, *_, robust = report.masks.values()
        number = Number(self.column, *report.robust_accuracy)
        return Row(
            f"AutoAttack {self._words(', with deviations' if report.deviations else '')}",
            (Number("clean", *report.clean_accuracy), number),
            {
                "protocol": report.protocol,
                "checks": [check._asdict() for check in report.checks if not check.passed],
                "classes": counts_by_class(report.labels, classes, clean, robust),
                "right": packed_right({"clean": clean, self.column: robust}),
            },
            {"attacks": report.cost},
        )

    def _version(self) -> str:
        return self.version + (f" ({' '.join(self.attacks)})" if self.attacks else "")

    def _seed(self) -> str:
        return f", seed {self.seed}" if self.seed else ""

    def _column(self) -> str:
        version = "" if self.version == "standard" else f"{self._version()} "
        return f"{version}{self.norm} {self.eps:.6g}{suffix(self.images)}{self._seed()}"

    def _words(self, deviating: str = "") -> str:
        return f"{self._version()}{deviating}, {self.norm} eps {self.eps:.6g}{self._seed()}"


def folder_name(start: str, asked: AutoAttack, eps: Any) -> str:
    """The folder of one evaluation, or of a sweep over several radii.

    Two evaluations that differ in anything have different names.

    Args:
      start: of the name, such as `best_step310`.
      asked: all but the radius.
      eps: radii in image units; two that are the same in float32 are the same.

    Returns:
      Such as `best_step310_linf_eps0.03137255_custom_apgd-ce_fab-t_seed0_first40`.
    """
    parts = [start, asked.norm]
    parts += ["eps" + short("-".join(str(np.float32(radius)) for radius in eps)), asked.version]
    parts += [*(asked.attacks or ()), f"seed{asked.seed}"]
    parts += ["individual"] * asked.individual
    parts += [f"first{asked.images}"] * (asked.images is not None)
    return "_".join(part for part in parts if part)


def short(text: str) -> str:
    """The text, or its hash where it is too long for the name of a file."""
    return text if len(text) <= LONGEST else hashlib.sha256(text.encode()).hexdigest()[:16]
