"""Arguments that are no parts: numbers, texts and lists, converted to the types of a signature."""

import math
import pathlib
import re
from typing import Annotated, Any

import pydantic

from jaxrobust.spec._signatures import numeric

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


def converted(value: Any, hint: Any, where: str) -> Any:
    """An argument as the type that the signature asks for.

    Raises:
      ValueError: if it does not fit, or is nothing that JSON can hold.
    """
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
