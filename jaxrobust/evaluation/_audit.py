"""An audit of a robust accuracy: further attacks on the points that an attack has left."""

import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike

from jaxrobust import threats
from jaxrobust.digests import digest_of
from jaxrobust.evaluation._audit_case import ITEM, VOTES, Case, Progress
from jaxrobust.evaluation._audit_probe import Probe
from jaxrobust.evaluation._audit_report import AuditReport
from jaxrobust.evaluation._audit_stages import Stage, stages
from jaxrobust.evaluation._autoattack import autoattack
from jaxrobust.evaluation._cascade import (
    as_folder,
    batch_shapes,
    checked_ball,
    network_digests,
    store_in,
)
from jaxrobust.evaluation._checks import check_labels_fit
from jaxrobust.evaluation._clean import clean_batch, clean_pass, forward
from jaxrobust.evaluation._identity import Identity, identity_of
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.inputs import InputError, as_array, as_count, as_seed
from jaxrobust.processes import from_first
from jaxrobust.twins import gradient_stops
from jaxrobust.typing import LogitsFn, Norm

SMALLEST = 32  # of the batch shapes: another program for fewer points costs more than it saves


def audit(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm = "linf",
    eps: float,
    robust: ArrayLike | None = None,
    others: Sequence[LogitsFn] = (),
    seed: int = 0,
    batch_size: int | None = None,
    steps: int = 100,
    queries: int = 1000,
    rounds: int = 3,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> AuditReport:
    """Whether a robust accuracy can be trusted.

    It lists the operations that stop gradients in the network, measures the gradients, and attacks
    the points that another attack has left. Some attacks are stronger ones of the same kind, with
    more targets, steps and restarts. Others bypass the network's own gradients: through its
    straight-through twin, through a copy smoothed by noise, from other networks, and by random
    search. Rounds are repeated with new noise and twice the steps until no point falls. A finding
    is a suspicion; a point that falls is a proof. Every image is checked against norm and box, and
    counts only if the true network misclassifies it in a separate pass. A network whose answers
    vary between calls must misclassify it in most of 9 passes.

    Args:
      logits_fn: images `[b, h, w, c]` in [0, 1] -> logits `[b, k]`, k >= 2, in evaluation mode.
      images: `[n, h, w, c]` floating point in [0, 1]; attacked in float32.
      labels: `[n]` integers in 0..k-1.
      norm: "linf", "l2" or "l1".
      eps: radius in image units (8/255, not 8).
      robust: `[n]` bool, the points that another attack has left, such as
        `report.masks["square"]`. Default: those that APGD on cross-entropy and targeted APGD leave.
      others: networks to transfer from, such as the same one without its defence.
      seed: the seed of all noise.
      batch_size: largest batch; default 128 on CPU, 512 elsewhere.
      steps: number of steps of the gradient attacks in the first round.
      queries: number of queries of random search.
      rounds: the largest number of rounds.
      folder: the folder in which finished attacks are kept. The same call continues there after an
        interruption, and one with more rounds adds to it. A network that answers differently each
        time is audited anew. Default: nothing is kept.
      progress: called with the stage, the number of its finished runs on points, and their total
        number.

    Returns:
      `AuditReport`, with a verdict, the points that fell to each stage, findings and gradients.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, or the logits of an
        image depend on the rest of its batch, or `folder` holds another evaluation.
      AttackResultError: if an attack returns an image outside its set.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation
      >>> def logits_fn(x): return jnp.round(20 * x.mean((1, 2)) - 10) @ jnp.array([[1.0, -1.0]])
      >>> images = jnp.array([0.1, 0.42, 0.58, 0.9]).reshape(4, 1, 1, 1)
      >>> report = evaluation.audit(logits_fn, images, jnp.array([1, 1, 0, 0]), eps=0.15,
      ...     robust=jnp.ones(4, bool), steps=5, queries=5, rounds=1)
      >>> report.trusted, report.robust_accuracy.value
      (False, 0.5)

    References:
      Athalye et al., 2018 (arXiv:1802.00420). Carlini et al., On Evaluating Adversarial
      Robustness, 2019 (arXiv:1902.06705). Tramer et al., On Adaptive Attacks to Adversarial
      Example Defenses, 2020 (arXiv:2002.08347).
    """
    images, labels = checked_ball(images, labels, norm, eps)
    seed, rounds, place = as_seed(seed), as_count(rounds, name="rounds"), as_folder(folder)
    as_count(steps, name="steps"), as_count(queries, name="queries")
    mask = None if robust is None else checked_mask(robust, len(labels))
    if not isinstance(others, Sequence):
        raise InputError(f"others must be a list of networks, got {others!r:.80}")
    for number, other in enumerate(others):
        if not callable(other):
            raise InputError(f"others must be networks, got {other!r} at place {number}")
    started = time.perf_counter()
    sizes = batch_shapes(batch_size, len(labels))
    shapes = [size for size in sizes if size >= SMALLEST] or sizes[:1]
    once = Compiled(clean_batch, logits_fn, static=(False,))
    unsure, logits, wrong = _clean(once, images, labels, shapes)
    kept = None if unsure else place
    if mask is None:
        quick: dict[str, Any] = {"version": "custom", "attacks": ["apgd-ce", "apgd-t"]}
        quick |= {"steps": steps, "seed": seed, "batch_size": batch_size, "progress": progress}
        quick["folder"] = None if kept is None else kept / "before"
        first = autoattack(logits_fn, images, labels, norm=norm, eps=eps, **quick)
        mask = first.masks["apgd-t"]
    left = mask & ~wrong
    found = gradient_stops(logits_fn, images[:1])
    order = np.where(np.eye(logits.shape[1], dtype=bool)[labels], -np.inf, logits)
    case = Case(once, images, labels, np.argsort(-order, -1, kind="stable"), seed, shapes, unsure)
    case.masks |= {"clean": ~wrong, "before": left}
    made: dict[str, Any] = {"norm": norm, "eps": np.float32(eps), "shape": images.shape[1:]}
    made |= {"classes": logits.shape[1], "stopped": bool(found), "others": others, "seed": seed}
    gradients = case.probed(getattr(threats, norm)(np.float32(eps)), logits_fn)
    with contextlib.ExitStack() as stack:
        if kept is not None:
            counts = {"norm": norm, "eps": float(eps), "seed": seed, "steps": steps}
            asked = counts | {"queries": queries, "robust": digest_of(mask)}
            asked["others"] = [_digests(other, images, labels) for other in others]
            identity = _identity(logits_fn, once, images, labels, logits, gradients)
            case.store = from_first(lambda: store_in(stack, kept, asked, identity, needs=ITEM))

        def planned(number: int) -> list[Stage]:
            return stages(logits_fn, steps=steps * (1 + (number > 0)), queries=queries, **made)

        number, settled = case.rounds(planned, rounds, progress)
    return AuditReport(
        norm=norm,
        eps=float(eps),
        seed=seed,
        labels=labels,
        masks=case.masks,
        routes=case.routes,
        adversarial_images=case.adversarial,
        findings=found,
        probe=gradients,
        rounds=number,
        settled=settled,
        random=unsure,
        seconds=time.perf_counter() - started,
    )


def checked_mask(robust: ArrayLike, count: int) -> np.ndarray:
    """The mask of points, checked."""
    mask = np.asarray(as_array(robust, name="robust"))
    if mask.dtype != bool or mask.shape != (count,):
        raise InputError(
            f"robust must be bool [n], here [{count}], got {mask.dtype} of shape {mask.shape}"
        )
    return mask


def _clean(
    once: Compiled, images: np.ndarray, labels: np.ndarray, shapes: list[int]
) -> tuple[bool, np.ndarray, np.ndarray]:
    """Whether a network's answers vary between calls, its logits, and whether they are wrong."""
    some = slice(0, shapes[-1])
    one, two = (forward(once, images[some], labels[some], shapes)[0] for _ in range(2))
    if np.array_equal(one, two, equal_nan=True):
        return False, *clean_pass(once, images, labels, shapes)[:2]
    passes = [forward(once, images, labels, shapes) for _ in range(VOTES)]
    check_labels_fit(labels, passes[0][0])
    logits = np.mean([found[0] for found in passes], axis=0)
    return True, logits, np.mean([found[1] for found in passes], axis=0) > 0.5


def _identity(
    network: LogitsFn,
    once: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    gradients: Probe,
) -> Identity:
    """What the audited network and its data are."""
    digests = network_digests(network, once, images, labels, logits)
    slopes = np.stack([gradients.ce_gradient, gradients.margin_gradient], -1)
    return identity_of(digests, images, labels, logits=logits, slopes=slopes)


def _digests(network: LogitsFn, images: np.ndarray, labels: np.ndarray) -> dict[str, str]:
    """What another network is, by its arrays and programs."""
    once = Compiled(clean_batch, network, static=(False,))
    logits = np.asarray(once(images[:1], labels[:1], np.zeros(1, np.int32))[0])
    return network_digests(network, once, images, labels, logits)
