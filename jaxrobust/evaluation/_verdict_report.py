"""The result of a fast verdict, and its cost."""

import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._figures import draw_cascade
from jaxrobust.evaluation._intervals import Accuracy, accuracy
from jaxrobust.evaluation._report_files import checks_of, read_report, write_report
from jaxrobust.evaluation._report_parts import check_lines, dataframe_of, html_of, short_repr
from jaxrobust.evaluation._results import provenance
from jaxrobust.typing import Norm


@dataclass(frozen=True, eq=False, repr=False)
class Verdict:
    """The result of `verdict`: an upper bound of robust accuracy.

    `to_dataframe` has the columns `label`, `prediction` (of the adversarial image), `clean` and
    each stage (True where still robust after it).

    Attributes:
      norm: the norm of the ball.
      eps: radius in image units, as given.
      seed: the seed of all noise.
      precision: the precision of the network in the attacks; successes are confirmed in float32.
      stages: each stage with its settings, in order, as plain JSON types.
      labels: `[n]`.
      masks: `{"clean": [n], stage: [n]}`, True where still robust after that stage and all before
        it.
      unconfirmed: `{stage: int}`, successes in `precision` that float32 did not confirm; those
        points count as robust.
      adversarial_images: `[n, h, w, c]`; the clean image where nothing fooled the network.
      predictions: `[n]` classes of `adversarial_images`.
      largest_norm: the largest norm of all returned perturbations.
      checks: warnings with their measured values.
      nan_logits: `{"clean": int, "adversarial": int}`, images with NaN among their logits; they are
        misclassified.
      cost: `{stage: {"forwards", "backwards", "seconds"}}`; passes of single examples.
      seconds: the time of the whole evaluation, including compilation.
      origin: the provenance of a loaded verdict; `None` for a verdict of this process.
    """

    norm: Norm
    eps: float
    seed: int
    precision: str
    stages: tuple[dict[str, Any], ...]
    labels: np.ndarray
    masks: dict[str, np.ndarray]
    unconfirmed: dict[str, int]
    adversarial_images: np.ndarray
    predictions: np.ndarray
    largest_norm: float
    checks: tuple[Check, ...]
    nan_logits: dict[str, int]
    cost: dict[str, dict[str, float]]
    seconds: float
    origin: dict[str, Any] | None = None

    @property
    def clean_accuracy(self) -> Accuracy:
        """Accuracy on the clean images."""
        return accuracy(self.masks["clean"])

    @property
    def robust_accuracy(self) -> Accuracy:
        """The share of all points that no stage fooled; an upper bound of robust accuracy."""
        return accuracy(next(reversed(self.masks.values())))

    @property
    def passes_per_point(self) -> dict[str, tuple[float, float]]:
        """Forward and backward passes of each stage, divided by the number of all points."""
        return {
            name: (cost["forwards"] / len(self.labels), cost["backwards"] / len(self.labels))
            for name, cost in self.cost.items()
        }

    @property
    def protocol(self) -> dict[str, Any]:
        """What was run, as plain JSON types."""
        return {
            "evaluation": "fast verdict",
            "norm": self.norm,
            "eps": self.eps,
            "eps_float32": float(np.float32(self.eps)),
            "seed": self.seed,
            "precision": self.precision,
            "stages": list(self.stages),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON types."""
        return {
            "protocol": self.protocol,
            "clean_accuracy": self.clean_accuracy._asdict(),
            "robust_accuracy_at_most": self.robust_accuracy._asdict(),
            "after_stage": {k: accuracy(v)._asdict() for k, v in self.masks.items()},
            "unconfirmed": self.unconfirmed,
            "largest_norm": self.largest_norm,
            "checks": [check._asdict() for check in self.checks],
            "nan_logits": self.nan_logits,
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
            "points": {k: v.astype(int).tolist() for k, v in self.masks.items()},
            "provenance": self.origin or provenance(),
        }

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        return short_repr(
            self,
            f"{self.norm} eps {self.eps:.6g}, {len(self.labels)} points, clean "
            f"{self.clean_accuracy.value:.1%}, robust at most {self.robust_accuracy.value:.1%}",
        )

    def _repr_html_(self) -> str:
        """The verdict as notebooks show it."""
        return html_of(self.text())

    def to_dataframe(self) -> Any:
        """Returns the points as a table with one row per point.

        Returns:
          A pandas DataFrame; the description of the class lists its columns.

        Raises:
          ValueError: if pandas is not installed.
        """
        return dataframe_of({"label": self.labels, "prediction": self.predictions, **self.masks})

    def text(self) -> str:
        """The verdict as text."""
        lines = [
            f"Fast verdict: {self.norm}, eps {self.eps:.6g} (image units), seed {self.seed}, "
            f"{len(self.labels)} points, attacks in {self.precision}",
            f"clean accuracy           {self.clean_accuracy}",
            f"robust accuracy at most  {self.robust_accuracy}",
        ]
        for name, (forwards, backwards) in self.passes_per_point.items():
            lost = self.unconfirmed[name]
            lines.append(
                f"  after {name:<9} {int(self.masks[name].sum()):>6} robust  ({forwards:,.0f} "
                f"forwards and {backwards:,.0f} backwards per point, "
                f"{self.cost[name]['seconds']:.1f} s)"
                + (f", {lost} successes not confirmed in float32" if lost else "")
            )
        return "\n".join([*lines, *check_lines(self.checks, self.seconds)])

    def save(self, folder: str | os.PathLike[str], *, images: bool = True) -> list[pathlib.Path]:
        """Writes `verdict.json`, `verdict.txt` and, if wanted, `adversarial.npz`.

        Args:
          folder: created if missing.
          images: also write masks, predictions and adversarial images, which `load` needs.

        Returns:
          The files that were written.
        """
        arrays = self._arrays() if images else None
        return write_report(folder, "verdict", self.to_dict(), self.text(), arrays)

    def _arrays(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {f"mask_{name}": mask for name, mask in self.masks.items()}
        arrays |= {"images": self.adversarial_images, "labels": self.labels}
        return arrays | {"predictions": self.predictions}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Reads a verdict that `save` wrote with its images.

        Args:
          folder: the folder that `save` got.

        Returns:
          The verdict, complete; `seconds` is rounded to milliseconds.

        Raises:
          ValueError: if the folder does not hold such a verdict.
        """
        return read_report(folder, "verdict", cls.__name__, cls._restored)

    @classmethod
    def _restored(cls, told: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        protocol = told["protocol"]
        return cls(
            **{name: protocol[name] for name in ("norm", "eps", "seed", "precision")},
            stages=tuple(protocol["stages"]),
            labels=arrays["labels"],
            masks={name: arrays[f"mask_{name}"] for name in told["after_stage"]},
            unconfirmed=told["unconfirmed"],
            adversarial_images=arrays["images"],
            predictions=arrays["predictions"],
            largest_norm=told["largest_norm"],
            checks=checks_of(told),
            nan_logits=told["nan_logits"],
            cost=told["cost"],
            seconds=told["seconds"],
            origin=told["provenance"],
        )

    def draw(self, path: str | pathlib.Path, *, name: str = "") -> None:
        """Draws the accuracy after each stage.

        Args:
          path: the PNG.
          name: of the network, for the title.
        """
        kind = f"fast verdict, {self.norm}, eps {self.eps:.6g}"
        title = f"{name}\n{kind}" if name else kind
        draw_cascade(pathlib.Path(path), self.masks, title=title)
