"""Rotations and shifts: the worst of a grid, and a random one."""

from dataclasses import dataclass
from typing import Any

from jax import Array

from jaxrobust import threats
from jaxrobust.evaluation import Number, RandomTransform, Row, Work
from jaxrobust.evaluation import SpatialGrid as GridSearch
from jaxrobust.evaluators._images import check_images, first_images, suffix
from jaxrobust.evaluators._settings import check_grid
from jaxrobust.inputs import InputError, as_number
from jaxrobust.typing import LogitsFn


@dataclass(frozen=True, kw_only=True)
class SpatialGrid:
    """The worst rotation and shift of a grid, and a random one: the average case.

    Args:
      max_degrees: largest rotation.
      max_shift_px: largest shift in pixels.
      counts: numbers of horizontal shifts, vertical shifts and angles in the grid.
      images: number of test images, the first ones; default all.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.spatial_grid(max_degrees=30.0).counts
      (5, 5, 31)

    References:
      Engstrom et al., 2019 (arXiv:1712.02779).
    """

    max_degrees: float = 0.0
    max_shift_px: float = 0.0
    counts: tuple[int, int, int] = (5, 5, 31)
    images: int | None = None

    def __post_init__(self) -> None:
        as_number(self.max_degrees, name="max_degrees", low=0, high=180)
        as_number(self.max_shift_px, name="max_shift_px", low=0)
        if not self.max_degrees and not self.max_shift_px:
            raise InputError("max_degrees or max_shift_px must be above 0, got 0 for both")
        check_grid("counts", self.counts)
        check_images(self.images)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Transforms the test images."""
        threat = threats.spatial(self.max_degrees, self.max_shift_px)
        attacks = {
            "spatial grid": GridSearch(threat=threat, counts=self.counts),
            "random transform": RandomTransform(threat=threat),
        }
        images, labels = first_images(dataset, self.images)
        result = work.evaluate(logits_fn, images, labels, attacks)
        name = f"{self.max_degrees:g} degrees, {self.max_shift_px:g} px"
        end = f" ({name})" + suffix(self.images)
        return Row(
            f"worst point of a grid of rotations and shifts, {name}{suffix(self.images)}",
            (
                Number("clean", *result.clean),
                *(Number(f"{k}{end}", *v) for k, v in result.robust.items()),
            ),
            {"checks": result.figures()["checks"]},
        )
