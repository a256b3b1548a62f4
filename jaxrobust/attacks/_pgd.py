"""Projected gradient descent: one `lax` loop for any threat, loss and model."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust.attackable import checked_logits, judging, losses_of, prepare
from jaxrobust.attacks._attacked import Attacked, finite, nothing_attacked, where
from jaxrobust.inputs import InputError, as_batch, as_choice, as_count, as_number, as_step_size
from jaxrobust.keys import fold_keys, per_example_keys
from jaxrobust.losses import cross_entropy
from jaxrobust.precision import shown, widened
from jaxrobust.threats import BatchedThreat, Threat, batched
from jaxrobust.typing import LogitsFn, Loss
from jaxrobust.verdicts import misclassified


class _Settings(NamedTuple):
    """What does not change between restarts."""

    verbs: BatchedThreat
    steps: ArrayLike
    step_size: Any
    momentum: ArrayLike | None
    keep_best: bool
    stop_after: ArrayLike | None
    unroll: int | None


class _State(NamedTuple):
    """The loop's carry; per example in every leaf."""

    z: Any
    velocity: Any
    best: Any  # (z, loss, wrong) of the best iterate so far, or () where the last is kept
    kappa: Array
    patience: Array  # further steps after the first misclassification; frozen below 0
    state: Any  # of a stateful model; () for the others


def pgd(
    logits_fn: LogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    threat: Threat,
    loss: Loss = cross_entropy,
    steps: ArrayLike,
    step_size: Any,
    start: Any = None,
    restarts: int = 1,
    momentum: ArrayLike = 0.0,
    keep: Literal["last", "best"] = "last",
    stop_after: ArrayLike | None = None,
    unroll: int = 1,
    state: Any = None,
) -> Attacked:
    r"""Projected gradient ascent on `loss` inside a threat's set.

    .. math:: z_{t+1} = \Pi(z_t + \alpha\, \mathrm{dir}\, \nabla_z \ell(f(x \oplus z_t), y))

    With `loss=losses.margin` this is the CW attack used in the papers' evaluations. With `momentum`
    it is MIM, and with `stop_after` the early-stopped attack of friendly adversarial training.
    Gradients are taken of the sum over the batch, so they do not depend on the batch size.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over; Linen, NNX,
        Haiku, Equinox or a bare function. It is treated as a constant: no gradient flows out. If it
        has a method `judge`, as `mixing.guided` does, that method determines what is
        differentiated.
      key: one PRNG key, or one per example `[b]`.
      images: `[b, h, w, c]`, floating point in [0, 1]. Half precision is attacked in float32, and
        rounded towards the clean image for each query.
      labels: integer class indices `[b]`, or other labels that `loss` accepts. For soft labels
        `[b, k]`, success is measured against their argmax.
      threat: the set to stay in, see `jaxrobust.threats`; radii may be traced.
      loss: `(logits [b, k], labels) -> [b]`, maximised.
      steps: number of steps, static, or an integer array, which may be traced. 0 evaluates the
        start.
      step_size: in the threat's units (image units for norms), `[]` or `[b]`, may be traced; for a
        composed threat a tuple with one step size per part.
      start: the initial perturbation `[b, ...]`, added unchanged: it is neither clipped nor
        projected before the first gradient (the papers differ in this). With restarts
        `[restarts, b, ...]`. Default: the threat's random start.
      restarts: independent runs; each example keeps a misclassified image if any run has one, then
        the highest loss, then the later run.
      momentum: decay of the accumulated, l_1-normalised gradient; 0 for plain PGD. An array, `[]`
        or `[b]`, may be traced.
      keep: "last" returns the last iterate, "best" the best one visited (misclassified before
        correct, then the highest loss).
      stop_after: freeze an example this many steps after it is first found misclassified (the
        tau of friendly training); `[]` or `[b]`, may be traced. Default: never.
      unroll: steps per iteration of the compiled loop. The default compiles fastest. With the
        convolutions of `jaxrobust.convolutions` it runs as fast as an unrolled loop on CPU.
      state: any pytree, for a model whose state changes with every forward pass (BatchNorm in
        training mode). `logits_fn` is then `(images, state) -> (logits, state)`, and
        `Attacked.state` is the state after `steps` passes. Only one restart is possible.

    Returns:
      `Attacked`. `kappa` counts the correctly classified iterates among `x_0 ... x_{steps-1}`, each
      evaluated before its update; the last iterate is not counted, and counting continues after a
      first success (GAIRAT). With restarts it is the minimum.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust import attacks, threats
      >>> weights = jnp.array([[1.0, -1.0]])
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ weights
      >>> images, labels = jnp.full((2, 4, 4, 1), 0.5), jnp.array([0, 1])
      >>> attacked = attacks.pgd(logits_fn, jax.random.key(0), images, labels,
      ...     threat=threats.linf(0.1), steps=10, step_size=0.02)
      >>> [round(value, 2) for value in attacked.images[:, 0, 0, 0].tolist()]
      [0.4, 0.6]

    References:
      Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, 2018
      (arXiv:1706.06083). Dong et al., Boosting Adversarial Attacks with Momentum, 2018
      (arXiv:1710.06081). Zhang et al., Attacks Which Do Not Kill Training Make Adversarial
      Learning Stronger, 2020 (arXiv:2002.11242).
    """
    images, labels = as_batch(images, labels)
    _check(steps, restarts, momentum, keep, stop_after, len(images))
    step_size = as_step_size(step_size, batch=len(images))
    if state is not None and restarts > 1:
        raise InputError(f"restarts must be 1 for a model with state, got {restarts}")
    as_count(unroll, name="unroll")
    wide = widened(images)
    settings = _Settings(
        verbs=batched(threat, len(images)),
        steps=steps,
        step_size=step_size,
        momentum=None if isinstance(momentum, int | float) and not momentum else momentum,
        keep_best=keep == "best",
        stop_after=stop_after,
        unroll=min(unroll, max(steps, 1)) if isinstance(steps, int) else None,
    )
    keys = per_example_keys(key, len(images))
    if start is not None:
        wanted = jax.eval_shape(settings.verbs.init, keys, wide)
        start = _as_start(start, wanted, restarts=restarts)
    if not len(images):
        return _of_nothing(images, settings, keys, start, state, restarts)
    if state is None:
        judge = prepare(judging(logits_fn, loss, labels), images)
        evaluate, state = (lambda x, nothing: (*judge(x), nothing)), ()
    else:
        stateful = prepare(logits_fn, images, state)

        def evaluate(x: Array, state: Any) -> tuple[Array, Array, Any]:
            logits, state = stateful(x, state)
            logits = checked_logits(logits, labels)
            return losses_of(loss, logits, labels), logits, state

    def run(restart: Array | int, restart_start: Any) -> Attacked:
        if restart_start is None:
            restart_start = settings.verbs.init(fold_keys(keys, restart), wide)
        return _run(evaluate, settings, images, labels, restart_start, state)

    if restarts == 1:
        attacked = run(0, start)
    else:
        attacked = jax.lax.map(lambda r: run(*r), (jnp.arange(restarts), start))
        attacked = _best_restart(attacked)
    return jax.lax.stop_gradient(attacked)


