"""Certified radii of the smoothed network."""

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrobust import mixing, spec
from jaxrobust.evaluation import Curve, Number, Row, Work, accuracy, draw_curves
from jaxrobust.evaluators._images import check_images, first_images, suffix
from jaxrobust.evaluators._settings import check_columns, check_radius
from jaxrobust.inputs import InputError, as_count, as_number
from jaxrobust.typing import LogitsFn

NOISY_IMAGES = 2000  # of a forward pass in the sampling


@dataclass(frozen=True, kw_only=True)
class Certified:
    """Certified l_2 radii of the network smoothed by Gaussian noise, by sampling.

    They apply to the smoothed classifier, the most frequent class under noise. It needs no change
    of the network; one that was not trained with noise may lose clean accuracy by it. Draws
    `certified.png`.

    Args:
      sigma: standard deviation of the noise, in image units.
      samples: draws per image that bound the probabilities.
      selection: further draws per image, which choose the class.
      confidence: probability, for each image, with which its radius holds.
      images: number of test images, the first ones; default all.
      radii: l_2 radii in image units at which the table gives the certified accuracy.

    Raises:
      ValueError: for a number outside of its range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.certified(sigma=0.5).samples
      1000

    References:
      Cohen et al., 2019 (arXiv:1902.02918).
    """

    sigma: float = 0.25
    samples: int = 1000
    selection: int = 100
    confidence: float = 0.999
    images: int | None = None
    radii: tuple[spec.Number, ...] = ()

    def __post_init__(self) -> None:
        as_number(self.sigma, name="sigma", low=0, positive=True)
        for radius in self.radii:
            check_radius("radii", "l2", radius)
        check_columns("radii", self.radii)
        if not 0 < self.confidence < 1:
            raise InputError(f"confidence must be in (0, 1), got {self.confidence!r}")
        as_count(self.samples, name="samples")
        as_count(self.selection, name="selection")
        check_images(self.images)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Samples the classes under noise; an image whose class is wrong or unsure has radius 0."""
        images, labels = first_images(dataset, self.images)
        counts = [
            self._counts(work, logits_fn, images, jax.random.fold_in(key, draw), samples)
            for draw, samples in enumerate((self.selection, self.samples))
        ]
        bounds = mixing.smoothed_bounds(*counts, confidence=self.confidence)
        radius = mixing.certified_radius_smoothing(
            np.float32(bounds.lower), np.float32(bounds.upper), alpha=1.0, sigma=self.sigma
        )
        right = bounds.labels == labels
        radii = np.where(right, np.asarray(radius), 0.0)
        return Row(
            f"certified by randomized smoothing, sigma {self.sigma:g}",
            tuple(Number(self._column(r), *accuracy(radii > r)) for r in self.radii),
            {
                "smoothed_accuracy": accuracy(right)._asdict(),
                # Downwards: what is printed is certified too.
                "radii": np.sort(np.floor(radii.astype(np.float64) * 1e4) / 1e4).tolist(),
            },
        )

    def _column(self, radius: float) -> str:
        """As `bracket` names its own: the radius, what certifies, and on which images."""
        return (
            f"certified l2 {float(radius):.6g} by smoothing, sigma {self.sigma:g}"
            f"{suffix(self.images)}"
        )

    def _counts(
        self, work: Work, logits_fn: LogitsFn, images: np.ndarray, key: Array, samples: int
    ) -> np.ndarray:
        """Votes under noise; an image's noise is a function of its index, and of the draw."""

        def votes(keys: Array, images: Array) -> Array:
            draws = max(1, min(samples, NOISY_IMAGES // len(images)))
            return mixing.smoothed_counts(
                logits_fn, keys, images, sigma=self.sigma, samples=samples, batch_size=draws
            )

        return work.over(votes, key, images, what="certified", batch_size=100)

    def draw(
        self, folder: pathlib.Path, rows: Mapping[str, Sequence[Row]], title: str
    ) -> list[pathlib.Path]:
        """Certified accuracy against the l_2 radius, a line per method over all its seeds."""
        radii = {
            name: np.concatenate([row.detail["radii"] for row in seeds])
            for name, seeds in rows.items()
        }
        largest = max(float(found.max()) for found in radii.values())
        grid = np.linspace(0, 1.05 * largest or 1.0, 400).tolist()
        curves = {
            name: Curve(grid, [float((found > r).mean()) for r in grid])
            for name, found in radii.items()
        }
        path = folder / "certified.png"
        draw_curves(
            path,
            {"certified accuracy (%)": curves},
            title=f"{title}: certified by randomized smoothing\nsigma {self.sigma:g}, "
            f"{self.samples} draws, confidence {100 * self.confidence:g} % per image",
            axis_label="certified l_2 radius (image units)",
            steps=True,
        )
        return [path]

    def caption(self, rows: Mapping[str, Sequence[Row]]) -> str:
        """What the figure shows."""
        count = len(next(iter(rows.values()))[0].detail["radii"])
        return (
            f"Certified accuracy against the l_2 radius, {count} test images, of each member "
            f"smoothed by Gaussian noise of sigma {self.sigma:g}: {self.selection} draws choose "
            f"the class, {self.samples} others bound its probability (Clopper-Pearson, confidence "
            f"{100 * self.confidence:g} % for each image). It speaks of the smoothed classifier, "
            "not of the member itself."
        )
