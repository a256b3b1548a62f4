"""AutoAttack: an ensemble of attacks on the points that are still robust."""

import pathlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.evaluation._attack_settings import attack_settings
from jaxrobust.evaluation._cascade import Evaluated, Progress, cascade, checked_ball
from jaxrobust.evaluation._ensemble import OneDraw
from jaxrobust.evaluation._examples import on_every_device
from jaxrobust.evaluation._protocol import Protocol, protocol
from jaxrobust.evaluation._report import Report
from jaxrobust.inputs import as_count, as_flag, as_seed
from jaxrobust.keys import key_of
from jaxrobust.typing import LogitsFn, Norm


def autoattack(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: float,
    version: str = "standard",
    attacks: Sequence[str] | None = None,
    seed: int = 0,
    individual: bool = False,
    batch_size: int | None = None,
    folder: str | pathlib.Path | None = None,
    steps: int = 100,
    queries: int = 5000,
    stochastic: bool = False,
    progress: Progress = lambda item, done, total: None,
) -> Report:
    """Robust accuracy under AutoAttack, the field's standard.

    Attacks run one after the other, each from the original images and only on points that are still
    classified correctly. The noise of a point is folded from (seed, attack, restart, target,
    index). So batch size, order of batches, number of devices and interruptions change the result
    by rounding at most. With several processes, all of them must make the same call; they share the
    work, and each gets the whole result. Every image that an attack returns is checked against the
    norm, the box and an independent forward pass.

    Args:
      logits_fn: images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, k >= 2, normalisation inside,
        in evaluation mode. If it is a pytree (such as the result of `models.logits_fn`), new
        parameters do not recompile; neither does another closure over arrays of the same shapes.
        With `stochastic`: `(images, keys [b]) -> logits`.
      images: `[n, h, w, c]` floating point in [0, 1].
      labels: `[n]` integers in 0..k-1.
      norm: "linf", "l2" or "l1".
      eps: radius in image units (8/255, not 8).
      version: "standard"; "plus" (more restarts, more attacks); "rand" for randomised models;
        "custom" with `attacks`.
      attacks: names for version "custom": some of "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t",
        "square".
      seed: the seed of all noise.
      individual: run every attack on all correctly classified points, not only on those that
        earlier attacks left; the ensemble is the pointwise AND.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      folder: keep finished work items there and continue from them, in this process or another:
        for the network with the same arrays, the same logits and gradients on the images, the same
        images, labels and protocol. The report may be saved there too.
      steps: iterations of APGD and FAB; any value other than 100 is reported as a deviation.
      queries: number of queries of Square; any value other than 5000 is reported as a deviation.
      stochastic: whether the model draws noise from keys that it receives ("rand").
      progress: called with the work item's name and place ("apgd-ce (1 of 20)"), the number of
        finished points, and their total number.

    Returns:
      `Report`, with accuracies, masks, images, checks, protocol and timings. With fewer than ten
      classes, fewer targets are attacked, and the report says so.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, the logits of an image
        depend on the rest of its batch (a network in training mode), or `folder` belongs to another
        evaluation.
      AttackResultError: if an attack returns an image outside its set or a verdict that an
        independent forward pass does not confirm.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation
      >>> def logits_fn(x): return (x.mean(axis=(1, 2)) - 0.5) * jnp.array([[10.0, -10.0]])
      >>> images = jnp.array([0.1, 0.45, 0.55, 0.9]).reshape(4, 1, 1, 1)
      >>> report = evaluation.autoattack(logits_fn, images, jnp.array([1, 1, 0, 0]), norm="linf",
      ...     eps=0.1, version="custom", attacks=["apgd-ce"], steps=5)
      >>> report.clean_accuracy.value, report.robust_accuracy.value
      (1.0, 0.5)

    References:
      Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
      Parameter-free Attacks, 2020 (arXiv:2003.01690).
    """
    images, labels = checked_ball(images, labels, norm, eps)
    seed, individual = as_seed(seed), as_flag(individual, name="individual")
    stochastic = as_flag(stochastic, name="stochastic")
    steps, queries = as_count(steps, name="steps"), as_count(queries, name="queries")
    threat = getattr(threats, norm)(np.float32(eps))
    chosen = None if attacks is None else tuple(attacks)
    options: dict[str, Any] = {"steps": steps, "queries": queries, "stochastic": stochastic}
    wanted = partial(protocol, version, threat=threat, attacks=chosen, **options)
    wanted(classes=10)  # refuses an unknown version or attack before anything runs

    def settings(plan: Protocol) -> dict[str, Any]:
        ball = {"norm": norm, "eps": float(np.float32(eps)), "version": version}
        chosen = {"attacks": plan.attacks(), "seed": seed, "individual": individual}
        return {**ball, **chosen, **options}

    one_draw = OneDraw(logits_fn, on_every_device(key_of(seed))) if stochastic else logits_fn
    found = cascade(
        one_draw,
        images,
        labels,
        attacked=logits_fn,
        wanted=wanted,
        settings=settings,
        seed=seed,
        individual=individual,
        stochastic=stochastic,
        batch_size=batch_size,
        folder=folder,
        progress=progress,
    )
    return _report(found, norm=norm, eps=eps, version=version)


def _report(found: Evaluated, *, norm: Norm, eps: float, version: str) -> Report:
    ensemble, plan = found.ensemble, found.plan
    return Report(
        norm=norm,
        eps=float(eps),
        version=version,
        seed=ensemble.seed,
        attacks=attack_settings(plan.items, ensemble.cost, norm),
        deviations=plan.deviations,
        individual=ensemble.individual,
        labels=ensemble.labels,
        masks={"clean": ensemble.clean, **ensemble.robust},
        individual_masks=ensemble.alone if ensemble.individual else {},
        adversarial_images=ensemble.adversarial,
        predictions=ensemble.predictions,
        distances=ensemble.distances,
        largest_norm=ensemble.largest_norm,
        checks=found.checks,
        nan_logits=ensemble.nan_logits,
        cost=ensemble.cost,
        seconds=found.seconds,
    )
