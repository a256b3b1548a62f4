"""PGD on cross-entropy and on the margin."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax import Array

from jaxrobust import threats
from jaxrobust.evaluation import (
    EvaluationResult,
    Number,
    Row,
    Work,
    draw_adversarial_images,
    packed_right,
    pgd_attacks,
)
from jaxrobust.evaluation import SpatialGrid as GridSearch
from jaxrobust.evaluators._images import check_images, counts_by_class, first_images, suffix
from jaxrobust.evaluators._settings import check_grid, check_pgd, pgd_text
from jaxrobust.inputs import InputError
from jaxrobust.typing import LogitsFn

SHOWN = 8  # images of a picture


@dataclass(frozen=True, kw_only=True)
class Pgd:
    """PGD on cross-entropy and on the margin, each alone and the worst of both.

    For a threat of rotations and shifts it also searches a grid, because gradients with respect to
    angles say little beyond their neighbourhood. Draws `adversarial.png`.

    Args:
      steps: number of steps.
      step_size: in the threat's units; default `threats.default_step`.
      restarts: random starts of each attack.
      grid: points of the grid to the right, down, and of the angle.
      images: number of test images, the first ones; default all.
      threat: the set to stay in; default the run's own.

    Raises:
      ValueError: if an argument is out of range.

    Example:
      >>> from jaxrobust import evaluators
      >>> evaluators.pgd(steps=40).restarts
      1

    References:
      Madry et al., 2018 (arXiv:1706.06083).
    """

    steps: int = 20
    step_size: float | None = None
    restarts: int = 1
    grid: tuple[int, int, int] = (5, 5, 31)
    images: int | None = None
    threat: Any = None

    def __post_init__(self) -> None:
        check_pgd(self.steps, self.restarts, self.step_size)
        check_grid("grid", self.grid)
        check_images(self.images)

    def __call__(self, logits_fn: LogitsFn, dataset: Any, *, key: Array, work: Work) -> Row:
        """Attacks the test images."""
        threat, words = self._threat(work)
        images, labels = first_images(dataset, self.images)
        attacks = self._attacks(threat)
        folder = work.folder if self.threat is None else None  # one picture, of the run's threat
        result = work.evaluate(
            logits_fn, images, labels, attacks, keep_images=None if folder else False
        )
        title = f"{self._text('margin ')}\n{words}"
        names = getattr(dataset, "class_names", ())
        if folder is not None:
            work.draw(
                folder / "adversarial.png",
                lambda path, content: draw_adversarial_images(
                    path, *content, title=f"{work.title}: {title} (image units)", class_names=names
                ),
                of=lambda: self._examples(work, logits_fn, images, labels, attacks, result),
            )
        masks = result.masks
        robust = np.logical_and.reduce(list(masks.values()))
        return Row(
            f"{self._text()} (CE and margin){' and grid' * ('spatial_grid' in attacks)}, {words}",
            self._numbers(result),
            {
                "threat": words,
                "checks": result.figures()["checks"],
                "classes": counts_by_class(labels, dataset.num_classes, masks["clean"], robust),
                "right": packed_right({"clean": masks["clean"], self._worst(masks): robust}),
            },
        )

    def _text(self, kind: str = "") -> str:
        return f"{kind}PGD-{pgd_text(self)}"

    def _threat(self, work: Work) -> tuple[Any, str]:
        if self.threat is not None:
            return self.threat, threats.described(self.threat)
        if work.threat is None:
            raise InputError("threat must be given where there is no run with a threat, got None")
        return work.threat, work.threat_text

    def _attacks(self, threat: Any) -> dict[str, Any]:
        settings = {"steps": self.steps, "step_size": self.step_size, "restarts": self.restarts}
        attacks: dict[str, Any] = {**pgd_attacks(threat, **settings)}
        if hasattr(threat, "on_grid"):
            attacks["spatial_grid"] = GridSearch(threat=threat, counts=self.grid)
        return attacks

    def _end(self) -> str:
        other = "" if self.threat is None else f", {threats.described(self.threat)}"
        return other + suffix(self.images)

    def _numbers(self, result: EvaluationResult) -> tuple[Number, ...]:
        """The run's own threat is in the table's heading; another one is in the column's name."""
        end = self._end()
        settings = dict.fromkeys(result.robust, pgd_text(self))
        if "spatial_grid" in settings:
            settings["spatial_grid"] = " x ".join(map(str, self.grid))
        return (
            Number("clean", *result.clean),
            *(Number(f"{k} ({settings[k]}){end}", *v) for k, v in result.robust.items()),
            Number(self._worst(result.robust), *result.worst),
        )

    def _worst(self, attacks: Any) -> str:
        """The column of the worst of all attacks."""
        return "worst PGD" + " and grid" * ("spatial_grid" in attacks) + self._end()

    def _examples(
        self,
        work: Work,
        logits_fn: LogitsFn,
        images: np.ndarray,
        labels: np.ndarray,
        attacks: dict[str, Any],
        result: EvaluationResult,
    ) -> tuple[np.ndarray, ...]:
        """Images, attacked images, labels and predictions; those that the attack turned first."""
        turned = result.masks["clean"] & ~result.masks["margin_pgd"]
        shown = np.argsort(~turned, kind="stable")[:SHOWN]
        chosen, classes = images[shown], labels[shown]
        if "margin_pgd" in result.adversarial_images:
            adversarial = result.adversarial_images["margin_pgd"][shown]
        else:  # large sets keep only who was right
            alone = {"margin_pgd": attacks["margin_pgd"]}
            again = work.evaluate(logits_fn, chosen, classes, alone, keep_images=True)
            adversarial = again.adversarial_images["margin_pgd"]
        predicted = jax.jit(lambda f, x: f(x).argmax(-1))(logits_fn, adversarial)
        return chosen, adversarial, classes, np.asarray(predicted)
