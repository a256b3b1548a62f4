"""Distances from the nearest adversarial images, by an ensemble of minimum-norm attacks."""

import contextlib
import pathlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.attacks import Attack
from jaxrobust.evaluation._attack_settings import stage_settings
from jaxrobust.evaluation._cascade import (
    Opened,
    Progress,
    as_folder,
    finished,
    opened_on,
    outcome_of,
    store_in,
)
from jaxrobust.evaluation._checks import AttackResultError, Check, finite_check, sizes_of
from jaxrobust.evaluation._clean import forward
from jaxrobust.evaluation._distances_report import Distances
from jaxrobust.evaluation._evaluate import check_one_radius, checked_data
from jaxrobust.evaluation._evaluator import settings_of
from jaxrobust.evaluation._minimum_norm import checked_attacks, minimum_norm_attacks
from jaxrobust.evaluation._protocol import Protocol, WorkItem
from jaxrobust.evaluation._work import Outcome, Points, Programs, Told
from jaxrobust.inputs import as_choice, as_seed
from jaxrobust.processes import from_first
from jaxrobust.typing import ANY_NORMS, AnyNorm, LogitsFn


def distances(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: AnyNorm = "linf",
    attacks: Mapping[str, Attack] | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    folder: str | pathlib.Path | None = None,
    progress: Progress = lambda item, done, total: None,
) -> Distances:
    """Upper bounds of the distances to the nearest adversarial images: whole curves in one run.

    An ensemble of minimum-norm attacks runs on all points that are classified correctly. Robust
    accuracy at any radius is the share of points whose smallest distance is larger; another radius
    needs no new attack. It is an upper bound, as with every attack. AutoAttack spends all its
    passes on one radius and may be lower there.

    A success counts only if the image is in the box and an independent forward pass in float32
    misclassifies it; its distance is then measured on the image, in float64. Batch size, order,
    number of devices and interruptions change an example's result by rounding at most. With several
    processes, all of them must make the same call; they share the work.

    Args:
      logits_fn: images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, k >= 2, normalisation inside,
        in evaluation mode.
      images: `[n, h, w, c]` floating point in [0, 1]; attacked in float32.
      labels: `[n]` integers in 0..k-1.
      norm: "linf", "l2", "l1", or "l0", which counts changed values.
      attacks: bound minimum-norm attacks of that norm, by name; images beyond an attack's radius do
        not count. Default: `minimum_norm_attacks(norm)`.
      seed: the seed of all noise.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      folder: keeps finished attacks and continues from them, as `autoattack` does.
      progress: called with the attack's name and place ("fmn (1 of 3)"), the number of finished
        points, and their total number.

    Returns:
      `Distances`, with the distance from each attack and the smallest, `robust_accuracy_at`, areas,
      AttackBench's optimality, nearest images, checks, passes and seconds.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, the logits of an image
        depend on the rest of its batch (a network in training mode), or `folder` belongs to another
        evaluation.
      AttackResultError: if an attack returns an image outside of the box.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation
      >>> def logits_fn(x): return (x.mean(axis=(1, 2)) - 0.5) * jnp.array([[10.0, -10.0]])
      >>> images = jnp.array([0.1, 0.45, 0.55, 0.9]).reshape(4, 1, 1, 1)
      >>> found = evaluation.distances(logits_fn, images, jnp.array([1, 1, 0, 0]), norm="l2")
      >>> found.robust_accuracy_at([0.0, 0.1, 0.3, 0.5]).tolist()
      [1.0, 0.5, 0.5, 0.0]

    References:
      `attacks.fmn`, `attacks.ddn`, `attacks.pdpgd`, `attacks.sigma_zero`, `attacks.deepfool`,
      `attacks.superdeepfool` and `evaluation.optimality` name the papers.
    """
    images, labels = checked_data(images, labels)
    images = images.astype(np.float32)
    as_choice(norm, name="norm", choices=ANY_NORMS)
    seed, started = as_seed(seed), time.perf_counter()
    bound = minimum_norm_attacks(norm) if attacks is None else checked_attacks(attacks, norm)
    for name, attack in bound.items():
        check_one_radius(name, attack)
    items = tuple(WorkItem(name, 0, attack, 0, 0) for name, attack in bound.items())
    plan = Protocol("distances", items, ())
    opened = opened_on(
        logits_fn, images, labels, wanted=lambda classes: plan, stochastic=False,
        batch_size=batch_size,
    )  # fmt: skip
    case = _Case(opened, Programs(logits_fn), norm, seed, images, labels)
    path = as_folder(folder)
    whole = [] if path is None else [_settings(item) for item in items]
    settings = {"norm": norm, "seed": seed, "distances": whole}
    with contextlib.ExitStack() as stack:
        store = from_first(lambda: store_in(stack, path, settings, opened.identity))
        for number, item in enumerate(items):

            def make(advance: Told, item: WorkItem = item) -> dict[str, Any]:
                return case.run(item, advance)

            place = number, len(items)
            case.take(item, finished(store, place, item, case.attacked, make, progress))
    return case.result(items, time.perf_counter() - started)


