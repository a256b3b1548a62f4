"""Square, a score-based random search that uses only logits, no gradients."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, network
from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.attacks._square_proposals import draw, draw_start, propose, start
from jaxrobust.inputs import as_batch, as_choice, as_count, as_number, as_radius
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import margin
from jaxrobust.precision import shown, widened
from jaxrobust.typing import LogitsFn, Norm
from jaxrobust.verdicts import hard_labels, has_nan, misclassified


class SquareState(NamedTuple):
    """The progress of a run; every leaf is per example, so examples may be dropped and reordered.

    Attributes:
      images: `[b, h, w, c]`, the best images so far, inside the ball and the box.
      loss: `[b]`, their margin (largest wrong logit less the label's), which is maximised.
      success: `[b]` bool, whether these are misclassified.
      done: `[b]` bool, whether the margin has reached 0 (or was NaN from the start); the example is
        then frozen. A tie counts as done even if the argmax does not make it a success.
      queries: `[b]` int32, forward passes used by the example.
    """

    images: Array
    loss: Array
    success: Array
    done: Array
    queries: Array


def square(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: ArrayLike,
    queries: int = 5000,
    p_init: float = 0.8,
    restarts: int = 1,
) -> Attacked:
    """Random search over square-shaped changes, accepted when the margin improves.

    The search starts from stripes (l_inf) or tiles of small pyramids (l_2, l_1) of the full radius.
    Each query rewrites one window, whose size shrinks on a fixed schedule; the l_2 and l_1 attacks
    move the norm of a second window to the first. A query costs one forward pass. Each example has
    its own windows, drawn only from its key and the query's number.

    This runs until the last example of the batch is done. To drop finished examples earlier, run
    the parts of `attacks.Square`.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "linf", "l2" or "l1", over all values of an image. Static.
      eps: radius in image units, `[]` or `[b]`; may be traced.
      queries: number of queries after the one for the start, static.
      p_init: the share of the image in the first windows, static.
      restarts: independent runs, static; run `r` uses the keys with `r` folded in. Examples fooled
        by one run are frozen in the next.

    Returns:
      `Attacked`; the best image found, misclassified or not, and its margin as the loss.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> attacked = attacks.square(lambda x: logits_fn(x - 0.45), jax.random.key(0),
      ...     jnp.full((2, 8, 8, 1), 0.5), jnp.array([0, 0]), norm="linf", eps=0.1, queries=200)
      >>> attacked.success.tolist()
      [True, True]

    References:
      Andriushchenko et al., Square Attack: a Query-efficient Black-box Adversarial Attack via
      Random Search, 2020 (arXiv:1912.00049); l_1: Croce and Hein, 2021 (arXiv:2103.01208).
    """
    as_count(restarts, name="restarts")
    _check_static(queries, p_init)
    images, labels = as_batch(images, labels)
    keys = per_example_keys(key, len(images))
    if not len(images):
        return nothing_attacked(images)

    def run(restart: Array | int, fooled: Array | bool) -> SquareState:
        run_keys = fold_keys(keys, restart)
        state = square_init(logits_fn, run_keys, images, labels, norm=norm, eps=eps)
        return square_chunk(
            logits_fn,
            state._replace(done=state.done | fooled),
            run_keys,
            images,
            labels,
            norm=norm,
            eps=eps,
            first_query=0,
            queries=queries,
            p_init=p_init,
        )

    if restarts == 1:
        best = run(0, False)
    else:
        nothing = jax.tree.map(jnp.zeros_like, jax.eval_shape(run, 0, False))
        nothing = nothing._replace(loss=jnp.full_like(nothing.loss, -jnp.inf))
        best = jax.lax.fori_loop(
            0, restarts, lambda r, best: _better(best, run(r, best.success)), nothing
        )
    found = best.images.astype(images.dtype)
    return Attacked(found, best.success, best.loss, queries=best.queries)


def square_init(
    logits_fn: LogitsFn,
    keys: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: ArrayLike,
) -> SquareState:
    """The start of a run of `square` and its first query.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      keys: one PRNG key per example `[b]` (or one key, which is folded with the position).
      images: `[b, h, w, c]`, floating point in [0, 1].
      labels: integer class indices `[b]`.
      norm: "linf", "l2" or "l1".
      eps: radius in image units, `[]` or `[b]`; may be traced.

    Returns:
      The state for `square_chunk`.

    Raises:
      ValueError: if `norm` or `eps` is not of the stated kind.
    """
    keys, clean, labels, eps = _checked(keys, images, labels, norm, eps)
    wide = widened(clean)
    best = shown(start(draw_start(keys, wide, norm), wide, eps, norm=norm), clean)
    logits = checked_logits(network(logits_fn, clean)(best), labels)
    loss = margin(logits, labels)
    return SquareState(
        images=best.astype(wide.dtype),
        loss=loss,
        success=misclassified(logits, labels),
        done=~(loss < 0),
        queries=jnp.ones(len(wide), jnp.int32),
    )


def square_chunk(
    logits_fn: LogitsFn,
    state: SquareState,
    keys: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: ArrayLike,
    first_query: ArrayLike,
    queries: ArrayLike,
    p_init: float = 0.8,
) -> SquareState:
    """Some queries of `square`; fewer if all examples are done earlier.

    A run may be cut into any chunks, and examples may be dropped, reordered and regrouped in
    between: an example's result stays the same as long as its key does.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`.
      state: from `square_init` or the previous chunk.
      keys: the same keys `[b]` as `square_init` had.
      images: `[b, h, w, c]`, the clean images.
      labels: integer class indices `[b]`.
      norm: "linf", "l2" or "l1".
      eps: radius in image units, `[]` or `[b]`; may be traced.
      first_query: number of queries in all previous chunks, `[]`; may be traced.
      queries: number of queries in this chunk; may be traced.
      p_init: the share of the image in the first windows, static.

    Returns:
      The state after the chunk.

    Raises:
      ValueError: if `norm`, `eps`, `queries` or `p_init` is not of the stated kind.
    """
    _check_static(0 if isinstance(queries, Array) else queries, p_init)
    keys, clean, labels, eps = _checked(keys, images, labels, norm, eps)
    wide = widened(clean)
    evaluate = network(logits_fn, clean)
    first = jnp.asarray(first_query, jnp.int32)

    def unfinished(carry: tuple[Array, SquareState]) -> Array:
        return (carry[0] < queries) & ~jnp.all(carry[1].done)

    def query(carry: tuple[Array, SquareState]) -> tuple[Array, SquareState]:
        count, state = carry
        iteration = first + count
        draws = draw(keys, iteration, wide.shape[-1])
        proposed = propose(draws, iteration, state.images, wide, eps, norm=norm, p_init=p_init)
        seen = shown(proposed, clean)
        return count + 1, _accepted(state, seen.astype(wide.dtype), evaluate(seen), labels)

    return jax.lax.while_loop(unfinished, query, (jnp.asarray(0, jnp.int32), state))[1]


def _check_static(queries: Any, p_init: float) -> None:
    as_count(queries, name="queries", least=0)
    as_number(p_init, name="p_init", low=0, high=1, positive=True, lead=())


def _checked(
    keys: Array, clean: ArrayLike, classes: ArrayLike, norm: str, eps: ArrayLike
) -> tuple[Array, Array, Array, Array]:
    images, labels = as_batch(clean, classes)
    as_choice(norm, name="norm", choices=("linf", "l2", "l1"))
    radius = as_radius(eps, batch=len(images), largest=1 if norm == "linf" else math.inf)
    radius = jnp.broadcast_to(radius.astype(widened(images).dtype), (len(images),))
    # Were the images a constant of the program, XLA would simplify (images + d) - images to d,
    # and rounding could no longer be told from the outside.
    images = jax.lax.optimization_barrier(jax.lax.stop_gradient(images))
    return per_example_keys(keys, len(images)), images, hard_labels(labels), radius


def _accepted(state: SquareState, proposed: Array, logits: Array, labels: Array) -> SquareState:
    """The state after a query, with the better image unless the example was already done.

    NaN logits are never correct, so nothing is better for the attack.
    """
    loss = margin(logits, labels)
    broken = has_nan(logits)
    new = SquareState(
        images=proposed,
        loss=loss,
        success=misclassified(logits, labels),
        done=(loss >= 0) | broken,
        queries=state.queries,
    )
    kept = where(((loss > state.loss) | broken) & ~state.done, new, state)
    return kept._replace(queries=state.queries + (~state.done).astype(jnp.int32))


def _better(old: SquareState, new: SquareState) -> SquareState:
    """Per example, the run that fooled; ties go to the later run unless its margin is smaller."""
    no_worse = (new.success == old.success) & ~(new.loss < old.loss)
    return where((new.success & ~old.success) | no_worse, new, old)
