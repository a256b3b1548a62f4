"""A fast verdict: an upper bound of robust accuracy with a fifth of AutoAttack's passes."""

import pathlib
from functools import partial
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.evaluation._attack_settings import stage_settings
from jaxrobust.evaluation._cascade import Progress, cascade, checked_ball
from jaxrobust.evaluation._checks import Check
from jaxrobust.evaluation._half import PRECISIONS, in_half
from jaxrobust.evaluation._protocol import Protocol
from jaxrobust.evaluation._verdict_plan import verdict_plan
from jaxrobust.evaluation._verdict_report import Verdict
from jaxrobust.inputs import as_choice, as_seed
from jaxrobust.typing import LogitsFn, Norm


def verdict(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm = "linf",
    eps: float,
    seed: int = 0,
    batch_size: int | None = None,
    folder: str | pathlib.Path | None = None,
    precision: str | None = None,
    progress: Progress = lambda item, done, total: None,
) -> Verdict:
    """An upper bound of robust accuracy, with at most a fifth of AutoAttack's passes.

    Use it for comparisons during development, and publish AutoAttack's number. The stages run one
    after the other, each from the original images and only on points that are still classified
    correctly. l_inf: constraint relaxation (CR), the probability-margin attack (PMA), targeted APGD
    on the three targets that MALT ranks first, Square with 850 queries. l_2: a short APGD on
    cross-entropy, targeted APGD, FAB with 30 steps on four targets, Square with 600 queries. l_1:
    as l_2 without FAB, APGD with its schedule of radii, 850 queries.

    On networks with masked gradients the bound may be several percentage points above AutoAttack.
    The check "Square finds nothing new" then fails in most cases; run AutoAttack.

    Every image that a stage returns is checked against norm and box, and counts only if an
    independent forward pass in float32 misclassifies it. The noise of a point is folded from (seed,
    stage, index). So batch size, order, number of devices and interruptions change the result by
    rounding at most. Several processes, which must all call this alike, share the work.

    Args:
      logits_fn: images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, k >= 2, normalisation inside,
        in evaluation mode.
      images: `[n, h, w, c]` floating point in [0, 1].
      labels: `[n]` integers in 0..k-1.
      norm: "linf", "l2" or "l1".
      eps: radius in image units (8/255, not 8).
      seed: the seed of all noise.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      folder: keeps finished stages and continues from them, as `autoattack` does.
      precision: the precision of the network in the attacks: "float32" (the default), "bfloat16" or
        "float16". Half precision needs the network as a pytree of its arrays, such as the result of
        `models.logits_fn`. A success that float32 does not confirm counts as robust, so the bound
        may be looser.
      progress: called with the stage's name and place ("apgd-ce (1 of 4)"), the number of finished
        points, and their total number.

    Returns:
      `Verdict`, with masks after each stage, adversarial images, checks, and passes and seconds of
      each stage.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, the logits of an image
        depend on the rest of its batch (a network in training mode), or `folder` belongs to another
        evaluation.
      AttackResultError: if a stage returns an image outside of its set, or a confirmed verdict is
        reversed by another forward pass.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation
      >>> def logits_fn(x): return (x.mean(axis=(1, 2)) - 0.5) * jnp.array([[10.0, -10.0]])
      >>> images = jnp.array([0.1, 0.45, 0.55, 0.9]).reshape(4, 1, 1, 1)
      >>> found = evaluation.verdict(logits_fn, images, jnp.array([1, 1, 0, 0]), eps=0.1)
      >>> found.clean_accuracy.value, found.robust_accuracy.value
      (1.0, 0.5)

    References:
      `attacks.cr`, `attacks.pma`, `attacks.malt_targets`, `attacks.apgd`, `attacks.fab` and
      `attacks.square` name the papers.
    """
    images, labels = checked_ball(images, labels, norm, eps)
    seed = as_seed(seed)
    precision = as_choice(precision or "float32", name="precision", choices=PRECISIONS)
    attacked = logits_fn if precision == "float32" else in_half(logits_fn, precision, images)

    def settings(plan: Protocol) -> dict[str, Any]:
        ball = {"norm": norm, "eps": float(np.float32(eps)), "seed": seed}
        return {**ball, "precision": precision, "verdict": list(stage_settings(plan.items))}

    ensemble, plan, checks, seconds = cascade(
        logits_fn,
        images,
        labels,
        attacked=attacked,
        wanted=partial(verdict_plan, getattr(threats, norm)(np.float32(eps))),
        settings=settings,
        seed=seed,
        individual=False,
        stochastic=False,
        batch_size=batch_size,
        folder=folder,
        progress=progress,
    )
    return Verdict(
        norm=norm,
        eps=float(eps),
        seed=seed,
        precision=precision,
        stages=stage_settings(plan.items),
        labels=ensemble.labels,
        masks={"clean": ensemble.clean, **ensemble.robust},
        unconfirmed=ensemble.unconfirmed,
        adversarial_images=ensemble.adversarial,
        predictions=ensemble.predictions,
        largest_norm=ensemble.largest_norm,
        checks=(*checks, _confirmed(ensemble.unconfirmed, len(labels))),
        nan_logits=ensemble.nan_logits,
        cost=ensemble.cost,
        seconds=seconds,
    )


def _confirmed(unconfirmed: dict[str, int], points: int) -> Check:
    """Whether float32 agrees with the successes of the attacks."""
    most = max(unconfirmed.values()) / points
    return Check(
        "successes confirmed in float32",
        most <= 0.002,
        most,
        0.002,
        "a stage's successes in its precision that float32 did not confirm, as a share of all "
        "points: these points were given up too early; use precision 'float32'",
    )
