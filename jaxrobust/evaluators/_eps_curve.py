"""Accuracy against eps."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jax import Array

from jaxrobust import spec, threats
from jaxrobust.evaluation import (
    PGD,
    Curve,
    Number,
    Row,
    Work,
    accuracy,
    bars,
    draw_curves,
    over_seeds,
)
from jaxrobust.evaluators._images import check_images, first_images
from jaxrobust.evaluators._settings import check_pgd, check_radius, pgd_text
from jaxrobust.inputs import InputError
from jaxrobust.losses import margin
from jaxrobust.typing import LogitsFn, Norm


@dataclass(frozen=True, kw_only=True)
class EpsCurve:
    """Accuracy against eps under PGD on the margin: cheap, and an upper bound of AutoAttack's.

    An image that fell at a smaller eps counts as fallen. Draws `eps_NORM.png`.

    Args:
      norm: "linf", "l2" or "l1".
      radii: increasing radii in image units; 0 is always added.
      steps: of the attack, of size 2.5 eps / steps.
      restarts: random starts.
      images: number of test images, the first ones; default all.

    Raises:
      ValueError: for an unknown norm, or radii that are none or do not rise.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.eps_curve(norm="linf", radii=(4 / 255, 8 / 255)).steps
      20
    """

    norm: Norm
    radii: tuple[spec.Number, ...]
    steps: int = 20
    restarts: int = 1
    images: int | None = None

    def __post_init__(self) -> None:
        if not self.radii:
            raise InputError("radii must be at least one radius, got none")
        for eps in self.radii:
            check_radius("radii", self.norm, eps)
        if any(a >= b for a, b in itertools.pairwise((0.0, *self.radii))):
            raise InputError(f"radii must be above 0 and rise, got {list(self.radii)}")
        check_pgd(self.steps, self.restarts, None)
        check_images(self.images)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images at every radius."""
        images, labels = first_images(dataset, self.images)
        radii = {f"margin_pgd, eps {float(eps)!r}": float(eps) for eps in self.radii}
        attacks = {
            name: PGD(
                threat=getattr(threats, self.norm)(np.float32(eps)),
                steps=self.steps,
                restarts=self.restarts,
                loss=margin,
            )
            for name, eps in radii.items()
        }
        result = work.evaluate(logits_fn, images, labels, attacks)
        left = result.masks["clean"]
        points = [{"eps": 0.0, **accuracy(left)._asdict()}]
        for name, eps in radii.items():
            left = left & result.masks[name]
            points.append({"eps": eps, **accuracy(left)._asdict()})
        title = f"accuracy against {self.norm} eps under {self._attack}"
        return Row(title, (), {"points": points, "checks": result.figures()["checks"]})

    @property
    def _attack(self) -> str:
        return f"margin PGD-{pgd_text(self)}"

    def draw(
        self, folder: pathlib.Path, rows: Mapping[str, Sequence[Row]], title: str
    ) -> list[pathlib.Path]:
        """A line per method."""
        label = f"accuracy under {self._attack} (%)\nat this and every smaller eps"
        label += f", {_total(rows)} images"
        path = folder / f"eps_{self.norm}.png"
        draw_curves(
            path,
            {label: {name: _curve(seeds) for name, seeds in rows.items()}},
            title=f"{title}: accuracy against eps, {self.norm}",
            axis_label=f"{self.norm} eps (image units)",
        )
        return [path]

    def caption(self, rows: Mapping[str, Sequence[Row]]) -> str:
        """What the figure shows."""
        shaded = bars(max(map(len, rows.values())))
        return (
            f"Accuracy against {self.norm} eps under {self._attack}, {_total(rows)} test images; "
            "an image that fell at a smaller eps counts as fallen, so a value may lie below the "
            f"table's under the same attack. Shaded: {shaded}. AutoAttack finds more."
        )


def _total(rows: Mapping[str, Sequence[Row]]) -> int:
    return next(iter(rows.values()))[0].detail["points"][0]["total"]


def _curve(seeds: Sequence[Row]) -> Curve:
    places = zip(*(row.detail["points"] for row in seeds), strict=True)
    found = [
        (point[0]["eps"], over_seeds([Number("", p["value"], p["low"], p["high"]) for p in point]))
        for point in places
    ]
    shares = ([getattr(n, name) for _, n in found] for name in ("value", "low", "high"))
    return Curve([eps for eps, _ in found], *shares)
