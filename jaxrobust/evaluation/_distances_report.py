"""Distances of the points of a data set from adversarial images: curves, areas, costs."""

import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from jax.typing import ArrayLike

from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._figure_curves import Curve, draw_curves
from jaxrobust.evaluation._intervals import Accuracy, accuracy
from jaxrobust.evaluation._optimality import optimality
from jaxrobust.evaluation._report_files import checks_of, read_report, write_report
from jaxrobust.evaluation._report_parts import check_lines, dataframe_of, html_of, short_repr
from jaxrobust.evaluation._results import provenance
from jaxrobust.inputs import as_number
from jaxrobust.typing import AnyNorm


@dataclass(frozen=True, eq=False, repr=False)
class Distances:
    """The result of `distances`: upper bounds of each point's distance from an adversarial image.

    `to_dataframe` has the columns `label`, `prediction` (of the nearest adversarial image),
    `clean`, `distance` (the smallest), `found_by`, and `distance ATTACK` for each attack.

    Attributes:
      norm: norm of the distances; l0 counts changed values.
      seed: the seed of all noise.
      attacks: each attack with its settings, in order, as plain JSON types.
      labels: `[n]`.
      clean: `[n]` bool, True where the image itself is classified correctly.
      distances: `{attack: [n]}`, 0 for clean errors, infinite where the attack found nothing.
      adversarial_images: `[n, h, w, c]`, the nearest; the clean image where nothing was found.
      predictions: `[n]` classes of `adversarial_images`.
      unconfirmed: `{attack: int}`, claimed successes that a separate forward pass did not confirm;
        they count as not found.
      checks: warnings with their measured values.
      nan_logits: `{"clean": int, "adversarial": int}`, images with NaN among their logits; they are
        misclassified.
      cost: `{attack: {"forwards", "backwards", "seconds"}}`; passes of single examples, as
        AttackBench counts them: one per example and pass, and `k - 1` backward passes for the
        gradients of all classes. Finished points, the clean pass and the confirmation do not count.
      seconds: the time of the whole evaluation, including compilation.
      origin: the provenance of loaded distances; `None` for those of this process.
    """

    norm: AnyNorm
    seed: int
    attacks: tuple[dict[str, Any], ...]
    labels: np.ndarray
    clean: np.ndarray
    distances: dict[str, np.ndarray]
    adversarial_images: np.ndarray
    predictions: np.ndarray
    unconfirmed: dict[str, int]
    checks: tuple[Check, ...]
    nan_logits: dict[str, int]
    cost: dict[str, dict[str, float]]
    seconds: float
    origin: dict[str, Any] | None = None

    @cached_property
    def best(self) -> np.ndarray:
        """`[n]` smallest distance from any attack."""
        return np.min(list(self.distances.values()), axis=0)

    @property
    def found_by(self) -> np.ndarray:
        """`[n]` the attack with the smallest distance; ties go to the first.

        "clean" for clean errors, "" where nothing was found.
        """
        names = np.array(list(self.distances))
        nearest = names[np.argmin(list(self.distances.values()), axis=0)]
        nearest = np.where(np.isfinite(self.best), nearest, "")
        return np.where(self.clean, nearest, "clean")

    @property
    def clean_accuracy(self) -> Accuracy:
        """Accuracy on the clean images."""
        return accuracy(self.clean)

    def robust_accuracy_at(self, eps: ArrayLike) -> np.ndarray:
        """The share of points for which no attack found an adversarial image within `eps`.

        Args:
          eps: radii in image units, of any shape.

        Returns:
          An upper bound of robust accuracy for each, of the same shape.

        Raises:
          ValueError: if a radius is negative or not a number.
        """
        return share_beyond(self.best, eps)

    def area(self, up_to: float | None = None) -> float:
        """The area under the curve of robust accuracy from eps = 0: the mean of clipped distances.

        Args:
          up_to: the largest eps; default: the largest distance that was found.

        Returns:
          The mean of the distances clipped at `up_to`, in the unit of eps.
        """
        if up_to is None:
            up_to = self.largest
        as_number(up_to, name="up_to", low=0, lead=())
        return float(np.minimum(self.best, up_to).mean())

    @property
    def largest(self) -> float:
        """The largest distance that was found; 0 if there is none."""
        return float(self.best[np.isfinite(self.best)].max(initial=0))

    @property
    def median(self) -> float:
        """Median of the smallest distances over all points, infinite if most have none."""
        return float(np.median(self.best))

    @property
    def mean(self) -> float:
        """Mean of the smallest distances over the points that have one; NaN if none has."""
        return _mean(self.best)

    def optimality(self, area: Literal["trapezoid", "exact"] = "trapezoid") -> dict[str, float]:
        """Each attack compared with the pointwise best of all, see `evaluation.optimality`.

        Args:
          area: "trapezoid", as AttackBench publishes it, or "exact".

        Returns:
          At most 1, by attack; NaN if a point has no distance at all.
        """
        pairs = self.distances.items()
        return {name: optimality(found, self.best, area=area) for name, found in pairs}

    @property
    def passes_per_point(self) -> dict[str, tuple[float, float]]:
        """Forward and backward passes of each attack, per point that was attacked."""
        count = max(1, int(self.clean.sum()))
        return {
            name: (cost["forwards"] / count, cost["backwards"] / count)
            for name, cost in self.cost.items()
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain JSON types."""
        return {
            "norm": self.norm,
            "seed": self.seed,
            "attacks": self._attacks(),
            "clean_accuracy": self.clean_accuracy._asdict(),
            "points": len(self.labels),
            "found": int(np.isfinite(self.best).sum()),
            "median": self.median,
            "mean": self.mean,
            "area": self.area(),
            "checks": [check._asdict() for check in self.checks],
            "nan_logits": self.nan_logits,
            "cost": self.cost,
            "distances": {name: found.tolist() for name, found in self.distances.items()},
            "seconds": round(self.seconds, 3),
            "provenance": self.origin or provenance(),
        }

    def _attacks(self) -> dict[str, dict[str, Any]]:
        """Numbers and settings of each attack."""
        published, exact = self.optimality(), self.optimality("exact")
        nearest = self.found_by
        settings = {attack["stage"]: attack for attack in self.attacks}
        return {
            name: {
                "settings": {k: v for k, v in settings[name].items() if k != "stage"},
                "found": int(np.isfinite(found).sum()),
                "median": float(np.median(found)),
                "mean": _mean(found),
                "nearest": int((nearest == name).sum()),
                "optimality": published[name],
                "optimality_exact_area": exact[name],
                "forwards_per_point": self.passes_per_point[name][0],
                "backwards_per_point": self.passes_per_point[name][1],
                "seconds": self.cost[name]["seconds"],
                "unconfirmed": self.unconfirmed[name],
            }
            for name, found in self.distances.items()
        }

    def __repr__(self) -> str:
        """One line with the evaluation and its result, without the arrays."""
        points, found = len(self.labels), int(np.isfinite(self.best).sum())
        return short_repr(
            self,
            f"{self.norm}, {points} points, clean {self.clean_accuracy.value:.1%}, median distance "
            f"{self.median:.4g}, found for {found}",
        )

    def _repr_html_(self) -> str:
        """The result as notebooks show it."""
        return html_of(self.text())

    def to_dataframe(self) -> Any:
        """Returns the points as a table with one row per point.

        Returns:
          A pandas DataFrame; the description of the class lists its columns.

        Raises:
          ValueError: if pandas is not installed.
        """
        columns = {"label": self.labels, "prediction": self.predictions, "clean": self.clean}
        columns |= {"distance": self.best, "found_by": self.found_by}
        return dataframe_of(
            columns | {f"distance {name}": found for name, found in self.distances.items()}
        )

    def text(self) -> str:
        """The result as text."""
        points, found = len(self.labels), int(np.isfinite(self.best).sum())
        lines = [
            f"Minimum-norm attacks: {self.norm}, {points} points, seed {self.seed}",
            f"clean accuracy     {self.clean_accuracy}",
            f"smallest distance  median {self.median:.6g}, mean {self.mean:.6g}, found for "
            f"{found} of {points}",
        ]
        for name, one in self._attacks().items():
            lines.append(
                f"  {name:<13} median {one['median']:.6g}, mean {one['mean']:.6g}, found for "
                f"{one['found']}, nearest at {one['nearest']}, optimality {one['optimality']:.4f} "
                f"(exact area {one['optimality_exact_area']:.4f}), "
                f"{one['forwards_per_point']:,.0f} forwards and "
                f"{one['backwards_per_point']:,.0f} backwards per point, {one['seconds']:.1f} s"
            )
        return "\n".join([*lines, *check_lines(self.checks, self.seconds)])

    def save(self, folder: str | os.PathLike[str], *, images: bool = True) -> list[pathlib.Path]:
        """Writes `distances.json`, `distances.txt` and, if wanted, `adversarial.npz`.

        Args:
          folder: created if missing.
          images: also write distances, predictions and nearest adversarial images, which `load`
            needs.

        Returns:
          The files that were written.
        """
        arrays = self._arrays() if images else None
        return write_report(folder, "distances", self.to_dict(), self.text(), arrays)

    def _arrays(self) -> dict[str, Any]:
        arrays: dict[str, Any] = {f"distance_{k}": v for k, v in self.distances.items()}
        arrays |= {"images": self.adversarial_images, "labels": self.labels}
        return arrays | {"predictions": self.predictions, "clean": self.clean}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Reads distances that `save` wrote with their images.

        Args:
          folder: the folder that `save` got.

        Returns:
          The result, complete; `seconds` is rounded to milliseconds.

        Raises:
          ValueError: if the folder does not hold such distances.
        """
        return read_report(folder, "distances", cls.__name__, cls._restored)

    @classmethod
    def _restored(cls, told: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        attacks = told["attacks"]
        return cls(
            norm=told["norm"],
            seed=told["seed"],
            attacks=tuple({"stage": name, **one["settings"]} for name, one in attacks.items()),
            labels=arrays["labels"],
            clean=arrays["clean"],
            distances={name: arrays[f"distance_{name}"] for name in attacks},
            adversarial_images=arrays["images"],
            predictions=arrays["predictions"],
            unconfirmed={name: one["unconfirmed"] for name, one in attacks.items()},
            checks=checks_of(told),
            nan_logits=told["nan_logits"],
            cost=told["cost"],
            seconds=told["seconds"],
            origin=told["provenance"],
        )

    def draw(self, path: str | pathlib.Path) -> None:
        """Draws the accuracy against eps under each attack and under all of them.

        Args:
          path: the PNG.
        """
        curves = {name: curve_beyond([found]) for name, found in self.distances.items()}
        draw_curves(
            pathlib.Path(path),
            {
                f"accuracy (%), {len(self.labels)} images": {
                    **curves,
                    "all": curve_beyond([self.best]),
                }
            },
            title=f"accuracy against {self.norm} eps under minimum-norm attacks",
            axis_label=axis_label(self.norm),
            steps=True,
        )


def share_beyond(distances: np.ndarray, eps: ArrayLike) -> np.ndarray:
    """The share of distances `[n]` above each radius."""
    as_number(eps, name="eps", low=0, infinite=True)
    radii = np.asarray(eps, np.float64)
    ordered = np.sort(distances)
    return 1 - np.searchsorted(ordered, radii, side="right") / len(ordered)


def curve_beyond(seeds: list[np.ndarray]) -> Curve:
    """The mean over seeds of the share of distances above eps, at all eps where it changes."""
    found = np.concatenate([[0.0], *seeds])
    places = np.unique(found[np.isfinite(found)])
    return Curve(list(places), list(np.mean([share_beyond(d, places) for d in seeds], axis=0)))


def axis_label(norm: str) -> str:
    """The radius with its unit."""
    return "changed values" if norm == "l0" else f"{norm} eps (image units)"


def _mean(distances: np.ndarray) -> float:
    found = distances[np.isfinite(distances)]
    return float(found.mean()) if len(found) else float("nan")
