"""Clean and robust accuracy of any logits function over a data set."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import PGD, Attack
from jaxrobust.evaluation._checks import (
    AttackResultError,
    classes_check,
    finite_check,
    logit_checks,
    sampled,
)
from jaxrobust.evaluation._clean import clean_batch, clean_pass
from jaxrobust.evaluation._evaluation_result import EvaluationResult
from jaxrobust.evaluation._examples import one_shape, over_examples
from jaxrobust.evaluation._intervals import accuracy
from jaxrobust.evaluation._programs import Compiled
from jaxrobust.inputs import InputError, as_count, as_flag, as_images, as_labels, as_seed
from jaxrobust.keys import key_of
from jaxrobust.losses import margin
from jaxrobust.typing import LogitsFn

KEPT_BYTES = 256 * 2**20  # adversarial images are kept by default while they take no more
BOX_ROUNDING = 1e-6  # what an attack's images may leave the box by


def pgd_attacks(threat: Any, **settings: Any) -> dict[str, PGD]:
    """PGD on cross-entropy and on the margin, under the names that results use.

    PGD on cross-entropy alone overestimates the robustness of defences that only hide its gradient
    (GAIRAT), so the two always run together.

    Args:
      threat: the set to stay in.
      **settings: `steps`, `step_size`, `restarts` of `PGD`.

    Returns:
      `{"pgd": ..., "margin_pgd": ...}`.

    Example:
      >>> from jaxrobust import evaluation, threats
      >>> list(evaluation.pgd_attacks(threats.linf(0.1)))
      ['pgd', 'margin_pgd']
    """
    return {
        "pgd": PGD(threat=threat, **settings),
        "margin_pgd": PGD(threat=threat, loss=margin, **settings),
    }


def evaluate(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    attacks: Mapping[str, Attack],
    batch_size: int = 256,
    seed: int = 0,
    keep_images: bool | None = None,
    advance: Callable[[str, int], None] = lambda attack, examples: None,
) -> EvaluationResult:
    """Clean accuracy and accuracy under each attack, over a whole data set.

    The data runs in padded batches of one shape over all devices. With several processes, all of
    them must make the same call; they share the work, and each gets every result. The noise of an
    example is a function of (seed, attack, index), so batch size, padding and devices change an
    example's result by rounding at most. NaN and +inf logits count as misclassified.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, k >= 2, in evaluation mode. If it is a
        pytree (such as the result of `models.logits_fn`), new parameters do not recompile; neither
        does another closure over arrays of the same shapes.
      images: `[n, h, w, c]` floating point in [0, 1].
      labels: `[n]` integers in 0..k-1.
      attacks: by name, `(logits_fn, keys, images, labels) -> Attacked`, such as `pgd_attacks`.
      batch_size: examples per forward pass.
      seed: the seed of the attacks' noise.
      keep_images: whether the result has the adversarial images; default: if those of all attacks
        take at most 256 MiB.
      advance: called with the attack's name and the number of examples after each batch (for a
        progress bar).

    Returns:
      `EvaluationResult`.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, or the logits of an
        image depend on the rest of its batch (a network in training mode).
      AttackResultError: if an attack returns images of another shape or outside of [0, 1].

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust import evaluation, threats
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[10.0, -10.0]]) - jnp.array([[5.0, -5.0]])
      >>> images = jnp.array([0.1, 0.45, 0.55, 0.9]).reshape(4, 1, 1, 1)
      >>> result = evaluation.evaluate(logits_fn, images, jnp.array([1, 1, 0, 0]),
      ...     attacks=evaluation.pgd_attacks(threats.linf(0.1)))
      >>> result.clean.value, result.robust["pgd"].value
      (1.0, 0.5)
    """  # noqa: E501
    images, labels = checked_data(images, labels)
    as_count(batch_size, name="batch_size")
    seed = as_seed(seed)
    check_by_name(attacks)
    if "clean" in attacks:
        raise InputError("attacks must not be named 'clean', which names the unattacked images")
    for name, attack in attacks.items():
        check_one_radius(name, attack)
    if keep_images is None:
        keep_images = images.nbytes * len(attacks) <= KEPT_BYTES
    keep_images = as_flag(keep_images, name="keep_images")

    shapes, indices = one_shape(len(images), batch_size), np.arange(len(images))
    clean = Compiled(clean_batch, logits_fn, static=(False,))
    done = partial(advance, "clean")
    logits, wrong, predictions = clean_pass(clean, images, labels, shapes, done=done)
    masks = {"clean": ~wrong}
    nan_logits, adversarial = {"clean": int((predictions < 0).sum())}, {}
    program = None
    for number, (name, attack) in enumerate(attacks.items(), start=1):
        if program is None:
            program = Compiled(_attacked, attack, logits_fn, static=(bool(keep_images),))
        else:
            program = program.again(attack, logits_fn)
        key = jax.random.fold_in(key_of(seed), number)
        wrong, broken, outside, kept = over_examples(
            program, key, indices, images, labels, shapes=shapes, done=partial(advance, name)
        )
        if outside.any():
            raise AttackResultError(
                f"{name} returned {int(outside.sum())} images that are not finite or not in [0, 1]"
            )
        masks[name] = masks["clean"] & ~wrong
        nan_logits[name] = int(broken.sum())
        if keep_images:
            adversarial[name] = kept
    rows = sampled(~masks["clean"])
    return EvaluationResult(
        clean=accuracy(masks["clean"]),
        robust={name: accuracy(masks[name]) for name in attacks},
        worst=accuracy(np.logical_and.reduce(list(masks.values()))),
        masks=masks,
        adversarial_images=adversarial,
        nan_logits=nan_logits,
        checks=(
            finite_check(nan_logits, logits),
            classes_check(logits.argmax(-1), labels),
            *logit_checks(logits[rows], labels[rows]),
        ),
    )


def checked_data(images: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """A whole data set on the host: images `[n, h, w, c]` and labels `[n]` int32."""
    images = np.asarray(as_images(images, empty=False))
    return images, np.asarray(as_labels(labels, batch=len(images)))


def check_by_name(attacks: Any) -> None:
    """Refuses attacks that are not by name, or of which one cannot be called."""
    if not isinstance(attacks, Mapping) or not all(map(callable, attacks.values())):
        raise InputError(
            f"attacks must be attacks by name, such as pgd_attacks makes, got {attacks!r:.80}"
        )


def check_one_radius(name: str, attack: Attack) -> None:
    """Raises for a radius or step size per example: a batch could not tell its own ones."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(attack):
        field = next((key for key in map(_field, path) if key in ("threat", "step_size")), None)
        if field and np.ndim(leaf):
            raise InputError(
                f"{field} of attack {name!r} must be one number for all images, got shape "
                f"{np.shape(leaf)}; for a radius per example call the attack itself, batch by batch"
            )


def _field(key: Any) -> str:
    return getattr(key, "name", "")


def _attacked(
    keep_images: bool,
    attack: Attack,
    logits_fn: LogitsFn,
    keys: Array,
    images: Array,
    labels: Array,
) -> tuple[Array, Array, Array, Array | None]:
    """Whether the attack's images are misclassified, give NaN or leave the box, and the images."""
    found = attack(logits_fn, keys, images, labels).images
    if jnp.shape(found) != images.shape:
        raise AttackResultError(
            f"an attack must return images of the shape it was given, {images.shape}, got "
            f"{jnp.shape(found)}"
        )
    # An independent forward pass decides: an attack may not vouch for itself.
    _, wrong, predictions = clean_batch(False, logits_fn, found, labels, keys)
    inside = (found >= -BOX_ROUNDING) & (found <= 1 + BOX_ROUNDING)
    outside = ~jnp.all(inside, (1, 2, 3))
    return wrong, predictions < 0, outside, found if keep_images else None