def _check(
    steps: ArrayLike,
    restarts: int,
    momentum: ArrayLike,
    keep: str,
    stop_after: ArrayLike | None,
    batch: int,
) -> None:
    if isinstance(steps, Array) and jnp.issubdtype(steps.dtype, jnp.integer):
        as_number(steps, name="steps", low=0, lead=())
    else:
        as_count(steps, name="steps", least=0)
    as_count(restarts, name="restarts")
    as_number(momentum, name="momentum", low=0, lead=(batch,))
    if stop_after is not None:
        as_number(stop_after, name="stop_after", low=0, lead=(batch,))
    as_choice(keep, name="keep", choices=("last", "best"))


def _of_nothing(
    images: Array, settings: _Settings, keys: Array, start: Any, state: Any, restarts: int
) -> Attacked:
    """The result for an empty batch, for which a network may not know the shape of its logits."""
    if start is None:
        start = settings.verbs.init(keys, widened(images))
    elif restarts > 1:
        start = jax.tree.map(lambda leaf: leaf[0], start)
    none = jnp.zeros(0, jnp.int32)
    return nothing_attacked(images)._replace(kappa=none, perturbation=start, state=state)


def _as_start(start: Any, wanted: Any, *, restarts: int) -> Any:
    """The start in the precision of the computation.

    Raises:
      InputError: if it is not a perturbation of the threat.
    """
    form: Any = jax.tree.structure(wanted)
    if jax.tree.structure(start) != form:
        raise InputError(
            f"start must be a perturbation of the threat, {form}, got {jax.tree.structure(start)}"
        )
    ahead = () if restarts == 1 else (restarts,)

    def part(value: ArrayLike, of: Any) -> Array:
        leaf = jnp.asarray(as_number(value, name="start"))
        narrow = (
            jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < of.dtype.itemsize
        )
        leaf = leaf.astype(of.dtype) if narrow else leaf
        if leaf.shape != (*ahead, *of.shape) or leaf.dtype != of.dtype:
            raise InputError(
                f"start must be {of.dtype} of shape {(*ahead, *of.shape)}, got {leaf.dtype} of "
                f"shape {leaf.shape}"
            )
        return leaf

    return jax.tree.map(part, start, wanted)


