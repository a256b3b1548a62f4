"""Margin losses on logits: larger is worse for the classifier."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import as_logits, at_label, pick


def margin(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""The margin by which the best wrong class beats the label (the CW loss, larger = worse).

    .. math:: \max_{c \ne y} z_c - z_y

    Args:
      logits: `[..., k]` with `k >= 2`; half precision is computed in float32.
      labels: integer class indices `[...]`; leading axes broadcast.

    Returns:
      `[...]`, one value per example; positive where the example is misclassified.

    Raises:
      ValueError: if there are fewer than two classes or labels are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import margin
      >>> float(margin(jnp.array([3.0, 1.0, 2.0]), jnp.array(0)))
      -1.0

    References:
      Carlini and Wagner, Towards Evaluating the Robustness of Neural Networks, 2017
      (arXiv:1608.04644), objective f6.
    """
    scores, mask = at_label(as_logits(logits, "logits", classes=2), labels)
    others = jnp.where(mask, jnp.full_like(scores, -jnp.inf), scores)
    return jnp.max(others, -1) - pick(scores, mask)


def probability_margin(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""The margin between the probabilities of the best wrong class and the label (larger = worse).

    .. math:: \max_{c \ne y} p_c - p_y, \quad p = \mathrm{softmax}(z)

    In [-1, 1]. Its gradient vanishes where the softmax saturates, in float32 for logits that
    differ by more than about 17; the gradient of `margin` does not.

    Args:
      logits: `[..., k]` with `k >= 2`; half precision is computed in float32.
      labels: integer class indices `[...]`; leading axes broadcast.

    Returns:
      `[...]`, one value per example; positive where the example is misclassified.

    Raises:
      ValueError: if there are fewer than two classes or labels are not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import probability_margin
      >>> logits = jnp.log(jnp.array([0.7, 0.1, 0.2]))
      >>> round(float(probability_margin(logits, jnp.array(0))), 4)
      -0.5

    References:
      arXiv:2411.15210 (PMA).
    """
    scores = jax.nn.softmax(as_logits(logits, "logits", classes=2))
    probs, mask = at_label(scores, labels)
    return jnp.max(jnp.where(mask, jnp.zeros_like(probs), probs), -1) - pick(probs, mask)


def dlr(logits: ArrayLike, labels: ArrayLike) -> Array:
    r"""Difference-of-logits-ratio loss of AutoAttack (larger = worse).

    .. math:: -\frac{z_y - \max_{c \ne y} z_c}{z_{(1)} - z_{(3)} + 10^{-12}}

    Invariant to shifting and scaling the logits, hence immune to saturated softmax outputs.
    At least -1 while the label is the top class; unbounded above once it is not.

    Args:
      logits: `[..., k]` with `k >= 3`; half precision is computed in float32.
      labels: integer class indices `[...]`; leading axes broadcast.

    Returns:
      `[...]`, one value per example. Gradients also flow through the denominator.

    Raises:
      ValueError: if there are fewer than three classes (use `margin`) or labels are not
        integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import dlr
      >>> float(dlr(jnp.array([4.0, 2.0, 0.0]), jnp.array(0)))
      -0.5

    References:
      Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
      Parameter-free Attacks, 2020 (arXiv:2003.01690), Eq. 6.
    """
    scores, mask = at_label(as_logits(logits, "logits", classes=3), labels)
    top = jax.lax.top_k(scores, 3)[0]
    label_score = pick(scores, mask)
    other = jnp.where(label_score == top[..., 0], top[..., 1], top[..., 0])
    return -(label_score - other) / (top[..., 0] - top[..., 2] + 1e-12)


def dlr_targeted(logits: ArrayLike, labels: ArrayLike, targets: ArrayLike) -> Array:
    r"""Targeted difference-of-logits-ratio loss of AutoAttack (larger = worse).

    .. math:: -\frac{z_y - z_t}{z_{(1)} - (z_{(3)} + z_{(4)}) / 2 + 10^{-12}}

    The target only directs the search: any wrong class counts as success.

    Args:
      logits: `[..., k]` with `k >= 4`; half precision is computed in float32.
      labels: integer class indices `[...]`; leading axes broadcast.
      targets: integer class indices `[...]`, other than the labels.

    Returns:
      `[...]`, one value per example.

    Raises:
      ValueError: if there are fewer than four classes (use `margin`), or labels or targets are
        not integers.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import dlr_targeted
      >>> float(dlr_targeted(jnp.array([4.0, 2.0, 0.0, 0.0]), jnp.array(0), jnp.array(1)))
      -0.5

    References:
      Croce and Hein, 2020 (arXiv:2003.01690), Eq. 7.
    """
    scores, label_mask = at_label(as_logits(logits, "logits", classes=4), labels)
    scores, target_mask = at_label(scores, targets, "targets")
    label_mask = jnp.broadcast_to(label_mask, scores.shape)
    top = jax.lax.top_k(scores, 4)[0]
    gap = top[..., 0] - (top[..., 2] + top[..., 3]) / 2 + 1e-12
    return -(pick(scores, label_mask) - pick(scores, target_mask)) / gap
