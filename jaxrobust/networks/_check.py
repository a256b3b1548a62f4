"""What a trace shows of a network, before a run starts."""

from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp

from jaxrobust.inputs import InputError
from jaxrobust.keys import key_of
from jaxrobust.networks._network import Network

COLLECTIVES = ("psum", "all_gather")
EXAMPLES = 2


def check_network(
    network: Network,
    image_shape: tuple[int, ...],
    num_classes: int,
    *,
    axis_size: int | None = None,
) -> list[str]:
    """Traces a network and refuses what would train wrongly.

    Args:
      network: to be trained.
      image_shape: `(h, w, c)`.
      num_classes: `k`.
      axis_size: devices that are to share their batch statistics; `None` if they are not.

    Returns:
      Warnings: a state that never changes in training.

    Raises:
      InputError: for logits of another shape than `[b, k]`, parameters that are not floating point,
        a state that evaluation changes or that changes its structure, or batch statistics that are
        not shared.

    Example:
      >>> from jaxrobust import models, networks
      >>> networks.check_network(networks.network(models.mlp()), (4, 4, 1), 10)
      []
    """
    key, images = key_of(0), jax.ShapeDtypeStruct((EXAMPLES, *image_shape), jnp.result_type(float))
    params, state = jax.eval_shape(network.init, key, images)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            name = jax.tree_util.keystr(path, simple=True, separator=".")
            raise InputError(
                f"parameters must be floating point, got {leaf.dtype} in {name}; keep it in the "
                "state"
            )

    def run(axis: str | None, train: bool) -> Any:
        def apply(state: Any, images: Any, params: Any, key: Any) -> Any:
            options: Any = {"key": key, "axis_name": axis} if train else {}
            out, after = network.apply(params, state, images, train=train, **options)
            return after, out

        sizes = [] if axis is None or axis_size is None else [(axis, axis_size)]
        trace = jax.make_jaxpr(apply, axis_env=sizes, return_shape=True)
        return trace(state, images, params, key)

    closed, (after, logits) = run(None, False)
    if getattr(logits, "shape", None) != (EXAMPLES, num_classes):
        got = getattr(logits, "shape", jax.tree.structure(logits))
        raise InputError(
            f"the network must return logits [b, {num_classes}] for the data's {num_classes} "
            f"classes, got {got} for {EXAMPLES} images"
        )
    count = len(jax.tree.leaves(state))
    if closed.jaxpr.outvars[:count] != closed.jaxpr.invars[:count]:
        raise InputError("the network's state must not change in evaluation (train=False)")
    axis = "devices" if axis_size else None
    closed, (after, _) = run(axis, True)
    before = jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state)
    if jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), after) != before:
        raise InputError(
            "the network's state must keep its structure, shapes and types in training"
        )
    ins, outs = closed.jaxpr.invars, closed.jaxpr.outvars[:count]
    if axis and _of_batch(closed.jaxpr, ins[count], outs) and not _communicates(closed.jaxpr):
        raise InputError(
            "the network's state depends on the batch, but not on those of the other devices: give "
            "its norm layers the axis_name, or set batch_norm=per_device"
        )
    if count and outs == ins[:count]:
        return ["the network's state never changes in training: is it in evaluation mode?"]
    return []


def _of_batch(jaxpr: Any, images: Any, outs: Any) -> bool:
    """Whether some of the floating-point results depend on the images."""
    reached = {images}
    for eqn in jaxpr.eqns:
        if any(not isinstance(atom, jex.Literal) and atom in reached for atom in eqn.invars):
            reached.update(eqn.outvars)
    averaged = [out for out in outs if jnp.issubdtype(out.aval.dtype, jnp.floating)]
    return any(not isinstance(out, jex.Literal) and out in reached for out in averaged)


def _communicates(jaxpr: Any) -> bool:
    """Whether there is a collective, at any depth."""
    for eqn in jaxpr.eqns:
        if eqn.primitive.name.startswith(COLLECTIVES):
            return True
        for inner in jax.tree.leaves(tuple(eqn.params.values()), is_leaf=_is_jaxpr):
            if _is_jaxpr(inner) and _communicates(getattr(inner, "jaxpr", inner)):
                return True
    return False


def _is_jaxpr(value: Any) -> bool:
    return isinstance(value, jex.Jaxpr | jex.ClosedJaxpr)