def _settings(item: WorkItem) -> dict[str, Any]:
    """All that tells an attack from others; `settings`, for reports, is only what is named there.

    Raises:
      InputError: for an attack with a field that JSON cannot hold.
    """
    attack: Any = item.attack
    if is_dataclass(attack):
        return {"stage": item.name, "is": type(attack).__name__, **settings_of(attack)}
    return {"stage": item.name, "threat": threats.described(attack.threat), **attack.settings}


@dataclass
class _Case:
    """The evaluation in progress; `take` records each finished attack."""

    opened: Opened
    programs: Programs
    norm: AnyNorm
    seed: int
    images: np.ndarray
    labels: np.ndarray
    distances: dict[str, np.ndarray] = field(default_factory=dict)
    cost: dict[str, dict[str, float]] = field(default_factory=dict)
    unconfirmed: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.attacked = np.flatnonzero(~self.opened.wrong)
        self.nearest = np.where(self.opened.wrong, 0.0, np.inf)
        self.adversarial, self.predictions = self.images.copy(), self.opened.predictions.copy()

    def run(self, item: WorkItem, advance: Told) -> dict[str, Any]:
        """Runs an attack on all correctly classified points and verifies its result."""
        rows = self.attacked
        points = Points(rows.astype(np.int32), self.images[rows], self.labels[rows], ())
        found = outcome_of(
            item, self.programs, points, seed=self.seed, shapes=self.opened.shapes,
            classes=self.opened.logits.shape[1], advance=advance,
        )  # fmt: skip
        return self._examined(item, points, found)

    def _examined(self, item: WorkItem, points: Points, found: Outcome) -> dict[str, Any]:
        """The confirmed claims of an attack: in the box, and misclassified in a separate pass."""
        claimed = np.flatnonzero(found.success)
        images = found.images[claimed].astype(np.float32)
        if not ((images >= 0) & (images <= 1)).all():
            raise AttackResultError(
                f"{item.name} returned an image outside of the box: values {images.min():.9g} to "
                f"{images.max():.9g}"
            )
        fooled = np.zeros(len(points.labels), bool)
        predictions = np.zeros(0, np.int32)
        if len(claimed):
            places = points.indices[claimed], points.labels[claimed]
            _, wrong, seen = forward(
                self.opened.once, images, places[1], self.opened.shapes, indices=places[0]
            )
            fooled[claimed[wrong]] = True
            images, predictions = images[wrong], seen[wrong].astype(np.int32)
        distance = np.full(len(fooled), np.inf)
        distance[fooled] = sizes_of(self.norm, points.images[fooled], images)
        return {
            "fooled": fooled,
            "images": images,
            "predictions": predictions,
            "distance": distance,
            "unconfirmed": np.int64(len(claimed) - fooled.sum()),
            "forwards": np.int64(found.forwards),
            "backwards": np.int64(found.backwards),
        }

    def take(self, item: WorkItem, found: dict[str, Any]) -> None:
        """Records a finished attack: distances, and images that are nearer than earlier ones."""
        whole = np.where(self.opened.wrong, 0.0, np.inf)
        whole[found["indices"]] = found["distance"]
        self.distances[item.name] = whole
        places = found["indices"][found["fooled"]]
        nearer = whole[places] < self.nearest[places]
        new = places[nearer]
        self.nearest[new] = whole[new]
        self.adversarial[new] = found["images"][nearer]
        self.predictions[new] = found["predictions"][nearer]
        names = ("forwards", "backwards", "seconds")
        self.cost[item.name] = {name: float(found[name]) for name in names}
        self.unconfirmed[item.name] = int(found["unconfirmed"])

    def result(self, items: tuple[WorkItem, ...], seconds: float) -> Distances:
        """The result of all attacks."""
        adversarial = int((~self.opened.wrong & (self.predictions < 0)).sum())
        nan_logits = {
            "clean": int((self.opened.predictions < 0).sum()), "adversarial": adversarial
        }  # fmt: skip
        checks = [finite_check(nan_logits, self.opened.logits), *self.opened.checks]
        return Distances(
            norm=self.norm,
            seed=self.seed,
            attacks=stage_settings(items),
            labels=self.labels,
            clean=~self.opened.wrong,
            distances=self.distances,
            adversarial_images=self.adversarial,
            predictions=self.predictions,
            unconfirmed=self.unconfirmed,
            checks=(*checks, *_checks(self.nearest, self.unconfirmed)),
            nan_logits=nan_logits,
            cost=self.cost,
            seconds=seconds,
        )


def _checks(nearest: np.ndarray, unconfirmed: dict[str, int]) -> list[Check]:
    """Checks for missing distances and lost successes."""
    missing, most = float(np.isinf(nearest).sum()), max(unconfirmed.values()) / len(nearest)
    return [
        Check(
            "an adversarial image for every point",
            not missing,
            missing,
            0,
            "points where no attack found one at any distance: a stalled attack, hidden gradients, "
            "or a radius of an attack",
        ),
        Check(
            "successes confirmed by another pass",
            most <= 0.002,
            most,
            0.002,
            "an attack's successes that an independent forward pass in float32 did not confirm, as "
            "a share of all points",
        ),
    ]
