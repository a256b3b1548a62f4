"""The adapter that fits an object."""

import inspect
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from jaxrobust.inputs import InputError
from jaxrobust.networks import _equinox, _nnx
from jaxrobust.networks._haiku import Haiku
from jaxrobust.networks._linen import Linen
from jaxrobust.networks._modes import parameters
from jaxrobust.networks._network import Network


@jax.tree_util.register_static
@dataclass(frozen=True)
class Opaque:
    """An object with `init` and `apply` that is no pytree: it has no constants."""

    inner: Any

    def init(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.init(*args, **kwargs)

    def apply(self, *args: Any, **kwargs: Any) -> Any:
        return self.inner.apply(*args, **kwargs)


def network(target: Any, /, **kwargs: Any) -> Network:
    """The network of an object of any library, or what a class or function makes.

    Args:
      target: a Linen module; a class or function with an argument `rngs` that makes an NNX module,
        or with an argument `key` that makes an Equinox module; a function
        `forward(images, *, train, axis_name)` of Haiku modules; a `Network`; or a class or function
        that makes one of them.
      **kwargs: arguments of the class or function.

    Returns:
      `Network`. Libraries other than Flax are imported here, when one of their networks is given.

    Raises:
      InputError: if the object is no network.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> from jaxrobust import networks
      >>> class Line(nnx.Module):
      ...     def __init__(self, *, num_classes, rngs):
      ...         self.dense = nnx.Linear(16, num_classes, rngs=rngs)
      ...     def __call__(self, images):
      ...         return self.dense(images.reshape(len(images), -1))
      >>> line, images = networks.network(Line, num_classes=3), jnp.zeros((2, 4, 4, 1))
      >>> params, state = line.init(jax.random.key(0), images)
      >>> line.apply(params, state, images, train=False)[0].shape
      (2, 3)
    """
    if not (inspect.isclass(target) or inspect.isroutine(target) or isinstance(target, partial)):
        if kwargs:
            raise InputError(
                f"arguments ({', '.join(kwargs)}) need a class or a function that takes them, got "
                f"{type(target).__name__}, which is made already"
            )
        return _adapted(target)
    names = parameters(target)
    library = library_of(target) if inspect.isclass(target) else "any"
    if "rngs" in names and library in ("nnx", "any"):
        return _nnx.made(partial(target, **kwargs))
    if "key" in names and library in ("equinox", "any"):
        return _equinox.made(partial(target, **kwargs))
    if names[:1] == ("images",):
        return Haiku(partial(target, **kwargs) if kwargs else target)
    return _adapted(target(**kwargs))


def library_of(kind: type) -> str | None:
    """The library of a class of modules: "linen", "nnx", "equinox" or "haiku"."""
    for base in kind.__mro__:
        library, _, rest = base.__module__.partition(".")
        if library == "flax":
            return "nnx" if rest.startswith("nnx") else "linen"
        if library in ("equinox", "haiku"):
            return library
    return None


def _adapted(found: Any) -> Network:
    """The network of an object. Its library comes first: Linen modules too have `init`, `apply`."""
    library = library_of(type(found))
    if library == "linen":
        return Linen(found)
    if library == "nnx":
        return _nnx.bound(found)[0]
    if library == "equinox":
        return _equinox.bound(found)[0]
    if library == "haiku":
        raise InputError(
            "model must be the function itself, forward(images, *, train, axis_name), not what "
            "hk.transform makes of it: that cannot be told its mode and axis"
        )
    if inspect.isroutine(found) or isinstance(found, partial):
        return Haiku(found)
    if hasattr(found, "init") and hasattr(found, "apply"):
        return Opaque(found) if jax.tree_util.all_leaves([found]) else found
    raise InputError(
        "model must be a module of Linen, NNX or Equinox, a function of Haiku modules, or an "
        f"object with init and apply, got {type(found).__name__}"
    )
