"""Attacks one after the other on the points that are still robust, verified and resumable."""

import contextlib
import math
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.evaluation._checks import (
    Check,
    classes_check,
    derivatives,
    finite_check,
    model_checks,
    sampled,
    square_check,
    verify_images,
)
from jaxrobust.evaluation._clean import clean_batch, clean_pass, forward
from jaxrobust.evaluation._ensemble import Ensemble
from jaxrobust.evaluation._evaluate import checked_data
from jaxrobust.evaluation._examples import bucket_sizes
from jaxrobust.evaluation._identity import Identity, identity_of
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.evaluation._protocol import Protocol, WorkItem
from jaxrobust.evaluation._store import ITEM, Store, made_once, model_digest
from jaxrobust.evaluation._work import Outcome, Points, Programs, Told, run_item
from jaxrobust.inputs import InputError, as_count, check_number
from jaxrobust.locks import held
from jaxrobust.processes import from_first
from jaxrobust.typing import NORMS

Progress = Callable[[str, int, int], None]


class Evaluated(NamedTuple):
    """The result of a cascade.

    Attributes:
      ensemble: masks, images and costs.
      plan: the items that were run.
      checks: warnings with their measured values.
      seconds: the total time, including compilation.
    """

    ensemble: Ensemble
    plan: Protocol
    checks: tuple[Check, ...]
    seconds: float


def cascade(
    network: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    attacked: Any,
    wanted: Callable[..., Protocol],
    settings: Callable[[Protocol], dict[str, Any]],
    seed: int,
    individual: bool,
    stochastic: bool,
    batch_size: int | None,
    folder: str | pathlib.Path | None,
    progress: Progress,
) -> Evaluated:
    """Runs a plan's items in order, each on the points that are still classified correctly.

    Args:
      network: the network that decides, in float32; a `OneDraw` if `stochastic`.
      images: `[n, h, w, c]` float32.
      labels: `[n]` int32.
      attacked: the network as the attacks see it.
      wanted: `(classes=...)` -> the items to run.
      settings: JSON types that distinguish this evaluation from others of the same network and
        data.
      seed: the seed of all noise.
      individual: run every attack on all correctly classified points.
      stochastic: whether the network also takes the indices of the images.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      folder: where finished items are kept, or `None`.
      progress: called with the work item's name and place ("apgd-ce (1 of 20)"), the number of
        finished points, and their total number.

    Returns:
      `Evaluated`.
    """
    started = time.perf_counter()
    opened = opened_on(
        network, images, labels, wanted=wanted, stochastic=stochastic, batch_size=batch_size
    )
    plan, wrong, predictions = opened.plan, opened.wrong, opened.predictions
    path = as_folder(folder)
    ensemble = Ensemble(
        programs=Programs(attacked),
        once=opened.once,
        images=images,
        labels=labels,
        order=np.argsort(-opened.logits, axis=-1, kind="stable").astype(np.int32),
        seed=seed,
        individual=individual,
        shapes=opened.shapes,
        clean=~wrong,
        adversarial=images.copy(),
        predictions=predictions.copy(),
        nan_logits={"clean": int((predictions < 0).sum())},
    )
    with contextlib.ExitStack() as stack:
        store = from_first(lambda: store_in(stack, path, settings(plan), opened.identity))
        for number, item in enumerate(plan.items):
            place = number, len(plan.items)
            ensemble.take(item, _outcome(ensemble, store, place, item, progress))
    ensemble.confirm()
    finite = finite_check(ensemble.nan_logits, opened.logits)
    checks = [finite, *opened.checks, *_helped(ensemble, plan)]
    return Evaluated(ensemble, plan, tuple(checks), time.perf_counter() - started)


