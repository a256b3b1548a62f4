"""A name and keyword arguments that stand for a call: how experiment files name their parts.

The export is the registry: `use("trades", beta=6)` in an objective's place is
`jaxrobust.objectives.trades(beta=6)`, and exporting a function makes it usable.
"""

import inspect
import math
import re
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, get_type_hints

import pydantic
from jax.typing import ArrayLike


@dataclass(frozen=True)
class Spec:
    """A part of an experiment: the exported `name` to call and its keyword arguments."""

    name: str
    kwargs: dict[str, Any] = field(default_factory=dict)


def use(name: str, /, **kwargs: Any) -> Spec:
    """A part of an experiment by its exported name.

    Args:
      name: as exported by the part's package (`trades` of `jaxrobust.objectives`).
      **kwargs: its keyword arguments.

    Returns:
      The `Spec`; names and arguments are checked when it enters an `Experiment`.

    Example:
      >>> from jaxrobust.spec import use
      >>> use("trades", beta=6.0)
      Spec(name='trades', kwargs={'beta': 6.0})
    """
    return Spec(name, kwargs)


def number(value: Any) -> Any:
    """`value`, with a fraction such as "8/255" turned into a float.

    Raises:
      ValueError: for a fraction that is no number.
    """
    if isinstance(value, str):
        match = re.fullmatch(r"\s*([-+.\deE]+)\s*/\s*([-+.\deE]+)\s*", value)
        if match:
            try:
                return float(match[1]) / float(match[2])
            except (ValueError, ZeroDivisionError):
                raise ValueError(f"{value!r} is no fraction such as 8/255") from None
    return value


def not_nan(value: Any) -> Any:
    """`value`, in which no number may be NaN.

    Raises:
      ValueError: if one is.
    """
    inner = value.values() if isinstance(value, dict) else value
    if isinstance(value, dict | list | tuple):
        for part in inner:
            not_nan(part)
    elif isinstance(value, float) and math.isnan(value):
        raise ValueError("NaN is no setting")
    return value


Number = Annotated[float, pydantic.BeforeValidator(number), pydantic.AfterValidator(not_nan)]


def choices(module: types.ModuleType, kind: Callable[[Any], bool]) -> dict[str, Callable]:
    """The public exports of `module` that `kind` accepts, by name."""
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if not name.startswith("_") and callable(value) and kind(value)
    }


def checked(spec: Spec, available: dict[str, Callable], path: str) -> Spec:
    """The spec with its arguments converted to the types of the callable's signature.

    Raises:
      ValueError: for an unknown name or argument, or a value of the wrong type; the message
        names the valid choices.
    """
    if spec.name not in available:
        raise ValueError(f"{path}: {spec.name!r} is unknown; choose from {', '.join(available)}")
    call = available[spec.name]
    signature = inspect.signature(call)
    types_of = _types(call)
    parameters = {n: p for n, p in signature.parameters.items() if n != "learning_rate"}
    kwargs = {}
    for name, value in spec.kwargs.items():
        if name not in parameters:
            raise ValueError(
                f"{path}.{name} is not an argument of {spec.name}; "
                f"choose from {', '.join(parameters) or '(it has none)'}"
            )
        kwargs[name] = _converted(value, types_of.get(name, Any), f"{path}.{name}")
    required = [
        n
        for n, p in parameters.items()
        if p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]
    missing = [n for n in required if n not in kwargs]
    if missing:
        raise ValueError(f"{path}: {spec.name} needs {', '.join(missing)}")
    return Spec(spec.name, kwargs)


def _types(call: Any) -> dict[str, Any]:
    """The parameters' types; none where a type is one that only a type checker can see."""
    try:
        subject = call.__init__ if inspect.isclass(call) else call
        return get_type_hints(subject, include_extras=True)
    except NameError:  # optax.adamw's
        return {}


def _converted(value: Any, hint: Any, path: str) -> Any:
    if hint == ArrayLike:
        hint = float
    elif hint == ArrayLike | None:
        hint = float | None
    try:
        adapter = pydantic.TypeAdapter(hint)
    except pydantic.errors.PydanticSchemaGenerationError:
        adapter = pydantic.TypeAdapter(bool | int | float | str | list | None)
    try:
        return not_nan(adapter.validate_python(number(value)))
    except pydantic.ValidationError as error:
        raise ValueError(f"{path}: {first_problem(error)}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def first_problem(error: pydantic.ValidationError) -> str:
    """One line about the first thing that a validation found wrong."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":  # raised by our own checks: they name the value
        return problem["msg"].removeprefix("Value error, ")
    return f"{problem['msg']}, got {problem['input']!r}"
