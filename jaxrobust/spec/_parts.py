"""What may stand in a field of an experiment, and calls that are made of it."""

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxrobust.spec._signatures import POSITIONAL, signature_of
from jaxrobust.spec._spec import Spec, mapped
from jaxrobust.spec._targets import resolved


@dataclass(frozen=True)
class Part:
    """A kind of part.

    Attributes:
      names: the callables that have a short name; others are named by their import path.
      needs: attributes that the built object must have.
      what: the object in words, for messages.
      supplied: arguments that come from where the part is built, if its signature has them.
      inner: kinds of the parts that stand in some of its arguments; other arguments hold parts of
        this kind again.
    """

    names: Mapping[str, Callable]
    needs: tuple[str, ...]
    what: str
    supplied: tuple[str, ...] = ()
    inner: Mapping[str, "Part"] = field(default_factory=dict)

    def of(self, argument: Any) -> "Part":
        """The kind of the parts in an argument."""
        return self.inner.get(argument, self)

    def short(self, target: str, call: Callable) -> str:
        """The exported name of a callable, or the path that it was named by."""
        if ":" not in target:
            return target
        return next((name for name, value in self.names.items() if value is call), target)


def choices(module: types.ModuleType, kind: Callable[[Any], bool]) -> dict[str, Callable]:
    """The public exports of `module` that `kind` accepts, by name."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and callable(value) and kind(value)
    }


def called(
    spec: Spec, part: Part, where: str, **supplied: Any
) -> tuple[Callable, tuple[Any, ...], dict[str, Any]]:
    """What a part calls, with the parts in its arguments built.

    Args:
      spec: of `checked`.
      part: its kind.
      where: the field, for messages.
      **supplied: arguments for every call that has them and does not set them.

    Returns:
      The callable, its arguments and its keyword arguments.
    """
    call = resolved(spec.target, part.names, where)

    def inner(argument: Spec, key: Any) -> Any:
        return built(argument, part.of(key), f"{where}.{key}", **supplied)

    args = mapped(inner, spec.args)
    kwargs = {name: _inner(inner, value, name) for name, value in spec.kwargs.items()}
    free = _free(call, spec)
    return call, args, {**{k: v for k, v in supplied.items() if k in free}, **kwargs}


def _inner(change: Callable, value: Any, name: str) -> Any:
    """The parts in an argument, also those in a list, are of the kind of the argument."""
    return mapped(lambda spec, _: change(spec, name), value)


def _free(call: Callable, spec: Spec) -> set[str]:
    """The parameters of a call that a part does not set."""
    parameters = signature_of(call).parameters.values()
    places = [p.name for p in parameters if p.kind in POSITIONAL][: len(spec.args)]
    return {p.name for p in parameters} - set(places) - set(spec.kwargs)


def built(spec: Spec, part: Part, where: str, **supplied: Any) -> Any:
    """The object that a part stands for.

    Args:
      spec: of `checked`.
      part: its kind.
      where: the field, for messages.
      **supplied: arguments for every call that has them and does not set them.

    Returns:
      What the call returns.

    Raises:
      ValueError: if it is no part of this kind.
    """
    call, args, kwargs = called(spec, part, where, **supplied)
    made = call(*args, **kwargs)
    for name in part.needs:
        if not hasattr(made, name):
            raise ValueError(
                f"{where}: {spec.target} made {type(made).__name__}, which is no {part.what}: "
                f"it has no {name}"
            )
    return made


def receives(spec: Spec, part: Part, name: str) -> bool:
    """Whether a part, or one that it is made of, gets a supplied argument.

    Args:
      spec: of `checked`.
      part: its kind.
      name: of the argument.

    Returns:
      False if supplying it would have no effect.
    """
    found = [name in _free(resolved(spec.target, part.names, spec.target), spec)]

    def look(inner: Spec, key: Any) -> None:
        found.append(receives(inner, part.of(key), name))

    mapped(look, spec.args)
    for argument, value in spec.kwargs.items():
        _inner(look, value, argument)
    return any(found)