def as_folder(folder: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """Where finished items are kept, with `~` expanded; `None` where they are not.

    Raises:
      InputError: for what is no path.
    """
    if folder is not None and not isinstance(folder, str | os.PathLike):
        raise InputError(f"folder must be a path or None, got {folder!r:.80}")
    return None if folder is None else pathlib.Path(folder).expanduser()


class Opened(NamedTuple):
    """A network on some data, before the first attack.

    Attributes:
      once: its compiled `clean_batch`.
      logits: `[n, k]` of the clean images.
      wrong: `[n]` bool, the clean errors.
      predictions: `[n]` of the clean images.
      plan: the items to run.
      checks: checks of the network.
      shapes: the batch shapes.
      identity: the identity of network and data.
    """

    once: Compiled
    logits: np.ndarray
    wrong: np.ndarray
    predictions: np.ndarray
    plan: Protocol
    checks: list[Check]
    shapes: list[int]
    identity: Identity


def opened_on(
    network: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    wanted: Callable[..., Protocol],
    stochastic: bool,
    batch_size: int | None,
) -> Opened:
    """Runs the clean pass and the checks and computes the identity; arguments as in `cascade`."""
    shapes = batch_shapes(batch_size, len(labels))
    once = Compiled(clean_batch, network, static=(stochastic,))
    logits, wrong, predictions = clean_pass(once, images, labels, shapes)
    plan = wanted(classes=logits.shape[-1])
    checks, slopes = _checks(network, once, images, labels, wrong, plan, stochastic)
    checks.append(classes_check(predictions, labels))
    digests = network_digests(network, once, images, labels, logits, stochastic=stochastic)
    identity = identity_of(digests, images, labels, logits=logits, slopes=slopes)
    return Opened(once, logits, wrong, predictions, plan, checks, shapes, identity)


def network_digests(
    network: Any,
    once: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    *,
    stochastic: bool = False,
) -> dict[str, str]:
    """Of the network's arrays and of what it computes, given its compiled `clean_batch`."""
    # Traced for two images, whatever the batch size.
    two = images[[0, 0]], labels[[0, 0]], np.zeros(2, np.int32)
    return {
        "arrays": model_digest(once.held(), logits),
        "program": once.structure(*two),
        "derivatives": Compiled(derivatives, network, static=(stochastic,)).structure(*two),
    }


def _helped(ensemble: Ensemble, plan: Protocol) -> list[Check]:
    """Whether attacks without gradients found examples that others missed."""
    accuracies = {name: float(mask.mean()) for name, mask in ensemble.robust.items()}
    without = {i.name for i in plan.items if not getattr(i.attack, "gradients", True)}
    helped = square_check({"clean": float(ensemble.clean.mean()), **accuracies}, without)
    return [] if helped is None else [helped]


def batch_shapes(batch_size: int | None, points: int) -> list[int]:
    """The batch shapes, largest first, as the number of points requires."""
    if batch_size is None:
        batch_size = 128 if jax.default_backend() == "cpu" else 512
    batch_size = as_count(batch_size, name="batch_size")
    return bucket_sizes(min(batch_size, max(points, 8)), len(jax.local_devices()))


def store_in(
    stack: contextlib.ExitStack,
    folder: pathlib.Path | None,
    settings: dict[str, Any],
    identity: Identity,
    *,
    needs: frozenset[str] = ITEM,
) -> Store:
    """The store of finished items; its folder stays locked until the stack closes."""
    if folder is not None:
        stack.enter_context(held(folder, work="evaluation"))
    return Store(folder, settings, identity, needs=needs)


def _checks(
    network: Any,
    once: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    wrong: np.ndarray,
    plan: Protocol,
    stochastic: bool,
) -> tuple[list[Check], np.ndarray]:
    """The network's checks on a batch of correctly classified points, from which attacks start."""
    rows = sampled(wrong)
    dlr_attacks = any(
        str(getattr(item.attack, "settings", {}).get("loss")).startswith("dlr")
        for item in plan.items
    )
    rand = plan.version == "rand"
    batch = images[rows], labels[rows], rows.astype(np.int32)
    return model_checks(
        network, once, *batch, dlr_attacks=dlr_attacks, rand=rand, stochastic=stochastic
    )


def checked_ball(
    images: ArrayLike, labels: ArrayLike, norm: str, eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """Images as float32 and labels as int32, after checking the arguments."""
    images, labels = checked_data(images, labels)
    check_ball(norm, eps)
    return images.astype(np.float32), labels


def check_ball(norm: str, eps: float) -> None:
    """Refuses an unknown norm, and a radius that is none in it."""
    if norm not in NORMS:
        raise InputError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
    largest = 1 if norm == "linf" else math.inf
    wanted = "eps must be a radius in image units (8/255, not 8), one number,"
    if np.ndim(eps):
        raise InputError(f"{wanted} got shape {np.shape(eps)}")
    check_number(eps, wanted, low=0, high=largest)


def _outcome(
    ensemble: Ensemble, store: Store, place: tuple[int, int], item: WorkItem, progress: Progress
) -> dict[str, Any]:
    """The finished item: read from the store, or run, verified and stored."""
    indices = ensemble.pool(item)

    def make(advance: Told) -> dict[str, Any]:
        points = ensemble.points(item, indices)
        found = outcome_of(
            item,
            ensemble.programs,
            points,
            seed=ensemble.seed,
            shapes=ensemble.shapes,
            classes=ensemble.order.shape[1],
            advance=advance,
        )
        return _examined(ensemble, item, indices, points, found)

    return finished(store, place, item, indices, make, progress)


def finished(
    store: Store,
    place: tuple[int, int],
    item: WorkItem,
    indices: np.ndarray,
    make: Callable[[Told], dict[str, Any]],
    progress: Progress,
) -> dict[str, Any]:
    """An item on the points with these indices: read from the store, or run now and stored.

    Args:
      store: of finished items.
      place: the number of the item, and of how many: `progress` gets both with the name.
      item: the work.
      indices: of its points.
      make: runs it.
      progress: as `cascade` takes it.

    Returns:
      The item's arrays.
    """
    number, items = place
    name = item.title if items == 1 else f"{item.title} ({number + 1} of {items})"

    def timed() -> dict[str, Any]:
        started, done = time.perf_counter(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress(name, done, len(indices))

        progress(name, 0, len(indices))
        arrays = make(advance)
        return arrays | {"seconds": np.float64(time.perf_counter() - started)}

    return made_once(store, number, indices, timed)


def outcome_of(item: WorkItem, programs: Programs, points: Points, **how: Any) -> Outcome:
    """`run_item`, also on no points."""
    if len(points.indices):
        return run_item(item, programs, points, **how)
    none = np.zeros(0, np.float32)
    return Outcome(none.astype(bool), points.images, none, 0, 0)


def _examined(
    ensemble: Ensemble,
    item: WorkItem,
    indices: np.ndarray,
    points: Points,
    found: Outcome,
) -> dict[str, Any]:
    """The confirmed claims of an attack: in the set, and misclassified in a separate pass."""
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
        "fooled": fooled,
        "images": images,
        "predictions": predictions,
        "distance": found.distance,
        "unconfirmed": np.int64(len(claimed) - fooled.sum()),
        "forwards": np.int64(found.forwards),
        "backwards": np.int64(found.backwards),
        "largest_norm": np.float64(largest),
    }
