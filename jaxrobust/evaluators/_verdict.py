"""A fast verdict: an upper bound of robust accuracy, resumable."""

import pathlib
from dataclasses import dataclass
from typing import Any

from jax import Array

from jaxrobust import evaluation, spec
from jaxrobust.evaluation import Number, Row, Work
from jaxrobust.evaluators._images import check_images, counts_by_class, first_images, suffix
from jaxrobust.evaluators._settings import check_radius, kept_in, seed_text
from jaxrobust.inputs import as_choice, as_seed
from jaxrobust.typing import LogitsFn, Norm

PRECISIONS = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An upper bound of robust accuracy at a fifth of AutoAttack's passes, `evaluation.verdict`.

    Finished stages are kept in `verdict/` of the run's folder and reused after an
    interruption. `verdict.json`, `verdict.txt`, `adversarial.npz` and `cascade.png` are there too.

    Args:
      norm: "linf", "l2" or "l1".
      eps: radius in image units.
      precision: precision of the network in the attacks: "float32", "bfloat16" or "float16".
      images: number of test images, the first ones; default all.
      seed: of all noise.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.verdict(norm="linf", eps=8 / 255).precision
      'float32'
    """

    norm: Norm
    eps: spec.Number
    precision: str = "float32"
    images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        check_radius("eps", self.norm, self.eps)
        as_choice(self.precision, name="precision", choices=PRECISIONS)
        check_images(self.images)
        as_seed(self.seed)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images; all noise comes from the evaluator's own seed."""
        folder = self.folder(work)
        found = evaluation.verdict(
            logits_fn,
            *first_images(dataset, self.images),
            norm=self.norm,
            eps=self.eps,
            seed=self.seed,
            batch_size=work.autoattack_batch_size,
            folder=None if folder is None else folder / "items",
            precision=self.precision,
            progress=work.progress,
        )
        work.say(found.text())
        if folder is not None:
            if work.write(lambda: found.save(folder)):
                work.say(f"verdict: {folder}")
            work.draw(
                folder / "cascade.png",
                lambda path, _: found.draw(path, name=work.title),
                of=lambda: None,
            )
        return self._row(found, dataset.num_classes)

    def folder(self, work: Work) -> pathlib.Path | None:
        """Where this evaluation is kept, if it is."""
        return kept_in(work, "verdict", self)

    def _row(self, found: evaluation.Verdict, classes: int) -> Row:
        clean, *_, robust = found.masks.values()
        words = f"{self.norm} {self.eps:.6g}{suffix(self.images)}{seed_text(self.seed)}"
        words += "" if self.precision == "float32" else f", {self.precision}"
        return Row(
            f"fast verdict, {words}",
            (
                Number("clean", *found.clean_accuracy),
                Number(f"fast verdict {words}", *found.robust_accuracy),
            ),
            {
                "protocol": found.protocol,
                "checks": [check._asdict() for check in found.checks if not check.passed],
                "unconfirmed": found.unconfirmed,
                "classes": counts_by_class(found.labels, classes, clean, robust),
            },
            {"stages": found.cost},
        )
