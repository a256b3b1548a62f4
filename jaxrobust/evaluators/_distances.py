"""Robust accuracy at every radius, from distances to the nearest adversarial images."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jax import Array

from jaxrobust import evaluation, spec
from jaxrobust.evaluation import (
    Curve,
    Number,
    Row,
    Work,
    accuracy,
    draw_curves,
    minimum_norm_attacks,
)
from jaxrobust.evaluators._images import check_images, first_images, suffix
from jaxrobust.evaluators._settings import check_columns, check_radius, kept_in, seed_text
from jaxrobust.inputs import as_number, as_seed
from jaxrobust.typing import AnyNorm, LogitsFn


@dataclass(frozen=True, kw_only=True)
class Distances:
    """How far test images are from adversarial ones, under an ensemble of minimum-norm attacks.

    One run has the robust accuracy at every radius, see `evaluation.distances`. Finished attacks
    are kept in `distances/` of the run's folder and reused after an interruption;
    `distances.json`, `distances.txt`, `adversarial.npz` and `curve.png` are there too. Draws
    `distances_NORM.png`.

    Args:
      norm: "linf", "l2", "l1", or "l0", which counts changed values.
      attacks: names of minimum-norm attacks; default: those of `evaluation.minimum_norm_attacks`.
      settings: of the attacks, such as `{"steps": 100}`; each goes to the attacks that have it.
      radii: radii in image units, for which tables get a column.
      images: number of test images, the first ones; default all.
      seed: of all noise.

    Raises:
      ValueError: for an attack that does not take the norm, a setting that none of them has, or an
        argument that is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.distances(norm="l2", attacks=("ddn",), settings={"steps": 100}).norm
      'l2'
    """

    norm: AnyNorm
    attacks: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    radii: tuple[spec.Number, ...] = ()
    images: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        self._bound()
        for eps in self.radii:
            if self.norm == "l0":
                as_number(eps, name="radii", low=0)
            else:
                check_radius("radii", self.norm, eps)
        check_columns("radii", self.radii)
        check_images(self.images)
        as_seed(self.seed)

    def _bound(self) -> dict[str, Any]:
        return minimum_norm_attacks(self.norm, attacks=self.attacks, **self.settings)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images; all noise comes from the evaluator's own seed."""
        folder = kept_in(work, "distances", self, without=("radii",))
        found = evaluation.distances(
            logits_fn,
            *first_images(dataset, self.images),
            norm=self.norm,
            attacks=self._bound(),
            seed=self.seed,
            batch_size=work.autoattack_batch_size,
            folder=None if folder is None else folder / "items",
            progress=work.progress,
        )
        work.say(found.text())
        if folder is not None:
            if work.write(lambda: found.save(folder)):
                work.say(f"distances: {folder}")
            work.draw(folder / "curve.png", lambda path, _: found.draw(path), of=lambda: None)
        return self._row(found)

    def _row(self, found: evaluation.Distances) -> Row:
        numbers = [
            Number(f"{self._under} {float(eps):.6g}{self._end}", *accuracy(found.best > float(eps)))
            for eps in self.radii
        ]
        detail = found.to_dict()
        near = np.sort(found.best[np.isfinite(found.best)])
        kept = ("attacks", "points", "median", "mean", "area")
        return Row(
            f"distances, {self._under}{self._end}",
            (Number("clean", *found.clean_accuracy), *numbers),
            {
                **{name: detail[name] for name in kept},
                "smallest": [float(f"{distance:.7g}") for distance in near],
                "checks": [check._asdict() for check in found.checks if not check.passed],
            },
            {"attacks": found.cost},
        )

    @property
    def _under(self) -> str:
        words = [*self._bound(), *(f"{name} {value}" for name, value in self.settings.items())]
        return f"{', '.join(words)}: {self.norm}"

    @property
    def _end(self) -> str:
        return f"{suffix(self.images)}{seed_text(self.seed)}"

    def draw(
        self, folder: pathlib.Path, rows: Mapping[str, Sequence[Row]], title: str
    ) -> list[pathlib.Path]:
        """A line per method, the mean over its seeds."""
        path = folder / f"distances_{self.norm}.png"
        label = f"accuracy (%), {_total(rows)} images\nunder {', '.join(self._bound())}"
        unit = "changed values" if self.norm == "l0" else f"{self.norm} eps (image units)"
        draw_curves(
            path,
            {label: {name: _curve(seeds) for name, seeds in rows.items()}},
            title=f"{title}: accuracy against {self.norm} eps",
            axis_label=unit,
            steps=True,
        )
        return [path]

    def caption(self, rows: Mapping[str, Sequence[Row]]) -> str:
        """What the figure shows."""
        seeds = max(map(len, rows.values()))
        mean = f", mean of {seeds} seeds" if seeds > 1 else ""
        return (
            f"Accuracy against {self.norm} eps: the share of {_total(rows)} test images without an "
            f"adversarial image within eps, found by {', '.join(self._bound())}{mean}. One run of "
            "minimum-norm attacks has all radii; AutoAttack, at one radius, may find more."
        )


def _total(rows: Mapping[str, Sequence[Row]]) -> int:
    return next(iter(rows.values()))[0].detail["points"]


def _curve(seeds: Sequence[Row]) -> Curve:
    """The mean over seeds of the share beyond eps, at all places where it changes."""
    found = [np.array(row.detail["smallest"], np.float64) for row in seeds]
    places = np.unique(np.concatenate([[0.0], *found]))
    shares = [
        1 - np.searchsorted(near, places, side="right") / row.detail["points"]
        for near, row in zip(found, seeds, strict=True)
    ]
    return Curve(list(places), list(np.mean(shares, axis=0)))
