"""SCORE's toy: two Gaussian classes on the line, a small network, four ways to train it."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.theory._local_errors import ascend_on_line, local_error

Mode = Literal["standard", "pgd_at", "pgd_at_consistent", "trades"]
MODES: tuple[Mode, ...] = ("standard", "pgd_at", "pgd_at_consistent", "trades")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, kw_only=True)
class GaussianToy:
    """Two classes, each a Gaussian on the line, whose label distribution is known exactly.

    The defaults are the paper's: the wide class 0 surrounds the narrow class 1, so p_d(y=0|x)
    falls and rises again.

    Args:
      prior: probabilities of the two classes.
      mean: of the two Gaussians.
      std: standard deviations.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> logits = theory.GaussianToy().label_logits(jnp.array([[-4.0], [1.6667]]))
      >>> [round(p, 3) for p in jax.nn.softmax(logits)[:, 0].tolist()]
      [1.0, 0.562]

    References:
      Pang et al., Robustness and Accuracy Could Be Reconcilable by (Proper) Definition, 2022
      (arXiv:2202.10103), the toy demonstration of Section 3.
    """

    prior: tuple[ArrayLike, ArrayLike] = (5 / 6, 1 / 6)
    mean: tuple[ArrayLike, ArrayLike] = (-1.0, 1.0)
    std: tuple[ArrayLike, ArrayLike] = (2.0, 1.0)

    def label_logits(self, x: ArrayLike) -> Array:
        """Logits `[..., 2]` of p_d(y|x) at points `[..., 1]`, by Bayes' rule."""
        x = jnp.asarray(x)

        def joint(c: int) -> Array:
            std = jnp.asarray(self.std[c], x.dtype)
            z = (x - jnp.asarray(self.mean[c], x.dtype)) / std
            return jnp.log(jnp.asarray(self.prior[c], x.dtype)) - jnp.log(std) - z * z / 2

        return jnp.concatenate([joint(0), joint(1)], -1)

    def sample(self, key: Array, count: int, *, dtype: Any = jnp.float32) -> Array:
        """Points `[count, 1]`; each class has its share of them exactly, as in the paper."""
        # Not a draw of the class: the paper's samples have the same counts every time.
        first = jnp.arange(count, dtype=dtype) < jnp.round(
            jnp.asarray(self.prior[0], dtype) * count
        )

        def pick(pair: tuple[ArrayLike, ArrayLike]) -> Array:
            return jnp.where(first, jnp.asarray(pair[0], dtype), jnp.asarray(pair[1], dtype))

        x = pick(self.mean) + pick(self.std) * jax.random.normal(key, (count,), dtype)
        return x[:, None]


def init_toy_network(key: Array, *, features: int = 100) -> list[dict[str, Array]]:
    """Parameters of the toy's network: 1 - features - features - 2 with tanh.

    Args:
      key: a PRNG key.
      features: width of both hidden layers.

    Returns:
      Three layers, each `kernel` `[in, out]` and `bias` `[out]`, uniform within 1 / sqrt(in) as
      torch initialises dense layers.

    Example:
      >>> import jax
      >>> from jaxrobust import theory
      >>> params = theory.init_toy_network(jax.random.key(0), features=6)
      >>> [layer["kernel"].shape for layer in params]
      [(1, 6), (6, 6), (6, 2)]
    """
    widths = (1, features, features, 2)
    layers = []
    for number, (fan_in, fan_out) in enumerate(itertools.pairwise(widths)):
        kernel_key, bias_key = jax.random.split(jax.random.fold_in(key, number))
        bound = fan_in**-0.5
        kernel = jax.random.uniform(kernel_key, (fan_in, fan_out), minval=-bound, maxval=bound)
        bias = jax.random.uniform(bias_key, (fan_out,), minval=-bound, maxval=bound)
        layers.append({"kernel": kernel, "bias": bias})
    return layers


def toy_logits(params: list[dict[str, Array]], x: ArrayLike) -> Array:
    """The toy's network at points.

    Args:
      params: see `init_toy_network`.
      x: `[..., 1]`.

    Returns:
      Logits `[..., 2]`.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> params = theory.init_toy_network(jax.random.key(0), features=6)
      >>> theory.toy_logits(params, jnp.zeros((4, 1))).shape
      (4, 2)
    """
    hidden = jnp.asarray(x)
    for number, layer in enumerate(params):
        hidden = hidden @ layer["kernel"]
        hidden = hidden + jnp.broadcast_to(layer["bias"], hidden.shape)
        if number < len(params) - 1:
            hidden = jnp.tanh(hidden)
    return hidden


