"""Arguments that are no parts: numbers, texts and lists, converted to the types of a signature."""

import collections.abc
import dataclasses
import math
import pathlib
import re
import types
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import pydantic

from jaxrobust.spec._signatures import numeric

SEQUENCES = (tuple, list, collections.abc.Sequence)
MAPPINGS = (dict, collections.abc.Mapping)
PLAIN = bool | int | float | str | list | dict | None


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


def check_booleans(value: Any, hint: Any, where: str) -> None:
    """Refuses `True` where a number stands, and a number where a boolean does: both would be taken.

    Args:
      value: plain types.
      hint: the type that is asked for.
      where: names the value in messages.

    Raises:
      ValueError: in one line.
    """
    kinds = _alternatives(hint)
    if isinstance(value, bool | np.bool_):
        if {int, float} & kinds and bool not in kinds:
            raise ValueError(f"{where} must be a number, got {value}")
    elif isinstance(value, int | float):
        if bool in kinds and not {int, float} & kinds:
            raise ValueError(f"{where} must be true or false, got {value!r}")
    elif isinstance(value, list | tuple):
        for kind in kinds:
            inner = [k for k in get_args(kind) if k is not Ellipsis]
            if get_origin(kind) in SEQUENCES and inner:
                each = inner if len(inner) > 1 else inner * len(value)
                for number, (part, of) in enumerate(zip(value, each, strict=False)):
                    check_booleans(part, of, f"{where}.{number}")
    elif isinstance(value, dict):
        for kind in kinds:
            if get_origin(kind) in MAPPINGS and len(get_args(kind)) == 2:
                for name, part in value.items():
                    check_booleans(part, get_args(kind)[1], f"{where}.{name}")
            elif dataclasses.is_dataclass(kind):
                for name, of in get_type_hints(kind, include_extras=True).items():
                    if name in value:
                        check_booleans(value[name], of, f"{where}.{name}")


def _alternatives(hint: Any) -> set[Any]:
    """The types that a hint allows, without annotations."""
    if get_origin(hint) is Annotated:
        return _alternatives(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(_alternatives, get_args(hint)))
    return {hint}


def converted(value: Any, hint: Any, where: str) -> Any:
    """An argument as the type that the signature asks for.

    Raises:
      ValueError: if it does not fit, or is nothing that JSON can hold.
    """
    check_booleans(value, numeric(hint), where)
    try:
        adapter = pydantic.TypeAdapter(numeric(hint))
    except pydantic.errors.PydanticUserError:  # a type that only its library knows
        adapter = pydantic.TypeAdapter(PLAIN)
    try:
        return _plain(not_nan(adapter.validate_python(number(value))), free=hint is Any)
    except pydantic.ValidationError as error:
        raise ValueError(f"{where}: {first_problem(error)}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _plain(value: Any, *, free: bool) -> Any:
    """Refuses what could not be stored; what no type describes is as it comes back from JSON."""
    if isinstance(value, list | tuple):
        inner = [_plain(part, free=free) for part in value]
        return inner if free else value
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str if free else str | int):
                raise ValueError(f"the keys of dictionaries must be texts, got {key!r}")
        found = {key: _plain(part, free=free) for key, part in value.items()}
        return found if free else value
    if not isinstance(value, bool | int | float | str | pathlib.PurePath | None):
        raise ValueError(
            f"an argument must be a number, a text, a list, a dictionary or a part, got {value!r}"
        )
    return value


def first_problem(error: pydantic.ValidationError) -> str:
    """One line about the first thing that a validation found wrong."""
    problem = error.errors(include_url=False)[0]
    if problem["type"] == "value_error":  # raised by our own checks: they name the value
        return problem["msg"].removeprefix("Value error, ")
    return f"{problem['msg']}, got {problem['input']!r}"
