"""Parts as plain JSON types: `{"use": target, "args": [...], "kwargs": {...}}`."""

import math
import pathlib
from dataclasses import fields, is_dataclass
from typing import Any

from jaxrobust.spec._spec import Spec

KEYS = {"use", "args", "kwargs"}
OLD = {"name", "kwargs"}  # of files from before parts could be nested


def to_json(value: Any) -> Any:
    """Parts, dataclasses and numbers as plain JSON types; infinities and paths are texts.

    Args:
      value: what an experiment holds.

    Returns:
      Plain types, new ones throughout.

    Example:
      >>> from jaxrobust.spec import to_json, use
      >>> to_json(use("compose", use("linf", eps=0.1)))
      {'use': 'compose', 'args': [{'use': 'linf', 'kwargs': {'eps': 0.1}}]}
    """
    if isinstance(value, Spec):
        given = {"args": to_json(value.args), "kwargs": to_json(value.kwargs)}
        return {"use": value.target, **{name: inner for name, inner in given.items() if inner}}
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): to_json(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(inner) for inner in value]
    infinite = isinstance(value, float) and math.isinf(value)  # JSON has none
    if isinstance(value, pathlib.PurePath) or infinite:
        return str(value)
    return value


def from_json(value: Any, where: str) -> Spec:
    """The part that JSON says where a part stands; nothing is imported.

    Args:
      value: a name, `{"use": ...}`, or `{"name": ...}` of an older file.
      where: the field, for messages.

    Returns:
      The part, with the parts that it is made of.

    Raises:
      ValueError: for anything else.
    """
    if isinstance(value, Spec):
        return value
    if isinstance(value, str):
        return Spec(value)
    if isinstance(value, dict):
        target, args, kwargs = (value.get(key) for key in ("use", "args", "kwargs"))
        known = KEYS
        if "use" not in value:
            target, known = value.get("name"), OLD
        args, kwargs = args or [], kwargs or {}
        plain = isinstance(args, list | tuple) and isinstance(kwargs, dict)
        if plain and isinstance(target, str) and set(value) <= known:
            inner = tuple(_nested(part, f"{where}.{n}") for n, part in enumerate(args))
            return Spec(target, inner, {k: _nested(v, f"{where}.{k}") for k, v in kwargs.items()})
    raise ValueError(
        f'{where} must be a part: a name, or {{"use": name, "kwargs": {{...}}}}; got {value!r}'
    )


def _nested(value: Any, where: str) -> Any:
    """An argument: of its dictionaries, those with `use` are parts."""
    if isinstance(value, dict):
        if "use" in value and set(value) <= KEYS:
            return from_json(value, where)
        return {key: _nested(inner, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_nested(inner, f"{where}.{n}") for n, inner in enumerate(value))
    return value