def toy_loss(
    params: Any,
    x: Array,
    start: Array,
    *,
    mode: Mode,
    labels_fn: Callable[[Array], Array],
    measure: str = "kl",
    eps: ArrayLike = 1.0,
    steps: int = 10,
    step_size: ArrayLike = 0.1,
    lam: ArrayLike = 1.0,
    trades_target: Literal["output", "label"] = "output",
    logits_fn: Callable[[Any, Array], Array] = toy_logits,
) -> Array:
    """The training loss of one of the toy's four modes, attack included.

    =================  ============================  ========================================
    mode               attack maximises              loss
    =================  ============================  ========================================
    standard           -                             D(p_d(x), p(x))
    pgd_at             D(p_d(x), p(x'))              D(p_d(x), p(x'))
    pgd_at_consistent  D(p_d(x'), p(x'))             D(p_d(x'), p(x')): SCORE
    trades             D(p(x), p(x'))                D(p_d(x), p(x)) + lam D(p(x), p(x'))
    =================  ============================  ========================================

    Labels are p_d's probabilities, not draws. In `pgd_at_consistent` the attack's gradient also
    passes through the label.

    Differences from the authors' code: its TRADES mode attacks as above, but trains the second
    term as lam D(p_d(x), p(x')), towards the label and not the clean output; that form is
    `trades_target="label"`. Its default mode name, 'PGDconsistent', matches none of its own
    branches. Its 'JSsqrt' is the root of the batch's mean of JS; here "sqrt_js" is a root per
    example, which is the metric (the attack is the same one: a root rises). Its C is computed
    with the risks' divergence although a second setting, `divergence_C`, is read for it; here
    the measure is an argument each time.

    Args:
      params: of the network.
      x: points `[n, 1]`.
      start: initial displacements `[n, 1]`, U(-1, 1) in the paper; unused by `standard`.
      mode: one of the modes above.
      labels_fn: points -> logits of p_d, e.g. `GaussianToy().label_logits`.
      measure: D, a name of `losses.distance`.
      eps: radius of the attack. May be traced.
      steps: attack steps, static.
      step_size: of the attack. May be traced.
      lam: weight of TRADES' second term. May be traced.
      trades_target: what TRADES' second term compares the adversarial output with.
      logits_fn: `(params, points) -> logits`.

    Returns:
      `[n]`, one value per point.

    Raises:
      ValueError: if `mode`, `measure` or `trades_target` is unknown.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import theory
      >>> toy, params = theory.GaussianToy(), theory.init_toy_network(jax.random.key(0))
      >>> x = toy.sample(jax.random.key(1), 12)
      >>> loss = theory.toy_loss(
      ...     params, x, jnp.zeros_like(x), mode="pgd_at", labels_fn=toy.label_logits)
      >>> loss.shape
      (12,)

    References:
      Pang et al., 2022 (arXiv:2202.10103), the toy demonstration of Section 3.
    """
    if mode not in MODES:
        raise ValueError(f"mode {mode!r} is unknown; choose from {list(MODES)}")
    if trades_target not in ("output", "label"):
        raise ValueError(f"trades_target must be 'output' or 'label', got {trades_target!r}")

    def error(kind: Any, weights: Any) -> Callable[[Array, Array], Array]:
        def outputs_fn(points: Array) -> Array:
            return logits_fn(weights, points)

        return local_error(kind, labels_fn=labels_fn, outputs_fn=outputs_fn, measure=measure)

    def attacked(kind: Any) -> Array:
        frozen = error(kind, jax.lax.stop_gradient(params))
        return x + ascend_on_line(frozen, x, start, eps=eps, steps=steps, step_size=step_size)

    if mode == "standard":
        return error("madry", params)(x, x)
    if mode == "pgd_at":
        return error("madry", params)(x, attacked("madry"))
    if mode == "pgd_at_consistent":
        return error("score", params)(x, attacked("score"))
    robust = "output_shift" if trades_target == "output" else "madry"
    natural = error("madry", params)(x, x)
    second = error(robust, params)(x, attacked("output_shift"))
    return natural + jnp.asarray(lam, natural.dtype) * second
