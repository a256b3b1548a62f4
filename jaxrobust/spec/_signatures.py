"""What a call takes: the parameters of functions and classes, and their types."""

import inspect
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin, get_type_hints

from jax.typing import ArrayLike

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
ARRAYS = set(get_args(ArrayLike)) - {bool, int, float, complex}
SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _function(call: Any) -> Any:
    """Classes are read by their `__init__`: metaclasses of network libraries hide it."""
    own = inspect.isclass(call) and call.__init__ is not object.__init__
    return call.__init__ if own else call


def signature_of(call: Callable) -> inspect.Signature:
    """The signature of a function or class, without `self`.

    Args:
      call: the callable.

    Returns:
      The signature; `(*args, **kwargs)` where none can be told.
    """
    function = _function(call)
    try:
        found = inspect.signature(function)
    except ValueError:
        return inspect.signature(lambda *args, **kwargs: None)
    if function is not call:
        return found.replace(parameters=list(found.parameters.values())[1:])
    return found


def hints_of(call: Callable) -> dict[str, Any]:
    """The types of the parameters, as far as they can be told.

    Args:
      call: the callable.

    Returns:
      Types by name of the parameter; without those that only a type checker can see.
    """
    function = _function(call)
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # one of them cannot be seen (optax.adamw's); the others can
        found: dict[str, Any] = {}
    for name, hint in getattr(function, "__annotations__", {}).items():
        alone = types.SimpleNamespace(__annotations__={name: hint})
        try:
            found |= get_type_hints(
                alone, globalns=getattr(function, "__globals__", {}), include_extras=True
            )
        except Exception:
            continue
    return found


def numeric(hint: Any) -> Any:
    """The type without arrays: experiments hold plain numbers where arrays may stand."""
    members = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    if float not in members or not ARRAYS & set(members):
        return hint
    others = [m for m in members if m not in ARRAYS and m not in (bool, int, float, complex)]
    return Union[(float, *others)]
