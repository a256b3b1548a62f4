"""The state of an ensemble: which points are still robust, and which images fooled the others."""

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrobust.evaluation._checks import AttackResultError
from jaxrobust.evaluation._clean import forward
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._protocol import WorkItem
from jaxrobust.evaluation._work import Points, Programs


@dataclass
class Ensemble:
    """The evaluation in progress; `take` records each finished work item."""

    programs: Programs
    once: Compiled  # `clean_batch` of a deterministic network, or of a randomised one's one draw
    images: np.ndarray
    labels: np.ndarray
    order: np.ndarray  # classes by falling clean logits
    seed: int
    individual: bool
    shapes: list[int]
    clean: np.ndarray
    adversarial: np.ndarray
    predictions: np.ndarray
    robust: dict[str, np.ndarray] = field(default_factory=dict)  # after each attack
    alone: dict[str, np.ndarray] = field(default_factory=dict)  # each attack by itself
    distances: dict[str, np.ndarray] = field(default_factory=dict)
    cost: dict[str, dict[str, float]] = field(default_factory=dict)
    unconfirmed: dict[str, int] = field(default_factory=dict)  # claims that did not hold
    largest_norm: float = 0.0
    nan_logits: dict[str, int] = field(default_factory=dict)

    def still_robust(self) -> np.ndarray:
        """`[n]` bool, robust to all attacks so far."""
        return next(reversed(self.robust.values())) if self.robust else self.clean

    def pool(self, item: WorkItem) -> np.ndarray:
        """The indices that an item attacks, in data-set order."""
        alone = self.alone.get(item.name, self.clean)
        return np.flatnonzero(alone if self.individual else self.still_robust())

    def points(self, item: WorkItem, indices: np.ndarray) -> Points:
        """The points as the item needs them; targets are ranked by the clean logits."""
        targets = (self.order[indices, item.rank - 1],) if item.rank else ()
        return Points(indices.astype(np.int32), self.images[indices], self.labels[indices], targets)

    def take(self, item: WorkItem, found: dict[str, Any]) -> None:
        """Records a finished item: fooled points, their images, distances and costs."""
        name, indices = item.name, found["indices"]
        fooled = indices[found["fooled"]]
        before = self.still_robust()
        alone = self.alone.setdefault(name, self.clean.copy())
        alone[fooled] = False
        new = fooled[before[fooled]]
        rows = np.isin(fooled, new)
        self.adversarial[new] = found["images"][rows]
        self.predictions[new] = found["predictions"][rows]
        after = self.robust.pop(name, before).copy()
        after[fooled] = False
        self.robust[name] = after
        if getattr(item.attack, "distances", False):
            nothing = np.full(len(self.labels), np.nan, np.float32)
            nearest = self.distances.setdefault(name, nothing)
            nearest[indices] = np.fmin(nearest[indices], found["distance"])
        cost = self.cost.setdefault(name, {"forwards": 0, "backwards": 0, "seconds": 0.0})
        for key in cost:
            cost[key] += float(found[key])
        claims = int(found.get("unconfirmed", 0))  # missing in items of earlier versions
        self.unconfirmed[name] = self.unconfirmed.get(name, 0) + claims
        self.largest_norm = max(self.largest_norm, float(found["largest_norm"]))

    def confirm(self) -> None:
        """Final confirmation: all images are classified once more, in other batches.

        Raises:
          AttackResultError: if a verdict is reversed by more than rounding.
        """
        logits, wrong, predictions = forward(self.once, self.adversarial, self.labels, self.shapes)
        self.nan_logits["adversarial"] = int((self.clean & (predictions < 0)).sum())
        rows = np.flatnonzero(self.clean & ~self.still_robust() & ~wrong)
        label_logits = logits[rows, self.labels[rows]]
        others = logits[rows]
        others[np.arange(len(rows)), self.labels[rows]] = -np.inf
        lead = label_logits - others.max(-1, initial=-np.inf)
        if (lead > 1e-4 * np.maximum(np.abs(label_logits), 1)).any():
            raise AttackResultError(
                f"{len(rows)} points that an attack fooled are classified correctly in another "
                f"forward pass, by up to {lead.max():.3g}: is the model deterministic?"
            )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OneDraw:
    """A randomised model with one draw of its noise for each image of the data set."""

    function: Any
    key: Array

    def __call__(self, images: Array, indices: Array) -> Array:
        """Logits `[b, k]` of the images with these indices in the data set."""
        return self.function(images, jax.vmap(jax.random.fold_in, (None, 0))(self.key, indices))
