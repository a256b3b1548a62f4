"""AutoAttack: an ensemble of attacks on the points that are still robust."""

import contextlib
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.evaluation._checks import (
    Check,
    derivatives,
    finite_check,
    model_checks,
    sampled,
    square_check,
    verify_images,
)
from jaxrobust.evaluation._clean import clean_batch, clean_pass, forward
from jaxrobust.evaluation._ensemble import Ensemble, OneDraw
from jaxrobust.evaluation._evaluate import checked_data
from jaxrobust.evaluation._examples import bucket_sizes, on_every_device
from jaxrobust.evaluation._identity import Identity, identity_of
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._protocol import Protocol, WorkItem, protocol
from jaxrobust.evaluation._report import Report
from jaxrobust.evaluation._store import Store, model_digest
from jaxrobust.evaluation._work import Outcome, Points, Programs, run_item
from jaxrobust.inputs import InputError, as_count, as_seed, check_number
from jaxrobust.keys import key_of
from jaxrobust.locks import held
from jaxrobust.processes import from_first, is_first
from jaxrobust.typing import NORMS, LogitsFn, Norm

Progress = Callable[[str, int, int], None]


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

    Attacks run one after the other, each from the original images and only on points that are
    still classified correctly. The noise of a point is folded from (seed, attack, restart,
    target, index): the result depends on batch size, order of batches, number of devices, or on
    having been interrupted, by rounding at most. Several processes, which must all call this alike,
    share the work, and each gets the whole result. Every image that an attack returns is checked
    against the norm, the box and an independent forward pass.

    Args:
      logits_fn: images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, k >= 2, normalisation inside,
        in evaluation mode. If it is a pytree (as `models.logits_fn` makes it), new parameters do
        not recompile; nor does another closure over arrays of the same shapes. With `stochastic`:
        `(images, keys [b]) -> logits`.
      images: `[n, h, w, c]` floating point in [0, 1].
      labels: `[n]` integers in 0..k-1.
      norm: "linf", "l2" or "l1".
      eps: radius in image units (8/255, not 8).
      version: "standard"; "plus" (more restarts, more attacks); "rand" for randomised models;
        "custom" with `attacks`.
      attacks: for "custom", some of "apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square".
      seed: of all noise.
      individual: run every attack on all correctly classified points, not only on those that
        the attacks before left; the ensemble is the pointwise AND.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      folder: keep finished work items there and continue from them, in this process or another:
        for the network with the same arrays, the same logits and gradients on the images, the same
        images, labels and protocol. The report may be saved there too.
      steps: iterations of APGD and FAB; anything but 100 is reported as a deviation.
      queries: of Square; anything but 5000 is reported as a deviation.
      stochastic: the model draws noise from the keys that it is given ("rand").
      progress: told the work item's name, how many points it is through, and of how many.

    Returns:
      `Report`, with accuracies, masks, images, checks, protocol and timings. With fewer than
      ten classes fewer targets are attacked, and the report says so.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, the logits of an image
        depend on the rest of its batch (a network in training mode), or `folder` is of another
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
    images, labels = checked_evaluation(images, labels, norm, eps)
    seed, individual = as_seed(seed), bool(individual)
    steps, queries = as_count(steps, name="steps"), as_count(queries, name="queries")
    threat = getattr(threats, norm)(np.float32(eps))
    shapes = batch_shapes(batch_size, len(labels))
    chosen = None if attacks is None else tuple(attacks)
    options: dict[str, Any] = {"steps": steps, "queries": queries, "stochastic": stochastic}
    wanted = partial(protocol, version, threat=threat, attacks=chosen, **options)
    wanted(classes=10)  # what is no version or attack is told before anything runs

    started = time.perf_counter()
    one_draw = OneDraw(logits_fn, on_every_device(key_of(seed))) if stochastic else logits_fn
    once = Compiled(clean_batch, one_draw, static=(stochastic,))
    logits, wrong, predictions = clean_pass(once, images, labels, shapes)
    plan = wanted(classes=logits.shape[-1])
    checks, slopes = _checks(one_draw, once, images, labels, wrong, plan, stochastic)
    settings = {
        "norm": norm,
        "eps": float(np.float32(eps)),
        "version": version,
        "attacks": plan.attacks(),
        "seed": seed,
        "individual": individual,
        **options,
    }
    # Traced for two images, whatever the batch size.
    two = images[[0, 0]], labels[[0, 0]], np.zeros(2, np.int32)
    network = {
        "arrays": model_digest(once.held(), logits),
        "program": once.structure(*two),
        "derivatives": Compiled(derivatives, one_draw, static=(stochastic,)).structure(*two),
    }
    identity = identity_of(network, images, labels, logits=logits, slopes=slopes)
    path = None if folder is None else pathlib.Path(folder).expanduser()
    ensemble = Ensemble(
        programs=Programs(logits_fn),
        once=once,
        images=images,
        labels=labels,
        order=np.argsort(-logits, axis=-1, kind="stable").astype(np.int32),
        seed=seed,
        individual=individual,
        shapes=shapes,
        clean=~wrong,
        adversarial=images.copy(),
        predictions=predictions.copy(),
        nan_logits={"clean": int((predictions < 0).sum())},
    )
    with contextlib.ExitStack() as stack:
        store = from_first(lambda: _opened(stack, path, settings, identity))
        for number, item in enumerate(plan.items):
            ensemble.take(item, _outcome(ensemble, store, number, item, progress))
    ensemble.confirm()
    checks = [finite_check(ensemble.nan_logits, logits), *checks]
    seconds = time.perf_counter() - started
    asked: dict[str, Any] = {"norm": norm, "eps": eps, "version": version}
    return _report(ensemble, plan, checks, seconds=seconds, **asked)


