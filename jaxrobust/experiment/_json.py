"""Experiments as JSON."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

import pydantic

from jaxrobust.experiment._experiment import Experiment
from jaxrobust.experiment._parts import PARTS
from jaxrobust.experiment._tradeoff import Tradeoff
from jaxrobust.spec import check_booleans, check_stored, first_problem, from_json, to_json, trusted


class UnknownFieldError(ValueError):
    """A configuration has a field that this version does not know; a newer one may."""


def to_dict(config: Any) -> dict[str, Any]:
    """The experiment as plain JSON types; infinities are strings."""
    return to_json(config)


def from_dict(
    values: Mapping[str, Any], kind: type = Experiment, *, trust: Sequence[str] = ()
) -> Any:
    """The experiment that `to_dict` wrote.

    It may come from anybody: parts are named by their exported names only, and by import paths of
    the packages that the caller trusts. Nothing is imported before all names are checked.

    Args:
      values: of `to_dict`, also of older versions.
      kind: `Experiment`, or another class of this package.
      trust: top-level packages whose code the values may name, besides those of the environment
        variable `JAXROBUST_TRUST`.

    Returns:
      The experiment.

    Raises:
      UnknownFieldError: for a field that this version does not have.
      UntrustedError: for code of another package that is not trusted.
      ValueError: in one line, naming the field and the valid choices.
    """
    found = with_parts(values, kind)
    check_stored(list(found.values()), trusted(trust))
    return made(found, kind)


def made(values: Mapping[str, Any], kind: type) -> Any:
    """An object of this package from its fields, whose parts are `Spec`s."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        if name in values:
            check_booleans(values[name], hint, name)
    try:
        return pydantic.TypeAdapter(kind).validate_python(dict(values))
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "unexpected_keyword_argument":
            raise UnknownFieldError(f"the field {where!r} is unknown") from None
        prefix = f"{where}: " if where else ""
        raise ValueError(prefix + first_problem(error)) from None


def with_parts(values: Mapping[str, Any], kind: type = Experiment) -> dict[str, Any]:
    """The values with `Spec`s where parts stand; nothing is imported.

    Raises:
      ValueError: for what is no part, where one must stand.
    """
    found = dict(values)
    if kind is Tradeoff and isinstance(found.get("members"), list | tuple):
        found["members"] = [
            with_parts(member) if isinstance(member, dict) else member
            for member in found["members"]
        ]
    if kind not in (Experiment, Tradeoff):
        return found
    for name in PARTS:
        value = found.get(name)
        if isinstance(value, list | tuple):
            found[name] = tuple(from_json(v, f"{name}[{i}]") for i, v in enumerate(value))
        elif value is not None:
            found[name] = from_json(value, name)
    if "front_evaluators" in found:
        each = enumerate(found["front_evaluators"])
        found["front_evaluators"] = tuple(from_json(v, f"front_evaluators[{i}]") for i, v in each)
    if isinstance(found.get("schedules"), dict):
        paths = found["schedules"].items()
        found["schedules"] = {path: from_json(v, f"schedules[{path!r}]") for path, v in paths}
    return found


def normal(values: Mapping[str, Any], kind: type = Experiment) -> dict[str, Any]:
    """A stored configuration as this version would write it; nothing is imported.

    Args:
      values: of `to_dict`, also of older versions.
      kind: the class that they are of.

    Returns:
      The values in today's form, missing fields with their defaults.

    Raises:
      UnknownFieldError: for a field that this version does not have.
    """
    known = {field.name: field for field in fields(kind)}
    for name in values:
        if name not in known:
            raise UnknownFieldError(f"the field {name!r} is unknown")
    found = to_json(with_parts(values, kind))
    for name, field in known.items():
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        if is_dataclass(default) and isinstance(found.get(name), dict) and name not in PARTS:
            found[name] = normal(found[name], type(default))
        elif name not in found and default is not MISSING:
            found[name] = to_json(default)
    return found
