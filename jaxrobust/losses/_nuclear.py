"""The nuclear norm of the change of a batch's logits."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.inputs import InputError, aligned


def nuclear(natural: ArrayLike, adversarial: ArrayLike) -> Array:
    r"""Nuclear norm of the difference of two batches of logits, divided by their number.

    .. math:: \frac{1}{b} \|Z(x) - Z(x')\|_*

    The sum of the singular values of one matrix `[b, k]`: a number of the whole batch, which is no
    mean over its examples. Its derivative is that of the matrix's polar factor, 0 in the directions
    of singular values that are 0.

    Args:
      natural: `[b, k]`, logits of the natural images.
      adversarial: `[b, k]`, logits of the adversarial images.

    Returns:
      `[]`, float32 (float64 for float64 logits).

    Raises:
      ValueError: if an argument is not of the stated kind.

    Example:
      >>> import jax.numpy as jnp
      >>> from jaxrobust.losses import nuclear
      >>> round(float(nuclear(jnp.diag(jnp.array([3.0, 1.0])), jnp.zeros((2, 2)))), 6)
      2.0

    References:
      Sriramanan et al., Towards Efficient and Effective Adversarial Training, 2021 (NeurIPS),
      Eq. 3.
    """
    clean, adv = aligned(natural=natural, adversarial=adversarial, classes=2)
    if clean.ndim != 2:
        raise InputError(f"natural and adversarial must be logits [b, k], got shape {clean.shape}")
    return _nuclear_norm(clean - adv) / len(clean)


@jax.custom_jvp
def _nuclear_norm(matrix: Array) -> Array:
    return jnp.sum(jnp.linalg.svd(matrix, full_matrices=False, compute_uv=False))


@_nuclear_norm.defjvp
def _nuclear_norm_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    """The derivative of JAX's own singular values divides by their differences."""
    (matrix,), (tangent,) = primals, tangents
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    smallest = jnp.max(values) * max(matrix.shape) * jnp.finfo(matrix.dtype).eps
    kept = jnp.where(values > smallest, left, 0)
    polar = jnp.matmul(kept, right, precision="highest")
    return jnp.sum(values), jnp.sum(polar * tangent)
