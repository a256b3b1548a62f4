"""Experiments with parts of them overridden, as `--set` does."""

import json
from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, overload

from jaxrobust.experiment._experiment import Experiment
from jaxrobust.experiment._json import made, to_dict, with_parts
from jaxrobust.experiment._parts import PARTS
from jaxrobust.experiment._tradeoff import Tradeoff
from jaxrobust.files import parse_json

OWN = "tradeoff."


@overload
def override(experiment: Experiment, assignments: Sequence[str]) -> Experiment: ...
@overload
def override(experiment: Tradeoff, assignments: Sequence[str]) -> Tradeoff: ...
def override(experiment: Any, assignments: Sequence[str]) -> Any:
    """The experiment, or every member of a trade-off, with `path=value` assignments applied.

    `epochs=3`, `validation.size=100`, `objective.beta=3` (an argument of the part),
    `objective=pgd_at` (another part, with its defaults), `objective=my_project.objectives:pairing`
    (one from outside), `optimizer.0.max_norm=5` (of the first part of a chain). Values are read as
    the field's type; fractions such as `8/255` and JSON are understood. The fields of a trade-off
    itself are `tradeoff.seeds=[0]`, `tradeoff.evaluators=[]` and so on. `epochs` leaves out members
    that train nothing (`epochs=0`).

    Args:
      experiment: the experiment, or trade-off, to start from.
      assignments: `path=value` strings, applied in order; the result is checked as a whole.

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
        members = tuple(override(member, _meant(member, rest)) for member in experiment.members)
        return replace(changed, members=members)
    return _overridden(experiment, assignments)


def _meant(member: Experiment, assignments: Sequence[str]) -> list[str]:
    """Those for a member: one that trains nothing has no use for another number of epochs."""
    untrained = not member.epochs
    return [a for a in assignments if not (untrained and a.partition("=")[0].strip() == "epochs")]


def _overridden(experiment: Any, assignments: Sequence[str]) -> Any:
    """Assignments that only make sense together may come in any order: the result must be valid."""
    if not assignments:
        return experiment
    values, kind = to_dict(experiment), type(experiment)
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign or not path:
            raise ValueError(f"--set {assignment!r}: write path=value, such as epochs=3")
        _assign(values, experiment, path.strip().split("."), parsed(text), path.strip())
    return made(with_parts(values, kind), kind)


def parsed(text: str) -> Any:
    """What a value on the command line says: JSON, else the text itself."""
    try:
        return parse_json(text)
    except json.JSONDecodeError:
        return text.strip()


def _assign(values: dict[str, Any], owner: Any, path: list[str], value: Any, whole: str) -> None:
    """Puts a value where the path leads; `owner` is what the values were before."""
    head, *rest = path
    names = [field.name for field in fields(owner)]
    if head not in names:
        raise ValueError(f"--set {whole}: {head!r} is unknown; choose from {', '.join(names)}")
    current = getattr(owner, head)
    if isinstance(owner, Experiment) and head in PARTS:
        values[head] = _changed(values[head], rest, value, whole)
    elif not rest:
        values[head] = value
    elif is_dataclass(current) and isinstance(values[head], dict):
        _assign(values[head], current, rest, value, whole)
    elif isinstance(values[head], dict):  # such as schedules, whose keys are paths themselves
        values[head][".".join(rest)] = value
    else:
        raise ValueError(f"--set {whole}: {head!r} has no parts to set")


def _changed(part: Any, path: list[str], value: Any, whole: str) -> Any:
    """A part, or a list of parts, with an argument set in it; numbers count from 0."""
    if not path:
        return value
    head, *rest = path
    if isinstance(part, list):
        if not head.isdecimal() or int(head) >= len(part):
            raise ValueError(f"--set {whole}: {head!r} is none of the {len(part)} parts, 0 first")
        number = int(head)
        return [*part[:number], _changed(part[number], rest, value, whole), *part[number + 1 :]]
    if isinstance(part, str):
        part = {"use": part}
    if not isinstance(part, dict):
        raise ValueError(f"--set {whole}: there is no part that {head!r} could be set in")
    if not {"use", "name"} & set(part):
        return {**part, head: _changed(part.get(head), rest, value, whole)}
    if head.isdecimal():
        return {**part, "args": _changed(part.get("args", []), path, value, whole)}
    kwargs = part.get("kwargs", {})
    return {**part, "kwargs": {**kwargs, head: _changed(kwargs.get(head), rest, value, whole)}}
