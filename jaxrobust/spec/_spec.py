"""A call as data: what is called, and its arguments."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from pydantic_core import core_schema

from jaxrobust.spec._targets import path_of


@dataclass(frozen=True, repr=False)
class Spec:
    """A part of an experiment: what is called and its arguments, which may be parts themselves.

    Attributes:
      target: an exported name, or an import path `package.module:name`.
      args: arguments without a name.
      kwargs: arguments by name.
    """

    target: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        """As it is called: `trades(beta=6.0)`."""
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        return f"{self.target}({', '.join(given)})"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Only `from_json` makes parts of plain types: one reader, so one place to check it."""
        return core_schema.is_instance_schema(cls)


def use(target: str | Callable, /, *args: Any, **kwargs: Any) -> Spec:
    """A part of an experiment: a call that is made when the part is needed.

    Args:
      target: an exported name (`trades` of `jaxrobust.objectives`), an import path
        "package.module:name", or a function or class of a module.
      *args: arguments without a name: numbers, texts, lists, or further parts.
      **kwargs: arguments by name.

    Returns:
      The `Spec`; names and arguments are checked when it enters an `Experiment`.

    Raises:
      ValueError: for a callable that no import path leads to: a lambda, a function made inside of
        another one, a `functools.partial`, a method, or anything of `__main__`.

    Example:
      >>> from jaxrobust.spec import use
      >>> use("trades", beta=6.0)
      trades(beta=6.0)
      >>> use("chain", use("clip_by_global_norm", 1.0), use("adamw"))
      chain(clip_by_global_norm(1.0), adamw())
    """
    return Spec(target if isinstance(target, str) else path_of(target), args, kwargs)


def mapped(change: Callable[[Spec, Any], Any], value: Any, key: Any = "") -> Any:
    """`value` with the parts in its lists and dictionaries changed, each with its key there."""
    if isinstance(value, Spec):
        return change(value, key)
    if isinstance(value, list | tuple):
        return type(value)(mapped(change, inner, n) for n, inner in enumerate(value))
    if isinstance(value, dict):
        return {name: mapped(change, inner, name) for name, inner in value.items()}
    return value


def inside(value: Any) -> Iterator[Spec]:
    """Every part in a value, each before the parts that it is made of.

    Args:
      value: a part, or lists and dictionaries that hold parts.

    Yields:
      The parts.
    """
    if isinstance(value, Spec):
        yield value
        value = [value.args, value.kwargs]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from inside(inner)