def _run(
    evaluate: Any, settings: _Settings, images: Array, labels: Array, start: Any, model_state: Any
) -> Attacked:
    """One run from one start."""
    verbs, wide = settings.verbs, widened(images)

    def forward(z: Any, model_state: Any) -> tuple[Array, tuple[Array, Array, Any]]:
        seen = shown(verbs.apply(z, wide), images)
        losses, logits, model_state = evaluate(seen, model_state)
        return jnp.sum(losses), (losses, misclassified(logits, labels), model_state)

    def step(_: int, state: _State) -> _State:
        grads, aux = jax.grad(forward, has_aux=True)(state.z, state.state)
        losses, wrong, model_state = aux
        grads = finite(grads)
        patience = jnp.where(wrong, state.patience - 1, state.patience)
        active = (patience >= 0) if settings.stop_after is not None else None
        counted = ~wrong if active is None else ~wrong & (state.patience >= 0)
        velocity = state.velocity
        if settings.momentum is not None:
            velocity = grads = _accumulate(settings.momentum, velocity, grads)
        z = verbs.project(verbs.ascend(state.z, grads, settings.step_size), wide)
        return _State(
            z=z if active is None else where(active, z, state.z),
            velocity=velocity,
            best=_better(state.best, (state.z, losses, wrong)) if settings.keep_best else (),
            kappa=state.kappa + counted.astype(jnp.int32),
            patience=patience,
            state=model_state,
        )

    state = _initial(settings, images, labels, start, model_state, forward)
    state = jax.lax.fori_loop(0, settings.steps, step, state, unroll=settings.unroll)
    # Where only images and kappa are used (training), the compiler drops this last forward pass.
    losses, wrong, _ = forward(state.z, state.state)[1]
    z = state.z
    if settings.keep_best:
        z, losses, wrong = _better(state.best, (z, losses, wrong))
    adversarial = shown(jnp.clip(verbs.apply(z, wide), 0, 1), images)
    after = None if model_state == () else state.state
    return Attacked(adversarial, wrong, losses, kappa=state.kappa, perturbation=z, state=after)


def _initial(
    settings: _Settings, images: Array, labels: Array, start: Any, model_state: Any, forward: Any
) -> _State:
    batch = len(images)
    losses = jax.eval_shape(forward, start, model_state)[1][0]
    best: tuple = ()
    if settings.keep_best:
        best = (start, jnp.full(losses.shape, -jnp.inf, losses.dtype), jnp.zeros(batch, bool))
    patience = 0 if settings.stop_after is None else settings.stop_after
    return _State(
        z=start,
        velocity=() if settings.momentum is None else jax.tree.map(jnp.zeros_like, start),
        best=best,
        kappa=jnp.zeros(batch, jnp.int32),
        patience=jnp.broadcast_to(jnp.asarray(patience, jnp.int32), (batch,)),
        state=model_state,
    )


def _accumulate(momentum: ArrayLike, velocity: Any, grads: Any) -> Any:
    def decay(v: Array, g: Array) -> Array:
        share = jnp.asarray(momentum, g.dtype)
        share = share.reshape(share.shape + (1,) * (g.ndim - 1)) if share.ndim else share
        size = jnp.sum(jnp.abs(g), axis=tuple(range(1, g.ndim)), keepdims=True)
        return share * v + g / jnp.where(size > 0, size, 1)

    return jax.tree.map(decay, velocity, grads)


def _prefer(old: tuple[Array, Array], new: tuple[Array, Array]) -> Array:
    """Per example, whether new (loss, wrong) beats old.

    Misclassified ranks before correct, then the higher loss, then the later one. NaN never counts
    as higher.
    """
    (old_loss, old_wrong), (new_loss, new_wrong) = old, new
    return (new_wrong & ~old_wrong) | ((new_wrong == old_wrong) & (new_loss >= old_loss))


def _better(old: tuple, new: tuple) -> tuple:
    return where(_prefer(old[1:], new[1:]), new, old)


def _best_restart(runs: Attacked) -> Attacked:
    """The best of the runs stacked on the leading axis, per example."""

    def merge(old: Attacked, new: Attacked) -> tuple[Attacked, None]:
        return better_of(old, new), None

    first = jax.tree.map(lambda leaf: leaf[0], runs)
    return jax.lax.scan(merge, first, jax.tree.map(lambda leaf: leaf[1:], runs))[0]


def better_of(old: Attacked, new: Attacked) -> Attacked:
    """Per example the better of two runs; kappa is the smaller one."""
    better = _prefer((old.loss, old.success), (new.loss, new.success))
    kept = where(better, new, old)
    return kept._replace(kappa=jax.tree.map(jnp.minimum, old.kappa, new.kappa))
