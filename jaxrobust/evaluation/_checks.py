"""Checks that an evaluation makes of the model, the data and its own results."""

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.attackable import judging, prepare
from jaxrobust.evaluation._examples import over_devices
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.inputs import SWITCH, InputError, as_labels
from jaxrobust.losses import cross_entropy, dlr
from jaxrobust.typing import AnyNorm, Norm

DEPENDENCE = 1e-2  # of the spread of logits; rounding is far below, other statistics far above


class Check(NamedTuple):
    """The result of one check.

    Attributes:
      name: the property that was checked.
      passed: False means a warning: the numbers may be misleading.
      value: the measured value.
      threshold: the value that it was compared with.
      message: its meaning, in one sentence.
    """

    name: str
    passed: bool
    value: float
    threshold: float
    message: str


class AttackResultError(Exception):
    """An attack returned an image outside its ball or box, or a verdict that does not hold."""


def model_checks(
    logits_fn: Any,
    once: Compiled,
    images: np.ndarray,
    labels: np.ndarray,
    indices: np.ndarray,
    *,
    dlr_attacks: bool,
    rand: bool,
    stochastic: bool,
) -> tuple[list[Check], np.ndarray]:
    """Checks of a network on one batch: randomness, softmax outputs, dead gradients.

    Args:
      logits_fn: the network as a function of images only.
      once: its compiled `clean_batch`.
      images: one batch.
      labels: `[b]`.
      indices: `[b]`, in the data set.
      dlr_attacks: whether attacks on the DLR loss follow.
      rand: whether randomness is expected (version "rand").
      stochastic: whether the network also takes the indices.

    Returns:
      The checks, and the network's `slopes` on the batch.
    """
    seen = jax.device_get(
        Compiled(_probe, logits_fn, static=(stochastic,))(images, labels, indices)
    )
    passes = [np.asarray(once(images, labels, indices)[0]) for _ in range(2 if rand else 5)]
    logits = passes[0]
    looks, saturated = logit_checks(logits, labels)
    checks = [looks, _zero_gradients("cross-entropy", seen["ce_dead"]), saturated]
    if dlr_attacks and logits.shape[-1] >= 3:
        checks.append(_zero_gradients("DLR", seen["dlr_dead"]))
    if not rand:
        checks.append(_randomness_check(passes, labels))
    return checks, seen["slopes"]


def sampled(wrong: np.ndarray) -> np.ndarray:
    """The points for a network's checks: 64 correctly classified ones, where attacks start."""
    return np.resize(np.arange(1) if wrong.all() else np.flatnonzero(~wrong), 64)


def logit_checks(logits: np.ndarray, labels: np.ndarray) -> list[Check]:
    """Checks of a network by the logits of some points that it classifies correctly."""
    # Of the logits as they came out: compiled with the model, the sum may be rounded otherwise.
    saturated = np.asarray(cross_entropy(jnp.asarray(logits), jnp.asarray(labels))) == 0
    return [
        _softmax_check(logits),
        Check(
            "cross-entropy saturation",
            not saturated.any(),
            float(saturated.sum()),
            0,
            f"{saturated.sum()} of {len(labels)} points have cross-entropy exactly 0, so its "
            "gradient is 0 (very large logits)",
        ),
    ]


def classes_check(predictions: np.ndarray, labels: np.ndarray) -> Check:
    """Whether a network tells images apart; few images say nothing of it.

    Args:
      predictions: `[n]` classes of the clean images.
      labels: `[n]`.
    """
    found, few = np.unique(predictions), len(labels) < 16 or len(np.unique(labels)) < 2
    return Check(
        "more than one class",
        few or len(found) > 1,
        float(len(found)),
        2,
        f"all {len(labels):,} images get class {found[0]}: the network does not tell them apart",
    )


def _probe(
    stochastic: bool, network: Any, images: Array, labels: Array, indices: Array
) -> dict[str, Array]:
    logits_fn: Any = (lambda x: network(x, indices)) if stochastic else network
    fn = prepare(logits_fn, images)
    classes = jax.eval_shape(fn, images).shape[-1]

    def gradients(loss: Any) -> Array:
        return jax.grad(lambda x: jnp.sum(loss(fn(x), labels)))(images)

    def dead(loss: Any) -> Array:
        return jnp.all(gradients(loss) == 0, axis=(1, 2, 3))

    # Along fixed directions of the image.
    judged = prepare(_combined(logits_fn, images, labels), images)
    slopes = jax.grad(lambda x: jnp.sum(judged(x)[0]))(images).reshape(len(images), -1)
    waves = jnp.cos(jnp.arange(slopes.shape[1], dtype=images.dtype))
    out = {"ce_dead": dead(cross_entropy), "slopes": jnp.stack([slopes @ waves, slopes.sum(1)], 1)}
    if classes >= 3:
        out["dlr_dead"] = dead(dlr)
    return out


