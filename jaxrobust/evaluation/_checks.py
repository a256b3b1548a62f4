"""Checks that an evaluation makes on the model, the data and its own results."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxrobust.attacks._attacked import LogitsFn, prepare
from jaxrobust.convolutions import jit
from jaxrobust.evaluation._protocol import Norm
from jaxrobust.losses import cross_entropy, dlr


class Check(NamedTuple):
    """The result of one check.

    Attributes:
      name: what was looked at.
      passed: False is a warning: the figures may not mean what they seem to.
      value: what was measured.
      threshold: what it was compared with.
      message: what it means, in a sentence.
    """

    name: str
    passed: bool
    value: float
    threshold: float
    message: str


class AttackResultError(Exception):
    """An attack returned an image outside its ball or box, or a verdict that does not hold."""


def model_checks(
    logits_fn: Any, images: np.ndarray, labels: np.ndarray, *, dlr_attacks: bool, rand: bool
) -> list[Check]:
    """What can be seen of a model on one batch: randomness, softmax outputs, dead gradients.

    Args:
      logits_fn: as jit takes it.
      images: one batch.
      labels: `[b]`.
      dlr_attacks: whether attacks on the DLR loss follow.
      rand: whether randomness is expected (version "rand").
    """
    seen = [jax.device_get(_probe(logits_fn, images, labels)) for _ in range(2 if rand else 5)]
    logits = seen[0]["logits"]
    # Of the logits as they came out: compiled with the model, the sum may be rounded otherwise.
    saturated = np.asarray(cross_entropy(jnp.asarray(logits), jnp.asarray(labels))) == 0
    checks = [
        Check(
            "finite logits",
            bool(np.isfinite(logits).all()),
            float((~np.isfinite(logits)).sum()),
            0,
            "NaN or infinite logits: predictions and gradients mean nothing there",
        ),
        _softmax_check(logits),
        _zero_gradients("cross-entropy", seen[0]["ce_dead"]),
        Check(
            "cross-entropy saturation",
            not saturated.any(),
            float(saturated.sum()),
            0,
            "points whose cross-entropy is exactly 0: its gradient is 0 too (huge logits)",
        ),
    ]
    if dlr_attacks and logits.shape[-1] >= 3:
        checks.append(_zero_gradients("DLR", seen[0]["dlr_dead"]))
    if not rand:
        checks.append(_randomness_check([s["logits"] for s in seen], labels))
    return checks


@jit
def _probe(logits_fn: LogitsFn, images: Array, labels: Array) -> dict[str, Array]:
    fn = prepare(logits_fn, images)
    logits = fn(images)

    def dead(loss: Any) -> Array:
        grads = jax.grad(lambda x: jnp.sum(loss(fn(x), labels)))(images)
        return jnp.all(grads == 0, axis=(1, 2, 3))

    out = {"logits": logits, "ce_dead": dead(cross_entropy)}
    if logits.shape[-1] >= 3:
        out["dlr_dead"] = dead(dlr)
    return out


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
        f"points whose {name} gradient is exactly 0 at the clean image",
    )


def _randomness_check(passes: list[np.ndarray], labels: np.ndarray) -> Check:
    unit = [p / (np.linalg.norm(p, axis=-1, keepdims=True) + 1e-10) for p in passes]
    spread = max(float(np.linalg.norm(u - unit[-1], axis=-1).max()) for u in unit)
    counts = {int((p.argmax(-1) == labels).sum()) for p in passes}
    return Check(
        "deterministic model",
        spread <= 1e-4 and len(counts) == 1,
        spread,
        1e-4,
        "the same images give different outputs; use version 'rand' for a randomised model",
    )


def square_check(accuracies: dict[str, float]) -> Check | None:
    """Whether the gradient-free attack helped where gradients did not: a sign of masking."""
    others = [value for name, value in accuracies.items() if name != "square"]
    if "square" not in accuracies or len(others) < 2:
        return None
    gain = min(others) - accuracies["square"]
    return Check(
        "Square finds nothing new",
        gain <= 0.002,
        gain,
        0.002,
        "Square lowered the accuracy of the gradient attacks: gradients may be masked",
    )


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
    delta = adversarial.astype(np.float64) - clean.astype(np.float64)
    flat = delta.reshape(len(delta), -1)
    sizes = np.linalg.norm(flat, {"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1)
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
