"""Certified and attacked accuracy against eps: the band that robust accuracy lies in."""

import itertools
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jax import Array

from jaxrobust import spec, threats
from jaxrobust.attacks import APGD, PGD
from jaxrobust.evaluation import (
    Bracket,
    ContradictionError,
    Curve,
    Number,
    Row,
    Work,
    accuracy,
    bracket,
    draw_curves,
)
from jaxrobust.evaluators._certified import Certified
from jaxrobust.evaluators._images import check_images, first_images, suffix
from jaxrobust.evaluators._settings import check_columns, check_radius, kept_in
from jaxrobust.inputs import InputError, as_choice, as_count
from jaxrobust.losses import margin
from jaxrobust.typing import LogitsFn, Norm

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown")


@dataclass(frozen=True, kw_only=True)
class Brackets:
    """Certified and attacked accuracy at several radii: robust accuracy lies between the two.

    Every point is certified by bounds, falsified by an attack, or open. A point that is certified
    at a radius is certified at smaller ones, one that is falsified is so at larger ones. Draws
    `bracket_NORM.png`. Finished stages are kept in `bracket/` of the run's folder and reused
    after an interruption.

    Args:
      norm: "linf", "l2" or "l1".
      radii: increasing radii in image units.
      cheap: methods of bounds before the attacks: "ibp", "crown-ibp", "crown", "alpha-crown".
      costly: methods after the attacks, on the points that are still open.
      steps: of APGD on the cross-entropy, and of PGD on the margin.
      images: number of test images, the first ones; default all.
      bound_batch_size: images that are bounded at once.
      smoothing: the evaluator `certified`, under l_2: the row then also has the accuracy that
        randomised smoothing certifies at the same radii, on the same images. It is that of the
        smoothed classifier, which is another one than the network in the band.

    Raises:
      ValueError: for an unknown norm or method, radii that are none or do not rise, or smoothing
        under another norm than l_2 or with radii or images of its own.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.bracket(norm="linf", radii=(1 / 255, 2 / 255), images=100).costly
      ('crown',)
    """

    norm: Norm
    radii: tuple[spec.Number, ...]
    cheap: tuple[str, ...] = ("ibp", "crown-ibp")
    costly: tuple[str, ...] = ("crown",)
    steps: int = 50
    images: int | None = None
    bound_batch_size: int = 16
    smoothing: Any = None

    def __post_init__(self) -> None:
        if not self.radii:
            raise InputError("radii must be at least one radius, got none")
        for eps in self.radii:
            check_radius("radii", self.norm, eps)
        if any(a >= b for a, b in itertools.pairwise((0.0, *self.radii))):
            raise InputError(f"radii must be above 0 and rise, got {list(self.radii)}")
        check_columns("radii", self.radii)
        for name in ("cheap", "costly"):
            for method in getattr(self, name):
                as_choice(method, name=name, choices=METHODS)
        as_count(self.steps, name="steps")
        as_count(self.bound_batch_size, name="bound_batch_size")
        check_images(self.images)
        self._check_smoothing()

    def _check_smoothing(self) -> None:
        if self.smoothing is None:
            return
        if not isinstance(self.smoothing, Certified):
            raise InputError(f"smoothing must be the evaluator certified, got {self.smoothing!r}")
        if self.norm != "l2":
            raise InputError(f"smoothing certifies l2 radii: norm must be l2, got {self.norm!r}")
        if self.smoothing.radii or self.smoothing.images is not None:
            raise InputError(
                "smoothing must have no radii and images of its own, because those of the bracket "
                f"are taken; got {list(self.smoothing.radii)} and {self.smoothing.images}"
            )

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Brackets the test images at every radius."""
        images, labels = first_images(dataset, self.images)
        found = [self._at(logits_fn, images, labels, float(eps), work) for eps in self.radii]
        certified, falsified = _joined(found)
        numbers, points = [], []
        for eps, low, broken, one in zip(self.radii, certified, falsified, found, strict=True):
            lower, upper = accuracy(low), accuracy(~broken)
            end = f"{self.norm} {float(eps):.6g}{self._end}"
            numbers += [
                Number(f"certified {end}", *lower),
                Number(f"attacked {end}, {self._attacks}", *upper),
            ]
            sides = {"certified": lower._asdict(), "attacked": upper._asdict()}
            undecided = int((~(low | broken)).sum())
            points.append({"eps": float(eps), **sides, "open": undecided, **_details(one)})
        title = f"certified and attacked accuracy against {self.norm} eps"
        detail: dict[str, Any] = {"points": points}
        if self.smoothing is not None:
            asked = replace(self.smoothing, radii=self.radii, images=self.images)
            smoothed = work.row(asked)
            numbers += smoothed.numbers
            detail["smoothing"] = {
                "sigma": asked.sigma,
                "certified": [number.value for number in smoothed.numbers],
                **smoothed.detail,
            }
        return Row(title, tuple(numbers), detail)

    def _at(
        self, logits_fn: LogitsFn, images: np.ndarray, labels: np.ndarray, eps: float, work: Work
    ) -> Bracket:
        threat = getattr(threats, self.norm)(np.float32(eps))
        done: dict[str, int] = {}

        def advance(stage: str, examples: int) -> None:
            done[stage] = done.get(stage, 0) + examples
            work.progress(f"eps {eps:.6g}: {stage}", done[stage], len(labels))

        attacks: dict[str, Any] = {
            "apgd": APGD(threat=threat, steps=self.steps),
            "margin_pgd": PGD(threat=threat, steps=self.steps, loss=margin),
        }
        folder = kept_in(work, "bracket", self, without=("radii", "smoothing", "bound_batch_size"))
        return bracket(
            logits_fn, images, labels, threat=threat, attacks=attacks, seed=work.seed,
            cheap=self.cheap, costly=self.costly,  # type: ignore[arg-type]
            batch_size=work.batch_size, bound_batch_size=self.bound_batch_size, advance=advance,
            folder=None if folder is None else folder / f"eps{eps:.6g}_seed{work.seed}",
        )  # fmt: skip

    @property
    def _attacks(self) -> str:
        return f"APGD-{self.steps} and margin PGD-{self.steps}"

    @property
    def _end(self) -> str:
        return f" by {self._methods}{suffix(self.images)}"

    @property
    def _methods(self) -> str:
        return ", ".join((*self.cheap, *self.costly))

    def draw(
        self, folder: pathlib.Path, rows: Mapping[str, Sequence[Row]], title: str
    ) -> list[pathlib.Path]:
        """A band per method, first seed: its lower edge is certified, its upper edge attacked."""
        curves = {}
        for name, seeds in rows.items():
            curves[name] = band = _band(seeds[0])
            if self.smoothing is not None:
                certified = seeds[0].detail["smoothing"]["certified"]
                curves[f"{name}, smoothed"] = Curve(band.x, certified)
        total = next(iter(rows.values()))[0].detail["points"][0]["certified"]["total"]
        path = folder / f"bracket_{self.norm}.png"
        label = f"line: certified accuracy (%)\nupper edge: under attack, {total} images"
        draw_curves(
            path,
            {label: curves},
            title=f"{title}: certified <= robust <= attacked, {self.norm}, first seed",
            axis_label=f"{self.norm} eps (image units)",
        )
        return [path]

    def caption(self, rows: Mapping[str, Sequence[Row]]) -> str:
        """What the figure shows."""
        total = next(iter(rows.values()))[0].detail["points"][0]["certified"]["total"]
        return (
            f"Robust accuracy against {self.norm} eps lies in the shaded band, on {total} test "
            f"images of the first seed: the line is certified by {self._methods}, the upper edge "
            f"is the accuracy under {self._attacks}. Between the two, points are neither proved "
            "nor broken. The bounds are computed in float32, with a slack above its rounding."
            + self._smoothed_caption
        )

    @property
    def _smoothed_caption(self) -> str:
        if self.smoothing is None:
            return ""
        return (
            f" Lines without a band are certified by randomised smoothing, sigma "
            f"{self.smoothing.sigma:g}, for the smoothed classifier."
        )


def _joined(found: Sequence[Bracket]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Certified and falsified points at each radius, with what follows from the other radii.

    Raises:
      ContradictionError: if a point is certified at a radius, and falsified at one not larger.
    """
    falsified = list(itertools.accumulate((one.falsified for one in found), np.logical_or))
    smaller = itertools.accumulate((one.certified for one in reversed(found)), np.logical_or)
    certified = list(smaller)[::-1]
    for low, broken in zip(certified, falsified, strict=True):
        if (low & broken).any():
            both = np.flatnonzero(low & broken)
            raise ContradictionError(
                f"{len(both)} points are certified at a radius and falsified at one that is not "
                f"larger, the first of them number {both[0]}"
            )
    return certified, falsified


def _details(one: Bracket) -> dict[str, Any]:
    figures = one.figures()
    return {name: figures[name] for name in ("decided_by", "slack")}


def _band(row: Row) -> Curve:
    points = row.detail["points"]
    low, high = ([p[side]["value"] for p in points] for side in ("certified", "attacked"))
    return Curve([p["eps"] for p in points], low, low, high)