def _combined(logits_fn: Any, images: Array, labels: Array) -> Any:
    """A fixed combination of the logits, not flattened by a saturated loss, as attackers see it."""

    def loss(logits: Array, _: Array) -> Array:
        weights = jnp.cos(1.0 + jnp.arange(logits.shape[-1], dtype=images.dtype))
        return logits @ weights.astype(logits.dtype)

    return judging(logits_fn, loss, labels)


def derivatives(
    stochastic: bool, network: Any, images: Array, labels: Array, indices: Array
) -> Array:
    """The derivatives that attackers follow, as a program that is the same on all backends."""
    logits_fn: Any = (lambda x: network(x, indices)) if stochastic else network
    combined = _combined(logits_fn, images, labels)
    return jax.grad(lambda x: jnp.sum(combined(x)[0]))(images)


def _softmax_check(logits: np.ndarray) -> Check:
    sums = np.abs(logits.sum(-1) - 1).max()
    looks = logits.max() < 1 + 1e-5 and logits.min() > -1e-5 and sums < 1e-5
    return Check(
        "logits, not probabilities",
        not looks,
        float(sums),
        1e-5,
        "outputs look like probabilities; attacks need logits",
    )


def _zero_gradients(name: str, dead: np.ndarray) -> Check:
    return Check(
        f"{name} gradients",
        not dead.any(),
        float(dead.sum()),
        0,
        f"{dead.sum()} of {len(dead)} points have {name} gradient exactly 0 at the clean image",
    )


def _randomness_check(passes: list[np.ndarray], labels: np.ndarray) -> Check:
    # A class that is masked by -inf in every pass says nothing of the others.
    finite = [np.where(np.isfinite(p), p, 0) for p in passes]
    unit = [p / (np.linalg.norm(p, axis=-1, keepdims=True) + 1e-10) for p in finite]
    spread = max(float(np.linalg.norm(u - unit[-1], axis=-1).max()) for u in unit)
    if any((np.isfinite(p) != np.isfinite(passes[-1])).any() for p in passes):
        spread = math.inf
    counts = {int((p.argmax(-1) == labels).sum()) for p in passes}
    return Check(
        "deterministic model",
        spread <= 1e-4 and len(counts) == 1,
        spread,
        1e-4,
        "the same images give different outputs; use version 'rand' for a randomised model",
    )


def finite_check(nan_logits: dict[str, int], clean_logits: np.ndarray) -> Check:
    """Checks for NaN logits on clean or attacked images, and for infinite ones on clean images.

    Args:
      nan_logits: numbers of images, by kind of image.
      clean_logits: `[n, k]`.
    """
    counts = {f"NaN or +inf on {name} images": count for name, count in nan_logits.items()}
    counts["infinite on clean images"] = int(np.isinf(clean_logits).any(-1).sum())
    found = ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
    return Check(
        "finite logits",
        not found,
        float(sum(counts.values())),
        0,
        f"logits that are not finite ({found or 'none'}); NaN and +inf count as misclassified, and "
        "neither has a meaningful gradient",
    )


def check_labels_fit(labels: np.ndarray, logits: np.ndarray) -> None:
    """Raises if labels are not classes of a network, or seem to be counted from 1.

    Args:
      labels: `[n]`.
      logits: `[n, k]` of the clean images.

    Raises:
      InputError: in these cases.
    """
    as_labels(labels, batch=len(labels), classes=logits.shape[1])
    right, shifted = ((logits.argmax(-1) == labels - one).mean() for one in (0, 1))
    # Of few points, or of two classes, this may be a network that is wrong.
    if len(labels) >= 10 and len(np.unique(labels)) >= 3 and shifted > max(0.5, 4 * right):
        raise InputError(
            f"labels must be classes 0..{logits.shape[1] - 1}, but seem to be counted "
            f"from 1: {100 * shifted:.0f} % of the predictions equal the label minus 1, "
            f"{100 * right:.0f} % the label"
        )


