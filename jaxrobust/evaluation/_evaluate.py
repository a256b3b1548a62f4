"""Clean and robust accuracy of any logits function over a data set."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attacks import Attacked, pgd
from jaxrobust.attacks._attacked import LogitsFn, Loss, misclassified
from jaxrobust.convolutions import jit
from jaxrobust.evaluation._batches import map_batches, on_every_device
from jaxrobust.evaluation._intervals import Accuracy, accuracy
from jaxrobust.losses import cross_entropy, margin

AttackFn = Callable[[LogitsFn, Array, Array, Array], Attacked]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class PGD:
    """`attacks.pgd` with its settings bound: a pytree, so a new eps does not recompile.

    Args:
      threat: the set to stay in.
      steps: number of steps.
      step_size: in the threat's units; default 2.5 eps / steps.
      restarts: random starts.
      loss: maximised.

    Example:
      >>> from jaxrobust import evaluation, threats
      >>> evaluation.PGD(threat=threats.linf(0.1)).steps
      20
    """

    threat: Any
    step_size: ArrayLike | None = None
    steps: int = field(default=20, metadata={"static": True})
    restarts: int = field(default=1, metadata={"static": True})
    loss: Loss = field(default=cross_entropy, metadata={"static": True})

    def __call__(self, logits_fn: LogitsFn, key: Array, images: Array, labels: Array) -> Attacked:
        """Attacks a batch; the worst iterate of all restarts is kept."""
        step_size = self.step_size
        if step_size is None:
            step_size = 2.5 * self.threat.eps / max(self.steps, 1)
        return pgd(
            logits_fn,
            key,
            images,
            labels,
            threat=self.threat,
            loss=self.loss,
            steps=self.steps,
            step_size=step_size,
            restarts=self.restarts,
            keep="best",
        )


def pgd_attacks(threat: Any, **settings: Any) -> dict[str, PGD]:
    """PGD on cross-entropy and on the margin, under the names that results use.

    PGD on cross-entropy alone flatters defences that only hide its gradient (GAIRAT), so the
    two always go together.

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


class EvaluationResult(NamedTuple):
    """What `evaluate` found.

    Attributes:
      clean: accuracy on the images as they are.
      robust: accuracy under each attack; clean errors count as errors.
      worst: accuracy on the points that are robust to every attack.
      masks: `{"clean": bool [n], attack: bool [n]}`, True where classified correctly.
      adversarial_images: `{attack: [n, h, w, c]}`.
    """

    clean: Accuracy
    robust: dict[str, Accuracy]
    worst: Accuracy
    masks: dict[str, np.ndarray]
    adversarial_images: dict[str, np.ndarray]

    def figures(self) -> dict[str, Any]:
        """The accuracies as plain JSON types."""
        return {
            "clean_accuracy": self.clean._asdict(),
            "robust_accuracy": {name: value._asdict() for name, value in self.robust.items()},
            "worst_case_accuracy": self.worst._asdict(),
        }


def evaluate(
    logits_fn: LogitsFn,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    attacks: Mapping[str, AttackFn],
    batch_size: int = 256,
    seed: int = 0,
    advance: Callable[[str, int], None] = lambda attack, examples: None,
) -> EvaluationResult:
    """Clean accuracy and accuracy under each attack, over a whole data set.

    The data runs in padded batches of one shape over all devices; of several processes, which
    must all call this alike, each takes its share and gets every result. The noise of an
    example is a function of (seed, attack, index), so a per-example result depends on batch
    size, padding and devices by rounding at most.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`. If it is a pytree (as
        `models.logits_fn` makes it), new parameters do not recompile.
      images: `[n, h, w, c]` float32 in [0, 1].
      labels: `[n]` integers.
      attacks: by name, `(logits_fn, keys, images, labels) -> Attacked`, such as `pgd_attacks`.
      batch_size: examples per forward pass.
      seed: of the attacks' noise.
      advance: told attack name and number of examples after each batch (a progress bar).

    Returns:
      `EvaluationResult`.

    Raises:
      ValueError: if there are no images, or they are not floats in [0, 1].

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
    images, labels = np.asarray(images), np.asarray(labels)
    check_images(images)
    function = as_argument(logits_fn)

    def run(name: str, number: int, call: Callable) -> Any:
        return map_batches(
            lambda keys, x, y: call(function, keys, x, y),
            images,
            labels,
            seed=seed,
            attack=number,
            batch_size=batch_size,
            advance=lambda examples: advance(name, examples),
        )

    masks = {"clean": ~run("clean", 0, _clean)}
    adversarial = {}
    for number, (name, attack) in enumerate(attacks.items(), start=1):
        step = as_argument(attack)
        found = run(name, number, lambda *args, step=step: _attacked(step, *args))
        masks[name] = masks["clean"] & ~found.success
        adversarial[name] = found.images
    return EvaluationResult(
        clean=accuracy(masks["clean"]),
        robust={name: accuracy(masks[name]) for name in attacks},
        worst=accuracy(np.logical_and.reduce(list(masks.values()))),
        masks=masks,
        adversarial_images=adversarial,
    )


@jit
def _clean(logits_fn: LogitsFn, keys: Array, images: Array, labels: Array) -> Array:
    return misclassified(logits_fn(images), labels)


@jit
def _attacked(
    attack: AttackFn, logits_fn: LogitsFn, keys: Array, images: Array, labels: Array
) -> Attacked:
    found = attack(logits_fn, keys, images, labels)
    # An independent forward pass decides: an attack may not vouch for itself.
    success = misclassified(logits_fn(found.images), labels)
    return Attacked(found.images, success, found.loss)


def as_argument(function: Any) -> Any:
    """A callable as jit can take it as an argument, with its arrays on every device.

    A registered container of arrays stays what it is: other arrays in it do not recompile. Any
    other callable becomes a constant of the compiled program.
    """
    numbers = (jax.Array, np.ndarray, np.generic, int, float)
    is_container = not jax.tree_util.all_leaves([function])
    if not is_container or any(not isinstance(x, numbers) for x in jax.tree.leaves(function)):
        return jax.tree_util.Partial(function)
    return on_every_device(function)


def check_images(images: np.ndarray) -> None:
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images must be [n, h, w, c] with n >= 1, got shape {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images must be floats in [0, 1], got {images.dtype}; divide by 255")
    low, high = float(images.min()), float(images.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(
            f"images must lie in [0, 1], got values from {low:g} to {high:g}; "
            "normalisation belongs inside the model"
        )
