"""Auto-PGD: projected gradient ascent that chooses its own step sizes."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxrobust import losses, threats
from jaxrobust.attackable import checked_logits, judging, losses_of, prepare
from jaxrobust.attacks._apgd_run import Problem, best_images, run
from jaxrobust.attacks._attacked import Attacked, nothing_attacked, where
from jaxrobust.inputs import InputError, as_batch, as_count, as_labels, as_number
from jaxrobust.keys import per_example_keys
from jaxrobust.precision import widened
from jaxrobust.typing import LogitsFn, Loss, Norm
from jaxrobust.verdicts import misclassified

StochasticLogitsFn = Callable[[Array, Array], Array]  # images, keys [b] -> logits

_THREATS: dict[str, Callable[..., Any]] = {
    "linf": threats.linf,
    "l2": threats.l2,
    "l1": threats.l1,
}
_LOSSES: dict[str, Loss] = {
    "ce": losses.cross_entropy,
    "dlr": losses.dlr,
    "margin": losses.margin,
}


def _margin_targeted(logits: Array, labels: Array, targets: Array) -> Array:
    """The margin against one target, for three classes, where the targeted DLR is undefined."""
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)[None]
    to_target = jnp.where(targets[:, None] == classes, logits, 0).sum(-1)
    return to_target - jnp.where(labels[:, None] == classes, logits, 0).sum(-1)


_TARGETED: dict[str, Callable[..., Array]] = {
    "dlr_targeted": losses.dlr_targeted,
    "margin_targeted": _margin_targeted,
}


def apgd(
    logits_fn: LogitsFn | StochasticLogitsFn,
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    norm: Norm,
    eps: ArrayLike,
    loss: Literal["ce", "dlr", "dlr_targeted", "margin", "margin_targeted"] | Loss = "ce",
    targets: ArrayLike | None = None,
    steps: int = 100,
    iterations: ArrayLike | None = None,
    restarts: int = 1,
    eot: int = 1,
    stochastic: bool = False,
    eps_schedule: bool = False,
    sparsity: ArrayLike | None = None,
    keep: Literal["fooling", "loss"] = "fooling",
    start: ArrayLike | None = None,
    noise: ArrayLike | None = None,
    unroll: int = 1,
) -> Attacked:
    """Auto-PGD (APGD), the attack that AutoAttack is built on.

    Gradient ascent with momentum. Where the loss stops rising, the step is halved and the search
    returns to its best point. In l_1 the steps are sparse, and their sparsity follows that of the
    best point.

    Every iteration is one forward and backward pass of the whole batch; within a run, examples that
    are already fooled continue. For any other loss, pass a callable; it may close over traced
    values.

    Args:
      logits_fn: images `[b, h, w, c]` -> logits `[b, k]`, parameters closed over, treated as a
        constant. With `stochastic`, `(images, keys [b]) -> logits`. If it has a method `judge`, as
        `mixing.guided` does, that method determines what is differentiated and tracked.
      key: one PRNG key, or one per example `[b]`, which makes results independent of batch and
        order.
      images: `[b, h, w, c]`, floating point in [0, 1]. Half precision is attacked in float32
        and rounded towards the clean image before each query.
      labels: integer class indices `[b]`.
      norm: the norm of the ball: "linf", "l2" or "l1".
      eps: radius in image units (8/255, not 8; l_2 and l_1 over the whole image), `[]` or `[b]`,
        may be traced.
      loss: "ce", "dlr" (k >= 3), "dlr_targeted" (k >= 4), "margin", "margin_targeted", or a
        function `(logits [b, k], labels) -> [b]`; maximised.
      targets: classes `[b]` of a targeted loss. Any wrong class counts as success.
      steps: iterations, static; the checkpoints are computed from it. 0 evaluates the start.
      iterations: integer `[]`, may be traced: the number of iterations to run, at most `steps`,
        with the checkpoints of that number.
      restarts: independent runs, static; an example keeps its first success. Runs stop when all
        are fooled.
      eot: passes of the model per iteration, static. The gradient is their mean; loss and
        prediction are the last pass's, so one wrong prediction counts as success.
      stochastic: the model draws fresh randomness from the keys of each pass.
      eps_schedule: run 30 %, 30 % and 40 % of the steps with radii 3, 2 and 1 times `eps`, each
        from the best point of the previous stage; l_1 only. Only the last stage can succeed.
      sparsity: the share of values in (0, 1] that the first l_1 steps change; it then follows the
        sparsity of the best point. May be traced. Default: 0.2 for a random start, as in
        AutoAttack, and the share of non-zeros of a given `start`. Training attacks use 0.05.
      keep: "fooling" returns misclassified images, or the clean images where there are none; "loss"
        returns the images of highest loss (for training) and needs one run.
      start: perturbation `[b, h, w, c]` to start from, projected into the ball and the box.
        With restarts `[restarts, b, h, w, c]`. Default: random.
      noise: random numbers for the random start, in the shape of `start`: uniform in [-1, 1) for
        l_inf, standard normal for l_2 and l_1. Default: drawn from `key`.
      unroll: iterations per iteration of the compiled loop, static.

    Returns:
      `Attacked`. `images`: the latest misclassified image of the first successful run, or the clean
      image if no run succeeded (see `keep`). `success`: whether any visited image was
      misclassified. `loss`: the highest in that run, or over all runs if none succeeded.

    Raises:
      ValueError: if an argument is not of the stated kind, shape or range, or does not fit another.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from jaxrobust.attacks import apgd
      >>> def logits_fn(x): return x.mean(axis=(1, 2)) @ jnp.array([[1.0, -1.0]])
      >>> attacked = apgd(logits_fn, jax.random.key(0), jnp.full((1, 4, 4, 1), 0.25),
      ...     jnp.array([1]), norm="linf", eps=0.125, steps=10)
      >>> attacked.success.tolist(), attacked.images[0, 0, 0, 0].item()
      ([True], 0.375)

    References:
      Croce and Hein, Reliable Evaluation of Adversarial Robustness with an Ensemble of Diverse
      Parameter-free Attacks, 2020 (arXiv:2003.01690), Algorithm 1. Croce and Hein, Mind the Box:
      l_1-APGD for Sparse Adversarial Attacks on Image Classifiers, 2021 (arXiv:2103.01208).
    """
    if keep not in ("fooling", "loss") or (keep == "loss" and restarts != 1):
        raise InputError(
            f"keep must be 'fooling', or 'loss' with one restart; got {keep!r}, {restarts} restarts"
        )
    images, labels = as_batch(images, labels)
    problem = _problem(
        logits_fn,
        images,
        labels,
        norm=norm,
        eps=eps,
        loss=_loss(loss, targets, len(images)),
        steps=steps,
        iterations=iterations,
        eps_schedule=eps_schedule,
        sparsity=sparsity,
        eot=eot,
        stochastic=stochastic,
        unroll=unroll,
    )
    keys = per_example_keys(key, len(problem.images))
    points = _first_points(problem, restarts, start=start, noise=noise)
    clean = problem.images.astype(problem.dtype)
    if len(clean) == 0:
        return nothing_attacked(clean)

    def attack(number: Array | int) -> Attacked:
        chosen = jax.tree.map(lambda leaf: leaf[number], points)
        state, _ = run(problem, keys, number=number, **chosen)
        if keep == "loss":
            found = best_images(problem, state)
        else:
            found = where(state.success, state.adversarial, clean)
        return Attacked(found, state.success, state.best_loss)

    attacked = attack(0) if restarts == 1 else _restarted(attack, clean, restarts)
    return jax.lax.stop_gradient(attacked)


def _restarted(attack: Callable[[Array | int], Attacked], clean: Array, restarts: int) -> Attacked:
    """The first success of each example; runs until all are fooled."""

    def unfinished(carry: tuple[Array, Attacked]) -> Array:
        number, attacked = carry
        return (number < restarts) & ~jnp.all(attacked.success)

    def again(carry: tuple[Array, Attacked]) -> tuple[Array, Attacked]:
        number, old = carry
        new = attack(number)
        highest = new._replace(loss=jnp.fmax(old.loss, new.loss))  # fmax: NaN is lower than any
        return number + 1, where(old.success, old, where(new.success, new, highest))

    loss = jax.eval_shape(attack, 0).loss
    lowest = jnp.full(loss.shape, -jnp.inf, loss.dtype)
    nothing = Attacked(clean, jnp.zeros(len(clean), bool), lowest)
    return jax.lax.while_loop(unfinished, again, (jnp.zeros((), jnp.int32), nothing))[1]


def _problem(
    logits_fn: Callable[..., Array],
    images: Array,
    labels: Array,
    *,
    norm: str,
    eps: ArrayLike,
    loss: Loss,
    iterations: ArrayLike | None = None,
    margin: Loss | None = None,
    stochastic: bool = False,
    sparsity: ArrayLike | None = None,
    **options: Any,
) -> Problem:
    """The checked arguments, constants of the attack: no gradient flows through any."""
    if norm not in _THREATS:
        raise InputError(f"norm must be one of {sorted(_THREATS)}, got {norm!r}")
    _check_options(norm=norm, **options)
    if iterations is not None and options["eps_schedule"]:
        raise InputError("iterations cannot be given with eps_schedule, whose stages are static")
    _check_sparsity(sparsity, norm=norm, eps_schedule=options["eps_schedule"])
    radius = _THREATS[norm](eps).eps
    if radius.shape not in ((), (len(images),)):
        raise InputError(
            f"eps must be one number or one per example, shape ({len(images)},); "
            f"got shape {radius.shape}"
        )
    # Behind a barrier, as XLA re-associates sums with constants, such as images closed over by a
    # compiled function: `(images + u) - images` would lose the rounding that is to be measured.
    precise = jax.lax.optimization_barrier(widened(images))
    radius = jnp.broadcast_to(radius.astype(precise.dtype), (len(images),))
    if stochastic:

        def judge(x: Array, keys: Array) -> tuple[Array, Array]:
            logits = checked_logits(prepare(lambda seen: logits_fn(seen, keys), x)(x), labels)
            return losses_of(loss, logits, labels), logits
    else:
        judged = judging(logits_fn, loss, labels)
        prepared = prepare(judged, images) if len(images) else judged

        def judge(x: Array, keys: Array) -> tuple[Array, Array]:
            return prepared(x)

    return Problem(
        judge=judge,
        margin=_verdict if margin is None else margin,
        images=jax.lax.stop_gradient(precise),
        labels=jax.lax.stop_gradient(labels),
        eps=jax.lax.stop_gradient(radius),
        norm=norm,
        dtype=images.dtype,
        iterations=_checked_iterations(iterations),
        sparsity=sparsity,
        **options,
    )


def _verdict(logits: Array, labels: Array) -> Array:
    """-1 where misclassified, else 1: the image that APGD keeps is the latest misclassified."""
    return jnp.where(misclassified(logits, labels), -1, 1)


def _check_options(*, norm: str, eps_schedule: bool, steps: int, eot: int, unroll: int) -> None:
    for name, value, least in (("steps", steps, 0), ("eot", eot, 1), ("unroll", unroll, 1)):
        as_count(value, name=name, least=least)
    if eps_schedule and norm != "l1":
        raise InputError(f"eps_schedule needs norm='l1', got norm={norm!r}")


def _check_sparsity(sparsity: ArrayLike | None, *, norm: str, eps_schedule: bool) -> None:
    if sparsity is None:
        return
    as_number(sparsity, name="sparsity", low=0, high=1, positive=True, lead=())
    if norm != "l1" or eps_schedule:
        raise InputError(
            "sparsity applies to the first steps in norm='l1' without eps_schedule, whose stages "
            f"start from each other; got sparsity={sparsity}, norm={norm!r}, "
            f"eps_schedule={eps_schedule}"
        )


def _checked_iterations(iterations: ArrayLike | None) -> Array | None:
    if iterations is None:
        return None
    as_number(iterations, name="iterations", low=0)
    number = jnp.asarray(iterations)
    if number.shape or not jnp.issubdtype(number.dtype, jnp.integer):
        raise InputError(f"iterations must be one integer, got {number.dtype} {number.shape}")
    return number


def _loss(loss: str | Loss, targets: ArrayLike | None, batch: int) -> Loss:
    """The loss as a function of logits and labels."""
    towards = None if callable(loss) else _TARGETED.get(loss)
    if (towards is None) != (targets is None):
        raise InputError(
            f"targets [b] must be given for loss={' or '.join(map(repr, _TARGETED))}, and for no "
            f"other loss; got loss={loss!r} and targets "
            f"{'missing' if targets is None else 'given'}"
        )
    if callable(loss):
        return loss
    if towards is not None:
        classes = jnp.asarray(as_labels(targets, batch=batch, name="targets"))
        return lambda logits, labels: towards(logits, labels, classes)
    if loss not in _LOSSES:
        names = [*_LOSSES, *_TARGETED]
        raise InputError(f"loss must be one of {names} or a function, got {loss!r}")
    return _LOSSES[loss]


def _first_points(
    problem: Problem, restarts: int, **given: ArrayLike | None
) -> dict[str, Array | None]:
    """`start` and `noise` with an axis of restarts."""
    as_count(restarts, name="restarts")
    if all(value is not None for value in given.values()):
        raise InputError("start and noise must not both be given: noise makes a random start")
    shape = problem.images.shape

    def per_restart(name: str, value: ArrayLike | None) -> Array | None:
        if value is None:
            return None
        as_number(value, name=name)
        array = jax.lax.stop_gradient(jnp.asarray(value, problem.images.dtype))
        expected = shape if restarts == 1 else (restarts, *shape)
        if array.shape != expected:
            raise InputError(
                f"{name} has the wrong shape: it must be {expected}, got {array.shape}"
            )
        return array.reshape(restarts, *shape)

    return {name: per_restart(name, value) for name, value in given.items()}