def check_batch_independence(
    logits_of: Callable[..., Array],
    images: np.ndarray,
    labels: np.ndarray,
    logits: np.ndarray,
    shape: int,
    size: int,
) -> None:
    """Compares logits of the first images with those from a batch of another size and composition.

    Args:
      logits_of: `(images [b, h, w, c], labels [b], indices [b]) -> logits [b, k]`, compiled.
      images: `[n, h, w, c]`.
      labels: `[n]`.
      logits: `[n, k]`, from batches of `shape` images.
      shape: the size of their batch.
      size: `b`, of the other batch; at least 2.

    Raises:
      InputError: if they differ by more than rounding.
    """
    kept = max(1, min(len(images), shape, size) // 2)
    rows = np.arange(size) % kept
    batch = images[rows]
    # The same images at other places, in another order, beside images that are none of them.
    batch = np.mod(batch + np.asarray(0.5, images.dtype), 1).astype(images.dtype)
    places = size - 1 - np.arange(kept)
    batch[places], rows[places] = images[:kept], np.arange(kept)
    placed = over_devices((batch, labels[rows], rows.astype(np.int32)))
    beside = np.asarray(jax.device_get(logits_of(*placed)))
    eps = float(jnp.finfo(beside.dtype).eps)
    now, before = beside[places].astype(np.float64), logits[:kept].astype(np.float64)
    numbers = np.where(np.isfinite(before), before, 0)
    # Of the usual distance between an image's logits: a masked class of -1e9 says nothing of it.
    middle = np.median(numbers, -1, keepdims=True)
    spread = np.median(np.abs(numbers - middle), -1, keepdims=True)
    allowed = np.maximum(DEPENDENCE * spread, eps * (64 * np.abs(middle) + 4 * np.abs(numbers)))
    with np.errstate(invalid="ignore"):
        same = (now == before) | (np.abs(now - before) <= allowed)
    differ = ~same & ~(np.isnan(now) & np.isnan(before))
    if differ.any():
        with np.errstate(invalid="ignore"):
            by = np.nanmax(np.abs(now - before), initial=0.0, where=differ)
        raise InputError(
            f"logits_fn returns other logits for the same images in a batch of {size} than in one "
            f"of {shape}: they differ by up to {by:.3g}, with logits of up to "
            f"{np.abs(numbers).max():.3g}: {SWITCH}"
        )


def square_check(accuracies: dict[str, float], without: Collection[str]) -> Check | None:
    """Whether an attack without gradients succeeded where gradients failed, a sign of masking.

    Args:
      accuracies: clean, then after each attack.
      without: names of the attacks that use no gradients.
    """
    others = [value for name, value in accuracies.items() if name not in without]
    found = [value for name, value in accuracies.items() if name in without]
    if not found or len(others) < 2:
        return None
    gain = min(others) - min(found)
    return Check(
        "Square finds nothing new",
        gain <= 0.002,
        gain,
        0.002,
        "Square found adversarial images that the gradient attacks missed: gradients may be masked",
    )


def sizes_of(norm: AnyNorm, clean: np.ndarray, adversarial: np.ndarray) -> np.ndarray:
    """`[n]` norms of perturbations, in float64."""
    delta = adversarial.astype(np.float64) - clean.astype(np.float64)
    order = {"linf": np.inf, "l2": 2, "l1": 1, "l0": 0}[norm]
    return np.linalg.norm(delta.reshape(len(delta), math.prod(delta.shape[1:])), order, axis=1)


def verify_images(
    norm: Norm, eps: float, clean: np.ndarray, adversarial: np.ndarray, attack: str
) -> float:
    """The largest norm of returned images.

    Raises:
      AttackResultError: if one is not finite, leaves the box, or leaves the ball by more than
        float32 rounding (l_inf 1e-6, l_2 1e-6 relative, l_1 1e-5 relative and 1e-6).
    """
    if not len(clean):
        return 0.0
    sizes = sizes_of(norm, clean, adversarial)
    radius = float(np.float32(eps))
    allowed = radius * (1 + {"linf": 0, "l2": 1e-6, "l1": 1e-5}[norm]) + 1e-6
    low, high = adversarial.min(), adversarial.max()
    inside = np.isfinite(adversarial).all() and low >= 0 and high <= 1
    if not inside or not (sizes <= allowed).all():
        raise AttackResultError(
            f"{attack} returned an image outside its set: {norm} norm {sizes.max():.9g} "
            f"(eps {radius:.9g}), values {low:.9g} to {high:.9g}"
        )
    return float(sizes.max())
