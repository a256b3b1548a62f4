"""The points of a sweep: one experiment for every value of a knob."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxrobust.inputs import InputError
from jaxrobust.spec import Spec, use

if TYPE_CHECKING:
    from jaxrobust.experiment._experiment import Experiment

SCHEDULES = "schedules."


class SweepPoint(NamedTuple):
    """One experiment of a line.

    Attributes:
      experiment: without a sweep; its name is that of the point.
      line: name of the experiment that carries the sweep, or of this one if there is no sweep.
      knob: what is swept, such as "beta"; empty without a sweep.
      value: of the knob; `None` without a sweep.
    """

    experiment: "Experiment"
    line: str
    knob: str
    value: float | None


def sweep_points(experiment: "Experiment") -> tuple[SweepPoint, ...]:
    """The experiments that a sweep stands for, in the order of its values.

    A swept `threat.eps` is the radius of training: it becomes a constant schedule, so all points
    are validated and evaluated under the experiment's own threat.

    Args:
      experiment: with or without a sweep.

    Returns:
      A point for each value; the experiment alone if it has no sweep.

    Raises:
      ValueError: if the path names nothing that points may differ in, or a value is out of range.

    Example:
      >>> from jaxrobust.experiment import Experiment, sweep_points, use
      >>> experiment = Experiment(name="TRADES", data=use("digits"), model=use("mlp"),
      ...     objective=use("trades"), threat=use("linf", eps=0.1),
      ...     sweep={"objective.beta": (1, 6), })
      >>> [(p.experiment.name, p.experiment.objective.kwargs) for p in sweep_points(experiment)]
      [('TRADES beta 1', {'beta': 1.0}), ('TRADES beta 6', {'beta': 6.0})]
    """
    if not experiment.sweep:
        return (SweepPoint(experiment, experiment.name, "", None),)
    ((path, values),) = experiment.sweep.items()
    knob = _knob(path)
    alone, change = replace(experiment, sweep={}), _changed(experiment, path)
    return tuple(
        SweepPoint(
            replace(alone, name=f"{experiment.name} {knob} {value:.6g}", **change(value)),
            experiment.name,
            knob,
            value,
        )
        for value in values
    )


def check_sweep(experiment: "Experiment") -> None:
    """Makes all points, which checks them.

    Raises:
      ValueError: see `sweep_points`.
    """
    if not experiment.sweep:
        return
    if len(experiment.sweep) > 1:
        raise InputError(
            f"sweep must have one path, so that its points form a line, got "
            f"{', '.join(experiment.sweep)}"
        )
    ((path, values),) = experiment.sweep.items()
    if len(values) < 2:
        raise InputError(f"sweep[{path!r}] must have at least two values, got {list(values)}")
    names = [point.experiment.name for point in sweep_points(experiment)]
    if len(set(names)) < len(names):
        raise InputError(
            f"sweep[{path!r}] must have values that differ in six digits, got {list(values)}"
        )


def _knob(path: str) -> str:
    """What labels show: `schedules.threat.eps.end` is the eps that training ends with."""
    scheduled = path.startswith(SCHEDULES)
    parts = path.removeprefix(SCHEDULES).split(".")
    return parts[1] if scheduled else ".".join(parts[1:])


def _changed(experiment: "Experiment", path: str) -> Callable[[float], dict[str, Any]]:
    """The fields of a point, by its value."""
    head, _, name = path.partition(".")
    if path.startswith(SCHEDULES):
        return _with_schedule(experiment, path)
    if head == "model":
        return _with_model(experiment, path, name)
    if head not in ("objective", "threat", "transform") or path not in experiment.changing():
        choices = [p for p in experiment.changing() if p.partition(".")[0] != "optimizer"]
        choices = [p for p in choices if p != "awp"]
        choices += [f"{SCHEDULES}{p}.ARGUMENT" for p in experiment.schedules]
        raise InputError(
            f"sweep: {path!r} is no number that the runs of one program may differ in; choose "
            f"from {', '.join(choices)}"
        )
    if path in experiment.schedules:
        raise InputError(
            f"sweep: {path!r} follows a schedule, which replaces it; sweep an argument of the "
            f"schedule, {SCHEDULES}{path}.ARGUMENT"
        )
    if head == "objective":
        spec = experiment.objective
        return lambda value: {"objective": _with(spec, [name], value)}
    schedules = experiment.schedules
    return lambda value: {"schedules": {**schedules, path: use("constant", value=value)}}


def _with_schedule(experiment: "Experiment", path: str) -> Callable[[float], dict[str, Any]]:
    schedules = experiment.schedules
    rest = path.removeprefix(SCHEDULES)
    swept = next((p for p in schedules if rest.startswith(f"{p}.")), None)
    if swept is None or swept.partition(".")[0] not in ("objective", "threat", "transform"):
        raise InputError(
            f"sweep: {path!r} must be {SCHEDULES}PATH.ARGUMENT for one of the experiment's "
            f"schedules of objective, threat or transform; it has {', '.join(schedules) or 'none'}"
        )
    argument = rest.removeprefix(f"{swept}.").split(".")
    spec = schedules[swept]
    return lambda value: {"schedules": {**schedules, swept: _with(spec, argument, value)}}


def _with_model(
    experiment: "Experiment", path: str, name: str
) -> Callable[[float], dict[str, Any]]:
    if experiment.epochs:
        raise InputError(
            f"sweep: {path!r} changes the network, and networks that are trained must be equal to "
            f"share a program; sweep it with epochs=0, got epochs={experiment.epochs}"
        )
    return lambda value: {"model": _with(experiment.model, [name], value)}


def _with(spec: Spec, path: Sequence[str], value: float) -> Spec:
    """The call with another argument: a keyword, or a place in a list that is one."""
    name, *places = path
    kwargs = {**spec.kwargs, name: _placed(spec.kwargs.get(name), places, value, ".".join(path))}
    return replace(spec, kwargs=kwargs)


def _placed(current: Any, places: Sequence[str], value: float, where: str) -> Any:
    if not places:
        return value
    place, *rest = places
    fits = isinstance(current, Sequence) and not isinstance(current, str) and place.isdecimal()
    if isinstance(current, Mapping) or not fits or int(place) >= len(current):
        raise InputError(
            f"sweep: {where!r} leads to no place of a list, got {place!r} in {current}"
        )
    number = int(place)
    changed = _placed(current[number], rest, value, where)
    return [*current[:number], changed, *current[number + 1 :]]
