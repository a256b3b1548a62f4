"""What a network is, for the training loop and everything above it."""

from collections.abc import Callable
from typing import Any, Protocol

from jax import Array

from jaxrobust.inputs import InputError

Params = Any
State = Any


class Network(Protocol):
    """Two pure functions; the adapters of this room make them from the libraries' modules.

    A network is a pytree. Its array leaves are constants, which no training changes (the bases of a
    mixed classifier); everything else is static, hashable and equal for equal builds. Parameters
    are floating point; parameters and state are nested dicts with string keys, so that checkpoints
    do not depend on the library.
    """

    def init(self, key: Array, images: Array) -> tuple[Params, State]:
        """First parameters and state, from a key and images `[b, h, w, c]`."""

    def apply(
        self,
        params: Params,
        state: State,
        images: Array,
        *,
        train: bool,
        key: Array | None = None,
        axis_name: str | None = None,
        method: str | None = None,
    ) -> tuple[Any, State]:
        """Output and state of one pass over images `[b, h, w, c]` in [0, 1].

        Args:
          params: parameters.
          state: such as BatchNorm's running statistics.
          images: of one device.
          train: whether batch statistics and dropout are used. Without, `state` is returned itself.
          key: of all randomness of the pass; a training pass that draws raises without one.
          axis_name: mapped axis over whose devices batch statistics are means; without it they
            are those of `images`.
          method: `None` for logits `[b, k]`; "features" for `(logits, {name: map})`; else the name
            of the method whose output is wanted.

        Returns:
          The output, and a state with the structure, shapes and types of the given one.
        """


def named_method(module: Any, name: str) -> Callable[..., Any]:
    """The method of a module that an objective asks for.

    Args:
      module: of any library.
      name: of the method.

    Returns:
      The method.

    Raises:
      InputError: if there is none.

    Example:
      >>> from jaxrobust.networks import named_method
      >>> named_method("text", "upper")()
      'TEXT'
    """
    method = getattr(module, name, None)
    if method is None:
        kind = getattr(module, "__name__", type(module).__name__)
        raise InputError(
            f"the objective needs a network that has {name}(images), as mixed_classifier has "
            f"outputs(images), or networks.accompanied teacher(images); {kind} has no such method"
        )
    return method
