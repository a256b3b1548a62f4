"""The result of an AutoAttack evaluation, and exactly what was run."""

import os
import pathlib
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._figures import draw_cascade
from jaxrobust.evaluation._intervals import Accuracy, accuracy
from jaxrobust.evaluation._model_card import model_card
from jaxrobust.evaluation._report_files import checks_of, read_report, write_report
from jaxrobust.evaluation._report_parts import check_lines, dataframe_of, html_of, short_repr
from jaxrobust.evaluation._results import provenance, write_json
from jaxrobust.reasons import one_line
from jaxrobust.typing import Norm


@dataclass(frozen=True, eq=False, repr=False)
class Report:
    """The result of `autoattack`.

    `to_dataframe` has the columns `label`, `prediction` (of the adversarial image), `clean` and
    each attack (True where still robust after it), and `distance ATTACK` for attacks that measure
    distances.

    Attributes:
      norm: the norm of the ball.
      eps: radius in image units, as given.
      version: "standard", "plus", "rand" or "custom".
      seed: the seed of all noise.
      attacks: each attack that was run with its settings, in order, as plain JSON types.
      deviations: where this differs from the published AutoAttack; empty if it does not.
      individual: whether every attack ran on all correctly classified points.
      labels: `[n]`.
      masks: `{"clean": [n], attack: [n]}`, True where still robust after that attack and all
        before it.
      individual_masks: `{attack: [n]}` of each attack alone, if `individual`.
      adversarial_images: `[n, h, w, c]`; the clean image where nothing fooled the model.
      predictions: `[n]` classes of `adversarial_images`.
      distances: `{attack: [n]}` smallest perturbation found by FAB; NaN where not attacked,
        infinite where none was found.
      largest_norm: the largest norm of all returned perturbations.
      checks: warnings with their measured values.
      nan_logits: `{"clean": int, "adversarial": int}`, images with NaN among their logits; they are
        misclassified.
      cost: `{attack: {"forwards", "backwards", "seconds"}}`; passes of single examples.
      seconds: the time of the whole evaluation, including compilation.
      origin: the provenance of a loaded report; `None` for a report of this process.
    """

    norm: Norm
    eps: float
    version: str
    seed: int
    attacks: tuple[dict[str, Any], ...]
    deviations: tuple[str, ...]
    individual: bool
    labels: np.ndarray
    masks: dict[str, np.ndarray]
    individual_masks: dict[str, np.ndarray]
    adversarial_images: np.ndarray
    predictions: np.ndarray
    distances: dict[str, np.ndarray]
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
        """The share of all points that no attack fooled."""
        return accuracy(next(reversed(self.masks.values())))

    @property
    def name(self) -> str:
        """The version, and whether it was changed: "AutoAttack standard, with deviations"."""
        return f"AutoAttack {self.version}" + (", with deviations" if self.deviations else "")

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        return short_repr(
            self,
            f"{self.name}, {self.norm} eps {self.eps:.6g}, {len(self.labels)} points, "
            f"clean {self.clean_accuracy.value:.1%}, robust {self.robust_accuracy.value:.1%}",
        )

    def _repr_html_(self) -> str:
        """The report as notebooks show it."""
        return html_of(self.text())

    def to_dataframe(self) -> Any:
        """Returns the points as a table with one row per point.

        Returns:
          A pandas DataFrame; the description of the class lists its columns.

        Raises:
          ValueError: if pandas is not installed.
        """
        columns = {"label": self.labels, "prediction": self.predictions, **self.masks}
        return dataframe_of(columns | {f"distance {name}": d for name, d in self.distances.items()})

    @property
    def protocol(self) -> dict[str, Any]:
        """What was run, as plain JSON types."""
        return {
            "version": self.version,
            "standard_autoattack": not self.deviations,
            "deviations": list(self.deviations),
            "norm": self.norm,
            "eps": self.eps,
            "eps_float32": float(np.float32(self.eps)),
            "seed": self.seed,
            "individual": self.individual,
            "precision": "float32",
            "attacks": list(self.attacks),
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON types."""
        return {
            "protocol": self.protocol,
            "clean_accuracy": self.clean_accuracy._asdict(),
            "robust_accuracy": self.robust_accuracy._asdict(),
            "after_attack": {k: accuracy(v)._asdict() for k, v in self.masks.items()},
            "individual": {k: accuracy(v)._asdict() for k, v in self.individual_masks.items()},
            "fab_distances": {k: _distance_figures(v) for k, v in self.distances.items()},
            "largest_norm": self.largest_norm,
            "checks": [check._asdict() for check in self.checks],
            "nan_logits": self.nan_logits,
            "cost": self.cost,
            "seconds": round(self.seconds, 3),
            "points": {k: v.astype(int).tolist() for k, v in self.masks.items()},
            "provenance": self.origin or provenance(),
        }

    def text(self) -> str:
        """The report as text."""
        kind = f"AutoAttack {self.version}"
        if self.deviations:
            kind = f"NOT the standard AutoAttack (version {self.version}, with deviations)"
        lines = [
            f"{kind}: {self.norm}, eps {self.eps:.6g} (image units), "
            f"attack seed {self.seed}, {len(self.labels)} points",
            *(f"  deviation: {text}" for text in self.deviations),
            f"clean accuracy   {self.clean_accuracy}",
            f"robust accuracy  {self.robust_accuracy}",
        ]
        for name, mask in list(self.masks.items())[1:]:
            cost = self.cost[name]
            alone = self.individual_masks.get(name)
            by_itself = "" if alone is None else f", by itself {int(alone.sum())}"
            lines.append(
                f"  after {name:<9} {int(mask.sum()):>6} robust{by_itself}  "
                f"({cost['forwards']:,.0f} forwards, {cost['backwards']:,.0f} backwards, "
                f"{cost['seconds']:.1f} s)"
            )
        for name, distances in self.distances.items():
            figures = _distance_figures(distances)
            if figures["attacked"]:
                nearest = "none found"
                if figures["found"]:
                    nearest = f"mean {figures['mean']:.4g}, median {figures['median']:.4g}"
                lines.append(
                    f"  {name} distances of {figures['attacked']} attacked points: {nearest}"
                )
        return "\n".join([*lines, *check_lines(self.checks, self.seconds)])

    def model_card(self, **fields: Any) -> dict[str, Any]:
        """The result in the fields of RobustBench's model cards.

        Args:
          **fields: as for `evaluation.model_card`.

        Returns:
          The card.
        """
        return model_card(
            norm=self.norm,
            eps=self.eps,
            clean=self.clean_accuracy.value,
            robust=self.robust_accuracy.value,
            total=len(self.labels),
            deviations=self.deviations,
            unreliable=any(not check.passed for check in self.checks),
            **fields,
        )

    def save(
        self,
        folder: str | os.PathLike[str],
        *,
        picture: bool = True,
        card: Mapping[str, Any] | None = None,
    ) -> list[pathlib.Path]:
        """Writes `report.json`, `report.txt`, `adversarial.npz`, `model_card.json`, `cascade.png`.

        Args:
          folder: created if missing.
          picture: also draw `cascade.png`; a failure to draw only warns.
          card: fields of the model card, such as `name` and `dataset`.

        Returns:
          The files that were written.
        """
        folder = pathlib.Path(folder).expanduser()
        paths = write_report(folder, "report", self.to_dict(), self.text(), self._arrays())
        write_json(folder / "model_card.json", self.model_card(**(card or {})))
        paths.append(folder / "model_card.json")
        if picture:
            try:
                self.draw(folder / "cascade.png")
                paths.append(folder / "cascade.png")
            except Exception as error:  # a picture is never worth more than the numbers
                warnings.warn(f"cascade.png is not drawn: {one_line(error)}", stacklevel=2)
        return paths

    def _arrays(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {f"mask_{name}": mask for name, mask in self.masks.items()}
        arrays |= {f"individual_{name}": mask for name, mask in self.individual_masks.items()}
        arrays |= {f"distance_{name}": values for name, values in self.distances.items()}
        arrays |= {"images": self.adversarial_images, "labels": self.labels}
        return arrays | {"predictions": self.predictions}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Reads a report that `save` wrote.

        Args:
          folder: the folder that `save` got.

        Returns:
          The report, complete; `seconds` is rounded to milliseconds.

        Raises:
          ValueError: if the folder does not hold such a report.
        """
        return read_report(folder, "report", cls.__name__, cls._restored)

    @classmethod
    def _restored(cls, told: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        protocol = told["protocol"]
        individual, distances = told["individual"], told["fab_distances"]
        return cls(
            **{name: protocol[name] for name in ("norm", "eps", "version", "seed", "individual")},
            attacks=tuple(protocol["attacks"]),
            deviations=tuple(protocol["deviations"]),
            labels=arrays["labels"],
            masks={name: arrays[f"mask_{name}"] for name in told["after_attack"]},
            individual_masks={name: arrays[f"individual_{name}"] for name in individual},
            adversarial_images=arrays["images"],
            predictions=arrays["predictions"],
            distances={name: arrays[f"distance_{name}"] for name in distances},
            largest_norm=told["largest_norm"],
            checks=checks_of(told),
            nan_logits=told["nan_logits"],
            cost=told["cost"],
            seconds=told["seconds"],
            origin=told["provenance"],
        )

    def draw(self, path: str | pathlib.Path, *, name: str = "") -> None:
        """Draws the accuracy after each attack.

        Args:
          path: the PNG.
          name: of the network, for the title.
        """
        kind = f"{self.name}, {self.norm}, eps {self.eps:.6g}"
        title = f"{name}\n{kind}" if name else kind
        draw_cascade(pathlib.Path(path), self.masks, title=title)


def _distance_figures(distances: np.ndarray) -> dict[str, Any]:
    attacked = distances[~np.isnan(distances)]
    found = attacked[np.isfinite(attacked)]
    return {
        "attacked": len(attacked),
        "found": len(found),
        "mean": float(found.mean()) if len(found) else None,
        "median": float(np.median(attacked)) if len(found) else None,
    }