def batch_shapes(batch_size: int | None, points: int) -> list[int]:
    """The batch shapes, the largest that makes sense for the number of points first."""
    if batch_size is None:
        batch_size = 128 if jax.default_backend() == "cpu" else 512
    batch_size = as_count(batch_size, name="batch_size")
    return bucket_sizes(min(batch_size, max(points, 8)), len(jax.local_devices()))


def _opened(
    stack: contextlib.ExitStack,
    folder: pathlib.Path | None,
    settings: dict[str, Any],
    identity: Identity,
) -> Store:
    """The store of finished items; its folder is this evaluation's alone until the stack closes."""
    if folder is not None:
        stack.enter_context(held(folder, work="evaluation"))
    return Store(folder, settings, identity)


def _checks(
    network: Any,
    once: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    wrong: np.ndarray,
    plan: Protocol,
    stochastic: bool,
) -> tuple[list[Check], np.ndarray]:
    """The network's checks on a batch of correctly classified points, the ones attacks start at."""
    rows = sampled(wrong)
    dlr_attacks = any(
        str(getattr(item.attack, "loss", "")).startswith("dlr") for item in plan.items
    )
    rand = plan.version == "rand"
    batch = images[rows], labels[rows], rows.astype(np.int32)
    return model_checks(
        network, once, *batch, dlr_attacks=dlr_attacks, rand=rand, stochastic=stochastic
    )


def checked_evaluation(
    images: ArrayLike, labels: ArrayLike, norm: str, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 and labels as int32, if the arguments make sense."""
    images, labels = checked_data(images, labels)
    if norm not in NORMS:
        raise InputError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    largest = 1 if norm == "linf" else math.inf
    wanted = "eps must be a radius in image units (8/255, not 8), one number,"
    if np.ndim(eps):
        raise InputError(f"{wanted} got shape {np.shape(eps)}")
    check_number(eps, wanted, low=0, high=largest)
    return images.astype(np.float32), labels


def _outcome(
    ensemble: Ensemble, store: Store, number: int, item: WorkItem, progress: Progress
) -> dict[str, Any]:
    """The finished item: from the store, or run, re-examined and stored."""
    indices = ensemble.pool(item)
    earlier = from_first(lambda: store.load(number))
    if earlier is not None and np.array_equal(earlier["indices"], indices):
        return earlier
    started = time.perf_counter()
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(item.title, done, len(indices))

    progress(item.title, 0, len(indices))
    points = ensemble.points(item, indices)
    if len(indices):
        found = run_item(
            item,
            ensemble.programs,
            points,
            seed=ensemble.seed,
            shapes=ensemble.shapes,
            classes=ensemble.order.shape[1],
            advance=advance,
        )
    else:
        none = np.zeros(0, np.float32)
        found = Outcome(none.astype(bool), points.images, none, 0, 0)
    arrays = _examined(ensemble, item, indices, points, found)
    arrays["seconds"] = np.float64(time.perf_counter() - started)
    if is_first():
        store.save(number, arrays)
    return arrays


def _examined(
    ensemble: Ensemble,
    item: WorkItem,
    indices: np.ndarray,
    points: Points,
    found: Outcome,
) -> dict[str, Any]:
    """What holds of an attack's claims: inside the set, and wrong in a pass of its own."""
    claimed = np.flatnonzero(found.success)
    images = found.images[claimed].astype(np.float32)
    threat = item.attack.threat  # type: ignore[attr-defined]
    norm: Any = threats.norm_of(threat)
    largest = verify_images(norm, float(threat.eps), points.images[claimed], images, item.title)
    fooled = np.zeros(len(indices), bool)
    predictions = np.zeros(0, np.int32)
    if len(claimed):
        labels = points.labels[claimed]
        _, wrong, predicted = forward(
            ensemble.once, images, labels, ensemble.shapes, indices=indices[claimed]
        )
        fooled[claimed[wrong]] = True
        images, predictions = images[wrong], predicted[wrong].astype(np.int32)
    return {
        "indices": indices,
        "fooled": fooled,
        "images": images,
        "predictions": predictions,
        "distance": found.distance,
        "forwards": np.int64(found.forwards),
        "backwards": np.int64(found.backwards),
        "largest_norm": np.float64(largest),
    }


def _report(
    ensemble: Ensemble,
    plan: Protocol,
    checks: list[Check],
    *,
    seconds: float,
    norm: Norm,
    eps: float,
    version: str,
) -> Report:
    accuracies = {name: float(mask.mean()) for name, mask in ensemble.robust.items()}
    without = {i.name for i in plan.items if not getattr(i.attack, "gradients", True)}
    helped = square_check({"clean": float(ensemble.clean.mean()), **accuracies}, without)
    if helped is not None:
        checks = [*checks, helped]
    return Report(
        norm=norm,
        eps=float(eps),
        version=version,
        seed=ensemble.seed,
        items=plan.items,
        deviations=plan.deviations,
        individual=ensemble.individual,
        labels=ensemble.labels,
        masks={"clean": ensemble.clean, **ensemble.robust},
        individual_masks=ensemble.alone if ensemble.individual else {},
        adversarial_images=ensemble.adversarial,
        predictions=ensemble.predictions,
        distances=ensemble.distances,
        largest_norm=ensemble.largest_norm,
        checks=tuple(checks),
        nan_logits=ensemble.nan_logits,
        cost=ensemble.cost,
        seconds=seconds,
    )
