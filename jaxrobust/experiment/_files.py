"""Experiments as JSON, as Python files, and with parts of them overridden."""

import importlib.util
import json
import math
import pathlib
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, overload

import pydantic

from jaxrobust.experiment._experiment import Experiment
from jaxrobust.experiment._tradeoff import Tradeoff
from jaxrobust.inputs import InputError
from jaxrobust.spec import Spec, first_problem

OWN = "tradeoff."


class UnknownFieldError(ValueError):
    """A configuration has a field that this version does not know; a newer one may."""


def to_dict(config: Any) -> dict[str, Any]:
    """The experiment as plain JSON types; infinities are strings."""
    return _plain(pydantic.TypeAdapter(type(config)).dump_python(config))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if value in (math.inf, -math.inf) else value  # JSON has no infinity


def from_dict(values: Mapping[str, Any], kind: type = Experiment) -> Any:
    """The experiment that `to_dict` wrote.

    Raises:
      UnknownFieldError: for a field that this version does not have.
      ValueError: in one line, naming the field and the valid choices.
    """
    try:
        return pydantic.TypeAdapter(kind).validate_python(dict(values))
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "unexpected_keyword_argument":
            raise UnknownFieldError(f"the field {where!r} is unknown") from None
        prefix = f"{where}: " if where else ""
        raise ValueError(prefix + first_problem(error)) from None


@overload
def override(experiment: Experiment, assignments: Sequence[str]) -> Experiment: ...
@overload
def override(experiment: Tradeoff, assignments: Sequence[str]) -> Tradeoff: ...
def override(experiment: Any, assignments: Sequence[str]) -> Any:
    """The experiment, or every member of a trade-off, with `path=value` assignments applied.

    `epochs=3`, `validation.size=100`, `objective.beta=3` (an argument of the part),
    `objective=pgd_at` (another part, with its defaults). Values are read as the field's type;
    fractions such as `8/255` and JSON are understood. The fields of a trade-off itself are
    `tradeoff.seeds=[0]`, `tradeoff.evaluators=[]` and so on.

    Args:
      experiment: the experiment, or trade-off, to start from.
      assignments: `path=value` strings, applied in order.

    Returns:
      A new, validated experiment.

    Raises:
      ValueError: in one line, for a path that does not exist or a value that does not fit; the
        valid choices are named.

    Example:
      >>> from jaxrobust.experiment import Experiment, override
      >>> from jaxrobust.spec import use
      >>> experiment = Experiment(name="x", data=use("digits"), model=use("mlp"),
      ...     objective=use("trades"), threat=use("linf", eps=0.1))
      >>> override(experiment, ["threat.eps=8/255", "epochs=3"]).threat.kwargs
      {'eps': 0.03137254901960784}
    """
    if isinstance(experiment, Tradeoff):
        own = [a.strip() for a in assignments if a.strip().startswith(OWN)]
        rest = [a for a in assignments if not a.strip().startswith(OWN)]
        changed = _overridden(experiment, [a.removeprefix(OWN) for a in own])
        # Not the members as they come back from plain types, but as they were.
        members = tuple(override(member, rest) for member in experiment.members)
        return replace(changed, members=members)
    return _overridden(experiment, assignments)


def _overridden(experiment: Any, assignments: Sequence[str]) -> Any:
    """Assignments that only make sense together may come in any order: the result must be valid."""
    values, problem = to_dict(experiment), None
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign or not path:
            raise ValueError(f"--set {assignment!r}: write path=value, such as epochs=3")
        _assign(values, experiment, path.strip().split("."), parsed(text), path.strip())
        try:
            experiment, problem = from_dict(values, type(experiment)), None
        except ValueError as error:
            problem = error
        else:
            values = to_dict(experiment)
    if problem is not None:
        raise problem
    return experiment


def _assign(values: dict, owner: Any, path: list[str], value: Any, whole: str) -> None:
    head, *rest = path
    names = [f.name for f in fields(owner)]
    if isinstance(owner, Spec):
        if rest:
            raise ValueError(f"--set {whole}: {head!r} of {owner.name} has no parts")
        values.setdefault("kwargs", {})[head] = value
        return
    if head not in names:
        raise ValueError(f"--set {whole}: {head!r} is unknown; choose from {', '.join(names)}")
    current = getattr(owner, head)
    if not rest:
        is_part = isinstance(current, Spec) and isinstance(value, str)
        values[head] = {"name": value} if is_part else value
    elif isinstance(current, dict):  # such as schedules, whose keys are paths themselves
        values[head][".".join(rest)] = value
    elif is_dataclass(current):
        _assign(values[head], current, rest, value, whole)
    else:
        raise ValueError(f"--set {whole}: {head!r} has no parts to set")


def parsed(text: str) -> Any:
    """What a value on the command line says: JSON, else the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def load(path: str | pathlib.Path) -> Experiment | Tradeoff:
    """The `config` of an experiment file.

    Args:
      path: a Python file that defines `config`, an `Experiment` or a `Tradeoff`.

    Returns:
      The `Experiment` or `Tradeoff`.

    Raises:
      ValueError: if the file does not exist, defines no `config`, or raises an exception: one line
        that begins with the file and its line.
    """
    try:
        path = pathlib.Path(path).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{path}: {error} Give an absolute path.") from None
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(f"{path} is not an experiment file: it must be an existing .py file")
    module_spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{_place(path, module_spec.origin, error)}: {_told(error)}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, Experiment | Tradeoff):
        raise ValueError(f"{path} must define `config`, an Experiment or a Tradeoff")
    return config


def _place(path: pathlib.Path, origin: str | None, error: BaseException) -> str:
    """The file and the last of its lines that was running."""
    if isinstance(error, SyntaxError) and error.filename is not None:  # also of imported files
        return f"{error.filename}:{error.lineno}"
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == origin]
    return f"{path}:{lines[-1]}" if lines else str(path)


def _told(error: BaseException) -> str:
    """An exception in one line; the library's own messages need no name of their class."""
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error.msg}"
    message = " ".join(str(error).split())
    if type(error) in (ValueError, InputError) and message:
        return message
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
